//! What is counted is what happened, once.

use super::world::cm::{Mood, RETIRE};
use super::world::disk::Verb;
use super::world::{HOUR, SECOND, World};
use crate::domain::{
    CmOperation, EntryId, Family, InsertionId, LookupResult, NotIdentified, NotIdentifiedReason,
    Outcome, ParkReason, ProbeResult, ReaderEvent, Removal,
};
use crate::engine::{CmEvent, CmResponse, Event, Notice, OutboxEvent, OutboxFailure};

#[test]
fn cards_probes_and_outcomes_are_counted_once() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(SECOND);
    world.remove("Left");
    world.insert("Left", 2);
    world.run(SECOND);
    let tally = world.engine.counters();
    assert_eq!((tally.insertions, tally.removals, tally.mute_cards), (2, 1, 0));
    assert_eq!(tally.probes.get(&ProbeResult::Identified(Family::Gids)), Some(&2));
    assert_eq!(tally.outcomes.get(&Outcome::Updated), Some(&1));
    assert_eq!(tally.outcomes.get(&Outcome::NothingToDo), Some(&1));
    assert_eq!(tally.outcomes.values().sum::<u64>(), 2);
}

#[test]
fn an_answer_about_a_card_that_is_gone_is_no_probe_that_counts() {
    let mut world = World::new();
    let why = NotIdentified::new(NotIdentifiedReason::NoCardId, String::new());
    let (reader, insertion) = ("Left".into(), InsertionId::ZERO);
    world.handle(ReaderEvent::ProbeFinished {
        reader,
        insertion,
        result: Err(why),
        exchanges: vec![],
    });
    let tally = world.engine.counters();
    assert!(tally.probes.is_empty(), "{tally:?}");
    assert_eq!(tally.stale_results, 1);
}

#[test]
fn an_outage_is_counted_once_however_long_it_lasts() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(HOUR);
    assert_eq!(world.engine.counters().cm_outages, 1);
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    world.cm.mood = Mood::Away;
    world.insert("Right", 2);
    world.run(HOUR);
    assert_eq!(world.engine.counters().cm_outages, 2);
}

#[test]
fn parking_is_counted_by_its_reason() {
    let mut world = World::new();
    world.cm.request(1, RETIRE);
    world.cm.mood = Mood::Refusing;
    world.insert("Left", 1);
    world.run(SECOND);
    let parked = Outcome::Parked(ParkReason::Refused);
    assert_eq!(world.engine.counters().outcomes.get(&parked), Some(&1));
}

#[test]
fn a_loss_of_pcscd_is_counted_when_it_was_there_and_refusals_of_the_disk_each_time() {
    let mut world = World::new();
    world.restart_service();
    world.handle(ReaderEvent::PcscdUnavailable { reason: "gone".to_owned() });
    world.handle(ReaderEvent::PcscdUnavailable { reason: "gone otherwise".to_owned() });
    assert_eq!(world.engine.counters().pcscd_losses, 2);

    world.handle(ReaderEvent::PcscdConnected);
    world.disk.refuses.insert(Verb::Append);
    world.handle(ReaderEvent::ReaderAttached { reader: "Left".into(), instance: None });
    world.insert("Left", 1);
    world.run(60 * SECOND);
    assert!(world.engine.counters().outbox_errors > 1);
}

#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "only these are expected")]
fn result_for_unknown_entry_or_insertion_is_counted_and_reported() {
    let mut world = World::new();
    world.may_be_surprised = true;
    let (entry, insertion) = (EntryId::new(7), InsertionId::ZERO.next());
    let failed = || Err(OutboxFailure::Retryable("full".to_owned()));
    let operation = CmOperation::Lookup;
    let found = CmResponse::Lookup(LookupResult { records: None, requests: vec![] });
    let (reader, removal) = ("Left".into(), Removal::Observed);
    world.handle(Event::Cm(CmEvent { entry, operation, result: Ok(found) }));
    world.handle(Event::Outbox(OutboxEvent::StageSaved { entry, result: Ok(()) }));
    world.handle(Event::Outbox(OutboxEvent::EntrySettled { entry, result: failed() }));
    world.handle(ReaderEvent::CardRemoved { reader, insertion, removal });
    world.handle(ReaderEvent::ReaderDetached { reader: "none".into() });
    assert_eq!(world.engine.counters().stale_results, 5);
    let of = world.notices.iter().filter_map(|notice| match notice {
        Notice::UnexpectedResult { of, .. } => Some(of.as_str()),
        _ => None,
    });
    let of: Vec<_> = of.collect();
    assert_eq!(of, ["7", "7", "7", "1", "none"]);
}
