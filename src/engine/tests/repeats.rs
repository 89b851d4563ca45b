//! Cards that come and go without end, and how many entries and audit lines they make.

use std::time::Duration;

use super::world::cm::RETIRE;
use super::world::{HOUR, SECOND, World, identity, policy, removing};
use crate::domain::{ReaderEvent, ReaderMatch, ReaderRule};
use crate::engine::{Event, Notice};

const READER: &str = "Left";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Has a card come and go for this long; returns how many times it came.
fn flicker(
    world: &mut World,
    card: u8,
    (inside, out): (Duration, Duration),
    time: Duration,
) -> u64 {
    let end = world.now.mono + time;
    let mut times = 0;
    while world.now.mono < end {
        world.insert(READER, card);
        times += 1;
        world.run(inside);
        world.remove(READER);
        world.run(out);
    }
    times
}

/// A world whose card has come and gone three times a second for a minute.
fn restless() -> World {
    let mut world = World::new();
    flicker(&mut world, 1, (millis(200), millis(130)), 60 * SECOND);
    world
}

fn outcomes(world: &World) -> Vec<&str> {
    world.disk.audit.iter().map(|line| line.outcome.as_str()).collect()
}

#[test]
fn a_card_that_flickers_makes_few_lines_and_each_of_its_stays_is_in_one() {
    let mut world = World::new();
    let times = flicker(&mut world, 1, (millis(200), millis(130)), 600 * SECOND);
    world.run(HOUR);
    assert_eq!(world.entries(), 22, "20 at once, one more after 3 and 6 s");
    let lines = &world.disk.audit;
    assert!(lines.len() < 29, "{} lines", lines.len());
    let counted: u64 = lines.iter().map(|line| line.count.unwrap_or(1)).sum();
    assert_eq!(counted, times);
    let audited = world
        .notices
        .iter()
        .filter(|audited| matches!(audited, Notice::CardFlapping { .. }))
        .count();
    assert_eq!(audited, 1);
}

/// What the outbox has room for is about a million cards in `audit.keep`, 400 days.
#[test]
fn whatever_the_rhythm_no_reader_fills_the_outbox_within_the_time_that_lines_are_kept() {
    for (inside, out) in [
        (150, 100),
        (900, 100),
        (1_100, 900),
        (3_000, 50),
        (50, 7_000),
        (9_000, 1_000),
        (29_500, 400),
    ] {
        let mut world = World::new();
        world.probe = Some(millis(20));
        let time = 300 * millis(inside + out);
        flicker(&mut world, 1, (millis(inside), millis(out)), time);
        let most = 200 + 6 + i64::try_from(time.as_secs()).unwrap() / 30;
        assert!(world.entries() <= most, "{inside} ms in, {out} out: {}", world.entries());
        let notes = outcomes(&world).iter().filter(|outcome| **outcome == "not-identified").count();
        assert!(notes < 12, "{notes}");
    }
}

#[test]
fn a_card_that_flickered_is_worked_on_once_it_lies_still() {
    let mut world = restless();
    world.cm.request(1, RETIRE);
    let before = world.entries();
    world.insert(READER, 1);
    world.run(millis(950));
    assert_eq!(world.entries(), before, "it may go again at once");
    world.run(millis(500));
    assert_eq!(outcomes(&world).last(), Some(&"updated"));
    assert_eq!(world.entries(), before + 1);
    world.run(HOUR);
    assert_eq!(world.entries(), before + 1);
}

#[test]
fn a_card_that_is_tried_a_hundred_times_in_haste_lies_still_for_one_second_each_time() {
    let mut world = World::new();
    flicker(&mut world, 1, (millis(1_200), millis(100)), 100 * millis(1_300));
    assert_eq!(world.entries(), 100);
}

#[test]
fn other_cards_in_the_reader_and_the_card_elsewhere_wait_for_nothing() {
    let mut world = restless();
    for (reader, card) in [(READER, 2), ("Right", 1)] {
        let before = world.entries();
        world.insert(reader, card);
        world.run(millis(150));
        assert_eq!(world.entries(), before + 1, "{card} in {reader}");
        world.remove(reader);
    }
}

