//! The order of many entries: new insertions first, and no entry is forgotten.

use std::time::{Duration, Instant};

use super::world::cm::{Mood, candidate};
use super::world::{HOUR, READERS, SECOND, World, policy};
use crate::domain::{
    Candidate, CardIdentity, CmOperation, Entry, EntryId, Family, IdRule, InsertedCard,
    InsertionId, LookupResult, ReaderEvent, ReaderName, Serial, Stage, Trigger,
};
use crate::engine::{
    CmEvent, CmResponse, Effect, Engine, Event, Now, OutboxEffect, OutboxEvent, OutboxFailure,
    RestoredState,
};

/// A world in which so many cards wait, and CM takes so long for each answer.
fn backlog(cards: u8, latency: Duration) -> World {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    for card in 1..=cards {
        world.insert(READERS[usize::from(card) % READERS.len()], card);
        world.run(SECOND);
    }
    world.cm.mood = Mood::Fine;
    world.cm.latency = latency;
    world
}

/// When CM was first asked about a card after this moment.
fn asked(world: &World, card: u8, after: Instant) -> Option<Duration> {
    let mut calls = world.calls.iter().filter(|call| call.at >= after && call.card == card);
    calls.find(|call| call.ask == CmOperation::Lookup).map(|call| call.at - after)
}

#[test]
fn each_card_that_comes_while_many_wait_and_cm_is_slow_goes_at_once() {
    let mut world = backlog(120, 5 * SECOND);
    world.restart();
    // Until CM was heard of, one entry goes alone.
    world.run(7 * SECOND);
    for card in 141..=150 {
        let before = world.now.mono;
        world.insert("Left", card);
        world.run(7 * SECOND);
        let waited = asked(&world, card, before).expect("it was looked up");
        assert!(waited < SECOND, "card {card} waited {waited:?}: {}", world.story());
    }
    world.run(2 * HOUR);
    assert_eq!(world.engine.outbox_view().waiting, 0, "no entry is forgotten: {}", world.story());
}

#[test]
fn of_many_cards_that_come_the_newest_goes_first() {
    let mut world = backlog(20, 5 * SECOND);
    world.restart();
    // Until CM was heard of, one entry goes alone.
    world.run(7 * SECOND);
    for (reader, card) in READERS.into_iter().zip(141..) {
        world.insert(reader, card);
        world.run(SECOND / 2);
    }
    let looked_up = |world: &World| -> Vec<u8> {
        let calls =
            world.calls.iter().filter(|call| call.ask == CmOperation::Lookup && call.card > 140);
        calls.map(|call| call.card).collect()
    };
    world.run_until(|world| looked_up(world).len() == 3);
    assert_eq!(looked_up(&world), [141, 143, 142], "one place was free: {}", world.story());
}

#[test]
fn a_card_that_comes_after_an_outage_goes_before_those_that_waited_for_its_end() {
    let mut world = backlog(60, 2 * SECOND);
    world.run_until(|world| !world.engine.queue.breaker.is_open());
    let before = world.now.mono;
    world.insert("Left", 141);
    world.run(10 * SECOND);
    assert!(asked(&world, 141, before).expect("it was looked up") < 3 * SECOND);
}

#[test]
fn operator_retry_starts_before_waiting_entries() {
    let mut world = backlog(60, 5 * SECOND);
    world.restart();
    // Until CM was heard of, one entry goes alone.
    world.run(7 * SECOND);
    world.retry(50).unwrap();
    let before = world.now.mono;
    world.run(7 * SECOND);
    assert!(asked(&world, 50, before).expect("it was looked up") < SECOND, "{}", world.story());
}

/// An engine with so many entries that wait, each of a card of its own.
fn crowded(count: i64) -> (Engine, World) {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    let one = world.disk.entries.values().next().unwrap().card_event.clone();
    let entry = |number: i64| {
        let mut draft = one.clone();
        let card_id = uuid::Uuid::from_u128(0x4000 << 64 | u128::from(number.unsigned_abs()));
        let card_id = card_id.to_string().parse().unwrap();
        let candidate = Candidate { card_id, ..candidate(1, IdRule::GidsCardid) };
        draft.identity =
            CardIdentity::new(Family::Gids, Serial::from_bytes(&[1]), candidate, vec![]);
        Entry { id: EntryId::new(number), card_event: draft, stage: Stage::Queued }
    };
    let entries = (1..=count).map(entry).collect();
    let restored = RestoredState { entries, ..RestoredState::default() };
    (Engine::new(policy(), restored, 1, world.now), world)
}

