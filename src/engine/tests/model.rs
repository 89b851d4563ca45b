//! Generated histories of cards, outages, crashes and operator actions, against what the contract says.
//!
//! The world (`world.rs`) fails at the moment at which something happens that must never
//! happen. Here is what must have happened in the end: the model knows which card was put in
//! where, which request is open, and nothing of steps, queues or times.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::world::cm::{ACTIVE, DISABLE, Mood, RETIRE, RETIRED, record_id};
use super::world::disk::{Verb, is_parked};
use super::world::{Crash, DAY, HOUR, READERS, SECOND, World, policy, removing};
use crate::engine::EngineSettings;

use crate::domain::{CardIdentity, ReaderEvent, RequestType, Trigger};

const CARDS: u8 = 3;

/// Something that happens to the daemon.
#[derive(Debug, Clone)]
enum Act {
    Insert {
        reader: usize,
        card: u8,
    },
    Remove {
        reader: usize,
    },
    /// Another card, or the same, between two looks.
    Swap {
        reader: usize,
        card: u8,
    },
    /// A request asks to retire the card, or disabled when it goes.
    Request {
        card: u8,
        kind: RequestType,
    },
    Cm(Mood),
    CmOnce(Mood),
    CmOfCard {
        card: u8,
        mood: Mood,
    },
    CmLatency(u64),
    DiskRefuses(Option<Verb>),
    DiskLatency(u64),
    Reload,
    Restart,
    RestartMeanwhile {
        reader: usize,
        card: Option<u8>,
        /// Whether the PC/SC service was off as well.
        service: bool,
    },
    RestartService,
    CrashSoon {
        after: usize,
        applied: bool,
    },
    /// The clock on the wall is set, or the machine slept: the other one does not notice.
    WallJumps {
        seconds: i64,
    },
    Reboot {
        seconds: i64,
    },
    Replug {
        reader: usize,
    },
    /// Another program begins to use the card in a reader, or lets go of it.
    Use {
        reader: usize,
        other_id: bool,
    },
    Retry {
        back: i64,
    },
    Discard {
        back: i64,
    },
    Pass {
        millis: u64,
    },
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        3 => Just(Mood::Fine),
        3 => Just(Mood::Away),
        2 => Just(Mood::AnswerLost),
        2 => Just(Mood::Failing),
        1 => Just(Mood::Off),
        1 => (1_u64..400).prop_map(Mood::Busy),
        1 => Just(Mood::Refusing),
        1 => Just(Mood::Wrong),
        1 => Just(Mood::PutTaken),
        1 => Just(Mood::PutFailing),
        1 => Just(Mood::NoContent),
        1 => Just(Mood::NoContentNoChange),
        1 => Just(Mood::CompleteRefused),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let reader = || 0..READERS.len();
    let card = || 1..=CARDS;
    let verb = prop::sample::select(Verb::ALL.to_vec());
    prop_oneof![
        8 => (reader(), card()).prop_map(|(reader, card)| Act::Insert { reader, card }),
        3 => reader().prop_map(|reader| Act::Remove { reader }),
        1 => (reader(), card()).prop_map(|(reader, card)| Act::Swap { reader, card }),
        3 => (card(), prop::sample::select(vec![RETIRE, DISABLE]))
            .prop_map(|(card, kind)| Act::Request { card, kind }),
        3 => mood().prop_map(Act::Cm),
        3 => mood().prop_map(Act::CmOnce),
        1 => (card(), mood()).prop_map(|(card, mood)| Act::CmOfCard { card, mood }),
        1 => prop::sample::select(vec![0, 20, 3_000]).prop_map(Act::CmLatency),
        2 => prop::option::of(verb).prop_map(Act::DiskRefuses),
        1 => prop::sample::select(vec![0, 2_000]).prop_map(Act::DiskLatency),
        1 => Just(Act::Reload),
        1 => Just(Act::Restart),
        1 => (reader(), prop::option::of(card()), any::<bool>())
            .prop_map(|(reader, card, service)| Act::RestartMeanwhile { reader, card, service }),
        1 => Just(Act::RestartService),
        2 => (1_usize..8, any::<bool>())
            .prop_map(|(after, applied)| Act::CrashSoon { after, applied }),
        1 => jump().prop_map(|seconds| Act::WallJumps { seconds }),
        1 => jump().prop_map(|seconds| Act::Reboot { seconds }),
        1 => reader().prop_map(|reader| Act::Replug { reader }),
        3 => (reader(), any::<bool>()).prop_map(|(reader, other_id)| Act::Use { reader, other_id }),
        2 => (0_i64..4).prop_map(|back| Act::Retry { back }),
        1 => (0_i64..4).prop_map(|back| Act::Discard { back }),
        8 => prop::sample::select(vec![10, 90, 150, 1_100, 5_000, 60_000, 3_600_000])
            .prop_map(|millis| Act::Pass { millis }),
    ]
}

