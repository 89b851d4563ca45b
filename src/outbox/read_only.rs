//! Queries, and the outbox for commands that only read it, beside the daemon or while it is stopped.
//!
//! [`ReadOnlyOutbox`] creates no file, migrates nothing, and takes no lock that the daemon would
//! notice. Every query opens the file again, so that a slow reader never delays a checkpoint. Pages
//! of the audit trail are bounded, so that a million lines cost the memory of one page.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, named_params};

use super::OutboxContents;
use super::database;
use super::error::{Checked, DamagedRow, InvalidCursor, OpenError, StoreError};
use super::files::{self, PathKind};
use super::row;
use super::verify::{self, ChainCursor};
use super::wal::{self, DatabaseWithoutWal};
use crate::domain::{AuditRecord, CardId, ChainBatch, ChainPosition, Entry};

/// The most lines of one page: about 1 MB.
pub const MAX_PAGE_LINES: usize = 1000;

/// How many of the newest audit lines an opened outbox returns.
const RECENT_LINES: u32 = 20;

/// An outbox that is only read.
#[derive(Debug, Clone)]
pub struct ReadOnlyOutbox {
    path: PathBuf,
}

/// The entries of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, waiting and parked, the oldest first.
    pub entries: Vec<Entry>,
    /// Entries that were skipped.
    pub damaged: Vec<DamagedRow>,
}

