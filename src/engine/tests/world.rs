//! The engine in a world of simulated time: a disk and a CM that survive a crash, readers with
//! cards in them, and answers under way.
//!
//! Whatever is done here is watched: what must never happen fails the test at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::domain::{
    BootMoment, CardIdentity, CmEnums, CmOperation, EntryId, Family, IdRule, InsertionId,
    LookupResult, NotIdentified, NotIdentifiedReason, ReaderEvent, ReaderName, ReaderRules,
    RequestId, Serial, Trigger,
};
use crate::engine::{
    ActionError, CmCall, CmEvent, Effect, Engine, EngineSettings, Event, Notice, Now, ReaderEffect,
    RestoredState, RetryAccepted, RetryPolicy,
};
use crate::rules::{AtrMismatch, Pick, Rule, RuleSet};

pub(in crate::engine) mod cm;
pub(in crate::engine) mod disk;
mod readers;
mod watch;

use cm::{ACTIVE, Cm, DISABLE, DISABLED, RETIRE, RETIRED, candidate, card_id};
use disk::Disk;

pub(in crate::engine) const SECOND: Duration = Duration::from_secs(1);
pub(in crate::engine) const HOUR: Duration = Duration::from_hours(1);
pub(in crate::engine) const DAY: Duration = Duration::from_hours(24);

/// A reader and what is in it, whether the daemon looks or not.
///
/// Its event counter never comes to the same number twice within one run of the service, and is 0
/// for a card that was in it when the service was started.
#[derive(Debug, Default, Clone)]
struct Seat {
    card: Option<u8>,
    count: u32,
    insertion: Option<InsertionId>,
}

impl From<ReaderEvent> for Event {
    fn from(event: ReaderEvent) -> Self {
        Self::Reader(event)
    }
}

/// A call that CM was asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Call {
    pub(in crate::engine) at: Instant,
    pub(in crate::engine) ask: CmOperation,
    pub(in crate::engine) card: u8,
    pub(in crate::engine) entry: EntryId,
}

#[derive(Debug)]
struct InFlight {
    card: u8,
    /// Whether it was started while CM was away.
    is_trial: bool,
}

/// When the engine dies.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Crash {
    /// At its so-and-so-many-th effect.
    pub(in crate::engine) at: usize,
    /// Whether the effect reaches the world; its answer is lost in any case.
    pub(in crate::engine) applied: bool,
}

#[derive(Debug)]
pub(in crate::engine) struct World {
    pub(in crate::engine) engine: Engine,
    pub(in crate::engine) policy: EngineSettings,
    pub(in crate::engine) now: Now,
    pub(in crate::engine) disk: Disk,
    pub(in crate::engine) cm: Cm,
    pub(in crate::engine) calls: Vec<Call>,
    pub(in crate::engine) notices: Vec<Notice>,
    /// How long a card takes to be read; `None`: for ever.
    pub(in crate::engine) probe: Option<Duration>,
    pub(in crate::engine) disk_latency: Duration,
    pub(in crate::engine) crash: Option<Crash>,
    pub(in crate::engine) effects: usize,
    /// Whether the test reports something that cannot be.
    pub(in crate::engine) may_be_surprised: bool,
    pub(in crate::engine) started: Now,
    /// The readers whose cards another program uses, and whether it has selected an application in which
    /// they have another id.
    pub(in crate::engine) used: BTreeMap<ReaderName, bool>,
    seats: BTreeMap<ReaderName, Seat>,
    last_insertion: InsertionId,
    counted: u32,
    /// Which run of the PC/SC service there is.
    instance: u32,
    /// Whether the instance is uncertain.
    pub(in crate::engine) uncertain: bool,
    /// Which boot of the machine it is, and when that began.
    boot: (u64, Instant),
    inbox: Vec<(Instant, u64, Event)>,
    posted: u64,
    in_flight: BTreeMap<EntryId, InFlight>,
    looked_up: BTreeMap<EntryId, LookupResult>,
    /// Entries to whose update CM said yes.
    said_yes: BTreeSet<EntryId>,
    /// Entries that saw in this life that the record has the status.
    saw_it_set: BTreeSet<EntryId>,
    /// Requests whose completion was sent, and not read back since.
    completion_unknown: BTreeSet<RequestId>,
    last_trial: Option<Instant>,
    /// Entries whose answer comes from the CM of before a reload.
    cm_before: BTreeSet<EntryId>,
    /// The moment that CM asked for by Retry-After.
    left_alone_until: Option<Instant>,
    /// Whether an operator's action allows one call before that.
    granted: bool,
    retried: BTreeSet<EntryId>,
    /// How many removals have to be on disk, once it takes them.
    removals_due: usize,
    /// How many engines there were.
    pub(in crate::engine) lives: u64,
}

