//! Reading the audit trail, page by page, so that a million lines cost the memory of one page.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::error::StoreError;
use super::row::{self, DamagedRow};
use crate::domain::{AuditLine, AuditRecord, CardId, ChainPosition};

/// The most lines that one page has: about 1 MB.
pub const MAX_PAGE_LINES: usize = 1000;

/// Which lines of the audit trail are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFilter {
    /// Lines of this instant and later.
    pub since: Option<Timestamp>,
    /// Lines before this instant.
    pub until: Option<Timestamp>,
    /// Lines about this card.
    pub card: Option<CardId>,
    /// Where the page before ended.
    pub after: Option<AuditCursor>,
    /// How many lines the page has at most; 1 to [`MAX_PAGE_LINES`] are heeded.
    pub limit: usize,
}

impl Default for AuditFilter {
    /// Every line, in the largest pages.
    fn default() -> Self {
        Self { since: None, until: None, card: None, after: None, limit: MAX_PAGE_LINES }
    }
}

/// The end of a page: what the next one starts after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCursor {
    at: String,
    seq: i64,
}

impl fmt::Display for AuditCursor {
    /// `seq@at`: what [`AuditCursor::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.seq, self.at)
    }
}

impl FromStr for AuditCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (seq, at) = text.split_once('@').ok_or(InvalidCursor)?;
        Ok(Self { at: at.to_owned(), seq: seq.parse().map_err(|_| InvalidCursor)? })
    }
}

/// A text that is no [`AuditCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid audit cursor")]
pub struct InvalidCursor;

/// One page of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditPage {
    /// The lines, the oldest first; lines of one instant in the order in which they were written.
    pub lines: Vec<AuditRecord>,
    /// Lines of this page that were skipped.
    pub damaged: Vec<DamagedRow>,
    /// What to ask for next, even if only to learn that nothing is left; `None` at the end.
    pub next: Option<AuditCursor>,
}

/// Read through `audit_card` or `audit_at`, both of which end in `seq`: no sorting.
pub(super) const OF_CARD: &str = "SELECT seq, at, outcome, card, entry, line, seal, chain FROM audit \
    WHERE card = :card AND (at, seq) > (:at, :seq) AND at < :until ORDER BY at, seq LIMIT :limit";
pub(super) const OF_ALL: &str = "SELECT seq, at, outcome, card, entry, line, seal, chain FROM audit \
    WHERE :card IS NULL AND (at, seq) > (:at, :seq) AND at < :until ORDER BY at, seq LIMIT :limit";

/// Greater than every instant's text.
const FOREVER: &str = "~";

/// The page that the filter asks for.
pub(super) fn page(conn: &Connection, filter: &AuditFilter) -> Result<StoredAuditPage, StoreError> {
    let limit = filter.limit.clamp(1, MAX_PAGE_LINES);
    let start = start(filter);
    let sql = if filter.card.is_some() { OF_CARD } else { OF_ALL };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(named_params! {
        ":card": filter.card.map(|card| card.to_string()),
        ":at": start.at,
        ":seq": start.seq,
        ":until": filter.until.map_or_else(|| FOREVER.to_owned(), row::instant),
        ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
    })?;

    let mut page = StoredAuditPage { lines: Vec::new(), damaged: Vec::new(), next: None };
    let mut last = None;
    while let Some(found) = rows.next()? {
        last = Some(cursor(found));
        match row::line(found) {
            Ok(line) => {
                // The seal does not cover the chain: `verify` looks at it.
                let chain = found.get(7).unwrap_or_default();
                page.lines.push(AuditRecord { line, seq: found.get(0)?, chain });
            }
            Err(damage) => page.damaged.push(damage),
        }
    }
    if page.lines.len() + page.damaged.len() == limit {
        page.next = last;
    }
    Ok(page)
}

/// The place in the chain of the line with this number, if there is one.
pub(super) fn mark(conn: &Connection, seq: i64) -> Result<Option<ChainPosition>, StoreError> {
    let found = conn
        .prepare_cached("SELECT seq, at, chain FROM audit WHERE seq = ?")?
        .query_row([seq], |row| {
            // No seal is looked at here: a cell that is no text is one that differs.
            let at: String = row.get(1).unwrap_or_default();
            let hash = row.get(2).unwrap_or_default();
            Ok(ChainPosition { seq: row.get(0)?, at: at.parse().ok(), hash })
        })
        .optional()?;
    Ok(found)
}

/// The newest lines, the newest first.
pub(super) fn latest(
    conn: &Connection,
    lines: usize,
) -> Result<Vec<Result<AuditLine, DamagedRow>>, rusqlite::Error> {
    let sql = format!("SELECT {} FROM audit ORDER BY seq DESC LIMIT {lines}", row::AUDIT);
    conn.prepare(&sql)?.query_map([], |found| Ok(row::line(found)))?.collect()
}

/// Numbers start at 1: before the first line of an instant is after its number 0.
fn start(filter: &AuditFilter) -> AuditCursor {
    let since = filter.since.map(row::instant).unwrap_or_default();
    match &filter.after {
        Some(after) if after.at >= since => after.clone(),
        Some(_) | None => AuditCursor { at: since, seq: 0 },
    }
}

/// A damaged row has a cursor too: the pages go on behind it.
fn cursor(found: &Row<'_>) -> AuditCursor {
    let at = found.get_ref(1).ok().and_then(|cell| cell.as_bytes().ok()).unwrap_or_default();
    let seq = match found.get_ref(0) {
        Ok(ValueRef::Integer(seq)) => seq,
        Ok(ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_)) | Err(_) => {
            0
        }
    };
    AuditCursor { at: String::from_utf8_lossy(at).into_owned(), seq }
}
