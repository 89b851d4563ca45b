//! The clock on the wall is set while cards wait: deadlines follow the other one, and no outcome
//! is lost or doubled.

use jiff::SignedDuration;

use super::world::cm::{Mood, RETIRE, RETIRED};
use super::world::{DAY, HOUR, SECOND, World};

/// Three cards wait for a CM that is away.
fn three_wait() -> World {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    for (reader, card) in super::world::READERS.into_iter().zip(1..) {
        world.cm.request(card, RETIRE);
        world.insert(reader, card);
        world.run(SECOND);
    }
    world
}

fn set_clock(world: &mut World, hours: i64) {
    world.now.wall = world.now.wall.saturating_add(SignedDuration::from_hours(hours)).unwrap();
}

/// CM comes back, and every card has its one outcome.
fn ends_well(world: &mut World, what: &str) {
    world.cm.mood = Mood::Fine;
    world.run(2 * HOUR);
    for entry in 1..=3 {
        assert_eq!(world.trail(entry), ["updated"], "{what}: {}", world.story());
    }
    assert_eq!(world.entries(), 3, "{what}: {}", world.story());
    assert!((1..=3).all(|card| world.cm.status(card) == RETIRED));
}

#[test]
fn a_clock_set_by_a_day_while_cards_wait_loses_none_and_doubles_none() {
    for hours in [-24, 24] {
        let mut world = three_wait();
        set_clock(&mut world, hours);
        world.run(HOUR);
        ends_well(&mut world, &format!("{hours} h"));
    }
}

#[test]
fn a_clock_set_by_a_day_over_a_restart_loses_none_and_doubles_none() {
    for hours in [-24, 24] {
        let mut world = three_wait();
        world.restart_after(|world| set_clock(world, hours));
        world.run(HOUR);
        set_clock(&mut world, -hours);
        world.restart();
        ends_well(&mut world, &format!("{hours} h, and back"));
    }
}

#[test]
fn clock_set_back_postpones_no_trial() {
    let mut world = three_wait();
    world.run(HOUR);
    set_clock(&mut world, -24);
    let before = world.calls.len();
    world.run(HOUR);
    assert!(world.calls.len() > before, "{}", world.story());
    ends_well(&mut world, "back by a day");
}

#[test]
fn clock_jump_beyond_max_age_parks_no_entry_before_restart() {
    let mut world = three_wait();
    set_clock(&mut world, 24 * 400);
    world.run(DAY);
    ends_well(&mut world, "forward by more than a year");
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing_while_the_daemon_runs() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(HOUR);
    world.set_wall("2036-01-01T00:00:00Z");
    world.run(HOUR);
    world.set_wall("1970-01-01T00:00:00Z");
    world.run(HOUR);
    assert_eq!(world.outcome(1), "none");
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
}

#[test]
fn a_wall_clock_that_is_set_while_a_card_is_being_kept_does_not_make_it_old() {
    let mut world = World::new();
    world.set_wall("1970-01-01T00:00:30Z");
    world.disk_latency = SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.entries() == 1);
    world.set_wall("2026-03-01T08:00:00Z");
    world.run(HOUR);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
}

#[test]
fn a_restart_does_not_make_a_waiting_card_younger() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(20 * DAY);
    world.restart();
    world.run(9 * DAY);
    assert_eq!(world.outcome(1), "none");
    world.run(2 * DAY);
    assert_eq!(world.trail(1), ["parked: expired"]);
}

/// A card that waits for a CM that is away; the station is started again with another clock.
fn waits_over(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(HOUR);
    change(&mut world);
    world.run(HOUR);
    world
}

/// It waits still, and is worked on when CM is back.
fn still_waits(mut world: World, what: &str) {
    assert_eq!(world.outcome(1), "none", "{what}: {}", world.story());
    world.cm.mood = Mood::Fine;
    world.run(2 * HOUR);
    assert_eq!(world.cm.status(1), RETIRED, "{what}: {}", world.story());
}

#[test]
fn no_jump_of_the_clock_over_a_restart_makes_a_waiting_card_too_old() {
    for days in [31, 500, -31] {
        let jumps = |world: &mut World| world.restart_after(|world| set_clock(world, 24 * days));
        still_waits(waits_over(jumps), &format!("{days} days"));
    }
    let without_battery = waits_over(|world| {
        world.set_wall("1970-01-01T00:00:30Z");
        world.insert("Right", 2);
        world.run(HOUR);
        world.set_wall("2026-03-01T08:00:00Z");
        world.restart();
    });
    assert_eq!(without_battery.outcome(2), "none");
    still_waits(without_battery, "1970, then the time, then a restart");
}

#[test]
fn only_time_since_the_machines_start_surely_passed_after_that() {
    let off = SignedDuration::from_hours(24 * 400);
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Right", 2);
    world.run(DAY);
    world.remove("Right");
    world.reboot(off);
    world.run(29 * DAY);
    world.restart();
    world.run(HOUR);
    assert_eq!(world.outcome(1), "none", "{}", world.story());
    world.run(2 * DAY);
    assert_eq!(world.trail(1), ["parked: expired"]);
}
