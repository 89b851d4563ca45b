//! Reading what is left of a damaged file. Only a row whose seal fits is believed.
//!
//! No tree of the file is trusted. Each page, the newest image of each first, is read by itself as
//! the root of a table that has as many columns as the widest of ours: SQLite decodes the rows, and
//! their seals tell whose they are. A copy is read, never the file:
//!
//! ```text
//! page 1          of a file with the tables `leaf` (rows with a number) and `knot` (rows without)
//! page 2 to N     as they are in the file, or in its -wal where that has an image that is intact
//! page N + 1      the root of `leaf`: a copy of each leaf in turn
//! page N + 2      the root of `knot`, likewise
//! ```
//!
//! An entry that has an outcome is not carried over even where an old page shows it; a stay only
//! where what it stands for is known, so that a card whose entry is lost makes a new one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, Transaction, params_from_iter};

use super::chain::{self, End};
use super::error::{OpenError, StoreError};
use super::file::PAGE;
use super::log::Log;
use super::{disk, mend, row};
use crate::domain::{AuditKind, ChainMark, EntryId, Stay};

/// How far new numbers are from the last known one, where nobody knows which was the last.
const UNKNOWN: i64 = 1000;
/// How far the last number that the file tells may be from the last known one.
const PLAUSIBLE: i64 = 1_000_000;
/// How many rows without a number are read below one page: there is one for each reader.
const KNOTS: i64 = 1000;

/// Where a line's `chain` stands behind the columns of [`row::AUDIT`]; no other table is as wide.
const AUDIT_CHAIN: usize = 7;
/// Where the cell stands that is null in each of our rows with a number, the number's own.
const OWN_NUMBER: usize = 8;

const TABLES: &str = "CREATE TABLE leaf (c0, c1, c2, c3, c4, c5, c6, c7); \
     CREATE TABLE knot (c0 PRIMARY KEY, c1, c2, c3, c4) WITHOUT ROWID; \
     PRAGMA writable_schema = ON";
const LEAVES: &str = "SELECT rowid, c1, c2, c3, c4, c5, c6, c7, c0 FROM leaf ORDER BY rowid";
const LEAVES_BACK: &str =
    "SELECT rowid, c1, c2, c3, c4, c5, c6, c7, c0 FROM leaf ORDER BY rowid DESC";

/// What was carried over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entries: u64,
    pub(super) lines: u64,
    pub(super) stays: u64,
    /// Rows that are there and are not what was written.
    pub(super) damaged: u64,
}

/// Carries everything that can be read of the file at `path`, and of its log, over into a new one.
pub(super) fn carry(path: &Path, tx: &Transaction<'_>) -> Result<Found, OpenError> {
    let copy = disk::beside(path, ".copy");
    mend::remove(&copy)?;
    let log = Log::read(path)?;
    let inaccessible = |source| OpenError::Inaccessible { path: copy.clone(), source };
    let image = Image::make(path, &copy, &log)?;
    let from = Connection::open_with_flags(
        &copy,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let mut salvage = Salvage::new(tx);
    let mut page = [0; PAGE];
    let mut done = BTreeSet::new();
    for (number, frame) in log.frames().rev() {
        if done.contains(&frame.page) {
            continue;
        }
        log.image(number, &mut page).map_err(inaccessible)?;
        image.show(&page).map_err(inaccessible)?;
        salvage.take(&from, page[0])?;
        // Behind an image that is not what was written, an older one may still have rows.
        if frame.intact {
            done.insert(frame.page);
        }
    }
    for number in (2..=image.pages).filter(|number| !done.contains(number)) {
        image.read(number, &mut page).map_err(inaccessible)?;
        image.show(&page).map_err(inaccessible)?;
        salvage.take(&from, page[0])?;
    }
    let found = salvage.finish()?;
    drop((from, image));
    mend::remove(&copy)?;
    Ok(found)
}

/// The copy that is read.
struct Image {
    file: File,
    /// How many pages there are of the outbox.
    pages: u32,
}

impl Image {
    fn make(path: &Path, copy: &Path, log: &Log) -> Result<Self, OpenError> {
        let inaccessible = |source| OpenError::Inaccessible { path: copy.to_owned(), source };
        let (file, pages) = copy_pages(path, copy, log).map_err(inaccessible)?;
        let mut first = first_page(pages)?;
        // No page, so that SQLite asks the file's size.
        first.get_mut(28..32).unwrap_or_default().fill(0);
        file.write_all_at(&first, 0).map_err(inaccessible)?;
        let image = Self { file, pages };
        image.show(&[0; PAGE]).map_err(inaccessible)?;
        Ok(image)
    }

    fn read(&self, number: u32, page: &mut [u8; PAGE]) -> io::Result<()> {
        self.file.read_exact_at(page, offset(number))
    }

    /// Puts a page in the place of both roots.
    fn show(&self, page: &[u8; PAGE]) -> io::Result<()> {
        self.file.write_all_at(page, offset(self.pages + 1))?;
        self.file.write_all_at(page, offset(self.pages + 2))?;
        // The change counter: SQLite forgets the pages that it has read.
        let mut counter = [0; 4];
        self.file.read_exact_at(&mut counter, 24)?;
        let counter = u32::from_be_bytes(counter).wrapping_add(1);
        self.file.write_all_at(&counter.to_be_bytes(), 24)
    }
}

const fn offset(number: u32) -> u64 {
    (number as u64 - 1) * PAGE as u64
}

/// Copies the file, and the newest intact image of each page from its log; tells how many pages
/// there are.
fn copy_pages(path: &Path, copy: &Path, log: &Log) -> io::Result<(File, u32)> {
    let mut to = disk::create(copy)?;
    if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        io::copy(&mut disk::open(path)?, &mut to)?;
    }
    let count = |bytes: u64| u32::try_from(bytes.div_ceil(PAGE as u64)).unwrap_or(u32::MAX - 2);
    let (mut page, most) = ([0; PAGE], log.frames().count());
    let mut pages = count(to.metadata()?.len()).max(1);
    // A number that no page of this file can have is damage.
    let most = pages.saturating_add(u32::try_from(most).unwrap_or(u32::MAX)).min(u32::MAX - 2);
    for (number, frame) in log.frames() {
        if frame.intact && (1..=most).contains(&frame.page) {
            log.image(number, &mut page)?;
            to.write_all_at(&page, offset(frame.page))?;
            pages = pages.max(frame.page);
        }
    }
    to.set_len(u64::from(pages + 2) * PAGE as u64)?;
    Ok((to, pages))
}

