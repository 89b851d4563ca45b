//! The machine's clock is set while cards wait: libfaketime shows the daemon another one.

use std::path::Path;

use cardbridge_harness::cards::GidsCard;

use super::*;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const OTHER: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

/// Starts the daemon with a clock that goes by the file `clock`.
fn start(world: &mut World) {
    let clock = format!("FAKETIME_TIMESTAMP_FILE={}", world.dir().join("clock").display());
    let preload = format!("LD_PRELOAD={LIBRARY}");
    let rest = ["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1"];
    world.start_daemon_under(&["env", &preload, &clock, rest[0], rest[1]]).unwrap();
}

fn set_clock(world: &World, offset: &str) {
    std::fs::write(world.dir().join("clock"), offset).unwrap();
}

#[test]
fn a_clock_set_by_a_day_while_cards_wait_changes_no_outcome() {
    if !Path::new(LIBRARY).exists() {
        return cardbridge_harness::skipped("libfaketime is missing: no daemon with a set clock");
    }
    for jumps in [["-1d", "+0"], ["+1d", "+0"], ["-1d", "+1d"]] {
        let Some(world) = world() else { return };
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
