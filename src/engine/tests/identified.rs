//! Cards that have said who they are, and what becomes of them before they are read to the end.

use std::time::Duration;

use super::world::{DAY, SECOND, World, identity};
use crate::domain::{InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent};
use crate::engine::{Effect, OutboxEffect};

fn first() -> InsertionId {
    InsertionId::ZERO.next()
}

/// A world with a card that has said who it is and is asked for more.
fn known() -> World {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    world.handle(ReaderEvent::Identified {
        reader: "Left".into(),
        insertion: first(),
        identity: identity(1),
    });
    world
}

fn answer(world: &mut World, reason: NotIdentifiedReason) {
    let why = NotIdentified::new(reason, "it went".to_owned());
    world.handle(ReaderEvent::ProbeFinished {
        reader: "Left".into(),
        insertion: first(),
        result: Err(why),
        exchanges: vec![],
    });
}

fn is_worked_on_once(world: &mut World) {
    world.run(60 * SECOND);
    assert_eq!(world.entries(), 1, "{}", world.story());
    assert_eq!(world.disk.audit.len(), 1, "{}", world.story());
    assert_ne!(world.disk.audit[0].outcome, "not-identified");
}

#[test]
fn a_card_that_leaves_while_it_is_asked_for_more_is_worked_on() {
    let mut world = known();
    world.remove("Left");
    answer(&mut world, NotIdentifiedReason::Removed);
    is_worked_on_once(&mut world);
}

#[test]
fn a_card_that_is_swapped_while_it_is_asked_for_more_is_worked_on_and_so_is_the_other() {
    let mut world = known();
    world.probe = Some(Duration::from_millis(10));
    world.swap_in_one_look("Left", 2);
    world.run(60 * SECOND);
    assert_eq!(world.entries(), 2, "{}", world.story());
}

#[test]
fn a_card_whose_reader_or_service_goes_while_it_is_asked_for_more_is_worked_on() {
    let mut world = known();
    world.handle(ReaderEvent::ReaderDetached { reader: "Left".into() });
    is_worked_on_once(&mut world);
    let mut world = known();
    world.handle(ReaderEvent::PcscdUnavailable { reason: "gone".to_owned() });
    is_worked_on_once(&mut world);
}

#[test]
fn a_card_that_fails_while_it_is_asked_for_more_is_worked_on() {
    for &reason in NotIdentifiedReason::ALL {
        let mut world = known();
        answer(&mut world, reason);
        is_worked_on_once(&mut world);
    }
}

#[test]
fn a_card_that_hangs_while_it_is_asked_for_more_is_worked_on_within_a_second() {
    let mut world = known();
    world.run(Duration::from_millis(999));
    assert_eq!(world.entries(), 0);
    world.run(Duration::from_millis(1));
    assert_eq!(world.entries(), 1);
    is_worked_on_once(&mut world);
}

#[test]
fn an_identity_of_a_card_that_is_not_there_any_more_counts_for_nothing() {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    world.remove("Left");
    let stale = world.engine.counters().stale_results;
    let (reader, insertion) = ("Left".into(), first());
    world.handle(ReaderEvent::Identified { reader, insertion, identity: identity(1) });
    world.run(DAY);
    assert_eq!(world.entries(), 0);
    assert_eq!(world.engine.counters().stale_results, stale + 1);
    assert!(!matches!(
        world.engine.poll_effect(),
        Some(Effect::Outbox(OutboxEffect::AppendEntry { .. }))
    ));
}
