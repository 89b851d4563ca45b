//! Cards that are taken out, where a rule is for that.

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;

use super::*;

const DISABLED: u32 = 3;

/// A world that retires cards when they come and disables them when they go, and whose CM has a
/// Disable request for the seed's card.
fn removing() -> Result<WorldBuilder, String> {
    let mut store = Store::seed();
    store.requests = vec![Request::approved(DISABLE, &Record::seed())];
    let rule = "[[rule]]\nname = \"lost\"\non = \"removed\"\nrequest_type = [\"Disable\"]\n\
                set_status = \"Disabled\"";
    let rules = [retire_rule(""), rule.to_owned()].join("\n");
    let cm = CmOptions { store, ..CmOptions::default() };
    Ok(world()?.cm(cm).config_extra(&rules))
}

#[test]
fn removed_card_is_processed_by_removal_rule() {
    let world = require!(removing()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["nothing-to-do"]);
    assert_eq!(status(&world), ACTIVE);
    card.eject();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["nothing-to-do", "updated"]);
    assert_eq!(status(&world), DISABLED);
    let audit = world.audit().unwrap();
    assert_eq!(audit[0].get("trigger"), None, "an insertion");
    assert_eq!((&audit[1]["trigger"], &audit[1]["rule"]), (&"removed".into(), &"lost".into()));
    assert_eq!(audit[1]["card_id"], CARD);
    let text = world.cli(&["audit"]).unwrap().stdout;
    assert!(text.lines().nth(1).unwrap().contains("  removed  "), "{text}");
    world.finish().unwrap();
}

#[test]
fn removal_without_rule_does_nothing() {
    let world = require!(world()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let asked = world.cm.log().len();
    card.eject();
    world.wait_until("the removal", LONG, || world.daemon_log().contains("Card removed")).unwrap();
    let mut again = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    again.eject();
    let log = world.cm.log();
    let asked_since = log.iter().skip(asked).filter(|call| call.target.contains("cardid")).count();
    assert_eq!(asked_since, 1, "{}", world.cm.story());
    world.finish().unwrap();
}

#[test]
fn removal_waits_for_cm_after_its_insertion() {
    let mut world = require!(removing()).start().unwrap();
    world.cm.set_fault(Fault::HoldBefore.times(1).method("GET").path("cardid"));
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    card.eject();
    let both = || {
        let listed = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
        listed.as_array().is_some_and(|entries| entries.len() == 2)
    };
    world.wait_until("both entries", LONG, both).unwrap();
    world.kill9_daemon().unwrap();
    held.release();
    let listed = world.cli(&["outbox", "list"]).unwrap().stdout;
    assert!(listed.contains("removed; waiting"), "{listed}");
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["nothing-to-do", "updated"]);
    let entries: Vec<_> =
        world.audit().unwrap().iter().filter_map(|line| line["entry"].as_u64()).collect();
    assert_eq!(entries, [1, 2]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn unobserved_removal_makes_no_entry() {
    let mut world = require!(removing()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    card.eject();
    readers::wait_pcscd(&world, 0, false);
    world.start_daemon().unwrap();
    let empty = || {
        let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
        status["readers"][0]["card"]["state"] == "empty"
    };
    world.wait_until("the reader to be empty", LONG, empty).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["nothing-to-do", "nothing-to-do"]);
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn pcscd_restart_makes_no_removal() {
    let mut world = require!(removing()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    for graceful in [true, false] {
        if graceful {
            world.pcscd.stop().unwrap();
        } else {
            world.pcscd.kill9().unwrap();
        }
        let state = |world: &World| {
            let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
            (status["pcscd"]["state"].clone(), status["readers"][0]["card"]["state"].clone())
        };
        world.wait_until("pcscd to be gone", LONG, || state(&world).0 == "unavailable").unwrap();
        world.pcscd.restart().unwrap();
        let back = || state(&world) == ("connected".into(), "identified".into());
        world.wait_until("the card to be back", LONG, back).unwrap();
    }
    assert!(world.audit().unwrap().iter().all(|line| line.get("trigger").is_none()));
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}
