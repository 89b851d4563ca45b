//! The outbox for those who only look: beside the daemon, or while it is stopped.
//!
//! Makes no file, migrates nothing, and takes no lock that the daemon would notice. Every
//! question opens the file anew, so that a reader that lingers never holds up a checkpoint.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::disk::{self, Place};
use super::error::{OpenError, StoreError};
use super::lineage::Alone;
use super::row::Damage;
use super::trail::{self, AuditFilter, AuditPage};
use super::verify::{self, ChainCursor};
use super::{file, log, schema, store};
use crate::domain::{ChainBatch, ChainPosition, Entry};

/// An outbox that is only looked at.
#[derive(Debug, Clone)]
pub struct ReadOnly {
    path: PathBuf,
}

/// What waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, waiting and parked, the oldest first.
    pub entries: Vec<Entry>,
    /// Entries that were skipped.
    pub damaged: Vec<Damage>,
}

/// Why a question to a [`ReadOnly`] has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could be opened before, and cannot be now.
    #[error("the outbox could not be opened again")]
    Open(#[from] OpenError),
    /// The file is open and cannot be read.
    #[error("the outbox could not be read")]
    Read(#[from] StoreError),
}

impl ReadOnly {
    /// Checks that there is an outbox that this program can read.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path)
            .map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })?;
        if disk::survey(&path)? != Place::File {
            return Err(OpenError::Missing { path });
        }
        log::check(&path)?;
        let alone = Alone::read(&path);
        alone.map_or(Ok(()), |alone| alone.check(&file::connect_read_only(&path)?))?;
        let outbox = Self { path };
        outbox.connect()?;
        Ok(outbox)
    }

    /// Every entry that waits, for CM or for a person.
    pub fn entries(&self) -> Result<Listing, ReadError> {
        self.ask(|conn| {
            let mut damaged = Vec::new();
            let entries = store::sift(store::entries(conn)?, &mut damaged);
            Ok(Listing { entries, damaged })
        })
    }

    /// A page of the audit trail.
    pub fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, ReadError> {
        self.ask(|conn| trail::page(conn, filter))
    }

    /// The place in the chain of the line with this number, if there is one.
    pub fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, ReadError> {
        self.ask(|conn| trail::mark(conn, seq))
    }

    /// A piece of the audit trail's chain, looked along.
    pub fn verify(&self, after: Option<&ChainCursor>) -> Result<ChainBatch, ReadError> {
        self.ask(|conn| verify::piece(conn, after, verify::PIECE))
    }

    fn ask<T>(
        &self,
        question: impl Fn(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, ReadError> {
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
