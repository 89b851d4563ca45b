//! What is in the queue, in which order, and what becomes of it.

use super::*;

#[tokio::test]
async fn an_entry_comes_back_after_a_restart_as_it_was_stored() {
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
            Entry { id: id(1), card_event: draft(1), stage: Stage::Queued },
            Entry { id: id(2), card_event: draft(2), stage: Stage::Sent(decision(2)) },
            Entry { id: id(3), card_event: draft(3), stage: parked },
        ]
    );
    assert_eq!(restored.damaged, []);
}

#[tokio::test]
async fn an_append_answers_only_once_others_can_see_the_row() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=50 {
        let appended = outbox.append(append(number)).await.unwrap();
        assert_eq!(place.entries().last().map(|entry| entry.id), Some(appended.entry));
    }
}

#[tokio::test]
async fn commands_run_in_the_order_of_the_calls_whatever_is_awaited_first() {
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
async fn a_command_runs_even_if_its_future_is_never_polled() {
    let place = Place::new();
    let (outbox, _) = place.open();
    drop(outbox.append(append(1)));
    outbox.close();
    assert_eq!(place.entries().len(), 1);
}

#[tokio::test]
async fn settling_deletes_the_entry_and_leaves_one_line() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let end = Settlement { decision: Some(decision(1)), ..end(Outcome::Updated) };
    let line = outbox.settle(id(1), end.clone()).await.unwrap();
    assert_eq!(line, AuditLine::settled("desk-3", id(1), &draft(1), &end));
    assert!(matches!(outbox.settle(id(1), end).await, Err(StoreError::NoSuchEntry(_))));
    outbox.close();

    let restored = place.restored();
    assert_eq!(restored.entries, []);
    assert_eq!(restored.latest, [line]);
}

#[tokio::test]
async fn a_new_insertion_takes_the_place_of_waiting_and_parked_entries() {
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
        [AuditLine::settled("desk-3", id(1), &draft(1), &end(Outcome::Superseded))]
    );
    assert_eq!(
        place.entries(),
        [
            Entry { id: id(3), card_event: draft(2), stage: Stage::Queued },
            Entry { id: id(4), card_event: draft(1), stage },
        ]
    );
    assert_eq!(
        place.outcomes(),
        [(Some(id(2)), "parked".to_owned()), (Some(id(1)), "superseded".to_owned()),]
    );
}

#[tokio::test]
async fn an_append_that_fails_supersedes_nothing() {
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
    assert_eq!(place.entries(), [Entry { id: id(1), card_event: draft(1), stage: Stage::Queued }]);
    assert_eq!(place.outcomes(), []);
}

#[tokio::test]
async fn a_superseded_entry_that_is_gone_does_not_keep_the_new_one_out() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let supersedes = vec![(id(7), Some(end(Outcome::Superseded))), (id(8), None)];
    let appended = outbox.append(AppendRequest { supersedes, ..append(1) }).await.unwrap();
    assert_eq!(appended, AppendResult { entry: id(1), lines: vec![] });
}

#[tokio::test]
async fn a_waiting_entry_is_not_removed_without_an_outcome() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(AppendRequest { supersedes: vec![(id(1), None)], ..append(1) }).await.unwrap();
    assert_eq!(place.entries().len(), 2);
}

#[tokio::test]
async fn a_parked_entry_gets_no_second_outcome_by_being_superseded() {
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
async fn a_parked_entry_is_only_retried_or_discarded() {
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
async fn a_parked_entry_that_is_taken_up_again_still_knows_what_it_may_have_sent() {
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
async fn nothing_is_parked_without_a_line() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let stage = Stage::Parked { reason: ParkReason::Refused, detail: String::new(), sent: None };
    assert!(matches!(outbox.save(id(1), stage).await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn an_id_is_never_used_twice() {
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
async fn a_stay_lasts_until_the_card_is_taken_out_or_another_comes() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    let elsewhere = CardEvent { reader: "Other".into(), ..draft(3) };
    outbox.append(AppendRequest { card_event: elsewhere.clone(), ..append(3) }).await.unwrap();
    outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    outbox.close();

    let stay = |entry: i64, draft: CardEvent| LastSeenCard {
        reader: draft.reader.clone(),
        event_count: draft.event_count,
        atr: draft.atr.clone(),
        card: draft.card_key(),
        entry: id(entry),
        instance: None,
    };
    let (outbox, restored) = place.open();
    assert_eq!(restored.last_seen, [stay(2, draft(2)), stay(3, elsewhere.clone())]);

    outbox.clear_last_seen(draft(2).reader).await.unwrap();
    outbox.clear_last_seen("Never seen".into()).await.unwrap();
    outbox.close();
    assert_eq!(place.restored().last_seen, [stay(3, elsewhere)]);
}

#[tokio::test]
async fn a_card_that_went_is_kept_and_begins_no_stay() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let went = CardEvent { trigger: Trigger::Removed, ..draft(1) };
    let went = AppendRequest { card_event: went, ..append(1) };
    let stays = |restored: &OutboxContents| -> Vec<_> {
        restored.last_seen.iter().map(|stay| stay.entry).collect()
    };
    outbox.append(went).await.unwrap();
    let completing = Stage::Completing(Decision { complete_request: true, ..decision(1) });
    outbox.save(id(2), completing.clone()).await.unwrap();
    outbox.close();
    let restored = place.restored();
    assert_eq!(stays(&restored), [id(1)], "that of the insertion, until its end is told");
    let kept: Vec<_> = restored.entries.iter().map(|entry| entry.card_event.trigger).collect();
    assert_eq!(kept, [Trigger::Inserted, Trigger::Removed]);
    assert_eq!(restored.entries[1].stage, completing);
    let (outbox, _) = place.open();
    let line = outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    assert_eq!(line.trigger, Trigger::Removed);
}
