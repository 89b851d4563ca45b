//! A daemon with nothing to do does nothing: not to cards, and not to a pcscd that is away.

use cardbridge_harness::pcscd::Trouble;

use super::*;

/// Waits until the monitor waits for something to happen: a turn is a list, a poll, for which the
/// library asks as for a wait, and that wait.
fn wait_at_bell(relay: &Relay) {
    let at_bell = |log: &[Request]| {
        let turn = log.iter().rev().take_while(|asked| **asked != Request::States);
        turn.filter(|asked| **asked == Request::Wait).count() >= 2
    };
    relay.wait_for("the end of a turn", LONG, at_bell).unwrap();
    relay.wait_for_waiter(LONG).unwrap();
}

#[test]
fn processed_cards_get_no_commands() {
    let ids = ids(16);
    let world = require!(relayed()).readers(16).cm(cm_of(&ids)).start().unwrap();
    let cards: Vec<_> = (0..16)
        .map(|reader| world.insert(reader, GidsCard::new(cardid(&ids[reader]))).unwrap())
        .collect();
    assert_eq!(world.wait_for_outcomes(16, LONG).unwrap(), ["updated"; 16]);
    let relay = world.pcscd.relay().unwrap();
    let done = || daemon_status(&world)["outbox"]["waiting"] == 0;
    world.wait_until("the daemon to be done", LONG, done).unwrap();
    let commands = || cards.iter().map(|card| card.apdus().len()).collect::<Vec<_>>();
    let (before, calls) = (commands(), world.cm.log().len());
    let connects = asked(relay, Request::Connect);
    // As often as it polls in a minute and a half.
    for _ in 0..6 {
        wait_at_bell(relay);
        let lists = asked(relay, Request::States);
        relay.cancel_waits();
        wait_asked(relay, Request::States, lists, 1);
    }
    wait_at_bell(relay);
    assert_eq!(commands(), before, "no card gets a command");
    assert_eq!(asked(relay, Request::Connect), connects, "no card is connected to");
    assert_eq!(world.cm.log().len(), calls, "nor is CM asked");
    world.finish().unwrap();
}

#[test]
fn dead_pcscd_socket_is_tried_with_backoff() {
    let mut world = require!(relayed()).without_daemon().start().unwrap();
    let pcscd = world.pcscd.relay().unwrap();
    // The service manager's socket: it takes the connection, and who was to serve it is gone.
    pcscd.make(Trouble::cut().on(Request::Version));
    world.start_daemon().unwrap();
    let pcscd = world.pcscd.relay().unwrap();
    let began = Instant::now();
    wait_asked(pcscd, Request::Version, 0, 9);
    // 50 ms, and twice as long each time, up to two seconds: 30 connections a minute from there on.
    let least = Duration::from_millis(50 + 100 + 200 + 400 + 800 + 1600 + 2000);
    assert!(began.elapsed() >= least, "nine in {:?}", began.elapsed());
    pcscd.clear_troubles();
    wait_service(&world, "connected");
    let versions = asked(pcscd, Request::Version);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    wait_idle(&world, 0);
    let beside = asked(pcscd, Request::Version) - versions;
    assert!(beside <= 3, "{beside} more connections for one card");
    world.finish().unwrap();
}

#[test]
fn daemon_always_holds_one_pcscd_context() {
    let world = require!(relayed()).start().unwrap();
    let pcscd = world.pcscd.relay().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    wait_idle(&world, 0);
    card.eject();
    wait_card(&world, 0, "empty");
    // The monitor's is never let go of; each probe, and each question to a driver, has its own.
    let left = || asked(pcscd, Request::Establish) - asked(pcscd, Request::Release);
    world.wait_until("one context", LONG, || left() == 1).unwrap();
    world.finish().unwrap();
}
