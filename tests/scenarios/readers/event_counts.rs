//! pcscd's count of insertions and removals, and the flags beside it: what it does not ring for is
//! found all the same, and what it rings for without reason costs nothing.

use cardbridge_harness::pcscd::Counts;

use super::*;

/// How late a change without an event may be reported, on a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// Two seconds after a change the monitor polls once more; whatever is reported within two seconds
/// from here on has another reason than that change.
fn wait_calm(relay: &Relay) {
    let (lists, waits) = (asked(relay, Request::States), asked(relay, Request::Wait));
    wait_asked(relay, Request::States, lists, 1);
    wait_asked(relay, Request::Wait, waits, 2);
}

#[test]
fn unseen_swap_of_card_present_before_pcscd_is_found() {
    let mut world = require!(ifd()).cm(cm_with(&[OTHER])).without_daemon().start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.pcscd.restart().unwrap();
    world.start_daemon().unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);

    world.freeze_daemon().unwrap();
    card.eject();
    let swapped = world.insert(0, other()).unwrap();
    wait_powered(&swapped);
    world.thaw_daemon().unwrap();
    let thawed = Instant::now();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert!(thawed.elapsed() < SOON, "{:?}", thawed.elapsed());
    assert_eq!(column(&world, "card_id"), [CARD, OTHER], "same reader, same ATR, count 0 before");
    world.finish().unwrap();
}

/// Exchanges the cards of two readers while the daemon is held: it sees none of the steps.
fn exchange(world: &World, cards: [InsertedCard; 2], made: [GidsCard; 2]) -> [InsertedCard; 2] {
    world.freeze_daemon().unwrap();
    drop(cards);
    let [first, second] = made;
    let cards = [world.insert(0, first).unwrap(), world.insert(1, second).unwrap()];
    cards.iter().for_each(wait_powered);
    world.thaw_daemon().unwrap();
    cards
}

#[test]
fn zero_event_count_hides_no_changed_atr() {
    let mut world = require!(relayed()).cm(cm_with(&[OTHER])).without_daemon().start().unwrap();
    world.pcscd.relay().unwrap().set_counts(Counts::Zero);
    world.start_daemon().unwrap();
    let first = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let other = || other().with_atr([0x3b, 0x80, 0x80, 0x01, 0x01]);
    let second = world.insert(1, other()).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();

    wait_calm(world.pcscd.relay().unwrap());
    let mut cards = exchange(&world, [first, second], [other(), GidsCard::seed()]);
    let exchanged = Instant::now();
    world.wait_for_outcomes(4, LONG).unwrap();
    assert!(exchanged.elapsed() < SOON, "{:?}", exchanged.elapsed());
    cards[0].eject();
    wait_card(&world, 0, "empty");
    world.finish().unwrap();
}

#[test]
fn wrapped_event_count_is_a_swap() {
    let mut world = require!(relayed()).cm(cm_with(&[OTHER])).without_daemon().start().unwrap();
    world.pcscd.relay().unwrap().set_counts(Counts::Ahead(0xFFFD));
    world.start_daemon().unwrap();
    let cards = [world.insert(0, GidsCard::seed()).unwrap(), world.insert(1, other()).unwrap()];
    world.wait_for_outcomes(2, LONG).unwrap();
    // From 0xFFFE to 0, with a card of the same ATR before and after.
    let cards = exchange(&world, cards, [other(), GidsCard::seed()]);
    assert_eq!(world.wait_for_outcomes(4, LONG).unwrap()[2..], ["already-set"; 2]);
    drop(cards);
    wait_card(&world, 0, "empty");
    wait_card(&world, 1, "empty");
    // The count goes on after that.
    let _again = world.insert(0, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(5, LONG).unwrap().len(), 5);
    world.finish().unwrap();
}

#[test]
fn unseen_reinsertion_is_a_new_insertion() {
    let world = require!(ifd()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    world.freeze_daemon().unwrap();
    card.eject();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    wait_powered(&card);
    world.thaw_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(entries(&world), [1, 2]);
    world.finish().unwrap();
}

#[test]
fn spurious_events_make_no_busy_loop() {
    let world = require!(relayed()).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    wait_service(&world, "connected");
    let rung = Instant::now();
    for _ in 0..12 {
        relay.wait_for_waiter(LONG).unwrap();
        // The library itself keeps other rings for nothing from its callers.
        relay.cancel_waits();
    }
    assert!(rung.elapsed() > Duration::from_secs(1), "{:?}", rung.elapsed());
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn use_by_other_program_causes_no_poll() {
    require!(has_opensc());
    let world = require!(relayed()).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    // It uses the card without asking the relay.
    let other_program = |exclusive: bool| {
        let settings =
            format!("app default {{ reader_driver pcsc {{ connect_exclusive = {exclusive}; }} }}");
        let mut tool = opensc(&world, 0, &settings, &["--serial"]);
        tool.env("PCSCLITE_CSOCK_NAME", world.pcscd.own_socket_path());
        assert!(tool.output().unwrap().status.success());
        relay.wait_for_waiter(LONG).unwrap();
    };
    other_program(false);
    wait_calm(relay);
    let before = asked(relay, Request::States);
    [false, true, false, true].into_iter().for_each(other_program);
    assert_eq!(asked(relay, Request::States), before, "the readers were not polled for that");
    assert_eq!(world.outcomes().unwrap().len(), 1);
    world.finish().unwrap();
}
