//! A damaged file makes way for one with all that is left of it, and that is told.

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
fn a_file_that_is_no_database_is_set_aside_and_told() {
    let place = Place::new();
    fs::write(place.path(), "x".repeat(5000)).unwrap();
    let restored = place.restored();
    let mended = restored.repaired.unwrap();
    assert_eq!(fs::read(mended.set_aside.as_ref().unwrap()).unwrap(), "x".repeat(5000).as_bytes());
    assert_eq!(files(&place, "outbox.db.d"), ["outbox.db.damaged-20231114T221410Z"]);
    assert_eq!((mended.entries, mended.lines, mended.last_seen, mended.damaged), (0, 0, 0, 0));
    assert_eq!(restored.latest[0].kind, AuditKind::ChainBreak);
    assert_eq!(broken(&place), [mended.to_string()]);
    // Once.
    assert_eq!(place.restored().repaired, None);
}

#[test]
fn an_empty_file_is_a_damaged_one_and_a_missing_one_is_not() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    assert!(place.restored().repaired.is_some());
    assert_eq!(Place::new().restored().repaired, None);
}

#[tokio::test]
async fn what_is_readable_of_a_torn_file_is_carried_over() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=40 {
        let reader = format!("Reader {number}").as_str().into();
        let draft = CardEvent { reader, ..draft(number) };
        outbox.append(AppendRequest { card_event: draft, ..append(number) }).await.unwrap();
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
    let mended = restored.repaired.clone().unwrap();
    let numbers: Vec<_> = restored.entries.iter().map(|entry| entry.id.number()).collect();
    assert!(numbers.contains(&1) && numbers.contains(&40), "{numbers:?}");
    assert!((30..40).contains(&numbers.len()), "{numbers:?}");
    assert!(restored.entries.iter().all(|entry| whole.entries.contains(entry)));
    assert_eq!(mended.entries, numbers.len() as u64);
    assert_eq!(mended.lines, 40);
    // A card whose entry is lost counts as new where it lies.
    assert_eq!(restored.last_seen.len(), numbers.len());
    // It is an outbox, and its trail goes on.
    assert_eq!(outbox.append(append(41)).await.unwrap().entry, id(41));
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    outbox.close();
    assert_eq!(broken(&place), [mended.to_string()]);
    assert_eq!(
        fs::read(mended.set_aside.unwrap()).unwrap(),
        bytes,
        "the damaged file is as it was"
    );
}

/// Where the rows of the page begin, in the order of their numbers.
fn row_places(page: &[u8]) -> Vec<usize> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    (0..number(3)).map(|row| number(8 + 2 * row)).collect()
}