/// By how much a clock is wrong, in seconds: a little, an hour of summer, a battery that is empty.
fn jump() -> impl Strategy<Value = i64> {
    const A_DAY: i64 = 24 * 3600;
    prop_oneof![-5_i64..5, Just(3600), Just(-3600), -400 * A_DAY..400 * A_DAY]
}

/// What the rules of a history say.
#[derive(Debug, Clone, Copy)]
struct Site {
    /// Whether cards that go are disabled where that is requested; else cards that come are.
    removals: bool,
    /// Whether requests are completed.
    completes: bool,
}

fn site() -> impl Strategy<Value = Site> {
    (any::<bool>(), any::<bool>()).prop_map(|(removals, completes)| Site { removals, completes })
}

impl Site {
    fn policy(self) -> EngineSettings {
        let mut policy = if self.removals { removing() } else { policy() };
        policy.concurrency = NonZeroUsize::new(2).unwrap();
        policy.rules.rules[1].card_status = vec![ACTIVE];
        for rule in &mut policy.rules.rules {
            rule.complete_request = self.completes;
        }
        policy
    }
}

/// What must be true, from nothing but the acts.
#[derive(Debug, Default)]
struct Model {
    /// How many entries there were when the card in this reader was put in, and which card.
    put_in: BTreeMap<&'static str, (u8, i64)>,
    retire: [bool; CARDS as usize + 1],
    disable: [bool; CARDS as usize + 1],
}

impl Model {
    fn put_in(&mut self, world: &World, reader: usize, card: u8) {
        self.put_in.retain(|_, (other, _)| *other != card);
        self.put_in.insert(READERS[reader], (card, world.entries()));
    }

    /// The PC/SC service is another: it is not certain that a card never left.
    fn put_all_in(&mut self, world: &World) {
        for (_, before) in self.put_in.values_mut() {
            *before = world.entries();
        }
    }

    /// Every card that is in a reader made an entry there, in this stay.
    fn check_stays(&self, world: &World) {
        for (reader, (card, before)) in &self.put_in {
            let made = world.disk.appended.iter().any(|(id, draft)| {
                // What was known in part was all that a person did not want.
                let last = world.disk.trail(*id).pop();
                let is_discarded = draft.identity.partial && last.as_deref() == Some("discarded");
                id.number() > *before
                    && draft.trigger == Trigger::Inserted
                    && draft.reader.as_str() == *reader
                    && (is_discarded || whole(&draft.identity) == super::world::identity(*card))
            });
            assert!(made, "card {card} in {reader} made no entry: {}", world.story());
        }
    }
}

fn whole(identity: &CardIdentity) -> CardIdentity {
    let mut whole = identity.clone();
    whole.partial = false;
    whole
}

/// Nothing was found of a card that was known in part only. (What a person did to it is no finding.)
fn check_parts(world: &World) {
    for (id, draft) in &world.disk.appended {
        let findings = ["nothing-to-do", "unknown-card"];
        let found =
            world.disk.trail(*id).iter().any(|outcome| findings.contains(&outcome.as_str()));
        assert!(!(draft.identity.partial && found), "entry {id}: {}", world.story());
    }
}

