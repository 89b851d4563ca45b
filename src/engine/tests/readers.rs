//! Which insertions are new, and what is logged of cards that are not identified.

use std::time::Duration;

use super::world::cm::{ATR, Mood, RETIRE};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World, policy};
use crate::domain::{
    CardView, EntryId, InsertionId, NotIdentified, NotIdentifiedReason, PcscdView, ReaderEvent,
    ReaderMatch, ReaderRule,
};
use crate::engine::Event;

fn seen() -> World {
    let mut world = World::new();
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.entries(), 1);
    world
}

#[test]
fn card_that_never_left_is_same_insertion_after_restart() {
    let mut world = seen();
    world.restart();
    world.run(HOUR);
    assert_eq!(world.entries(), 1);
}

#[test]
fn a_card_is_inserted_again_after_each_restart_of_the_service() {
    let mut world = seen();
    for entries in [2, 3] {
        world.restart_service();
        world.run(HOUR);
        assert_eq!(world.entries(), entries);
        let views = world.engine.reader_views();
        let CardView::Identified { entry, .. } = &views[0].card else { panic!("{views:?}") };
        assert_eq!(*entry, Some(EntryId::new(entries)));
    }
}

/// A reader that was away begins to count at 0 again, and a service may not count at all.
#[test]
fn a_card_at_a_count_of_0_is_inserted_again_by_each_daemon() {
    for card in [1, 2] {
        let mut world = World::new();
        world.insert_unseen("Left", 1);
        world.set_count("Left", 0);
        world.restart();
        world.run(HOUR);
        assert_eq!(world.entries(), 1);
        world.cm.request(card, RETIRE);
        world.restart_after(|world| {
            world.insert_unseen("Left", card);
            world.set_count("Left", 0);
        });
        world.run(HOUR);
        assert_eq!(world.outcome(2), "updated", "{}", world.story());
    }
}

#[test]
fn a_card_put_in_again_while_daemon_and_service_were_off_is_a_new_insertion() {
    // The counter of the new service reaches the old number, or is 0 for a card that it found there.
    for count in [0, 1] {
        let mut world = seen();
        world.cm.request(1, RETIRE);
        world.restart_after(|world| {
            world.replace_service();
            world.set_count("Left", count);
        });
        world.run(HOUR);
        assert_eq!(world.outcome(2), "updated", "{count}: {}", world.story());
    }
}

#[test]
fn card_is_new_insertion_where_instance_is_uncertain() {
    let mut world = World::new();
    world.uncertain = true;
    world.restart_service();
    world.insert("Left", 1);
    world.run(SECOND);
    world.restart();
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
    assert_eq!(world.outcome(2), "nothing-to-do");
}

