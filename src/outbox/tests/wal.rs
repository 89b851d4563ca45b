//! A damaged write-ahead log: nothing is lost, or the loss is reported; and what a kill or a power cut
//! leaves is no damage.

use std::fs;

use crate::domain::{AuditKind, ChainFaultKind};

use super::super::store::Store;
use super::super::wal;
use super::recovery::{each, in_memory};
use super::*;

/// The outbox's files at one moment, as a kill at that moment leaves them.
#[derive(Clone)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Files {
    fn of(place: &Place) -> Self {
        let read = |suffix| fs::read(files::sibling_path(&place.path(), suffix)).unwrap();
        Self { database: read(""), log: read("-wal"), index: Some(read("-shm")) }
    }

    fn without_index(&self) -> Self {
        Self { index: None, ..self.clone() }
    }

    /// As after a power cut, which takes what was not synced.
    fn with_lost_index(&self) -> Self {
        Self { index: Some(vec![0; 32768]), ..self.clone() }
    }

    fn place(&self) -> Place {
        let place = in_memory();
        let write = |suffix, bytes: &[u8]| {
            fs::write(files::sibling_path(&place.path(), suffix), bytes).unwrap();
        };
        write("", &self.database);
        write("-wal", &self.log);
        if let Some(index) = &self.index {
            write("-shm", index);
        }
        place
    }

    fn damage(&self) -> Option<String> {
        wal::check(&self.place().path()).err().map(|error| {
            let OpenError::Lost(cause) = error else { panic!("{error}") };
            cause.to_string()
        })
    }

    fn restored(&self) -> OutboxContents {
        self.place().restored()
    }
}

/// The insertions that were stored.
fn written(number: u8) -> CardEvent {
    CardEvent { reader: format!("Reader {number}").as_str().into(), ..card_event(number) }
}

/// An outbox whose log has several transactions, of one and of many pages, and what it holds: after
/// the last transaction, and before it.
async fn killed() -> [(Files, OutboxContents); 2] {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=6 {
        outbox
            .append(AppendRequest { card_event: written(number), ..append(number) })
            .await
            .unwrap();
    }
    outbox.save(id(1), Stage::Sent(decision(1))).await.unwrap();
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    outbox.settle(id(2), parked()).await.unwrap();
    outbox.append_audit(not_identified(9)).await.unwrap();
    let before = Files::of(&place);
    outbox.append(AppendRequest { card_event: written(7), ..append(7) }).await.unwrap();
    let after = Files::of(&place);
    outbox.close();
    let [before, after] = [before, after].map(|files| (files.clone(), files.restored()));
    assert_eq!((after.1.entries.len(), after.1.latest.len()), (6, 3));
    assert_eq!(before.1.entries.len(), 5);
    [before, after]
}

/// Opens damaged files: everything is there, or a possible loss is reported.
fn nothing_is_lost_unreported(files: &Files, whole: &OutboxContents, what: &str) -> &'static str {
    let place = files.place();
    let (store, restored) =
        Store::open(&place.options(), SizeLimits::of(1000), DamagePolicy::Repair).unwrap();
    let OutboxContents { entries, latest, damaged, repaired: report, .. } = restored;
    let known = |entry: &Entry| (1..=7).any(|number| written(number) == entry.card_event);
    assert!(entries.iter().all(known), "{what}: an entry was invented");
    let lines: Vec<_> = latest.iter().filter(|line| line.kind != AuditKind::ChainBreak).collect();
    assert!(lines.iter().all(|line| whole.latest.contains(line)), "{what}: a line was invented");
    let all = entries == whole.entries && lines.len() == whole.latest.len();
    let faults = verify::verify_batch(store.conn(), None, 1000).unwrap().faults;
    store.close();
    let reported = report.is_some() && faults.iter().any(|f| f.kind == ChainFaultKind::Restarted);
    assert!(reported || all && damaged.is_empty(), "{what}: a loss is not reported");
    match (reported, all) {
        (true, true) => "reported, and nothing is lost",
        (true, false) => "reported",
        (false, _) => "harmless",
    }
}

/// The headers, and some of the rest; ten times as much of it where `EVERY_BYTE` is set.
fn chosen(length: usize, one_in: usize) -> Vec<usize> {
    let one_in =
        if std::env::var_os("EVERY_BYTE").is_some() { one_in.div_ceil(10) } else { one_in };
    let header =
        |at: usize| at < 32 || (at - 32) % 4120 < 24 && ((at - 32) / 4120).is_multiple_of(7);
    (0..length).filter(|at| header(*at) || at.is_multiple_of(one_in)).collect()
}

