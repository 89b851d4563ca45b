//! Cards that flicker, in a reader with a settle time and in one without.

use std::time::Duration;

use super::world::cm::{Mood, RETIRE};
use super::world::{HOUR, SECOND, World, policy};
use crate::domain::{
    CardView, EntryId, InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent, ReaderMatch,
    ReaderRule, Trigger,
};
use crate::engine::Event;

const MOMENT: Duration = Duration::from_millis(40);

/// A world in which the left reader, and no other, has a settle time of 150 ms.
fn contactless() -> World {
    let mut world = World::new();
    let mut policy = policy();
    policy.readers.0.push(ReaderRule {
        matches: ReaderMatch::new("Left"),
        label: None,
        role: "desk".to_owned(),
        enabled: true,
        removal_debounce: Duration::from_millis(150),
    });
    world.policy = policy.clone();
    world.handle(Event::Reconfigured(Box::new(policy)));
    world
}

/// Such a world in which cards that are taken out are retired, with one in the left reader.
fn retiring_what_is_taken_out() -> World {
    let mut world = contactless();
    let mut policy = world.policy.clone();
    policy.rules.rules[0].on = Trigger::Removed;
    world.policy = policy.clone();
    world.handle(Event::Reconfigured(Box::new(policy)));
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(SECOND);
    world
}

fn flicker(world: &mut World, reader: &str, card: u8) {
    world.remove(reader);
    world.run(MOMENT);
    world.insert(reader, card);
}

fn card(world: &World) -> CardView {
    world.engine.reader_views().into_iter().next().unwrap().card
}

#[test]
fn a_card_that_flickers_makes_one_entry() {
    let mut world = contactless();
    world.insert("Left", 1);
    for _ in 0..5 {
        world.run(SECOND);
        flicker(&mut world, "Left", 1);
    }
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
    let CardView::Identified { entry, .. } = card(&world) else { panic!("{:?}", card(&world)) };
    assert_eq!(entry, Some(EntryId::new(1)));
}

#[test]
fn a_card_that_flickers_elsewhere_makes_an_entry_each_time() {
    let mut world = contactless();
    world.insert("Right", 1);
    world.run(SECOND);
    flicker(&mut world, "Right", 1);
    world.run(HOUR);
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_card_that_flickers_before_it_is_read_makes_one_entry_and_no_complaint() {
    let mut world = contactless();
    world.probe = Some(Duration::from_millis(100));
    world.insert("Left", 1);
    for _ in 0..3 {
        world.run(MOMENT);
        flicker(&mut world, "Left", 1);
    }
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
    let untold = world.disk.audit.iter().all(|line| line.outcome != "not-identified");
    assert!(untold, "{:?}", world.disk.audit);
}

#[test]
fn a_first_insertion_does_not_wait() {
    let mut world = contactless();
    world.probe = Some(Duration::ZERO);
    world.insert("Left", 1);
    world.run(Duration::from_millis(1));
    assert_eq!(world.entries(), 1);
}

#[test]
fn another_card_within_the_settle_time_is_an_insertion_of_its_own() {
    let mut world = contactless();
    world.insert("Left", 1);
    world.run(SECOND);
    flicker(&mut world, "Left", 2);
    world.run(HOUR);
    assert_eq!(world.entries(), 2);
    flicker(&mut world, "Left", 1);
    world.run(HOUR);
    assert_eq!(world.entries(), 3);
}

#[test]
fn a_card_that_comes_back_later_is_a_new_insertion() {
    let mut world = contactless();
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    assert!(matches!(card(&world), CardView::Identified { .. }), "it may come back");
    world.run(Duration::from_millis(151));
    assert_eq!(card(&world), CardView::Empty);
    assert!(world.disk.stays.is_empty());
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_card_that_flickers_is_taken_out_once() {
    let mut world = retiring_what_is_taken_out();
    flicker(&mut world, "Left", 1);
    world.run(SECOND);
    assert_eq!(world.entries(), 1, "it was not taken out");
    world.remove("Left");
    world.run(HOUR);
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_reader_that_goes_takes_a_card_that_might_have_come_back_with_it() {
    let mut world = contactless();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.run(MOMENT);
    world.replug("Left");
    assert_eq!(card(&world), CardView::Empty);
    world.run(SECOND);
    assert!(world.disk.stays.is_empty());
}

#[test]
fn an_entry_that_gets_to_disk_while_its_card_is_gone_for_a_moment_is_that_cards() {
    let mut world = contactless();
    world.disk_latency = MOMENT / 2;
    world.insert("Left", 1);
    world.run_until(|world| matches!(card(world), CardView::Identified { entry: None, .. }));
    world.remove("Left");
    world.run(MOMENT);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
    let CardView::Identified { entry, .. } = card(&world) else { panic!("{:?}", card(&world)) };
    assert_eq!(entry, Some(EntryId::new(1)));
}

/// A world in which cards that are taken out are retired, and one was just now.
fn taken_out_a_moment_ago() -> World {
    let mut world = retiring_what_is_taken_out();
    world.remove("Left");
    world.run(MOMENT);
    world
}

#[test]
fn a_card_that_may_be_back_was_not_taken_out() {
    let why = |reason| NotIdentified::new(reason, "it does not say".to_owned());
    for reason in [NotIdentifiedReason::Timeout, NotIdentifiedReason::InUse] {
        let mut world = taken_out_a_moment_ago();
        world.probe = None;
        world.insert("Left", 1);
        let (reader, insertion) = ("Left".into(), InsertionId::ZERO.next().next());
        world.handle(ReaderEvent::ProbeFinished {
            reader,
            insertion,
            result: Err(why(reason)),
            exchanges: vec![],
        });
        world.run(Duration::from_secs(4));
        assert_eq!(world.entries(), 1, "{reason:?}");
    }
}

#[test]
fn a_card_whose_reader_or_pcscd_goes_before_it_could_come_back_was_not_taken_out() {
    let mut world = taken_out_a_moment_ago();
    world.handle(ReaderEvent::ReaderDetached { reader: "Left".into() });
    world.run(HOUR);
    assert_eq!(world.entries(), 1);

    let mut world = taken_out_a_moment_ago();
    world.handle(ReaderEvent::PcscdUnavailable { reason: "gone".to_owned() });
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
}

#[test]
fn a_reader_is_empty_since_the_card_left_and_not_since_that_was_sure() {
    let mut world = contactless();
    world.insert("Left", 1);
    let since = |world: &World| world.engine.reader_views()[0].since;
    let came = since(&world);
    world.run(SECOND);
    flicker(&mut world, "Left", 1);
    world.run(SECOND);
    assert_eq!(since(&world), came, "the same stay");
    world.remove("Left");
    let left = world.now.wall;
    world.run(SECOND);
    assert_eq!((card(&world), since(&world)), (CardView::Empty, left));
}
