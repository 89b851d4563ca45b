//! A card that is put in again takes over from its older entry, whatever that is doing.

use super::world::cm::{ACTIVE, Mood, RETIRE, RETIRED};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World};
use crate::domain::{CmOperation, EntryId, Stage};

/// Puts the card in again when `what` is so, and says what became of both entries.
fn again_when(world: &mut World, what: impl Fn(&World) -> bool) -> (Vec<String>, Vec<String>) {
    world.insert("Left", 1);
    world.run_until(what);
    world.insert("Left", 1);
    world.run(HOUR);
    (world.trail(1), world.trail(2))
}

fn slow() -> World {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.latency = 5 * SECOND;
    world
}

fn both(first: &str, second: &str) -> (Vec<String>, Vec<String>) {
    (vec![first.to_owned()], vec![second.to_owned()])
}

#[test]
fn one_that_waits_is_superseded() {
    let mut world = slow();
    world.cm.script.extend([Mood::Away]);
    let ends = again_when(&mut world, World::is_away);
    assert_eq!(ends, both("superseded", "updated"));
}

#[test]
fn one_that_is_looked_up_is_superseded_and_its_answer_is_not_believed() {
    let mut world = slow();
    let ends = again_when(&mut world, |world| world.asked(CmOperation::Lookup) == 1);
    assert_eq!(ends, both("superseded", "updated"));
    assert_eq!((world.asked(CmOperation::Lookup), world.asked(CmOperation::SetStatus)), (2, 1));
    assert_eq!(world.engine.counters().stale_results, 1);
}

#[test]
fn one_that_is_being_saved_is_superseded_and_sends_nothing() {
    let mut world = slow();
    world.disk_latency = 3 * SECOND;
    let saved = |world: &World| world.disk.asked.contains_key(&Verb::Save);
    let ends = again_when(&mut world, saved);
    assert_eq!(ends, both("superseded", "updated"));
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
    assert!(
        world
            .calls
            .iter()
            .all(|call| call.ask != CmOperation::SetStatus || call.entry == EntryId::new(2))
    );
}

#[test]
fn one_whose_update_is_under_way_is_superseded_and_the_new_one_reads_back() {
    for mood in [Mood::Fine, Mood::AnswerLost, Mood::NoContent] {
        let mut world = slow();
        world.cm.script.extend([Mood::Fine, mood]);
        let ends = again_when(&mut world, |world| world.asked(CmOperation::SetStatus) == 1);
        assert_eq!(ends, both("superseded", "updated"), "{mood:?}");
        let asked: Vec<_> = world.calls.iter().map(|call| call.ask).collect();
        assert_eq!(
            asked,
            [CmOperation::Lookup, CmOperation::SetStatus, CmOperation::ReadRecord],
            "{mood:?}"
        );
    }
}

