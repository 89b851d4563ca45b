//! A damaged file is replaced by a new one with every row that can be read of it.
//!
//! The damaged file is only read, without SQLite: page by page, the newest image of each first, and
//! row by row (SQLite, "Database File Format", 1.6 "B-tree Pages" and 2.1 "Record Format"). No tree,
//! schema or header is needed. A row is taken only if its checksum is right, which also says of
//! which table it is.
//!
//! An entry that has an outcome is not carried over even where an old page shows it. The card last
//! seen in a reader is carried over only where the fate of its entry is known, so that a card whose
//! entry is lost makes a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Transaction;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::OutboxOptions;
use super::database::{self, PAGE};
use super::error::{OpenError, StoreError};
use super::files::{self, Lock, PathKind, sibling_path};
use super::hash_chain::{self, ANCHOR, HEAD};
use super::limits::SizeLimits;
use super::row::{self, Table};
use super::wal::Wal;
use crate::domain::{AuditKind, AuditLine, ChainPosition, EntryId, LastSeenCard};

/// How far new numbers are from the last known one, where the last one is not known.
const UNKNOWN_NUMBERS: i64 = 1000;
/// How far the last number in the file may be from the last known one.
const PLAUSIBLE_NUMBERS: i64 = 1_000_000;
/// The longest row that is read: a longer one is damaged.
const MAX_ROW: usize = 16 << 20;

/// What became of a file that was damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Where the damaged file is; `None` where there was none.
    pub set_aside: Option<PathBuf>,
    /// What was wrong with it.
    pub cause: String,
    /// Entries that were carried over.
    pub entries: u64,
    /// Audit lines that were carried over.
    pub lines: u64,
    /// Cards last seen in a reader that were carried over.
    pub last_seen: u64,
    /// Rows that were found and are not what was written.
    pub damaged: u64,
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set_aside, cause, entries, lines, last_seen, damaged } = self;
        match set_aside.as_ref().and_then(|path| path.file_name()) {
            Some(name) => {
                let name = name.display();
                write!(f, "the outbox was damaged ({cause}) and set aside as {name}; ")?;
            }
            None => write!(f, "the outbox was gone ({cause}); ")?,
        }
        write!(
            f,
            "carried over: {entries} entries, {lines} audit lines, {last_seen} cards in readers; \
             rejected: {damaged} rows; unreadable rows are not counted"
        )
    }
}

/// Why a file that is not there was there before; `None` where there never was one.
pub(super) fn missing(path: &Path, lock: &Lock) -> Result<Option<String>, OpenError> {
    let name = path.file_name().unwrap_or_default().display();
    if files::survey(path)? == PathKind::DeadLink {
        return Ok(Some(format!("{name} was a symbolic link without a target")));
    }
    let is_left = |suffix: &&str| sibling_path(path, suffix).exists();
    let left = ["-wal", "-shm"].into_iter().find(is_left);
    let left = left.or(lock.had_outbox.then_some(".lock"));
    Ok(left.map(|suffix| format!("{name} was not there, but {name}{suffix} was")))
}

/// Creates a file with all that can be read of a damaged one, and of its `-wal` where that is the
/// file's, and sets that aside.
pub(super) fn repair(
    path: &Path,
    options: &OutboxOptions,
    limits: SizeLimits,
    cause: String,
    wal: Wal,
) -> Result<RepairReport, OpenError> {
    let (stamp, aside) = free_name(path, options.now);
    let exists = |suffix: &&str| sibling_path(path, suffix).symlink_metadata().is_ok();
    let set_aside = ["", "-wal", "-shm"].iter().any(exists).then_some(aside);
    let mut conn = database::begin_new(path)?;
    limits.apply_hard_limit(&conn)?;
    let tx = conn.transaction()?;
    let file = DamagedFile::new(path, wal).map_err(OpenError::at(path))?;
    let report = RepairReport { set_aside, cause, ..RepairReport::default() };
    let report = Recovery::new(&tx, report).run(&file)?;
    let line = AuditLine::chain_break(&options.station, options.now, report.to_string());
    hash_chain::append(&tx, &line)?;
    tx.commit()?;
    database::finish_new(path, conn, stamp)?;
    // An earlier version read a copy.
    database::remove(&sibling_path(path, ".copy"))?;
    Ok(report)
}

