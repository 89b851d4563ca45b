//! CM away, slow, confused or hostile; the daemon restarted meanwhile.

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;
use uuid::Uuid;

use super::*;

const OTHER: &str = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";

#[test]
fn card_inserted_during_outage_is_updated_once() {
    let world = require!(world()).start().unwrap();
    world.cm.go_away().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let away = || {
        world.cli(&["status", "--json"]).unwrap().json().unwrap()["cm"]["state"] == "unavailable"
    };
    world.wait_until("the outage to be logged", LONG, away).unwrap();
    let status_now = world.cli(&["status"]).unwrap();
    assert!(status_now.stdout.contains("1 waiting"), "{}", status_now.stdout);
    world.cm.come_back().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts().len(), 1);
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}

#[test]
fn a_card_that_waits_survives_a_restart() {
    let mut world = require!(world()).start().unwrap();
    world.cm.go_away().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let queued = || world.daemon_log().contains("Entry queued");
    world.wait_until("the entry", LONG, queued).unwrap();
    world.stop_daemon().unwrap();
    let listed = world.cli(&["outbox", "list"]).unwrap();
    assert!(listed.stdout.contains(CARD), "a stopped daemon's outbox can be read: {listed:?}");
    world.cm.come_back().unwrap();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn a_lost_answer_is_read_back_and_not_sent_again() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::AnswerLost.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts().len(), 1);
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}

#[test]
fn a_put_answered_by_204_is_read_back() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::NoContentAfter.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn success_response_with_old_status_is_not_updated() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::NoContent.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    assert_eq!(world.audit().unwrap()[0]["reason"], "unexpected-response");
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn refusal_parks_entry_with_cm_message() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Forbidden.method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!((&line["reason"], &line["http_status"]), (&"refused".into(), &403.into()));
    assert_eq!(world.cm.puts().len(), 1, "a no is not asked again");
    world.finish().unwrap();
}

#[test]
fn repeatedly_failing_entry_is_parked_after_ten_trials() {
    let world = require!(world());
    let others: Vec<_> =
        (1..=10).map(|n| format!("7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b8{n:02x}")).collect();
    let known: Vec<_> = others.iter().map(String::as_str).collect();
    let world = world
        .readers(12)
        .cm(cm_with(&known))
        .config_set("outbox.retry_max", "\"50ms\"")
        .start()
        .unwrap();
    let correlation = Uuid::from_u128(0xC0FF_EE00_1234_4567_89AB_CDEF_0123_4567);
    world.cm.set_fault(Fault::ServerError { correlation }.method("PUT").path(RECORD));
    let _bad = world.insert(11, GidsCard::seed()).unwrap();
    let tries = || world.cm.puts().iter().filter(|put| put.target.contains(RECORD)).count();
    let mut inserted = Vec::new();
    for (n, other) in known.iter().enumerate() {
        let before = tries();
        world.wait_until("another try", LONG, || tries() > before).unwrap();
        inserted.push(world.insert(n, GidsCard::new(cardid(other))).unwrap());
        world.wait_for_outcomes(n + 1, LONG).unwrap();
    }
    let outcomes = world.wait_for_outcomes(11, LONG).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "updated").count(), 10);
    let audit = world.audit().unwrap();
    let line = audit.iter().find(|line| line["outcome"] == "parked").unwrap();
    assert_eq!((&line["reason"], &line["card_id"]), (&"repeated-failure".into(), &CARD.into()));
    assert_eq!(line["correlation_id"], correlation.to_string());
    world.finish().unwrap();
}

