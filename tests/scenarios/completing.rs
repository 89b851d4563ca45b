//! Rules that complete the request, and what can happen between its two PUTs; and which of several
//! requests is carried out.

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;

use super::*;

const COMPLETION: &str = r#"{"status":"Completed"}"#;

fn completing() -> Result<WorldBuilder, String> {
    Ok(world()?.config_extra(&retire_rule("complete_request = true")))
}

/// The status of the seed's request, as CM sees it.
fn request_status(world: &World) -> u32 {
    world.cm.request(REQUEST.parse().unwrap()).unwrap().status
}

/// How often the status was put, and how often the request was completed, as far as CM did it.
fn applied(world: &World) -> (usize, usize) {
    let puts = world.cm.puts();
    let (completions, updates): (Vec<_>, Vec<_>) =
        puts.iter().filter(|put| put.applied).partition(|put| put.body == COMPLETION);
    (updates.len(), completions.len())
}

/// Updated and completed, each once, and the completion after the update.
fn ends_well(world: &World) {
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!((status(world), request_status(world)), (RETIRED, COMPLETED));
    assert_eq!(applied(world), (1, 1), "{}", world.cm.story());
    let log = world.cm.log();
    let at = |body: &str| log.iter().position(|call| call.applied && call.body == body);
    assert!(at(r#"{"status":"Retired"}"#) < at(COMPLETION), "{}", world.cm.story());
}

#[test]
fn a_request_is_completed_after_the_card_is_updated() {
    let world = require!(completing()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    ends_well(&world);
    let puts = world.cm.puts();
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[1].target, format!("/CertificateManagement/api/v1.0/requests/{REQUEST}"));
    assert_eq!(puts[1].body, COMPLETION);
    let detail = world.audit().unwrap()[0]["detail"].clone();
    assert_eq!(detail, "CM confirmed the new status and completed the request");
    world.finish().unwrap();
}

#[test]
fn lost_answer_of_either_put_is_not_repeated() {
    for lost in ["Retired", "Completed"] {
        let world = require!(completing()).start().unwrap();
        world.cm.set_fault(Fault::AnswerLost.times(1).method("PUT").body(lost));
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        ends_well(&world);
        assert_eq!(world.cm.puts().len(), 2, "{lost}: {}", world.cm.story());
        let read = |end: &str| {
            let log = world.cm.log();
            log.iter().filter(|call| call.method == "GET" && call.target.ends_with(end)).count()
        };
        assert_eq!((read(RECORD), read(REQUEST)), (1, 1), "{lost}");
        world.finish().unwrap();
    }
}

#[test]
fn killed_after_cm_completed_the_request_and_before_it_answered() {
    let mut world = require!(completing()).start().unwrap();
    world.cm.set_fault(Fault::HoldAfter.times(1).method("PUT").body("Completed"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    held.release();
    world.start_daemon().unwrap();
    ends_well(&world);
    assert_eq!(world.cm.puts().len(), 2, "{}", world.cm.story());
    world.finish().unwrap();
}

#[test]
fn killed_between_the_two_puts() {
    let mut world = require!(completing()).start().unwrap();
    // The completion never reaches CM; the daemon is killed while it reads the record back.
    world.cm.set_fault(Fault::Reset.times(1).method("PUT").body("Completed"));
    world.cm.set_fault(Fault::HoldBefore.times(1).method("GET").path("/smartcards/"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    assert_eq!((status(&world), request_status(&world)), (RETIRED, EXECUTING));
    world.kill9_daemon().unwrap();
    held.release();
    let stored = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    assert_eq!(stored[0]["entry"]["stage"]["stage"], "completing", "{stored}");
    world.start_daemon().unwrap();
    ends_well(&world);
    world.finish().unwrap();
}

#[test]
fn late_completion_after_kill_is_harmless() {
    let mut world = require!(completing()).start().unwrap();
    world.cm.set_fault(Fault::HoldBefore.times(1).method("PUT").body("Completed"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    world.start_daemon().unwrap();
    ends_well(&world);
    held.release();
    let over = |log: &[cardbridge_harness::cm::LogEntry]| log.iter().all(|call| call.finished);
    world.cm.wait_for("the late completion", LONG, over).unwrap();
    ends_well(&world);
    world.finish().unwrap();
}

#[test]
fn refused_completion_parks_entry_with_status_set() {
    let world = require!(completing()).start().unwrap();
    world.cm.set_fault(Fault::Forbidden.times(1).method("PUT").body("Completed"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "refused");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.starts_with("the status WAS set to Retired, but"), "{detail}");
    assert_eq!((status(&world), request_status(&world)), (RETIRED, EXECUTING));
    assert_eq!(world.cli(&["outbox", "retry", "1"]).unwrap().code, Some(0));
    let outcomes = world.wait_for_outcomes(3, LONG).unwrap();
    assert_eq!(outcomes, ["parked", "retried", "updated"]);
    assert_eq!(applied(&world), (1, 1));
    world.finish().unwrap();
}

#[test]
fn already_set_card_gets_only_request_completed() {
    let world = require!(completing());
    let mut store = Store::seed();
    store.records[0].status = RETIRED;
    let world = world.cm(CmOptions { store, ..CmOptions::default() }).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["already-set"]);
    assert_eq!(applied(&world), (0, 1));
    assert_eq!(request_status(&world), COMPLETED);
    world.finish().unwrap();
}

/// A CM with a second, newer Retire request for the seed's card, whose id is returned.
fn cm_with_two_requests() -> (CmOptions, Uuid) {
    let mut store = Store::seed();
    let newer = Request {
        submitted: "2026-01-01T00:00:00.5Z".to_owned(),
        ..Request::approved(RETIRE, &Record::seed())
    };
    let id = newer.uuid;
    store.requests.push(newer);
    (CmOptions { store, ..CmOptions::default() }, id)
}

#[test]
fn rule_picks_one_of_two_requests() {
    for pick in ["", "pick = \"oldest\"", "pick = \"newest\""] {
        let world = require!(world());
        let (cm, newer) = cm_with_two_requests();
        let world = world.cm(cm).config_extra(&retire_rule(pick)).start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"], "{pick}");
        let meant = if pick.contains("newest") { newer.to_string() } else { REQUEST.to_owned() };
        assert_eq!(world.audit().unwrap()[0]["request"], meant.as_str(), "{pick}");
        assert_eq!(world.cm.puts().len(), 1);
        world.finish().unwrap();
    }
}

#[test]
fn ambiguous_requests_park_entry_for_operator() {
    let world = require!(world());
    let (cm, newer) = cm_with_two_requests();
    let rule = retire_rule("pick = \"refuse\"");
    let world = world.cm(cm).config_extra(&rule).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "ambiguous");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains(REQUEST) && detail.contains(&newer.to_string()), "{detail}");
    assert_eq!(world.cm.puts().len(), 0);
    world.finish().unwrap();
}
