//! Reading what is left of a damaged file. Only a row whose seal fits is believed.
//!
//! A copy is read, never the file. Where the copy's first page is not what it was, it gets that of
//! a file made today: rows are found through it, and their seals tell whether rightly. An entry
//! that has an outcome is not carried over even where an old page still shows it; a stay only where
//! what it stands for is known, so that a card whose entry is lost makes a new one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params_from_iter};

use super::chain::{self, End};
use super::error::{OpenError, StoreError};
use super::{disk, file, mend, row};
use crate::domain::{AuditKind, ChainMark, EntryId};

/// How many numbers are tried one by one between two places where reading breaks off.
const PROBES: i64 = 1_000_000;

/// How far new numbers are from the last known one, where nobody knows which was the last.
const UNKNOWN: i64 = 1000;

/// Where a line's `chain` stands behind the columns of [`row::AUDIT`]; no other table is as wide.
const AUDIT_CHAIN: usize = 7;

/// What was carried over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entries: u64,
    pub(super) lines: u64,
    pub(super) stays: u64,
    /// Rows that are there and are not what was written.
    pub(super) damaged: u64,
}

/// Carries everything that can be read of the file at `path` over into a new one; `page` is the
/// first page of an empty one.
pub(super) fn carry(
    path: &Path,
    copy: &Path,
    page: &[u8],
    tx: &Transaction<'_>,
) -> Result<Found, OpenError> {
    let mut found = Found::default();
    let mut reached = false;
    for page in [None, Some(page)] {
        if reached {
            break;
        }
        mend::remove(copy)?;
        make_copy(path, copy, page)
            .map_err(|source| OpenError::Inaccessible { path: copy.to_owned(), source })?;
        if let Ok(from) = file::connect(copy) {
            let mut carrier = Carrier { from, tx, found: &mut found, over: BTreeSet::new() };
            reached = carrier.carry()?;
        }
    }
    mend::remove(copy)?;
    Ok(found)
}

/// Copies the file with its `-wal`, and puts another first page over its own where one is given.
fn make_copy(path: &Path, copy: &Path, page: Option<&[u8]>) -> io::Result<()> {
    let to = copy_file(path, copy)?;
    let length = to.metadata()?.len();
    copy_file(&disk::beside(path, "-wal"), &disk::beside(copy, "-wal"))?;
    let Some(page) = page else { return Ok(()) };
    to.write_all_at(page, 0)?;
    // Where the header tells the number of pages.
    let pages = u32::try_from(length.div_ceil(file::PAGE as u64)).unwrap_or(u32::MAX);
    to.write_all_at(&pages.to_be_bytes(), 28)
}

/// Copies what is there, if anything is.
fn copy_file(from: &Path, to: &Path) -> io::Result<File> {
    let mut made = disk::create(to)?;
    if from.symlink_metadata().is_ok_and(|found| found.is_file()) {
        io::copy(&mut disk::open(from)?, &mut made)?;
    }
    Ok(made)
}

struct Carrier<'a> {
    from: Connection,
    tx: &'a Transaction<'a>,
    found: &'a mut Found,
    /// Entries that have an outcome for good.
    over: BTreeSet<i64>,
}

