//! The engine in a world of simulated time: a disk and a CM that survive a crash, readers with
//! cards in them, and answers under way.
//!
//! Whatever is done here is watched: what must never happen fails the test at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::domain::{
    CallError, Decision, Entry, EntryId, Family, Found, IdRule, Identity, InsertionId, LinkView,
    NotIdentified, NotIdentifiedReason, Numbers, ReaderName, ReaderRules, Serial, Stage,
};
use crate::engine::{Effect, Engine, Event, Notice, Now, Policy, Presence, Restored, Retry};
use crate::rules::{AtrMismatch, Rule, RuleSet};

pub(in crate::engine) mod cm;
pub(in crate::engine) mod disk;

use cm::{ACTIVE, ATR, Ask, Cm, DISABLE, DISABLED, RETIRE, RETIRED, candidate, card_id};
use disk::{Disk, is_parked};

pub(in crate::engine) const SECOND: Duration = Duration::from_secs(1);
pub(in crate::engine) const HOUR: Duration = Duration::from_secs(3600);
pub(in crate::engine) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A reader and what is in it, whether the daemon looks or not.
///
/// Its event counter never comes to the same number twice, but for the nought that it has for a
/// card that was in it when the service was started.
#[derive(Debug, Default, Clone)]
struct Seat {
    card: Option<u8>,
    count: u32,
    insertion: Option<InsertionId>,
}

/// A call that CM was asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Call {
    pub(in crate::engine) at: Instant,
    pub(in crate::engine) ask: Ask,
    pub(in crate::engine) card: u8,
    pub(in crate::engine) entry: EntryId,
}

#[derive(Debug)]
struct InFlight {
    card: u8,
    /// Whether it was started while CM was away.
    knock: bool,
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
    pub(in crate::engine) policy: Policy,
    pub(in crate::engine) now: Now,
    pub(in crate::engine) disk: Disk,
    pub(in crate::engine) cm: Cm,
    pub(in crate::engine) calls: Vec<Call>,
    pub(in crate::engine) told: Vec<Notice>,
    /// How long a card takes to be read; `None`: for ever.
    pub(in crate::engine) probe: Option<Duration>,
    pub(in crate::engine) disk_latency: Duration,
    pub(in crate::engine) crash: Option<Crash>,
    pub(in crate::engine) effects: usize,
    pub(in crate::engine) started: Now,
    seats: BTreeMap<ReaderName, Seat>,
    last_insertion: InsertionId,
    counted: u32,
    inbox: Vec<(Instant, u64, Event)>,
    posted: u64,
    in_flight: BTreeMap<EntryId, InFlight>,
    looked_up: BTreeMap<EntryId, Found>,
    /// Entries to whose update CM said yes.
    said_yes: BTreeSet<EntryId>,
    last_knock: Option<Instant>,
    /// The moment that CM asked for by Retry-After.
    left_alone_until: Option<Instant>,
    retried: BTreeSet<EntryId>,
    lives: u64,
}

/// Which cards the tests use: their numbers are those of their records.
pub(in crate::engine) const READERS: [&str; 3] = ["Left", "Right", "Third"];

pub(in crate::engine) fn policy() -> Policy {
    let rule = |name: &str, kind, to: &str, number| Rule {
        name: name.to_owned(),
        request_types: vec![kind],
        set_status: (to.to_owned(), number),
        card_status: vec![],
        reader_role: vec![],
    };
    Policy {
        station: "desk-3".to_owned(),
        rules: RuleSet {
            rules: vec![
                rule("retire", RETIRE, "Retired", RETIRED),
                rule("disable", DISABLE, "Disabled", DISABLED),
            ],
            atr_mismatch: AtrMismatch::Warn,
            numbers: Numbers::default(),
        },
        readers: ReaderRules::default(),
        skip_atr: vec![],
        concurrency: NonZeroUsize::new(4).unwrap(),
        retry: Retry { min: SECOND, max: 300 * SECOND },
        max_age: 30 * DAY,
        probe_deadline: 10 * SECOND,
    }
}

pub(in crate::engine) fn identity(card: u8) -> Identity {
    Identity::new(
        Family::Gids,
        Serial::from_bytes(&[card]),
        candidate(card, IdRule::GidsCardid),
        vec![candidate(card + 100, IdRule::GidsCardidBe)],
    )
}

impl World {
    pub(in crate::engine) fn new() -> Self {
        Self::with(policy())
    }

