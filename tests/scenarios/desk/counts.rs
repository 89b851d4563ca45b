//! pcscd's count of insertions and removals, and the flags beside it: what it does not ring for is
//! found all the same, and what it rings for without reason costs nothing.

use super::*;

/// How late a change may be told that nobody rang for, on a busy machine.
const SOON: Duration = Duration::from_secs(6);

/// Two seconds after a change the monitor looks once more; whatever is told within two seconds from
/// here on is told for another reason than that change.
fn wait_calm(fake: &Fake) {
    let (looks, waits) = (asked(fake, Request::States), asked(fake, Request::Wait));
    wait_asked(fake, Request::States, looks, 1);
    wait_asked(fake, Request::Wait, waits, 2);
}

#[test]
fn a_card_that_was_there_before_pcscd_and_is_swapped_unseen_is_found() {
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

#[test]
fn a_count_that_stays_at_zero_hides_no_card_with_another_atr() {
    let world = fake().cm(cm_with(&[OTHER])).start().unwrap();
    world.pcscd.fake().unwrap().at_once(|hands| {
        hands.set_counting(0, false);
        hands.set_counting(1, false);
    });
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let second = other().with_atr([0x3b, 0x80, 0x80, 0x01, 0x01]);
    let mut second = world.insert(1, second).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();

    wait_calm(world.pcscd.fake().unwrap());
    world.pcscd.fake().unwrap().at_once(|hands| hands.exchange_cards(0, 1));
    let rung = Instant::now();
    world.wait_for_outcomes(4, LONG).unwrap();
    assert!(rung.elapsed() < SOON, "{:?}", rung.elapsed());
    second.eject();
    wait_card(&world, 0, "empty");
    world.finish().unwrap();
}

#[test]
fn a_count_that_wraps_round_to_zero_is_a_swap_like_any_other() {
    let world = fake().cm(cm_with(&[OTHER])).start().unwrap();
    world.pcscd.fake().unwrap().at_once(|hands| {
        hands.set_event_count(0, 0xFFFD);
        hands.set_event_count(1, 0xFFFD);
    });
    let mut first = world.insert(0, GidsCard::seed()).unwrap();
    let mut second = world.insert(1, other()).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();
    // From 0xFFFE to 0, with a card of the same ATR before and after.
    world.pcscd.fake().unwrap().at_once(|hands| hands.exchange_cards(0, 1));
    assert_eq!(world.wait_for_outcomes(4, LONG).unwrap()[2..], ["already-set"; 2]);
    first.eject();
    second.eject();
    wait_card(&world, 0, "empty");
    wait_card(&world, 1, "empty");
    // The count goes on after that.
    let _again = world.insert(0, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(5, LONG).unwrap().len(), 5);
    world.finish().unwrap();
}

#[test]
fn a_card_back_in_its_reader_before_anybody_looked_is_a_new_stay() {
    let world = fake().start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    world.pcscd.fake().unwrap().at_once(|hands| hands.set_event_count(0, 3));
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(entries(&world), [1, 2]);
    world.finish().unwrap();
}

#[test]
fn rings_for_nothing_make_no_busy_loop() {
    let world = fake().start().unwrap();
    let fake = world.pcscd.fake().unwrap();
    wait_service(&world, "connected");
    let rung = Instant::now();
    for _ in 0..12 {
        fake.wait_for_waiter(LONG).unwrap();
        // The library itself keeps other rings for nothing from its callers.
        fake.cancel_waits();
    }
    assert!(rung.elapsed() > Duration::from_secs(1), "{:?}", rung.elapsed());
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn who_else_uses_a_card_is_no_news() {
    let world = fake().start().unwrap();
    let fake = world.pcscd.fake().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    wait_idle(&world, 0);
    // The next look is at a card in use.
    fake.wait_for_waiter(LONG).unwrap();
    fake.at_once(|hands| hands.set_sharing(0, 1));
    fake.wait_for_waiter(LONG).unwrap();
    wait_calm(fake);
    let before = asked(fake, Request::States);
    for sharing in [2, 1, 0, 1, -1, 0] {
        fake.wait_for_waiter(LONG).unwrap();
        fake.at_once(|hands| hands.set_sharing(0, sharing));
    }
    fake.wait_for_waiter(LONG).unwrap();
    assert_eq!(asked(fake, Request::States), before, "nobody looked at the readers for that");
    assert_eq!(world.outcomes().unwrap().len(), 1);
    world.finish().unwrap();
}
