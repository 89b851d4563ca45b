//! The state machine between the readers, the outbox and CM.
//!
//! It never asks the time, never sends and never stores: the shell hands in what happened with
//! the time at which it happened ([`Engine::handle`], [`Engine::handle_timeout`]), takes out what
//! is to be done ([`Engine::poll_effect`]) and when to come back ([`Engine::poll_timeout`]).
//!
//! - `desk` follows readers and cards up to an identity.
//! - `intake` brings an identity into the outbox; from there on it is an entry.
//! - `queue` brings entries to their outcome, a step at a time.
//! - `link` knows whether CM is away, and who may knock.
//!
//! What must never happen, and how it is kept from happening:
//!
//! - *Something is sent that is not on disk.* `Push` follows only a `Saved` of its decision.
//! - *Something is sent twice.* An entry that may have been sent reads the record back first.
//! - *Two hands on one card.* A card is busy from the first step of an entry until its end, and
//!   a call that nobody waits for any more keeps its card busy until it returns.
//! - *A late answer is believed.* Each answer names its insertion or entry; one that is not
//!   current is dropped and counted.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::{
    Atr, AtrPattern, AuditLine, CallError, Decision, Draft, Entry, EntryId, EntryView, Found,
    Identity, InsertionId, LinkView, NotIdentified, OutboxView, PutAnswer, ReaderName, ReaderRules,
    ReaderView, Record, RecordId, ServiceView, Settlement, Stage, Stay,
};
use crate::rules::RuleSet;

mod backoff;
mod desk;
mod intake;
mod link;
mod queue;

pub use backoff::Retry;

/// The time, by both clocks: one that never jumps, for waiting, and one that people read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Instant,
    /// For the audit trail.
    pub wall: Timestamp,
}

/// What the configuration says to the engine.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The station's id.
    pub station: String,
    /// What an insertion sets.
    pub rules: RuleSet,
    /// What the readers are called.
    pub readers: ReaderRules,
    /// Cards that are never touched.
    pub skip_atr: Vec<AtrPattern>,
    /// How many cards are worked on at a time.
    pub concurrency: NonZeroUsize,
    /// How long to wait between tries.
    pub retry: Retry,
    /// How long an entry may wait before it is parked.
    pub max_age: Duration,
    /// How long a card may take to be read.
    pub probe_deadline: Duration,
}

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
    },
    /// A card was read.
    Probed {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Who it is, or why that is not known.
        result: Result<Identity, NotIdentified>,
    },
    /// The outbox took an entry, or not.
    Appended {
        /// The insertion that made it.
        insertion: InsertionId,
        /// Its number and the audit lines of those it superseded; or why not.
        result: Result<(EntryId, Vec<AuditLine>), StoreFailure>,
    },
    /// CM was asked about a card.
    LookedUp {
        /// For whom.
        entry: EntryId,
        /// What it knows.
        result: Result<Found, CallError>,
    },
    /// A record was read again.
    ReadBack {
        /// For whom.
        entry: EntryId,
        /// The record.
        result: Result<Record, CallError>,
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
        result: Result<PutAnswer, CallError>,
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

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the card.
    Probe {
        /// Where.
        reader: ReaderName,
        /// Which stay.
        insertion: InsertionId,
        /// Its ATR.
        atr: Atr,
    },
    /// Stop waiting for the card in this reader.
    AbandonProbe {
        /// Where.
        reader: ReaderName,
    },
    /// Put an entry on disk, in place of older ones of the same card.
    Append {
        /// The insertion that makes it.
        insertion: InsertionId,
        /// The entry.
        entry: NewEntry,
    },
    /// Remember that the card left the reader.
    EndStay {
        /// Where.
        reader: ReaderName,
    },
    /// Ask CM about a card.
    Lookup {
        /// For whom.
        entry: EntryId,
        /// The card.
        identity: Identity,
    },
    /// Read a record again.
    ReadBack {
        /// For whom.
        entry: EntryId,
        /// Which.
        record: RecordId,
    },
    /// Put on disk how far an entry has come.
    Save {
        /// Whose.
        entry: EntryId,
        /// How far.
        stage: Stage,
    },
    /// Have CM change a record.
    Push {
        /// For whom.
        entry: EntryId,
        /// What.
        decision: Decision,
    },
    /// Put an outcome on disk.
    Settle {
        /// Whose.
        entry: EntryId,
        /// Which.
        end: Settlement,
    },
    /// Put a parked entry back in the queue, on disk. It is worked on once that is
    /// [`Event::Unparked`].
    Unpark {
        /// Which.
        entry: EntryId,
        /// The act, for the audit trail.
        act: AuditLine,
    },
    /// Put an audit line on disk that belongs to no entry.
    Note(AuditLine),
    /// Tell people.
    Tell(Notice),
}

/// An entry on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The insertion.
    pub draft: Draft,
    /// `Sent` where a superseded entry may have sent something that has to be read back.
    pub stage: Stage,
    /// The entries it takes the place of; those that have no outcome yet with theirs.
    pub supersedes: Vec<(EntryId, Option<Settlement>)>,
}

