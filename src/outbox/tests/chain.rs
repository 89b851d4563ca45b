//! The chain over the audit lines: complete, or wrong at a reported place.

use crate::domain::{ChainBatch, ChainFault, ChainFaultKind};

use super::super::hash_chain::{self, HEAD};
use super::super::{row, verify};
use super::*;
use ChainFaultKind::{Changed, Extra, Missing, Restarted};

/// Five lines, a minute apart.
async fn five_lines(place: &Place) {
    let (outbox, _) = place.open();
    for number in 1..=5 {
        outbox.append_audit(not_identified(number * 60)).await.unwrap();
    }
    outbox.close();
}

/// What verifying in batches of this many lines finds.
fn walked(place: &Place, limit: usize) -> ChainBatch {
    let conn = place.sqlite();
    let mut found = verify::verify_batch(&conn, None, limit).unwrap();
    while let Some(next) = found.next.take() {
        let after = next.parse().unwrap();
        let mut piece = verify::verify_batch(&conn, Some(&after), limit).unwrap();
        found.lines += piece.lines;
        found.faults.append(&mut piece.faults);
        (found.head, found.next) = (piece.head, piece.next);
    }
    found
}

/// The faults, whatever the size of the batches.
fn faults(place: &Place) -> Vec<ChainFault> {
    let found = walked(place, 1000).faults;
    for limit in 1..=6 {
        assert_eq!(walked(place, limit).faults, found, "in batches of {limit}");
    }
    found
}

fn places(place: &Place) -> Vec<(ChainFaultKind, i64, i64)> {
    faults(place).into_iter().map(|fault| (fault.kind, fault.seq, fault.last)).collect()
}

/// Changes the file with `sqlite3`, without the triggers.
fn tamper(place: &Place, sql: &str) {
    let free = "DROP TRIGGER audit_stays; DROP TRIGGER audit_stays_as_written;";
    place.sqlite().execute_batch(&format!("{free}{sql}")).unwrap();
}

/// Computes a line's checksum again, so that only the chain shows the change.
fn write_checksum(place: &Place, seq: i64) {
    let conn = place.sqlite();
    let sql = "SELECT seq, at, outcome, card, entry, line FROM audit WHERE seq = ?";
    let cells: Vec<rusqlite::types::Value> = conn
        .query_row(sql, [seq], |row| (0..6).map(|i| row.get(i)).collect::<Result<_, _>>())
        .unwrap();
    let checksum = row::checksum("audit", cells.iter().map(rusqlite::types::ValueRef::from));
    let sql = "UPDATE audit SET seal = ? WHERE seq = ?";
    conn.execute(sql, rusqlite::params![checksum.as_ref(), seq]).unwrap();
}

#[tokio::test]
async fn written_lines_verify() {
    let place = Place::new();
    place.open().0.close();
    assert_eq!(places(&place), []);
    five_lines(&place).await;
    assert_eq!(places(&place), []);
    let whole = walked(&place, 1000);
    assert_eq!((whole.lines, whole.head.unwrap().seq), (5, 5));
}

#[tokio::test]
async fn changed_line_alone_is_reported_with_number_and_time() {
    for change in [
        "UPDATE audit SET line = replace(line, 'mute', 'busy') WHERE seq = 3",
        "UPDATE audit SET at = '2020-01-01T00:00:00.000000000Z' WHERE seq = 3",
        "UPDATE audit SET outcome = 'updated' WHERE seq = 3",
        "UPDATE audit SET card = 'x' WHERE seq = 3",
        "UPDATE audit SET entry = 7 WHERE seq = 3",
        "UPDATE audit SET seal = zeroblob(32) WHERE seq = 3",
        "UPDATE audit SET chain = 'x' WHERE seq = 3",
        "UPDATE audit SET chain = (SELECT chain FROM audit WHERE seq = 2) WHERE seq = 3",
    ] {
        let place = Place::new();
        five_lines(&place).await;
        tamper(&place, change);
        assert_eq!(places(&place), [(Changed, 3, 3)], "{change}");
    }
    let place = Place::new();
    five_lines(&place).await;
    tamper(&place, "UPDATE audit SET line = replace(line, 'mute', 'busy') WHERE seq = 3");
    let fault = faults(&place).pop().unwrap().to_string();
    let at = at(180);
    assert_eq!(fault, format!("line 3 ({at}): was modified or moved: its checksum is wrong"));
}

