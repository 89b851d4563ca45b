//! The state of the daemon at one moment, and what is counted since it started.
//!
//! Each part is counted where it happens: the engine has its [`EngineCounters`], the shell its
//! [`CallMetrics`], the readers their errors. [`Metrics`] is all of it at one moment. It has no id of
//! a card, a user or a reader.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{
    Atr, AuditLine, CallError, CardIdentity, Entry, EntryId, Family, NotIdentified,
    NotIdentifiedReason, Outcome, ReaderAttributes, ReaderName, ReaderSettings,
};

/// Everything that `cardbridge status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    pub station: String,
    pub version: String,
    pub started_at: Timestamp,
    pub pcscd: PcscdView,
    pub readers: Vec<ReaderView>,
    pub cm: CmView,
    #[serde(default)]
    pub credentials: CredentialsView,
    pub outbox: OutboxView,
    /// The latest audit lines, the newest first.
    pub recent_audit: Vec<AuditLine>,
    /// What the outbox had lost when the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum PcscdView {
    /// No answer yet, good or bad.
    Connecting,
    Connected {
        since: Timestamp,
    },
    Unavailable {
        since: Timestamp,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderView {
    pub reader: ReaderName,
    pub settings: ReaderSettings,
    #[serde(default)]
    pub attributes: ReaderAttributes,
    /// Since when the card state is as it is.
    pub since: Timestamp,
    pub card: CardView,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CardView {
    Empty,
    Mute,
    Reading {
        atr: Atr,
    },
    Identified {
        atr: Atr,
        identity: CardIdentity,
        /// The entry it made, once that is on disk.
        entry: Option<EntryId>,
    },
    NotIdentified {
        atr: Atr,
        error: NotIdentified,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CmView {
    /// No call was made since the start or the last reload.
    Unknown,
    Available {
        since: Timestamp,
    },
    Unavailable {
        since: Timestamp,
        reason: String,
        detail: String,
        remedy: String,
        /// Milliseconds until the next trial.
        next_try_ms: u64,
    },
}

/// How the station authenticates to CM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsView {
    pub method: String,
    /// A principal, or a client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Absent where the station has nothing, or something that does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxView {
    pub waiting: usize,
    pub parked: usize,
    pub oldest_waiting_at: Option<Timestamp>,
    pub write_error: Option<String>,
}

/// One entry, as `cardbridge outbox` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    pub entry: Entry,
    /// How often CM was called since the daemon started.
    pub attempts: u32,
    pub last_error: Option<String>,
    /// Milliseconds until it is retried, where that is known.
    pub next_try_ms: Option<u64>,
}

/// All that is counted, and the state, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    pub at: Timestamp,
    pub state: StatusView,
    pub counters: EngineCounters,
    pub calls: CallMetrics,
    /// By their code.
    pub pcsc_errors: BTreeMap<String, u64>,
    /// Threads that a card or pcscd blocks.
    pub stuck_threads: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineCounters {
    pub insertions: u64,
    /// Inserted cards that did not answer.
    pub mute_cards: u64,
    pub removals: u64,
    pub probes: BTreeMap<ProbeResult, u64>,
    pub pcscd_losses: u64,
    pub cm_outages: u64,
    pub outbox_errors: u64,
    /// Outcomes that are on disk.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Results that came too late to be believed.
    pub stale_results: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeResult {
    Identified(Family),
    NotIdentified(NotIdentifiedReason),
}

/// What a call to CM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum CmOperation {
    /// Find a card's record and requests.
    Lookup,
    ReadRecord,
    SetStatus,
    ReadRequest,
    CompleteRequest,
}

enum_names!(CmOperation);

/// The calls to CM, by operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallMetrics(BTreeMap<CmOperation, CallStats>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallStats {
    /// `ok`, or what [`CallError::kind`] says.
    pub results: BTreeMap<&'static str, u64>,
    pub total_duration: Duration,
}

impl CallMetrics {
    /// Counts a call that returned.
    pub fn count(&mut self, call: CmOperation, error: Option<&CallError>, took: Duration) {
        let stats = self.0.entry(call).or_default();
        *stats.results.entry(error.map_or("ok", CallError::kind)).or_default() += 1;
        stats.total_duration += took;
    }

    pub fn iter(&self) -> impl Iterator<Item = (CmOperation, &CallStats)> {
        self.0.iter().map(|(call, stats)| (*call, stats))
    }
}

impl CallStats {
    pub fn count(&self) -> u64 {
        self.results.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnavailableReason;

    #[test]
    fn calls_are_counted_by_operation_and_result() {
        let mut calls = CallMetrics::default();
        let away = CallError::Unavailable {
            reason: UnavailableReason::Timeout,
            detail: String::new(),
            retry_after: None,
        };
        calls.count(CmOperation::SetStatus, None, Duration::from_secs(1));
        calls.count(CmOperation::SetStatus, Some(&away), Duration::from_secs(2));
        calls.count(CmOperation::Lookup, None, Duration::ZERO);
        let set: Vec<_> =
            calls.iter().filter(|(call, _)| *call == CmOperation::SetStatus).collect();
        let [(_, stats)] = set.as_slice() else { panic!("{calls:?}") };
        assert_eq!(stats.results, BTreeMap::from([("ok", 1), ("timeout", 1)]));
        assert_eq!((stats.count(), stats.total_duration), (2, Duration::from_secs(3)));
    }
}
