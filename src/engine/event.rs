//! What the shell tells the engine.

use super::Policy;
use crate::domain::{
    Atr, AuditLine, CallError, CardIdentity, CardRecord, CompleteRequestResult, EntryId,
    InsertionId, LookupResult, NotIdentified, PcscdInstance, ReaderAttributes, ReaderName, Removal,
    RequestStatus, SetStatusResult, Trigger,
};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The PC/SC service answers.
    ServiceUp,
    /// The PC/SC service is gone, and every reader with it.
    ServiceDown {
        /// Why.
        reason: String,
    },
    /// Every reader and card that was there from the start has been told.
    ServiceSettled,
    /// A reader came.
    Attached {
        /// Which.
        reader: ReaderName,
        /// What it is watched through, where that is certain.
        instance: Option<PcscdInstance>,
    },
    /// A reader's driver told what it tells of it; nothing, where it cannot.
    Described {
        /// Which.
        reader: ReaderName,
        /// What it told.
        attributes: ReaderAttributes,
    },
    /// A reader went.
    Detached {
        /// Which.
        reader: ReaderName,
    },
    /// A card came.
    CardPresent(Presence),
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
        how: Removal,
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
    LetGo {
        /// Where.
        reader: ReaderName,
    },
    /// A card was read.
    Probed {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Who it is, or why that is not known.
        result: Result<CardIdentity, NotIdentified>,
    },
    /// The outbox took an entry, or not.
    Appended {
        /// The stay that made it.
        insertion: InsertionId,
        /// By its beginning, or by its end.
        trigger: Trigger,
        /// Its number and the audit lines of those it superseded; or why not.
        result: Result<(EntryId, Vec<AuditLine>), StoreFailure>,
    },
    /// CM was asked about a card.
    LookedUp {
        /// For whom.
        entry: EntryId,
        /// What it knows.
        result: Result<LookupResult, CallError>,
    },
    /// A record was read again.
    ReadBack {
        /// For whom.
        entry: EntryId,
        /// The record.
        result: Result<CardRecord, CallError>,
    },
    /// A decision is on disk, or not.
    Saved {
        /// Whose.
        entry: EntryId,
        /// Why not.
        result: Result<(), StoreFailure>,
    },
    /// CM was told to change a record.
    Pushed {
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
    Completed {
        /// For whom.
        entry: EntryId,
        /// How CM took it.
        result: Result<CompleteRequestResult, CallError>,
    },
    /// An outcome is on disk, or not.
    Settled {
        /// Whose.
        entry: EntryId,
        /// Its audit line; or why not.
        result: Result<AuditLine, StoreFailure>,
    },
    /// A parked entry is back in the queue on disk, or not.
    Unparked {
        /// Which.
        entry: EntryId,
        /// The line of the act; or why not.
        result: Result<AuditLine, StoreFailure>,
    },
    /// An audit line that belongs to no entry is on disk.
    Noted(AuditLine),
    /// The configuration was read again.
    Reconfigured(Box<Policy>),
}

/// A card that came, as the reader tells it.
#[derive(Debug, Clone)]
pub struct Presence {
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
pub enum StoreFailure {
    /// Nothing was stored; the same may work later.
    Later(String),
    /// The outbox does not have the entry any more, or not as it was written: nothing that is
    /// asked of it will ever work.
    EntryLost(String),
}

impl StoreFailure {
    /// In words.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Later(detail) | Self::EntryLost(detail) => detail,
        }
    }
}