    pub(in crate::engine) fn with(policy: Policy) -> Self {
        let wall = "2026-03-01T08:00:00Z".parse().unwrap();
        let now = Now { mono: Instant::now() + 400 * DAY, wall };
        let mut world = Self {
            engine: Engine::new(policy.clone(), Restored::default(), 1, now),
            policy,
            now,
            started: now,
            disk: Disk::default(),
            cm: Cm::new(),
            calls: Vec::new(),
            told: Vec::new(),
            probe: Some(Duration::from_millis(100)),
            disk_latency: Duration::ZERO,
            crash: None,
            effects: 0,
            seats: READERS.into_iter().map(|name| (name.into(), Seat::default())).collect(),
            last_insertion: InsertionId::ZERO,
            counted: 0,
            last_knock: None,
            left_alone_until: None,
            retried: BTreeSet::new(),
            inbox: Vec::new(),
            posted: 0,
            in_flight: BTreeMap::new(),
            looked_up: BTreeMap::new(),
            said_yes: BTreeSet::new(),
            lives: 1,
        };
        for card in 1..=9 {
            world.cm.know(card, card, ACTIVE);
        }
        world.announce();
        world
    }

    // The readers.

    pub(in crate::engine) fn insert(&mut self, reader: &str, card: u8) {
        self.remove(reader);
        self.insert_unseen(reader, card);
        self.present(&reader.into(), false);
    }

    pub(in crate::engine) fn remove(&mut self, reader: &str) {
        let insertion = self.seat(reader).insertion;
        self.remove_unseen(reader);
        if let Some(insertion) = insertion {
            self.tell(Event::CardRemoved { reader: reader.into(), insertion });
        }
    }

    /// Puts a card in while nobody looks.
    pub(in crate::engine) fn insert_unseen(&mut self, reader: &str, card: u8) {
        self.remove_unseen(reader);
        self.counted += 1;
        let count = self.counted;
        let seat = self.seat(reader);
        seat.card = Some(card);
        seat.count = count;
    }

    /// Takes a card out while nobody looks.
    pub(in crate::engine) fn remove_unseen(&mut self, reader: &str) {
        let seat = self.seat(reader);
        seat.card = None;
        seat.insertion = None;
    }

    /// Tells a card that came without the one before it having been seen to go.
    pub(in crate::engine) fn swap_in_one_look(&mut self, reader: &str, card: u8) {
        self.insert_unseen(reader, card);
        self.present(&reader.into(), false);
    }

    /// The PC/SC service is started anew: its event counters begin at nought.
    pub(in crate::engine) fn restart_service(&mut self) {
        self.tell(Event::ServiceDown { reason: "stopped".to_owned() });
        self.reset_counters();
        self.announce();
    }

    pub(in crate::engine) fn reset_counters(&mut self) {
        for seat in self.seats.values_mut() {
            seat.count = 0;
        }
    }

    fn seat(&mut self, reader: &str) -> &mut Seat {
        self.seats.get_mut(&ReaderName::from(reader)).unwrap()
    }

    fn present(&mut self, reader: &ReaderName, at_start: bool) {
        self.last_insertion = self.last_insertion.next();
        let insertion = self.last_insertion;
        let seat = self.seats.get_mut(reader).unwrap();
        seat.insertion = Some(insertion);
        let event_count = seat.count;
        let atr = ATR.parse().unwrap();
        let presence = Presence { reader: reader.clone(), insertion, atr, event_count, at_start };
        self.tell(Event::CardPresent(presence));
    }

    fn announce(&mut self) {
        self.tell(Event::ServiceUp);
        let readers: Vec<_> = self.seats.keys().cloned().collect();
        for reader in readers {
            self.tell(Event::Attached { reader: reader.clone() });
            if self.seats[&reader].card.is_some() {
                self.present(&reader, true);
            }
        }
        self.tell(Event::ServiceSettled);
    }

    // The daemon.

