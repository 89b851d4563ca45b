//! Cards that another program uses: what is known of them is a part.

use std::time::Duration;

use super::world::cm::{ACTIVE, Mood, RETIRE, RETIRED};
use super::world::{SECOND, World, identity};
use crate::domain::{CardView, InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent};

fn first() -> InsertionId {
    InsertionId::ZERO.next()
}

fn answer(world: &mut World, result: Result<crate::domain::CardIdentity, NotIdentified>) {
    world.handle(ReaderEvent::ProbeFinished {
        reader: "Left".into(),
        insertion: first(),
        result,
        exchanges: vec![],
    });
}

fn partial(card: u8) -> crate::domain::CardIdentity {
    let mut identity = identity(card);
    identity.partial = true;
    identity
}

fn busy() -> NotIdentified {
    NotIdentified::new(NotIdentifiedReason::InUse, "another program holds it".to_owned())
}

/// A world with a card of which a part is known: it says that it is this one.
fn known_in_part(card: u8) -> World {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    answer(&mut world, Ok(partial(card)));
    world
}

fn audited(world: &World) -> Vec<&str> {
    world.disk.audit.iter().map(|line| line.outcome.as_str()).collect()
}

fn let_go(world: &mut World) {
    world.run(SECOND);
    world.handle(ReaderEvent::CardReleased { reader: "Left".into() });
    world.run(SECOND);
}

#[test]
fn a_card_that_is_known_in_part_acts_on_an_id_that_proves_itself() {
    let mut world = known_in_part(1);
    world.cm.request(1, RETIRE);
    world.run(4 * SECOND);
    assert_eq!(audited(&world), ["updated"]);
    let_go(&mut world);
    answer(&mut world, Ok(identity(1)));
    world.run(600 * SECOND);
    assert_eq!(
        (audited(&world), world.entries()),
        (vec!["updated"], 1),
        "it was worked on already"
    );
    let views = world.engine.reader_views();
    assert!(matches!(&views[0].card, CardView::Identified { identity, .. } if !identity.partial));
}

#[test]
fn a_card_that_is_known_in_part_is_never_unknown_and_has_never_nothing_to_do() {
    for card in [1, 50] {
        let mut world = known_in_part(card);
        world.run(4 * SECOND);
        assert_eq!(audited(&world), [""; 0], "card {card}: it waits for the whole");
        assert_eq!(world.engine.outbox_view().waiting, 1);
        let calls = world.calls.len();
        world.run(Duration::from_millis(500));
        assert_eq!(world.calls.len(), calls, "CM is not asked again and again");
        world.remove("Left");
        world.run(60 * SECOND);
        assert_eq!(audited(&world), ["not-identified"], "card {card}");
        assert!(world.disk.entries.is_empty());
    }
}

#[test]
fn a_card_is_worked_on_once_it_is_read_in_full_whatever_the_part_said() {
    for part in [1, 50] {
        let mut world = known_in_part(part);
        world.cm.request(2, RETIRE);
        world.run(2 * SECOND);
        let_go(&mut world);
        answer(&mut world, Ok(identity(2)));
        world.run(60 * SECOND);
        assert_eq!(audited(&world), ["superseded", "updated"], "{}", world.story());
        assert_eq!((world.cm.status(2), world.cm.status(1)), (RETIRED, ACTIVE));
        assert!(world.disk.entries.is_empty());
    }
}

#[test]
fn a_card_that_was_parked_by_its_part_is_worked_on_once_it_is_read_in_full() {
    for (latency, part) in [(Duration::ZERO, 1), (Duration::ZERO, 50), (4 * SECOND, 50)] {
        let mut world = known_in_part(part);
        world.cm.request(2, RETIRE);
        world.cm.mood = Mood::Refusing;
        world.disk_latency = latency;
        world.run(2 * SECOND);
        world.cm.mood = Mood::Fine;
        let_go(&mut world);
        answer(&mut world, Ok(identity(2)));
        world.run(60 * SECOND);
        assert_eq!(audited(&world).last(), Some(&"updated"), "{}", world.story());
        assert_eq!((world.cm.status(2), world.cm.status(1)), (RETIRED, ACTIVE));
    }
}

#[test]
fn a_card_whose_part_is_still_on_its_way_to_the_disk_makes_one_entry_that_acts() {
    let mut world = World::new();
    world.probe = None;
    world.disk_latency = 10 * SECOND;
    world.insert("Left", 1);
    answer(&mut world, Ok(partial(50)));
    world.cm.request(2, RETIRE);
    let_go(&mut world);
    answer(&mut world, Ok(identity(2)));
    world.run(120 * SECOND);
    assert_eq!(audited(&world), ["superseded", "updated"], "{}", world.story());
}

#[test]
fn a_card_that_stays_in_use_is_asked_ever_less_often_and_stays_known_in_part() {
    let mut world = known_in_part(50);
    for pause in [5, 10, 20, 40, 60, 60] {
        world.run(Duration::from_millis(pause * 1000 - 1));
        let stale = world.engine.counters().stale_results;
        answer(&mut world, Err(busy()));
        assert_eq!(world.engine.counters().stale_results, stale + 1, "no probe before {pause} s");
        world.run(Duration::from_millis(1));
        answer(&mut world, Err(busy()));
        assert_eq!(world.engine.counters().stale_results, stale + 1, "a probe at {pause} s");
        let views = world.engine.reader_views();
        assert!(
            matches!(&views[0].card, CardView::Identified { identity, .. } if identity.partial)
        );
    }
    assert_eq!(audited(&world), [""; 0]);
}

#[test]
fn a_program_that_comes_and_goes_all_the_time_has_the_card_read_ever_less_often() {
    let mut world = known_in_part(50);
    let mut reads = 0;
    for _ in 0..3000 {
        world.run(Duration::from_millis(100));
        world.handle(ReaderEvent::CardReleased { reader: "Left".into() });
        world.run(Duration::ZERO);
        let stale = world.engine.counters().stale_results;
        answer(&mut world, Err(busy()));
        reads += u32::from(world.engine.counters().stale_results == stale);
    }
    assert!((5..40).contains(&reads), "{reads} reads in 300 s");
}

#[test]
fn a_card_known_in_part_whose_reader_goes_or_whose_daemon_restarts_is_not_lost() {
    let mut world = known_in_part(50);
    world.run(2 * SECOND);
    world.handle(ReaderEvent::PcscdUnavailable { reason: "gone".to_owned() });
    world.run(60 * SECOND);
    assert_eq!(audited(&world), ["not-identified"]);

    let mut world = known_in_part(50);
    world.cm.request(1, RETIRE);
    world.run(2 * SECOND);
    world.probe = Some(Duration::from_millis(100));
    world.restart();
    world.run(60 * SECOND);
    assert_eq!(world.cm.status(1), RETIRED, "{}", world.story());
    assert!(world.disk.entries.is_empty());
}

#[test]
fn a_card_that_hangs_when_it_is_read_again_stays_known_in_part() {
    let mut world = known_in_part(50);
    world.run(2 * SECOND);
    let_go(&mut world);
    world.run(120 * SECOND);
    assert_eq!(audited(&world), [""; 0]);
    world.remove("Left");
    world.run(60 * SECOND);
    assert_eq!(audited(&world), ["not-identified"]);
}
