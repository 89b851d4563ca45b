//! Forgetting the oldest audit lines, from the front, so that the chain still verifies.
//!
//! The anchor takes the place of the last line that goes, in the transaction that deletes it. A
//! line stays, and all after it, while its entry waits for CM or for a person.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::chain::{self, End};
use super::error::StoreError;
use super::{row, verify};
use crate::domain::ChainMark;

/// How many lines go in one transaction: some ten milliseconds, between which cards are stored.
pub(super) const BATCH: usize = 500;

/// Removes the oldest lines that are older than `keep`, `most` at once, and tells how many.
///
/// How old a line is counts from the newest one where the clock is ahead of that: a clock that
/// jumps forward makes nothing old.
pub(super) fn batch(
    tx: &Transaction<'_>,
    keep: Duration,
    now: Timestamp,
    most: usize,
) -> Result<usize, StoreError> {
    let lost = |damage| StoreError::Lost(Box::new(damage));
    let anchor = chain::end(tx, End::Anchor)?.map_err(lost)?;
    let newest = chain::end(tx, End::Head)?.map_err(lost)?.at.unwrap_or(now);
    // A time before all times: nothing is that old.
    let before = now.min(newest).checked_sub(keep).map(row::instant).unwrap_or_default();
    let old = old_lines(tx, anchor.seq, &before, most)?;
    let Some(last) = old.last() else { return Ok(0) };
    tell_faults(tx, last.seq, old.len())?;
    row::upsert_mark(tx, End::Anchor, last)?;
    tx.prepare_cached("DELETE FROM audit WHERE seq <= ?")?.execute([last.seq])?;
    Ok(old.len())
}

/// The lines that may go, up to the first that may not.
fn old_lines(
    tx: &Transaction<'_>,
    after: i64,
    before: &str,
    most: usize,
) -> Result<Vec<ChainMark>, StoreError> {
    let sql = "SELECT seq, at, chain, \
                      at < ?2 AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = audit.entry) \
               FROM audit NOT INDEXED WHERE seq > ?1 ORDER BY seq LIMIT ?3";
    let mut statement = tx.prepare_cached(sql)?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after, before, most])?;
    let mut old = Vec::new();
    while let Some(found) = rows.next()? {
        if !found.get(3)? {
            break;
        }
        let at: String = found.get(1)?;
        old.push(ChainMark { seq: found.get(0)?, at: at.parse().ok(), hash: found.get(2)? });
    }
    Ok(old)
}

/// What is wrong with lines that go: after this nobody can find it.
fn tell_faults(tx: &Transaction<'_>, last: i64, lines: usize) -> Result<(), StoreError> {
    let piece = verify::along(tx, None, lines)?;
    for fault in piece.faults.iter().filter(|fault| fault.seq <= last) {
        tracing::warn!(%fault, "Audit line is pruned that was not as written");
    }
    Ok(())
}