/// What people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// CM does not answer any more.
    CmAway(CallError),
    /// CM answers again.
    CmBack,
    /// Something about a card that stops nothing.
    Warning {
        /// The entry.
        entry: EntryId,
        /// In words.
        text: String,
    },
    /// The outbox does not take entries.
    StoreTrouble(String),
    /// The outbox takes entries again.
    StoreBack,
    /// The outbox lost an entry; nothing more can be done for it.
    EntryLost {
        /// Which.
        entry: EntryId,
        /// What is wrong with it.
        detail: String,
    },
    /// An identified card could not be kept: neither the disk nor the memory had room for it.
    Lost(Box<Draft>),
}

/// Why a person's wish cannot be fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such entry, or not any more.
    #[error("no such entry waits")]
    NoSuchEntry,
    /// The entry is being worked on at this moment.
    #[error("the entry is being worked on at this moment; try again")]
    Busy,
}

/// What the outbox held when the daemon started.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Entries that wait, for CM or for a person.
    pub entries: Vec<Entry>,
    /// The cards that were last seen in the readers.
    pub stays: Vec<Stay>,
    /// The newest audit lines, the newest first.
    pub latest: Vec<AuditLine>,
}

/// The state machine. See the head of this module.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    desk: desk::Desk,
    intake: intake::Intake,
    queue: queue::Queue,
    link: link::Link,
    random: fastrand::Rng,
    effects: VecDeque<Effect>,
    latest: VecDeque<AuditLine>,
    stale: u64,
}

/// How many audit lines the snapshot shows.
const LATEST: usize = 20;

impl Engine {
    /// A state machine that goes on from what the outbox held. `seed` makes the jitter.
    #[must_use]
    pub fn new(policy: Policy, restored: Restored, seed: u64, now: Now) -> Self {
        let mut engine = Self {
            desk: desk::Desk::new(restored.stays, now),
            intake: intake::Intake::default(),
            queue: queue::Queue::new(restored.entries, now),
            link: link::Link::default(),
            random: fastrand::Rng::with_seed(seed),
            effects: VecDeque::new(),
            latest: restored.latest.into(),
            stale: 0,
            policy,
        };
        engine.advance(now);
        engine
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::ServiceUp => self.service_up(now),
            Event::ServiceDown { reason } => self.service_down(reason, now),
            Event::ServiceSettled => self.service_settled(),
            Event::Attached { reader } => self.attached(reader, now),
            Event::Detached { reader } => self.detached(&reader, now),
            Event::CardPresent(presence) => self.card_present(presence, now),
            Event::CardMute { reader, insertion } => self.card_mute(&reader, insertion, now),
            Event::CardRemoved { reader, insertion } => self.card_removed(&reader, insertion, now),
            Event::Probed { reader, insertion, result } => {
                self.probed(&reader, insertion, result, now);
            }
            Event::Appended { insertion, result } => self.appended(insertion, result, now),
            Event::LookedUp { entry, result } => self.looked_up(entry, result, now),
            Event::ReadBack { entry, result } => self.read_back(entry, result, now),
            Event::Saved { entry, result } => self.saved(entry, result, now),
            Event::Pushed { entry, result } => self.pushed(entry, result, now),
            Event::Settled { entry, result } => self.settled(entry, result, now),
            Event::Unparked { entry, result } => self.unparked(entry, result, now),
            Event::Noted(line) => self.publish(line),
            Event::Reconfigured(policy) => self.reconfigured(*policy),
        }
        self.advance(now);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        self.abandon_slow_probes(now);
        self.advance(now);
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.desk.next_deadline(), self.intake.next_deadline(), self.next_start()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Answers that came too late to be believed.
    #[must_use]
    pub const fn stale_answers(&self) -> u64 {
        self.stale
    }

    /// The PC/SC service, for the snapshot.
    #[must_use]
    pub fn service_view(&self) -> ServiceView {
        self.desk.service_view()
    }

    /// The readers, for the snapshot.
    #[must_use]
    pub fn reader_views(&self) -> Vec<ReaderView> {
        self.desk.reader_views()
    }

    /// The connection to CM, for the snapshot.
    #[must_use]
    pub fn link_view(&self, now: Now) -> LinkView {
        self.link.view(now)
    }

    /// The outbox, for the snapshot.
    #[must_use]
    pub fn outbox_view(&self) -> OutboxView {
        self.queue.view(self.intake.trouble())
    }

    /// Every entry that waits, the oldest first.
    #[must_use]
    pub fn entry_views(&self, now: Now) -> Vec<EntryView> {
        self.queue.entry_views(now)
    }

    /// The latest audit lines, the newest first.
    #[must_use]
    pub fn latest(&self) -> Vec<AuditLine> {
        self.latest.iter().cloned().collect()
    }

    fn publish(&mut self, line: AuditLine) {
        self.latest.push_front(line);
        self.latest.truncate(LATEST);
    }

    fn reconfigured(&mut self, policy: Policy) {
        self.desk.replace(&policy.readers);
        self.policy = policy;
    }

    fn tell(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Tell(notice));
    }

    /// Starts whatever may start now.
    fn advance(&mut self, now: Now) {
        self.start_appends(now);
        self.start_entries(now);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
