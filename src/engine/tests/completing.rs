//! Rules that complete the request once the record has the status.

use super::world::cm::{ACTIVE, CANCELED, COMPLETED, EXECUTING, Mood, RETIRE, RETIRED, record_id};
use super::world::{HOUR, SECOND, World, completing};
use crate::domain::{CmOperation, EntryId, Stage};

/// A world whose rules complete, with an open Retire request for card 1, and CM in these moods.
fn asked_for(script: &[Mood]) -> World {
    let mut world = World::with(completing());
    world.cm.request(1, RETIRE);
    world.cm.script.extend(script.iter().copied());
    world
}

fn played(script: &[Mood]) -> World {
    let mut world = asked_for(script);
    world.insert("Left", 1);
    world.run(HOUR);
    world
}

fn asks(world: &World) -> Vec<CmOperation> {
    world.calls.iter().map(|call| call.ask).collect()
}

const FINE: Mood = Mood::Fine;

#[test]
fn a_request_is_completed_once_the_record_has_the_status() {
    let world = played(&[]);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(
        asks(&world),
        [CmOperation::Lookup, CmOperation::SetStatus, CmOperation::CompleteRequest]
    );
    assert_eq!((world.cm.status(1), world.cm.requests[0].status), (RETIRED, COMPLETED));
    let line = &world.disk.audit[0];
    assert_eq!(line.detail, "CM confirmed the new status and completed the request");
    assert_eq!(line.http_status, Some(200));
}

#[test]
fn a_rule_that_does_not_say_so_completes_nothing() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(asks(&world), [CmOperation::Lookup, CmOperation::SetStatus]);
    assert_eq!(world.cm.requests[0].status, EXECUTING);
}

#[test]
fn a_completion_is_on_disk_before_it_is_sent() {
    let mut world = asked_for(&[]);
    world.disk_latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    world.run(4 * SECOND);
    assert!(matches!(world.disk.entries[&EntryId::new(1)].stage, Stage::Completing(_)));
    assert_eq!(world.asked(CmOperation::CompleteRequest), 0);
    world.run(2 * SECOND);
    assert_eq!(world.asked(CmOperation::CompleteRequest), 1);
}

#[test]
fn an_update_whose_answer_was_lost_is_read_back_record_and_request_before_it_is_completed() {
    let world = played(&[FINE, Mood::AnswerLost]);
    assert_eq!(world.trail(1), ["updated"]);
    let expected = [
        CmOperation::Lookup,
        CmOperation::SetStatus,
        CmOperation::ReadRecord,
        CmOperation::ReadRequest,
        CmOperation::CompleteRequest,
    ];
    assert_eq!(asks(&world), expected);
}

#[test]
fn a_completion_whose_answer_was_lost_is_read_back_and_not_repeated() {
    let world = played(&[FINE, FINE, Mood::AnswerLost]);
    assert_eq!(world.trail(1), ["updated"]);
    let expected = [
        CmOperation::Lookup,
        CmOperation::SetStatus,
        CmOperation::CompleteRequest,
        CmOperation::ReadRecord,
        CmOperation::ReadRequest,
    ];
    assert_eq!(asks(&world), expected);
    assert_eq!(world.cm.requests[0].status, COMPLETED);
}

#[test]
fn a_completion_that_did_not_arrive_is_repeated_after_it_was_read_back() {
    let world = played(&[FINE, FINE, Mood::Away]);
    assert_eq!(world.trail(1), ["updated"]);
    let after = [CmOperation::ReadRecord, CmOperation::ReadRequest, CmOperation::CompleteRequest];
    assert_eq!(
        asks(&world),
        [&[CmOperation::Lookup, CmOperation::SetStatus, CmOperation::CompleteRequest][..], &after]
            .concat()
    );
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn a_status_that_is_set_already_only_has_its_request_completed() {
    let mut world = asked_for(&[]);
    world.cm.know(1, 1, RETIRED);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["already-set"]);
    assert_eq!(asks(&world), [CmOperation::Lookup, CmOperation::CompleteRequest]);
    assert_eq!(world.cm.requests[0].status, COMPLETED);
}

#[test]
fn a_status_that_was_set_already_stays_so_over_a_lost_answer_and_a_restart() {
    let mut world = asked_for(&[FINE, Mood::AnswerLost]);
    world.cm.know(1, 1, RETIRED);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::CompleteRequest) == 1);
    world.restart();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["already-set"]);
    assert_eq!(
        (world.asked(CmOperation::SetStatus), world.asked(CmOperation::CompleteRequest)),
        (0, 1)
    );
}

