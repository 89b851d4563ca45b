//! Reading what is left of a damaged file. Only a row whose seal fits is believed.
//!
//! No tree of the file is trusted. Each page, the newest image of each first, is read by itself as
//! the root of a table that has as many columns as the widest of ours: SQLite decodes the rows, and
//! their seals tell whose they are. A copy is read, never the file (`image.rs`).
//!
//! An entry that has an outcome is not carried over even where an old page shows it; a stay only
//! where what it stands for is known, so that a card whose entry is lost makes a new one.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, Transaction, params_from_iter};

use super::error::{OpenError, StoreError};
use super::file::PAGE;
use super::hash_chain::{self, ChainEnd};
use super::wal::Wal;
use super::wal_image::WalImage;
use super::{repair, row, safe_open};
use crate::domain::{AuditKind, ChainPosition, EntryId, LastSeenCard};

/// How far new numbers are from the last known one, where nobody knows which was the last.
const UNKNOWN: i64 = 1000;
/// How far the last number that the file tells may be from the last known one.
const PLAUSIBLE: i64 = 1_000_000;
/// How many rows of one page are passed over that SQLite cannot read: a page has no more (SQLite,
/// "Database File Format", 1.6: six bytes a row at least).
const UNREADABLE: usize = PAGE / 6;

/// Where a line's `chain` stands behind the columns of [`row::AUDIT`]; no other table is as wide.
const AUDIT_CHAIN: usize = 7;
/// Where the cell stands that is null in each of our rows with a number, the number's own.
const ROWID: usize = 8;

const LEAF_PAGES: &str = "SELECT rowid, c1, c2, c3, c4, c5, c6, c7, c0 FROM leaf LIMIT -1 OFFSET ?";
const TREE_PAGES: &str = "SELECT c0, c1, c2, c3, c4 FROM knot LIMIT 1000 OFFSET ?";

/// What was carried over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RecoveryCounts {
    pub(super) entries: u64,
    pub(super) lines: u64,
    pub(super) last_seen: u64,
    /// Rows that are there and are not what was written.
    pub(super) damaged: u64,
}

/// Carries everything that can be read of the file at `path`, and of its log where it is the file's, over
/// into a new one.
pub(super) fn recover(
    path: &Path,
    log: bool,
    tx: &Transaction<'_>,
) -> Result<RecoveryCounts, OpenError> {
    let copy = safe_open::sibling_path(path, ".copy");
    repair::remove(&copy)?;
    let log = if log { Wal::read(path)? } else { Wal::none() };
    let inaccessible = |source| OpenError::Inaccessible { path: copy.clone(), source };
    let image = WalImage::make(path, &copy, &log)?;
    let from = Connection::open_with_flags(
        &copy,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let mut salvage = RecoveryRun::new(tx);
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
    repair::remove(&copy)?;
    Ok(found)
}

struct RecoveryRun<'a> {
    tx: &'a Transaction<'a>,
    found: RecoveryCounts,
    /// Entries that have an outcome for good.
    over: BTreeSet<i64>,
    stays: Vec<(LastSeenCard, Vec<Value>)>,
    anchor: Option<ChainPosition>,
    head: Option<ChainPosition>,
    /// The largest number of an entry that the file tells.
    last: Option<i64>,
}

impl<'a> RecoveryRun<'a> {
    const fn new(tx: &'a Transaction<'a>) -> Self {
        let found = RecoveryCounts { entries: 0, lines: 0, last_seen: 0, damaged: 0 };
        let (anchor, head, last) = (None, None, None);
        Self { tx, found, over: BTreeSet::new(), stays: Vec::new(), anchor, head, last }
    }

    /// Takes what the page at the roots has, by its kind (SQLite, "Database File Format", 1.6).
    fn take(&mut self, from: &Connection, kind: u8) -> Result<(), StoreError> {
        match kind {
            0x0d => rows(from, LEAF_PAGES, |row| self.numbered(row)),
            0x02 | 0x0a => rows(from, TREE_PAGES, |row| self.unnumbered(row)),
            _ => Ok(()),
        }
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
            match row.get_ref(ROWID)? {
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
            let end =
                if place == ChainEnd::Anchor.name() { &mut self.anchor } else { &mut self.head };
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

    fn finish(mut self) -> Result<RecoveryCounts, StoreError> {
        for entry in &self.over {
            let gone =
                self.tx.prepare_cached("DELETE FROM entry WHERE id = ?")?.execute([entry])?;
            self.found.entries -= gone as u64;
        }
        self.chain()?;
        self.numbers()?;
        for (stay, cells) in std::mem::take(&mut self.stays) {
            if self.is_known(stay.entry)? {
                self.found.last_seen += insert(self.tx, "stay", row::STAY, cells)?;
            }
        }
        Ok(self.found)
    }

    /// Where the chain begins and ends: as the file says, where it can be believed.
    fn chain(&self) -> Result<(), StoreError> {
        if let Some(anchor) = &self.anchor {
            row::upsert_mark(self.tx, ChainEnd::Anchor, anchor)?;
        }
        let last = hash_chain::chain_the_unchained(self.tx)?;
        let known = self.head.as_ref().map_or(0, |head| head.seq);
        // Numbers go on behind the last one there was, so that lines that are gone leave a gap.
        row::upsert_mark(
            self.tx,
            ChainEnd::Head,
            &ChainPosition { seq: last.seq.max(known), ..last },
        )
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

/// Takes every row that can be read: one that cannot is passed over.
fn rows(
    from: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = from.prepare_cached(sql)?;
    let mut place = 0_i64;
    for _ in 0..=UNREADABLE {
        // Rows before the offset are not decoded.
        let mut rows = statement.query([place])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => take(row)?,
                Ok(None) => return Ok(()),
                Err(_) => break,
            }
            place += 1;
        }
        place += 1;
    }
    Ok(())
}

/// The row's first cells, as many as there are columns.
fn cells(row: &Row<'_>, columns: &str) -> Result<Vec<Value>, StoreError> {
    let cell = |column| {
        if column != AUDIT_CHAIN {
            return row.get(column);
        }
        // The one cell that no seal covers. Version 1 had none, and it is made below; whatever else it
        // is, it is reported as a line that was changed.
        let chain = row.get_ref(column)?;
        let unreadable = if chain == ValueRef::Null { "" } else { "?" };
        Ok(Value::Text(chain.as_str().unwrap_or(unreadable).to_owned()))
    };
    Ok((0..columns.split(',').count()).map(cell).collect::<Result<_, _>>()?)
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
