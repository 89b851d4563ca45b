//! Audit lines that end no entry, in a budget of their own: they never take an entry's room.
//!
//! Such a line names no card id. Once there are as many as there may be, one line says that no more
//! are written, further ones are refused and counted, and the first that fits after pruning comes
//! with a line that tells the count. The count is in memory: a restart begins a new one.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use super::error::{FullReason, StoreError};
use super::hash_chain;
use crate::domain::AuditLine;

/// Notes in the file, and those that had no room.
#[derive(Debug, Default)]
pub(super) struct NoteLimits {
    /// How many are in the file, where that is known.
    count: Option<u64>,
    refused: u64,
    /// When the first and the last refused one were due.
    span: Option<(Timestamp, Timestamp)>,
}

impl NoteLimits {
    /// How many are in the file.
    pub(super) fn count(&mut self, conn: &Connection) -> u64 {
        *self.count.get_or_insert_with(|| in_file(conn))
    }

    /// Has them counted again: lines were removed.
    pub(super) const fn forget_count(&mut self) {
        self.count = None;
    }

    /// Adds a note, and what has to be said before and after it.
    pub(super) fn append(
        &mut self,
        tx: &Transaction<'_>,
        line: &AuditLine,
        max: u64,
    ) -> Result<NoteCounts, StoreError> {
        let mut count = self.count(tx);
        if count >= max {
            self.refuse(line.at);
            return Err(StoreError::Full(FullReason::Notes));
        }
        if let Some(span) = self.span {
            let resumed = AuditLine::notes_resumed(&line.station, line.at, self.refused, span);
            hash_chain::append(tx, &resumed)?;
            count += 1;
        }
        hash_chain::append(tx, line)?;
        count += 1;
        // The last place is for the line that says so.
        if count + 1 >= max {
            hash_chain::append(tx, &AuditLine::notes_stopped(&line.station, line.at))?;
            count = max.max(count + 1);
        }
        Ok(NoteCounts(count))
    }

    /// What was added is on disk.
    pub(super) fn added(&mut self, NoteCounts(count): NoteCounts, max: u64) {
        if count >= max {
            tracing::warn!(notes = count, "Audit trail has no room for notes; entries go on");
        }
        *self = Self { count: Some(count), ..Self::default() };
    }

    fn refuse(&mut self, at: Timestamp) {
        self.refused += 1;
        let first = self.span.map_or(at, |(first, _)| first);
        self.span = Some((first, at));
        if self.refused.is_power_of_two() {
            tracing::warn!(refused = self.refused, "Audit trail has no room for notes");
        }
    }
}

/// How many notes there are with one that is not committed yet.
#[must_use]
pub(super) struct NoteCounts(u64);

/// Counts the notes in a file, along its indices. One that cannot be counted has none: the check
/// of the file, not this, tells that it is damaged.
pub(super) fn in_file(conn: &Connection) -> u64 {
    let sql = "SELECT (SELECT count(*) FROM audit) - \
                      (SELECT count(*) FROM audit WHERE card IS NOT NULL)";
    let counted: Result<i64, _> = conn.query_row(sql, [], |row| row.get(0));
    counted.ok().and_then(|count| count.try_into().ok()).unwrap_or_default()
}
