//! `cardbridge scan` left running: what it prints makes sense whatever happens.

use std::collections::BTreeMap;

use cardbridge_harness::cards::Faults;

use super::*;

/// The events so far: (event, reader).
fn events(scan: &Beside) -> Vec<(String, String)> {
    let output = scan.output();
    let whole = output.lines().filter(|line| line.starts_with('{') && line.ends_with('}'));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    whole
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|event: Value| (text(&event["event"]), text(&event["reader"])))
        .collect()
}

/// Waits until a reader's events are these, from the beginning.
fn wait_events(world: &World, scan: &Beside, reader: usize, expected: &[&str]) {
    let name = &world.pcscd.reader_names()[reader];
    let of_reader = || -> Vec<String> {
        events(scan).into_iter().filter(|event| event.1 == *name).map(|event| event.0).collect()
    };
    let mut seen = Vec::new();
    let enough = world.wait_until("events of scan", LONG, || {
        seen = of_reader();
        seen.len() >= expected.len()
    });
    assert!(enough.is_ok() && seen == expected, "{seen:?} instead of {expected:?}");
}

/// Attached alternates with detached, inserted or mute with removed, and no card is in a reader
/// that is not there.
fn make_sense(events: &[(String, String)]) {
    let mut readers: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for (event, reader) in events {
        let before = readers.entry(reader).or_default();
        let (expected, after) = match event.as_str() {
            "reader-attached" => (None, Some(false)),
            "card-inserted" | "card-mute" => (Some(false), Some(true)),
            "card-removed" => (Some(true), Some(false)),
            "reader-detached" => (Some(false), None),
            other => panic!("unknown event {other}"),
        };
        assert_eq!(*before, expected, "{event} of {reader} in {events:?}");
        *before = after;
    }
}

#[test]
fn scan_continues_over_pcscd_restart() {
    let mut world = require!(world()).without_daemon().start().unwrap();
    let mut scan = Beside::start(world.cli_command(&["scan", "--json"]));
    let mut expected = vec!["reader-attached"];
    wait_events(&world, &scan, 0, &expected);
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    expected.push("card-inserted");
    wait_events(&world, &scan, 0, &expected);
    card.eject();
    expected.push("card-removed");
    wait_events(&world, &scan, 0, &expected);
    let faults = Faults { mute: true, ..Faults::default() };
    let mut mute = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    expected.push("card-mute");
    wait_events(&world, &scan, 0, &expected);
    mute.eject();
    expected.push("card-removed");
    wait_events(&world, &scan, 0, &expected);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    expected.push("card-inserted");
    wait_events(&world, &scan, 0, &expected);

    for _ in 0..2 {
        world.pcscd.kill9().unwrap();
        expected.extend(["card-removed", "reader-detached"]);
        wait_events(&world, &scan, 0, &expected);
        world.pcscd.restart().unwrap();
        expected.extend(["reader-attached", "card-inserted"]);
        wait_events(&world, &scan, 0, &expected);
    }
    assert!(scan.runs(), "{}", scan.output());
    make_sense(&events(&scan));
    world.finish().unwrap();
}

#[test]
fn scan_reports_card_it_could_not_read() {
    let world = require!(world()).without_daemon().start().unwrap();
    let mut scan = Beside::start(world.cli_command(&["scan", "--json"]));
    wait_events(&world, &scan, 0, &["reader-attached"]);
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    card.hang_at(2);
    card.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    card.eject();
    wait_events(&world, &scan, 0, &["reader-attached", "card-inserted", "card-removed"]);
    assert!(scan.runs());
    make_sense(&events(&scan));
    assert!(scan.output().contains(r#""reason":"removed""#), "{}", scan.output());
    world.finish().unwrap();
}

#[test]
fn scan_identifies_card_removed_after_id() {
    let world = require!(ifd()).without_daemon().start().unwrap();
    let scan = Beside::start(world.cli_command(&["scan", "--json"]));
    wait_events(&world, &scan, 0, &["reader-attached"]);
    // In the command that asks whether it is a PIV card as well.
    let faults = Faults { remove_at: Some(4), ..Faults::default() };
    let _card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    wait_events(&world, &scan, 0, &["reader-attached", "card-inserted", "card-removed"]);
    let output = scan.output();
    assert!(output.contains(CARD) && !output.contains("not_identified"), "{output}");
    world.finish().unwrap();
}