#[tokio::test]
async fn every_flipped_byte_of_wal_is_damage() {
    let [_, (files, _)] = killed().await;
    let bits = [0x01_u8, 0x80, 0xff, 0x10];
    for files in [files.clone(), files.without_index()] {
        let all = std::env::var_os("EVERY_BYTE").is_some();
        let cases = chosen(files.log.len(), if all { 1 } else { 499 });
        each(&cases, |at| {
            let mut files = files.clone();
            files.log[at] ^= bits[at % bits.len()];
            assert!(files.damage().is_some(), "byte {at}");
            "noticed"
        });
    }
}

#[tokio::test]
async fn flipped_byte_damages_its_frame_alone() {
    let [_, (files, _)] = killed().await;
    for offset in [16, 200] {
        for frame in 0..files.log.len() / 4120 {
            let mut files = files.clone();
            files.log[32 + frame * 4120 + offset] ^= 1;
            let log = wal::Wal::read(&files.place().path()).unwrap();
            let damaged = log.frames().filter(|(_, frame)| !frame.intact);
            assert_eq!(damaged.map(|(number, _)| number).collect::<Vec<_>>(), [frame]);
        }
    }
}

#[tokio::test]
async fn flipped_bytes_of_wal_lose_nothing_unreported() {
    let [_, (files, whole)] = killed().await;
    let bits = [0x01_u8, 0x80, 0xff, 0x10];
    for files in [files.clone(), files.without_index()] {
        let cases = chosen(files.log.len(), 1499);
        let counts = each(&cases, |at| {
            let mut files = files.clone();
            files.log[at] ^= bits[at % bits.len()];
            nothing_is_lost_unreported(&files, &whole, &format!("byte {at}"))
        });
        let reported: usize = counts.values().sum::<usize>() - counts.get("harmless").unwrap_or(&0);
        let saved = counts["reported, and nothing is lost"];
        assert!(reported * 100 >= cases.len() * 99, "{counts:?} of {}", cases.len());
        assert!(saved * 10 >= reported * 8, "{counts:?}: little is saved");
    }
}

#[tokio::test]
async fn zeroed_sectors_and_pages_of_wal_lose_nothing_unreported() {
    let [_, (files, whole)] = killed().await;
    for size in [4096, 4120, 12_288] {
        let cases: Vec<_> = (0..files.log.len()).step_by(size).collect();
        each(&cases, |at| {
            let mut files = files.clone();
            let end = (at + size).min(files.log.len());
            files.log[at..end].fill(0);
            nothing_is_lost_unreported(&files, &whole, &format!("{size} bytes at {at}"))
        });
    }
}

#[tokio::test]
async fn truncated_wal_of_killed_daemon_loses_nothing_unreported() {
    let [_, (files, whole)] = killed().await;
    let cases = chosen(files.log.len(), 3989);
    let counts = each(&cases, |length| {
        let mut files = files.clone();
        files.log.truncate(length);
        nothing_is_lost_unreported(&files, &whole, &format!("cut to {length}"))
    });
    assert_eq!(counts.get("harmless"), None, "{counts:?}");
    let place = files.place();
    fs::remove_file(files::sibling_path(&place.path(), "-wal")).unwrap();
    assert!(place.restored().repaired.is_some(), "a missing log is reported");
}

#[tokio::test]
async fn unacknowledged_transaction_is_no_damage() {
    let [(before, held), (after, whole)] = killed().await;
    let (start, end) = (before.log.len(), after.log.len());
    assert!(after.log.starts_with(&before.log) && end > start);
    // A kill: the last transaction was written in order, and not to its end.
    for length in (start..=end).filter(|length| length % 509 < 2 || *length == end) {
        let files = Files { log: after.log[..length].to_vec(), ..before.clone() };
        assert_eq!(files.damage(), None, "cut to {length}");
        let restored = files.restored();
        assert_eq!(restored, if length == end { whole.clone() } else { held.clone() });
    }
    // A power cut: any of its sectors did not arrive, and the index is old or lost.
    for sector in start / 512..end.div_ceil(512) {
        let mut torn = Files { log: after.log.clone(), ..before.clone() };
        let (from, to) = ((sector * 512).max(start), ((sector + 1) * 512).min(end));
        torn.log[from..to].fill(0);
        for files in [torn.clone(), torn.with_lost_index()] {
            assert_eq!(files.damage(), None, "sector {sector}");
            let restored = files.restored();
            assert!(restored == held || restored == whole, "sector {sector}");
        }
    }
}