/// Which cards the tests use: their numbers are those of their records.
pub(in crate::engine) const READERS: [&str; 3] = ["Left", "Right", "Third"];

pub(in crate::engine) fn policy() -> EngineSettings {
    let rule = |name: &str, kind, to: &str, number| Rule {
        name: name.to_owned(),
        on: Trigger::Inserted,
        request_types: vec![kind],
        set_status: (to.to_owned(), number),
        card_status: vec![],
        reader_role: vec![],
        complete_request: false,
        pick: Pick::Oldest,
    };
    EngineSettings {
        station: "desk-3".to_owned(),
        rules: RuleSet {
            rules: vec![
                rule("retire", RETIRE, "Retired", RETIRED),
                rule("disable", DISABLE, "Disabled", DISABLED),
            ],
            atr_mismatch: AtrMismatch::Warn,
            numbers: CmEnums::default(),
        },
        readers: ReaderRules::default(),
        skip_atr: vec![],
        concurrency: NonZeroUsize::new(4).unwrap(),
        retry: RetryPolicy { min: SECOND, max: 300 * SECOND },
        max_age: 30 * DAY,
        probe_deadline: 10 * SECOND,
    }
}

/// The same, but every rule completes its request.
pub(in crate::engine) fn completing() -> EngineSettings {
    let mut policy = policy();
    for rule in &mut policy.rules.rules {
        rule.complete_request = true;
    }
    policy
}

/// Cards are retired when they come, and disabled when they go.
pub(in crate::engine) fn removing() -> EngineSettings {
    let mut policy = policy();
    policy.rules.rules[1].on = Trigger::Removed;
    policy
}

pub(in crate::engine) fn identity(card: u8) -> CardIdentity {
    CardIdentity::new(
        Family::Gids,
        Serial::from_bytes(&[card]),
        candidate(card, IdRule::GidsCardid),
        vec![candidate(card + 100, IdRule::GidsCardidBe)],
    )
}

/// What a card says beside another program, if one uses it.
fn part(card: u8, used: Option<bool>) -> CardIdentity {
    let mut identity = match used {
        Some(true) => {
            let other = candidate(card + 50, IdRule::PivGuidBe);
            CardIdentity::new(Family::Piv, Serial::from_bytes(&[card]), other, vec![])
        }
        Some(false) | None => identity(card),
    };
    identity.partial = used.is_some();
    identity
}

impl World {
    pub(in crate::engine) fn new() -> Self {
        Self::with(policy())
    }

    pub(in crate::engine) fn with(policy: EngineSettings) -> Self {
        Self::seeded(policy, 1)
    }

    pub(in crate::engine) fn seeded(policy: EngineSettings, seed: u64) -> Self {
        let wall = "2026-03-01T08:00:00Z".parse().unwrap();
        let now = Now { mono: Instant::now() + 400 * DAY, wall };
        let moment = Some(BootMoment { boot: "1".to_owned(), seconds: 0 });
        let restored = RestoredState { moment, ..RestoredState::default() };
        let mut world = Self {
            engine: Engine::new(policy.clone(), restored, seed, now),
            policy,
            now,
            started: now,
            disk: Disk::default(),
            cm: Cm::new(),
            calls: Vec::new(),
            notices: Vec::new(),
            probe: Some(Duration::from_millis(100)),
            disk_latency: Duration::ZERO,
            crash: None,
            effects: 0,
            may_be_surprised: false,
            used: BTreeMap::new(),
            seats: READERS.into_iter().map(|name| (name.into(), Seat::default())).collect(),
            last_insertion: InsertionId::ZERO,
            counted: 0,
            instance: 0,
            uncertain: false,
            boot: (1, now.mono),
            last_trial: None,
            cm_before: BTreeSet::new(),
            left_alone_until: None,
            granted: false,
            retried: BTreeSet::new(),
            removals_due: 0,
            inbox: Vec::new(),
            posted: 0,
            in_flight: BTreeMap::new(),
            looked_up: BTreeMap::new(),
            said_yes: BTreeSet::new(),
            saw_it_set: BTreeSet::new(),
            completion_unknown: BTreeSet::new(),
            lives: 1,
        };
        for card in 1..=9 {
            world.cm.know(card, card, ACTIVE);
        }
        world.announce();
        world
    }

