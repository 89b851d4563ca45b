//! The entries: their order, and what becomes of each.

use super::*;

#[tokio::test]
async fn entries_are_unchanged_after_restart() {
    let place = Place::new();
    let (outbox, restored) = place.open();
    assert_eq!(
        restored,
        OutboxContents {
            entries: vec![],
            last_seen: vec![],
            latest: vec![],
            damaged: vec![],
            repaired: None
        }
    );
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    outbox.append(append(3)).await.unwrap();
    outbox.save(id(2), Stage::Sent(decision(2))).await.unwrap();
    outbox.settle(id(3), parked()).await.unwrap();
    outbox.close();

    let parked = Stage::parked(&parked()).unwrap();
    let restored = place.restored();
    assert_eq!(
        restored.entries,
        [
            Entry { id: id(1), card_event: card_event(1), stage: Stage::Queued },
            Entry { id: id(2), card_event: card_event(2), stage: Stage::Sent(decision(2)) },
            Entry { id: id(3), card_event: card_event(3), stage: parked },
        ]
    );
    assert_eq!(restored.damaged, []);
}

#[tokio::test]
async fn append_returns_once_other_processes_see_the_row() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=50 {
        let appended = outbox.append(append(number)).await.unwrap();
        assert_eq!(place.entries().last().map(|entry| entry.id), Some(appended.entry));
    }
}

#[tokio::test]
async fn commands_run_in_order_of_calls() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let appended = outbox.append(append(1));
    let sent = outbox.save(id(1), Stage::Sent(decision(1)));
    let queued = outbox.save(id(1), Stage::Queued);
    let settled = outbox.settle(id(1), end(Outcome::Updated));
    let late = outbox.save(id(1), Stage::Queued);

    assert!(matches!(late.await, Err(StoreError::NoSuchEntry(gone)) if gone == id(1)));
    settled.await.unwrap();
    queued.await.unwrap();
    sent.await.unwrap();
    assert_eq!(appended.await.unwrap().entry, id(1));
}

#[tokio::test]
async fn command_runs_without_polling_its_future() {
    let place = Place::new();
    let (outbox, _) = place.open();
    drop(outbox.append(append(1)));
    outbox.close();
    assert_eq!(place.entries().len(), 1);
}

#[tokio::test]
async fn settling_deletes_entry_and_writes_one_line() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let end = Settlement { decision: Some(decision(1)), ..end(Outcome::Updated) };
    let line = outbox.settle(id(1), end.clone()).await.unwrap();
    assert_eq!(line, AuditLine::settled("desk-3", id(1), &card_event(1), &end));
    assert!(matches!(outbox.settle(id(1), end).await, Err(StoreError::NoSuchEntry(_))));
    outbox.close();

    let restored = place.restored();
    assert_eq!(restored.entries, []);
    assert_eq!(restored.latest, [line]);
}

#[tokio::test]
async fn new_insertion_supersedes_waiting_and_parked_entries() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    outbox.settle(id(2), parked()).await.unwrap();

    let supersedes = vec![(id(1), Some(end(Outcome::Superseded))), (id(2), None)];
    let stage = Stage::Sent(decision(1));
    let appended = outbox
        .append(AppendRequest { supersedes, stage: stage.clone(), ..append(1) })
        .await
        .unwrap();
    assert_eq!(appended.entry, id(4));
    assert_eq!(
        appended.lines,
        [AuditLine::settled("desk-3", id(1), &card_event(1), &end(Outcome::Superseded))]
    );
    assert_eq!(
        place.entries(),
        [
            Entry { id: id(3), card_event: card_event(2), stage: Stage::Queued },
            Entry { id: id(4), card_event: card_event(1), stage },
        ]
    );
    assert_eq!(
        place.outcomes(),
        [(Some(id(2)), "parked".to_owned()), (Some(id(1)), "superseded".to_owned()),]
    );
}

#[tokio::test]
async fn failed_append_supersedes_nothing() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    place
        .sqlite()
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();

    let supersedes = vec![(id(1), Some(end(Outcome::Superseded)))];
    let refused = outbox.append(AppendRequest { supersedes, ..append(1) }).await;
    assert!(matches!(refused, Err(StoreError::Io(_))));
    assert_eq!(
        place.entries(),
        [Entry { id: id(1), card_event: card_event(1), stage: Stage::Queued }]
    );
    assert_eq!(place.outcomes(), []);
}

#[tokio::test]
async fn missing_superseded_entry_blocks_no_new_one() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let supersedes = vec![(id(7), Some(end(Outcome::Superseded))), (id(8), None)];
    let appended = outbox.append(AppendRequest { supersedes, ..append(1) }).await.unwrap();
    assert_eq!(appended, AppendResult { entry: id(1), lines: vec![] });
}

#[tokio::test]
async fn waiting_entry_without_outcome_is_not_superseded() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(AppendRequest { supersedes: vec![(id(1), None)], ..append(1) }).await.unwrap();
    assert_eq!(place.entries().len(), 2);
}