/// A second whose name is free, from now on.
fn free_name(path: &Path, now: Timestamp) -> (Timestamp, PathBuf) {
    let mut second = now.as_second();
    loop {
        let stamp = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let aside = database::set_aside_path(path, stamp);
        if !aside.exists() || second == i64::MAX {
            return (stamp, aside);
        }
        second = second.saturating_add(1);
    }
}

/// A damaged file and its log, by pages.
struct DamagedFile {
    file: Option<File>,
    pages: u32,
    wal: Wal,
    /// The frame that has the newest intact image of a page.
    newest: BTreeMap<u32, usize>,
}

impl DamagedFile {
    fn new(path: &Path, wal: Wal) -> io::Result<Self> {
        let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
        let file = is_file.then(|| files::open(path)).transpose()?;
        let size = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?;
        let pages = u32::try_from(size.div_ceil(PAGE as u64)).unwrap_or(u32::MAX);
        let intact = wal.frames().filter(|(_, frame)| frame.intact);
        let newest = intact.map(|(number, frame)| (frame.page, number)).collect();
        Ok(Self { file, pages, wal, newest })
    }

    /// The newest intact image of a page.
    fn page(&self, number: u32) -> io::Result<Vec<u8>> {
        if let Some(frame) = self.newest.get(&number) {
            return self.wal.image(*frame);
        }
        let mut page = Vec::new();
        if let Some(mut file) = self.file.as_ref() {
            let start = u64::from(number.saturating_sub(1)) * PAGE as u64;
            file.seek(SeekFrom::Start(start))?;
            file.take(PAGE as u64).read_to_end(&mut page)?;
        }
        page.resize(PAGE, 0);
        Ok(page)
    }

    /// The rows of a page: the number of each, where its table has numbers, and its record. A row
    /// that cannot be read is skipped.
    fn rows(&self, page: &[u8]) -> Vec<(Option<i64>, Vec<u8>)> {
        let (pointers, child, is_numbered) = match page.first() {
            Some(0x0d) => (8, 0, true),
            Some(0x0a) => (8, 0, false),
            Some(0x02) => (12, 4, false),
            _ => return Vec::new(),
        };
        let count =
            page.get(3..).and_then(<[u8]>::first_chunk).map_or(0, |c| u16::from_be_bytes(*c));
        let pointers = page.get(pointers..).unwrap_or_default().as_chunks().0;
        let row = |pointer: &[u8; 2]| {
            let mut rest = page.get(usize::from(u16::from_be_bytes(*pointer)) + child..)?;
            let size = usize::try_from(varint(&mut rest)?).ok()?;
            let number = if is_numbered { Some(varint(&mut rest)?) } else { None };
            Some((number, self.record(rest, size, is_numbered)?))
        };
        pointers.iter().take(count.into()).filter_map(row).collect()
    }

    /// The row's record: what of it is in its page, and the overflow pages that the rest is in.
    fn record(&self, cell: &[u8], size: usize, is_numbered: bool) -> Option<Vec<u8>> {
        let most = if is_numbered { PAGE - 35 } else { (PAGE - 12) * 64 / 255 - 23 };
        if size <= most {
            return cell.get(..size).map(<[u8]>::to_vec);
        }
        let least = (PAGE - 12) * 32 / 255 - 23;
        let local = least + (size - least) % (PAGE - 4);
        let local = if local <= most { local } else { least };
        let (start, overflow) = cell.split_at_checked(local)?;
        let (mut record, mut next) = (start.to_vec(), u32::from_be_bytes(*overflow.first_chunk()?));
        while record.len() < size.min(MAX_ROW) && next != 0 {
            let page = self.page(next).ok()?;
            let (link, content) = page.split_first_chunk()?;
            record.extend(content.iter().take(size - record.len()));
            next = u32::from_be_bytes(*link);
        }
        (record.len() == size).then_some(record)
    }
}