#[tokio::test]
async fn changed_line_with_recomputed_checksum_is_reported() {
    for seq in 1..=5 {
        let place = Place::new();
        five_lines(&place).await;
        let sql = "UPDATE audit SET line = replace(line, 'mute', 'busy') WHERE seq = ";
        tamper(&place, &format!("{sql}{seq}"));
        write_checksum(&place, seq);
        assert_eq!(places(&place), [(Changed, seq, seq)]);
    }
}

#[tokio::test]
async fn removed_lines_are_reported_at_every_place() {
    for (first, last) in [(1, 1), (1, 2), (3, 3), (2, 4), (5, 5), (4, 5), (1, 5)] {
        let place = Place::new();
        five_lines(&place).await;
        tamper(&place, &format!("DELETE FROM audit WHERE seq BETWEEN {first} AND {last}"));
        assert_eq!(places(&place), [(Missing, first, last)]);
    }
}

#[tokio::test]
async fn renumbered_lines_after_removal_are_reported() {
    let place = Place::new();
    five_lines(&place).await;
    tamper(&place, "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4");
    write_checksum(&place, 3);
    assert_eq!(places(&place), [(Changed, 3, 3), (Missing, 4, 4)]);
}

#[tokio::test]
async fn swapped_lines_are_reported_with_and_without_new_checksums() {
    let swap = "UPDATE audit SET seq = 9 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3; \
                UPDATE audit SET seq = 3 WHERE seq = 9";
    let place = Place::new();
    five_lines(&place).await;
    tamper(&place, swap);
    // The next line after them does not follow from the line that is before it now.
    assert_eq!(places(&place), [(Changed, 2, 2), (Changed, 3, 3), (Changed, 4, 4)]);
    write_checksum(&place, 2);
    write_checksum(&place, 3);
    assert_eq!(places(&place), [(Changed, 2, 2), (Changed, 3, 3), (Changed, 4, 4)]);
}

#[tokio::test]
async fn extra_line_and_moved_head_are_reported() {
    let place = Place::new();
    five_lines(&place).await;
    let more = "INSERT INTO audit SELECT 6, at, outcome, card, entry, line, seal, chain \
                FROM audit WHERE seq = 5";
    tamper(&place, more);
    assert!(places(&place).contains(&(Extra, 6, 6)));

    let place = Place::new();
    five_lines(&place).await;
    place.sqlite().execute_batch("UPDATE chain SET seq = 4 WHERE place = 'head'").unwrap();
    assert_eq!(places(&place), [(ChainFaultKind::Boundary, 5, 5)], "its checksum is wrong");
    place.sqlite().execute_batch("DELETE FROM chain WHERE place = 'head'").unwrap();
    assert_eq!(places(&place), [(ChainFaultKind::Boundary, 5, 5)]);
}

#[tokio::test]
async fn migration_chains_lines_of_version_1() {
    let place = fixture::copy_of(1);
    place.open().0.close();
    assert_eq!(places(&place), []);
    assert!(walked(&place, 1000).lines > 0);

    // A line that was missing before is still missing.
    let place = fixture::copy_of(1);
    let free = "DROP TRIGGER audit_stays; DELETE FROM audit WHERE seq = 2; \
                CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN SELECT 1; END";
    place.sqlite().execute_batch(free).unwrap();
    place.open().0.close();
    assert_eq!(places(&place), [(Missing, 2, 2)]);
}