#[test]
fn foreign_server_never_produces_update() {
    for fault in [
        Fault::HtmlOk,
        Fault::TruncatedJson,
        Fault::CutInBody,
        Fault::OtherUuid,
        Fault::Huge { bytes: 64 << 20 },
        Fault::HtmlNotFound,
        Fault::HtmlMethodNotAllowed,
        Fault::Unauthorized,
        Fault::Unavailable { retry_after: None },
    ] {
        let world = require!(world()).config_set("cm.timeout", "\"5s\"").start().unwrap();
        world.cm.set_fault(fault.clone().method("GET"));
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let asked = |log: &[cardbridge_harness::cm::LogEntry]| {
            log.iter().filter(|call| call.method == "GET" && call.finished).count() >= 6
                || world.outcomes().is_ok_and(|outcomes| !outcomes.is_empty())
        };
        world.cm.wait_for("several tries", LONG, asked).unwrap();
        let outcomes = world.outcomes().unwrap();
        // A record with another Uuid is another record: no request names it.
        let harmless = ["parked", "nothing-to-do"];
        let all = outcomes.iter().all(|outcome| harmless.contains(&outcome.as_str()));
        assert!(all, "{fault:?}: {outcomes:?}");
        assert_eq!(world.cm.puts().len(), 0, "{fault:?}");
        assert!(peak_memory(&world) < 64 << 20, "{fault:?}: {}", peak_memory(&world));
        world.finish().unwrap();
    }
}

#[test]
fn unexpected_put_response_is_verified_by_read() {
    for fault in [Fault::HtmlOk, Fault::TruncatedJson, Fault::Huge { bytes: 64 << 20 }] {
        let world = require!(world()).start().unwrap();
        // A page instead of an answer: nothing was applied. The others: applied, then garbled.
        world.cm.set_fault(fault.clone().times(1).method("PUT"));
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"], "{fault:?}");
        assert_eq!(status(&world), RETIRED);
        let puts = world.cm.puts();
        let applied = puts.iter().filter(|put| put.applied).count();
        assert_eq!(applied, 1, "{fault:?}: applied once");
        assert!(peak_memory(&world) < 64 << 20, "{fault:?}");
        world.finish().unwrap();
    }
}

#[test]
fn response_about_other_card_is_not_updated() {
    let world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::OtherUuid.method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    assert_eq!(world.audit().unwrap()[0]["reason"], "unexpected-response");
    world.finish().unwrap();
}

#[test]
fn one_entry_makes_trials_during_outage() {
    let world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    world.cm.set_fault(Fault::Unavailable { retry_after: Some(1) });
    let _first = world.insert(0, GidsCard::seed()).unwrap();
    let _second = world.insert(1, GidsCard::new(cardid(OTHER))).unwrap();
    let both = || world.daemon_log().matches("Entry queued").count() == 2;
    world.wait_until("both entries", LONG, both).unwrap();
    world.cm.clear_faults();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(world.cm.puts().len(), 2);
    world.finish().unwrap();
}

#[test]
fn retry_after_is_capped_and_operator_overrides_it() {
    let world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    world.cm.set_fault(Fault::Unavailable { retry_after: Some(86_400) });
    let _first = world.insert(0, GidsCard::seed()).unwrap();
    let cm = || world.cli(&["status", "--json"]).unwrap().json().unwrap()["cm"].clone();
    world.wait_until("CM to be away", LONG, || cm()["state"] == "unavailable").unwrap();
    let away = cm();
    let detail = away["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("asked to wait 1h: `cardbridge outbox retry ID` does not wait"),
        "{away}"
    );
    let next = away["next_try_ms"].as_u64().unwrap();
    assert!((3_500_000..3_700_000).contains(&next), "{away}");
    // A new card does not bypass it, the operator does.
    let _second = world.insert(1, GidsCard::new(cardid(OTHER))).unwrap();
    let both = || world.daemon_log().matches("Entry queued").count() == 2;
    world.wait_until("both entries", LONG, both).unwrap();
    world.cm.clear_faults();
    assert_eq!(world.cli(&["outbox", "retry", "1"]).unwrap().code, Some(0));
    let updated = || world.outcomes().unwrap().iter().filter(|it| *it == "updated").count() == 2;
    world.wait_until("both updates", LONG, updated).unwrap();
    world.finish().unwrap();
}

/// The most memory that the daemon ever had resident, in bytes.
fn peak_memory(world: &World) -> u64 {
    let status = format!("/proc/{}/status", world.daemon_pid().unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
