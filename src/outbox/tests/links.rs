//! Links and special files at the outbox's path or beside it, and missing files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use cardbridge_harness::require;

use crate::domain::AuditKind;

use super::damage::two_entries;
use super::*;

const NAMES: [&str; 6] = ["", ".lock", "-wal", "-shm", "-journal", ".ready"];

/// A user who is not root, and need not exist.
const OTHER: u32 = 65_534;

fn unsuitable<T: std::fmt::Debug>(result: Result<T, OpenError>, what: &str) {
    let Err(error) = result else { panic!("{what}: was opened") };
    assert!(matches!(error, OpenError::Unsuitable(..)), "{what}: {error:?}");
}

/// A name, and how to create it at a path.
type Thing = (&'static str, fn(&Path));

/// Each function that opens the outbox rejects what is at this path.
fn is_refused(place: &Place, what: &str) {
    unsuitable(open(place.options()), what);
    unsuitable(open_stopped(place.options()), what);
    unsuitable(open_read_only(&place.path()), what);
}

#[test]
fn special_files_are_rejected_without_waiting() {
    for name in NAMES {
        let make: [Thing; 3] = [
            ("a directory", |path| fs::create_dir(path).unwrap()),
            ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
            ("a named pipe", |path| {
                assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
        ];
        for (what, make) in make {
            let place = Place::new();
            make(&files::sibling_path(&place.path(), name));
            is_refused(&place, &format!("{what} at outbox.db{name}"));
        }
    }
}

#[tokio::test]
async fn links_are_rejected_and_their_targets_not_changed() {
    require!(require::root());
    for name in NAMES {
        let place = Place::new();
        two_entries(&place).await;
        let path = files::sibling_path(&place.path(), name);
        let target = place.dir.path().join("target");
        fs::write(&target, "another user's").unwrap();
        chown(&target, Some(OTHER), Some(OTHER)).unwrap();
        drop(fs::remove_file(&path));
        symlink(&target, &path).unwrap();
        is_refused(&place, &format!("a link at outbox.db{name}"));
        let found = target.metadata().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "another user's", "{name}");
        assert_eq!((found.uid(), found.gid()), (OTHER, OTHER), "{name}");
    }
}

#[tokio::test]
async fn existing_lock_keeps_owner_and_hard_link_is_not_written() {
    require!(require::root());
    let place = Place::new();
    two_entries(&place).await;
    let lock = files::sibling_path(&place.path(), ".lock");
    chown(place.path(), Some(OTHER), Some(OTHER)).unwrap();
    place.restored();
    assert_eq!(lock.metadata().unwrap().uid(), 0, "an existing lock keeps its owner");

    let target = place.dir.path().join("target");
    fs::write(&target, "another user's").unwrap();
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&target, &lock).unwrap();
    place.restored();
    assert_eq!(fs::read_to_string(&target).unwrap(), "another user's");
    assert_eq!(target.metadata().unwrap().uid(), 0);
    // In another user's directory a second name is rejected.
    chown(place.dir.path(), Some(OTHER), Some(OTHER)).unwrap();
    is_refused(&place, "a hard link");

    fs::remove_file(&lock).unwrap();
    place.restored();
    assert_eq!(lock.metadata().unwrap().uid(), OTHER, "a new lock belongs to the owner");
}

#[tokio::test]
async fn root_acts_with_rights_of_owner() {
    require!(require::root());
    let place = Place::new();
    two_entries(&place).await;
    fs::remove_file(files::sibling_path(&place.path(), ".lock")).unwrap();
    for path in [place.path(), place.dir.path().to_owned()] {
        chown(path, Some(OTHER), Some(OTHER)).unwrap();
    }
    let options = place.options();
    // The thread's rights end with the thread.
    let acting = std::thread::spawn(move || {
        act_as_owner(&options.path).unwrap();
        let (outbox, restored) = open_stopped(options.clone()).unwrap();
        assert_eq!(restored.entries.len(), 2);
        let owner = |suffix| files::sibling_path(&options.path, suffix).metadata().unwrap().uid();
        let owners = ["", ".lock", "-wal", "-shm"].map(owner);
        outbox.close();
        assert_eq!(owners, [OTHER; 4]);
        rustix::process::geteuid().as_raw()
    });
    assert_eq!(acting.join().unwrap(), OTHER);
    assert!(rustix::process::geteuid().is_root());
}

#[tokio::test]
async fn missing_outbox_is_reported_unless_it_never_was() {
    for (left, kept) in [(".lock", 0), ("-wal", 2)] {
        let place = Place::new();
        let (outbox, _) = place.open();
        outbox.append(append(1)).await.unwrap();
        outbox.append(append(2)).await.unwrap();
        // What a kill leaves.
        let killed = Place::new();
        fs::copy(
            files::sibling_path(&place.path(), left),
            files::sibling_path(&killed.path(), left),
        )
        .unwrap();
        let (outbox, restored) = killed.open();
        let report = restored.repaired.unwrap();
        assert!(report.to_string().contains(&format!("outbox.db{left} was")), "{report}");
        assert_eq!(restored.entries.len(), kept, "{left}");
        assert_eq!(restored.latest.first().unwrap().kind, AuditKind::ChainBreak);
        outbox.append(append(3)).await.unwrap();
        outbox.close();
        assert_eq!(killed.restored().repaired, None, "it is reported once");
    }
    let place = Place::new();
    fs::write(files::sibling_path(&place.path(), ".lock"), "4711\nnew\n").unwrap();
    assert_eq!(place.restored().repaired, None, "the first start was interrupted");
    let place = Place::new();
    fs::write(files::sibling_path(&place.path(), ".lock"), "").unwrap();
    assert_eq!(place.restored().repaired, None, "the first start was interrupted at once");
}

#[test]
fn dead_link_is_set_aside_and_reported() {
    let place = Place::new();
    symlink("/nowhere/outbox.db", place.path()).unwrap();
    assert!(matches!(open_stopped(place.options()), Err(OpenError::Missing(..))));
    let report = place.restored().repaired.unwrap();
    assert!(report.to_string().contains("link without a target"), "{report}");
    let aside = report.set_aside.unwrap();
    assert_eq!(fs::read_link(aside).unwrap(), Path::new("/nowhere/outbox.db"));
    assert!(place.path().symlink_metadata().unwrap().is_file());
    assert_eq!(place.restored().repaired, None);
}
