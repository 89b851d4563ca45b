//! What can go wrong, by what the caller does about it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::row::DamagedRow;
use crate::domain::EntryId;

/// The cause that an error carries along for the log. What to do never depends on it.
type Cause = Box<dyn Error + Send + Sync>;

/// Why there is no outbox to work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stop the other process, or ask it instead.
    #[error("the outbox is in use by another process{}", named(*pid))]
    InUse {
        /// The other process, unless it has not told yet.
        pid: Option<u32>,
    },
    /// Nothing was ever stored: start the daemon once.
    #[error("there is no outbox at {path}", path = path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Correct the path or its permissions.
    #[error("cannot access outbox file {path}", path = path.display())]
    Inaccessible {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Correct the path, or remove what is there: it is left as it is.
    #[error("{path} is {what}; the outbox needs a regular file", path = path.display())]
    Unsuitable {
        /// The file, or one beside it.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Correct the path: the file is another program's, and is left as it is.
    #[error("{path} is a SQLite file, but not a cardbridge outbox", path = path.display())]
    NotAnOutbox {
        /// The file.
        path: PathBuf,
    },
    /// Install the newer cardbridge again: going back is not supported.
    #[error("outbox schema version {found} is newer than this cardbridge supports ({known})")]
    Newer {
        /// The file's version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// Start the daemon once: only it brings a file up to date.
    #[error("outbox schema version {found} is old; start the daemon once to migrate it to {known}")]
    Older {
        /// The file's version.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// Move the file to a local file system: on this one, stored would not mean stored.
    #[error("SQLite rejected {setting}: the outbox must be on a local file system")]
    NotDurable {
        /// The setting that did not hold.
        setting: &'static str,
    },
    /// The file is damaged: the daemon sets it aside and carries over what is readable.
    #[error("the outbox file is damaged; start the daemon to repair it")]
    Lost(#[source] Cause),
    /// Disk, memory or system do not let us: the cause tells.
    #[error("cannot open the outbox")]
    Unusable(#[source] Cause),
}

impl OpenError {
    /// Whether it is the disk that does not take writes: that passes without a person's correcting
    /// anything here.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Inaccessible { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::Unusable(cause) => is_disk_error(cause.as_ref()),
            Self::InUse { .. }
            | Self::Missing { .. }
            | Self::Unsuitable { .. }
            | Self::NotAnOutbox { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::NotDurable { .. }
            | Self::Lost(_) => false,
        }
    }
}

fn is_disk_error(cause: &(dyn Error + Send + Sync + 'static)) -> bool {
    let code = cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    let full = matches!(cause.downcast_ref(), Some(StoreError::Full(FullReason::Disk)));
    full || matches!(
        code,
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
        )
    )
}

fn named(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// Why a command was not carried out. Whatever the variant: nothing of the command was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Refuse the card loudly and go on settling: only that makes room.
    #[error("the outbox is full: {0}")]
    Full(FullReason),
    /// Try again soon: somebody else holds the file, or more commands wait than a healthy disk
    /// lets come together.
    #[error("the outbox is busy")]
    Busy,
    /// Show it, keep the state, try again later: the disk does not take writes.
    #[error("outbox I/O error")]
    Io(#[source] Cause),
    /// Forget the entry: it was settled before.
    #[error("no entry {0} in the outbox")]
    NoSuchEntry(EntryId),
    /// Look again: the entry is parked where it should wait, or waits where it should be parked.
    #[error("entry {0} is not in a stage that allows this action")]
    Conflict(EntryId),
    /// Give the entry up and tell a person: its row is not what was written.
    #[error("entry {0} is damaged")]
    Damaged(EntryId, #[source] DamagedRow),
    /// Stop: the file as a whole is damaged, or is not where it was opened any more.
    #[error("the outbox file was damaged, removed or replaced")]
    Lost(#[source] Cause),
    /// Stop: the outbox was closed.
    #[error("the outbox is closed")]
    Closed,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FullReason {
    /// As many entries wait as may (`outbox.max_entries`).
    #[error("the entry limit (outbox.max_entries) is reached")]
    Entries,
    /// The file is as large as it may be, until the audit trail is pruned.
    #[error("the file size limit is reached until audit lines are pruned")]
    FileSize,
    /// There are as many audit lines that end no entry as there may be, until some are pruned.
    #[error("its audit trail has as many notes as it may have")]
    Notes,
    /// The disk is full.
    #[error("the disk is full")]
    Disk,
}

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
        match error {
            StoreError::Lost(cause) => Self::Lost(cause),
            StoreError::Io(cause) => match cause.downcast::<rusqlite::Error>() {
                Ok(error) => (*error).into(),
                Err(cause) => Self::Unusable(cause),
            },
            error @ (StoreError::Full(_)
            | StoreError::Busy
            | StoreError::NoSuchEntry(_)
            | StoreError::Conflict(_)
            | StoreError::Damaged(..)
            | StoreError::Closed) => Self::Unusable(Box::new(error)),
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    /// No question that is asked on opening is wrong: where SQLite does not understand one, or the
    /// answer is of another kind, the file is not what was written.
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
