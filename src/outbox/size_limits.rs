//! How large the file may become, so that settling goes on where appending has to stop.
//!
//! An outbox that is full must still settle what it holds: otherwise what CM has confirmed could
//! not be marked as done. Hence two limits, in bytes:
//!
//! ```text
//! soft = max_entries * 2 KiB + 1 GiB + notes * 2 KiB    appending and retrying stop here
//! hard = soft with all notes + max_entries * 2 KiB + 1 MiB    PRAGMA max_page_count
//! ```
//!
//! Notes are audit lines that end no entry (`notes.rs`): 65,536 at most. Each that is there adds its
//! own room to both limits, so that notes never take the room of entries, in a file of an earlier
//! version that has more of them either.
//!
//! An entry takes about 1 KiB, an audit line too; 2 KiB leave room for indices and half-empty
//! pages. The 1 GiB is for the audit trail, about a million cards. Between soft and hard every
//! entry that is there finds room for its last line. For the default of 100,000 entries the
//! file never grows beyond 1.6 GiB.

use rusqlite::Connection;

use super::error::{FullReason, OpenError, StoreError};
use super::note_limits;

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
    /// Bytes in use from which on nothing new is taken, but for those of notes.
    pub(super) soft: u64,
    /// Bytes of the file that are never exceeded, but for those of notes.
    pub(super) hard: u64,
    /// Audit lines that end no entry.
    pub(super) max_notes: u64,
}

impl SizeLimits {
    /// The budget for this many entries.
    pub(super) fn of(max_entries: usize) -> Self {
        let entries = u64::try_from(max_entries).unwrap_or(u64::MAX);
        let soft = entries.saturating_mul(ENTRY_BYTES).saturating_add(TRAIL_BYTES);
        let hard =
            soft.saturating_add(entries.saturating_mul(LINE_BYTES)).saturating_add(RESERVE_BYTES);
        Self { max_entries, soft, hard, max_notes: MAX_NOTES }
    }

    /// Has SQLite hold the hard limit. It is a property of the connection, not of the file.
    pub(super) fn apply_hard_limit(&self, conn: &Connection) -> Result<(), OpenError> {
        let notes = note_limits::in_file(conn).max(self.max_notes).saturating_mul(LINE_BYTES);
        let limit = self.hard.saturating_add(notes);
        let pages = (limit / page_size(conn)?).clamp(1, u64::from(u32::MAX - 1));
        let held: u32 =
            conn.pragma_update_and_check(None, "max_page_count", pages.cast_signed(), |row| {
                row.get(0)
            })?;
        if u64::from(held) > pages {
            tracing::warn!(pages = held, limit = pages, "Outbox file exceeds its size limit");
        }
        Ok(())
    }

    /// Whether one more entry may come where so many notes are, seen from inside the transaction
    /// that adds it.
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
