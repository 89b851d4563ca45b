//! How large the file may become, so that settling continues where appending has to stop.
//!
//! An outbox that is full must still settle its entries: otherwise what CM confirmed could not be
//! marked as done. Hence two limits, in bytes:
//!
//! ```text
//! soft = max_entries * 2 KiB + 1 GiB + notes * 2 KiB    appending and retrying stop here
//! hard = soft with all notes + max_entries * 2 KiB + 1 MiB    PRAGMA max_page_count
//! ```
//!
//! An entry takes about 1 KiB, an audit line too; 2 KiB leave room for indices and half-empty
//! pages. The 1 GiB is for the audit trail, about a million cards. Between soft and hard every
//! stored entry finds room for its last line. With 100,000 entries the file never grows beyond 1.6 GiB.
//!
//! Notes are audit lines that end no entry and name no card id: 65,536 at most. Each adds its own room
//! to both limits, also in a file of an earlier version that has more of them, so that notes never
//! take an entry's room. At their limit one line says so, further notes are refused and counted, and
//! the first that fits after pruning follows a line with the count. A restart forgets the count.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use super::error::{FullReason, OpenError, StoreError};
use super::hash_chain;
use crate::domain::AuditLine;

const ENTRY_BYTES: u64 = 2 << 10;
const LINE_BYTES: u64 = 2 << 10;
const TRAIL_BYTES: u64 = 1 << 30;
/// Some months of notes, at the rate of a station whose cards all fail.
const MAX_NOTES: u64 = 1 << 16;
const RESERVE_BYTES: u64 = 1 << 20;

/// What the file may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeLimits {
    /// Entries, waiting and parked.
    pub(super) max_entries: usize,
    /// Bytes in use from which on nothing new is stored, without those of notes.
    pub(super) soft: u64,
    /// Bytes of the file that are never exceeded, without those of notes.
    pub(super) hard: u64,
    pub(super) max_notes: u64,
}

impl SizeLimits {
    /// The limits for this many entries.
    pub(super) fn of(max_entries: usize) -> Self {
        let entries = u64::try_from(max_entries).unwrap_or(u64::MAX);
        let soft = entries.saturating_mul(ENTRY_BYTES).saturating_add(TRAIL_BYTES);
        let hard =
            soft.saturating_add(entries.saturating_mul(LINE_BYTES)).saturating_add(RESERVE_BYTES);
        Self { max_entries, soft, hard, max_notes: MAX_NOTES }
    }

    /// Sets the hard limit, which is a property of the connection, not of the file.
    pub(super) fn apply_hard_limit(&self, conn: &Connection) -> Result<(), OpenError> {
        let notes = count_notes(conn).max(self.max_notes).saturating_mul(LINE_BYTES);
        let limit = self.hard.saturating_add(notes);
        let pages = (limit / page_size(conn)?).clamp(1, u64::from(u32::MAX - 1)).cast_signed();
        let held: i64 =
            conn.pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))?;
        if held > pages {
            tracing::warn!(pages = held, limit = pages, "Outbox file exceeds its size limit");
        }
        Ok(())
    }

    /// Whether one more entry fits beside so many notes, in the transaction that adds it.
    pub(super) fn check_soft_limit(&self, conn: &Connection, notes: u64) -> Result<(), StoreError> {
        let pages: u32 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let free: u32 = conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        let used = u64::from(pages.saturating_sub(free)) * page_size(conn)?;
        let soft = self.soft.saturating_add(notes.saturating_mul(LINE_BYTES));
        if used < soft { Ok(()) } else { Err(StoreError::Full(FullReason::FileSize)) }
    }
}

fn page_size(conn: &Connection) -> Result<u64, rusqlite::Error> {
    let bytes: u32 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(bytes.into())
}

/// Notes in the file, and those that were refused.
#[derive(Debug, Default)]
pub(super) struct NoteLimits {
    /// How many are in the file, where that is known.
    count: Option<u64>,
    refused: u64,
    /// The times of the first and the last refused one.
    span: Option<(Timestamp, Timestamp)>,
}

impl NoteLimits {
    /// How many are in the file.
    pub(super) fn count(&mut self, conn: &Connection) -> u64 {
        *self.count.get_or_insert_with(|| count_notes(conn))
    }

    /// To be called after lines were deleted: the notes are counted again.
    pub(super) const fn forget_count(&mut self) {
        self.count = None;
    }

    /// Adds a note, and the lines due before and after it. Returns how many there are once the
    /// transaction is committed, for [`Self::on_committed`].
    pub(super) fn append(
        &mut self,
        tx: &Transaction<'_>,
        line: &AuditLine,
        max: u64,
    ) -> Result<u64, StoreError> {
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
        Ok(count)
    }

    pub(super) fn on_committed(&mut self, count: u64, max: u64) {
        if count >= max {
            tracing::warn!(notes = count, "Audit trail has no room for notes; entries continue");
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

/// Counts the notes in a file, along its indices. 0 where it cannot: another check reports damage.
fn count_notes(conn: &Connection) -> u64 {
    let sql = "SELECT (SELECT count(*) FROM audit) - \
                      (SELECT count(*) FROM audit WHERE card IS NOT NULL)";
    let counted: Result<i64, _> = conn.query_row(sql, [], |row| row.get(0));
    counted.ok().and_then(|count| count.try_into().ok()).unwrap_or_default()
}
