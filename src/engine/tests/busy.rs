//! Cards that another program has to itself.

use std::time::Duration;

use super::world::{HOUR, SECOND, World};
use crate::domain::{
    CardView, InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent, ReaderMatch, ReaderRule,
};
use crate::engine::Event;

/// The answer of the probe that is under way.
fn answer(world: &mut World, reason: NotIdentifiedReason) {
    let why = NotIdentified::new(reason, "another program holds it".to_owned());
    let (reader, insertion) = ("Left".into(), InsertionId::ZERO.next());
    world.handle(ReaderEvent::ProbeFinished {
        reader,
        insertion,
        result: Err(why),
        exchanges: vec![],
    });
}

/// A world with a card that is busy.
fn busy() -> World {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    answer(&mut world, NotIdentifiedReason::InUse);
    world
}

fn audited(world: &World) -> Vec<Option<&str>> {
    world.disk.audit.iter().map(|line| line.reason.as_deref()).collect()
}

#[test]
fn a_card_that_was_busy_is_read_when_it_is_not_any_more() {
    let mut world = busy();
    world.probe = Some(Duration::ZERO);
    world.run(4 * SECOND);
    assert_eq!(world.entries(), 0);
    world.run(2 * SECOND);
    assert_eq!(world.entries(), 1);
    assert_eq!(audited(&world)[0], Some("in-use"));
}

#[test]
fn card_in_use_is_logged_once_and_retried_less_often() {
    let mut world = busy();
    for (round, pause) in (1..).zip([5, 10, 20, 40, 60, 60]) {
        world.run(Duration::from_millis(pause * 1000 - 1));
        answer(&mut world, NotIdentifiedReason::InUse);
        assert_eq!(world.engine.counters().stale_results, round, "no probe before {pause} s");
        world.run(Duration::from_millis(1));
        let views = world.engine.reader_views();
        assert!(matches!(views[0].card, CardView::NotIdentified { .. }), "{views:?}");
        answer(&mut world, NotIdentifiedReason::InUse);
        assert_eq!(world.engine.counters().stale_results, round, "a probe at {pause} s");
    }
    assert_eq!(audited(&world), [Some("in-use")]);
}

#[test]
fn removed_card_in_use_is_not_logged_or_probed_again() {
    let mut world = busy();
    world.run(5 * SECOND);
    world.remove("Left");
    world.run(HOUR);
    assert_eq!(audited(&world), [Some("in-use")]);
}

#[test]
fn released_card_of_unknown_family_is_logged() {
    let mut world = busy();
    world.run(5 * SECOND);
    answer(&mut world, NotIdentifiedReason::UnknownFamily);
    world.run(HOUR);
    assert_eq!(audited(&world), [Some("in-use"), Some("unknown-family")]);
}

#[test]
fn a_busy_card_in_a_reader_that_is_switched_off_meanwhile_is_left_alone() {
    let mut world = busy();
    let mut policy = world.policy.clone();
    policy.readers.0.push(ReaderRule {
        matches: ReaderMatch::new("Left"),
        label: None,
        role: "desk".to_owned(),
        enabled: false,
        removal_debounce: Duration::ZERO,
    });
    world.handle(Event::Reconfigured(Box::new(policy)));
    world.run(6 * SECOND);
    assert_eq!(world.engine.poll_timeout(), None, "there is nothing left to do");
    assert_eq!(audited(&world), [Some("in-use")]);
}
