//! The state machine between the readers, the outbox and CM.
//!
//! It never asks the time, never sends and never stores: the shell hands in what happened with
//! the time at which it happened ([`Engine::handle`], [`Engine::handle_timeout`]), takes out what
//! is to be done ([`Engine::poll_effect`]) and when to come back ([`Engine::poll_timeout`]).
//!
//! - `desk` follows readers and cards up to an identity.
//! - `intake` brings an identity into the outbox; from there on it is an entry.
//! - `queue` brings entries to their outcome, a step at a time.
//! - `notes` keeps cards that cannot be identified from filling the audit trail.
//! - `link` knows whether CM is away, and who may knock.
//!
//! What must never happen, and how it is kept from happening:
//!
//! - *Something is sent that is not on disk.* `Push` follows only a `Saved` of its decision.
//! - *Something is sent again unseen.* An entry that may have been sent reads the record back first. A
//!   PUT that CM applies only after that is sent again, with the same content.
//! - *Two hands on one card.* A card is busy from the first step of an entry until its end, and
//!   a call that nobody waits for any more keeps its card busy until it returns.
//! - *A late answer is believed.* Each answer names its insertion or entry; one that is not
//!   current is dropped and counted.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::{
    AtrPattern, AuditLine, BootMoment, CmView, EngineCounters, Entry, EntryView, LastSeenCard,
    OutboxView, PcscdView, ReaderRules, ReaderView,
};
use crate::rules::RuleSet;

mod backoff;
mod counting;
mod desk;
mod effect;
mod event;
mod intake;
mod link;
mod notes;
mod queue;

pub use backoff::Retry;
pub use effect::{Effect, NewEntry, Notice};
pub use event::{Event, Presence, StoreFailure};

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
    /// What a card that comes or goes sets.
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

/// When an entry is tried again, because a person wished so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the queue, and goes as soon as CM may be asked.
    Now,
    /// It is parked until [`Event::Unparked`] says that it is in the queue on disk, or that the
    /// disk refused.
    OnceOnDisk,
}

/// What the outbox held when the daemon started.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Entries that wait, for CM or for a person.
    pub entries: Vec<Entry>,
    /// The cards that were last seen in the readers.
    pub stays: Vec<LastSeenCard>,
    /// The newest audit lines, the newest first.
    pub latest: Vec<AuditLine>,
    /// The moment of the start, counted from the machine's start, where that is known.
    pub moment: Option<BootMoment>,
}

/// The state machine. See the head of this module.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    desk: desk::Desk,
    intake: intake::Intake,
    queue: queue::Queue,
    link: link::Link,
    notes: notes::Notes,
    random: fastrand::Rng,
    effects: VecDeque<Effect>,
    latest: VecDeque<AuditLine>,
    tally: EngineCounters,
    /// The moment of the start, by the machine's start and by the clock that never jumps.
    moment: Option<(BootMoment, Instant)>,
}

/// How many audit lines the snapshot shows.
const LATEST: usize = 20;

