//! The transactions. Each is completely on disk when it returns, or did not happen.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{FullReason, OpenError, StoreError};
use super::files::{self, FileGuard, Lock, PathKind};
use super::hash_chain::{self, ANCHOR, HEAD, HeadLog};
use super::limits::{NoteLimits, SizeLimits};
use super::read_only;
use super::row;
use super::verify;
use super::wal::{self, DatabaseWithoutWal, OtherHistory, Wal};
use super::{AppendRequest, AppendResult, OutboxContents, OutboxOptions, database, recovery};
use crate::domain::{
    AuditLine, Entry, EntryId, LastSeenCard, Outcome, ReaderName, Settlement, Stage,
};

/// What is done with a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DamagePolicy {
    /// It is set aside, and all that can be read of it goes into a new one.
    Repair,
    /// It is reported and not changed.
    Report,
}

/// The outbox, open for writing.
#[derive(Debug)]
pub(super) struct Store {
    writer: Writer,
    station: String,
    limits: SizeLimits,
    notes: NoteLimits,
    /// How many rows `entry` has: counting 100,000 of them for each card takes too long.
    entries: usize,
    /// The last field: released only after the connection is.
    _lock: Lock,
}

/// The one connection that writes.
#[derive(Debug)]
struct Writer {
    conn: Connection,
    files: FileGuard,
    heads: HeadLog,
}

impl Writer {
    /// Runs a transaction, unless a file was removed or replaced.
    fn write<T>(
        &mut self,
        command: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.files.check()?;
        // Takes the write lock at once: a transaction that read first could be refused it later.
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = command(&tx)?;
        tx.commit()?;
        self.heads.on_commit(&self.conn);
        Ok(done)
    }
}

impl Store {
    /// Opens or creates the file, and reads what is left from before.
    pub(super) fn open(
        options: &OutboxOptions,
        limits: SizeLimits,
        on_damage: DamagePolicy,
    ) -> Result<(Self, OutboxContents), OpenError> {
        let path = &files::absolute(&options.path)?;
        files::create_directory(path)?;
        files::survey(path)?;
        let mut lock = Lock::take(path)?;
        let (conn, contents) = connect_or_repair(path, options, limits, on_damage, &mut lock)?;
        let entries: u32 = conn.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        let (files, heads) = (FileGuard::new(path, &lock)?, HeadLog::new(&conn)?);
        let store = Self {
            writer: Writer { conn, files, heads },
            station: options.station.clone(),
            limits,
            notes: NoteLimits::default(),
            entries: entries as usize,
            _lock: lock,
        };
        Ok((store, contents))
    }

    /// Adds an entry in place of those that it supersedes, and stores the card as last seen.
    pub(super) fn append(&mut self, append: &AppendRequest) -> Result<AppendResult, StoreError> {
        let AppendRequest { card_event, stage, instance, supersedes } = append;
        let mut lines = Vec::new();
        let mut left = self.entries;
        let id = self.writer.write(|tx| {
            for (id, end) in supersedes {
                if supersede(tx, &self.station, *id, end.as_ref(), &mut lines)? {
                    left = left.saturating_sub(1);
                }
            }
            if left >= self.limits.max_entries {
                return Err(StoreError::Full(FullReason::Entries));
            }
            self.limits.check_soft_limit(tx, self.notes.count(tx))?;
            let id = EntryId::new(next_number(tx)?);
            let entry = Entry { id, card_event: card_event.clone(), stage: stage.clone() };
            row::insert_entry(tx, &entry)?;
            // After a removal, the next card of the reader may be stored already.
            if card_event.trigger.is_insertion() {
                let card = LastSeenCard {
                    reader: card_event.reader.clone(),
                    event_count: card_event.event_count,
                    atr: card_event.atr.clone(),
                    card: card_event.card_key(),
                    entry: id,
                    instance: instance.clone(),
                };
                row::write_last_seen(tx, &card)?;
            }
            Ok(id)
        })?;
        self.entries = left + 1;
        Ok(AppendResult { entry: id, lines })
    }

