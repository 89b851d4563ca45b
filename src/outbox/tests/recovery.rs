//! Recovery of damaged files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::domain::{AuditKind, ChainFaultKind};

use super::super::store::Store;
use super::super::verify;
use super::damage::two_entries;
use super::*;

/// The files in the place that begin like this, by name.
fn files(place: &Place, start: &str) -> Vec<String> {
    let names = fs::read_dir(place.dir.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

fn broken(place: &Place) -> Vec<String> {
    let piece = verify::verify_batch(&place.sqlite(), None, 1000).unwrap();
    let broken = piece.faults.into_iter().filter(|fault| fault.kind == ChainFaultKind::Restarted);
    broken.map(|fault| fault.detail).collect()
}

#[test]
fn file_that_is_no_database_is_set_aside_and_reported() {
    let place = Place::new();
    fs::write(place.path(), "x".repeat(5000)).unwrap();
    let restored = place.restored();
    let report = restored.repaired.unwrap();
    assert_eq!(fs::read(report.set_aside.as_ref().unwrap()).unwrap(), "x".repeat(5000).as_bytes());
    assert_eq!(files(&place, "outbox.db.d"), ["outbox.db.damaged-20231114T221410Z"]);
    assert_eq!((report.entries, report.lines, report.last_seen, report.damaged), (0, 0, 0, 0));
    assert_eq!(restored.latest[0].kind, AuditKind::ChainBreak);
    assert_eq!(broken(&place), [report.to_string()]);
    // It is reported once.
    assert_eq!(place.restored().repaired, None);
}

#[test]
fn empty_file_is_damage_and_missing_file_is_not() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    assert!(place.restored().repaired.is_some());
    assert_eq!(Place::new().restored().repaired, None);
}

#[tokio::test]
async fn readable_rows_of_damaged_file_are_recovered() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=40 {
        let reader = format!("Reader {number}").as_str().into();
        let card_event = CardEvent { reader, ..card_event(number) };
        outbox.append(AppendRequest { card_event, ..append(number) }).await.unwrap();
        outbox.append_audit(not_identified(number.into())).await.unwrap();
    }
    outbox.close();
    let whole = place.restored();
    let mut bytes = fs::read(place.path()).unwrap();
    // A leaf of the table of entries: with some of them, and not with the first and the last.
    let entry = br#""Reader 20","label""#;
    let middle = bytes.windows(entry.len()).position(|part| part == entry).unwrap();
    let page = middle / database::PAGE * database::PAGE;
    bytes[page..page + 8].fill(0xff);
    fs::write(place.path(), &bytes).unwrap();

    let (outbox, restored) = place.open();
    let report = restored.repaired.clone().unwrap();
    let numbers: Vec<_> = restored.entries.iter().map(|entry| entry.id.number()).collect();
    assert!(numbers.contains(&1) && numbers.contains(&40), "{numbers:?}");
    assert!((30..40).contains(&numbers.len()), "{numbers:?}");
    assert!(restored.entries.iter().all(|entry| whole.entries.contains(entry)));
    assert_eq!(report.entries, numbers.len() as u64);
    assert_eq!(report.lines, 40);
    // A card whose entry is lost is new.
    assert_eq!(restored.last_seen.len(), numbers.len());
    // It is a working outbox, and its trail continues.
    assert_eq!(outbox.append(append(41)).await.unwrap().entry, id(41));
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    outbox.close();
    assert_eq!(broken(&place), [report.to_string()]);
    assert_eq!(
        fs::read(report.set_aside.unwrap()).unwrap(),
        bytes,
        "the damaged file is not changed"
    );
}

/// Where the rows of the page begin, in the order of their numbers.
fn row_places(page: &[u8]) -> Vec<usize> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    (0..number(3)).map(|row| number(8 + 2 * row)).collect()
}

#[tokio::test]
async fn rows_between_unreadable_ones_are_recovered() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=12 {
        outbox.append(append(number)).await.unwrap();
    }
    outbox.close();
    let whole = place.restored();
    let mut bytes = fs::read(place.path()).unwrap();
    let leaf = |page: &&mut [u8]| page[0] == 0x0d && row_places(page).len() >= 3;
    let mut lost = 0;
    for page in bytes.chunks_mut(database::PAGE).skip(1).filter(leaf) {
        // Every second row is longer than its page, and continues in a page that is not there.
        for start in row_places(page).into_iter().step_by(2) {
            page[start] = 0xff;
            lost += 1;
        }
    }
    bytes[24..32].fill(0xff);
    fs::write(place.path(), &bytes).unwrap();
    let restored = place.restored();
    assert!(restored.repaired.is_some() && lost >= 4);
    assert_eq!(restored.entries.len(), whole.entries.len() - lost, "{lost} cannot be read");
}