impl Carrier<'_> {
    /// Tells whether every table could be found.
    fn carry(&mut self) -> Result<bool, StoreError> {
        let lines = self.lines()?;
        self.chain()?;
        let entries = self.entries()?;
        self.numbers()?;
        let stays = self.stays()?;
        Ok(lines && entries && stays)
    }

    fn lines(&mut self) -> Result<bool, StoreError> {
        let Self { from, tx, found, over } = self;
        let take = &mut |row: &Row<'_>| {
            let Ok(line) = row::line(row) else {
                found.damaged += 1;
                return Ok(());
            };
            if line.kind == AuditKind::Outcome && line.outcome != "parked" {
                over.extend(line.entry.map(EntryId::number));
            }
            found.lines += copy_row(tx, "audit", &format!("{}, chain", row::AUDIT), row)?;
            Ok(())
        };
        let chained = format!("SELECT {}, chain FROM audit NOT INDEXED", row::AUDIT);
        // Version 1 has no chain; what comes from there is chained below.
        let unchained = format!("SELECT {}, '' FROM audit NOT INDEXED", row::AUDIT);
        Ok(reach(from, &chained, "seq", take)? || reach(from, &unchained, "seq", take)?)
    }

    /// Where the chain begins and ends: as the file says, where it can be believed.
    fn chain(&self) -> Result<(), StoreError> {
        if let Ok(Ok(anchor)) = chain::end(&self.from, End::Anchor) {
            row::upsert_mark(self.tx, End::Anchor, &anchor)?;
        }
        let last = chain::chain_the_unchained(self.tx)?;
        let known = match chain::end(&self.from, End::Head) {
            Ok(Ok(head)) => head.seq,
            Ok(Err(_)) | Err(_) => 0,
        };
        // Numbers go on behind the last one there was, so that lines that are gone leave a gap.
        row::upsert_mark(self.tx, End::Head, &ChainMark { seq: last.seq.max(known), ..last })
    }

    fn entries(&mut self) -> Result<bool, StoreError> {
        let Self { from, tx, found, over } = self;
        let sql = format!("SELECT {} FROM entry NOT INDEXED", row::ENTRY);
        reach(from, &sql, "id", &mut |row| {
            match row::entry(row) {
                Ok(entry) if over.contains(&entry.id.number()) => {}
                Ok(_) => found.entries += copy_row(tx, "entry", row::ENTRY, row)?,
                Err(_) => found.damaged += 1,
            }
            Ok(())
        })
    }

    /// No number is used twice, not even that of an entry that is lost.
    fn numbers(&self) -> Result<(), StoreError> {
        let sql = "SELECT max(ifnull((SELECT max(id) FROM entry), 0), \
                              ifnull((SELECT max(entry) FROM audit), 0))";
        let known: i64 = self.tx.query_row(sql, [], |row| row.get(0))?;
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'entry'";
        let told: Option<i64> = self.from.query_row(sql, [], |row| row.get(0)).ok();
        let plausible = told.filter(|told| (known..known.saturating_add(PROBES)).contains(told));
        let last = plausible.unwrap_or_else(|| known.saturating_add(UNKNOWN));
        self.tx.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'", [])?;
        self.tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", [last])?;
        Ok(())
    }

    fn stays(&mut self) -> Result<bool, StoreError> {
        let sql = format!("SELECT {} FROM stay", row::STAY);
        let Ok(mut statement) = self.from.prepare(&sql) else { return Ok(false) };
        let Ok(mut rows) = statement.query([]) else { return Ok(false) };
        while let Ok(Some(row)) = rows.next() {
            match row::stay(row) {
                Ok(stay) if self.is_known(stay.entry)? => {
                    self.found.stays += copy_row(self.tx, "stay", row::STAY, row)?;
                }
                Ok(_) => {}
                Err(_) => self.found.damaged += 1,
            }
        }
        Ok(true)
    }

    /// Whether it is known what became of the entry.
    fn is_known(&self, entry: EntryId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM entry WHERE id = ?1) \
                       OR EXISTS (SELECT 1 FROM audit WHERE entry = ?1)";
        Ok(self.tx.query_row(sql, [entry.number()], |row| row.get(0))?)
    }
}

/// What is done with a row that was reached.
type Take<'a> = &'a mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>;

/// Takes every row that can be reached: from the front, from the back, and between the places
/// where reading breaks off one by one. Tells whether the table is there at all.
fn reach(from: &Connection, select: &str, key: &str, take: Take<'_>) -> Result<bool, StoreError> {
    let up = format!("{select} WHERE {key} > ? ORDER BY {key}");
    let Some((first, whole)) = walk(from, &up, i64::MIN, take)? else { return Ok(false) };
    if whole {
        return Ok(true);
    }
    let down = format!("{select} WHERE {key} < ? ORDER BY {key} DESC");
    let Some((last, _)) = walk(from, &down, i64::MAX, take)? else { return Ok(true) };
    let one = format!("{select} WHERE {key} = ?");
    let first = first.unwrap_or(0);
    let last = last.unwrap_or(first.saturating_add(UNKNOWN)).min(first.saturating_add(PROBES));
    for number in first.saturating_add(1)..last {
        walk(from, &one, number, take)?;
    }
    Ok(true)
}

/// Takes rows until there are no more or reading breaks off: the last one's number, and which.
fn walk(
    from: &Connection,
    sql: &str,
    start: i64,
    take: Take<'_>,
) -> Result<Option<(Option<i64>, bool)>, StoreError> {
    let Ok(mut statement) = from.prepare_cached(sql) else { return Ok(None) };
    let Ok(mut rows) = statement.query([start]) else { return Ok(None) };
    let mut last = None;
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                take(row)?;
                last = row.get(0).ok();
            }
            Ok(None) => return Ok(Some((last, true))),
            Err(_) => return Ok(Some((last, false))),
        }
    }
}

/// Writes the row as it is, once. Tells how many were written.
fn copy_row(
    tx: &Transaction<'_>,
    table: &str,
    columns: &str,
    row: &Row<'_>,
) -> Result<u64, StoreError> {
    let count = columns.split(',').count();
    let mut cells: Vec<Value> = (0..count).map(|i| row.get(i)).collect::<Result<_, _>>()?;
    // The one cell that no seal covers: whatever else it is, it is told as a line that was changed.
    if let Some(chain) = cells.get_mut(AUDIT_CHAIN).filter(|cell| !matches!(cell, Value::Text(_))) {
        *chain = Value::Text("?".to_owned());
    }
    let places = vec!["?"; count].join(",");
    let sql = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})");
    Ok(tx.prepare_cached(&sql)?.execute(params_from_iter(cells))? as u64)
}
