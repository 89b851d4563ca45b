//! What the engine wants done.

#[cfg(doc)]
use super::Event;
use crate::domain::{
    Atr, AuditLine, CallError, CardEvent, CardIdentity, Decision, EntryId, InsertionId,
    PcscdInstance, ReaderName, RecordId, RequestId, Settlement, Stage,
};

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the reader's driver what it tells of the reader.
    ReadAttributes {
        /// Which.
        reader: ReaderName,
    },
    /// Read the card.
    StartProbe {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Its ATR.
        atr: Atr,
        /// Whether it is sent nothing while another program uses it.
        only_free: bool,
    },
    /// Stop waiting for the card in this reader.
    AbandonProbe {
        /// Where.
        reader: ReaderName,
    },
    /// Put an entry on disk; one of an insertion in place of older ones of the same card.
    AppendEntry {
        /// The stay that makes it, by its beginning or its end.
        insertion: InsertionId,
        /// The entry.
        entry: NewEntry,
    },
    /// Remember that the card left the reader.
    ClearLastSeen {
        /// Where.
        reader: ReaderName,
    },
    /// Ask CM about a card.
    Lookup {
        /// For whom.
        entry: EntryId,
        /// The card.
        identity: CardIdentity,
    },
    /// Read a record again.
    ReadRecord {
        /// For whom.
        entry: EntryId,
        /// Which.
        record: RecordId,
    },
    /// Put on disk how far an entry has come.
    SaveStage {
        /// Whose.
        entry: EntryId,
        /// How far.
        stage: Stage,
    },
    /// Have CM change a record.
    SetStatus {
        /// For whom.
        entry: EntryId,
        /// What.
        decision: Decision,
    },
    /// Read a request again.
    ReadRequest {
        /// For whom.
        entry: EntryId,
        /// Which.
        request: RequestId,
    },
    /// Tell CM that a request is completed.
    CompleteRequest {
        /// For whom.
        entry: EntryId,
        /// What was decided and is set.
        decision: Decision,
    },
    /// Put an outcome on disk.
    SettleEntry {
        /// Whose.
        entry: EntryId,
        /// Which.
        end: Settlement,
    },
    /// Put a parked entry back in the queue, on disk. It is worked on once that is
    /// [`Event::EntryUnparked`].
    UnparkEntry {
        /// Which.
        entry: EntryId,
        /// The act, for the audit trail.
        act: AuditLine,
    },
    /// Put an audit line on disk that belongs to no entry.
    AppendAudit(AuditLine),
    /// Tell people.
    Report(Notice),
}

/// An entry on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The card that came or went.
    pub card_event: CardEvent,
    /// That of a superseded entry that may have sent something, which has to be read back.
    pub stage: Stage,
    /// What the reader of a card that came was watched through, where that is certain.
    pub instance: Option<PcscdInstance>,
    /// The entries it takes the place of; those that have no outcome yet with theirs.
    pub supersedes: Vec<(EntryId, Option<Settlement>)>,
}

/// What people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// CM does not answer any more.
    CmUnavailable(CallError),
    /// CM answers again.
    CmAvailable,
    /// Something about a card that stops nothing.
    Warning {
        /// The entry.
        entry: EntryId,
        /// In words.
        text: String,
    },
    /// A card comes and goes all the time, and makes its entry once it lies still.
    CardFlapping {
        /// Where.
        reader: ReaderName,
    },
    /// The outbox does not take entries.
    OutboxError(String),
    /// The outbox takes entries again.
    OutboxRecovered,
    /// The outbox lost an entry; nothing more can be done for it.
    EntryLost {
        /// Which.
        entry: EntryId,
        /// What is wrong with it.
        detail: String,
    },
    /// An identified card could not be kept: neither the disk nor the memory had room for it.
    CardDropped(Box<CardEvent>),
}
