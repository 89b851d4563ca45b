//! How an entry ends.

use super::world::cm::{
    ACTIVE, DISABLE, DISABLED, Mood, RETIRE, RETIRED, card_id, record_id, request_id,
};
use super::world::{DAY, HOUR, SECOND, World, policy};
use crate::domain::CmOperation;
use crate::engine::Notice;
use crate::rules::AtrMismatch;

#[test]
fn an_open_request_is_carried_out_and_confirmed() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(world.cm.status(1), RETIRED);
    let asked: Vec<_> = world.calls.iter().map(|call| call.ask).collect();
    assert_eq!(asked, [CmOperation::Lookup, CmOperation::SetStatus]);
    let line = &world.disk.audit[0];
    assert_eq!(line.record, Some(record_id(1)));
    assert_eq!(line.request, Some(request_id(0)));
    assert_eq!((line.old_status, line.new_status), (Some(ACTIVE), Some(RETIRED)));
    assert_eq!((line.attempts, line.by.as_deref()), (1, None));
    assert_eq!(world.engine.latest(), world.disk.audit);
}

#[test]
fn cm_is_asked_nothing_before_the_entry_is_on_disk() {
    let mut world = World::new();
    world.disk_latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.entries() == 1);
    world.run(4 * SECOND);
    assert_eq!(world.calls.len(), 0);
    world.run(2 * SECOND);
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn nothing_is_sent_before_its_decision_is_on_disk() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.disk_latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::Lookup) == 1);
    world.run(4 * SECOND);
    assert_eq!(world.asked(CmOperation::SetStatus), 0);
    world.run(2 * SECOND);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn a_status_that_is_set_already_is_not_set_again() {
    let mut world = World::new();
    world.cm.request(1, DISABLE);
    world.cm.know(1, 1, DISABLED);
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["already-set"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 0);
}

#[test]
fn without_an_open_request_there_is_nothing_to_do() {
    let mut world = World::new();
    world.cm.request(2, RETIRE);
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 0);
}

#[test]
fn a_card_without_a_record_is_unknown() {
    let mut world = World::new();
    world.insert("Left", 40);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["unknown-card"]);
}

#[test]
fn a_second_choice_id_counts_only_with_the_cards_own_atr() {
    let mut world = World::new();
    world.cm.know(140, 40, ACTIVE);
    world.cm.request(40, RETIRE);
    world.cm.know(141, 41, ACTIVE);
    world.cm.records.get_mut(&record_id(41)).unwrap().1.atr = "3b00".parse().ok();
    world.cm.request(41, RETIRE);
    world.insert("Left", 40);
    world.run(SECOND);
    world.insert("Left", 41);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(world.disk.audit[0].card_id, Some(card_id(140)));
    assert_eq!(world.trail(2), ["unknown-card"]);
    assert_eq!(world.disk.audit[1].card_id, Some(card_id(141)), "what CM knew, and not the first");
}

#[test]
fn two_records_with_a_request_each_are_ambiguous() {
    let mut world = World::new();
    world.cm.know(1, 50, ACTIVE);
    world.cm.request(1, RETIRE);
    world.cm.request(50, RETIRE);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: ambiguous"]);
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn another_atr_in_cm_is_a_warning_or_a_refusal() {
    for (setting, outcome) in
        [(AtrMismatch::Warn, "updated"), (AtrMismatch::Refuse, "parked: atr-mismatch")]
    {
        let mut policy = policy();
        policy.rules.atr_mismatch = setting;
        let mut world = World::with(policy);
        world.cm.records.get_mut(&record_id(1)).unwrap().1.atr = "3b00".parse().ok();
        world.cm.request(1, RETIRE);
        world.insert("Left", 1);
        world.run(SECOND);
        assert_eq!(world.trail(1), [outcome]);
        let warned = world.notices.iter().any(|notice| matches!(notice, Notice::Warning { .. }));
        assert_eq!(warned, setting == AtrMismatch::Warn);
    }
}

#[test]
fn a_refusal_is_parked_with_cms_own_words() {
    for mood in [Mood::Refusing, Mood::PutRefused] {
        let mut world = World::new();
        world.cm.request(1, RETIRE);
        world.cm.mood = mood;
        world.insert("Left", 1);
        world.run(HOUR);
        assert_eq!(world.trail(1), ["parked: refused"], "{mood:?}");
        let line = &world.disk.audit[0];
        assert_eq!(line.detail, "not for you");
        assert_eq!(line.http_status, Some(403));
        assert_eq!(line.correlation_id.as_deref(), Some("beef"));
        let asked = if mood == Mood::Refusing { 1 } else { 2 };
        assert_eq!(world.calls.len(), asked, "{mood:?}");
        assert!(!world.is_away());
    }
}

#[test]
fn an_answer_about_something_else_is_parked() {
    let mut world = World::new();
    world.cm.mood = Mood::Wrong;
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: unexpected-response"]);
}

#[test]
fn a_yes_without_a_status_is_read_back_before_it_is_called_done() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::NoContent;
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["updated"]);
    let asked: Vec<_> = world.calls.iter().map(|call| call.ask).collect();
    assert_eq!(asked, [CmOperation::Lookup, CmOperation::SetStatus, CmOperation::ReadRecord]);
}

#[test]
fn a_yes_that_changed_nothing_is_a_wrong_answer() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::NoContentNoChange;
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: unexpected-response"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn a_yes_that_changed_nothing_is_not_repeated_after_an_outage_either() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::NoContentNoChange;
    world.cm.script.extend([Mood::Fine, Mood::NoContentNoChange, Mood::Away, Mood::Away]);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["parked: unexpected-response"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn an_update_whose_answer_was_lost_is_read_back_and_not_repeated() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.script.extend([Mood::Fine, Mood::AnswerLost]);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
    let asked: Vec<_> = world.calls.iter().map(|call| call.ask).collect();
    assert_eq!(asked, [CmOperation::Lookup, CmOperation::SetStatus, CmOperation::ReadRecord]);
}

#[test]
fn lost_update_is_evaluated_again_before_repeat() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.script.extend([Mood::Fine, Mood::Away]);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
    let asked: Vec<_> = world.calls.iter().map(|call| call.ask).collect();
    assert_eq!(
        asked,
        [
            CmOperation::Lookup,
            CmOperation::SetStatus,
            CmOperation::ReadRecord,
            CmOperation::Lookup,
            CmOperation::SetStatus
        ]
    );
}

#[test]
fn a_request_that_was_closed_meanwhile_is_not_carried_out() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.script.extend([Mood::Fine, Mood::Away]);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    world.cm.requests.clear();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
    assert_eq!(world.cm.status(1), ACTIVE);
}

#[test]
fn a_card_that_has_waited_too_long_during_a_call_is_parked_when_that_fails() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.cm.latency = 31 * DAY;
    world.insert("Left", 1);
    world.run(30 * DAY + HOUR);
    assert_eq!(world.trail(1).len(), 0);
    world.run(DAY);
    assert_eq!(world.trail(1), ["parked: expired"]);
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn a_card_that_waited_too_long_is_parked_with_what_happened_last() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(29 * DAY);
    assert_eq!(world.trail(1).len(), 0);
    world.run(DAY);
    assert_eq!(world.trail(1), ["parked: expired"]);
    assert!(world.disk.audit[0].detail.contains("the tests say so"), "{:?}", world.disk.audit[0]);
    let asked = world.calls.len();
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert_eq!(world.calls.len(), asked);
}