#[tokio::test]
async fn line_with_unreadable_hash_is_recovered() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for second in 1..=3 {
        outbox.append_audit(not_identified(second)).await.unwrap();
    }
    outbox.close();
    let chain = place
        .sqlite()
        .query_row("SELECT chain FROM audit WHERE seq = 2", [], |row| row.get::<_, String>(0));
    let chain = chain.unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    let found = bytes.windows(64).position(|part| part == chain.as_bytes()).unwrap();
    for damage in [0x80, 0xff] {
        bytes[found + 5] = damage;
        let place = in_memory();
        fs::write(place.path(), &bytes).unwrap();
        let (outbox, restored) = place.open();
        assert_eq!(restored.repaired, None, "a single line is no reason for a repair");
        let mark = outbox.mark(2).await.unwrap().unwrap();
        assert_ne!(mark.hash, chain);
        prune_all(&outbox, Duration::ZERO, at(3)).await;
        outbox.close();

        let place = in_memory();
        let torn = [&vec![0; database::PAGE][..], &bytes[database::PAGE..]].concat();
        fs::write(place.path(), torn).unwrap();
        let restored = place.restored();
        assert_eq!(restored.repaired.unwrap().lines, 3);
        assert_eq!(restored.latest.len(), 4);
    }
}

#[tokio::test]
async fn rows_are_recovered_without_schema_and_root() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=40 {
        outbox.append(append(number)).await.unwrap();
    }
    outbox.close();
    let whole = place.restored();
    let mut bytes = fs::read(place.path()).unwrap();
    let conn = place.sqlite();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'entry'";
    let root: u32 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(conn);
    // Its tables cannot be found either.
    for page in [1, root as usize] {
        bytes[(page - 1) * database::PAGE..page * database::PAGE].fill(0xa5);
    }
    fs::write(place.path(), &bytes).unwrap();
    let restored = place.restored();
    assert_eq!((restored.entries, restored.last_seen), (whole.entries, whole.last_seen));
    assert!(restored.repaired.is_some());
}

/// The sizes of what is left in a page of a row that is longer than it have steps and bounds.
#[tokio::test]
async fn rows_of_every_length_are_recovered() {
    let place = in_memory();
    let (outbox, _) = place.open();
    let mut replies = Vec::new();
    for length in (3000..4300).chain([8_000, 12_345, 100_000]) {
        let line = AuditLine { detail: "x".repeat(length), ..not_identified(1) };
        replies.push(outbox.append_audit(line));
        if replies.len() == 500 {
            for reply in replies.drain(..) {
                reply.await.unwrap();
            }
        }
    }
    for reply in replies {
        reply.await.unwrap();
    }
    // Rows of the table of readers, which has another layout, have each name twice.
    for length in 50..500 {
        let reader = "r".repeat(length).as_str().into();
        let card_event = CardEvent { reader, ..card_event(1) };
        outbox.append(AppendRequest { card_event, ..append(1) }).await.unwrap();
    }
    outbox.close();
    let whole = place.restored();
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[..database::PAGE].fill(0);
    fs::write(place.path(), bytes).unwrap();
    let restored = place.restored();
    let repaired = restored.repaired.unwrap();
    assert_eq!((repaired.lines, repaired.entries), (1303, 450));
    assert_eq!((repaired.last_seen, repaired.damaged), (450, 0));
    assert_eq!((restored.entries, restored.last_seen), (whole.entries, whole.last_seen));
}

#[tokio::test]
async fn truncated_file_keeps_rows_of_remaining_pages() {
    let (bytes, whole) = small().await;
    let mut kept = 0;
    for pages in 1..bytes.len() / database::PAGE {
        let left = &bytes[..pages * database::PAGE];
        let place = in_memory();
        fs::write(place.path(), left).unwrap();
        let restored = place.restored();
        for entry in &whole.entries {
            let text = row::instant(entry.card_event.seen_at);
            let is_left = left.windows(text.len()).any(|part| part == text.as_bytes());
            assert_eq!(restored.entries.contains(entry), is_left, "{pages} pages");
            kept += usize::from(is_left);
        }
    }
    assert!(kept > whole.entries.len(), "no truncated file has any");
}