#[tokio::test]
async fn broken_transaction_before_another_is_damage_without_index() {
    let [_, (files, _)] = killed().await;
    let mut files = files.with_lost_index();
    files.log[32 + 100] ^= 1;
    assert!(files.damage().is_some());
}

#[tokio::test]
async fn starts_after_stop_and_kill_find_no_damage() {
    let place = Place::new();
    for number in 1..=30 {
        let (outbox, restored) = place.open();
        assert_eq!((restored.repaired, restored.damaged), (None, vec![]));
        outbox.append(append(number)).await.unwrap();
        outbox.settle(id(number.into()), end(Outcome::Updated)).await.unwrap();
        let killed = Files::of(&place);
        assert_eq!((killed.damage(), killed.without_index().damage()), (None, None));
        assert_eq!(killed.with_lost_index().damage(), None);
        if number % 3 == 0 {
            // The next start is that of a killed daemon's files.
            outbox.close();
            for (suffix, bytes) in [("", &killed.database), ("-wal", &killed.log)] {
                fs::write(files::sibling_path(&place.path(), suffix), bytes).unwrap();
            }
            fs::write(files::sibling_path(&place.path(), "-shm"), killed.index.unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn idle_outbox_empties_wal() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let log = files::sibling_path(&place.path(), "-wal");
    assert!(log.metadata().unwrap().len() > 0);
    let start = std::time::Instant::now();
    while log.metadata().unwrap().len() > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the log is not emptied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(wal::check(&place.path()).map_err(|error| error.to_string()), Ok(()));
    outbox.append(append(2)).await.unwrap();
    let killed = Files::of(&place);
    assert_eq!(killed.restored().entries.len(), 2);
    outbox.close();
}

#[tokio::test]
async fn wal_is_emptied_once_another_program_stops_reading() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let reading = place.sqlite();
    reading.execute_batch("BEGIN; SELECT count(*) FROM entry").unwrap();
    outbox.append(append(2)).await.unwrap();
    let tidied = outbox.thread.submit(|store| Ok(database::empty_wal(store.conn())));
    assert!(tidied.await.unwrap(), "another program reads");
    let log = files::sibling_path(&place.path(), "-wal");
    // Longer than until the first try.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(log.metadata().unwrap().len() > 0);
    drop(reading);
    let start = std::time::Instant::now();
    while log.metadata().unwrap().len() > 0 {
        assert!(start.elapsed() < Duration::from_mins(1), "the log is not emptied");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    outbox.close();
}

#[tokio::test]
async fn checkpointed_page_replaces_its_damaged_image() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=6 {
        outbox
            .append(AppendRequest { card_event: written(number), ..append(number) })
            .await
            .unwrap();
    }
    // Another program reads the newest state: the log is moved into the file, and not emptied.
    let reading = place.sqlite();
    reading.execute_batch("BEGIN; SELECT count(*) FROM entry").unwrap();
    let tidied = outbox.thread.submit(|store| Ok(database::empty_wal(store.conn())));
    assert!(tidied.await.unwrap());
    let files = Files::of(&place);
    drop(reading);
    outbox.close();
    let whole = files.restored();
    assert_eq!(whole.entries.len(), 6);
    let damages: Vec<_> = (0..files.log.len() / 4120).collect();
    each(&damages, |frame| {
        let mut files = files.clone();
        files.log[32 + frame * 4120 + 24..][..4096].fill(0xa5);
        let restored = files.restored();
        assert_eq!(restored.entries, whole.entries, "frame {frame}");
        if restored.repaired.is_some() { "reported" } else { "harmless" }
    });
}

#[tokio::test]
async fn reading_reports_damaged_wal_and_changes_nothing() {
    let [_, (mut files, _)] = killed().await;
    files.log[32 + 100] ^= 1;
    let place = files.place();
    assert!(matches!(open_read_only(&place.path()), Err(OpenError::Lost(_))));
    assert!(matches!(open_stopped(place.options()), Err(OpenError::Lost(_))));
    // Reading has not hidden the damage.
    assert!(place.restored().repaired.is_some());
}

/// A log of another program's database.
fn log_of_another_program() -> Vec<u8> {
    let place = Place::new();
    let conn = place.sqlite();
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)";
    conn.execute_batch(sql).unwrap();
    Files::of(&place).log
}

#[tokio::test]
async fn wal_of_another_file_is_damage_and_not_applied() {
    let [_, (another, _)] = killed().await;
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let older = Files::of(&place).log;
    outbox.close();
    let logs = [another.log, log_of_another_program(), older];
    for (settled, logs) in [(false, &logs[..2]), (true, &logs[..])] {
        let (outbox, whole) = place.open();
        outbox.append(append(2)).await.unwrap();
        if settled {
            outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
        }
        let own = Files::of(&place);
        outbox.close();
        // What a kill leaves is not taken for another's.
        let restored = own.place().restored();
        assert_eq!((restored.entries.len(), restored.repaired), (2, None));
        for log in logs {
            let files = Files { log: log.clone(), ..own.clone() };
            for files in [files.clone(), files.without_index()] {
                let place = files.place();
                assert!(matches!(open_read_only(&place.path()), Err(OpenError::Lost(_))));
                let restored = place.restored();
                let report = restored.repaired.unwrap();
                assert!(report.to_string().contains("that of another file"), "{report}");
                assert_eq!(restored.entries, whole.entries);
            }
        }
    }
}

#[tokio::test]
async fn half_checkpointed_wal_is_not_taken_for_anothers() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=8 {
        outbox
            .append(AppendRequest { card_event: written(number), ..append(number) })
            .await
            .unwrap();
    }
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    let tidied = outbox.thread.submit(|store| Ok(database::empty_wal(store.conn())));
    assert!(!tidied.await.unwrap(), "no other program reads");
    let before = Files::of(&place).database;
    outbox.settle(id(8), end(Outcome::Updated)).await.unwrap();
    outbox.settle(id(7), parked()).await.unwrap();
    outbox.append(append(9)).await.unwrap();
    let files = Files::of(&place).with_lost_index();
    outbox.close();
    let after = fs::read(place.path()).unwrap();
    let whole = files.restored();
    assert_eq!((whole.entries.len(), whole.repaired.clone()), (7, None));
    let cases: Vec<_> = (0..before.len() / 4096).collect();
    each(&cases, |page| {
        let (start, end) = (page * 4096, (page + 1) * 4096);
        let one = [&before[..start], &after[start..end], &before[end..]].concat();
        let others = [&after[..start], &before[start..end], &after[end..]].concat();
        let rest = [&after[..end], &before[end..]].concat();
        for database in [one, others, rest] {
            let files = Files { database, ..files.clone() };
            assert_eq!(files.restored(), whole, "page {page}");
        }
        "whole"
    });
}