#[test]
fn the_new_one_knows_over_a_restart_that_something_was_sent() {
    let mut world = slow();
    world.cm.script.extend([Mood::Fine, Mood::AnswerLost]);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    world.insert("Left", 1);
    world.run_until(|world| world.entries() == 2);
    assert!(matches!(world.disk.entries[&EntryId::new(2)].stage, Stage::Sent(_)));
    world.restart();
    world.run(HOUR);
    assert_eq!(world.trail(2), ["updated"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn one_that_reads_back_is_superseded() {
    let mut world = slow();
    world.cm.script.extend([Mood::Fine, Mood::NoContent]);
    let ends = again_when(&mut world, |world| world.asked(CmOperation::ReadRecord) == 1);
    assert_eq!(ends, both("superseded", "updated"));
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn one_whose_outcome_is_decided_keeps_it() {
    let mut world = slow();
    world.disk.refuses.insert(Verb::Settle);
    world.insert("Left", 1);
    world.run_until(|world| world.disk.asked.contains_key(&Verb::Settle));
    world.insert("Left", 1);
    world.run(20 * SECOND);
    world.disk.refuses.clear();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["updated"]);
    assert_eq!(world.trail(2), ["already-set"]);
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn one_that_is_parked_gives_way_without_a_second_outcome() {
    let mut world = World::new();
    world.cm.mood = Mood::Refusing;
    let ends = again_when(&mut world, |world| world.outcome(1) == "parked: refused");
    assert_eq!(ends, both("parked: refused", "parked: refused"));
    assert_eq!(world.disk.entries.len(), 1);
    assert_eq!(world.engine.outbox_view().parked, 1);
}

#[test]
fn one_that_is_parked_while_the_card_is_put_in_again_can_still_be_seen_and_discarded() {
    let mut world = World::new();
    world.cm.script.extend([Mood::Refusing]);
    world.insert("Left", 1);
    world.disk_latency = 3 * SECOND;
    world.run_until(|world| world.outcome(1) == "parked: refused");
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.trail(2), ["nothing-to-do"]);
    assert_eq!(world.engine.outbox_view().parked, world.disk.entries.len());
    world.discard(1).unwrap();
    world.run(HOUR);
    assert!(world.disk.entries.is_empty());
}

#[test]
fn one_whose_successor_the_disk_refuses_goes_on_itself() {
    for moment in [CmOperation::Lookup, CmOperation::SetStatus] {
        let mut world = slow();
        world.insert("Left", 1);
        world.run_until(|world| world.asked(moment) == 1);
        world.disk.refuses.insert(Verb::Append);
        world.insert("Left", 1);
        world.run(40 * SECOND);
        assert_eq!(world.trail(1), ["updated"], "{moment:?}");
        assert_eq!(world.cm.status(1), RETIRED);
        world.disk.refuses.clear();
        world.run(HOUR);
        assert_eq!(world.trail(2), ["already-set"], "{moment:?}");
    }
}

#[test]
fn a_card_in_two_readers_is_one_card() {
    let mut world = slow();
    world.insert("Left", 1);
    world.insert("Right", 1);
    world.run(HOUR);
    assert_eq!((world.trail(1), world.trail(2)), both("superseded", "updated"));
    assert_eq!(world.asked(CmOperation::SetStatus), 1);
}

#[test]
fn an_older_card_that_the_disk_refused_never_takes_over_from_a_newer_one() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.disk.refuses.insert(Verb::Append);
    world.insert("Left", 1);
    world.run(20 * SECOND);
    world.insert("Right", 1);
    world.run(SECOND / 2);
    world.disk.refuses.clear();
    world.run(HOUR);
    let seen: Vec<_> =
        world.disk.entries.values().map(|row| row.card_event.reader.as_str()).collect();
    assert_eq!(seen, ["Right"]);
    assert_eq!(world.trail(1), ["superseded"]);
}

#[test]
fn an_older_entry_of_a_card_ends_before_a_newer_one_begins() {
    let mut world = slow();
    // The first is decided but not ended on disk when the power goes: both wait after that.
    world.disk.refuses.insert(Verb::Settle);
    world.insert("Left", 1);
    world.run_until(|world| world.disk.asked.contains_key(&Verb::Settle));
    world.insert("Left", 1);
    world.run(SECOND);
    world.disk.refuses.clear();
    world.cm.script.extend([Mood::Failing]);
    world.restart();
    world.run(HOUR);
    assert_eq!((world.outcome(1), world.outcome(2)), ("updated".into(), "already-set".into()));
    let ended: Vec<_> = world.disk.audit.iter().filter_map(|line| line.entry).collect();
    assert_eq!(ended, [EntryId::new(1), EntryId::new(2)], "{}", world.story());
}

#[test]
fn a_card_whose_first_update_did_not_arrive_is_updated_once_by_the_second() {
    let mut world = slow();
    world.cm.script.extend([Mood::Fine, Mood::Away]);
    world.insert("Left", 1);
    world.run_until(|world| world.asked(CmOperation::SetStatus) == 1);
    assert_eq!(world.cm.status(1), ACTIVE);
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!((world.trail(1), world.trail(2)), both("superseded", "updated"));
    assert_eq!(world.asked(CmOperation::SetStatus), 2);
}