fn play(site: Site, acts: &[Act]) {
    let mut world = World::with(site.policy());
    let mut model = Model::default();
    for act in acts {
        perform(&mut world, &mut model, act);
        world.disk.check();
    }
    lift_every_fault(&mut world);
    world.run(2 * HOUR);
    check_quiet(&world);
    check_parts(&world);
    model.check_stays(&world);
    put_every_card_in_once_more(&mut world, site, &model);
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are faults")]
fn perform(world: &mut World, model: &mut Model, act: &Act) {
    match *act {
        Act::Insert { reader, card } => {
            take_away(world, card);
            model.put_in(world, reader, card);
            world.insert(READERS[reader], card);
        }
        Act::Remove { reader } => {
            model.put_in.remove(READERS[reader]);
            world.remove(READERS[reader]);
        }
        Act::Swap { reader, card } => {
            take_away(world, card);
            model.put_in(world, reader, card);
            world.swap_in_one_look(READERS[reader], card);
        }
        Act::Request { card, kind } => {
            let known = if kind == RETIRE { &mut model.retire } else { &mut model.disable };
            if !std::mem::replace(&mut known[usize::from(card)], true) {
                world.cm.request(card, kind);
            }
        }
        Act::Replug { reader } => replug(world, model, reader),
        Act::Reboot { seconds } => {
            model.put_all_in(world);
            world.reboot(SignedDuration::from_secs(seconds));
        }
        Act::Use { reader, other_id } => {
            let name = READERS[reader].into();
            if world.used.remove(&name).is_some() {
                world.handle(ReaderEvent::CardReleased { reader: name });
            } else {
                world.used.insert(name, other_id);
            }
        }
        Act::Reload => world.reload(),
        Act::Restart => world.restart(),
        Act::RestartMeanwhile { reader, card, service } => {
            restart_meanwhile(world, model, (reader, card), service);
        }
        Act::RestartService => {
            model.put_all_in(world);
            world.restart_service();
        }
        Act::Retry { back } => {
            let _refused = world.retry(world.entries() - back);
        }
        Act::Discard { back } => {
            let _refused = world.discard(world.entries() - back);
        }
        Act::Pass { millis } => world.run(Duration::from_millis(millis)),
        _ => disturb(world, act),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are no faults")]
fn disturb(world: &mut World, act: &Act) {
    match *act {
        Act::Cm(mood) => world.cm.mood = mood,
        Act::CmOnce(mood) => world.cm.script.push_back(mood),
        Act::CmOfCard { card, mood } => {
            world.cm.of_card.insert(card, mood);
        }
        Act::CmLatency(millis) => world.cm.latency = Duration::from_millis(millis),
        Act::DiskRefuses(Some(verb)) => {
            world.disk.refuses.insert(verb);
        }
        Act::DiskRefuses(None) => world.disk.refuses.clear(),
        Act::DiskLatency(millis) => world.disk_latency = Duration::from_millis(millis),
        Act::CrashSoon { after, applied } => {
            world.crash = Some(Crash { at: world.effects + after, applied });
        }
        Act::WallJumps { seconds } => world.jump(SignedDuration::from_secs(seconds)),
        _ => {}
    }
}

fn take_away(world: &mut World, card: u8) {
    let at = world.seated().find(|(_, seated)| *seated == card).map(|(reader, _)| reader.clone());
    if let Some(reader) = at {
        world.remove(reader.as_str());
    }
}

/// A daemon that dies while a reader is pulled need not know of it: the card is where it was.
fn replug(world: &mut World, model: &mut Model, reader: usize) {
    let name = READERS[reader];
    let seated = world.seated().find(|(reader, _)| reader.as_str() == name);
    let card = seated.map(|(_, card)| card);
    let (before, lives) = (model.put_in.clone(), world.lives);
    if let Some(card) = card {
        model.put_in(world, reader, card);
    }
    world.replug(name);
    if world.lives != lives {
        model.put_in = before;
    }
}

fn restart_meanwhile(
    world: &mut World,
    model: &mut Model,
    (reader, card): (usize, Option<u8>),
    service: bool,
) {
    if service {
        model.put_all_in(world);
    }
    if let Some(card) = card {
        take_away(world, card);
        model.put_in(world, reader, card);
    } else {
        model.put_in.remove(READERS[reader]);
    }
    world.restart_after(|world| {
        match card {
            Some(card) => world.insert_unseen(READERS[reader], card),
            None => world.remove_unseen(READERS[reader]),
        }
        if service {
            world.replace_service();
        }
    });
}

fn lift_every_fault(world: &mut World) {
    world.crash = None;
    // Nothing rings for that: the cards are read again after a while.
    world.used.clear();
    world.cm.mood = Mood::Fine;
    world.cm.script.clear();
    world.cm.of_card.clear();
    world.cm.latency = Duration::from_millis(20);
    world.disk.refuses.clear();
    world.disk_latency = Duration::ZERO;
}

/// Nothing is under way; every entry has its outcome; memory and disk agree.
fn check_quiet(world: &World) {
    world.check_removals();
    assert!(world.is_quiet(), "{}", world.story());
    let parked = world.disk.entries.len();
    assert!(world.disk.entries.values().all(|row| is_parked(&row.stage)), "{}", world.story());
    let view = world.engine.outbox_view();
    assert_eq!((view.waiting, view.parked), (0, parked), "{}", world.story());
    let stays: BTreeMap<_, _> = world.seated().collect();
    assert!(world.disk.stays.keys().all(|reader| stays.contains_key(reader)), "{}", world.story());
}

/// Without faults a card that comes or goes has done what the rules say, and nothing else.
fn put_every_card_in_once_more(world: &mut World, site: Site, model: &Model) {
    for card in 1..=CARDS {
        take_away(world, card);
        world.run(10 * SECOND);
        let comes =
            expected(world, card, if site.removals { &[RETIRE] } else { &[DISABLE, RETIRE] });
        world.insert(READERS[0], card);
        world.run(10 * SECOND);
        check_outcome(world, card, comes);
        if site.removals {
            let goes = expected(world, card, &[DISABLE]);
            world.remove(READERS[0]);
            world.run(10 * SECOND);
            check_outcome(world, card, goes);
        }
        let status = world.cm.records[&record_id(card)].1.status;
        if !model.retire[usize::from(card)] {
            assert_ne!(status, RETIRED, "no request asks for that: {}", world.story());
        }
        if !model.retire[usize::from(card)] && !model.disable[usize::from(card)] {
            assert_eq!(status, ACTIVE, "no request asks for that: {}", world.story());
        }
    }
    world.run(40 * DAY);
    check_quiet(world);
    // Shown until the disk takes something again, which it just did.
    assert_eq!(world.engine.outbox_view().write_error, None, "{}", world.story());
}

/// What comes of a card in this state, by the rules of [`Site`]: a record is disabled only while it
/// is active, and retired in any case; the older request goes first.
fn expected(world: &World, card: u8, kinds: &[RequestType]) -> &'static str {
    let status = world.cm.status(card);
    let mut open = world.cm.open_kinds(card);
    open.retain(|kind| kinds.contains(kind) && (*kind == RETIRE || status == ACTIVE));
    match open.first() {
        None => "nothing-to-do",
        Some(kind) if *kind == RETIRE && status == RETIRED => "already-set",
        Some(_) => "updated",
    }
}

fn check_outcome(world: &World, card: u8, expected: &str) {
    let last = world.disk.ever().filter(|id| world.card_at(*id) == card).last().unwrap();
    assert_eq!(world.disk.trail(last), [expected], "card {card}: {}", world.story());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_contract(
        site in site(),
        acts in prop::collection::vec(act(), 1..50),
    ) {
        play(site, &acts);
    }
}
