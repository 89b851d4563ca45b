//! What stands at the outbox's path, or beside it, and is not what was made there.

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

/// Someone who is not root; no such user needs to be there.
const OTHER: u32 = 65_534;

fn unsuitable<T: std::fmt::Debug>(result: Result<T, OpenError>, what: &str) {
    let Err(error) = result else { panic!("{what}: was opened") };
    assert!(matches!(error, OpenError::Unsuitable { .. }), "{what}: {error:?}");
}

/// What is made at a path, and how.
type Thing = (&'static str, fn(&Path));

/// Every way to open the outbox refuses what is at this path.
fn is_refused(place: &Place, what: &str) {
    unsuitable(open(place.options()), what);
    unsuitable(open_stopped(place.options()), what);
    unsuitable(open_read_only(&place.path()), what);
}

#[test]
fn what_is_no_regular_file_is_refused_and_nothing_waits_for_it() {
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
async fn no_link_is_followed_and_what_it_leads_to_stays_as_it_was() {
    require!(require::root());
    for name in NAMES {
        let place = Place::new();
        two_entries(&place).await;
        let path = files::sibling_path(&place.path(), name);
        let target = place.dir.path().join("target");
        fs::write(&target, "somebody's").unwrap();
        chown(&target, Some(OTHER), Some(OTHER)).unwrap();
        drop(fs::remove_file(&path));
        symlink(&target, &path).unwrap();
        is_refused(&place, &format!("a link at outbox.db{name}"));
        let found = target.metadata().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "somebody's", "{name}");
        assert_eq!((found.uid(), found.gid()), (OTHER, OTHER), "{name}");
    }
}

#[tokio::test]
async fn a_lock_that_is_there_stays_whose_it_is_and_a_hard_link_is_not_written_to() {
    require!(require::root());
    let place = Place::new();
    two_entries(&place).await;
    let lock = files::sibling_path(&place.path(), ".lock");
    chown(place.path(), Some(OTHER), Some(OTHER)).unwrap();
    place.restored();
    assert_eq!(lock.metadata().unwrap().uid(), 0, "it was there, and is not given away");

    let target = place.dir.path().join("target");
    fs::write(&target, "somebody's").unwrap();
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&target, &lock).unwrap();
    place.restored();
    assert_eq!(fs::read_to_string(&target).unwrap(), "somebody's");
    assert_eq!(target.metadata().unwrap().uid(), 0);
    // Where another may put names into the directory, they are not believed at all.
    chown(place.dir.path(), Some(OTHER), Some(OTHER)).unwrap();
    is_refused(&place, "a hard link");

    fs::remove_file(&lock).unwrap();
    place.restored();
    assert_eq!(lock.metadata().unwrap().uid(), OTHER, "a new one is the owner's");
}

#[tokio::test]
async fn root_acts_with_the_rights_of_the_owner() {
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
async fn an_outbox_that_is_gone_is_told_and_one_that_never_was_is_not() {
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
        let mended = restored.repaired.unwrap();
        assert!(mended.to_string().contains(&format!("outbox.db{left} was")), "{mended}");
        assert_eq!(restored.entries.len(), kept, "{left}");
        assert_eq!(restored.latest.first().unwrap().kind, AuditKind::ChainBreak);
        outbox.append(append(3)).await.unwrap();
        outbox.close();
        assert_eq!(killed.restored().repaired, None, "it is told once");
    }
    let place = Place::new();
    fs::write(files::sibling_path(&place.path(), ".lock"), "4711\nnew\n").unwrap();
    assert_eq!(place.restored().repaired, None, "the first start was broken off");
    let place = Place::new();
    fs::write(files::sibling_path(&place.path(), ".lock"), "").unwrap();
    assert_eq!(place.restored().repaired, None, "the first start was broken off at once");
}

#[test]
fn a_link_that_leads_nowhere_is_set_aside_and_told() {
    let place = Place::new();
    symlink("/nowhere/outbox.db", place.path()).unwrap();
    assert!(matches!(open_stopped(place.options()), Err(OpenError::Missing { .. })));
    let mended = place.restored().repaired.unwrap();
    assert!(mended.to_string().contains("link without a target"), "{mended}");
    let aside = mended.set_aside.unwrap();
    assert_eq!(fs::read_link(aside).unwrap(), Path::new("/nowhere/outbox.db"));
    assert!(place.path().symlink_metadata().unwrap().is_file());
    assert_eq!(place.restored().repaired, None);
}
