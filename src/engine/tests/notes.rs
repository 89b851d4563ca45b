//! How many audit lines come of cards that cannot be identified.

use std::time::Duration;

use super::world::{DAY, HOUR, SECOND, World};
use crate::domain::{AuditLine, NotIdentified, NotIdentifiedReason};
use crate::engine::Engine;

const MINUTE: Duration = Duration::from_mins(1);

fn fail(world: &mut World, reader: &str, atr: Option<&str>, reason: NotIdentifiedReason) {
    let why = NotIdentified::new(reason, "it failed".to_owned());
    let now = world.now;
    let atr = atr.map(|atr| atr.parse().unwrap());
    let Engine { tracker, context, .. } = &mut world.engine;
    tracker.failure_notes.add(context, (&reader.into(), reader), atr, &why, now);
    world.perform_all();
    world.run(Duration::ZERO);
}

/// Lets a card flicker, every `pause` for this long.
fn flicker(world: &mut World, pause: Duration, time: Duration) -> u64 {
    let end = world.now.mono + time;
    let mut failures = 0;
    while world.now.mono < end {
        fail(world, "Left", Some("3b00"), NotIdentifiedReason::Removed);
        failures += 1;
        world.run(pause);
    }
    failures
}

fn lines(world: &World) -> &[AuditLine] {
    &world.disk.audit
}

/// How many failures the lines stand for.
fn counted(world: &World) -> u64 {
    lines(world).iter().map(|line| line.count.unwrap_or(1)).sum()
}

#[test]
fn flickering_card_is_counted_and_no_failure_is_lost() {
    let mut world = World::new();
    let failures = flicker(&mut world, Duration::from_millis(330), HOUR + 20 * MINUTE);
    world.run(HOUR);
    assert_eq!(counted(&world), failures);
    // Three at once, one after 1 and 10 minutes and an hour more, and one at the end.
    assert_eq!(lines(&world).len(), 3 + 4, "{:#?}", lines(&world));
    let last = lines(&world).last().unwrap();
    assert!(last.first_seen_at < last.last_seen_at && last.last_seen_at < Some(last.at));
    assert!(last.detail.starts_with(&format!("{} more times", last.count.unwrap())));
}

#[test]
fn flickering_for_a_month_makes_about_a_line_a_day() {
    let mut world = World::new();
    let failures = flicker(&mut world, 97 * SECOND, 30 * DAY);
    world.run(HOUR);
    assert_eq!(counted(&world), failures);
    assert!(lines(&world).len() <= 3 + 30 + 6, "{} lines", lines(&world).len());
}

#[test]
fn failures_that_differ_have_lines_of_their_own() {
    let mut world = World::new();
    fail(&mut world, "Left", Some("3b00"), NotIdentifiedReason::NoCardId);
    fail(&mut world, "Left", Some("3b01ff"), NotIdentifiedReason::NoCardId);
    fail(&mut world, "Right", Some("3b00"), NotIdentifiedReason::NoCardId);
    fail(&mut world, "Left", Some("3b00"), NotIdentifiedReason::Timeout);
    fail(&mut world, "Left", None, NotIdentifiedReason::Mute);
    assert_eq!(lines(&world).len(), 5);
    world.run(DAY);
    assert_eq!(lines(&world).len(), 5, "nothing was counted");
}

#[test]
fn failures_after_a_quiet_time_have_lines_of_their_own() {
    let mut world = World::new();
    for round in 1..=3 {
        for _ in 0..40 {
            fail(&mut world, "Left", Some("3b00"), NotIdentifiedReason::NoCardId);
        }
        assert_eq!(lines(&world).last().unwrap().count, None);
        world.run(11 * MINUTE);
        assert_eq!((lines(&world).len(), counted(&world)), (round * 4, round as u64 * 40));
    }
}

#[test]
fn many_different_cards_in_many_readers_stay_within_the_allowance() {
    let mut world = World::new();
    let mut failures = 0_u32;
    // Eight readers, each with another ATR every 20 s, for a day.
    while world.now.mono < world.started.mono + DAY {
        for reader in 0..8 {
            let atr = format!("3b04{failures:08x}");
            fail(&mut world, &format!("R{reader}"), Some(&atr), NotIdentifiedReason::NoCardId);
            failures += 1;
        }
        world.run(20 * SECOND);
    }
    world.run(HOUR);
    assert_eq!(counted(&world), u64::from(failures));
    assert!(lines(&world).len() < 1000 + 24 * 60 + 20, "{} lines", lines(&world).len());
    let all = lines(&world).iter().find(|line| line.reason.as_deref() == Some("various")).unwrap();
    assert!(all.detail.contains("no-card-id") && all.detail.contains("R7"), "{}", all.detail);
}

#[test]
fn allowance_comes_back_after_a_flood() {
    let mut world = World::new();
    for number in 0..2000 {
        let atr = format!("3b04{number:08x}");
        fail(&mut world, "Left", Some(&atr), NotIdentifiedReason::NoCardId);
        world.run(5 * SECOND);
    }
    world.run(2 * DAY);
    let before = lines(&world).len();
    fail(&mut world, "Left", Some("3b00"), NotIdentifiedReason::NoCardId);
    assert_eq!(lines(&world).len(), before + 1);
}

#[test]
fn ending_engine_hands_over_what_it_counted() {
    let mut world = World::new();
    for _ in 0..6 {
        fail(&mut world, "Left", None, NotIdentifiedReason::Mute);
    }
    assert_eq!(lines(&world).len(), 3);
    let unwritten = world.engine.take_unwritten_counts(world.now);
    assert_eq!(unwritten.iter().map(|line| line.count).collect::<Vec<_>>(), [Some(3)]);
    assert_eq!(world.engine.take_unwritten_counts(world.now), []);
}
