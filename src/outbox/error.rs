//! What can go wrong, by what the caller does about it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::domain::EntryId;

/// The cause, for the log. What to do never depends on it.
type Cause = Box<dyn Error + Send + Sync>;

/// A value of a row, if the row is what was written.
pub(super) type Checked<T> = Result<T, DamagedRow>;

/// A row that is not what was written. It is skipped, and kept in the file for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row} of table {table}: {reason}")]
pub struct DamagedRow {
    /// The table.
    pub table: &'static str,
    /// The row's key, as far as it can be read.
    pub row: String,
    /// What is wrong.
    pub reason: String,
}

/// Why the outbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stop the other process, or ask it instead. Its pid, where its lock file has one.
    #[error("the outbox is in use by another process{}", .0.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    InUse(Option<u32>),
    /// Nothing was ever stored at this path: start the daemon once.
    #[error("there is no outbox at {}", .0.display())]
    Missing(PathBuf),
    /// Correct the path of this file or directory, or its permissions.
    #[error("cannot access outbox file {}", .0.display())]
    Inaccessible(PathBuf, #[source] io::Error),
    /// Correct the path, or remove what is there: it is no regular file, and is not changed.
    #[error("{} is {what}; the outbox needs a regular file", .0.display(), what = .1)]
    Unsuitable(PathBuf, &'static str),
    /// Correct the path: the file is another program's, and is not changed.
    #[error("{} is a SQLite file, but not a cardbridge outbox", .0.display())]
    NotAnOutbox(PathBuf),
    /// Install the newer cardbridge again: going back is not supported.
    #[error("outbox schema version {0} is newer than this cardbridge supports ({1})")]
    Newer(u32, u32),
    /// Start the daemon once: only the daemon migrates.
    #[error("outbox schema version {0} is old; start the daemon once to migrate it to {1}")]
    Older(u32, u32),
    /// Move the file to a local file system: on this one, stored would not mean stored.
    #[error("SQLite rejected {0}: the outbox must be on a local file system")]
    NotDurable(&'static str),
    /// The file is damaged: the daemon sets it aside and carries over what is readable.
    #[error("the outbox file is damaged; start the daemon to repair it")]
    Lost(#[source] Cause),
    /// Disk, memory or system fail: see the cause.
    #[error("cannot open the outbox")]
    Unusable(#[source] Cause),
}

impl OpenError {
    /// The system's error about this file or directory.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Inaccessible(path, source)
    }

    /// Whether the disk takes no writes: that passes without a correction by the operator.
    pub(super) fn may_pass(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        if let Self::Inaccessible(_, source) = self {
            return matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem);
        }
        let Self::Unusable(cause) = self else { return false };
        let code = cause.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
        let is_disk_error = matches!(
            code,
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::SystemIoFailure
            )
        );
        is_disk_error || matches!(cause.downcast_ref(), Some(StoreError::Full(FullReason::Disk)))
    }
}

/// Why a command was not carried out. Whatever the variant: nothing of the command was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Report the card as not stored and go on settling: only that makes room.
    #[error("the outbox is full: {0}")]
    Full(FullReason),
    /// Retry soon: another program holds the file, or too many commands wait.
    #[error("the outbox is busy")]
    Busy,
    /// Show it, keep the state, retry later: the disk takes no writes.
    #[error("outbox I/O error")]
    Io(#[source] Cause),
    /// Forget the entry: it was settled before.
    #[error("no entry {0} in the outbox")]
    NoSuchEntry(EntryId),
    /// Read the entry again: it is parked where it should wait, or waits where it should be parked.
    #[error("entry {0} is not in a stage that allows this action")]
    Conflict(EntryId),
    /// Give the entry up and report it: its row is not what was written.
    #[error("entry {0} is damaged")]
    Damaged(EntryId, #[source] DamagedRow),
    /// Stop: the file as a whole is damaged, or is not where it was opened any more.
    #[error("the outbox file was damaged, removed or replaced")]
    Lost(#[source] Cause),
    /// Stop: the outbox was closed.
    #[error("the outbox is closed")]
    Closed,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FullReason {
    /// `outbox.max_entries`.
    #[error("the entry limit (outbox.max_entries) is reached")]
    Entries,
    /// The size of the file.
    #[error("the file size limit is reached until audit lines are pruned")]
    FileSize,
    /// The number of notes: audit lines that end no entry.
    #[error("the limit of notes is reached until audit lines are pruned")]
    Notes,
    /// The room on the disk.
    #[error("the disk is full")]
    Disk,
}

/// A text that is no cursor into the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid audit cursor")]
pub struct InvalidCursor;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(FullReason::Disk),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Lost(Box::new(error))
            }
            _ => Self::Io(Box::new(error)),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Io(Box::new(error))
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Lost(cause) = error {
            return Self::Lost(cause);
        }
        let StoreError::Io(cause) = error else { return Self::Unusable(Box::new(error)) };
        match cause.downcast::<rusqlite::Error>() {
            Ok(error) => (*error).into(),
            Err(cause) => Self::Unusable(cause),
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    /// No query on opening is wrong: where SQLite does not understand one, or the result is of
    /// another type, the file is not what was written.
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            None
            | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                Self::Lost(Box::new(error))
            }
            Some(_) => Self::Unusable(Box::new(error)),
        }
    }
}