#[tokio::test]
async fn pruning_deletes_old_lines_and_the_rest_verifies() {
    let place = Place::new();
    five_lines(&place).await;
    let (outbox, _) = place.open();
    // Counted from the newest line, at second 300: older than 130 s are those of 60 and 120.
    let keep = Duration::from_secs(130);
    assert_eq!(prune_all(&outbox, keep, at(310)).await, 2);
    outbox.append_audit(not_identified(360)).await.unwrap();
    outbox.close();
    assert_eq!(places(&place), []);
    let whole = walked(&place, 1000);
    assert_eq!((whole.lines, whole.anchor.unwrap().seq, whole.head.unwrap().seq), (4, 2, 6));

    tamper(&place, "DELETE FROM audit WHERE seq = 3");
    assert_eq!(places(&place), [(Missing, 3, 3)], "beyond what was pruned");
}

#[tokio::test]
async fn restored_pruned_line_is_reported() {
    let place = Place::new();
    five_lines(&place).await;
    place.sqlite().execute_batch("CREATE TABLE keep AS SELECT * FROM audit").unwrap();
    let (outbox, _) = place.open();
    prune_all(&outbox, Duration::from_secs(130), at(310)).await;
    outbox.close();
    place.sqlite().execute_batch("INSERT INTO audit SELECT * FROM keep WHERE seq = 2").unwrap();
    assert_eq!(places(&place), [(Extra, 2, 2)]);
}

#[tokio::test]
async fn jumping_clock_prunes_nothing() {
    let place = Place::new();
    five_lines(&place).await;
    let (outbox, _) = place.open();
    let keep = Duration::from_hours(24);
    for now in [at(i64::from(u32::MAX)), at(-100_000_000)] {
        assert_eq!(outbox.prune(keep, now).await.unwrap(), 0);
    }
    assert_eq!(outbox.prune(Duration::MAX, at(310)).await.unwrap(), 0);
}

#[tokio::test]
async fn lines_after_one_of_a_stored_entry_are_kept() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append(append(2)).await.unwrap();
    outbox.settle(id(2), Settlement { at: at(10), ..end(Outcome::Updated) }).await.unwrap();
    outbox.settle(id(1), Settlement { at: at(20), ..parked() }).await.unwrap();
    outbox.append_audit(not_identified(1000)).await.unwrap();
    let keep = Duration::from_secs(100);
    assert_eq!(outbox.prune(keep, at(1000)).await.unwrap(), 1, "the parked one's line is kept");
    outbox.settle(id(1), Settlement { at: at(1000), ..end(Outcome::Discarded) }).await.unwrap();
    assert_eq!(outbox.prune(keep, at(1000)).await.unwrap(), 1);
    assert_eq!(places(&place), []);
}

#[tokio::test]
async fn pruning_batches_are_complete_after_a_kill() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let lines = i64::try_from(verify::PRUNE_BATCH * 2 + 10).unwrap();
    let notes: Vec<_> =
        (1..=lines).map(|number| outbox.append_audit(not_identified(number))).collect();
    for note in notes {
        note.await.unwrap();
    }
    outbox.append_audit(not_identified(1_000_000)).await.unwrap();
    let mut pruned = 0;
    loop {
        let keep = Duration::from_secs(1000);
        let batch = outbox
            .thread
            .submit(move |store| store.prune(keep, at(1_000_000), verify::PRUNE_BATCH));
        let batch = batch.await.unwrap();
        pruned += i64::try_from(batch).unwrap();
        // What is on disk now is what a kill leaves behind.
        let killed = Place::new();
        for suffix in ["", "-wal"] {
            let to = files::sibling_path(&killed.path(), suffix);
            std::fs::copy(files::sibling_path(&place.path(), suffix), to).unwrap();
        }
        let found = walked(&killed, 1000);
        assert_eq!(found.faults, []);
        assert_eq!(found.anchor.unwrap().seq, pruned);
        if batch == 0 {
            break;
        }
        assert!(batch <= verify::PRUNE_BATCH);
    }
    assert_eq!(pruned, lines);
}