/// The first page of a file whose tables have their roots behind this many pages.
fn first_page(pages: u32) -> Result<Vec<u8>, OpenError> {
    let mut empty = Connection::open_in_memory()?;
    empty.execute_batch(TABLES)?;
    for (table, root) in [("leaf", pages + 1), ("knot", pages + 2)] {
        let sql = "UPDATE sqlite_schema SET rootpage = ? WHERE name = ?";
        empty.execute(sql, (root, table))?;
    }
    let bytes = empty.serialize("main")?;
    Ok(bytes.get(..PAGE).unwrap_or_default().to_vec())
}

struct Salvage<'a> {
    tx: &'a Transaction<'a>,
    found: Found,
    /// Entries that have an outcome for good.
    over: BTreeSet<i64>,
    stays: Vec<(Stay, Vec<Value>)>,
    anchor: Option<ChainMark>,
    head: Option<ChainMark>,
    /// The largest number of an entry that the file tells.
    last: Option<i64>,
}

impl<'a> Salvage<'a> {
    const fn new(tx: &'a Transaction<'a>) -> Self {
        let found = Found { entries: 0, lines: 0, stays: 0, damaged: 0 };
        let (anchor, head, last) = (None, None, None);
        Self { tx, found, over: BTreeSet::new(), stays: Vec::new(), anchor, head, last }
    }