#[tokio::test]
async fn rows_between_those_that_cannot_be_read_are_carried_over() {
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
        // Every second row is longer than its page, and goes on in a page that is not there.
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
async fn a_line_whose_chain_is_no_text_any_more_keeps_no_file_from_being_mended() {
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
        assert_eq!(restored.repaired, None, "a single line is no reason");
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
async fn a_tree_whose_root_is_gone_loses_no_leaf() {
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
async fn rows_of_any_length_are_carried_over() {
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
        let card_event = CardEvent { reader, ..draft(1) };
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
async fn a_file_that_is_cut_keeps_the_rows_of_the_pages_that_are_left() {
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
    assert!(kept > whole.entries.len(), "no cut leaves any");
}

#[tokio::test]
async fn nothing_that_is_over_comes_back_and_no_number_is_used_twice() {
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
    assert_eq!(restored.latest.len(), 2, "the outcome and the break");
    assert_eq!(outbox.append(append(3)).await.unwrap().entry, id(3));
}

#[tokio::test]
async fn what_the_log_of_a_killed_daemon_held_is_carried_over_too() {
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
    assert!(aside.iter().any(|name| name.ends_with("-wal")), "the -wal goes with it: {aside:?}");
}

#[tokio::test]
async fn lines_that_are_lost_at_the_end_are_missed() {
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
    let mended = place.restored().repaired.unwrap();
    assert!(mended.lines < 60, "{mended}");
    let piece = verify::verify_batch(&place.sqlite(), None, 1000).unwrap();
    let kinds: Vec<_> = piece.faults.iter().map(|fault| fault.kind).collect();
    assert!(kinds.contains(&ChainFaultKind::Missing), "{kinds:?}");
    assert_eq!(piece.head.unwrap().seq, 61, "the break is the line after the last one there was");
}

#[tokio::test]
async fn a_move_that_is_broken_off_goes_on_wherever_it_was() {
    for step in 0..=3 {
        let place = Place::new();
        two_entries(&place).await;
        let expected = place.restored();
        // The moment after `.ready` was made: it bears the content, the old one is still there.
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
async fn what_was_begun_and_not_finished_is_worth_nothing() {
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
fn a_stopped_daemons_damaged_file_is_left_to_the_daemon() {
    let place = Place::new();
    fs::write(place.path(), "x".repeat(5000)).unwrap();
    assert!(matches!(open_stopped(place.options()), Err(OpenError::Lost(_))));
    assert!(matches!(open_stopped(Place::new().options()), Err(OpenError::Missing { .. })));
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

/// Opens a file of these bytes: what is believed was written, and what is not there is missed.
fn survives(bytes: &[u8], whole: &OutboxContents, what: &str) -> &'static str {
    let place = in_memory();
    fs::write(place.path(), bytes).unwrap();
    if let Ok(looking) = open_read_only(&place.path())
        && let Ok(listing) = looking.entries()
    {
        assert!(listing.entries.iter().all(|entry| whole.entries.contains(entry)), "{what}");
    }
    let budget = SizeLimits::of(1000);
    let (store, restored) = match Store::open(&place.options(), budget, DamagePolicy::Repair) {
        Ok(opened) => opened,
        Err(OpenError::Newer { .. }) => return "newer",
        Err(error) => panic!("{what}: {error:?}"),
    };
    let OutboxContents { entries, last_seen: stays, latest, damaged, repaired: mended } = restored;
    assert!(entries.iter().all(|entry| whole.entries.contains(entry)), "{what}");
    assert!(stays.iter().all(|stay| whole.last_seen.contains(stay)), "{what}");
    let lines: Vec<_> = latest.iter().filter(|line| line.kind != AuditKind::ChainBreak).collect();
    assert!(lines.iter().all(|line| whole.latest.contains(line)), "{what}");
    let told = mended.is_some() || !damaged.is_empty();
    let all = entries.len() == whole.entries.len()
        && lines.len() == whole.latest.len()
        && stays.len() == whole.last_seen.len();
    assert!(all || told, "{what}: something is gone and nothing is told");
    verify::verify_batch(store.conn(), None, 1000).unwrap();
    store.close();
    match (mended.is_some(), damaged.is_empty()) {
        (true, _) => "set aside",
        (false, false) => "row not believed",
        (false, true) => "harmless",
    }
}

/// Runs the cases on every core, and counts what came of them.
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
    assert!(counts["set aside"] > 0 && counts["row not believed"] > 0, "{counts:?}");
    // The lowest byte of the version: who knows a later one must not touch the file.
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
fn worth_a_look(at: usize, one_in: usize) -> bool {
    let all = std::env::var_os("EVERY_BYTE").is_some();
    all || at < 100 || at % database::PAGE < 16 || at.is_multiple_of(one_in)
}

#[tokio::test]
async fn no_flipped_byte_makes_it_panic_or_invent_anything() {
    flip_each(|at| worth_a_look(at, 11)).await;
}

#[tokio::test]
async fn no_length_it_is_cut_to_makes_it_panic_or_invent_anything() {
    cut_to_each(|length| worth_a_look(length, 83)).await;
}