    // The daemon.

    /// The engine dies; `meanwhile` happens; a new one goes on from the disk.
    pub(in crate::engine) fn restart_after(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.inbox.clear();
        self.in_flight.clear();
        self.looked_up.clear();
        self.said_yes.clear();
        self.saw_it_set.clear();
        self.cm_before.clear();
        (self.last_trial, self.left_alone_until) = (None, None);
        self.removals_due = self.disk.removals();
        self.lives += 1;
        meanwhile(self);
        self.last_insertion = InsertionId::ZERO;
        let moment = Some(self.boot_moment());
        let restored = RestoredState { moment, ..self.disk.restored() };
        self.engine = Engine::new(self.policy.clone(), restored, self.lives, self.now);
        self.perform_all();
        self.announce();
    }

    /// The machine is restarted: the clock that never jumps begins where it likes, and the one
    /// on the wall may have been set.
    pub(in crate::engine) fn reboot(&mut self, wall: SignedDuration) {
        self.restart_after(|world| {
            world.now.mono = world.started.mono.checked_sub(200 * DAY).unwrap();
            world.boot = (world.boot.0 + 1, world.now.mono);
            world.replace_service();
            world.jump(wall);
        });
    }

    fn boot_moment(&self) -> BootMoment {
        let (boot, began) = self.boot;
        BootMoment { boot: boot.to_string(), seconds: (self.now.mono - began).as_secs() }
    }

    /// The clock on the wall is set, or went on while the machine slept; the other one did not.
    pub(in crate::engine) fn jump(&mut self, wall: SignedDuration) {
        self.now.wall = self.now.wall.saturating_add(wall).unwrap();
    }

    pub(in crate::engine) fn restart(&mut self) {
        self.restart_after(|_| ());
    }

    pub(in crate::engine) fn set_wall(&mut self, wall: &str) {
        self.now.wall = wall.parse().unwrap();
    }

