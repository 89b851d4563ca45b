//! Cards that are taken out, where a rule is for that.

use super::world::cm::{DISABLE, DISABLED, Mood, RETIRE, RETIRED};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World, removing};
use crate::domain::{CmOperation, InsertionId, ReaderEvent, Removal, Trigger};

/// A world in which card 1 was put in and is done with, and has to be disabled when it goes.
fn seen() -> World {
    let mut world = World::with(removing());
    world.insert("Left", 1);
    world.run(SECOND);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
    world.cm.request(1, DISABLE);
    world
}

fn triggers(world: &World) -> Vec<&'static str> {
    world.disk.audit.iter().map(|line| line.trigger.as_str()).collect()
}

#[test]
fn a_card_that_is_taken_out_is_an_entry_of_its_own() {
    let mut world = seen();
    world.remove("Left");
    world.run(SECOND);
    assert_eq!(world.trail(2), ["updated"]);
    assert_eq!(world.cm.status(1), DISABLED);
    assert_eq!(triggers(&world), ["inserted", "removed"]);
    let line = &world.disk.audit[1];
    assert_eq!((line.rule.as_deref(), line.reader.as_str()), (Some("disable"), "Left"));
    assert!(line.seen_at > world.disk.audit[0].seen_at);
    assert!(world.disk.stays.is_empty());
}

#[test]
fn without_a_rule_for_it_a_removal_is_nothing_at_all() {
    let mut world = World::new();
    world.insert("Left", 1);
    world.run(SECOND);
    world.cm.request(1, RETIRE);
    world.remove("Left");
    world.run(HOUR);
    assert_eq!((world.entries(), world.calls.len(), world.disk.audit.len()), (1, 1, 1));
}

#[test]
fn a_rule_acts_only_on_what_sets_it_off() {
    let mut world = World::with(removing());
    world.cm.request(1, DISABLE);
    world.cm.request(2, RETIRE);
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(SECOND);
    assert_eq!((world.outcome(1), world.outcome(2)), ("nothing-to-do".into(), "updated".into()));
    assert_eq!(world.cm.status(2), RETIRED);
    world.remove("Left");
    world.remove("Right");
    world.run(SECOND);
    assert_eq!((world.outcome(3), world.outcome(4)), ("updated".into(), "nothing-to-do".into()));
    assert_eq!(world.cm.status(1), DISABLED);
}

#[test]
fn cm_is_asked_nothing_about_a_removal_before_it_is_on_disk() {
    let mut world = seen();
    world.disk_latency = 5 * SECOND;
    let asked = world.calls.len();
    world.remove("Left");
    world.run(4 * SECOND);
    assert_eq!((world.entries(), world.calls.len()), (2, asked));
    world.run(2 * SECOND);
    assert_eq!(world.calls.len(), asked + 1);
}

#[test]
fn a_removal_waits_for_the_insertion_and_does_not_take_its_place() {
    let mut world = World::with(removing());
    world.cm.request(1, RETIRE);
    world.cm.latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.run_until(|world| world.entries() == 2 && world.asked(CmOperation::SetStatus) == 1);
    assert_eq!(world.trail(1).len(), 0);
    world.run(HOUR);
    assert_eq!(
        (world.trail(1), world.trail(2)),
        (vec!["updated".into()], vec!["nothing-to-do".into()])
    );
    let ended: Vec<_> = world.disk.audit.iter().filter_map(|line| line.entry).collect();
    assert!(ended.is_sorted(), "{ended:?}");
}

#[test]
fn both_wait_for_cm_and_keep_their_order_over_a_restart() {
    let mut world = World::with(removing());
    world.cm.request(1, RETIRE);
    world.cm.request(1, DISABLE);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.run(HOUR);
    world.restart();
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert_eq!((world.trail(1), world.trail(2)), (vec!["updated".into()], vec!["updated".into()]));
    assert_eq!(triggers(&world), ["inserted", "removed"]);
}

#[test]
fn removal_triggers_no_trial() {
    let mut world = seen();
    world.cm.mood = Mood::Away;
    world.insert("Right", 2);
    world.run(6 * HOUR);
    world.run_until(World::is_quiet);
    let asked = world.calls.len();
    world.remove("Left");
    world.run(SECOND / 4);
    assert_eq!((world.entries(), world.calls.len()), (3, asked));
}

