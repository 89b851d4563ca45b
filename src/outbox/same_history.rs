//! Whether the log beside the file is this file's: SQLite takes any log whose checksums fit, that of
//! another outbox or of an older copy too.
//!
//! The file alone says what was so when its log was last brought in, and its log goes on from there. So the
//! file's newest audit line is in both together, unless it was pruned, and its newest entry that waits
//! is there, or has a line. Only rows whose seals fit are compared: what is damaged is found elsewhere.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::error::{OpenError, StoreError};
use super::hash_chain::{self, ChainEnd};
use super::row::{self, DamagedRow};
use super::{file, safe_open, schema};
use crate::domain::{AuditLine, Entry};

/// SQLite would take the log of another file.
#[derive(Debug, thiserror::Error)]
#[error("its log is that of another file")]
pub(super) struct OtherHistory;

impl From<OtherHistory> for OpenError {
    fn from(error: OtherHistory) -> Self {
        Self::Lost(Box::new(error))
    }
}

/// What a file that has a log says without it.
#[derive(Debug)]
pub(super) struct DatabaseWithoutWal {
    /// The newest line's number; 0 where there is none.
    head: i64,
    line: Option<AuditLine>,
    /// The newest entry that waits.
    entry: Option<Entry>,
}

const LINE: &str = "SELECT seq, at, outcome, card, entry, line, seal FROM audit WHERE seq = ?";
/// A cut in the middle of bringing the log in may leave a head that is newer than the entries.
const LINE_OF_ENTRY: &str = "SELECT seq, at, outcome, card, entry, line, seal FROM audit \
     WHERE seq > ? - 100000 AND entry = ? ORDER BY seq DESC LIMIT 1";
const ENTRY: &str = "SELECT id, seen_at, card, draft, stage, seal FROM entry WHERE id = ?";
/// A parked entry has its line already, and may go without another.
const NEWEST: &str =
    "SELECT ifnull(max(id), 0) FROM entry WHERE stage NOT LIKE '%\"stage\":\"parked\"%'";

impl DatabaseWithoutWal {
    /// What the file at this path says; nothing where it has no log, or cannot be read without.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let log = safe_open::sibling_path(path, "-wal").symlink_metadata().ok()?;
        if log.len() == 0 {
            return None;
        }
        let conn = file::connect_alone(path).ok()?;
        let head = hash_chain::end(&conn, ChainEnd::Head).ok()?.ok()?.seq;
        let line = one(&conn, LINE, [head], row::line).ok()?.and_then(Result::ok);
        let newest: i64 = conn.query_row(NEWEST, [], |found| found.get(0)).ok()?;
        let entry = one(&conn, ENTRY, [newest], row::entry).ok()?.and_then(Result::ok);
        Some(Self { head, line, entry })
    }

    /// [`OtherHistory`] where the file with its log does not go on from that.
    pub(super) fn check(&self, conn: &Connection) -> Result<(), OpenError> {
        match self.continues(conn) {
            Ok(false) => Err(OtherHistory.into()),
            // What cannot be read is damage of another kind.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn continues(&self, conn: &Connection) -> Result<bool, StoreError> {
        if !schema::has(conn, "chain")? {
            return Ok(false);
        }
        let pruned = hash_chain::end(conn, ChainEnd::Anchor)?.map_or(i64::MAX, |anchor| anchor.seq);
        if pruned > self.head {
            return Ok(true);
        }
        if let Some(line) = self.line.as_ref().filter(|_| pruned < self.head) {
            let found = one(conn, LINE, [self.head], row::line)?;
            if found.is_none_or(|found| found.is_ok_and(|found| found != *line)) {
                return Ok(false);
            }
        }
        let Some(Entry { id, card_event: draft, .. }) = &self.entry else { return Ok(true) };
        if let Some(found) = one(conn, ENTRY, [id.number()], row::entry)? {
            return Ok(found.map_or(true, |found| found.card_event == *draft));
        }
        let line = one(conn, LINE_OF_ENTRY, [self.head, id.number()], row::line)?;
        let is_its = |line: AuditLine| line.seen_at == draft.seen_at && line.reader == draft.reader;
        Ok(line.is_some_and(|line| line.map_or(true, is_its)))
    }
}

fn one<T>(
    conn: &Connection,
    sql: &str,
    numbers: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, DamagedRow>,
) -> Result<Option<Result<T, DamagedRow>>, StoreError> {
    Ok(conn.query_row(sql, numbers, |found| Ok(read(found))).optional()?)
}
