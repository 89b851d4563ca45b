//! Cards that flicker: out of the reader and back before they could have been taken.

use super::*;

/// Longer than a busy machine takes to put a card back.
const SETTLE: &str = "[[reader]]\nmatch = \"*(R00)*\"\nremoval_debounce = \"2s\"\n";

/// Waits until so many arrivals were seen and read.
fn wait_read(world: &World, count: usize) {
    let read = || world.daemon_log().matches("Card identified").count() >= count;
    world.wait_until(&format!("{count} cards read"), LONG, read).unwrap();
}

#[test]
fn bouncing_card_with_debounce_is_one_entry() {
    let world = require!(ifd()).config_extra(SETTLE).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    wait_idle(&world, 0);
    for flicker in 1..=5 {
        card.eject();
        card = world.insert(0, GidsCard::seed()).unwrap();
        wait_read(&world, 1 + flicker);
    }
    wait_idle(&world, 0);
    assert_eq!(card_in(&world, 0)["entry"], 1);
    assert_eq!(world.outcomes().unwrap(), ["updated"]);
    assert_eq!(world.daemon_log().matches("Card inserted").count(), 6, "the daemon saw it come");
    // Out for longer than that, it is taken out.
    card.eject();
    wait_card(&world, 0, "empty");
    let _again = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    world.finish().unwrap();
}

#[test]
fn other_card_within_debounce_is_own_entry() {
    let world = require!(ifd()).cm(cm_with(&[OTHER])).config_extra(SETTLE).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    wait_idle(&world, 0);
    card.eject();
    // The same ATR, and another card.
    let _other = world.insert(0, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(column(&world, "card_id"), [CARD, OTHER]);
    world.finish().unwrap();
}

#[test]
fn bouncing_card_without_debounce_is_entry_each_time() {
    let world = require!(ifd()).config_extra(SETTLE).start().unwrap();
    let mut card = world.insert(1, GidsCard::seed()).unwrap();
    wait_idle(&world, 1);
    card.eject();
    let _again = world.insert(1, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(entries(&world), [1, 2]);
    world.finish().unwrap();
}

#[test]
fn endlessly_bouncing_card_is_processed_when_still() {
    let mut world = require!(ifd()).start().unwrap();
    for insertion in 1..=60 {
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        wait_read(&world, insertion);
        card.eject();
    }
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    wait_idle(&world, 0);
    world.stop_daemon().unwrap();
    let audit = world.audit().unwrap();
    assert!(audit.len() < 45, "{} lines", audit.len());
    let insertions: u64 = audit.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(insertions, 61, "{audit:#?}");
    assert_eq!(world.daemon_log().matches("inserted and removed repeatedly;").count(), 1);
    world.finish().unwrap();
}
