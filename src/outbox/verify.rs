//! Walking along the chain of the audit trail, piece by piece.
//!
//! A piece is one snapshot of the file and says where the next one begins, so that a million lines
//! hold nobody up. Every fault is told at the line that has it: the lines after it are compared
//! with what they were chained to.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::audit_query::InvalidCursor;
use super::error::StoreError;
use super::hash_chain::{self, ChainEnd};
use super::row::{self, DamagedRow};
use crate::domain::{AuditKind, ChainBatch, ChainFault, ChainFaultKind, ChainPosition};

/// How many lines one piece has: some ten milliseconds.
pub(super) const BATCH_LINES: usize = 1000;

/// The end of a piece: what the next line has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCursor {
    seq: i64,
    /// The last line's `chain` as it is stored, and as it should be: whichever the next one
    /// follows, the fault is not that one's. `None` where nothing is known.
    hashes: Option<(String, String)>,
}

impl fmt::Display for ChainCursor {
    /// `seq`, or `seq.stored.computed`: what [`ChainCursor::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seq)?;
        match &self.hashes {
            Some((stored, computed)) => write!(f, ".{stored}.{computed}"),
            None => Ok(()),
        }
    }
}

impl FromStr for ChainCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('.');
        let seq = parts.next().and_then(|seq| seq.parse().ok()).ok_or(InvalidCursor)?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Ok(Self { seq, hashes: None }),
            (Some(stored), Some(computed), None) => {
                Ok(Self { seq, hashes: Some((stored.to_owned(), computed.to_owned())) })
            }
            (Some(_), ..) => Err(InvalidCursor),
        }
    }
}

impl From<&ChainPosition> for ChainCursor {
    fn from(mark: &ChainPosition) -> Self {
        Self { seq: mark.seq, hashes: Some((mark.hash.clone(), mark.hash.clone())) }
    }
}

/// Looks along the next piece of the chain.
pub(super) fn verify_batch(
    conn: &Connection,
    after: Option<&ChainCursor>,
    limit: usize,
) -> Result<ChainBatch, StoreError> {
    let snapshot = conn.unchecked_transaction()?;
    verify_in_transaction(&snapshot, after, limit)
}

/// The same, within a transaction.
pub(super) fn verify_in_transaction(
    snapshot: &Transaction<'_>,
    after: Option<&ChainCursor>,
    limit: usize,
) -> Result<ChainBatch, StoreError> {
    let anchor = hash_chain::end(snapshot, ChainEnd::Anchor)?;
    let head = hash_chain::end(snapshot, ChainEnd::Head)?;
    let start = anchor.as_ref().map_or(ChainCursor { seq: 0, hashes: None }, ChainCursor::from);
    // What was pruned meanwhile is not looked for: the piece begins at the new anchor.
    let at_start = after.is_none_or(|after| after.seq < start.seq);
    let mut walk = ChainVerifier {
        place: after.filter(|_| !at_start).cloned().unwrap_or(start),
        at: anchor.as_ref().ok().and_then(|mark| mark.at),
        lines: 0,
        faults: Vec::new(),
    };
    if at_start {
        walk.begin(snapshot, &anchor)?;
    } else {
        walk.at = time_of(snapshot, walk.place.seq)?;
    }
    let whole = walk.along(snapshot, limit)?;
    if whole {
        walk.finish(&head);
    }
    let next = (!whole).then(|| walk.place.to_string());
    let ChainVerifier { lines, faults, .. } = walk;
    Ok(ChainBatch { lines, faults, anchor: anchor.ok(), head: head.ok(), next })
}

/// The time of a line that a piece before this one has looked at.
fn time_of(conn: &Connection, seq: i64) -> Result<Option<Timestamp>, StoreError> {
    let found: Option<String> = conn
        .prepare_cached("SELECT at FROM audit WHERE seq = ?")?
        .query_row([seq], |row| row.get(0))
        .optional()?;
    Ok(found.and_then(|at| at.parse().ok()))
}

