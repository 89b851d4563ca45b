//! Verifying the chain of the audit trail in batches, and pruning it from the front.
//!
//! A batch is one snapshot of the file and says where the next one begins, so that a million lines
//! delay no card. Every fault is reported at its own line: the lines after it are compared with what
//! they were chained to.
//!
//! Pruning deletes the oldest lines; the anchor takes the place of the last of them, in the same
//! transaction. A line is kept, and all after it, while its entry waits or is parked.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::error::{Checked, InvalidCursor, StoreError};
use super::hash_chain::{self, ANCHOR, HEAD};

use super::row;
use crate::domain::{AuditKind, ChainBatch, ChainFault, ChainFaultKind, ChainPosition};

/// How many lines a batch has: some ten milliseconds.
pub(super) const BATCH_LINES: usize = 1000;

/// How many lines one transaction prunes: some ten milliseconds, between which cards are stored.
pub(super) const PRUNE_BATCH: usize = 500;

/// One run prunes this part of the trail at most, rounded up to a whole line.
const PRUNE_PART: usize = 10;

/// No line was written before this: a clock that said so had not been set.
const UNSET_BEFORE: &str = "2020";

/// The end of a batch: what the next line has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCursor {
    seq: i64,
    /// The last line's `chain` as stored, and as it should be: whichever the next one follows, the
    /// fault is not that one's. `None` where neither is known.
    hashes: Option<(String, String)>,
}

impl fmt::Display for ChainCursor {
    /// `seq`, or `seq.stored.computed`: what [`ChainCursor::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hashes {
            Some((stored, computed)) => write!(f, "{}.{stored}.{computed}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

impl FromStr for ChainCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('.').map(str::to_owned);
        let seq = parts.next().and_then(|seq| seq.parse().ok()).ok_or(InvalidCursor)?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Ok(Self { seq, hashes: None }),
            (Some(stored), Some(computed), None) => {
                Ok(Self { seq, hashes: Some((stored, computed)) })
            }
            (Some(_), ..) => Err(InvalidCursor),
        }
    }
}

impl From<&ChainPosition> for ChainCursor {
    fn from(position: &ChainPosition) -> Self {
        let ChainPosition { seq, hash, .. } = position;
        Self { seq: *seq, hashes: Some((hash.clone(), hash.clone())) }
    }
}

/// Verifies the next batch of the chain.
pub(super) fn verify_batch(
    conn: &Connection,
    after: Option<&ChainCursor>,
    limit: usize,
) -> Result<ChainBatch, StoreError> {
    verify_in_transaction(&conn.unchecked_transaction()?, after, limit)
}

fn verify_in_transaction(
    snapshot: &Transaction<'_>,
    after: Option<&ChainCursor>,
    limit: usize,
) -> Result<ChainBatch, StoreError> {
    let anchor = hash_chain::end(snapshot, ANCHOR)?;
    let head = hash_chain::end(snapshot, HEAD)?;
    let start = anchor.as_ref().map_or(ChainCursor { seq: 0, hashes: None }, ChainCursor::from);
    // After pruning between two batches, the batch begins at the new anchor.
    let after = after.filter(|after| after.seq >= start.seq);
    let mut verifier = ChainVerifier { last: start, at: None, lines: 0, faults: Vec::new() };
    if let Some(after) = after {
        verifier.last = after.clone();
        verifier.at = time_of(snapshot, after.seq)?;
    } else {
        verifier.at = anchor.as_ref().ok().and_then(|anchor| anchor.at);
        verifier.check_start(snapshot, &anchor)?;
    }
    let is_complete = verifier.check_lines(snapshot, limit)?;
    if is_complete {
        verifier.check_end(&head);
    }
    let next = (!is_complete).then(|| verifier.last.to_string());
    let ChainVerifier { lines, faults, .. } = verifier;
    Ok(ChainBatch { lines, faults, anchor: anchor.ok(), head: head.ok(), next })
}