    /// Stores how far a waiting entry has come.
    pub(super) fn save(&mut self, id: EntryId, stage: Stage) -> Result<(), StoreError> {
        self.writer.write(|tx| {
            let entry = find(tx, id)?;
            // Parking is an outcome: `settle` writes it with its line.
            if is_parked(&entry.stage) || is_parked(&stage) {
                return Err(StoreError::Conflict(id));
            }
            row::update_entry(tx, &Entry { stage, ..entry })
        })
    }

    /// Ends an entry with its one outcome, or parks it with that.
    pub(super) fn settle(
        &mut self,
        id: EntryId,
        end: &Settlement,
    ) -> Result<AuditLine, StoreError> {
        let parked = Stage::parked(end);
        let deleted = usize::from(parked.is_none());
        let line = self.writer.write(|tx| {
            let entry = find(tx, id)?;
            if is_parked(&entry.stage) && end.outcome != Outcome::Discarded {
                return Err(StoreError::Conflict(id));
            }
            let line = AuditLine::settled(&self.station, id, &entry.card_event, end);
            match parked {
                Some(stage) => row::update_entry(tx, &Entry { stage, ..entry })?,
                None => delete(tx, id)?,
            }
            hash_chain::append(tx, &line)?;
            Ok(line)
        })?;
        self.entries = self.entries.saturating_sub(deleted);
        Ok(line)
    }

    /// Lets a parked entry wait again, by this action of an operator.
    pub(super) fn unpark(&mut self, id: EntryId, action: &AuditLine) -> Result<(), StoreError> {
        self.writer.write(|tx| {
            let entry = find(tx, id)?;
            if !is_parked(&entry.stage) {
                return Err(StoreError::Conflict(id));
            }
            self.limits.check_soft_limit(tx, self.notes.count(tx))?;
            let stage = Stage::waiting(entry.stage.sent().cloned());
            row::update_entry(tx, &Entry { stage, ..entry })?;
            hash_chain::append(tx, action)
        })
    }

    /// Adds a line that ends no entry.
    pub(super) fn append_audit(&mut self, line: &AuditLine) -> Result<(), StoreError> {
        let max = self.limits.max_notes;
        let count = self.writer.write(|tx| self.notes.append(tx, line, max))?;
        self.notes.on_committed(count, max);
        Ok(())
    }

    /// How many audit lines one run may prune.
    pub(super) fn prune_limit(&self) -> Result<usize, StoreError> {
        verify::prune_limit(&self.writer.conn)
    }

    /// Deletes the oldest audit lines that are older than `keep`, `limit` at most; returns how many.
    pub(super) fn prune(
        &mut self,
        keep: Duration,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let pruned = self.writer.write(|tx| verify::prune(tx, keep, now, limit))?;
        self.notes.forget_count();
        Ok(pruned)
    }

    /// Deletes the card last seen in a reader.
    pub(super) fn clear_last_seen(&mut self, reader: &ReaderName) -> Result<(), StoreError> {
        self.writer.write(|tx| {
            tx.prepare_cached("DELETE FROM stay WHERE reader = ?")?.execute([reader.as_str()])?;
            Ok(())
        })
    }

    /// The connection, for queries.
    pub(super) const fn conn(&self) -> &Connection {
        &self.writer.conn
    }

    /// Leaves one file behind.
    pub(super) fn close(self) {
        database::close(self.writer.conn);
    }
}

