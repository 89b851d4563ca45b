//! What the shell tells the engine.

use super::EngineSettings;
use crate::domain::{
    AuditLine, CallError, CardRecord, CompleteRequestResult, EntryId, InsertionId, LookupResult,
    ReaderEvent, RequestStatus, SetStatusResult, Trigger,
};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something happened at the readers.
    Reader(ReaderEvent),
    /// The outbox took an entry, or not.
    EntryAppended {
        /// The stay that made it.
        insertion: InsertionId,
        /// By its beginning, or by its end.
        trigger: Trigger,
        /// Its number and the audit lines of those it superseded; or why not.
        result: Result<(EntryId, Vec<AuditLine>), OutboxFailure>,
    },
    /// CM was asked about a card.
    LookedUp {
        /// For whom.
        entry: EntryId,
        /// What it knows.
        result: Result<LookupResult, CallError>,
    },
    /// A record was read again.
    RecordRead {
        /// For whom.
        entry: EntryId,
        /// The record.
        result: Result<CardRecord, CallError>,
    },
    /// A decision is on disk, or not.
    StageSaved {
        /// Whose.
        entry: EntryId,
        /// Why not.
        result: Result<(), OutboxFailure>,
    },
    /// CM was told to change a record.
    StatusSet {
        /// For whom.
        entry: EntryId,
        /// How CM took it.
        result: Result<SetStatusResult, CallError>,
    },
    /// A request was read again.
    RequestRead {
        /// For whom.
        entry: EntryId,
        /// Where it stands.
        result: Result<RequestStatus, CallError>,
    },
    /// CM was told that a request is completed.
    RequestCompleted {
        /// For whom.
        entry: EntryId,
        /// How CM took it.
        result: Result<CompleteRequestResult, CallError>,
    },
    /// An outcome is on disk, or not.
    EntrySettled {
        /// Whose.
        entry: EntryId,
        /// Its audit line; or why not.
        result: Result<AuditLine, OutboxFailure>,
    },
    /// A parked entry is back in the queue on disk, or not.
    EntryUnparked {
        /// Which.
        entry: EntryId,
        /// The line of the act; or why not.
        result: Result<AuditLine, OutboxFailure>,
    },
    /// An audit line that belongs to no entry is on disk.
    AuditAppended(AuditLine),
    /// The configuration was read again.
    Reconfigured(Box<EngineSettings>),
}

/// Why the outbox did not do what it was asked to, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxFailure {
    /// Nothing was stored; the same may work later.
    Retryable(String),
    /// The outbox does not have the entry any more, or not as it was written: nothing that is
    /// asked of it will ever work.
    EntryLost(String),
}

impl OutboxFailure {
    /// In words.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Retryable(detail) | Self::EntryLost(detail) => detail,
        }
    }
}