/// Why a query of a [`ReadOnlyOutbox`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadOnlyError {
    /// The file could be opened before, and cannot be now.
    #[error("cannot reopen the outbox")]
    Open(#[from] OpenError),
    /// The file is open and cannot be read.
    #[error("cannot read the outbox")]
    Read(#[from] StoreError),
}

impl ReadOnlyOutbox {
    /// Checks that there is an outbox that this program can read.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = files::absolute(path)?;
        if files::survey(&path)? != PathKind::File {
            return Err(OpenError::Missing(path));
        }
        wal::check(&path)?;
        if let Some(database) = DatabaseWithoutWal::read(&path) {
            database.check(&database::connect_read_only(&path)?)?;
        }
        let outbox = Self { path };
        outbox.connect()?;
        Ok(outbox)
    }

    /// Every entry, waiting and parked.
    pub fn entries(&self) -> Result<Listing, ReadOnlyError> {
        self.query(|conn| {
            let mut damaged = Vec::new();
            let entries = intact(row::ENTRY.find(conn, "ORDER BY id", [])?, &mut damaged);
            Ok(Listing { entries, damaged })
        })
    }

    /// A page of the audit trail.
    pub fn audit(&self, filter: &AuditFilter) -> Result<StoredAuditPage, ReadOnlyError> {
        self.query(|conn| audit_page(conn, filter))
    }

    /// The place in the chain of the line with this number, if there is one.
    pub fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, ReadOnlyError> {
        self.query(|conn| position(conn, seq))
    }

    /// Verifies a batch of the audit trail's chain.
    pub fn verify(&self, after: Option<&ChainCursor>) -> Result<ChainBatch, ReadOnlyError> {
        self.query(|conn| verify::verify_batch(conn, after, verify::BATCH_LINES))
    }

    fn query<T>(
        &self,
        query: impl Fn(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, ReadOnlyError> {
        let was_in_use = database::in_use(&self.path);
        let result = query(&self.connect()?);
        if was_in_use == database::in_use(&self.path) {
            return Ok(result?);
        }
        // A daemon started or stopped meanwhile: the first result may be half of each.
        Ok(query(&self.connect()?)?)
    }

    fn connect(&self) -> Result<Connection, OpenError> {
        let conn = database::connect_read_only(&self.path)?;
        let found = database::identify(&conn, &self.path)?;
        if found < database::VERSION {
            return Err(OpenError::Older(found, database::VERSION));
        }
        Ok(conn)
    }
}

/// What can be read of the outbox without writing; nothing where it cannot be read so.
pub(super) fn read_contents(path: &Path) -> OutboxContents {
    let outbox = ReadOnlyOutbox::open(path).and_then(|outbox| outbox.connect());
    outbox.ok().and_then(|conn| contents(&conn).ok()).unwrap_or_default()
}

/// What a file holds.
pub(super) fn contents(conn: &Connection) -> Result<OutboxContents, rusqlite::Error> {
    let mut damaged = Vec::new();
    let newest = "ORDER BY seq DESC LIMIT ?";
    Ok(OutboxContents {
        entries: intact(row::ENTRY.find(conn, "ORDER BY id", [])?, &mut damaged),
        last_seen: intact(row::LAST_SEEN.find(conn, "ORDER BY reader", [])?, &mut damaged),
        latest: intact(row::AUDIT.find(conn, newest, [RECENT_LINES])?, &mut damaged),
        damaged,
        repaired: None,
    })
}

/// The rows that can be believed; the others are added to `damaged`.
fn intact<T>(rows: Vec<Checked<T>>, damaged: &mut Vec<DamagedRow>) -> Vec<T> {
    rows.into_iter().filter_map(|row| row.map_err(|damage| damaged.push(damage)).ok()).collect()
}

/// Which lines of the audit trail to read.
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
    /// How many lines the page has at most, from 1 to [`MAX_PAGE_LINES`].
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

/// One page of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditPage {
    /// The lines, the oldest first; lines of one instant in the order in which they were written.
    pub lines: Vec<AuditRecord>,
    /// Lines of this page that were skipped.
    pub damaged: Vec<DamagedRow>,
    /// Where the next page starts, even if it is empty; `None` at the end.
    pub next: Option<AuditCursor>,
}

/// Read through `audit_card` or `audit_at`, both of which end in `seq`: no sorting.
pub(super) const OF_CARD: &str =
    "WHERE card = :card AND (at, seq) > (:at, :seq) AND at < :until ORDER BY at, seq LIMIT :limit";
pub(super) const OF_ALL: &str = "WHERE :card IS NULL AND (at, seq) > (:at, :seq) AND at < :until \
     ORDER BY at, seq LIMIT :limit";

/// Greater than every instant's text.
const FOREVER: &str = "~";

/// The page that the filter describes.
pub(super) fn audit_page(
    conn: &Connection,
    filter: &AuditFilter,
) -> Result<StoredAuditPage, StoreError> {
    let limit = filter.limit.clamp(1, MAX_PAGE_LINES);
    // Numbers start at 1: number 0 is before the first line of an instant.
    let since = AuditCursor { at: filter.since.map(row::instant).unwrap_or_default(), seq: 0 };
    let start = filter.after.as_ref().filter(|after| after.at >= since.at).unwrap_or(&since);
    let condition = if filter.card.is_some() { OF_CARD } else { OF_ALL };
    let mut statement = conn.prepare_cached(&row::AUDIT.select(condition))?;
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
        // A damaged row has a cursor too: the pages continue after it.
        let seq = if let ValueRef::Integer(seq) = found.get_ref(0)? { seq } else { 0 };
        let at = found.get_ref(1)?.as_bytes().unwrap_or_default();
        last = Some(AuditCursor { at: String::from_utf8_lossy(at).into_owned(), seq });
        match row::AUDIT.read_row(found) {
            Ok(line) => {
                // The checksum does not cover the chain: `verify` checks it.
                let chain = found.get(row::AUDIT.checksum + 1).unwrap_or_default();
                page.lines.push(AuditRecord { line, seq, chain });
            }
            Err(damage) => page.damaged.push(damage),
        }
    }
    page.next = last.filter(|_| page.lines.len() + page.damaged.len() == limit);
    Ok(page)
}

/// The place in the chain of the line with this number, if there is one.
pub(super) fn position(conn: &Connection, seq: i64) -> Result<Option<ChainPosition>, StoreError> {
    let found = conn
        .prepare_cached("SELECT at, chain FROM audit WHERE seq = ?")?
        .query_row([seq], |row| {
            // The checksum is not verified here: a cell that is no text differs from every hash.
            let at: String = row.get(0).unwrap_or_default();
            Ok(ChainPosition { seq, at: at.parse().ok(), hash: row.get(1).unwrap_or_default() })
        })
        .optional()?;
    Ok(found)
}