#[test]
fn two_cards_that_take_turns_are_both_held() {
    let mut world = World::new();
    for _ in 0..200 {
        for card in [1, 2] {
            world.insert(READER, card);
            world.run(millis(200));
        }
    }
    assert!(world.entries() < 50, "{}", world.entries());
}

#[test]
fn card_inserted_by_hand_is_never_held() {
    let mut world = World::new();
    let times = flicker(&mut world, 1, (SECOND, 3 * SECOND), 10 * 60 * SECOND);
    assert_eq!(u64::try_from(world.entries()).unwrap(), times);
    let mut world = World::new();
    let times = flicker(&mut world, 1, (SECOND, 30 * SECOND), 2 * HOUR);
    assert_eq!(u64::try_from(world.entries()).unwrap(), times);
}

#[test]
fn a_card_that_stayed_away_is_not_held_any_more() {
    let mut world = restless();
    let before = world.entries();
    world.run(31 * SECOND);
    world.insert(READER, 1);
    world.run(millis(150));
    assert_eq!(world.entries(), before + 1);
}

#[test]
fn removals_of_a_card_that_flickers_make_no_more_entries_than_its_insertions() {
    let mut world = World::with(removing());
    flicker(&mut world, 1, (millis(200), millis(130)), 60 * SECOND);
    let entries = world.entries();
    assert!(entries < 50, "{entries}");
    world.insert(READER, 1);
    world.run(2 * SECOND);
    world.remove(READER);
    world.run(2 * SECOND);
    assert_eq!(world.entries(), entries + 2, "a real stay counts at both ends");
}

#[test]
fn a_card_that_is_held_when_the_daemon_ends_is_worked_on_by_the_next() {
    let mut world = restless();
    let before = world.entries();
    world.insert(READER, 1);
    world.run(millis(500));
    world.restart();
    world.run(HOUR);
    assert_eq!(world.entries(), before + 1);
}

#[test]
fn a_card_that_is_read_in_full_while_it_is_held_makes_its_entry_with_all_ids() {
    let mut world = restless();
    // It does not stop, and so has to lie still for two seconds.
    flicker(&mut world, 1, (millis(200), millis(130)), 15 * SECOND);
    flicker(&mut world, 1, (millis(1_300), millis(100)), SECOND);
    world.probe = None;
    let reader = || READER.into();
    world.insert(READER, 1);
    let insertion = world.insertion_in(READER);
    let mut partial = identity(1);
    partial.partial = true;
    world.handle(ReaderEvent::ProbeFinished {
        reader: reader(),
        insertion,
        result: Ok(partial),
        exchanges: vec![],
    });
    let before = world.entries();
    // The other program lets go before the card has lain still for its two seconds.
    world.handle(ReaderEvent::CardReleased { reader: reader() });
    world.run(millis(1_100));
    world.handle(ReaderEvent::ProbeFinished {
        reader: reader(),
        insertion,
        result: Ok(identity(1)),
        exchanges: vec![],
    });
    assert_eq!(world.entries(), before);
    world.run(HOUR);
    let (_, draft) = world.disk.appended.last_key_value().unwrap();
    assert_eq!((world.entries(), draft.identity.partial), (before + 1, false));
}

#[test]
fn in_a_reader_with_a_settle_time_a_held_card_lies_still_from_its_last_return_on() {
    let mut world = restless();
    let mut policy = policy();
    policy.readers.0.push(ReaderRule {
        matches: ReaderMatch::new(READER),
        label: None,
        role: "desk".to_owned(),
        enabled: true,
        removal_debounce: millis(300),
    });
    world.handle(Event::Reconfigured(Box::new(policy)));
    let before = world.entries();
    world.insert(READER, 1);
    for _ in 0..5 {
        world.run(millis(700));
        world.remove(READER);
        world.run(millis(100));
        world.insert(READER, 1);
    }
    world.run(millis(700));
    assert_eq!(world.entries(), before, "it has moved all the time");
    world.run(SECOND);
    assert_eq!(world.entries(), before + 1);
}
