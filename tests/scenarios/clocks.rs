//! The machine's clock is set while cards wait: libfaketime shows the daemon another one.

use cardbridge_harness::cards::GidsCard;

use super::*;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const OTHER: &str = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";

/// Starts the daemon with a clock that goes by the file `clock`.
fn start(world: &mut World) {
    let clock = format!("FAKETIME_TIMESTAMP_FILE={}", world.dir().join("clock").display());
    let preload = format!("LD_PRELOAD={LIBRARY}");
    // The times of files are not the clock's: by those of pcscd's the daemon knows it again.
    let rest = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1", "NO_FAKE_STAT=1"];
    world.start_daemon_under(&["env", &preload, &clock, rest[0], rest[1], rest[2]]).unwrap();
}

/// In one step: the library ends a program that finds the file empty.
fn set_clock(world: &World, offset: &str) {
    let (next, clock) = (world.dir().join("clock.next"), world.dir().join("clock"));
    std::fs::write(&next, offset).unwrap();
    std::fs::rename(next, clock).unwrap();
}

#[test]
fn a_clock_set_by_a_day_while_cards_wait_changes_no_outcome() {
    require!(require::faketime());
    for jumps in [["-1d", "+0"], ["+1d", "+0"], ["-1d", "+1d"]] {
        let world = require!(world());
        // libfaketime is in setpriv too, and shares memory that only its user may open.
        let world = world.cm(cm_with(&[OTHER])).as_own_user();
        let mut world = world.without_daemon().start().unwrap();
        set_clock(&world, "+0");
        start(&mut world);
        world.cm.go_away().unwrap();
        let _first = world.insert(0, GidsCard::seed()).unwrap();
        let queued = |count| world.daemon_log().matches("Entry queued").count() == count;
        world.wait_until("the first entry", LONG, || queued(1)).unwrap();
        set_clock(&world, jumps[0]);
        let _second = world.insert(1, GidsCard::new(cardid(OTHER))).unwrap();
        world.wait_until("the second entry", LONG, || queued(2)).unwrap();
        world.kill9_daemon().unwrap();
        start(&mut world);
        set_clock(&world, jumps[1]);
        world.cm.come_back().unwrap();
        assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"], "{jumps:?}");
        assert_eq!(world.cm.puts().len(), 2, "{jumps:?}");
        assert_eq!(status(&world), RETIRED);
        seen_a_day_apart(&world);
        world.finish().unwrap();
    }
}

/// The clock was really another one when the second card was seen.
fn seen_a_day_apart(world: &World) {
    let audit = world.audit().unwrap();
    let day = |line: &serde_json::Value| {
        line["seen_at"].as_str().unwrap().split_once('T').unwrap().0.to_owned()
    };
    assert_ne!(day(&audit[0]), day(&audit[1]), "{audit:?}");
}

/// A world whose daemon goes by a file's clock.
fn clocked(world: WorldBuilder) -> World {
    // libfaketime is in setpriv too, and shares memory that only its user may open.
    let world = world.as_own_user().without_daemon().start().unwrap();
    set_clock(&world, "+0");
    world
}

#[test]
fn clock_jump_at_restart_expires_no_waiting_card() {
    require!(require::faketime());
    for (before, after) in [("+0", "+31d"), ("-20000d", "+0"), ("+0", "-20000d")] {
        let world = require!(world());
        let mut world = clocked(world);
        set_clock(&world, before);
        start(&mut world);
        world.cm.go_away().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let is_queued = || world.daemon_log().contains("Entry queued");
        world.wait_until("the entry", LONG, is_queued).unwrap();
        world.kill9_daemon().unwrap();
        set_clock(&world, after);
        start(&mut world);
        let is_open = || world.daemon_log().matches("Outbox opened").count() == 2;
        world.wait_until("the second start", LONG, is_open).unwrap();
        world.cm.come_back().unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"], "{before}, {after}");
        world.finish().unwrap();
    }
}

#[test]
fn clock_ahead_at_start_prunes_no_audit_line() {
    require!(require::faketime());
    let world = require!(world());
    let mut world = clocked(world);
    for (lines, clock) in [(1, "+0"), (2, "+0"), (3, "+500d"), (4, "+500d"), (5, "+0")] {
        set_clock(&world, clock);
        start(&mut world);
        // The first start without CM's date, and then with it.
        let checks = |field: &str| {
            let log = world.daemon_log();
            log.lines()
                .filter(|line| line.contains("Pruning audit lines") && line.contains(field))
                .count()
        };
        let before = checks("confirmed=true");
        world.wait_until("a check", LONG, || checks("confirmed=false") == lines).unwrap();
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        world.wait_for_outcomes(lines, LONG).unwrap();
        world
            .wait_until("a check by CM's date", LONG, || checks("confirmed=true") > before)
            .unwrap();
        card.eject();
        let is_out = || world.daemon_log().matches("Card removed").count() == lines;
        world.wait_until("an empty reader", LONG, is_out).unwrap();
        world.stop_daemon().unwrap();
        assert_eq!(world.outcomes().unwrap().len(), lines, "none is forgotten");
    }
    let years: std::collections::BTreeSet<_> = world
        .audit()
        .unwrap()
        .iter()
        .map(|line| line["at"].as_str().unwrap().split_once('-').unwrap().0.to_owned())
        .collect();
    assert!(years.len() > 1, "the clock was another one: {years:?}");
    world.finish().unwrap();
}
