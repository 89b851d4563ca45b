//! The limit of notes, which are audit lines that end no entry.

use super::*;
use crate::domain::AuditKind;

/// Limits with room for this many notes.
const fn limits(max_notes: u64) -> SizeLimits {
    SizeLimits { max_entries: 1000, soft: 1 << 20, hard: 2 << 20, max_notes }
}

fn open_with(place: &Place, limits: SizeLimits) -> Outbox {
    open_within(place.options(), limits, DamagePolicy::Repair).unwrap().0
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
async fn note_limit_is_written_once_and_refused_notes_counted() {
    let place = Place::new();
    let outbox = open_with(&place, limits(5));
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

    // The two oldest are deleted: one line counts the three, and the note itself is the last that fits.
    assert_eq!(prune_all(&outbox, Duration::from_millis(1500), at(4)).await, 2);
    outbox.append_audit(not_identified(13)).await.unwrap();
    assert_eq!(
        kinds(&outbox).await,
        [note, note, stopped, (AuditKind::Notes, Some(3)), note, stopped]
    );
    assert!(is_full(&outbox, 14).await);
    outbox.close();
    assert!(
        is_full(&open_with(&place, limits(5)), 15).await,
        "the notes of the file count, not those of the process"
    );
}

#[tokio::test]
async fn entries_are_stored_where_notes_are_full() {
    let place = Place::new();
    let outbox = open_with(&place, limits(5));
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

/// The file of an earlier version, whose notes took all the room.
#[tokio::test]
async fn file_full_of_old_notes_stores_entries() {
    let place = Place::new();
    let roomy = SizeLimits { max_notes: 1 << 16, ..limits(0) };
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
async fn uncommitted_note_is_not_counted() {
    let place = Place::new();
    let outbox = open_with(&place, limits(4));
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