#[tokio::test]
async fn interrupted_pruning_batch_deletes_nothing() {
    let place = Place::new();
    five_lines(&place).await;
    let stop = "CREATE TRIGGER stop BEFORE DELETE ON audit WHEN OLD.seq = 2 \
                BEGIN SELECT raise(ABORT, 'stopped'); END";
    place.sqlite().execute_batch(stop).unwrap();
    let (outbox, _) = place.open();
    let batch = |most| {
        let keep = Duration::from_secs(130);
        outbox.thread.submit(move |store| store.prune(keep, at(310), most))
    };
    assert!(batch(5).await.is_err());
    assert_eq!(places(&place), []);
    place.sqlite().execute_batch("DROP TRIGGER stop").unwrap();
    assert_eq!(batch(5).await.unwrap(), 2);
}

#[tokio::test]
async fn pruning_makes_room_in_a_full_file() {
    let place = Place::new();
    let limits = SizeLimits { max_entries: 1000, soft: 40 * 4096, hard: 60 * 4096, max_notes: 60 };
    let (outbox, _) = open_within(place.options(), limits, DamagePolicy::Repair).unwrap();
    let mut second = 0;
    while outbox.append_audit(not_identified(second)).await.is_ok() {
        second += 1;
    }
    assert!(second > 50, "{second} lines");
    assert!(prune_all(&outbox, Duration::from_secs(10), at(second)).await > 40);
    outbox.append_audit(not_identified(second)).await.unwrap();
    outbox.close();
    assert_eq!(places(&place), []);
}

#[tokio::test]
async fn chain_break_line_is_reported_as_restart() {
    let place = Place::new();
    five_lines(&place).await;
    let (outbox, _) = place.open();
    let line = AuditLine { kind: crate::domain::AuditKind::ChainBreak, ..not_identified(400) };
    outbox.append_audit(line).await.unwrap();
    outbox.close();
    assert_eq!(places(&place), [(Restarted, 6, 6)]);
}

#[tokio::test]
async fn append_after_damaged_head_is_lost() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append_audit(not_identified(1)).await.unwrap();
    let other = place.sqlite();
    other.execute_batch("UPDATE chain SET seq = 7 WHERE place = 'head'").unwrap();
    assert!(matches!(outbox.append_audit(not_identified(2)).await, Err(StoreError::Lost(_))));
    assert!(hash_chain::end(&other, HEAD).unwrap().is_err());
}

#[tokio::test]
async fn head_is_logged_every_thousand_lines() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let other = place.sqlite();
    let mut heads = hash_chain::HeadLog::new(&other).unwrap();
    let mut logged = Vec::new();
    for batch in [1, 997, 1, 1, 1, 998, 3] {
        let notes: Vec<_> =
            (0..batch).map(|number| outbox.append_audit(not_identified(number))).collect();
        for note in notes {
            note.await.unwrap();
        }
        logged.push(heads.on_commit(&other));
    }
    // 1, 998, 999, 1000, 1001, 1999, 2002
    assert_eq!(logged, [false, false, false, true, false, false, true]);
}

#[tokio::test]
async fn page_has_chain_hash_of_each_line() {
    let place = Place::new();
    five_lines(&place).await;
    let (outbox, _) = place.open();
    let page = outbox.audit(AuditFilter::default()).await.unwrap();
    let positions: Vec<_> = page.lines.iter().map(|it| (it.seq, it.chain.clone())).collect();
    assert_eq!(positions.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for (seq, chain) in positions {
        assert_eq!(outbox.mark(seq).await.unwrap().unwrap().hash, chain);
        let reading = open_read_only(&place.path()).unwrap();
        assert_eq!(reading.mark(seq).unwrap().unwrap().hash, chain);
    }
    assert_eq!(outbox.mark(6).await.unwrap(), None);
    assert_eq!(outbox.mark(0).await.unwrap(), None);
}
