//! Readers that are distinguished by their attributes.

use std::time::Duration;

use super::world::{HOUR, SECOND, World, policy};
use crate::domain::{CardView, ReaderAttributes, ReaderEvent, ReaderMatch, ReaderRule};
use crate::engine::Event;

/// A world in which only the reader with serial number 17 is looked at.
fn by_serial() -> World {
    let mut world = World::new();
    let mut policy = policy();
    for (pattern, enabled) in [("serial:17", true), ("*", false)] {
        policy.readers.0.push(ReaderRule {
            matches: ReaderMatch::new(pattern),
            label: enabled.then(|| "Seventeen".to_owned()),
            role: "desk".to_owned(),
            enabled,
            removal_debounce: Duration::ZERO,
        });
    }
    world.policy = policy.clone();
    world.handle(Event::Reconfigured(Box::new(policy)));
    world
}

fn audited(world: &mut World, reader: &str, serial: Option<&str>) {
    let attributes = ReaderAttributes { vendor: None, serial: serial.map(str::to_owned) };
    world.handle(ReaderEvent::AttributesRead { reader: reader.into(), attributes });
}

#[test]
fn a_card_waits_until_it_is_known_which_reader_it_is_in() {
    let mut world = by_serial();
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.entries(), 0);
    audited(&mut world, "Left", Some("17"));
    world.run(SECOND);
    assert_eq!(world.entries(), 1);
    assert_eq!(world.engine.reader_views()[0].settings.label, "Seventeen");
    assert_eq!(world.engine.reader_views()[0].attributes.serial.as_deref(), Some("17"));
}

#[test]
fn a_card_in_a_reader_that_turns_out_to_be_switched_off_is_left_alone() {
    let mut world = by_serial();
    world.insert("Left", 1);
    audited(&mut world, "Left", Some("18"));
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
    let views = world.engine.reader_views();
    assert!(matches!(views[0].card, CardView::NotIdentified { .. }), "{views:?}");
}

#[test]
fn card_awaits_attributes_of_its_reader() {
    let mut world = by_serial();
    world.insert("Left", 1);
    world.run(Duration::from_millis(1900));
    assert_eq!(world.disk.audit.len(), 0);
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
    assert_eq!(world.disk.audit.len(), 1);
    assert_eq!(world.disk.audit[0].outcome, "not-identified");
    let views = world.engine.reader_views();
    assert!(matches!(views[0].card, CardView::NotIdentified { .. }), "{views:?}");
    audited(&mut world, "Left", Some("17"));
    world.run(SECOND);
    assert_eq!(world.entries(), 1);
}

#[test]
fn a_card_waits_no_longer_where_no_rule_asks_for_it_any_more() {
    let mut world = by_serial();
    world.insert("Left", 1);
    world.handle(Event::Reconfigured(Box::new(policy())));
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
}

#[test]
fn a_reader_whose_name_says_it_all_is_not_waited_for() {
    let mut world = by_serial();
    let mut policy = world.policy.clone();
    policy.readers.0.rotate_right(1);
    policy.readers.0[0].matches = ReaderMatch::new("Left");
    policy.readers.0[0].enabled = true;
    world.handle(Event::Reconfigured(Box::new(policy)));
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.entries(), 1);
}

#[test]
fn card_removed_while_awaiting_attributes_is_logged_and_not_read() {
    let mut world = by_serial();
    world.insert("Left", 1);
    world.remove("Left");
    audited(&mut world, "Left", Some("17"));
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
    assert_eq!(world.disk.audit.len(), 1);
    assert_eq!(world.disk.audit[0].outcome, "not-identified");
}

#[test]
fn no_card_waits_where_no_rule_asks_for_what_drivers_tell() {
    let mut world = World::new();
    world.probe = Some(Duration::ZERO);
    world.insert("Left", 1);
    world.run(Duration::from_millis(1));
    assert_eq!(world.entries(), 1);
}
