//! Owner, locks and files of an outbox, and files that cannot be opened.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn directory_and_files_are_created_for_owner_alone() {
    let place = Place::new();
    let directory = place.dir.path().join("lib/cardbridge");
    let path = directory.join("outbox.db");
    let (outbox, _) = open(OutboxOptions { path: path.clone(), ..place.options() }).unwrap();
    outbox.append(append(1)).await.unwrap();

    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(directory.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&files::sibling_path(&path, suffix)), 0o600, "{suffix}");
    }
}

#[test]
fn second_process_gets_pid_of_first() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let refused = open(place.options()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(Some(pid)) if pid == std::process::id()));
    outbox.close();
    place.open();
}

#[test]
fn lock_file_of_crashed_process_blocks_no_start() {
    let place = Place::new();
    std::fs::write(files::sibling_path(&place.path(), ".lock"), "4194304999\n").unwrap();
    let (_outbox, _) = place.open();
    let text = std::fs::read_to_string(files::sibling_path(&place.path(), ".lock")).unwrap();
    assert_eq!(text.trim(), std::process::id().to_string());
}

#[tokio::test]
async fn durability_pragmas_are_set_on_every_opening() {
    let place = Place::new();
    for _ in 0..2 {
        let (outbox, _) = place.open();
        let pragmas = outbox.thread.submit(|store| {
            let mode = store.conn().pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            let level = store.conn().pragma_query_value(None, "synchronous", |row| row.get(0))?;
            Ok::<(String, i64), _>((mode, level))
        });
        assert_eq!(pragmas.await.unwrap(), ("wal".to_owned(), 2));
        outbox.close();
    }
}

#[test]
fn another_programs_file_is_not_changed() {
    let place = Place::new();
    place.sqlite().execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    assert!(matches!(open(place.options()), Err(OpenError::NotAnOutbox(..))));
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[test]
fn later_version_is_rejected_and_not_changed() {
    let place = Place::new();
    place.open().0.close();
    place.sqlite().pragma_update(None, "user_version", database::VERSION + 1).unwrap();
    let refused = open(place.options()).unwrap_err();
    let OpenError::Newer(found, known) = refused else { panic!("{refused}") };
    assert_eq!((found, known), (database::VERSION + 1, database::VERSION));
}

#[test]
fn directory_that_cannot_be_created_is_named() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("file"), "").unwrap();
    let path = place.dir.path().join("file/below/outbox.db");
    let refused = open(OutboxOptions { path, ..place.options() }).unwrap_err();
    assert!(matches!(refused, OpenError::Inaccessible(path, _) if path.ends_with("file/below")));
}

#[tokio::test]
async fn closed_outbox_is_one_file_and_its_lock() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    outbox.close();
    let mut names: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["outbox.db", "outbox.db.lock"]);
}

#[tokio::test]
async fn closing_empties_wal_beside_a_reader() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let reading = place.sqlite();
    reading.query_row("SELECT count(*) FROM entry", [], |_| Ok(())).unwrap();
    outbox.close();
    assert_eq!(std::fs::metadata(files::sibling_path(&place.path(), "-wal")).unwrap().len(), 0);
}

/// Whether the kernel knows a lock of the POSIX kind on this file by this process. The list is read in
/// parts, and misses some while other tests lock and unlock: a lock that is held is in it before long.
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let pid = format!(" {} ", std::process::id());
    let is_it =
        |line: &str| line.contains(" POSIX ") && line.contains(&inode) && line.contains(&pid);
    (0..100).any(|_| std::fs::read_to_string("/proc/locks").unwrap().lines().any(is_it))
}

#[tokio::test]
async fn sqlite_locks_are_held_while_outbox_is_open() {
    let place = Place::new();
    for _ in 0..2 {
        let (outbox, _) = place.open();
        let held = |when: &str| {
            for suffix in ["", "-shm"] {
                let is_locked = is_locked(&files::sibling_path(&place.path(), suffix));
                assert!(is_locked, "outbox.db{suffix} is not locked {when}");
            }
        };
        held("after it was opened");
        let appended = outbox.append(append(1)).await.unwrap();
        held("after an entry");
        outbox.settle(appended.entry, end(Outcome::Updated)).await.unwrap();
        outbox.append_audit(not_identified(1)).await.unwrap();
        outbox.prune(Duration::ZERO, at(1_000_000)).await.unwrap();
        held("after pruning");
        outbox.verify(None).await.unwrap();
        outbox.audit(AuditFilter::default()).await.unwrap();
        held("after queries");
        outbox.close();
    }
}

/// Closing any descriptor of a file takes SQLite's locks away, so one module opens files, and what
/// calls it does so while no connection is open.
#[test]
fn only_one_module_opens_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox");
    let opening = [
        "File::open",
        "File::create",
        "File::options",
        "OpenOptions",
        "fs::read(",
        "fs::copy",
        "fs::write",
        "read_to_string(path",
    ];
    let mut seen = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests.rs")
        {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let opens = opening.iter().find(|opening| source.contains(**opening));
        if path.ends_with("files.rs") {
            assert!(opens.is_some(), "the patterns are wrong");
        } else {
            assert_eq!(opens, None, "{}", path.display());
        }
        let callers = ["files.rs", "wal.rs", "recovery.rs", "database.rs"];
        let calls = ["files::open", "files::create("].iter().any(|call| source.contains(call));
        assert!(
            !calls || callers.iter().any(|caller| path.ends_with(caller)),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen > 10);
}
