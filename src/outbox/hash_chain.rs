//! The chain over the audit lines: it shows that no line was changed, removed or put in between.
//!
//! `audit.chain` of a line is SHA-256 over the `chain` of the line before it, as the 64 hex digits
//! that it is written in, and over this line's own `seal`, 32 bytes; and the seal is SHA-256 over
//! all of the line (`row.rs`). Numbers have no gaps. Two rows of the table `chain` are its ends:
//!
//! ```text
//! anchor  the last line that was pruned (number, time, chain); number 0 and 64 zeros before that
//! head    the newest line; the anchor's values where there is none
//! ```
//!
//! The chain finds accidents, and changes by users who do not compute it again to the end. A user
//! who can write the file can do that: against them, keep a head elsewhere (`docs/decisions/0011`).
//! The log is such a place: a user who can write the outbox's file cannot write the journal too.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::error::{Checked, DamagedRow, StoreError};
use super::row;
use crate::domain::{AuditLine, ChainPosition};

/// The hash before the first line.
const GENESIS_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The last line that was pruned.
pub(super) const ANCHOR: &str = "anchor";
/// The newest line.
pub(super) const HEAD: &str = "head";

/// The head is logged once every so many lines.
const LINES_PER_LOGGED_HEAD: i64 = 1000;

/// The end of a chain without lines.
fn origin() -> ChainPosition {
    ChainPosition { seq: 0, at: None, hash: GENESIS_HASH.to_owned() }
}

/// An end, unless its row is damaged.
pub(super) fn end(conn: &Connection, name: &str) -> Result<Checked<ChainPosition>, StoreError> {
    let missing = || {
        let reason = "it is missing".to_owned();
        Err(DamagedRow { table: row::CHAIN.name, row: name.to_owned(), reason })
    };
    Ok(row::CHAIN.find_one(conn, "WHERE place = ?", [name])?.unwrap_or_else(missing))
}

/// An end; [`StoreError::Lost`] where its row is damaged: the next start repairs the file.
pub(super) fn sound_end(conn: &Connection, name: &str) -> Result<ChainPosition, StoreError> {
    end(conn, name)?.map_err(|damage| StoreError::Lost(Box::new(damage)))
}

/// Adds a line at the head.
pub(super) fn append(tx: &Transaction<'_>, line: &AuditLine) -> Result<(), StoreError> {
    let head = sound_end(tx, HEAD)?;
    // A line beyond the head, where none should be, does not block the new one.
    let last: Option<i64> =
        tx.prepare_cached("SELECT max(seq) FROM audit")?.query_row([], |row| row.get(0))?;
    let seq = last.unwrap_or(0).max(head.seq).saturating_add(1);
    let hash = row::insert_line(tx, seq, line, &head.hash)?;
    row::write_position(tx, HEAD, &ChainPosition { seq, at: Some(line.at), hash })
}

/// Chains the lines that version 1 wrote, unchanged, and writes both ends.
pub(super) fn init(tx: &Transaction<'_>) -> Result<(), StoreError> {
    row::write_position(tx, ANCHOR, &origin())?;
    let head = chain_the_unchained(tx)?;
    row::write_position(tx, HEAD, &head)
}

/// Chains lines that have no `chain`, and returns the last line of all.
pub(super) fn chain_the_unchained(tx: &Transaction<'_>) -> Result<ChainPosition, StoreError> {
    let sql = "SELECT seq, at, seal, chain FROM audit WHERE seq > ? ORDER BY seq LIMIT 1";
    let mut head = origin();
    loop {
        let next = tx.prepare_cached(sql)?.query_row([head.seq], |found| {
            let (seq, at): (_, String) = (found.get(0)?, found.get(1)?);
            let (checksum, mut hash): (Vec<u8>, String) = (found.get(2)?, found.get(3)?);
            if hash.is_empty() {
                hash = row::next_hash(&head.hash, &checksum);
            }
            Ok(ChainPosition { seq, at: at.parse().ok(), hash })
        });
        let Some(line) = next.optional()? else { return Ok(head) };
        tx.prepare_cached("UPDATE audit SET chain = ? WHERE seq = ? AND chain = ''")?
            .execute(params![line.hash, line.seq])?;
        head = line;
    }
}

/// Logs the head each time that it passes a multiple of 1,000.
#[derive(Debug)]
pub(super) struct HeadLog {
    /// The number of the head at the last commit.
    seen: i64,
}

impl HeadLog {
    pub(super) fn new(conn: &Connection) -> Result<Self, StoreError> {
        Ok(Self { seen: sound_end(conn, HEAD)?.seq })
    }

    /// Returns whether the head was logged.
    pub(super) fn on_commit(&mut self, conn: &Connection) -> bool {
        let Ok(head) = sound_end(conn, HEAD) else { return false };
        let seen = std::mem::replace(&mut self.seen, head.seq);
        let is_due = head.seq / LINES_PER_LOGGED_HEAD > seen / LINES_PER_LOGGED_HEAD;
        if is_due {
            log_head(&head);
        }
        is_due
    }
}

/// Logs the head, if there is any line.
pub(super) fn log_head(head: &ChainPosition) {
    if head.seq != 0 {
        let at = head.at.map(|at| at.to_string());
        tracing::info!(seq = head.seq, chain = head.hash, at, "Audit trail head");
    }
}
