//! SIGTERM is obeyed within two seconds, whatever the daemon is at: each `stop_daemon` fails where
//! it takes longer. A pcscd that hangs, a card that hangs, a name server and a KDC that are silent
//! have theirs where those are.

use cardbridge_harness::cards::Faults;
use cardbridge_harness::cm::{Fault, LogEntry};
use cardbridge_harness::process::signal_pid;
use rustix::process::Signal;

use super::*;

#[test]
fn starting_daemon_stops_in_time() {
    let mut world = require!(ifd()).without_daemon().start().unwrap();
    for there in ["cardbridge.toml", "outbox.db", "control.sock"] {
        for file in ["outbox.db", "outbox.db.lock", "control.sock"] {
            drop(std::fs::remove_file(world.dir().join(file)));
        }
        world.launch_daemon().unwrap();
        let exists = || world.dir().join(there).exists();
        world.wait_until(there, LONG, exists).unwrap();
        // Before it listens to signals, the signal itself ends it.
        signal_pid(world.daemon_pid().unwrap(), Signal::TERM).unwrap();
        world.wait_daemon_end(Duration::from_secs(2)).unwrap();
    }
    world.start_daemon().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn daemon_without_pcscd_stops_in_time() {
    let mut world = require!(ifd()).without_daemon().start().unwrap();
    for tidily in [false, true] {
        world.pcscd.restart().unwrap();
        if tidily {
            world.pcscd.stop().unwrap();
        } else {
            world.pcscd.kill9().unwrap();
        }
        world.start_daemon().unwrap();
        wait_service(&world, "unavailable");
        world.stop_daemon().unwrap();
    }
    world.finish().unwrap();
}

#[test]
fn daemon_with_hung_cm_call_stops_in_time() {
    for (method, fault) in
        [("GET", Fault::HoldBefore), ("PUT", Fault::HoldBefore), ("PUT", Fault::HoldAfter)]
    {
        let mut world = require!(ifd()).start().unwrap();
        world.cm.set_fault(fault.method(method).times(1));
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let call = world.cm.wait_held(LONG).unwrap();
        world.stop_daemon().unwrap();
        call.release();
        world.start_daemon().unwrap();
        world.wait_for_outcomes(1, LONG).unwrap();
        assert_eq!(status(&world), RETIRED);
        world.finish().unwrap();
    }
}

#[test]
fn daemon_probing_sixteen_cards_stops_in_time() {
    let mut world = require!(ifd()).readers(16).start().unwrap();
    let faults = || Faults { hang_at: Some(2), ..Faults::default() };
    let cards: Vec<_> = (0..16)
        .map(|reader| world.insert_with(reader, GidsCard::seed(), faults()).unwrap())
        .collect();
    for card in &cards {
        card.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    }
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn daemon_draining_outbox_stops_in_time() {
    let ids = ids(48);
    let mut world = require!(ifd()).readers(16).cm(cm_of(&ids)).start().unwrap();
    world.cm.go_away().unwrap();
    for some in ids.chunks(16) {
        let mut cards: Vec<_> = some
            .iter()
            .enumerate()
            .map(|(reader, id)| world.insert(reader, GidsCard::new(cardid(id))).unwrap())
            .collect();
        let queued = || (0..16).all(|reader| card_in(&world, reader)["entry"].is_number());
        world.wait_until("entries", LONG, queued).unwrap();
        cards.iter_mut().for_each(InsertedCard::eject);
        for reader in 0..16 {
            wait_card(&world, reader, "empty");
        }
    }
    world.cm.come_back().unwrap();
    world.cm.set_fault(Fault::Slow { ms: 20 }.times(u32::MAX));
    let some = |log: &[LogEntry]| log.iter().filter(|call| call.applied).count() > 4;
    world.cm.wait_for("the first updates", LONG, some).unwrap();
    world.stop_daemon().unwrap();
    let done = world.cm.puts().len();
    assert!(done < 48, "it was in the middle of it");
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(48, LONG).unwrap().len(), 48);
    let records = world.cm.state().records;
    assert_eq!(records.iter().filter(|record| record.status == RETIRED).count(), 48);
    world.finish().unwrap();
}
