//! Cards and readers that are slow, mute or hang: none of them holds up another.

use cardbridge_harness::cards::Faults;
use cardbridge_harness::pcscd::Trouble;

use super::*;

#[test]
fn poll_of_mute_card_delays_no_other_reader() {
    let world = require!(ifd());
    let ids = ids(8);
    let world = world.cm(cm_of(&ids)).start().unwrap();
    let faults = Faults { mute: true, ..Faults::default() };
    let _mute = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    wait_card(&world, 0, "mute");
    let mut delays = Vec::new();
    for (done, id) in ids.iter().enumerate() {
        let mut card = world.insert(1, GidsCard::new(cardid(id))).unwrap();
        world.wait_for_outcomes(done + 2, LONG).unwrap();
        let state = card.state();
        delays.push(state.asked.unwrap() - state.seen.unwrap());
        card.eject();
    }
    // Each poll of a mute card takes the library 400 ms.
    delays.sort();
    assert!(delays[delays.len() / 2] < Duration::from_millis(350), "{delays:?}");
    world.finish().unwrap();
}

#[test]
fn short_insertion_after_mute_card_is_seen() {
    let world = require!(ifd());
    let ids = ids(6);
    let world = world.cm(cm_of(&ids)).start().unwrap();
    let mute = || Faults { mute: true, ..Faults::default() };
    // Others that are mute all the time.
    let _beside = world.insert_with(1, GidsCard::seed(), mute()).unwrap();
    wait_card(&world, 1, "mute");
    for (round, id) in (0..).zip(&ids) {
        let mut turned = world.insert_with(0, GidsCard::seed(), mute()).unwrap();
        wait_card(&world, 0, "mute");
        // The daemon is to be at one point of its watching in one round, at another in the next.
        std::thread::sleep(Duration::from_millis(270) * round);
        turned.eject();
        let mut card = world.insert(0, GidsCard::new(cardid(id))).unwrap();
        wait_powered(&card);
        std::thread::sleep(Duration::from_secs(1));
        card.eject();
        wait_card(&world, 0, "empty");
    }
    let updated = world.outcomes().unwrap().iter().filter(|outcome| *outcome == "updated").count();
    assert_eq!(updated, ids.len(), "{:?}", world.outcomes());
    world.finish().unwrap();
}

#[test]
fn one_hung_card_of_sixteen_delays_no_other() {
    let world = require!(ifd());
    let ids = ids(15);
    let world = world.readers(16).cm(cm_of(&ids)).start().unwrap();
    let faults = Faults { hang_at: Some(2), ..Faults::default() };
    let hung = world.insert_with(7, GidsCard::seed(), faults).unwrap();
    hung.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    let began = Instant::now();
    let free = (0..16).filter(|reader| *reader != 7);
    let _cards: Vec<_> = free
        .zip(&ids)
        .map(|(reader, id)| world.insert(reader, GidsCard::new(cardid(id))).unwrap())
        .collect();
    assert_eq!(world.wait_for_outcomes(15, LONG).unwrap(), ["updated"; 15]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(card_in(&world, 7)["state"], "reading");
    world.finish().unwrap();
}

#[test]
fn slow_power_up_delays_no_other_reader() {
    let world = require!(ifd()).cm(cm_with(&[OTHER])).start().unwrap();
    wait_readers(&world, 2);
    let faults = Faults { slow_power_up: Duration::from_mins(1), ..Faults::default() };
    let mut slow = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    slow.wait_for("pcscd to see it", LONG, |state| state.seen.is_some()).unwrap();
    let _other = world.insert(1, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    slow.eject();
    let faults = Faults { slow_power_up: Duration::from_millis(700), ..Faults::default() };
    let _again = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    let updated = || column(&world, "card_id").iter().filter(|id| *id == CARD).count() == 1;
    world.wait_until("the card that came up slowly", LONG, updated).unwrap();
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}

#[test]
fn cards_inserted_while_pcscd_froze_are_processed() {
    let mut world = require!(ifd()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut first = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.pcscd.freeze().unwrap();
    let _other = world.insert(1, other()).unwrap();
    let asked = Instant::now();
    daemon_status(&world);
    assert!(asked.elapsed() < Duration::from_secs(2), "status took {:?}", asked.elapsed());
    wait_service(&world, "unavailable");
    let reason = daemon_status(&world)["pcscd"]["reason"].clone();
    assert!(reason.as_str().unwrap().contains("pcscd hangs"), "{reason}");
    world.pcscd.thaw().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    wait_service(&world, "connected");
    first.eject();
    wait_card(&world, 0, "empty");
    world.pcscd.freeze().unwrap();
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn hung_pcscd_does_not_delay_stop() {
    let mut world = require!(relayed()).without_daemon().start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    for nth in 1..=24 {
        let before = world.pcscd.relay().unwrap().requests().len();
        world.pcscd.relay().unwrap().make(Trouble::hang().from(nth));
        world.start_daemon().unwrap();
        let reached = |log: &[Request]| log.len() >= before + nth as usize;
        world.pcscd.relay().unwrap().wait_for("the request that hangs", LONG, reached).unwrap();
        // It fails where that takes two seconds.
        world.stop_daemon().unwrap();
        world.pcscd.relay().unwrap().clear_troubles();
    }
    world.start_daemon().unwrap();
    wait_idle(&world, 0);
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}

/// GIDS cards say who they are in three commands, and whether they are PIV cards as well in the next;
/// then comes the inventory.
const SECOND_FAMILY: u32 = 4;
const FIRST_OF_THE_INVENTORY: u32 = 5;

#[test]
fn card_removed_after_id_is_processed() {
    for command in [SECOND_FAMILY, FIRST_OF_THE_INVENTORY] {
        let world = require!(ifd()).start().unwrap();
        let faults = Faults { remove_at: Some(command), ..Faults::default() };
        let _card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        wait_card(&world, 0, "empty");
        world.finish().unwrap();
    }
}

#[test]
fn card_hung_after_id_is_processed_soon() {
    let world = require!(ifd()).start().unwrap();
    let faults = Faults { hang_at: Some(FIRST_OF_THE_INVENTORY), ..Faults::default() };
    let card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    card.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    let began = Instant::now();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    wait_card(&world, 0, "identified");
    world.finish().unwrap();
}

#[test]
fn inventory_can_be_disabled() {
    let world = require!(ifd()).config_set("cards.inventory", "false").start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(card.apdus().len(), 4, "{:?}", card.apdus());
    world.finish().unwrap();
}
