//! Forgetting the oldest audit lines, from the front, so that the chain still verifies.
//!
//! The anchor takes the place of the last line that goes, in the transaction that deletes it. A
//! line stays, and all after it, while its entry waits for CM or for a person.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::error::StoreError;
use super::hash_chain::{self, ChainEnd};
use super::{row, verify};
use crate::domain::ChainPosition;

/// How many lines go in one transaction: some ten milliseconds, between which cards are stored.
pub(super) const BATCH: usize = 500;

/// One run forgets this part of the trail at most, rounded up to a whole line.
const PART: usize = 10;

/// Before this no line was written: a clock that says so had not been set.
const UNSET_BEFORE: &str = "2020";

/// How many lines one run may forget.
pub(super) fn batch_limit(tx: &Transaction<'_>) -> Result<usize, StoreError> {
    let lost = |damage| StoreError::Lost(Box::new(damage));
    let (anchor, head) =
        (hash_chain::end(tx, ChainEnd::Anchor)?, hash_chain::end(tx, ChainEnd::Head)?);
    let lines = head.map_err(lost)?.seq.saturating_sub(anchor.map_err(lost)?.seq);
    Ok(usize::try_from(lines).unwrap_or_default().div_ceil(PART))
}

/// Removes the oldest lines that are older than `keep`, `most` at once, and tells how many.
///
/// `now` is a moment that a witness says was reached. How old a line is counts from the newest one where
/// that is older. A line of a clock that was not set is as old as the next line.
pub(super) fn batch(
    tx: &Transaction<'_>,
    keep: Duration,
    now: Timestamp,
    most: usize,
) -> Result<usize, StoreError> {
    let lost = |damage| StoreError::Lost(Box::new(damage));
    let anchor = hash_chain::end(tx, ChainEnd::Anchor)?.map_err(lost)?;
    let newest = hash_chain::end(tx, ChainEnd::Head)?.map_err(lost)?.at.unwrap_or(now);
    // A time before all times: nothing is that old.
    let before = now.min(newest).checked_sub(keep).map(row::instant).unwrap_or_default();
    let old = old_lines(tx, anchor.seq, &before, most)?;
    let Some(last) = old.last() else { return Ok(0) };
    log_faults(tx, last.seq, old.len())?;
    row::upsert_mark(tx, ChainEnd::Anchor, last)?;
    tx.prepare_cached("DELETE FROM audit WHERE seq <= ?")?.execute([last.seq])?;
    Ok(old.len())
}

/// The lines that may go, `most` at most, up to the first that may not.
fn old_lines(
    tx: &Transaction<'_>,
    after: i64,
    before: &str,
    most: usize,
) -> Result<Vec<ChainPosition>, StoreError> {
    let sql = "SELECT seq, at, chain, \
                      at < ?2 AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = audit.entry) \
               FROM audit NOT INDEXED WHERE seq > ?1 ORDER BY seq";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, before])?;
    let (mut old, mut seen, mut proven) = (Vec::new(), 0, 0);
    while proven < most
        && let Some(found) = rows.next()?
        && found.get(3)?
    {
        seen += 1;
        let at: String = found.get(1).unwrap_or_default();
        if at.as_str() >= UNSET_BEFORE {
            proven = seen;
        }
        if old.len() < most {
            // A cell that is no text was changed; `report_faults` names the line.
            let hash = found.get(2).unwrap_or_default();
            old.push(ChainPosition { seq: found.get(0)?, at: at.parse().ok(), hash });
        }
    }
    old.truncate(proven);
    Ok(old)
}

/// What is wrong with lines that go: after this nobody can find it.
fn log_faults(tx: &Transaction<'_>, last: i64, lines: usize) -> Result<(), StoreError> {
    let piece = verify::verify_in_transaction(tx, None, lines)?;
    for fault in piece.faults.iter().filter(|fault| fault.seq <= last) {
        tracing::warn!(%fault, "Pruned an audit line that failed verification");
    }
    Ok(())
}