/// A CM that takes so long for each answer, and knows no card.
struct SlowCm {
    engine: Engine,
    now: Now,
    answers: Vec<(Instant, EntryId)>,
    events: u32,
}

const SLOW: Duration = Duration::from_secs(5);

impl SlowCm {
    /// Does what the engine wants, and returns the entries that CM is called for.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing follows from the others")]
    fn perform(&mut self) -> Vec<EntryId> {
        let mut asked = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Cm { entry, .. } => {
                    self.answers.push((self.now.mono + SLOW, entry));
                    asked.push(entry);
                }
                Effect::Outbox(OutboxEffect::SettleEntry { entry, .. }) => {
                    let lost = Err(OutboxFailure::EntryLost("settled".to_owned()));
                    self.handle(Event::Outbox(OutboxEvent::EntrySettled { entry, result: lost }));
                }
                Effect::Outbox(OutboxEffect::AppendEntry { insertion, .. }) => {
                    let (trigger, result) = (Trigger::Inserted, Ok((NEW, vec![])));
                    self.handle(Event::Outbox(OutboxEvent::EntryAppended {
                        insertion,
                        trigger,
                        result,
                    }));
                }
                _ => {}
            }
        }
        asked
    }

    fn handle(&mut self, event: impl Into<Event>) {
        let event = event.into();
        self.events += 1;
        self.engine.handle(event, self.now);
        let _next = self.engine.poll_timeout();
    }

    /// Lets the next answer come.
    fn step(&mut self) -> Vec<EntryId> {
        let next = self.answers.iter().map(|(at, _)| *at).min().expect("something is asked");
        self.now.mono = next;
        let (due, rest) = self.answers.drain(..).partition(|(at, _)| *at <= next);
        self.answers = rest;
        for (_, entry) in Vec::from_iter::<Vec<_>>(due) {
            let result = Ok(CmResponse::Lookup(LookupResult { records: None, requests: vec![] }));
            let operation = CmOperation::Lookup;
            self.handle(Event::Cm(CmEvent { entry, operation, result }));
        }
        self.perform()
    }
}

/// The number of the entry that comes.
const NEW: EntryId = EntryId::new(1_000_000);

/// How long a card that comes among so many waits for its first call, and what an event costs.
fn fresh_among(count: i64) -> (Duration, Duration) {
    let (engine, world) = crowded(count);
    let mut cm = SlowCm { engine, now: world.now, answers: Vec::new(), events: 0 };
    let began = Instant::now();
    cm.perform();
    for _ in 0..if count == 0 { 0 } else { 100 } {
        cm.step();
    }
    let (reader, insertion) = (ReaderName::from("Left"), InsertionId::ZERO.next());
    let atr = super::world::cm::ATR.parse().unwrap();
    let presence =
        InsertedCard { reader: reader.clone(), insertion, atr, event_count: 1, at_start: false };
    cm.handle(ReaderEvent::PcscdConnected);
    cm.handle(ReaderEvent::ReaderAttached { reader: reader.clone(), instance: None });
    let came = cm.now.mono;
    cm.handle(ReaderEvent::CardInserted(presence));
    let result = Ok(super::world::identity(150));
    cm.handle(ReaderEvent::ProbeFinished { reader, insertion, result, exchanges: vec![] });
    let mut asked = cm.perform();
    while !asked.contains(&NEW) {
        asked = cm.step();
    }
    (cm.now.mono - came, began.elapsed() / cm.events)
}

#[test]
#[expect(clippy::print_stdout, reason = "figures for `tests/measure fresh`")]
fn a_card_that_comes_among_very_many_that_wait_goes_at_once_and_no_event_looks_at_each() {
    let figures = [0, 2_000, 100_000].map(|count| (count, fresh_among(count)));
    for (count, (waited, event)) in figures {
        println!("among {count} waiting: {waited:?} until its first call, {event:?} an event");
        assert_eq!(waited, Duration::ZERO, "among {count}");
    }
    let [_, (_, (_, few)), (_, (_, many))] = figures;
    assert!(many < 8 * few + Duration::from_millis(1), "{few:?}, {many:?}");
}