struct ChainVerifier {
    /// The line before.
    place: ChainCursor,
    /// Its time, as far as it is known.
    at: Option<Timestamp>,
    lines: u64,
    faults: Vec<ChainFault>,
}

impl ChainVerifier {
    /// What comes before the first line.
    fn begin(
        &mut self,
        conn: &Connection,
        anchor: &Result<ChainPosition, DamagedRow>,
    ) -> Result<(), StoreError> {
        if let Err(damage) = anchor {
            self.fault(ChainFaultKind::Boundary, (0, 0), format!("start of chain: {damage}"));
        }
        let sql = "SELECT min(seq), max(seq) FROM audit NOT INDEXED WHERE seq <= ?";
        let found: (Option<i64>, Option<i64>) =
            conn.query_row(sql, [self.place.seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let (Some(first), Some(last)) = found {
            let detail = "is before the pruning anchor".to_owned();
            self.fault(ChainFaultKind::Extra, (first, last), detail);
        }
        Ok(())
    }

    /// Looks at this many lines, and tells whether those were the last ones.
    fn along(&mut self, conn: &Connection, limit: usize) -> Result<bool, StoreError> {
        let sql = format!(
            "SELECT {}, chain FROM audit NOT INDEXED WHERE seq > ? ORDER BY seq LIMIT {limit}",
            row::AUDIT
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([self.place.seq])?;
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
        let due = self.place.seq.saturating_add(1);
        let gap = seq > due;
        if gap {
            self.missing(due, seq - 1);
        }
        self.at = found.get::<_, String>(1).ok().and_then(|at| at.parse().ok());
        let seal = found.get_ref(6)?.as_bytes().unwrap_or_default().to_vec();
        let stored: String = found.get(7).unwrap_or_default();
        let line = row::line(found);
        let computed = self.follow(&seal, &stored);
        match (line, &computed) {
            (Err(damage), _) => self.changed(seq, &damage.reason),
            (Ok(_), Some(due)) if *due != stored && !gap => {
                self.changed(seq, "its hash does not follow from the previous line");
            }
            (Ok(line), _) if line.kind == AuditKind::ChainBreak => {
                self.fault(ChainFaultKind::Restarted, (seq, seq), line.detail);
            }
            (Ok(_), _) => {}
        }
        // After lines that are gone, what this one should be is not known.
        let computed = computed.filter(|_| !gap).unwrap_or_else(|| stored.clone());
        self.place = ChainCursor { seq, hashes: Some((stored, computed)) };
        Ok(())
    }

    /// What the line's `chain` should be: the stored one, where it follows either from what is
    /// stored in the line before or from what should be stored there.
    fn follow(&self, seal: &[u8], stored: &str) -> Option<String> {
        let (before, should_be) = self.place.hashes.as_ref()?;
        let computed = hash_chain::next_hash(should_be, seal);
        if computed == stored || before == should_be {
            return Some(computed);
        }
        let other = hash_chain::next_hash(before, seal);
        Some(if other == stored { other } else { computed })
    }

    /// What comes after the last line.
    fn finish(&mut self, head: &Result<ChainPosition, DamagedRow>) {
        let last = self.place.seq;
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
        } else if self.place.hashes.as_ref().is_some_and(|(stored, _)| *stored != head.hash) {
            self.changed(last, "it is not the recorded last line");
        }
    }

    fn missing(&mut self, first: i64, last: i64) {
        let detail = if first == last { "is missing" } else { "are missing" };
        self.fault(ChainFaultKind::Missing, (first, last), detail.to_owned());
    }

    fn changed(&mut self, seq: i64, why: &str) {
        let again = self.faults.last().is_some_and(|fault| {
            fault.kind == ChainFaultKind::Changed && fault.seq == seq && fault.last == seq
        });
        if !again {
            let detail = format!("was modified or moved: {why}");
            self.fault(ChainFaultKind::Changed, (seq, seq), detail);
        }
    }

    fn fault(&mut self, kind: ChainFaultKind, (seq, last): (i64, i64), detail: String) {
        self.faults.push(ChainFault { kind, seq, last, at: self.at, detail });
    }
}
