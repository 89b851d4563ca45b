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

mod append_queue;
mod backoff;
mod circuit_breaker;
mod counters;
mod effect;
mod event;
mod failure_notes;
mod queue;
mod tracker;

pub use backoff::RetryPolicy;
pub use effect::{Effect, NewEntry, Notice};
pub use event::{Event, OutboxFailure};

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
pub struct EngineSettings {
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
    pub retry: RetryPolicy,
    /// How long an entry may wait before it is parked.
    pub max_age: Duration,
    /// How long a card may take to be read.
    pub probe_deadline: Duration,
}

/// Why a person's wish cannot be fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is no such entry, or not any more.
    #[error("no such entry waits")]
    NoSuchEntry,
    /// The entry is being worked on at this moment.
    #[error("the entry is in progress; try again")]
    InProgress,
}

/// When an entry is tried again, because a person wished so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAccepted {
    /// It is in the queue, and goes as soon as CM may be asked.
    Now,
    /// It is parked until [`Event::EntryUnparked`] says that it is in the queue on disk, or that the
    /// disk refused.
    OnceStored,
}

/// What the outbox held when the daemon started.
#[derive(Debug, Clone, Default)]
pub struct RestoredState {
    /// Entries that wait, for CM or for a person.
    pub entries: Vec<Entry>,
    /// The cards that were last seen in the readers.
    pub last_seen: Vec<LastSeenCard>,
    /// The newest audit lines, the newest first.
    pub latest: Vec<AuditLine>,
    /// The moment of the start, counted from the machine's start, where that is known.
    pub moment: Option<BootMoment>,
}

/// The state machine. See the head of this module.
#[derive(Debug)]
pub struct Engine {
    policy: EngineSettings,
    tracker: tracker::ReaderTracker,
    append_queue: append_queue::AppendQueue,
    queue: queue::Queue,
    breaker: circuit_breaker::CircuitBreaker,
    notes: failure_notes::FailureNotes,
    random: fastrand::Rng,
    effects: VecDeque<Effect>,
    latest: VecDeque<AuditLine>,
    counters: EngineCounters,
    /// The moment of the start, by the machine's start and by the clock that never jumps.
    moment: Option<(BootMoment, Instant)>,
}

/// How many audit lines the snapshot shows.
const RECENT_AUDIT_LINES: usize = 20;

impl Engine {
    /// A state machine that goes on from what the outbox held. `seed` makes the jitter.
    #[must_use]
    pub fn new(policy: EngineSettings, restored: RestoredState, seed: u64, now: Now) -> Self {
        let mut engine = Self {
            tracker: tracker::ReaderTracker::new(restored.last_seen),
            append_queue: append_queue::AppendQueue::default(),
            queue: queue::Queue::new(restored.entries, restored.moment.as_ref(), now),
            breaker: circuit_breaker::CircuitBreaker::default(),
            notes: failure_notes::FailureNotes::default(),
            random: fastrand::Rng::with_seed(seed),
            effects: VecDeque::new(),
            latest: restored.latest.into(),
            counters: EngineCounters::default(),
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
            Event::Reader(event) => self.on_reader_event(event, now),
            Event::EntryAppended { insertion, trigger, result } => {
                self.appended((insertion, trigger), result, now);
            }
            Event::LookedUp { entry, result } => self.looked_up(entry, result, now),
            Event::RecordRead { entry, result } => self.read_back(entry, result, now),
            Event::StageSaved { entry, result } => self.saved(entry, result, now),
            Event::StatusSet { entry, result } => self.pushed(entry, result, now),
            Event::RequestRead { entry, result } => self.request_read(entry, result, now),
            Event::RequestCompleted { entry, result } => self.completed(entry, result, now),
            Event::EntrySettled { entry, result } => self.settled(entry, result, now),
            Event::EntryUnparked { entry, result } => self.unparked(entry, result, now),
            Event::AuditAppended(line) => self.publish(line),
            Event::Reconfigured(policy) => self.on_reconfigured(*policy, now),
        }
        self.advance(now);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        self.on_attributes_timeout(now);
        self.abandon_slow_probes(now);
        self.retry_in_use_cards(now);
        self.confirm_due_removals(now);
        self.enter_held(now);
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
        [self.tracker.next_deadline(), self.append_queue.next_deadline(), self.next_start(), notes]
            .into_iter()
            .flatten()
            .min()
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &EngineCounters {
        &self.counters
    }

    /// The PC/SC service, for the snapshot.
    #[must_use]
    pub fn pcscd_view(&self) -> PcscdView {
        self.tracker.service_view()
    }

    /// The readers, for the snapshot.
    #[must_use]
    pub fn reader_views(&self) -> Vec<ReaderView> {
        self.tracker.reader_views()
    }

    /// The connection to CM, for the snapshot.
    #[must_use]
    pub fn cm_view(&self, now: Now) -> CmView {
        self.breaker.view(self.queue.next_idle(), now)
    }

    /// The outbox, for the snapshot.
    #[must_use]
    pub fn outbox_view(&self) -> OutboxView {
        self.queue.view(self.append_queue.last_error())
    }

    /// Every entry that waits, the oldest first.
    #[must_use]
    pub fn entry_views(&self, now: Now) -> Vec<EntryView> {
        self.queue.entry_views(self.breaker.next_knock(), now)
    }

    /// The latest audit lines, the newest first.
    #[must_use]
    pub fn latest(&self) -> Vec<AuditLine> {
        self.latest.iter().cloned().collect()
    }

    fn publish(&mut self, line: AuditLine) {
        self.count_outcome(&line);
        self.latest.push_front(line);
        self.latest.truncate(RECENT_AUDIT_LINES);
    }

    fn on_reconfigured(&mut self, policy: EngineSettings, now: Now) {
        self.tracker.apply_settings(&policy.readers);
        self.policy = policy;
        self.breaker.reset(self.queue.entries_awaiting_cm());
        self.queue.retry_all_now(now);
    }

    /// A moment, counted from the machine's start.
    fn boot_moment(&self, at: Instant) -> Option<BootMoment> {
        let (moment, started) = self.moment.as_ref()?;
        Some(match at.checked_duration_since(*started) {
            Some(since) => moment.later(since),
            None => moment.earlier(started.saturating_duration_since(at)),
        })
    }

    fn report(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Report(notice));
    }

    /// Starts whatever may start now.
    fn advance(&mut self, now: Now) {
        self.start_appends(now);
        self.start_incomplete(now);
        self.start_entries(now);
    }
}

#[cfg(test)]
mod tests;