#[tokio::test]
async fn recovery_revives_no_settled_entry_and_reuses_no_id() {
    let place = Place::new();
    two_entries(&place).await;
    let (outbox, _) = place.open();
    outbox.settle(id(2), end(Outcome::Updated)).await.unwrap();
    outbox.close();
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[0] = b'x';
    fs::write(place.path(), bytes).unwrap();
    let (outbox, restored) = place.open();
    assert!(restored.repaired.is_some());
    assert_eq!(restored.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(restored.latest.len(), 2, "the outcome and the chain break");
    assert_eq!(outbox.append(append(3)).await.unwrap().entry, id(3));
}

#[tokio::test]
async fn rows_in_wal_of_damaged_file_are_recovered() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let killed = Place::new();
    for suffix in ["", "-wal"] {
        let to = files::sibling_path(&killed.path(), suffix);
        fs::copy(files::sibling_path(&place.path(), suffix), to).unwrap();
    }
    let mut bytes = fs::read(killed.path()).unwrap();
    bytes[20] ^= 1;
    fs::write(killed.path(), bytes).unwrap();
    let restored = killed.restored();
    assert_eq!((restored.entries.len(), restored.repaired.is_some()), (1, true));
    let aside = files(&killed, "outbox.db.damaged");
    assert!(
        aside.iter().any(|name| name.ends_with("-wal")),
        "the -wal is set aside too: {aside:?}"
    );
}

#[tokio::test]
async fn lines_lost_at_the_end_are_reported_missing() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=60 {
        outbox.append_audit(not_identified(number)).await.unwrap();
    }
    outbox.close();
    let mut bytes = fs::read(place.path()).unwrap();
    let text = at(60).to_string();
    let last = bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    let page = last / database::PAGE * database::PAGE;
    bytes[page..page + 8].fill(0xff);
    fs::write(place.path(), &bytes).unwrap();
    let report = place.restored().repaired.unwrap();
    assert!(report.lines < 60, "{report}");
    let piece = verify::verify_batch(&place.sqlite(), None, 1000).unwrap();
    let kinds: Vec<_> = piece.faults.iter().map(|fault| fault.kind).collect();
    assert!(kinds.contains(&ChainFaultKind::Missing), "{kinds:?}");
    assert_eq!(piece.head.unwrap().seq, 61, "the chain break follows the last line there was");
}

#[tokio::test]
async fn interrupted_move_continues_from_every_step() {
    for step in 0..=3 {
        let place = Place::new();
        two_entries(&place).await;
        let expected = place.restored();
        // The moment after `.ready` was created: it has the content, the old file is still there.
        let path = place.path();
        let ready = files::sibling_path(&path, ".ready");
        fs::copy(&path, &ready).unwrap();
        for suffix in ["-wal", "-shm"] {
            fs::write(files::sibling_path(&path, suffix), "of the damaged one").unwrap();
        }
        fs::write(&path, "damaged").unwrap();
        let stamp = fs::metadata(&ready).unwrap().modified().unwrap();
        let stamp = Timestamp::try_from(stamp).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string();
        let aside = files::sibling_path(&path, &format!(".damaged-{stamp}"));
        for suffix in ["-wal", "-shm", ""].iter().take(step) {
            fs::rename(files::sibling_path(&path, suffix), files::sibling_path(&aside, suffix))
                .unwrap();
        }
        assert_eq!(place.restored(), expected, "after step {step}");
        assert_eq!(fs::read(&aside).unwrap(), b"damaged");
        assert_eq!(files(&place, "outbox.db.damaged").len(), 3);
        assert!(!ready.exists());
    }
}

#[tokio::test]
async fn unfinished_new_files_are_ignored_and_removed() {
    let place = Place::new();
    two_entries(&place).await;
    let expected = place.restored();
    for name in [".new", ".new-wal", ".copy", ".copy-wal"] {
        fs::write(files::sibling_path(&place.path(), name), "half").unwrap();
    }
    assert_eq!(place.restored(), expected);
    fs::write(place.path(), "x").unwrap();
    assert!(place.restored().repaired.is_some());
    assert_eq!(files(&place, "outbox.db.new"), [""; 0]);
    assert_eq!(files(&place, "outbox.db.copy"), [""; 0]);
}

#[test]
fn command_without_daemon_repairs_nothing() {
    let place = Place::new();
    fs::write(place.path(), "x".repeat(5000)).unwrap();
    assert!(matches!(open_stopped(place.options()), Err(OpenError::Lost(_))));
    assert!(matches!(open_stopped(Place::new().options()), Err(OpenError::Missing(..))));
    assert_eq!(files(&place, "outbox.db.damaged"), [""; 0]);
}

/// A small outbox, its bytes and what it holds.
async fn small() -> (Vec<u8>, OutboxContents) {
    let place = Place::new();
    two_entries(&place).await;
    let (outbox, _) = place.open();
    let refused = Settlement { decision: Some(decision(2)), ..parked() };
    outbox.settle(id(2), refused).await.unwrap();
    outbox.append(append(3)).await.unwrap();
    outbox.settle(id(3), end(Outcome::Updated)).await.unwrap();
    outbox.append_audit(not_identified(9)).await.unwrap();
    outbox.close();
    let restored = place.restored();
    (fs::read(place.path()).unwrap(), restored)
}

