//! What the shell tells the engine.

use super::EngineSettings;
use crate::domain::{
    Atr, AuditLine, CallError, CardIdentity, CardRecord, CompleteRequestResult, EntryId,
    InsertionId, LookupResult, NotIdentified, PcscdInstance, ReaderAttributes, ReaderName, Removal,
    RequestStatus, SetStatusResult, Trigger,
};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The PC/SC service answers.
    PcscdConnected,
    /// The PC/SC service is gone, and every reader with it.
    PcscdUnavailable {
        /// Why.
        reason: String,
    },
    /// Every reader and card that was there from the start has been told.
    InitialScanDone,
    /// A reader came.
    ReaderAttached {
        /// Which.
        reader: ReaderName,
        /// What it is watched through, where that is certain.
        instance: Option<PcscdInstance>,
    },
    /// A reader's driver told what it tells of it; nothing, where it cannot.
    AttributesRead {
        /// Which.
        reader: ReaderName,
        /// What it told.
        attributes: ReaderAttributes,
    },
    /// A reader went.
    ReaderDetached {
        /// Which.
        reader: ReaderName,
    },
    /// A card came.
    CardInserted(InsertedCard),
    /// A card came that does not answer.
    CardMute {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
    },
    /// A card went.
    CardRemoved {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Whether it was taken out, as far as that can be told.
        removal: Removal,
    },
    /// A card that is being read has said who it is; its inventory may follow.
    Identified {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Who it is.
        identity: CardIdentity,
    },
    /// No other program uses the card in a reader any more.
    CardReleased {
        /// Where.
        reader: ReaderName,
    },
    /// A card was read.
    ProbeFinished {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Who it is, or why that is not known.
        result: Result<CardIdentity, NotIdentified>,
    },
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

/// A card that came, as the reader tells it.
#[derive(Debug, Clone)]
pub struct InsertedCard {
    /// Where.
    pub reader: ReaderName,
    /// Which stay.
    pub insertion: InsertionId,
    /// Its ATR.
    pub atr: Atr,
    /// The reader's PC/SC event counter.
    pub event_count: u32,
    /// Whether it was there when the reader was first looked at.
    pub at_start: bool,
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
