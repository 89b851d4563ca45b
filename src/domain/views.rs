//! The state of the daemon at one moment, for people and programs that ask.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Atr, AuditLine, CardIdentity, Entry, EntryId, NotIdentified, ReaderAttributes, ReaderName,
    ReaderSettings,
};

/// Everything that `cardbridge status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The station's id.
    pub station: String,
    /// The daemon's version.
    pub version: String,
    /// Since when the daemon runs.
    pub started_at: Timestamp,
    /// The PC/SC service.
    pub pcscd: PcscdView,
    /// Every reader that PC/SC knows.
    pub readers: Vec<ReaderView>,
    /// The connection to CM.
    pub cm: CmView,
    /// What lets the station in there.
    #[serde(default)]
    pub credentials: CredentialsView,
    /// The outbox.
    pub outbox: OutboxView,
    /// The latest audit lines, the newest first.
    pub recent_audit: Vec<AuditLine>,
    /// What the outbox was found to have lost when the daemon started, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<String>,
}

/// The PC/SC service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum PcscdView {
    /// No answer yet, good or bad.
    Connecting,
    /// Readers can be watched.
    Connected {
        /// Since when.
        since: Timestamp,
    },
    /// Nothing can be watched.
    Unavailable {
        /// Since when.
        since: Timestamp,
        /// Why, in words.
        reason: String,
    },
}

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderView {
    /// Its PC/SC name.
    pub reader: ReaderName,
    /// What the configuration makes of it.
    pub settings: ReaderSettings,
    /// What its driver tells of it.
    #[serde(default)]
    pub attributes: ReaderAttributes,
    /// Since when the card state is as it is.
    pub since: Timestamp,
    /// What is in it.
    pub card: CardView,
}

/// What is in a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CardView {
    /// Nothing.
    Empty,
    /// A card that does not answer: turn it round.
    Mute,
    /// A card that is being read.
    Reading {
        /// Its ATR.
        atr: Atr,
    },
    /// A card whose id is known.
    Identified {
        /// Its ATR.
        atr: Atr,
        /// Who it is.
        identity: CardIdentity,
        /// The entry it made, once that is on disk.
        entry: Option<EntryId>,
    },
    /// A card whose id is not known.
    NotIdentified {
        /// Its ATR.
        atr: Atr,
        /// Why.
        error: NotIdentified,
    },
}

/// The connection to CM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum CmView {
    /// CM was not asked anything since the start, or since the configuration was read again.
    Unknown,
    /// CM answers.
    Available {
        /// Since when.
        since: Timestamp,
    },
    /// CM is away.
    Unavailable {
        /// Since when.
        since: Timestamp,
        /// Which kind of away, as one word.
        reason: String,
        /// What happened last, in words.
        detail: String,
        /// What somebody can do about it.
        remedy: String,
        /// Milliseconds until somebody knocks again, when the snapshot was made.
        next_try_ms: u64,
    },
}

/// What lets the station in at CM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsView {
    /// `cm.auth.method`.
    pub method: String,
    /// Who the station is: a principal, or a client's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Until when what it has is good; absent where it has nothing, or something that does not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Why it could not be renewed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_error: Option<String>,
}

/// The outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxView {
    /// Entries that wait for CM.
    pub waiting: usize,
    /// Entries that wait for a person.
    pub parked: usize,
    /// When the oldest waiting card was seen.
    pub oldest_waiting_at: Option<Timestamp>,
    /// Why nothing can be written, where that is so.
    pub write_error: Option<String>,
}

/// One entry, as `cardbridge outbox` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The entry.
    pub entry: Entry,
    /// How often CM was asked since the daemon started.
    pub attempts: u32,
    /// What came of it last, in words.
    pub last_error: Option<String>,
    /// Milliseconds until it is tried again, where that is known.
    pub next_try_ms: Option<u64>,
}
