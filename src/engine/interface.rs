//! All that goes in and out of the engine.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::{
    Atr, AtrPattern, AuditLine, BootMoment, CallError, CardEvent, CardIdentity, CardRecord,
    CmOperation, CompleteRequestResult, Decision, Entry, EntryId, InsertionId, LastSeenCard,
    LookupResult, PcscdInstance, ReaderEvent, ReaderName, ReaderRules, RequestStatus,
    SetStatusResult, Settlement, Stage, Trigger,
};
use crate::rules::RuleSet;

/// The time by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Never jumps: for deadlines and durations.
    pub mono: Instant,
    /// For the audit trail.
    pub wall: Timestamp,
}

/// What the configuration says to the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    pub station: String,
    pub rules: RuleSet,
    pub readers: ReaderRules,
    pub skip_atr: Vec<AtrPattern>,
    /// How many cards are processed at a time.
    pub concurrency: NonZeroUsize,
    pub retry: RetryPolicy,
    /// How long an entry may wait before it is parked.
    pub max_age: Duration,
    pub probe_deadline: Duration,
}

/// The bounds of the wait between two tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    pub min: Duration,
    pub max: Duration,
}

/// What the outbox held when the daemon started.
#[derive(Debug, Clone, Default)]
pub struct RestoredState {
    pub entries: Vec<Entry>,
    pub last_seen: Vec<LastSeenCard>,
    /// The newest audit lines, the newest first.
    pub latest: Vec<AuditLine>,
    /// The moment of the start, counted from the machine's start, where that is known.
    pub moment: Option<BootMoment>,
}

/// Why an operator's action was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("no such entry waits")]
    NoSuchEntry,
    #[error("the entry is in progress; try again")]
    InProgress,
}

/// When an entry is retried that the operator wants retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAccepted {
    /// As soon as CM may be called.
    Now,
    /// After [`OutboxEvent::EntryUnparked`], unless the disk refuses that.
    OnceStored,
}

/// Something that happened.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub enum Event {
    Reader(ReaderEvent),
    Cm(CmEvent),
    Outbox(OutboxEvent),
    /// The configuration was reloaded.
    Reconfigured(Box<EngineSettings>),
}

/// A call to CM returned.
#[derive(Debug, Clone)]
pub struct CmEvent {
    pub entry: EntryId,
    pub operation: CmOperation,
    pub result: Result<CmResponse, CallError>,
}

/// What CM answered to each [`CmCall`].
#[derive(Debug, Clone)]
pub enum CmResponse {
    Lookup(LookupResult),
    Record(CardRecord),
    SetStatus(SetStatusResult),
    Request(RequestStatus),
    CompleteRequest(CompleteRequestResult),
}

/// The outbox did what an [`OutboxEffect`] asked for, or not.
#[derive(Debug, Clone)]
pub enum OutboxEvent {
    /// With the audit lines of the entries that it superseded.
    EntryAppended {
        insertion: InsertionId,
        trigger: Trigger,
        result: Result<(EntryId, Vec<AuditLine>), OutboxFailure>,
    },
    StageSaved {
        entry: EntryId,
        result: Result<(), OutboxFailure>,
    },
    EntrySettled {
        entry: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    },
    EntryUnparked {
        entry: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    },
    AuditAppended(AuditLine),
}

/// Why the outbox did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxFailure {
    /// Nothing was stored; the same may work later.
    Retryable(String),
    /// The outbox does not have the entry any more, or not as it was written: no retry will work.
    EntryLost(String),
}

impl OutboxFailure {
    pub fn detail(&self) -> &str {
        match self {
            Self::Retryable(detail) | Self::EntryLost(detail) => detail,
        }
    }
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub enum Effect {
    Reader(ReaderEffect),
    /// Call CM for an entry; [`CmEvent`] follows.
    Cm {
        entry: EntryId,
        call: CmCall,
    },
    Outbox(OutboxEffect),
    /// Log it.
    Report(Notice),
}

#[derive(Debug, Clone, PartialEq)]
pub enum ReaderEffect {
    ReadAttributes {
        reader: ReaderName,
    },
    /// `only_free`: send the card nothing while another program uses it.
    StartProbe {
        reader: ReaderName,
        insertion: InsertionId,
        atr: Atr,
        only_free: bool,
    },
    AbandonProbe {
        reader: ReaderName,
    },
}

/// A call to CM. Those that follow a decision carry it.
#[derive(Debug, Clone, PartialEq)]
pub enum CmCall {
    Lookup(CardIdentity),
    ReadRecord(Decision),
    SetStatus(Decision),
    ReadRequest(Decision),
    CompleteRequest(Decision),
}

impl CmCall {
    pub const fn operation(&self) -> CmOperation {
        match self {
            Self::Lookup(_) => CmOperation::Lookup,
            Self::ReadRecord(_) => CmOperation::ReadRecord,
            Self::SetStatus(_) => CmOperation::SetStatus,
            Self::ReadRequest(_) => CmOperation::ReadRequest,
            Self::CompleteRequest(_) => CmOperation::CompleteRequest,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum OutboxEffect {
    /// Store an entry; one of an insertion replaces older ones of the same card.
    AppendEntry {
        insertion: InsertionId,
        entry: NewEntry,
    },
    /// Remember that the card left the reader.
    ClearLastSeen {
        reader: ReaderName,
    },
    SaveStage {
        entry: EntryId,
        stage: Stage,
    },
    SettleEntry {
        entry: EntryId,
        end: Settlement,
    },
    /// Requeue a parked entry, and audit the operator's action. The entry is processed once that is
    /// [`OutboxEvent::EntryUnparked`].
    UnparkEntry {
        entry: EntryId,
        act: AuditLine,
    },
    /// Store an audit line that belongs to no entry.
    AppendAudit(AuditLine),
}

/// An entry that is not on disk yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    pub card_event: CardEvent,
    /// That of a superseded entry that may have sent something, which has to be read back.
    pub stage: Stage,
    /// What the reader of an inserted card is watched through, where that is certain.
    pub instance: Option<PcscdInstance>,
    /// The entries it replaces, those without an outcome together with theirs.
    pub supersedes: Vec<(EntryId, Option<Settlement>)>,
}

/// What the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    CmUnavailable(CallError),
    CmAvailable,
    /// Something about a card that stops nothing.
    Warning {
        entry: EntryId,
        text: String,
    },
    /// A card comes and goes all the time; its entry is made once it lies still.
    CardFlapping {
        reader: ReaderName,
    },
    /// The outbox stores no entries.
    OutboxError(String),
    OutboxRecovered,
    /// The outbox lost an entry; nothing more can be done for it.
    EntryLost {
        entry: EntryId,
        detail: String,
    },
    /// An identified card was dropped: neither the disk nor the memory had room for it.
    CardDropped(Box<CardEvent>),
    /// A result came for an entry or an insertion that the engine does not have, or that does not
    /// wait for it. It was ignored.
    UnexpectedResult {
        of: String,
        result: &'static str,
    },
}
