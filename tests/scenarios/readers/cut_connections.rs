//! The connection to pcscd breaks, at any moment and as often as it likes.

use cardbridge_harness::pcscd::Trouble;

use super::*;

const UNKNOWN_READER: u32 = 0x8010_0009;
const UNSUPPORTED_FEATURE: u32 = 0x8010_001F;
const RESET_CARD: u32 = 0x8010_0068;
const NO_SMARTCARD: u32 = 0x8010_000C;

/// More requests than the processing of one card makes.
const REQUESTS: u32 = 48;

/// Puts a card in, for each request of its processing, and has that request go wrong.
fn each_request(trouble: impl Fn() -> Trouble) {
    let ids = ids(REQUESTS.into());
    let world = require!(relayed()).cm(cm_of(&ids)).start().unwrap();
    wait_readers(&world, 2);
    for (nth, id) in (1..=REQUESTS).zip(&ids) {
        let pcscd = world.pcscd.relay().unwrap();
        pcscd.make(trouble().from(nth).times(1));
        let mut card = world.insert(0, GidsCard::new(cardid(id))).unwrap();
        let updated = || {
            let audit = world.audit().unwrap();
            audit.iter().any(|line| line["card_id"] == id.as_str())
        };
        let done = world.wait_until(&format!("the card of trouble {nth}"), LONG, updated);
        done.unwrap_or_else(|error| panic!("{error}: {}", daemon_status(&world)));
        pcscd.clear_troubles();
        card.eject();
        wait_card(&world, 0, "empty");
    }
    // Once each, whatever it took: a second entry for the same insertion would be reported as already set.
    let updated: Vec<String> =
        column(&world, "card_id").into_iter().filter(|id| !id.is_empty()).collect();
    assert_eq!(updated, ids);
    assert_eq!(world.cm.puts().len(), ids.len());
    world.finish().unwrap();
}

#[test]
fn cut_connection_at_any_request_loses_no_card() {
    each_request(Trouble::cut);
}

#[test]
fn reset_connection_at_any_request_loses_no_card() {
    each_request(Trouble::cut_unread);
}

/// As on a connection on which a message of an event got in between, with libpcsclite 2.5.
#[test]
fn unknown_reader_at_any_request_loses_no_card() {
    each_request(|| Trouble::answer(UNKNOWN_READER));
}

#[test]
fn out_of_step_answer_loses_no_card() {
    each_request(|| Trouble::answer(UNSUPPORTED_FEATURE));
}

#[test]
fn card_reset_by_other_program_is_read_again() {
    let world = require!(relayed()).start().unwrap();
    world.pcscd.relay().unwrap().make(Trouble::answer(RESET_CARD).on(Request::Transmit).times(2));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn repeatedly_reset_card_is_reported() {
    let world = require!(relayed()).start().unwrap();
    world.pcscd.relay().unwrap().make(Trouble::answer(RESET_CARD).on(Request::Transmit));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let view = wait_card(&world, 0, "not-identified");
    assert_eq!(view["error"]["reason"], "read-error", "{view}");
    assert!(
        view["error"]["detail"].as_str().unwrap().contains("another program resets it"),
        "{view}"
    );
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn present_card_reported_missing_is_not_removed() {
    let world = require!(relayed()).start().unwrap();
    world.pcscd.relay().unwrap().make(Trouble::answer(NO_SMARTCARD).on(Request::Transmit));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let view = wait_card(&world, 0, "not-identified");
    assert_eq!(view["error"]["reason"], "read-error", "{view}");
    assert!(view["error"]["detail"].as_str().unwrap().contains("while it is present"), "{view}");
    world.finish().unwrap();
}

#[test]
fn out_of_step_monitor_reconnects_silently() {
    let world = require!(relayed()).cm(cm_with(&[OTHER])).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let since = wait_idle(&world, 0)["since"].clone();
    relay.wait_for_waiter(LONG).unwrap();
    for _ in 0..3 {
        let before = asked(relay, Request::Wait);
        relay.break_waits(UNSUPPORTED_FEATURE);
        // The poll on the new connection, and the wait.
        wait_asked(relay, Request::Wait, before, 2);
        relay.wait_for_waiter(LONG).unwrap();
    }
    let _other = world.insert(1, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated"; 2]);
    assert_eq!(card_in(&world, 0)["since"], since, "the same insertion");
    assert!(!world.daemon_log().contains("cannot be watched"), "{}", world.daemon_log());
    world.finish().unwrap();
}

#[test]
fn start_succeeds_after_cut_at_any_request() {
    let mut world = require!(relayed()).without_daemon().start().unwrap();
    for nth in 1..=12 {
        world.pcscd.relay().unwrap().make(Trouble::cut().from(nth).times(1));
        world.start_daemon().unwrap();
        wait_service(&world, "connected");
        wait_readers(&world, 2);
        world.stop_daemon().unwrap();
        world.pcscd.relay().unwrap().clear_troubles();
    }
    world.finish().unwrap();
}

#[test]
fn every_pcscd_death_is_recovered() {
    let ids = ids(20);
    let mut world = require!(ifd()).cm(cm_of(&ids)).start().unwrap();
    wait_readers(&world, 2);
    for (round, id) in ids.iter().enumerate() {
        if round % 2 == 0 {
            world.pcscd.kill9().unwrap();
        } else {
            world.pcscd.stop().unwrap();
        }
        wait_service(&world, "unavailable");
        world.pcscd.restart().unwrap();
        let mut card = world.insert(0, GidsCard::new(cardid(id))).unwrap();
        assert_eq!(world.wait_for_outcomes(round + 1, LONG).unwrap()[round], "updated");
        card.eject();
        wait_card(&world, 0, "empty");
    }
    assert_eq!(column(&world, "card_id"), ids);
    world.finish().unwrap();
}