/// The cells of a record.
fn cells(record: &[u8]) -> Option<Vec<ValueRef<'_>>> {
    let mut rest = record;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = record.get(record.len() - rest.len()..header)?;
    let mut content = record.get(header..)?;
    let mut cells = Vec::new();
    while !types.is_empty() {
        let kind = varint(&mut types)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from(kind.checked_sub(12)? / 2).ok()?,
        };
        let (cell, after) = content.split_at_checked(size)?;
        content = after;
        cells.push(match kind {
            0 => ValueRef::Null,
            1..=6 => ValueRef::Integer(integer(cell)),
            // No column has it: the checksum is wrong, whatever the number.
            7 => ValueRef::Real(0.0),
            8 | 9 => ValueRef::Integer(kind - 8),
            _ if kind % 2 == 0 => ValueRef::Blob(cell),
            _ => ValueRef::Text(cell),
        });
    }
    Some(cells)
}

fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1 } else { 0 };
    bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))
}

/// Takes a number of one to nine bytes off the front.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0;
    for count in 1..=9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if count == 9 {
            return Some(number << 8 | i64::from(*byte));
        }
        number = number << 7 | i64::from(byte & 0x7f);
        if *byte < 0x80 {
            break;
        }
    }
    Some(number)
}

/// Writes the rows of a damaged file into a new one.
struct Recovery<'a> {
    tx: &'a Transaction<'a>,
    report: RepairReport,
    /// Entries that have an outcome for good.
    settled: BTreeSet<EntryId>,
    last_seen: Vec<LastSeenCard>,
    anchor: Option<ChainPosition>,
    head: Option<ChainPosition>,
    /// The largest number of an entry, according to the file.
    last_number: Option<i64>,
}

impl<'a> Recovery<'a> {
    fn new(tx: &'a Transaction<'a>, report: RepairReport) -> Self {
        let (anchor, head, last_number) = (None, None, None);
        let (settled, last_seen) = (BTreeSet::new(), Vec::new());
        Self { tx, report, settled, last_seen, anchor, head, last_number }
    }

    /// Reads each page once, and where its newest image is damaged the older ones too.
    fn run(mut self, file: &DamagedFile) -> Result<RepairReport, StoreError> {
        let unreadable = |error| StoreError::Io(Box::new(error));
        let mut done = BTreeSet::new();
        for (number, frame) in file.wal.frames().rev() {
            if !done.contains(&frame.page) {
                self.read_page(file, &file.wal.image(number).map_err(unreadable)?)?;
            }
            if frame.intact {
                done.insert(frame.page);
            }
        }
        for number in (2..=file.pages).filter(|number| !done.contains(number)) {
            self.read_page(file, &file.page(number).map_err(unreadable)?)?;
        }
        self.finish()
    }