#[test]
fn a_stay_that_an_older_version_stored_is_not_certain() {
    let mut world = seen();
    let stay = world.disk.stays.values_mut().next().unwrap();
    let mut stored = serde_json::to_value(&*stay).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("instance").is_some());
    *stay = serde_json::from_value(stored).unwrap();
    world.restart();
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn card_reinserted_unseen_is_new_insertion() {
    let mut world = seen();
    world.restart_after(|world| world.insert_unseen("Left", 1));
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn another_card_in_the_same_reader_is_seen_after_a_restart() {
    let mut world = seen();
    world.restart_after(|world| {
        world.insert_unseen("Left", 2);
        world.replace_service();
    });
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn card_removed_unseen_is_new_insertion_on_return() {
    let mut world = seen();
    world.restart_after(|world| world.remove_unseen("Left"));
    world.run(SECOND);
    world.restart_after(|world| {
        world.insert_unseen("Left", 1);
        world.replace_service();
    });
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn card_removed_before_append_is_new_insertion_after_restart() {
    for refused in [false, true] {
        let mut world = World::new();
        world.disk_latency = SECOND;
        world.insert("Left", 1);
        world.run_until(|world| world.disk.asked.contains_key(&Verb::Append));
        if refused {
            world.disk.refuses.insert(Verb::Append);
            world.insert("Right", 2);
            world.run_until(|world| world.disk.asked[&Verb::Append] == 2);
            world.remove("Right");
            world.run(5 * SECOND);
            world.disk.refuses.clear();
        }
        world.remove("Left");
        world.run(HOUR);
        assert!(world.disk.stays.is_empty(), "{:?}", world.disk.stays);
        let entries = world.entries();
        world.restart_after(|world| {
            world.insert_unseen("Left", 1);
            world.replace_service();
        });
        world.run(HOUR);
        assert_eq!(world.entries(), entries + 1);
    }
}

#[test]
fn a_card_whose_entry_was_under_way_when_the_service_went_is_inserted_again() {
    let mut world = World::new();
    world.disk_latency = SECOND;
    world.insert("Left", 1);
    world.run_until(|world| world.entries() == 1);
    world.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() });
    world.run(2 * SECOND);
    world.restart_service();
    world.run(HOUR);
    assert_eq!(world.entries(), 2);
    assert_eq!(
        (world.outcome(1), world.outcome(2)),
        ("nothing-to-do".into(), "nothing-to-do".into())
    );
}

#[test]
fn a_swap_between_two_looks_is_two_insertions() {
    let mut world = World::new();
    world.probe = Some(Duration::from_millis(500));
    world.insert("Left", 1);
    world.run(SECOND / 4);
    world.swap_in_one_look("Left", 2);
    world.run(SECOND);
    world.swap_in_one_look("Left", 2);
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
    let audited: Vec<_> = world.disk.audit.iter().map(|line| line.reason.as_deref()).collect();
    assert!(audited.contains(&Some("removed")), "{audited:?}");
}

#[test]
fn an_identity_that_comes_after_the_card_left_is_not_believed() {
    let mut world = World::new();
    world.insert("Left", 1);
    world.remove("Left");
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
    assert_eq!(world.engine.counters().stale_results, 1);
    assert!(world.engine.reader_views().iter().all(|view| view.card == CardView::Empty));
    assert_eq!(world.disk.audit.len(), 1);
    assert_eq!(world.disk.audit[0].reason.as_deref(), Some("removed"));
}

#[test]
fn probe_timeout_is_logged_and_makes_no_entry() {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
    let line = &world.disk.audit[0];
    assert_eq!(
        (line.outcome.as_str(), line.reason.as_deref()),
        ("not-identified", Some("timeout"))
    );
    assert_eq!(line.atr, ATR.parse().ok());
    assert!(world.is_quiet());
}

#[test]
fn a_stuck_card_holds_up_no_other_reader() {
    let mut world = World::new();
    world.probe = None;
    world.insert("Left", 1);
    world.probe = Some(SECOND);
    world.insert("Right", 2);
    world.run(2 * SECOND);
    assert_eq!(world.outcome(1), "nothing-to-do");
}

#[test]
fn mute_or_unknown_card_is_logged_and_makes_no_entry() {
    let mut world = World::new();
    let insertion = InsertionId::ZERO.next();
    world.handle(ReaderEvent::CardMute { reader: "Left".into(), insertion });
    assert_eq!(world.engine.reader_views()[0].card, CardView::Mute);
    world.probe = None;
    world.insert("Right", 2);
    let insertion = InsertionId::ZERO.next();
    let why =
        NotIdentified::new(NotIdentifiedReason::UnknownFamily, "no family knows it".to_owned());
    world.handle(ReaderEvent::ProbeFinished {
        reader: "Right".into(),
        insertion,
        result: Err(why),
        exchanges: vec![],
    });
    world.run(HOUR);
    let audited: Vec<_> = world.disk.audit.iter().map(|line| line.reason.as_deref()).collect();
    assert_eq!(audited, [Some("mute"), Some("unknown-family")]);
    assert_eq!(world.entries(), 0);
}

#[test]
fn a_card_whose_atr_is_skipped_is_shown_and_never_touched() {
    let mut policy = policy();
    policy.skip_atr = vec!["3b8d0180fba000000397425446590301??".parse().unwrap()];
    let mut world = World::with(policy);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!((world.entries(), world.effects), (0, 0));
    assert!(matches!(world.engine.reader_views()[0].card, CardView::NotIdentified { .. }));
}

#[test]
fn the_service_and_its_readers_come_and_go_in_the_snapshot() {
    let mut world = seen();
    assert_eq!(world.engine.reader_views().len(), 3);
    world.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() });
    assert!(matches!(world.engine.pcscd_view(), PcscdView::Unavailable { .. }));
    assert!(world.engine.reader_views().is_empty());
    world.restart_service();
    world.run(SECOND);
    assert!(matches!(world.engine.pcscd_view(), PcscdView::Connected { .. }));
    assert_eq!(world.engine.reader_views().len(), 3);
}

#[test]
fn a_card_that_came_after_the_first_look_is_new_whatever_its_counter() {
    let mut world = seen();
    world.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() });
    world.handle(ReaderEvent::PcscdConnected);
    world.handle(ReaderEvent::ReaderAttached { reader: "Left".into(), instance: None });
    world.replace_service();
    world.come("Left", false);
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_reader_that_is_pulled_ends_the_stay_of_its_card() {
    let mut world = seen();
    world.handle(ReaderEvent::ReaderDetached { reader: "Left".into() });
    world.run(SECOND);
    assert!(world.disk.stays.is_empty());
    world.handle(ReaderEvent::ReaderAttached { reader: "Left".into(), instance: None });
    world.swap_in_one_look("Left", 1);
    world.run(SECOND);
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_changed_configuration_counts_from_the_next_card_and_the_next_decision_on() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    let mut policy = policy();
    policy.rules.rules.clear();
    policy.readers.0.push(ReaderRule {
        matches: ReaderMatch::new("Right"),
        label: Some("not used".to_owned()),
        role: "desk".to_owned(),
        enabled: false,
        removal_debounce: Duration::ZERO,
    });
    world.handle(Event::Reconfigured(Box::new(policy)));
    world.cm.mood = Mood::Fine;
    world.insert("Right", 2);
    world.run(HOUR);
    assert_eq!((world.entries(), world.outcome(1)), (1, "nothing-to-do".to_owned()));
    assert_eq!(world.engine.reader_views()[1].settings.label, "not used");
}