    /// The engine dies; `meanwhile` happens; a new one goes on from the disk.
    pub(in crate::engine) fn restart_after(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.inbox.clear();
        self.in_flight.clear();
        self.looked_up.clear();
        self.said_yes.clear();
        (self.last_knock, self.left_alone_until) = (None, None);
        self.lives += 1;
        meanwhile(self);
        self.last_insertion = InsertionId::ZERO;
        let restored = self.disk.restored();
        self.engine = Engine::new(self.policy.clone(), restored, self.lives, self.now);
        self.perform_all();
        self.announce();
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

    /// Tells the engine something now, and does what comes of it.
    pub(in crate::engine) fn tell(&mut self, event: Event) {
        self.engine.handle(event, self.now);
        self.perform_all();
    }

    pub(in crate::engine) fn retry(&mut self, entry: i64) -> Result<(), super::super::Refusal> {
        self.said_yes.remove(&EntryId::new(entry));
        self.retried.insert(EntryId::new(entry));
        let result = self.engine.retry(EntryId::new(entry), "alice", self.now);
        self.perform_all();
        result
    }

    pub(in crate::engine) fn discard(&mut self, entry: i64) -> Result<(), super::super::Refusal> {
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
        let stale = self.engine.stale_answers();
        self.note_wish_to_be_left_alone(&event);
        let pushed = match &event {
            Event::LookedUp { entry, result } => {
                self.in_flight.remove(entry);
                if let Ok(found) = result {
                    self.looked_up.insert(*entry, found.clone());
                }
                None
            }
            Event::ReadBack { entry, .. } => {
                self.in_flight.remove(entry);
                None
            }
            Event::Pushed { entry, result } => {
                self.in_flight.remove(entry);
                result.is_ok().then_some(*entry)
            }
            _ => None,
        };
        self.engine.handle(event, self.now);
        if self.engine.stale_answers() == stale {
            self.said_yes.extend(pushed);
        }
        self.perform_all();
    }

    fn note_wish_to_be_left_alone(&mut self, event: &Event) {
        let error = match event {
            Event::LookedUp { result, .. } => result.as_ref().err(),
            Event::ReadBack { result, .. } => result.as_ref().err(),
            Event::Pushed { result, .. } => result.as_ref().err(),
            _ => None,
        };
        if let Some(CallError::Away { retry_after: Some(time), .. }) = error {
            self.left_alone_until = self.left_alone_until.max(Some(self.now.mono + *time));
        }
    }

    fn post(&mut self, after: Duration, event: Event) {
        self.posted += 1;
        self.inbox.push((self.now.mono + after, self.posted, event));
    }

    fn perform_all(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
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

    fn perform(&mut self, effect: Effect) {
        if let Some(answers) = self.disk.perform(&effect) {
            for answer in answers {
                self.post(self.disk_latency, answer);
            }
            return;
        }
        match effect {
            Effect::Probe { reader, insertion, .. } => self.read_card(reader, insertion),
            Effect::Lookup { entry, identity } => {
                let card = number_of(&identity);
                self.call(Ask::Lookup, entry, card);
                let mood = self.cm.mood(card);
                let result = self.cm.look_up(&identity, mood);
                self.post(self.cm.latency, Event::LookedUp { entry, result });
            }
            Effect::ReadBack { entry, record } => {
                let card = self.card_of(entry);
                self.call(Ask::ReadBack, entry, card);
                let mood = self.cm.mood(card);
                let result = self.cm.read(record, mood);
                self.post(self.cm.latency, Event::ReadBack { entry, result });
            }
            Effect::Push { entry, decision } => {
                let card = self.card_of(entry);
                self.justified(entry, &decision);
                self.call(Ask::Push, entry, card);
                let mood = self.cm.mood(card);
                let result = self.cm.put(&decision, mood);
                self.post(self.cm.latency, Event::Pushed { entry, result });
            }
            Effect::Tell(notice) => self.told.push(notice),
            _ => {}
        }
    }

    fn read_card(&mut self, reader: ReaderName, insertion: InsertionId) {
        let Some(time) = self.probe else { return };
        let seat = &self.seats[&reader];
        let gone =
            NotIdentified { reason: NotIdentifiedReason::Removed, detail: "gone".to_owned() };
        let card = seat.card.filter(|_| seat.insertion == Some(insertion));
        let result = card.map(identity).ok_or(gone);
        self.post(time, Event::Probed { reader, insertion, result });
    }

    pub(in crate::engine) fn card_of(&self, entry: EntryId) -> u8 {
        number_of(&self.disk.entries[&entry].draft.identity)
    }

    pub(in crate::engine) fn card_of_entry(&self, entry: i64) -> Option<u8> {
        let row = self.disk.entries.get(&EntryId::new(entry))?;
        Some(number_of(&row.draft.identity))
    }

    /// Never two calls for a card, never more cards than allowed, never two knocks.
    fn call(&mut self, ask: Ask, entry: EntryId, card: u8) {
        self.calls.push(Call { at: self.now.mono, ask, card, entry });
        let knock = matches!(self.engine.link_view(self.now), LinkView::Away { .. });
        assert!(self.left_alone_until <= Some(self.now.mono), "too soon: {}", self.story());
        let first = |(id, row): (&EntryId, &Entry)| {
            number_of(&row.draft.identity) == card
                && !is_parked(&row.stage)
                && *id < entry
                && !self.retried.contains(id)
        };
        assert!(!self.disk.entries.iter().any(first), "out of order: {}", self.story());
        if knock {
            let last = self.last_knock.replace(self.now.mono);
            let apart = last.is_none_or(|last| self.now.mono >= last + SECOND);
            assert!(apart, "knocks too close: {}", self.story());
            assert!(
                !self.in_flight.values().any(|call| call.knock),
                "two knocks: {}",
                self.story()
            );
        }
        assert!(
            !self.in_flight.values().any(|call| call.card == card),
            "two hands: {}",
            self.story()
        );
        self.in_flight.insert(entry, InFlight { card, knock });
        assert!(self.in_flight.len() <= self.policy.concurrency.get(), "{}", self.story());
    }

    /// An update is on disk, follows from what was looked up last, and was not confirmed before.
    fn justified(&mut self, entry: EntryId, decision: &Decision) {
        assert_eq!(self.disk.entries[&entry].stage, Stage::Sent(decision.clone()));
        assert!(
            !self.said_yes.contains(&entry),
            "CM said yes to {entry} already: {}",
            self.story()
        );
        let found = self.looked_up.remove(&entry).expect("looked up just before");
        let asks = |kind| {
            let mut requests = found.requests.iter();
            requests.any(|request| {
                request.id == decision.request
                    && request.request_type == kind
                    && request.old_card == Some(decision.record)
            })
        };
        let kind = if decision.to == RETIRED { RETIRE } else { DISABLE };
        assert!(asks(kind), "nobody asked for {decision:?}");
        let (_, records) = found.records.as_ref().unwrap();
        let record = records.iter().find(|record| record.id == decision.record).unwrap();
        assert_eq!(record.status, decision.from);
        assert_ne!(record.status, decision.to);
    }

    // Looking at it.

    pub(in crate::engine) fn seated(&self) -> impl Iterator<Item = (&ReaderName, u8)> {
        self.seats.iter().filter_map(|(reader, seat)| Some((reader, seat.card?)))
    }

    pub(in crate::engine) fn trail(&self, entry: i64) -> Vec<String> {
        self.disk.trail(EntryId::new(entry))
    }

    /// The last line about an entry.
    pub(in crate::engine) fn outcome(&self, entry: i64) -> String {
        self.trail(entry).pop().unwrap_or_else(|| "none".to_owned())
    }

    pub(in crate::engine) fn asked(&self, ask: Ask) -> usize {
        self.calls.iter().filter(|call| call.ask == ask).count()
    }

    pub(in crate::engine) fn asked_for(&self, card: u8) -> usize {
        self.calls.iter().filter(|call| call.card == card).count()
    }

    pub(in crate::engine) fn is_away(&self) -> bool {
        matches!(self.engine.link_view(self.now), LinkView::Away { .. })
    }

    /// What happened, for a test that fails.
    pub(in crate::engine) fn story(&self) -> String {
        let mut story = String::new();
        for call in &self.calls {
            let at = call.at.saturating_duration_since(self.started.mono);
            story += &format!("\n{at:?} {:?} card {} entry {}", call.ask, call.card, call.entry);
        }
        for id in self.disk.ever() {
            let stage = self.disk.entries.get(&id).map(|row| &row.stage);
            story += &format!("\nentry {id}: {:?} {stage:?}", self.disk.trail(id));
        }
        let at = self.now.mono.saturating_duration_since(self.started.mono);
        format!("{story}\nat {at:?}, crash {:?}, {:#?}", self.crash, self.engine)
    }

    pub(in crate::engine) fn entries(&self) -> i64 {
        self.disk.last
    }
}

fn number_of(identity: &Identity) -> u8 {
    let is = |card: &u8| card_id(*card) == identity.first().card_id;
    (0..=255).find(is).unwrap()
}