impl Engine {
    /// A state machine that goes on from what the outbox held. `seed` makes the jitter.
    #[must_use]
    pub fn new(policy: Policy, restored: Restored, seed: u64, now: Now) -> Self {
        let mut engine = Self {
            desk: desk::Desk::new(restored.stays),
            intake: intake::Intake::default(),
            queue: queue::Queue::new(restored.entries, restored.moment.as_ref(), now),
            link: link::Link::default(),
            notes: notes::Notes::default(),
            random: fastrand::Rng::with_seed(seed),
            effects: VecDeque::new(),
            latest: restored.latest.into(),
            tally: EngineCounters::default(),
            moment: restored.moment.map(|moment| (moment, now.mono)),
            policy,
        };
        engine.advance(now);
        engine
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, event: Event, now: Now) {
        self.count(&event);
        match event {
            Event::ServiceUp => self.service_up(now),
            Event::ServiceDown { reason } => self.service_down(reason, now),
            Event::ServiceSettled => self.service_settled(),
            Event::Attached { reader, instance } => self.attached(reader, instance, now),
            Event::Described { reader, attributes } => self.described(&reader, attributes, now),
            Event::Detached { reader } => self.detached(&reader, now),
            Event::CardPresent(presence) => self.card_present(presence, now),
            Event::CardMute { reader, insertion } => self.card_mute(&reader, insertion, now),
            Event::CardRemoved { reader, insertion, how } => {
                self.card_removed(&reader, insertion, how, now);
            }
            Event::Identified { reader, insertion, identity } => {
                self.told_identity(&reader, insertion, identity, now);
            }
            Event::LetGo { reader } => self.others_let_go(&reader, now),
            Event::Probed { reader, insertion, result } => {
                self.probed(&reader, insertion, result, now);
            }
            Event::Appended { insertion, trigger, result } => {
                self.appended((insertion, trigger), result, now);
            }
            Event::LookedUp { entry, result } => self.looked_up(entry, result, now),
            Event::ReadBack { entry, result } => self.read_back(entry, result, now),
            Event::Saved { entry, result } => self.saved(entry, result, now),
            Event::Pushed { entry, result } => self.pushed(entry, result, now),
            Event::RequestRead { entry, result } => self.request_read(entry, result, now),
            Event::Completed { entry, result } => self.completed(entry, result, now),
            Event::Settled { entry, result } => self.settled(entry, result, now),
            Event::Unparked { entry, result } => self.unparked(entry, result, now),
            Event::Noted(line) => self.publish(line),
            Event::Reconfigured(policy) => self.reconfigured(*policy, now),
        }
        self.advance(now);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        self.stop_waiting_for_attributes(now);
        self.abandon_slow_probes(now);
        self.read_busy_again(now);
        self.let_go_due(now);
        self.enter_still(now);
        self.note_due_counts(now);
        self.advance(now);
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let notes = self.notes.next_deadline();
        [self.desk.next_deadline(), self.intake.next_deadline(), self.next_start(), notes]
            .into_iter()
            .flatten()
            .min()
    }

    /// What was counted.
    #[must_use]
    pub const fn tally(&self) -> &EngineCounters {
        &self.tally
    }

    /// The PC/SC service, for the snapshot.
    #[must_use]
    pub fn service_view(&self) -> PcscdView {
        self.desk.service_view()
    }

    /// The readers, for the snapshot.
    #[must_use]
    pub fn reader_views(&self) -> Vec<ReaderView> {
        self.desk.reader_views()
    }

    /// The connection to CM, for the snapshot.
    #[must_use]
    pub fn link_view(&self, now: Now) -> CmView {
        self.link.view(self.queue.next_idle(), now)
    }

    /// The outbox, for the snapshot.
    #[must_use]
    pub fn outbox_view(&self) -> OutboxView {
        self.queue.view(self.intake.trouble())
    }

    /// Every entry that waits, the oldest first.
    #[must_use]
    pub fn entry_views(&self, now: Now) -> Vec<EntryView> {
        self.queue.entry_views(self.link.next_knock(), now)
    }

    /// The latest audit lines, the newest first.
    #[must_use]
    pub fn latest(&self) -> Vec<AuditLine> {
        self.latest.iter().cloned().collect()
    }

    fn publish(&mut self, line: AuditLine) {
        self.count_outcome(&line);
        self.latest.push_front(line);
        self.latest.truncate(LATEST);
    }

    fn reconfigured(&mut self, policy: Policy, now: Now) {
        self.desk.replace(&policy.readers);
        self.policy = policy;
        self.link.forget(self.queue.asking());
        self.queue.release_all(now);
    }

    /// A moment, counted from the machine's start.
    fn boot_moment(&self, at: Instant) -> Option<BootMoment> {
        let (moment, started) = self.moment.as_ref()?;
        Some(match at.checked_duration_since(*started) {
            Some(since) => moment.later(since),
            None => moment.earlier(started.saturating_duration_since(at)),
        })
    }

    fn tell(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Tell(notice));
    }

    /// Starts whatever may start now.
    fn advance(&mut self, now: Now) {
        self.start_appends(now);
        self.start_incomplete(now);
        self.start_entries(now);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
