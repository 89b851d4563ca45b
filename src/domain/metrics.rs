//! What is counted since the daemon started, for monitoring.
//!
//! Each part is counted by whoever knows: the engine its [`EngineCounters`], the shell its [`CallMetrics`], the
//! readers their errors. [`Metrics`] is all of it at one moment. There is no name of a card, a
//! person or a reader in it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{CallError, Family, NotIdentifiedReason, Outcome, StatusView};

/// All that is counted, and the state, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The moment.
    pub at: Timestamp,
    /// The state.
    pub state: StatusView,
    /// What the engine counted.
    pub counters: EngineCounters,
    /// The calls to CM.
    pub calls: CallMetrics,
    /// Errors of PC/SC, by their code.
    pub pcsc_errors: BTreeMap<String, u64>,
    /// Threads that a card or pcscd holds.
    pub stuck_threads: usize,
}

/// What the engine counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineCounters {
    /// Cards that came and answered.
    pub insertions: u64,
    /// Cards that came and did not answer.
    pub mute_cards: u64,
    /// Cards that went.
    pub removals: u64,
    /// What came of reading cards.
    pub probes: BTreeMap<ProbeResult, u64>,
    /// How often pcscd was lost.
    pub pcscd_losses: u64,
    /// How often CM was found to be away.
    pub cm_outages: u64,
    /// What was asked of the outbox in vain.
    pub outbox_errors: u64,
    /// Outcomes that are on disk.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Answers that came too late to be believed.
    pub stale_results: u64,
}

/// What came of reading a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeResult {
    /// It is known who it is.
    Identified(Family),
    /// It is not.
    NotIdentified(NotIdentifiedReason),
}

/// The calls to CM, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallMetrics(BTreeMap<CmOperation, CallStats>);

/// What a call to CM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CmOperation {
    /// To find a card's record and requests.
    Lookup,
    /// To read a record again.
    ReadRecord,
    /// To set a record's status.
    SetStatus,
    /// To read a request again.
    ReadRequest,
    /// To complete a request.
    CompleteRequest,
}

/// The calls of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallStats {
    /// How they ended: `ok`, or what [`CallError::kind`] says.
    pub results: BTreeMap<&'static str, u64>,
    /// How long they took, all together.
    pub total_duration: Duration,
}

impl CmOperation {
    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::ReadRecord => "read-record",
            Self::SetStatus => "set-status",
            Self::ReadRequest => "read-request",
            Self::CompleteRequest => "complete-request",
        }
    }
}

impl CallMetrics {
    /// Counts a call that ended, by its error if it has one.
    pub fn count(&mut self, call: CmOperation, error: Option<&CallError>, took: Duration) {
        let tally = self.0.entry(call).or_default();
        *tally.results.entry(error.map_or("ok", CallError::kind)).or_default() += 1;
        tally.total_duration += took;
    }

    /// Each kind of call that was made.
    pub fn iter(&self) -> impl Iterator<Item = (CmOperation, &CallStats)> {
        self.0.iter().map(|(call, tally)| (*call, tally))
    }
}

impl CallStats {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.results.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnavailableReason;

    #[test]
    fn calls_are_counted_by_purpose_and_end() {
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
        let [(_, tally)] = set.as_slice() else { panic!("{calls:?}") };
        assert_eq!(tally.results, BTreeMap::from([("ok", 1), ("timeout", 1)]));
        assert_eq!((tally.count(), tally.total_duration), (2, Duration::from_secs(3)));
    }
}
