//! A file that goes, or becomes another one, under the process that has it open.

use std::time::Duration;

use super::*;

const SUFFIXES: [&str; 4] = ["", ".lock", "-wal", "-shm"];

async fn is_told_lost(outbox: &Outbox) {
    tokio::time::timeout(Duration::from_mins(1), outbox.lost()).await.expect("it is told");
}

fn lost<T: std::fmt::Debug>(result: &Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Lost(_))), "{result:?}");
}

#[tokio::test]
async fn no_command_is_stored_in_files_that_were_removed() {
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
    lost(&outbox.clear_last_seen(draft(1).reader).await);
    is_told_lost(&outbox).await;
}

#[tokio::test]
async fn each_of_the_files_is_missed() {
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
async fn a_copy_in_the_place_of_the_file_is_not_the_file() {
    for suffix in SUFFIXES {
        let place = Place::new();
        let (outbox, _) = place.open();
        let path = files::sibling_path(&place.path(), suffix);
        let copy = place.dir.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        lost(&outbox.append(append(1)).await);
        is_told_lost(&outbox).await;
    }
}

#[tokio::test]
async fn a_directory_that_was_moved_away_takes_the_outbox_with_it() {
    let place = Place::new();
    let path = place.dir.path().join("state/outbox.db");
    let (outbox, _) = open(OutboxOptions { path, ..place.options() }).unwrap();
    std::fs::rename(place.dir.path().join("state"), place.dir.path().join("old")).unwrap();
    lost(&outbox.append_audit(not_identified(1)).await);
}

#[tokio::test]
async fn the_outbox_that_took_the_place_of_a_lost_one_is_left_alone() {
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
async fn what_a_removed_wal_held_is_in_the_file_after_closing() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    std::fs::remove_file(files::sibling_path(&place.path(), "-wal")).unwrap();
    lost(&outbox.append(append(2)).await);
    outbox.close();
    assert_eq!(place.restored().entries.len(), 1);
}