/// A directory in memory, where there is one.
pub(super) fn in_memory() -> Place {
    let shm = Path::new("/dev/shm");
    Place { dir: TempDir::new_in(shm).unwrap_or_else(|_| TempDir::new().unwrap()) }
}

/// Opens a file of these bytes: what is read was written, and what is not read is reported.
fn survives(bytes: &[u8], whole: &OutboxContents, what: &str) -> &'static str {
    let place = in_memory();
    fs::write(place.path(), bytes).unwrap();
    if let Ok(reading) = open_read_only(&place.path())
        && let Ok(listing) = reading.entries()
    {
        assert!(listing.entries.iter().all(|entry| whole.entries.contains(entry)), "{what}");
    }
    let limits = SizeLimits::of(1000);
    let (store, restored) = match Store::open(&place.options(), limits, DamagePolicy::Repair) {
        Ok(opened) => opened,
        Err(OpenError::Newer(..)) => return "newer",
        Err(error) => panic!("{what}: {error:?}"),
    };
    let OutboxContents { entries, last_seen, latest, damaged, repaired: report } = restored;
    assert!(entries.iter().all(|entry| whole.entries.contains(entry)), "{what}");
    assert!(last_seen.iter().all(|card| whole.last_seen.contains(card)), "{what}");
    let lines: Vec<_> = latest.iter().filter(|line| line.kind != AuditKind::ChainBreak).collect();
    assert!(lines.iter().all(|line| whole.latest.contains(line)), "{what}");
    let reported = report.is_some() || !damaged.is_empty();
    let all = entries.len() == whole.entries.len()
        && lines.len() == whole.latest.len()
        && last_seen.len() == whole.last_seen.len();
    assert!(all || reported, "{what}: a loss is not reported");
    verify::verify_batch(store.conn(), None, 1000).unwrap();
    store.close();
    match (report.is_some(), damaged.is_empty()) {
        (true, _) => "set aside",
        (false, false) => "row rejected",
        (false, true) => "harmless",
    }
}

/// Runs the cases on every core, and counts their results.
pub(super) fn each(cases: &[usize], case: impl Fn(usize) -> &'static str + Sync) -> Counts {
    let threads = std::thread::available_parallelism().map_or(2, Into::into);
    let outcomes = std::thread::scope(|scope| {
        let case = &case;
        let share = cases.len().div_ceil(threads).max(1);
        let run = |share: &'_ [usize]| share.iter().map(|at| case(*at)).collect::<Vec<_>>();
        let running: Vec<_> =
            cases.chunks(share).map(|share| scope.spawn(move || run(share))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut counts = Counts::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    counts
}

pub(super) type Counts = BTreeMap<&'static str, usize>;

async fn flip_each(choose: impl Fn(usize) -> bool) {
    let (bytes, whole) = small().await;
    let cases: Vec<_> = (0..bytes.len()).filter(|at| choose(*at)).collect();
    let bits = [0x01_u8, 0x80, 0xff];
    let counts = each(&cases, |at| {
        let mut bytes = bytes.clone();
        bytes[at] ^= bits[at % bits.len()];
        survives(&bytes, &whole, &format!("byte {at}"))
    });
    assert!(counts["set aside"] > 0 && counts["row rejected"] > 0, "{counts:?}");
    // The lowest byte of the version: the file of a later one must not be changed.
    assert!(counts.get("newer").copied().unwrap_or(0) <= 1, "{counts:?}");
}

async fn cut_to_each(choose: impl Fn(usize) -> bool) {
    let (bytes, whole) = small().await;
    let cases: Vec<_> = (0..bytes.len()).filter(|length| choose(*length)).collect();
    let cut = |length| survives(&bytes[..length], &whole, &format!("cut to {length}"));
    let counts = each(&cases, cut);
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&"set aside"], "{counts:?}");
}

/// The header, where every page begins, and some of the rest; all of it where `EVERY_BYTE` is set.
fn is_tested(at: usize, one_in: usize) -> bool {
    let all = std::env::var_os("EVERY_BYTE").is_some();
    all || at < 100 || at % database::PAGE < 16 || at.is_multiple_of(one_in)
}

#[tokio::test]
async fn flipped_bytes_never_panic_or_invent_rows() {
    flip_each(|at| is_tested(at, 11)).await;
}

#[tokio::test]
async fn truncated_files_never_panic_or_invent_rows() {
    cut_to_each(|length| is_tested(length, 83)).await;
}