#[tokio::test]
async fn kill_while_wal_is_emptied_is_no_damage() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let full = Files::of(&place);
    let tidied = outbox.thread.submit(|store| Ok(database::empty_wal(store.conn())));
    assert!(!tidied.await.unwrap(), "no other program reads");
    let empty = Files::of(&place);
    outbox.close();
    assert!(empty.log.is_empty());
    let killed = Files { log: full.log, ..empty }.place();
    assert_eq!(killed.restored().repaired, None);
}

#[tokio::test]
async fn own_wal_after_kill_is_not_taken_for_anothers() {
    let place = Place::new();
    for number in 1..=30 {
        let (outbox, restored) = place.open();
        assert_eq!((restored.repaired, restored.entries.len()), (None, usize::from(number) - 1));
        outbox.append(append(number)).await.unwrap();
        if number % 2 == 0 {
            drop(outbox.thread.submit(|store| Ok(database::empty_wal(store.conn()))));
        }
        if number % 3 == 0 {
            outbox.save(id(number.into()), Stage::Sent(decision(number))).await.unwrap();
        }
        let killed = Files::of(&place);
        outbox.close();
        for (suffix, bytes) in [("", &killed.database), ("-wal", &killed.log)] {
            fs::write(files::sibling_path(&place.path(), suffix), bytes).unwrap();
        }
        fs::write(files::sibling_path(&place.path(), "-shm"), killed.index.unwrap()).unwrap();
    }
}