#[test]
fn a_refused_completion_is_parked_and_says_that_the_status_was_set() {
    let mut world = played(&[FINE, FINE, Mood::Refusing]);
    assert_eq!(world.trail(1), ["parked: refused"]);
    let line = &world.disk.audit[0];
    let words = "the status WAS set to Retired, but the request is not completed: not for you";
    assert_eq!(line.detail, words);
    assert_eq!((line.http_status, line.correlation_id.as_deref()), (Some(403), Some("beef")));
    assert_eq!(line.new_status, Some(RETIRED));

    world.retry(1).unwrap();
    world.run(HOUR);
    assert_eq!(world.outcome(1), "updated");
    assert_eq!(
        (world.asked(CmOperation::SetStatus), world.asked(CmOperation::CompleteRequest)),
        (1, 2)
    );
    assert_eq!(world.cm.requests[0].status, COMPLETED);
}

#[test]
fn a_refused_completion_of_a_status_that_was_there_already_says_that() {
    let mut world = asked_for(&[FINE, Mood::CompleteRefused]);
    world.cm.know(1, 1, RETIRED);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: refused"]);
    let detail = &world.disk.audit[0].detail;
    assert!(detail.starts_with("the record has status Retired already, but"), "{detail}");
}

#[test]
fn a_yes_that_does_not_say_where_the_request_stands_is_read_back() {
    let world = played(&[FINE, FINE, Mood::NoContent]);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(
        asks(&world),
        [
            CmOperation::Lookup,
            CmOperation::SetStatus,
            CmOperation::CompleteRequest,
            CmOperation::ReadRequest
        ]
    );
}

#[test]
fn a_yes_that_completed_nothing_is_a_wrong_answer_and_not_repeated() {
    let world = played(&[FINE, FINE, Mood::NoContentNoChange]);
    assert_eq!(world.trail(1), ["parked: unexpected-response"]);
    let detail = &world.disk.audit[0].detail;
    assert!(detail.contains("WAS set") && detail.contains("still Executing"), "{detail}");
    assert_eq!(world.asked(CmOperation::CompleteRequest), 1);
}

#[test]
fn request_that_ended_otherwise_is_parked() {
    let mut world = asked_for(&[FINE, Mood::AnswerLost]);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    world.cm.requests[0].status = CANCELED;
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: refused"]);
    let detail = &world.disk.audit[0].detail;
    assert!(detail.contains("WAS set") && detail.contains("Canceled by now"), "{detail}");
    assert_eq!(world.asked(CmOperation::CompleteRequest), 0);
}

#[test]
fn nothing_is_completed_that_the_record_does_not_confirm_any_more() {
    let mut world = asked_for(&[FINE, FINE, Mood::Away]);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::CompleteRequest) == 1);
    world.cm.records.get_mut(&record_id(1)).unwrap().1.status = ACTIVE;
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: unexpected-response"]);
    let detail = &world.disk.audit[0].detail;
    assert!(detail.contains("the record has status Active by now"), "{detail}");
    assert_eq!(
        (world.asked(CmOperation::SetStatus), world.asked(CmOperation::CompleteRequest)),
        (1, 1)
    );
    assert_eq!(world.cm.requests[0].status, EXECUTING);
}

#[test]
fn a_card_that_is_put_in_again_inherits_the_completion() {
    for mood in [Mood::Fine, Mood::AnswerLost, Mood::Away] {
        let mut world = asked_for(&[FINE, FINE, mood]);
        world.cm.latency = 5 * SECOND;
        world.insert("Left", 1);
        world.run_until(|world| world.asked(CmOperation::CompleteRequest) == 1);
        world.insert("Left", 1);
        world.run(HOUR);
        assert_eq!((world.outcome(1), world.outcome(2)), ("superseded".into(), "updated".into()));
        assert_eq!(world.asked(CmOperation::SetStatus), 1, "{mood:?}");
        assert_eq!(world.cm.requests[0].status, COMPLETED, "{mood:?}");
    }
}

#[test]
fn an_outage_between_the_two_puts_keeps_the_entry_waiting_and_ends_well() {
    for mood in [Mood::Away, Mood::Failing, Mood::PutTaken, Mood::PutFailing, Mood::Busy(60)] {
        let mut world = asked_for(&[FINE, FINE]);
        world.cm.mood = mood;
        world.insert("Left", 1);
        world.run(6 * HOUR);
        assert_eq!(world.trail(1).len(), 0, "{mood:?}");
        world.cm.mood = Mood::Fine;
        world.run(HOUR);
        assert_eq!(world.trail(1), ["updated"], "{mood:?}");
        assert_eq!(world.asked(CmOperation::SetStatus), 1, "{mood:?}");
    }
}

#[test]
fn an_entry_that_waits_too_long_for_its_completion_says_that_the_status_was_set() {
    let mut world = asked_for(&[FINE, FINE]);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(world.policy.max_age + HOUR);
    assert_eq!(world.trail(1), ["parked: expired"]);
    let detail = &world.disk.audit[0].detail;
    assert!(detail.starts_with("the status WAS set to Retired, but"), "{detail}");
}