    fn read_page(&mut self, file: &DamagedFile, page: &[u8]) -> Result<(), StoreError> {
        for (number, record) in file.rows(page) {
            match (number, cells(&record)) {
                (Some(number), Some(cells)) => self.read_numbered(number, cells)?,
                (None, Some(cells)) => self.read_unnumbered(&cells),
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// A line, an entry, or the last number of an entry. The newest of each comes first.
    fn read_numbered(
        &mut self,
        number: i64,
        mut cells: Vec<ValueRef<'_>>,
    ) -> Result<(), StoreError> {
        match *cells.as_slice() {
            // A row's number stands in for its first column.
            [ValueRef::Null, ..] => {}
            [ValueRef::Text(b"entry"), ValueRef::Integer(last), ..] => {
                self.last_number = self.last_number.max(Some(last));
                return Ok(());
            }
            _ => return Ok(()),
        }
        if let Some(first) = cells.first_mut() {
            *first = ValueRef::Integer(number);
        }
        if let Ok(line) = row::AUDIT.read(&cells) {
            if line.kind == AuditKind::Outcome && line.outcome != "parked" {
                self.settled.extend(line.entry);
            }
            // No checksum covers the chain. Version 1 had none, and `finish` adds it; what is no text
            // is reported as a line that was changed.
            cells.resize(row::AUDIT.checksum + 2, ValueRef::Null);
            if let Some(chain) = cells.last_mut() {
                let unreadable = if *chain == ValueRef::Null { "" } else { "?" };
                *chain = ValueRef::from(chain.as_str().unwrap_or(unreadable));
            }
            self.report.lines += self.copy(&row::AUDIT, &cells)?;
        } else if row::ENTRY.read(&cells).is_ok() {
            self.report.entries += self.copy(&row::ENTRY, &cells)?;
        } else {
            self.report.damaged += 1;
        }
        Ok(())
    }

    /// Copies a row, unless one with its key was copied before. Returns how many were.
    fn copy<T>(&self, table: &Table<T>, cells: &[ValueRef<'_>]) -> Result<u64, StoreError> {
        let cells = cells.iter().map(|cell| ToSqlOutput::Borrowed(*cell));
        Ok(table.insert(self.tx, "INSERT OR IGNORE", cells)? as u64)
    }

    /// The card last seen in a reader, or an end of the chain. The newest of each comes first.
    fn read_unnumbered(&mut self, cells: &[ValueRef<'_>]) {
        if let Ok(card) = row::LAST_SEEN.read(cells) {
            self.last_seen.push(card);
        } else if let Ok(position) = row::CHAIN.read(cells) {
            let is_anchor = cells.first() == Some(&ValueRef::Text(ANCHOR.as_bytes()));
            let end = if is_anchor { &mut self.anchor } else { &mut self.head };
            end.get_or_insert(position);
        } else {
            let is_checksum = |column: usize| {
                cells.get(column).is_some_and(|cell| cell.as_blob().is_ok_and(|c| c.len() == 32))
            };
            let is_damaged =
                is_checksum(row::LAST_SEEN.checksum) || is_checksum(row::CHAIN.checksum);
            self.report.damaged += u64::from(is_damaged);
        }
    }

    fn finish(mut self) -> Result<RepairReport, StoreError> {
        for entry in &self.settled {
            let sql = "DELETE FROM entry WHERE id = ?";
            let deleted = self.tx.prepare_cached(sql)?.execute([entry.number()])?;
            self.report.entries -= deleted as u64;
        }
        self.write_chain_ends()?;
        self.write_last_number()?;
        let mut readers = BTreeSet::new();
        for card in &self.last_seen {
            if readers.insert(&card.reader) && self.is_known(card.entry)? {
                row::write_last_seen(self.tx, card)?;
                self.report.last_seen += 1;
            }
        }
        Ok(self.report)
    }

    /// The ends of the chain: those of the file, where their checksums are right.
    fn write_chain_ends(&self) -> Result<(), StoreError> {
        if let Some(anchor) = &self.anchor {
            row::write_position(self.tx, ANCHOR, anchor)?;
        }
        let last = hash_chain::chain_the_unchained(self.tx)?;
        // Numbers continue behind the last one there was, so that lines that are gone leave a gap.
        let seq = last.seq.max(self.head.as_ref().map_or(0, |head| head.seq));
        row::write_position(self.tx, HEAD, &ChainPosition { seq, ..last })
    }

    /// No number is used twice, not even that of an entry that is lost.
    fn write_last_number(&self) -> Result<(), StoreError> {
        let sql = "SELECT max(ifnull((SELECT max(id) FROM entry), 0), \
                              ifnull((SELECT max(entry) FROM audit), 0))";
        let known: i64 = self.tx.query_row(sql, [], |row| row.get(0))?;
        let plausible = known..known.saturating_add(PLAUSIBLE_NUMBERS);
        let in_file = self.last_number.filter(|last| plausible.contains(last));
        let last = in_file.unwrap_or_else(|| known.saturating_add(UNKNOWN_NUMBERS));
        self.tx.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'", [])?;
        self.tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", [last])?;
        Ok(())
    }

    /// Whether the fate of the entry is known.
    fn is_known(&self, entry: EntryId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM entry WHERE id = ?1) \
                       OR EXISTS (SELECT 1 FROM audit WHERE entry = ?1)";
        Ok(self.tx.query_row(sql, [entry.number()], |row| row.get(0))?)
    }
}
