//! The outbox for those who only look: beside the daemon, or while it is stopped.
//!
//! Makes no file, migrates nothing, and takes no lock that the daemon would notice. Every
//! question opens the file anew, so that a reader that lingers never holds up a checkpoint.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::audit_query::{self, AuditFilter, StoredAuditPage};
use super::error::{OpenError, StoreError};
use super::row::DamagedRow;
use super::safe_open::{self, PathKind};
use super::same_history::DatabaseWithoutWal;
use super::verify::{self, ChainCursor};
use super::{file, schema, store, wal};
use crate::domain::{ChainBatch, ChainPosition, Entry};

/// An outbox that is only looked at.
#[derive(Debug, Clone)]
pub struct ReadOnlyOutbox {
    path: PathBuf,
}

/// What waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, waiting and parked, the oldest first.
    pub entries: Vec<Entry>,
    /// Entries that were skipped.
    pub damaged: Vec<DamagedRow>,
}

/// Why a question to a [`ReadOnlyOutbox`] has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadOnlyError {
    /// The file could be opened before, and cannot be now.
    #[error("cannot reopen the outbox")]
    Open(#[from] OpenError),
    /// The file is open and cannot be read.
    #[error("cannot read the outbox")]
    Read(#[from] StoreError),
}

impl ReadOnlyOutbox {
    /// Checks that there is an outbox that this program can read.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path)
            .map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })?;
        if safe_open::survey(&path)? != PathKind::File {
            return Err(OpenError::Missing { path });
        }
        wal::check(&path)?;
        let alone = DatabaseWithoutWal::read(&path);
        alone.map_or(Ok(()), |alone| alone.check(&file::connect_read_only(&path)?))?;
        let outbox = Self { path };
        outbox.connect()?;
        Ok(outbox)
    }

    /// Every entry that waits, for CM or for a person.
    pub fn entries(&self) -> Result<Listing, ReadOnlyError> {
        self.ask(|conn| {
            let mut damaged = Vec::new();
            let entries = store::partition_damaged(store::entries(conn)?, &mut damaged);
            Ok(Listing { entries, damaged })
        })
    }

    /// A page of the audit trail.
    pub fn audit(&self, filter: &AuditFilter) -> Result<StoredAuditPage, ReadOnlyError> {
        self.ask(|conn| audit_query::page(conn, filter))
    }

    /// The place in the chain of the line with this number, if there is one.
    pub fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, ReadOnlyError> {
        self.ask(|conn| audit_query::mark(conn, seq))
    }

    /// A piece of the audit trail's chain, looked along.
    pub fn verify(&self, after: Option<&ChainCursor>) -> Result<ChainBatch, ReadOnlyError> {
        self.ask(|conn| verify::verify_batch(conn, after, verify::BATCH_LINES))
    }

    fn ask<T>(
        &self,
        question: impl Fn(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, ReadOnlyError> {
        let was_in_use = file::in_use(&self.path);
        let answer = question(&self.connect()?);
        if was_in_use == file::in_use(&self.path) {
            return Ok(answer?);
        }
        // A daemon started or stopped in the middle of it: the first look may be half of each.
        Ok(question(&self.connect()?)?)
    }

    pub(super) fn connect(&self) -> Result<Connection, OpenError> {
        let conn = file::connect_read_only(&self.path)?;
        let found = schema::identify(&conn, &self.path)?;
        if found < schema::VERSION {
            return Err(OpenError::Older { found, known: schema::VERSION });
        }
        Ok(conn)
    }
}