/// Opens the file. One that never was is created, one that is missing or damaged is repaired.
fn connect_or_repair(
    path: &Path,
    options: &OutboxOptions,
    limits: SizeLimits,
    on_damage: DamagePolicy,
    lock: &mut Lock,
) -> Result<(Connection, OutboxContents), OpenError> {
    let repair = |cause, wal| recovery::repair(path, options, limits, cause, wal).map(Some);
    let mut repaired = None;
    if !database::resume_move(path)? && files::survey(path)? != PathKind::File {
        match recovery::missing(path, lock)? {
            None => {
                lock.write(false);
                database::create(path, options.now)?;
            }
            Some(_) if on_damage == DamagePolicy::Report => {
                return Err(OpenError::Missing(path.to_owned()));
            }
            Some(cause) => repaired = repair(cause, Wal::read(path)?)?,
        }
    }
    lock.write(true);
    let (conn, contents) = match connect(path, limits) {
        Err(OpenError::Lost(cause)) if on_damage == DamagePolicy::Repair => {
            let is_others = cause.is::<OtherHistory>();
            let wal = if is_others { Wal::default() } else { Wal::read(path)? };
            repaired = repair(cause.to_string(), wal)?;
            connect(path, limits)?
        }
        opened => opened?,
    };
    Ok((conn, OutboxContents { repaired, ..contents }))
}

/// Opens the file for writing, migrated and checked, and reads what is left from before.
fn connect(path: &Path, limits: SizeLimits) -> Result<(Connection, OutboxContents), OpenError> {
    wal::check(path)?;
    let header_fault = database::header_fault(path)?;
    let alone = DatabaseWithoutWal::read(path);
    let mut conn = database::connect(path)?;
    // Until the file is known to be sound, closing moves nothing of its log into it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if let Some(alone) = alone {
        alone.check(&conn)?;
    }
    let found = database::identify(&conn, path)?;
    if let Some(fault) = header_fault {
        return Err(OpenError::Lost(fault.into()));
    }
    database::set_durability_pragmas(&conn)?;
    limits.apply_hard_limit(&conn)?;
    database::migrate(&mut conn, found)?;
    database::check(&conn)?;
    hash_chain::sound_end(&conn, ANCHOR)?;
    hash_chain::sound_end(&conn, HEAD)?;
    // Faults are for `audit verify` to report; here the chain only has to be readable.
    verify::verify_batch(&conn, None, 1)?;
    let contents = read_only::contents(&conn)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // Each life of the daemon begins a log of its own: see `wal.rs`.
    database::empty_wal(&conn);
    Ok((conn, contents))
}

fn find(tx: &Transaction<'_>, id: EntryId) -> Result<Entry, StoreError> {
    let found = row::ENTRY.find_one(tx, "WHERE id = ?", [id.number()])?;
    let found = found.ok_or(StoreError::NoSuchEntry(id))?;
    found.map_err(|damage| StoreError::Damaged(id, damage))
}

/// Removes an entry that a newer one supersedes, and adds the line of one that waited to `lines`.
/// Returns whether it is removed: the newer entry must not be lost for an older one's fault.
fn supersede(
    tx: &Transaction<'_>,
    station: &str,
    id: EntryId,
    end: Option<&Settlement>,
    lines: &mut Vec<AuditLine>,
) -> Result<bool, StoreError> {
    let entry = match find(tx, id) {
        Ok(entry) => entry,
        Err(error @ (StoreError::NoSuchEntry(_) | StoreError::Damaged(..))) => {
            let error: &dyn Error = &error;
            tracing::warn!(entry = id.number(), error, "Entry could not be superseded");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    // The line of a parked one was written when it was parked.
    if !is_parked(&entry.stage) {
        let Some(end) = end else {
            tracing::warn!(entry = id.number(), "Superseded entry kept: it has no outcome yet");
            return Ok(false);
        };
        let line = AuditLine::settled(station, id, &entry.card_event, end);
        hash_chain::append(tx, &line)?;
        lines.push(line);
    }
    delete(tx, id)?;
    Ok(true)
}

fn delete(tx: &Transaction<'_>, id: EntryId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM entry WHERE id = ?")?.execute([id.number()])?;
    Ok(())
}

/// The number of the next entry, known before the row is written because the checksum covers it.
/// `sqlite_sequence` has the largest number that ever was (AUTOINCREMENT).
fn next_number(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0), \
                          ifnull((SELECT max(id) FROM entry), 0)) + 1";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

const fn is_parked(stage: &Stage) -> bool {
    matches!(stage, Stage::Parked { .. })
}
