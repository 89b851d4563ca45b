//! The chain over the audit lines: what was changed, removed or put in between can be told.
//!
//! `audit.chain` of a line is SHA-256 over the `chain` of the line before it, as the 64 hex digits
//! that it is written in, and over this line's own seal, its 32 bytes; and the seal is SHA-256 over
//! everything that the line says (`row.rs`). Numbers have no gaps. Two rows of the table `chain`,
//! sealed like every row, say where it begins and ends:
//!
//! ```text
//! anchor  the last line that was pruned (number, time, chain); number 0 and 64 zeros before that
//! head    the newest line; the anchor's values where there is none
//! ```
//!
//! The chain finds accidents, and acts of people who do not compute it anew from there to the end.
//! Who may write the file can do that: against them, keep a head elsewhere (`docs/decisions/0011`).

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::error::StoreError;
use super::row::{self, DamagedRow};
use crate::domain::{AuditLine, ChainPosition};

/// What the first line of all follows.
pub(super) const GENESIS_HASH: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// One of the two ends of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainEnd {
    /// The last line that was pruned.
    Anchor,
    /// The newest line.
    Head,
}

impl ChainEnd {
    /// Its name in the file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Head => "head",
        }
    }
}

/// The end of a chain without lines.
pub(super) fn origin() -> ChainPosition {
    ChainPosition { seq: 0, at: None, hash: GENESIS_HASH.to_owned() }
}

/// What a line's `chain` is, given that of the line before and its own seal.
pub(super) fn next_hash(before: &str, seal: &[u8]) -> String {
    hex::encode(row::digest(&[before.as_bytes(), seal]))
}

/// An end, as far as it can be believed.
pub(super) fn end(
    conn: &Connection,
    end: ChainEnd,
) -> Result<Result<ChainPosition, DamagedRow>, StoreError> {
    let sql = format!("SELECT {} FROM chain WHERE place = ?", row::CHAIN);
    let found = conn
        .prepare_cached(&sql)?
        .query_row([end.name()], |found| Ok(row::mark(found)))
        .optional()?;
    Ok(found.unwrap_or_else(|| {
        let why = "it is missing".to_owned();
        Err(DamagedRow { table: "chain", row: end.name().to_owned(), reason: why })
    }))
}

/// Adds a line at the head.
pub(super) fn append(tx: &Transaction<'_>, line: &AuditLine) -> Result<(), StoreError> {
    // A head that cannot be believed is no end to go on from: the next start mends the file.
    let head = end(tx, ChainEnd::Head)?.map_err(|damage| StoreError::Lost(Box::new(damage)))?;
    // A line that stands beyond it, where none should be, is not in the way.
    let last: Option<i64> =
        tx.prepare_cached("SELECT max(seq) FROM audit")?.query_row([], |row| row.get(0))?;
    let seq = last.unwrap_or(0).max(head.seq).saturating_add(1);
    let hash = row::insert_line(tx, seq, line, |seal| next_hash(&head.hash, seal))?;
    row::upsert_mark(tx, ChainEnd::Head, &ChainPosition { seq, at: Some(line.at), hash })
}

/// Chains the lines that version 1 wrote, as they are, and writes both ends.
pub(super) fn init(tx: &Transaction<'_>) -> Result<(), StoreError> {
    row::upsert_mark(tx, ChainEnd::Anchor, &origin())?;
    let head = chain_the_unchained(tx)?;
    row::upsert_mark(tx, ChainEnd::Head, &head)
}

/// Chains lines that have no `chain`, and tells the last line of all.
pub(super) fn chain_the_unchained(tx: &Transaction<'_>) -> Result<ChainPosition, StoreError> {
    let mut head = origin();
    loop {
        let next = tx
            .prepare_cached(
                "SELECT seq, at, seal, chain FROM audit WHERE seq > ? ORDER BY seq LIMIT 1",
            )?
            .query_row([head.seq], |found| {
                let at: String = found.get(1)?;
                let seal: Vec<u8> = found.get(2)?;
                let mut hash: String = found.get(3)?;
                if hash.is_empty() {
                    hash = next_hash(&head.hash, &seal);
                }
                Ok(ChainPosition { seq: found.get(0)?, at: at.parse().ok(), hash })
            })
            .optional()?;
        let Some(line) = next else { return Ok(head) };
        tx.prepare_cached("UPDATE audit SET chain = ? WHERE seq = ? AND chain = ''")?
            .execute(params![line.hash, line.seq])?;
        head = line;
    }
}