#[tokio::test]
async fn superseded_parked_entry_gets_no_second_outcome() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.settle(id(1), parked()).await.unwrap();
    let supersedes = vec![(id(1), Some(end(Outcome::Superseded)))];
    outbox.append(AppendRequest { supersedes, ..append(1) }).await.unwrap();
    assert_eq!(place.entries().len(), 1);
    assert_eq!(place.outcomes(), [(Some(id(1)), "parked".to_owned())]);
}

#[tokio::test]
async fn parked_entry_can_only_be_retried_or_discarded() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let entry = place.entries().remove(0);
    let act = AuditLine::operator_action("desk-3", &entry, "retry", "uid 0", at(200));
    assert!(matches!(outbox.unpark(id(1), act.clone()).await, Err(StoreError::Conflict(_))));

    outbox.settle(id(1), parked()).await.unwrap();
    let settled = outbox.settle(id(1), end(Outcome::Updated)).await;
    assert!(matches!(settled, Err(StoreError::Conflict(_))));
    let saved = outbox.save(id(1), Stage::Queued).await;
    assert!(matches!(saved, Err(StoreError::Conflict(_))));

    outbox.unpark(id(1), act).await.unwrap();
    assert_eq!(place.entries(), [entry]);
    outbox.settle(id(1), parked()).await.unwrap();
    outbox.settle(id(1), end(Outcome::Discarded)).await.unwrap();
    assert_eq!(place.entries(), []);
    let outcomes: Vec<_> = place.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["parked", "parked", "discarded", "retry"]);
}

#[tokio::test]
async fn requeued_entry_keeps_its_sent_decision() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.save(id(1), Stage::Sent(decision(1))).await.unwrap();
    let end = Settlement { decision: Some(decision(1)), ..parked() };
    outbox.settle(id(1), end).await.unwrap();
    let entry = place.entries().remove(0);
    assert_eq!(entry.stage.sent(), Some(&decision(1)));
    outbox
        .unpark(id(1), AuditLine::operator_action("desk-3", &entry, "retried", "uid 0", at(9)))
        .await
        .unwrap();
    assert_eq!(place.entries()[0].stage, Stage::Sent(decision(1)));
}

#[tokio::test]
async fn save_rejects_parked_stage() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let stage = Stage::Parked { reason: ParkReason::Refused, detail: String::new(), sent: None };
    assert!(matches!(outbox.save(id(1), stage).await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn entry_ids_are_never_reused() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    outbox.settle(id(2), end(Outcome::NothingToDo)).await.unwrap();
    outbox.settle(id(1), end(Outcome::NothingToDo)).await.unwrap();
    outbox.close();

    let (outbox, _) = place.open();
    assert_eq!(outbox.append(append(3)).await.unwrap().entry, id(3));
}

#[tokio::test]
async fn last_seen_card_is_kept_until_removal_or_next_card() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    let elsewhere = CardEvent { reader: "Other".into(), ..card_event(3) };
    outbox.append(AppendRequest { card_event: elsewhere.clone(), ..append(3) }).await.unwrap();
    outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    outbox.close();

    let last_seen = |entry: i64, event: CardEvent| LastSeenCard {
        reader: event.reader.clone(),
        event_count: event.event_count,
        atr: event.atr.clone(),
        card: event.card_key(),
        entry: id(entry),
        instance: None,
    };
    let (outbox, restored) = place.open();
    assert_eq!(restored.last_seen, [last_seen(2, card_event(2)), last_seen(3, elsewhere.clone())]);

    outbox.clear_last_seen(card_event(2).reader).await.unwrap();
    outbox.clear_last_seen("Never seen".into()).await.unwrap();
    outbox.close();
    assert_eq!(place.restored().last_seen, [last_seen(3, elsewhere)]);
}

#[tokio::test]
async fn removal_is_stored_and_keeps_last_seen_card() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let went = CardEvent { trigger: Trigger::Removed, ..card_event(1) };
    let went = AppendRequest { card_event: went, ..append(1) };
    let last_seen = |restored: &OutboxContents| -> Vec<_> {
        restored.last_seen.iter().map(|card| card.entry).collect()
    };
    outbox.append(went).await.unwrap();
    let completing = Stage::Completing(Decision { complete_request: true, ..decision(1) });
    outbox.save(id(2), completing.clone()).await.unwrap();
    outbox.close();
    let restored = place.restored();
    assert_eq!(
        last_seen(&restored),
        [id(1)],
        "the card of the insertion is kept until its removal"
    );
    let kept: Vec<_> = restored.entries.iter().map(|entry| entry.card_event.trigger).collect();
    assert_eq!(kept, [Trigger::Inserted, Trigger::Removed]);
    assert_eq!(restored.entries[1].stage, completing);
    let (outbox, _) = place.open();
    let line = outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    assert_eq!(line.trigger, Trigger::Removed);
}
