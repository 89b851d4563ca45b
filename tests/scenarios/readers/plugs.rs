//! Readers come and go, break down, and change their names.

use cardbridge_harness::pcscd::Trouble;

use super::*;

#[test]
fn replugged_reader_with_card_is_a_new_insertion() {
    let world = require!(ifd()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    for round in 2..=4 {
        world.pcscd.unplug(0).unwrap();
        wait_readers(&world, 1);
        assert_eq!(card_in(&world, 0), Value::Null);
        world.pcscd.plug(0).unwrap();
        let outcomes = world.wait_for_outcomes(round, LONG).unwrap();
        assert_eq!(outcomes[1..], vec!["already-set"; round - 1]);
        wait_readers(&world, 2);
    }
    assert_eq!(entries(&world), [1, 2, 3, 4]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn quickly_replugged_reader_works() {
    let mut world = require!(ifd()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut first = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    // pcscd takes one after the other; the library may see but the end of it, which is as before.
    for _ in 0..5 {
        world.pcscd.unplug(0).unwrap();
        world.pcscd.plug(0).unwrap();
    }
    world.pcscd.wait_ready().unwrap();
    wait_idle(&world, 0);
    wait_readers(&world, 2);
    assert_eq!(world.cm.puts().len(), 1, "whatever was seen of it");
    // What was counted before the plug was pulled is seen after it.
    world.freeze_daemon().unwrap();
    first.eject();
    let second = world.insert(0, other()).unwrap();
    wait_powered(&second);
    world.pcscd.unplug(0).unwrap();
    world.pcscd.plug(0).unwrap();
    world.pcscd.wait_ready().unwrap();
    world.thaw_daemon().unwrap();
    let reported = || column(&world, "card_id").last().is_some_and(|last| last == OTHER);
    world.wait_until("the other card", LONG, reported).unwrap();
    world.wait_until("its record", LONG, || world.cm.puts().len() == 2).unwrap();
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn reader_back_within_milliseconds_is_a_new_insertion() {
    let world = require!(relayed()).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    for round in 2..=4 {
        // The library sees it go, and the monitor has listed the readers before it polls them.
        relay.wait_for_waiter(LONG).unwrap();
        let before = asked(relay, Request::Wait);
        world.pcscd.unplug(0).unwrap();
        wait_asked(relay, Request::Wait, before, 2);
        world.pcscd.plug(0).unwrap();
        let plugged = Instant::now();
        world.wait_for_outcomes(round, LONG).unwrap();
        assert!(plugged.elapsed() < Duration::from_secs(6), "{:?}", plugged.elapsed());
        wait_idle(&world, 0);
    }
    assert_eq!(world.outcomes().unwrap(), ["updated", "already-set", "already-set", "already-set"]);
    world.finish().unwrap();
}

#[test]
fn reader_attached_between_list_and_wait_is_seen() {
    let world = require!(relayed()).readers(3).cm(cm_with(&[OTHER])).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    wait_described(&world, 3);
    world.pcscd.unplug(2).unwrap();
    wait_readers(&world, 2);
    let _waiting = world.insert(2, other()).unwrap();
    relay.wait_for_waiter(LONG).unwrap();

    // After the list and the poll, before the wait: the library counts the readers then, and will
    // not find that there is one more than before.
    let before = asked(relay, Request::Wait);
    relay.make(Trouble::hang().on(Request::Wait).from(3).times(1));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    wait_asked(relay, Request::Wait, before, 3);
    world.pcscd.plug(2).unwrap();
    let plugged = Instant::now();
    relay.release();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert!(plugged.elapsed() < Duration::from_secs(6), "{:?}", plugged.elapsed());
    world.finish().unwrap();
}

#[test]
fn sixteenth_reader_works_like_any_other() {
    let world = require!(ifd());
    let ids = ids(16);
    let world = world.readers(16).cm(cm_of(&ids)).start().unwrap();
    let card = |reader: usize| GidsCard::new(cardid(&ids[reader]));
    let mut cards: Vec<_> =
        (0..16).map(|reader| world.insert(reader, card(reader)).unwrap()).collect();
    assert_eq!(world.wait_for_outcomes(16, LONG).unwrap(), ["updated"; 16]);
    for round in 17..=18 {
        world.pcscd.unplug(5).unwrap();
        wait_readers(&world, 15);
        world.pcscd.plug(5).unwrap();
        wait_readers(&world, 16);
        assert_eq!(
            world.wait_for_outcomes(round, LONG).unwrap()[16..],
            ["already-set"].repeat(round - 16)
        );
    }
    // Sixteen at once are seen to go, and to come.
    cards.iter_mut().for_each(InsertedCard::eject);
    for reader in 0..16 {
        wait_card(&world, reader, "empty");
    }
    let _again: Vec<_> =
        (0..16).map(|reader| world.insert(reader, card(reader)).unwrap()).collect();
    assert_eq!(world.wait_for_outcomes(34, LONG).unwrap().len(), 34);
    world.finish().unwrap();
}

#[test]
fn reader_renamed_during_poll_delays_no_other() {
    let world = require!(relayed()).readers(3).cm(cm_with(&[OTHER])).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    wait_described(&world, 3);
    world.pcscd.unplug(0).unwrap();
    wait_readers(&world, 2);
    let service = daemon_status(&world)["pcscd"].clone();
    relay.wait_for_waiter(LONG).unwrap();
    // After the list, before the poll.
    let before = asked(relay, Request::Wait);
    relay.make(Trouble::hang().on(Request::Wait).from(2).times(1));
    let _card = world.insert(1, GidsCard::seed()).unwrap();
    wait_asked(relay, Request::Wait, before, 2);
    // Plugged in again, it takes the first reader's place, and so another name.
    world.pcscd.unplug(2).unwrap();
    world.pcscd.plug(2).unwrap();
    world.pcscd.wait_ready().unwrap();
    let renamed = Instant::now();
    relay.release();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert!(renamed.elapsed() < Duration::from_secs(5), "{:?}", renamed.elapsed());
    let _other = world.insert(2, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(column(&world, "reader")[1], "Cardbridge Double (R02) 00 00");
    wait_readers(&world, 2);
    assert_eq!(daemon_status(&world)["pcscd"], service, "pcscd was there all the time");
    world.finish().unwrap();
}

#[test]
fn broken_reader_works_after_repair() {
    let mut world = require!(ifd()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    for round in 2..=3 {
        world.pcscd.break_down(0).unwrap();
        wait_card(&world, 0, "empty");
        world.pcscd.repair(0).unwrap();
        world.wait_for_outcomes(round, LONG).unwrap();
        wait_idle(&world, 0);
    }
    assert_eq!(world.outcomes().unwrap(), ["updated", "already-set", "already-set"]);
    world.pcscd.break_down(0).unwrap();
    wait_card(&world, 0, "empty");
    card.eject();
    // The other reader is not touched by it.
    let _other = world.insert(1, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(4, LONG).unwrap()[3], "updated");
    world.pcscd.repair(0).unwrap();
    wait_card(&world, 0, "empty");
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn reader_matched_by_serial_keeps_label_on_any_port() {
    let world = require!(ifd())
        .cm(cm_with(&[OTHER]))
        .config_extra("[[reader]]\nmatch = \"serial:R01\"\nlabel = \"Front desk\"")
        .start()
        .unwrap();
    let _card = world.insert(1, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    // Plugged in while the other is out, it takes that one's place, and so another name.
    let before = world.pcscd.reader_names()[1].clone();
    world.pcscd.unplug(0).unwrap();
    world.pcscd.unplug(1).unwrap();
    wait_readers(&world, 0);
    world.pcscd.plug(1).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();
    assert_ne!(world.pcscd.reader_names()[1], before);
    world.pcscd.plug(0).unwrap();
    let _other = world.insert(0, other()).unwrap();
    world.wait_for_outcomes(3, LONG).unwrap();
    let other = world.pcscd.reader_names()[0].clone();
    assert_eq!(column(&world, "label"), ["Front desk", "Front desk", other.as_str()]);
    world.finish().unwrap();
}
