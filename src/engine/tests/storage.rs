//! A disk that refuses: nothing is lost, nothing is sent that is not on it.

use super::world::cm::{Mood, RETIRE, RETIRED};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World};
use crate::domain::CmOperation;
use crate::engine::Notice;

#[test]
fn a_card_that_the_disk_does_not_take_is_offered_again_until_it_does() {
    let mut world = World::new();
    world.disk.refuses.insert(Verb::Append);
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(HOUR);
    assert_eq!(world.calls.len(), 0);
    assert!(world.engine.outbox_view().write_error.is_some());
    let asked = world.disk.asked[&Verb::Append];
    assert!((10..120).contains(&asked), "{asked}");
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(
        (world.outcome(1), world.outcome(2)),
        ("nothing-to-do".into(), "nothing-to-do".into())
    );
    assert!(world.engine.outbox_view().write_error.is_none());
    let audited = world.notices.as_slice();
    assert!(matches!(audited, [Notice::OutboxError(_), Notice::OutboxRecovered]), "{audited:?}");
}

#[test]
fn the_time_on_the_way_to_the_disk_counts() {
    let mut world = World::new();
    world.disk.refuses.insert(Verb::Append);
    world.insert("Left", 1);
    world.run(60 * SECOND);
    world.disk.refuses.clear();
    world.run(HOUR);
    assert!(world.disk.audit[0].duration_ms >= 60_000, "{:?}", world.disk.audit[0]);
}

#[test]
fn a_decision_that_the_disk_does_not_take_is_not_sent() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.disk.refuses.insert(Verb::Save);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.asked(CmOperation::SetStatus), 0);
    assert!(world.asked(CmOperation::Lookup) < 80, "{}", world.asked(CmOperation::Lookup));
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
}

#[test]
fn an_outcome_that_the_disk_does_not_take_is_offered_again_without_asking_cm() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.disk.refuses.insert(Verb::Settle);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.calls.len(), 2);
    let asked = world.disk.asked[&Verb::Settle];
    assert!((10..120).contains(&asked), "{asked}");
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(world.calls.len(), 2);
}

#[test]
fn an_outcome_that_the_disk_does_not_take_keeps_no_other_card_waiting() {
    let mut world = World::new();
    world.disk.refuses.insert(Verb::Settle);
    for card in 1..=9 {
        world.insert("Left", card);
        world.run(SECOND);
    }
    assert_eq!(world.asked(CmOperation::Lookup), 9);
}

#[test]
fn a_disk_that_refuses_everything_costs_few_calls() {
    let mut world = World::new();
    for card in 1..=9 {
        world.cm.request(card, RETIRE);
    }
    world.cm.mood = Mood::Away;
    for card in 1..=9 {
        world.insert("Left", card);
        world.run(SECOND);
    }
    world.cm.mood = Mood::Fine;
    world.disk.refuses.extend(Verb::ALL);
    world.run(HOUR);
    let asked = world.calls.len();
    world.run(HOUR);
    let asked = world.calls.len() - asked;
    assert!(asked < 9 * 60, "{asked}");
    assert_eq!(world.asked(CmOperation::SetStatus), 0);
    world.disk.refuses.clear();
    world.run(HOUR);
    for entry in 1..=9 {
        assert_eq!(world.trail(entry), ["updated"]);
    }
}

#[test]
fn cards_beyond_memory_limit_are_logged_as_dropped() {
    let mut world = World::new();
    world.disk.refuses.insert(Verb::Append);
    for card in (1..=9).cycle().take(300) {
        world.insert("Left", card);
        world.run(SECOND);
    }
    let lost =
        world.notices.iter().filter(|audited| matches!(audited, Notice::CardDropped(_))).count();
    assert_eq!(lost, 300 - 256);
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(world.entries(), 256);
    assert_eq!(world.outcome(256), "nothing-to-do");
}

#[test]
fn an_entry_that_was_sent_reads_back_first_after_every_restart() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.script.extend([Mood::Fine, Mood::AnswerLost]);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(HOUR);
    world.restart();
    world.run(HOUR);
    world.cm.mood = Mood::Fine;
    world.restart();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!((world.asked(CmOperation::Lookup), world.asked(CmOperation::SetStatus)), (1, 1));
    assert_eq!(world.cm.status(1), RETIRED);
}