    pub(in crate::engine) fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall += time;
    }

    /// The configuration is read again; it names another CM, perhaps.
    pub(in crate::engine) fn reload(&mut self) {
        self.left_alone_until = None;
        self.cm_before.extend(self.in_flight.keys());
        self.handle(Event::Reconfigured(Box::new(self.policy.clone())));
    }

    /// Hands the engine an event now, and performs its effects.
    pub(in crate::engine) fn handle(&mut self, event: impl Into<Event>) {
        self.engine.handle(event.into(), self.now);
        self.perform_all();
    }

    pub(in crate::engine) fn retry(&mut self, entry: i64) -> Result<RetryAccepted, ActionError> {
        self.said_yes.remove(&EntryId::new(entry));
        self.retried.insert(EntryId::new(entry));
        self.granted = true;
        let result = self.engine.retry(EntryId::new(entry), "alice", self.now);
        self.perform_all();
        result
    }

    pub(in crate::engine) fn discard(&mut self, entry: i64) -> Result<(), ActionError> {
        let result = self.engine.discard(EntryId::new(entry), "alice", self.now);
        self.perform_all();
        result
    }

    /// Lets that much time pass, and whatever happens in it.
    pub(in crate::engine) fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.step(end) {}
        self.disk.check();
    }

    /// Lets time pass until this is so.
    #[track_caller]
    pub(in crate::engine) fn run_until(&mut self, what: impl Fn(&Self) -> bool) {
        let end = self.now.mono + DAY;
        while !what(self) {
            assert!(self.step(end), "it never came so: {}", self.story());
        }
    }

    /// The next thing that happens before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let answer = self.inbox.iter().map(|(due, seq, _)| (*due, *seq)).min();
        let timeout = self.engine.poll_timeout();
        let next = answer.map(|(due, _)| due).into_iter().chain(timeout).min();
        let Some(next) = next.filter(|next| *next <= end) else {
            self.pass(end.saturating_duration_since(self.now.mono));
            return false;
        };
        self.pass(next.saturating_duration_since(self.now.mono));
        match answer {
            Some((due, seq)) if due <= self.now.mono => self.deliver(seq),
            Some(_) | None => {
                self.engine.handle_timeout(self.now);
                let again = self.engine.poll_timeout();
                assert!(again.is_none_or(|at| at > self.now.mono), "busy loop: {}", self.story());
                self.perform_all();
            }
        }
        true
    }

    /// Whether anything is under way.
    pub(in crate::engine) fn is_quiet(&self) -> bool {
        self.inbox.is_empty()
    }

    fn deliver(&mut self, seq: u64) {
        let at = self.inbox.iter().position(|(_, is, _)| *is == seq).unwrap();
        let (_, _, event) = self.inbox.remove(at);
        let stale = self.engine.counters().stale_results;
        self.note_retry_after(&event);
        self.note_answer(&event);
        self.engine.handle(event.clone(), self.now);
        if self.engine.counters().stale_results == stale {
            self.note_what_it_said(&event);
        }
        self.perform_all();
    }

    fn post(&mut self, after: Duration, event: impl Into<Event>) {
        self.posted += 1;
        self.inbox.push((self.now.mono + after, self.posted, event.into()));
    }

    pub(in crate::engine) fn perform_all(&mut self) {
        self.bounded();
        while let Some(effect) = self.engine.poll_effect() {
            if matches!(effect, Effect::Reader(ReaderEffect::ReadAttributes { .. })) {
                // Drivers of this world report nothing by themselves, and no card is touched.
                continue;
            }
            self.effects += 1;
            match self.crash {
                Some(crash) if crash.at == self.effects => {
                    self.crash = None;
                    if crash.applied {
                        self.perform(effect);
                    }
                    return self.restart();
                }
                Some(_) | None => self.perform(effect),
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the disk performed the others")]
    fn perform(&mut self, effect: Effect) {
        if let Some(answers) = self.disk.perform(&effect) {
            for answer in answers {
                self.post(self.disk_latency, answer);
            }
            return;
        }
        match effect {
            Effect::Reader(ReaderEffect::StartProbe { reader, insertion, only_free, .. }) => {
                self.read_card(reader, insertion, only_free);
            }
            Effect::Cm { entry, call } => {
                let card = match &call {
                    CmCall::Lookup(identity) => number_of(identity),
                    _ => self.card_of(entry),
                };
                if let CmCall::SetStatus(decision) = &call {
                    self.justified(entry, decision);
                }
                if let CmCall::CompleteRequest(decision) = &call {
                    self.completion_justified(entry, decision);
                }
                let operation = call.operation();
                self.call(operation, entry, card);
                let mood = self.cm.mood(card);
                let result = self.cm.answer(&call, mood);
                self.post(self.cm.latency, Event::Cm(CmEvent { entry, operation, result }));
            }
            Effect::Report(notice) => {
                let unexpected = matches!(notice, Notice::UnexpectedResult { .. });
                assert!(!unexpected || self.may_be_surprised, "{notice:?}: {}", self.story());
                self.notices.push(notice);
            }
            _ => {}
        }
    }

    fn read_card(&mut self, reader: ReaderName, insertion: InsertionId, only_free: bool) {
        let Some(time) = self.probe else { return };
        let used = self.used.get(&reader).copied();
        if used.is_some() && only_free {
            let why = NotIdentified::new(NotIdentifiedReason::InUse, "in use".to_owned());
            return self.post(
                time,
                ReaderEvent::ProbeFinished {
                    reader,
                    insertion,
                    result: Err(why),
                    exchanges: vec![],
                },
            );
        }
        let seat = &self.seats[&reader];
        let gone = NotIdentified::new(NotIdentifiedReason::Removed, "gone".to_owned());
        let card = seat.card.filter(|_| seat.insertion == Some(insertion));
        let result = card.map(|card| part(card, used)).ok_or(gone);
        self.post(
            time,
            ReaderEvent::ProbeFinished { reader, insertion, result, exchanges: vec![] },
        );
    }

    pub(in crate::engine) fn card_of(&self, entry: EntryId) -> u8 {
        number_of(&self.disk.entries[&entry].card_event.identity)
    }

    /// The card of an entry that is or was on disk.
    pub(in crate::engine) fn card_at(&self, entry: EntryId) -> u8 {
        number_of(&self.disk.appended[&entry].identity)
    }

    pub(in crate::engine) fn card_of_entry(&self, entry: i64) -> Option<u8> {
        let row = self.disk.entries.get(&EntryId::new(entry))?;
        Some(number_of(&row.card_event.identity))
    }
}

fn number_of(identity: &CardIdentity) -> u8 {
    let is = |card: &u8| card_id(*card) == identity.primary().card_id;
    (0..=255).find(is).unwrap()
}