#[test]
fn a_new_insertion_takes_over_from_waiting_entries_of_both_kinds() {
    let mut world = World::with(removing());
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.run(SECOND);
    world.insert("Right", 1);
    world.run(SECOND);
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    let ends: Vec<_> = (1..=3).map(|entry| world.outcome(entry)).collect();
    assert_eq!(ends, ["superseded", "superseded", "updated"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn a_removal_that_may_have_been_sent_is_inherited_by_the_next_insertion() {
    let mut world = seen();
    world.cm.script.extend([Mood::Fine, Mood::AnswerLost]);
    world.cm.latency = 5 * SECOND;
    world.remove("Left");
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!((world.outcome(2), world.outcome(3)), ("superseded".into(), "updated".into()));
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn a_card_that_is_not_taken_out_of_a_reader_that_stays_is_no_removal() {
    let gone: [fn(&mut World); 5] = [
        |world| world.handle(ReaderEvent::ReaderDetached { reader: "Left".into() }),
        |world| {
            let insertion = InsertionId::ZERO.next();
            let (reader, how) = ("Left".into(), Removal::Inferred);
            world.handle(ReaderEvent::CardRemoved { reader, insertion, removal: how });
        },
        |world| world.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() }),
        |world| {
            world.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() });
            world.remove_unseen("Left");
            world.restart_service();
        },
        |world| world.restart_after(|world| world.remove_unseen("Left")),
    ];
    for (n, gone) in gone.into_iter().enumerate() {
        let mut world = seen();
        gone(&mut world);
        world.run(HOUR);
        assert_eq!(world.entries(), 1, "{n}");
    }
}

#[test]
fn unidentified_card_makes_no_removal() {
    let mut world = World::with(removing());
    world.insert("Left", 1);
    world.remove("Left");
    world.run(HOUR);
    assert_eq!(world.entries(), 0);
}

#[test]
fn a_card_that_lay_there_over_a_restart_is_a_removal_when_it_goes() {
    let mut world = seen();
    world.restart();
    world.run(SECOND);
    world.remove("Left");
    world.run(SECOND);
    assert_eq!(world.trail(2), ["updated"]);
    assert_eq!(triggers(&world), ["inserted", "removed"]);
}

#[test]
fn a_card_that_another_takes_the_place_of_between_two_looks_is_a_removal() {
    let mut world = seen();
    world.swap_in_one_look("Left", 2);
    world.run(SECOND);
    assert_eq!(triggers(&world), ["inserted", "removed", "inserted"]);
    assert_eq!(world.cm.status(1), DISABLED);
    let stays: Vec<_> = world.disk.stays.values().map(|stay| stay.entry.number()).collect();
    assert_eq!(stays, [3], "the stay is the new card's");
}

#[test]
fn a_removal_that_the_disk_refuses_follows_its_insertion_there_later() {
    let mut world = World::with(removing());
    world.cm.request(1, DISABLE);
    world.disk.refuses.insert(Verb::Append);
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.insert("Left", 2);
    world.run(60 * SECOND);
    world.disk.refuses.clear();
    world.run(HOUR);
    let kept: Vec<_> = world.disk.appended.values().map(|draft| draft.trigger).collect();
    assert_eq!(kept.iter().filter(|trigger| **trigger == Trigger::Removed).count(), 1);
    assert_eq!(world.cm.status(1), DISABLED);
    assert_eq!(world.disk.stays.len(), 1, "the stay of the card that is there");
    assert_eq!(world.disk.stays.values().next().map(|stay| world.card_at(stay.entry)), Some(2));
}

#[test]
fn a_rule_for_removals_that_comes_with_a_reload_counts_from_then_on() {
    let mut world = World::new();
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(SECOND);
    world.remove("Left");
    world.policy = removing();
    world.reload();
    world.remove("Right");
    world.run(SECOND);
    assert_eq!(world.entries(), 3);
    assert_eq!(triggers(&world), ["inserted", "inserted", "removed"]);
}
