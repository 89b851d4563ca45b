//! Limits: full, busy and closed.

use std::sync::mpsc;

use super::*;

/// An entry of about 8 KiB whose audit line is short: settling it frees room.
pub(super) fn bulky(number: u8) -> AppendRequest {
    let rest = (1..100).map(|i| candidate(u128::from(number) << 32 | i)).collect();
    let CardEvent { identity, .. } = card_event(number);
    let identity =
        CardIdentity::new(Family::Gids, identity.serial.clone(), identity.primary().clone(), rest);
    AppendRequest { card_event: CardEvent { identity, ..card_event(number) }, ..append(number) }
}

#[tokio::test]
async fn entry_limit_refuses_new_entries_and_allows_settling() {
    let place = Place::new();
    let (outbox, _) = open(OutboxOptions { max_entries: 2, ..place.options() }).unwrap();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    let refused = outbox.append(append(3)).await;
    assert!(matches!(refused, Err(StoreError::Full(FullReason::Entries))));
    assert_eq!(place.entries().len(), 2);

    // A second insertion of a card needs no more room.
    let supersedes = vec![(id(2), Some(end(Outcome::Superseded)))];
    outbox.append(AppendRequest { supersedes, ..append(2) }).await.unwrap();
    // A parked entry takes room, a settled one does not.
    outbox.settle(id(1), parked()).await.unwrap();
    assert!(outbox.append(append(3)).await.is_err());
    outbox.settle(id(1), end(Outcome::Discarded)).await.unwrap();
    outbox.append(append(3)).await.unwrap();
    outbox.close();

    // The count is the file's, not the process's.
    let (outbox, _) = open(OutboxOptions { max_entries: 2, ..place.options() }).unwrap();
    assert!(outbox.append(append(4)).await.is_err());
}

#[tokio::test]
async fn full_file_refuses_new_entries_and_settles_stored_ones() {
    let place = Place::new();
    let limits =
        SizeLimits { max_entries: 1000, soft: 50 * 4096, hard: 100 * 4096, max_notes: 1 << 16 };
    let (outbox, _) = open_within(place.options(), limits, DamagePolicy::Repair).unwrap();
    let mut taken = 0;
    let refused = loop {
        match outbox.append(bulky(taken + 1)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full(FullReason::FileSize)));
    assert!(taken > 5, "{taken} entries");
    // Notes and entries have separate room.
    outbox.append_audit(not_identified(0)).await.unwrap();

    for number in 1..=i64::from(taken) {
        outbox.save(id(number), Stage::Sent(decision(1))).await.unwrap();
        outbox.settle(id(number), end(Outcome::Updated)).await.unwrap();
    }
    outbox.append(bulky(1)).await.unwrap();
}

#[tokio::test]
async fn full_disk_refuses_new_entries_until_there_is_room() {
    let place = Place::new();
    // SQLite's own limit has the same error code as a full disk.
    let limits = SizeLimits { max_entries: 1000, soft: u64::MAX, hard: 50 * 4096, max_notes: 0 };
    let (outbox, _) = open_within(place.options(), limits, DamagePolicy::Repair).unwrap();
    let mut taken = 0;
    let refused = loop {
        match outbox.append(bulky(taken + 1)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full(FullReason::Disk)));
    assert_eq!(place.entries().len(), usize::from(taken), "acknowledged and there");

    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    outbox.append(bulky(100)).await.unwrap();
    outbox.close();
    assert_eq!(place.restored().entries.len(), usize::from(taken) - 1);
}

#[tokio::test]
async fn entries_and_lines_fit_their_size_limits() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let size = || std::fs::metadata(place.path()).unwrap().len();
    let checkpoint = || {
        place.sqlite().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    };
    checkpoint();
    let empty = size();
    for number in 1..=200 {
        let stage = Stage::Sent(decision(number));
        outbox.append(AppendRequest { stage, ..append(number) }).await.unwrap();
    }
    checkpoint();
    let full = size();
    assert!((full - empty) / 200 < 2048, "{} bytes an entry", (full - empty) / 200);
    for number in 1..=200 {
        let end = Settlement { decision: Some(decision(number)), ..parked() };
        outbox.settle(id(number.into()), end).await.unwrap();
    }
    checkpoint();
    assert!((size() - full) / 200 < 2048, "{} bytes a line", (size() - full) / 200);
}

#[test]
fn default_size_limits_are_as_documented() {
    let limits = SizeLimits::of(100_000);
    assert_eq!(limits.soft, 100_000 * 2048 + (1 << 30));
    assert_eq!(limits.hard, limits.soft + 100_000 * 2048 + (1 << 20));
    assert_eq!(limits.max_notes, 65_536);
    assert_eq!(SizeLimits::of(usize::MAX).hard, u64::MAX);
}

#[tokio::test]
async fn outbox_with_largest_entry_limit_opens() {
    let place = Place::new();
    let (outbox, _) = open(OutboxOptions { max_entries: usize::MAX, ..place.options() }).unwrap();
    outbox.append(append(1)).await.unwrap();
}

#[tokio::test]
async fn foreign_sqlite_lock_returns_busy() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let other = place.sqlite();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(outbox.append(append(1)).await, Err(StoreError::Busy)));
    other.execute_batch("ROLLBACK").unwrap();
    outbox.append(append(1)).await.unwrap();
}

#[tokio::test]
async fn full_command_queue_refuses_without_blocking() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let (running, is_running) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let stalled = outbox.thread.submit(move |_| {
        running.send(()).unwrap();
        released.recv().unwrap();
        Ok(())
    });
    is_running.recv().unwrap();

    let waiting: Vec<_> =
        (0..thread::QUEUE_CAPACITY).map(|_| outbox.clear_last_seen("Reader".into())).collect();
    assert!(matches!(outbox.append(append(1)).await, Err(StoreError::Busy)));
    release.send(()).unwrap();
    stalled.await.unwrap();
    for reply in waiting {
        reply.await.unwrap();
    }
    outbox.append(append(1)).await.unwrap();
}

#[tokio::test]
async fn closing_finishes_submitted_commands_and_refuses_later_ones() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let clone = outbox.clone();
    let pending: Vec<_> = (1..=20).map(|number| outbox.append(append(number))).collect();
    outbox.close();
    assert!(matches!(clone.append(append(21)).await, Err(StoreError::Closed)));
    for appended in pending {
        appended.await.unwrap();
    }
    assert_eq!(place.restored().entries.len(), 20);
}