    /// Takes what the page at the roots has, by its kind (SQLite, "Database File Format", 1.6).
    fn take(&mut self, from: &Connection, kind: u8) -> Result<(), StoreError> {
        match kind {
            0x0d => {
                let whole = rows(from, LEAVES, |row| self.numbered(row))?;
                // From the back, up to the same place.
                if !whole {
                    rows(from, LEAVES_BACK, |row| self.numbered(row))?;
                }
            }
            0x02 | 0x0a => {
                let sql = format!("SELECT c0, c1, c2, c3, c4 FROM knot LIMIT {KNOTS}");
                rows(from, &sql, |row| self.unnumbered(row))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// An entry, a line, or what SQLite notes of the numbers it gave.
    fn numbered(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        if let Ok(line) = row::line(row) {
            if line.kind == AuditKind::Outcome && line.outcome != "parked" {
                self.over.extend(line.entry.map(EntryId::number));
            }
            let columns = format!("{}, chain", row::AUDIT);
            self.found.lines += insert(self.tx, "audit", &columns, cells(row, &columns)?)?;
        } else if row::entry(row).is_ok() {
            let cells = cells(row, row::ENTRY)?;
            self.found.entries += insert(self.tx, "entry", row::ENTRY, cells)?;
        } else {
            match row.get_ref(OWN_NUMBER)? {
                ValueRef::Null => self.found.damaged += 1,
                ValueRef::Text(b"entry") => {
                    self.last = self.last.max(row.get(1).ok());
                }
                ValueRef::Text(_)
                | ValueRef::Integer(_)
                | ValueRef::Real(_)
                | ValueRef::Blob(_) => {}
            }
        }
        Ok(())
    }

    /// A stay, or an end of the chain; the newest of each comes first.
    fn unnumbered(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        if let Ok(stay) = row::stay(row) {
            self.stays.push((stay, cells(row, row::STAY)?));
        } else if let Ok(mark) = row::mark(row) {
            let place: String = row.get(0)?;
            let end = if place == End::Anchor.name() { &mut self.anchor } else { &mut self.head };
            end.get_or_insert(mark);
        } else {
            let sealed = |column| {
                Ok::<_, StoreError>(
                    matches!(row.get_ref(column)?, ValueRef::Blob(seal) if seal.len() == 32),
                )
            };
            self.found.damaged += u64::from(sealed(2)? || sealed(4)?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Found, StoreError> {
        for entry in &self.over {
            let gone =
                self.tx.prepare_cached("DELETE FROM entry WHERE id = ?")?.execute([entry])?;
            self.found.entries -= gone as u64;
        }
        self.chain()?;
        self.numbers()?;
        for (stay, cells) in std::mem::take(&mut self.stays) {
            if self.is_known(stay.entry)? {
                self.found.stays += insert(self.tx, "stay", row::STAY, cells)?;
            }
        }
        Ok(self.found)
    }

    /// Where the chain begins and ends: as the file says, where it can be believed.
    fn chain(&self) -> Result<(), StoreError> {
        if let Some(anchor) = &self.anchor {
            row::upsert_mark(self.tx, End::Anchor, anchor)?;
        }
        let last = chain::chain_the_unchained(self.tx)?;
        let known = self.head.as_ref().map_or(0, |head| head.seq);
        // Numbers go on behind the last one there was, so that lines that are gone leave a gap.
        row::upsert_mark(self.tx, End::Head, &ChainMark { seq: last.seq.max(known), ..last })
    }

    /// No number is used twice, not even that of an entry that is lost.
    fn numbers(&self) -> Result<(), StoreError> {
        let sql = "SELECT max(ifnull((SELECT max(id) FROM entry), 0), \
                              ifnull((SELECT max(entry) FROM audit), 0))";
        let known: i64 = self.tx.query_row(sql, [], |row| row.get(0))?;
        let plausible = known..known.saturating_add(PLAUSIBLE);
        let told = self.last.filter(|told| plausible.contains(told));
        let last = told.unwrap_or_else(|| known.saturating_add(UNKNOWN));
        self.tx.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'", [])?;
        self.tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", [last])?;
        Ok(())
    }

    /// Whether it is known what became of the entry.
    fn is_known(&self, entry: EntryId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM entry WHERE id = ?1) \
                       OR EXISTS (SELECT 1 FROM audit WHERE entry = ?1)";
        Ok(self.tx.query_row(sql, [entry.number()], |row| row.get(0))?)
    }
}

/// Takes rows until there are no more or reading breaks off; tells whether it did not.
fn rows(
    from: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let mut statement = from.prepare_cached(sql)?;
    let Ok(mut rows) = statement.query([]) else { return Ok(false) };
    loop {
        match rows.next() {
            Ok(Some(row)) => take(row)?,
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}

/// The row's first cells, as many as there are columns.
fn cells(row: &Row<'_>, columns: &str) -> Result<Vec<Value>, StoreError> {
    let count = columns.split(',').count();
    let mut cells: Vec<Value> = (0..count).map(|i| row.get(i)).collect::<Result<_, _>>()?;
    // The one cell that no seal covers. Version 1 had none, and it is made below; whatever else it
    // is, it is told as a line that was changed.
    if let Some(chain) = cells.get_mut(AUDIT_CHAIN).filter(|cell| !matches!(cell, Value::Text(_))) {
        let text = if *chain == Value::Null { "" } else { "?" };
        *chain = Value::Text(text.to_owned());
    }
    Ok(cells)
}

/// Writes a row, unless one with its key was written before. Tells how many were written.
fn insert(
    tx: &Transaction<'_>,
    table: &str,
    columns: &str,
    cells: Vec<Value>,
) -> Result<u64, StoreError> {
    let places = vec!["?"; cells.len()].join(",");
    let sql = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})");
    Ok(tx.prepare_cached(&sql)?.execute(params_from_iter(cells))? as u64)
}
