//! The processing of a card, and each of its outcomes.

use cardbridge_harness::cards::{GidsCard, PlainCard};
use cardbridge_harness::cm::{CmOptions, Record, Request, Store};

use super::*;

#[test]
fn inserted_card_is_updated_once_then_already_set() {
    let world = require!(world()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), RETIRED);
    let puts = world.cm.puts();
    assert_eq!(puts.len(), 1);
    let path = format!("/CertificateManagement/api/v1.0/requests/{REQUEST}/smartcards/{RECORD}");
    assert_eq!(puts[0].target, path);
    assert_eq!(puts[0].body, r#"{"status":"Retired"}"#);
    assert_eq!(puts[0].header("content-type"), Some("application/json"));

    card.eject();
    world.wait_until("the removal", LONG, || world.daemon_log().contains("Card removed")).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(world.cm.puts().len(), 1, "nothing is put twice");
    world.finish().unwrap();
}

#[test]
fn audit_line_has_actor_change_and_reason() {
    let world = require!(world()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let audit = world.audit().unwrap();
    let line = audit[0].as_object().unwrap();
    let expected = serde_json::json!({
        "station": "harness", "kind": "outcome", "outcome": "updated", "entry": 1,
        "reader": "Virtual PCD 1 00 00", "atr": "3b8d0180fba000000397425446590301c8",
        "family": "gids", "serial": "3ff188bcba833740826246eba1291c6e", "card_id": CARD,
        "id_rule": "gids-cardid", "rule": "retire", "record": RECORD, "request": REQUEST,
        "old_status": ACTIVE, "new_status": RETIRED, "new_status_name": "Retired",
        "http_status": 200, "attempts": 1,
    });
    for (key, value) in expected.as_object().unwrap() {
        let same = if key == "reader" {
            line[key].as_str().unwrap().starts_with("Virtual PCD")
        } else {
            line.get(key) == Some(value)
        };
        assert!(same, "{key}: {:?} where {value} is expected", line.get(key));
    }
    assert!(line["at"].as_str().unwrap().ends_with('Z'));
    world.finish().unwrap();
}

#[test]
fn a_card_without_a_record_is_an_unknown_card() {
    let world = require!(world()).start().unwrap();
    let _card = world.insert(0, GidsCard::new([7; 16])).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["unknown-card"]);
    assert_eq!(world.cm.puts().len(), 0);
    world.finish().unwrap();
}

#[test]
fn a_record_without_a_request_has_nothing_to_do() {
    let world = require!(world());
    let store = Store { requests: vec![], ..Store::seed() };
    let world = world.cm(CmOptions { store, ..CmOptions::default() }).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["nothing-to-do"]);
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn a_pending_request_is_not_an_order() {
    let world = require!(world());
    let mut store = Store::seed();
    store.requests[0].status = 16;
    let world = world.cm(CmOptions { store, ..CmOptions::default() }).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["nothing-to-do"]);
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn two_matching_records_park_entry_for_operator() {
    let world = require!(world());
    let mut store = Store::seed();
    let second = Record::of_card(CARD.parse().unwrap());
    store.requests.push(Request::approved(RETIRE, &second));
    store.records.push(second);
    let world = world.cm(CmOptions { store, ..CmOptions::default() }).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    assert_eq!(world.audit().unwrap()[0]["reason"], "ambiguous");
    assert_eq!(world.cm.puts().len(), 0);
    world.finish().unwrap();
}

#[test]
fn two_readers_work_at_once() {
    let world = require!(world());
    let other = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";
    let world = world.readers(2).cm(cm_with(&[other])).start().unwrap();
    let _first = world.insert(0, GidsCard::seed()).unwrap();
    let _second = world.insert(1, GidsCard::new(cardid(other))).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    let mut cards: Vec<_> = world
        .audit()
        .unwrap()
        .iter()
        .map(|line| line["card_id"].as_str().unwrap().to_owned())
        .collect();
    cards.sort();
    assert_eq!(cards, [other, CARD]);
    assert_eq!(world.cm.puts().len(), 2);
    world.finish().unwrap();
}

#[test]
fn unidentified_card_is_reported_without_entry() {
    let world = require!(world()).start().unwrap();
    let _card = world.insert(0, PlainCard::new([0x3b, 0x80, 0x80, 0x01, 0x01])).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "unknown-family");
    assert_eq!(line.get("entry"), None);
    assert_eq!(world.cm.log().len(), 0, "CM is not asked about it");
    world.finish().unwrap();
}

#[test]
fn card_removed_during_read_is_not_identified() {
    let world = require!(world()).start().unwrap();
    let faults = cardbridge_harness::cards::Faults { remove_at: Some(3), ..Default::default() };
    let _card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    assert_eq!(world.audit().unwrap()[0]["reason"], "removed");
    let empty = || {
        world.cli(&["status", "--json"]).unwrap().json().unwrap()["readers"][0]["card"]["state"]
            == "empty"
    };
    world.wait_until("the reader to be empty", LONG, empty).unwrap();
    assert_eq!(world.cm.log().len(), 0);
    world.finish().unwrap();
}

#[test]
fn a_card_is_updated_over_https_with_a_bearer_token() {
    let world = require!(world());
    let options = CmOptions {
        tls: Some(cardbridge_harness::cm::Certificate::Good),
        bearer: Some("a-secret-token".to_owned()),
        store: Store::seed(),
        ..CmOptions::default()
    };
    let world = world.cm(options).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts()[0].header("authorization"), Some("Bearer a-secret-token"));
    assert!(!world.daemon_log().contains("a-secret-token"), "secrets are not logged");
    world.finish().unwrap();
}
