//! Audit lines that end no entry have a budget of their own.

use super::*;
use crate::domain::AuditKind;

/// A budget with room for this many notes.
const fn budget(max_notes: u64) -> SizeLimits {
    SizeLimits { max_entries: 1000, soft: 1 << 20, hard: 2 << 20, max_notes }
}

fn open_with(place: &Place, budget: SizeLimits) -> Outbox {
    open_within(place.options(), budget, DamagePolicy::Repair).unwrap().0
}

async fn kinds(outbox: &Outbox) -> Vec<(AuditKind, Option<u64>)> {
    let page = outbox.audit(AuditFilter::default()).await.unwrap();
    page.lines.into_iter().map(|it| (it.line.kind, it.line.count)).collect()
}

async fn is_full(outbox: &Outbox, second: i64) -> bool {
    matches!(
        outbox.append_audit(not_identified(second)).await,
        Err(StoreError::Full(FullReason::Notes))
    )
}

#[tokio::test]
async fn full_notes_budget_is_said_once_and_counted_until_lines_are_pruned() {
    let place = Place::new();
    let outbox = open_with(&place, budget(5));
    for second in 1..=4 {
        outbox.append_audit(not_identified(second)).await.unwrap();
    }
    let note = (AuditKind::NotIdentified, None);
    let stopped = (AuditKind::Notes, None);
    assert_eq!(kinds(&outbox).await, [note, note, note, note, stopped]);
    for second in 10..=12 {
        assert!(is_full(&outbox, second).await);
    }
    assert_eq!(kinds(&outbox).await.len(), 5, "nothing more is written");

    // The two oldest go: one line tells of the three, and the note itself is the last that fits.
    assert_eq!(prune_all(&outbox, Duration::from_millis(1500), at(4)).await, 2);
    outbox.append_audit(not_identified(13)).await.unwrap();
    assert_eq!(
        kinds(&outbox).await,
        [note, note, stopped, (AuditKind::Notes, Some(3)), note, stopped]
    );
    assert!(is_full(&outbox, 14).await);
    outbox.close();
    assert!(is_full(&open_with(&place, budget(5)), 15).await, "the file is counted, not the life");
}

#[tokio::test]
async fn entries_go_on_where_notes_are_full() {
    let place = Place::new();
    let outbox = open_with(&place, budget(5));
    for second in 1..=100 {
        drop(outbox.append_audit(not_identified(second)).await);
    }
    assert!(is_full(&outbox, 101).await);
    outbox.append(append(1)).await.unwrap();
    outbox.settle(id(1), parked()).await.unwrap();
    let act = AuditLine::operator_action("desk-3", &place.entries()[0], "retried", "uid 0", at(60));
    outbox.unpark(id(1), act).await.unwrap();
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
}

/// As a station of an earlier version left it, whose notes took all the room.
#[tokio::test]
async fn file_that_is_full_of_old_notes_takes_entries() {
    let place = Place::new();
    let roomy = SizeLimits { max_notes: 1 << 16, ..budget(0) };
    let outbox = open_with(&place, roomy);
    for second in 1..=600 {
        outbox.append_audit(not_identified(second)).await.unwrap();
    }
    outbox.close();
    let size = std::fs::metadata(place.path()).unwrap().len();
    let small =
        SizeLimits { max_entries: 10, soft: size / 2, hard: size / 2 + 40 * 4096, max_notes: 5 };
    let outbox = open_with(&place, small);
    assert!(is_full(&outbox, 601).await);
    for number in 1..=10 {
        outbox.append(append(number)).await.unwrap();
        outbox.settle(id(number.into()), end(Outcome::Updated)).await.unwrap();
    }
}

#[tokio::test]
async fn note_that_was_not_committed_is_not_counted() {
    let place = Place::new();
    let outbox = open_with(&place, budget(4));
    let stop = "CREATE TRIGGER stop BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'stop'); END";
    outbox.append_audit(not_identified(1)).await.unwrap();
    place.sqlite().execute_batch(stop).unwrap();
    for second in 2..=9 {
        assert!(outbox.append_audit(not_identified(second)).await.is_err());
        assert!(!is_full(&outbox, second).await);
    }
    place.sqlite().execute_batch("DROP TRIGGER stop").unwrap();
    outbox.append_audit(not_identified(10)).await.unwrap();
}
