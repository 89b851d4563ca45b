//! How large the file may become, so that settling goes on where appending has to stop.
//!
//! An outbox that is full must still settle what it holds: otherwise what CM has confirmed could
//! not be marked as done. Hence two limits, in bytes:
//!
//! ```text
//! soft = max_entries * 2 KiB + 1 GiB        appending, retrying and noting stop here
//! hard = soft + max_entries * 2 KiB + 1 MiB    PRAGMA max_page_count: nothing grows beyond
//! ```
//!
//! An entry takes about 1 KiB, an audit line too; 2 KiB leave room for indices and half-empty
//! pages. The 1 GiB is for the audit trail, about a million cards. Between soft and hard every
//! entry that is there finds room for its last line. For the default of 100,000 entries the
//! file never grows beyond 1.4 GiB.

use rusqlite::Connection;

use super::error::{OpenError, Shortage, StoreError};

const ENTRY_BYTES: u64 = 2 << 10;
const LINE_BYTES: u64 = 2 << 10;
const TRAIL_BYTES: u64 = 1 << 30;
const RESERVE_BYTES: u64 = 1 << 20;

/// What the file may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Entries, waiting and parked.
    pub(super) max_entries: usize,
    /// Bytes in use from which on nothing new is taken.
    pub(super) soft: u64,
    /// Bytes of the file that are never exceeded.
    pub(super) hard: u64,
}

impl Budget {
    /// The budget for this many entries.
    pub(super) fn of(max_entries: usize) -> Self {
        let entries = u64::try_from(max_entries).unwrap_or(u64::MAX);
        let soft = entries.saturating_mul(ENTRY_BYTES).saturating_add(TRAIL_BYTES);
        let hard =
            soft.saturating_add(entries.saturating_mul(LINE_BYTES)).saturating_add(RESERVE_BYTES);
        Self { max_entries, soft, hard }
    }

    /// Has SQLite hold the hard limit. It is a property of the connection, not of the file.
    pub(super) fn impose(&self, conn: &Connection) -> Result<(), OpenError> {
        let pages = (self.hard / page_size(conn)?).clamp(1, u64::from(u32::MAX - 1));
        let held: u32 =
            conn.pragma_update_and_check(None, "max_page_count", pages.cast_signed(), |row| {
                row.get(0)
            })?;
        if u64::from(held) > pages {
            tracing::warn!(pages = held, limit = pages, "Outbox is larger than it may be");
        }
        Ok(())
    }

    /// Whether one more entry or line may come, seen from inside the transaction that adds it.
    pub(super) fn allow(&self, conn: &Connection) -> Result<(), StoreError> {
        let pages: u32 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let free: u32 = conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        let used = u64::from(pages.saturating_sub(free)) * page_size(conn)?;
        if used < self.soft { Ok(()) } else { Err(StoreError::Full(Shortage::Budget)) }
    }
}

fn page_size(conn: &Connection) -> Result<u64, rusqlite::Error> {
    let bytes: u32 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(bytes.into())
}
