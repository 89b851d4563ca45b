//! A file that is removed or replaced while the outbox is open.

use std::time::Duration;

use super::*;

const SUFFIXES: [&str; 4] = ["", ".lock", "-wal", "-shm"];

async fn is_reported_lost(outbox: &Outbox) {
    tokio::time::timeout(Duration::from_mins(1), outbox.lost()).await.expect("it is reported");
}

fn lost<T: std::fmt::Debug>(result: &Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Lost(_))), "{result:?}");
}

#[tokio::test]
async fn every_command_is_lost_after_files_are_removed() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    for suffix in SUFFIXES {
        std::fs::remove_file(files::sibling_path(&place.path(), suffix)).unwrap();
    }

    lost(&outbox.append(append(2)).await);
    lost(&outbox.save(id(1), Stage::Queued).await);
    lost(&outbox.settle(id(1), end(Outcome::Updated)).await);
    lost(&outbox.unpark(id(1), not_identified(1)).await);
    lost(&outbox.append_audit(not_identified(1)).await);
    lost(&outbox.clear_last_seen(card_event(1).reader).await);
    is_reported_lost(&outbox).await;
}

#[tokio::test]
async fn removal_of_each_file_is_reported() {
    for suffix in SUFFIXES {
        let place = Place::new();
        let (outbox, _) = place.open();
        std::fs::remove_file(files::sibling_path(&place.path(), suffix)).unwrap();
        let error = outbox.append(append(1)).await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains(&format!("outbox.db{suffix} was removed")), "{suffix}: {cause}");
    }
}

#[tokio::test]
async fn file_replaced_by_its_copy_is_lost() {
    for suffix in SUFFIXES {
        let place = Place::new();
        let (outbox, _) = place.open();
        let path = files::sibling_path(&place.path(), suffix);
        let copy = place.dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        lost(&outbox.append(append(1)).await);
        is_reported_lost(&outbox).await;
    }
}

#[tokio::test]
async fn outbox_in_moved_directory_is_lost() {
    let place = Place::new();
    let path = place.dir.path().join("state/outbox.db");
    let (outbox, _) = open(OutboxOptions { path, ..place.options() }).unwrap();
    std::fs::rename(place.dir.path().join("state"), place.dir.path().join("old")).unwrap();
    lost(&outbox.append_audit(not_identified(1)).await);
}

/// Why the guard checks more than `outbox.db`: without its `-wal`, the files of a killed daemon lack
/// what was acknowledged.
#[tokio::test]
async fn files_without_wal_lack_acknowledged_entries() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let killed = Place::new();
    std::fs::copy(place.path(), killed.path()).unwrap();
    assert_eq!(killed.restored().entries, []);
    std::fs::remove_file(files::sibling_path(&place.path(), "-wal")).unwrap();
    lost(&outbox.append(append(2)).await);
}

/// The same for the `.lock`: without it a second process opens the outbox too.
#[tokio::test]
async fn second_process_opens_outbox_without_lock_file_and_first_is_lost() {
    let place = Place::new();
    let (first, _) = place.open();
    std::fs::remove_file(files::sibling_path(&place.path(), ".lock")).unwrap();
    let (second, _) = place.open();
    lost(&first.append(append(1)).await);
    second.append(append(2)).await.unwrap();
}

#[tokio::test]
async fn lost_outbox_does_not_change_its_replacement() {
    let place = Place::new();
    let (first, _) = place.open();
    for suffix in SUFFIXES {
        std::fs::remove_file(files::sibling_path(&place.path(), suffix)).unwrap();
    }
    let (second, _) = place.open();
    second.append(append(2)).await.unwrap();
    lost(&first.append(append(1)).await);
    first.close();

    second.append(append(3)).await.unwrap();
    second.close();
    assert_eq!(place.entries().len(), 2);
}

#[tokio::test]
async fn closing_after_wal_removal_keeps_its_content() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    std::fs::remove_file(files::sibling_path(&place.path(), "-wal")).unwrap();
    lost(&outbox.append(append(2)).await);
    outbox.close();
    assert_eq!(place.restored().entries.len(), 1);
}