/// The time of a line that an earlier batch verified.
fn time_of(conn: &Connection, seq: i64) -> Result<Option<Timestamp>, StoreError> {
    let found: Option<String> = conn
        .prepare_cached("SELECT at FROM audit WHERE seq = ?")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    Ok(found.and_then(|at| at.parse().ok()))
}

struct ChainVerifier {
    /// The line before, and its time as far as it is known.
    last: ChainCursor,
    at: Option<Timestamp>,
    lines: u64,
    faults: Vec<ChainFault>,
}

impl ChainVerifier {
    fn check_start(
        &mut self,
        conn: &Connection,
        anchor: &Checked<ChainPosition>,
    ) -> Result<(), StoreError> {
        if let Err(damage) = anchor {
            self.fault(ChainFaultKind::Boundary, (0, 0), format!("start of chain: {damage}"));
        }
        let sql = "SELECT min(seq), max(seq) FROM audit NOT INDEXED WHERE seq <= ?";
        let found: (Option<i64>, Option<i64>) =
            conn.query_row(sql, [self.last.seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let (Some(first), Some(last)) = found {
            let detail = "is before the pruning anchor".to_owned();
            self.fault(ChainFaultKind::Extra, (first, last), detail);
        }
        Ok(())
    }

    /// Verifies so many lines, and returns whether those were the last ones.
    fn check_lines(&mut self, conn: &Connection, limit: usize) -> Result<bool, StoreError> {
        let condition = format!("NOT INDEXED WHERE seq > ? ORDER BY seq LIMIT {limit}");
        let mut statement = conn.prepare_cached(&row::AUDIT.select(&condition))?;
        let mut rows = statement.query([self.last.seq])?;
        let mut seen = 0;
        while let Some(found) = rows.next()? {
            self.check_line(found)?;
            seen += 1;
        }
        self.lines += seen as u64;
        Ok(seen < limit)
    }

    fn check_line(&mut self, found: &Row<'_>) -> Result<(), StoreError> {
        let seq: i64 = found.get(0)?;
        let expected = self.last.seq.saturating_add(1);
        let gap = seq > expected;
        if gap {
            self.missing(expected, seq - 1);
        }
        self.at = found.get::<_, String>(1).ok().and_then(|at| at.parse().ok());
        let checksum = found.get_ref(row::AUDIT.checksum)?.as_bytes().unwrap_or_default();
        let stored: String = found.get(row::AUDIT.checksum + 1).unwrap_or_default();
        let computed = self.expected_hash(checksum, &stored);
        match row::AUDIT.read_row(found) {
            Err(damage) => self.changed(seq, &damage.reason),
            Ok(_) if !gap && computed.as_ref().is_some_and(|computed| *computed != stored) => {
                self.changed(seq, "its hash does not follow from the previous line");
            }
            Ok(line) if line.kind == AuditKind::ChainBreak => {
                self.fault(ChainFaultKind::Restarted, (seq, seq), line.detail);
            }
            Ok(_) => {}
        }
        // After lines that are gone, what this one should be is not known.
        let computed = computed.filter(|_| !gap).unwrap_or_else(|| stored.clone());
        self.last = ChainCursor { seq, hashes: Some((stored, computed)) };
        Ok(())
    }

    /// What the line's `chain` should be: the stored one, where it follows either from what is
    /// stored in the line before or from what should be stored there.
    fn expected_hash(&self, checksum: &[u8], stored: &str) -> Option<String> {
        let (before, should_be) = self.last.hashes.as_ref()?;
        let computed = row::next_hash(should_be, checksum);
        let follows_stored = before != should_be && row::next_hash(before, checksum) == stored;
        Some(if follows_stored { stored.to_owned() } else { computed })
    }

    fn check_end(&mut self, head: &Checked<ChainPosition>) {
        let last = self.last.seq;
        let head = match head {
            Ok(head) => head,
            Err(damage) => {
                let detail = format!("end of chain: {damage}");
                return self.fault(ChainFaultKind::Boundary, (last, last), detail);
            }
        };
        if head.seq > last {
            self.missing(last.saturating_add(1), head.seq);
        } else if head.seq < last {
            let detail = format!("is after the recorded last line {}", head.seq);
            self.fault(ChainFaultKind::Extra, (head.seq.saturating_add(1), last), detail);
        } else if self.last.hashes.as_ref().is_some_and(|(stored, _)| *stored != head.hash) {
            self.changed(last, "it is not the recorded last line");
        }
    }

    fn missing(&mut self, first: i64, last: i64) {
        let detail = if first == last { "is missing" } else { "are missing" };
        self.fault(ChainFaultKind::Missing, (first, last), detail.to_owned());
    }

    fn changed(&mut self, seq: i64, reason: &str) {
        let is_known = self.faults.last().is_some_and(|fault| {
            (fault.kind, fault.seq, fault.last) == (ChainFaultKind::Changed, seq, seq)
        });
        if !is_known {
            let detail = format!("was modified or moved: {reason}");
            self.fault(ChainFaultKind::Changed, (seq, seq), detail);
        }
    }

    fn fault(&mut self, kind: ChainFaultKind, (seq, last): (i64, i64), detail: String) {
        self.faults.push(ChainFault { kind, seq, last, at: self.at, detail });
    }
}

/// How many lines one run may prune.
pub(super) fn prune_limit(conn: &Connection) -> Result<usize, StoreError> {
    let anchor = hash_chain::sound_end(conn, ANCHOR)?;
    let lines = hash_chain::sound_end(conn, HEAD)?.seq.saturating_sub(anchor.seq);
    Ok(usize::try_from(lines).unwrap_or_default().div_ceil(PRUNE_PART))
}

/// Deletes the oldest lines that are older than `keep`, `limit` at most, and returns how many.
///
/// `now` is a moment that was surely reached. The age of a line counts from the newest line where
/// that is older. A line of a clock that was not set is as old as the next line.
pub(super) fn prune(
    tx: &Transaction<'_>,
    keep: Duration,
    now: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let anchor = hash_chain::sound_end(tx, ANCHOR)?;
    let newest = hash_chain::sound_end(tx, HEAD)?.at.unwrap_or(now);
    // Nothing is older than a time before all times.
    let before = now.min(newest).checked_sub(keep).map(row::instant).unwrap_or_default();
    let old = old_lines(tx, anchor.seq, &before, limit)?;
    let Some(last) = old.last() else { return Ok(0) };
    // Nothing can find these faults afterwards.
    let batch = verify_in_transaction(tx, None, old.len())?;
    for fault in batch.faults.iter().filter(|fault| fault.seq <= last.seq) {
        tracing::warn!(%fault, "Pruned an audit line that failed verification");
    }
    row::write_position(tx, ANCHOR, last)?;
    tx.prepare_cached("DELETE FROM audit WHERE seq <= ?")?.execute([last.seq])?;
    Ok(old.len())
}

/// The lines that may go, `limit` at most, up to the first that may not.
fn old_lines(
    tx: &Transaction<'_>,
    after: i64,
    before: &str,
    limit: usize,
) -> Result<Vec<ChainPosition>, StoreError> {
    let sql = "SELECT seq, at, chain, \
                      at < ?2 AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = audit.entry) \
               FROM audit NOT INDEXED WHERE seq > ?1 ORDER BY seq";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(params![after, before])?;
    let (mut old, mut seen, mut proven) = (Vec::new(), 0, 0);
    while proven < limit
        && let Some(found) = rows.next()?
        && found.get(3)?
    {
        seen += 1;
        let at: String = found.get(1).unwrap_or_default();
        if at.as_str() >= UNSET_BEFORE {
            proven = seen;
        }
        if old.len() < limit {
            // A cell that is no text was changed: `prune` logs the line.
            let hash = found.get(2).unwrap_or_default();
            old.push(ChainPosition { seq: found.get(0)?, at: at.parse().ok(), hash });
        }
    }
    old.truncate(proven);
    Ok(old)
}
