//! What an operator does to an entry.

use super::world::cm::{Mood, RETIRE, RETIRED};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World};
use crate::domain::CmOperation;
use crate::engine::{ActionError, RetryAccepted};

fn parked() -> World {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::Refusing;
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["parked: refused"]);
    world.cm.mood = Mood::Fine;
    world
}

#[test]
fn a_parked_entry_that_is_retried_goes_on_and_gets_an_outcome_of_its_own() {
    let mut world = parked();
    world.retry(1).unwrap();
    world.run(SECOND);
    assert_eq!(world.trail(1), ["parked: refused", "retried", "updated"]);
    assert_eq!(world.disk.audit[1].by.as_deref(), Some("alice"));
    assert_eq!(world.engine.latest().len(), 3);
}

#[test]
fn discarded_parked_entry_is_removed_and_names_operator() {
    let mut world = parked();
    world.discard(1).unwrap();
    world.run(SECOND);
    assert_eq!(world.trail(1), ["parked: refused", "discarded"]);
    assert_eq!(world.disk.audit[1].by.as_deref(), Some("alice"));
    assert_eq!(world.engine.outbox_view().parked, 0);
    assert_eq!(world.retry(1), Err(ActionError::NoSuchEntry));
}

#[test]
fn a_waiting_entry_is_discarded_or_tried_at_once() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(HOUR);
    world.discard(1).unwrap();
    world.run(SECOND);
    assert_eq!(world.trail(1), ["discarded"]);
    world.cm.mood = Mood::Fine;
    world.run_until(World::is_quiet);
    world.retry(2).unwrap();
    world.run(SECOND);
    assert_eq!(world.trail(2), ["nothing-to-do"]);
    assert_eq!(world.trail(1), ["discarded"]);
}

#[test]
fn an_entry_that_is_being_worked_on_cannot_be_discarded() {
    let mut world = World::new();
    world.cm.latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.discard(1), Err(ActionError::InProgress));
    assert_eq!(world.discard(7), Err(ActionError::NoSuchEntry));
    assert_eq!(world.retry(7), Err(ActionError::NoSuchEntry));
    world.run(HOUR);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
}

#[test]
fn retried_expired_entry_waits_full_max_age() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(world.policy.max_age + HOUR);
    assert_eq!(world.trail(1), ["parked: expired"]);
    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: expired", "retried"]);
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: expired", "retried", "nothing-to-do"]);
}

#[test]
fn an_expired_entry_that_may_have_sent_something_never_sends_it_again() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.script.extend([Mood::Fine, Mood::AnswerLost]);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(world.policy.max_age + HOUR);
    assert_eq!(world.trail(1), ["parked: expired"]);
    assert_eq!(world.cm.status(1), RETIRED);
    world.cm.mood = Mood::Fine;
    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.outcome(1), "updated");
    assert_eq!((world.asked(CmOperation::Lookup), world.asked(CmOperation::SetStatus)), (1, 1));
}

#[test]
fn a_parked_entry_knows_over_a_restart_what_it_may_have_sent() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::PutRefused;
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["parked: refused"]);
    world.restart();
    world.cm.mood = Mood::Fine;
    world.retry(1).unwrap();
    world.run(SECOND);
    assert_eq!(world.asked(CmOperation::ReadRecord), 1);
    assert_eq!(world.trail(1), ["parked: refused", "retried", "updated"]);
}

#[test]
fn a_retry_that_the_disk_refuses_leaves_the_entry_parked() {
    let mut world = parked();
    world.disk.refuses.insert(Verb::Unpark);
    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: refused"]);
    assert_eq!(world.asked_for(1), 1);
    assert_eq!(world.engine.outbox_view().parked, 1);
    assert!(world.engine.outbox_view().write_error.is_some());
    world.disk.refuses.clear();
    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: refused", "retried", "updated"]);
    assert!(world.engine.outbox_view().write_error.is_none());
}

#[test]
fn second_action_during_first_is_in_progress() {
    type Action = fn(&mut World, i64) -> Result<(), ActionError>;
    let actions: [Action; 2] = [|world, entry| world.retry(entry).map(|_| ()), World::discard];
    for first in actions {
        for second in actions {
            let mut world = parked();
            world.disk_latency = 2 * SECOND;
            first(&mut world, 1).unwrap();
            assert_eq!(second(&mut world, 1), Err(ActionError::InProgress));
            world.run(HOUR);
            assert_eq!(world.disk.entries.len(), 0);
        }
    }
}

#[test]
fn a_parked_entry_that_is_about_to_give_way_is_left_alone() {
    let mut world = parked();
    world.disk_latency = 2 * SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.entries() == 2);
    assert_eq!(world.retry(1), Err(ActionError::InProgress));
    assert_eq!(world.discard(1), Err(ActionError::InProgress));
    world.run(HOUR);
    assert_eq!(world.trail(2), ["updated"]);
    assert_eq!(world.engine.entry_views(world.now).len(), 0);
}

#[test]
fn a_parked_entry_whose_successor_the_disk_refuses_can_be_retried() {
    let mut world = parked();
    world.disk.refuses.insert(Verb::Append);
    world.insert("Left", 1);
    world.run(SECOND / 2);
    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.outcome(1), "updated");
}

#[test]
fn refused_discard_can_be_repeated() {
    let mut world = parked();
    world.disk.refuses.insert(Verb::Settle);
    world.discard(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.engine.outbox_view().parked, 1);
    world.disk.refuses.clear();
    world.discard(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: refused", "discarded"]);
}

#[test]
fn retry_reports_whether_it_is_stored_first() {
    let mut world = parked();
    world.disk_latency = 2 * SECOND;
    assert_eq!(world.retry(1), Ok(RetryAccepted::OnceStored));
    world.cm.mood = Mood::Away;
    world.run(5 * SECOND);
    world.run_until(World::is_quiet);
    assert_eq!(world.retry(1), Ok(RetryAccepted::Now));
}

#[test]
fn waiting_entry_continues_after_refused_discard() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(HOUR);
    world.run_until(World::is_quiet);
    world.disk.refuses.insert(Verb::Settle);
    world.discard(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.disk.asked[&Verb::Settle], 1);
    assert!(world.engine.outbox_view().write_error.is_some());
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(world.outcome(1), "none");
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
}

#[test]
fn waiting_entry_shows_next_trial() {
    let mut world = World::new();
    world.cm.mood = Mood::Busy(600);
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(100 * SECOND);
    let views = world.engine.entry_views(world.now);
    assert_eq!(views.len(), 2);
    for view in views {
        assert!((500_000..=533_000).contains(&view.next_try_ms.unwrap()), "{view:?}");
    }
}

#[test]
fn a_retried_entry_gives_way_to_a_newer_insertion_like_any_other() {
    let mut world = parked();
    world.cm.mood = Mood::Away;
    world.retry(1).unwrap();
    world.run(HOUR);
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["parked: refused", "retried", "superseded"]);
}
