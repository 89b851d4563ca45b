//! Reading without changing anything.

use super::*;

fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn reading_stopped_outbox_changes_no_file() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.append_audit(not_identified(0)).await.unwrap();
    outbox.close();
    let before = (names(&place), std::fs::read(place.path()).unwrap());

    assert_eq!(place.entries().len(), 1);
    assert_eq!(place.outcomes().len(), 1);
    assert_eq!((names(&place), std::fs::read(place.path()).unwrap()), before);
}

#[tokio::test]
async fn read_only_outbox_sees_entries_of_later_daemon() {
    let place = Place::new();
    place.open().0.close();
    let reading = open_read_only(&place.path()).unwrap();
    assert_eq!(reading.entries().unwrap().entries, []);

    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    assert_eq!(reading.entries().unwrap().entries.len(), 1);
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    assert_eq!(reading.entries().unwrap().entries, []);
    outbox.append(append(2)).await.unwrap();
    outbox.close();
    assert_eq!(reading.entries().unwrap().entries.len(), 1);
}

#[tokio::test]
async fn wal_of_killed_daemon_is_read() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    // What is on disk while the outbox is open is what a kill leaves behind.
    let killed = Place::new();
    for suffix in ["", "-wal"] {
        std::fs::copy(
            files::sibling_path(&place.path(), suffix),
            files::sibling_path(&killed.path(), suffix),
        )
        .unwrap();
    }
    assert_eq!(killed.entries().len(), 1);
    assert_eq!(killed.restored().entries.len(), 1);
}

#[test]
fn reading_missing_outbox_creates_nothing() {
    let place = Place::new();
    assert!(matches!(open_read_only(&place.path()), Err(OpenError::Missing(..))));
    assert_eq!(names(&place), [""; 0]);
}

#[test]
fn reading_migrates_nothing() {
    let place = Place::new();
    std::fs::write(place.path(), "").unwrap();
    let refused = open_read_only(&place.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Older(0, database::VERSION)));
    assert_eq!(std::fs::read(place.path()).unwrap(), b"");
}

#[test]
fn path_with_uri_characters_is_read() {
    let place = Place::new();
    let path = place.dir.path().join("file:a?mode=rw#50%25 ü.db");
    open(OutboxOptions { path: path.clone(), ..place.options() }).unwrap().0.close();
    assert_eq!(open_read_only(&path).unwrap().entries().unwrap().entries, []);
}

#[tokio::test]
async fn harmless_changes_by_another_program_are_no_damage() {
    for sql in [
        "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode = TRUNCATE; VACUUM",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "ANALYZE; REINDEX",
        "BEGIN IMMEDIATE; ROLLBACK",
    ] {
        let place = Place::new();
        let (outbox, _) = place.open();
        for number in 1..=6 {
            outbox.append(append(number)).await.unwrap();
        }
        outbox.settle(id(3), end(Outcome::Updated)).await.unwrap();
        outbox.close();
        let whole = place.restored();
        place.sqlite().execute_batch(sql).unwrap();
        assert_eq!(place.restored(), whole, "{sql}");
    }
}
