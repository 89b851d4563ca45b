//! The transactions. Each is wholly on disk when it returns, or did not happen.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::audit_query::{self, AuditFilter, StoredAuditPage};
use super::error::{FullReason, OpenError, StoreError};
use super::file::{self, SqliteHeader};
use super::file_guard::FileGuard;
use super::hash_chain::ChainEnd;
use super::head_log::{self, HeadLog};
use super::lock::Lock;
use super::note_limits::NoteLimits;
use super::repair::RepairSource;
use super::row::{self, DamagedRow};
use super::safe_open::{self, PathKind};
use super::same_history::{DatabaseWithoutWal, OtherHistory};
use super::size_limits::SizeLimits;
use super::verify::{self, ChainCursor};
use super::{
    AppendRequest, AppendResult, LATEST, OutboxContents, OutboxOptions, hash_chain, prune, repair,
    schema, wal,
};
use crate::domain::{
    AuditLine, ChainBatch, ChainPosition, Entry, EntryId, LastSeenCard, Outcome, ReaderName,
    Settlement, Stage,
};

/// The one connection that writes.
#[derive(Debug)]
pub(super) struct Store {
    conn: Connection,
    presence: FileGuard,
    station: String,
    budget: SizeLimits,
    notes: NoteLimits,
    heads: HeadLog,
    /// How many rows `entry` has, so that nobody counts 100,000 of them for each card.
    entries: usize,
    /// The last field: let go only after the connection is.
    _lock: Lock,
}

impl Store {
    /// Opens or makes the file, and reads what is left from before.
    pub(super) fn open(
        options: OutboxOptions,
        budget: SizeLimits,
        on_damage: DamagePolicy,
    ) -> Result<(Self, OutboxContents), OpenError> {
        // Absolute, so that no path begins with "file:", which SQLite would take for a URI.
        let path = std::path::absolute(&options.path)
            .map_err(|source| OpenError::Inaccessible { path: options.path.clone(), source })?;
        safe_open::make_directory(&path)?;
        safe_open::survey(&path)?;
        let mut lock = Lock::take(&path)?;
        let mut mended = None;
        if !repair::resume(&path)? && safe_open::survey(&path)? != PathKind::File {
            match repair::gone(&path, &lock)? {
                None => {
                    lock.sign(false);
                    repair::create(&path, options.now)?;
                }
                Some(_) if on_damage == DamagePolicy::Report => {
                    return Err(OpenError::Missing { path });
                }
                Some(cause) => {
                    let source = RepairSource { log: true, cause };
                    mended = Some(repair::set_aside(&path, &options, budget, source)?);
                }
            }
        }
        lock.sign(true);
        let (conn, mut restored) = match connect(&path, budget) {
            Err(OpenError::Lost(cause)) if on_damage == DamagePolicy::Repair => {
                let source =
                    RepairSource { log: !cause.is::<OtherHistory>(), cause: cause.to_string() };
                mended = Some(repair::set_aside(&path, &options, budget, source)?);
                connect(&path, budget)?
            }
            opened => opened?,
        };
        restored.repaired = mended;
        let made = file::identity(&path)?;
        let entries: u32 = conn.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        let store = Self {
            conn,
            presence: file::presence(&path, made, &lock)?,
            station: options.station,
            budget,
            notes: NoteLimits::default(),
            heads: HeadLog::default(),
            entries: entries as usize,
            _lock: lock,
        };
        Ok((store, restored))
    }

    /// Adds an entry in place of those that it supersedes, and remembers the stay that made it.
    pub(super) fn append(&mut self, append: &AppendRequest) -> Result<AppendResult, StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let mut left = self.entries;
        let mut lines = Vec::new();
        for (id, end) in &append.supersedes {
            match supersede(&tx, &self.station, *id, end.as_ref())? {
                SupersedeResult::Audited(line) => {
                    lines.push(*line);
                    left = left.saturating_sub(1);
                }
                SupersedeResult::Removed => left = left.saturating_sub(1),
                SupersedeResult::Kept => {}
            }
        }
        if left >= self.budget.max_entries {
            return Err(StoreError::Full(FullReason::Entries));
        }
        self.budget.check_soft_limit(&tx, self.notes.count(&tx))?;

        let id = EntryId::new(next_number(&tx)?);
        let AppendRequest { card_event: draft, stage, instance, .. } = append;
        row::insert_entry(&tx, &Entry { id, card_event: draft.clone(), stage: stage.clone() })?;
        // A card that went has no stay any more; that of the next may be there already.
        if draft.trigger.is_insertion() {
            let stay = LastSeenCard {
                reader: draft.reader.clone(),
                event_count: draft.event_count,
                atr: draft.atr.clone(),
                card: draft.card_key(),
                entry: id,
                instance: instance.clone(),
            };
            row::upsert_stay(&tx, &stay)?;
        }
        tx.commit()?;
        self.heads.moved(&self.conn);
        self.entries = left + 1;
        Ok(AppendResult { entry: id, lines })
    }

    /// Stores how far a waiting entry has come.
    pub(super) fn save(&mut self, id: EntryId, stage: Stage) -> Result<(), StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let entry = find(&tx, id)?;
        // Parking is an outcome: it comes with its line, by `settle`, or not at all.
        if is_parked(&entry.stage) || is_parked(&stage) {
            return Err(StoreError::Conflict(id));
        }
        row::update_entry(&tx, &Entry { stage, ..entry })?;
        Ok(tx.commit()?)
    }

    /// Ends an entry with its one outcome, or parks it with that.
    pub(super) fn settle(
        &mut self,
        id: EntryId,
        end: &Settlement,
    ) -> Result<AuditLine, StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let entry = find(&tx, id)?;
        if is_parked(&entry.stage) && end.outcome != Outcome::Discarded {
            return Err(StoreError::Conflict(id));
        }
        let line = AuditLine::settled(&self.station, id, &entry.card_event, end);
        let left = if let Some(stage) = Stage::parked(end) {
            row::update_entry(&tx, &Entry { stage, ..entry })?;
            self.entries
        } else {
            delete(&tx, id)?;
            self.entries.saturating_sub(1)
        };
        hash_chain::append(&tx, &line)?;
        tx.commit()?;
        self.heads.moved(&self.conn);
        self.entries = left;
        Ok(line)
    }

    /// Has a parked entry wait again, because a person said so.
    pub(super) fn unpark(&mut self, id: EntryId, act: &AuditLine) -> Result<(), StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let entry = find(&tx, id)?;
        if !is_parked(&entry.stage) {
            return Err(StoreError::Conflict(id));
        }
        self.budget.check_soft_limit(&tx, self.notes.count(&tx))?;
        let stage = Stage::waiting(entry.stage.sent().cloned());
        row::update_entry(&tx, &Entry { stage, ..entry })?;
        hash_chain::append(&tx, act)?;
        tx.commit()?;
        self.heads.moved(&self.conn);
        Ok(())
    }

    /// Adds a line that ends no entry.
    pub(super) fn note(&mut self, line: &AuditLine) -> Result<(), StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let added = self.notes.append(&tx, line, self.budget.max_notes)?;
        tx.commit()?;
        self.heads.moved(&self.conn);
        self.notes.added(added, self.budget.max_notes);
        Ok(())
    }

    /// How many audit lines may be forgotten at once.
    pub(super) fn prunable(&mut self) -> Result<usize, StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        prune::batch_limit(&tx)
    }

    /// Forgets the oldest audit lines that are older than `keep`, so many at most, and tells how
    /// many.
    pub(super) fn prune(
        &mut self,
        keep: Duration,
        now: Timestamp,
        most: usize,
    ) -> Result<usize, StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        let pruned = prune::batch(&tx, keep, now, most)?;
        tx.commit()?;
        self.notes.forget_count();
        Ok(pruned)
    }

    /// Forgets what was last seen in a reader.
    pub(super) fn end_stay(&mut self, reader: &ReaderName) -> Result<(), StoreError> {
        let tx = begin(&mut self.conn, &self.presence)?;
        tx.prepare_cached("DELETE FROM stay WHERE reader = ?")?.execute([reader.as_str()])?;
        Ok(tx.commit()?)
    }

    /// A piece of the audit trail's chain, looked along.
    pub(super) fn verify(&self, after: Option<&ChainCursor>) -> Result<ChainBatch, StoreError> {
        verify::verify_batch(&self.conn, after, verify::BATCH_LINES)
    }

    /// The place in the chain of the line with this number, if there is one.
    pub(super) fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, StoreError> {
        audit_query::mark(&self.conn, seq)
    }

    /// Logs the newest line's place in the chain.
    pub(super) fn log_head(&self) -> Result<(), StoreError> {
        head_log::log(&head_log::head(&self.conn)?);
        Ok(())
    }

    /// A page of the audit trail.
    pub(super) fn audit(&self, filter: &AuditFilter) -> Result<StoredAuditPage, StoreError> {
        audit_query::page(&self.conn, filter)
    }

    /// Empties the log, so that what was acknowledged is in one place. Tells whether another program
    /// keeps it from that.
    pub(super) fn tidy(&self) -> bool {
        tidy(&self.conn)
    }

    /// Leaves one file behind: without a `-wal`, unless somebody is reading.
    pub(super) fn close(self) {
        let closed = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .and_then(|()| self.conn.close().map_err(|(_, error)| error));
        if let Err(error) = closed {
            let error: &dyn Error = &error;
            tracing::warn!(error, "Outbox was not closed cleanly; the next start completes it");
        }
    }
}

/// What is done with a file that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DamagePolicy {
    /// It makes way for a new one with all that can be read of it.
    Repair,
    /// It is told and left.
    Report,
}

/// Opens the file for writing, up to date and checked, and reads what is left from before.
fn connect(path: &Path, budget: SizeLimits) -> Result<(Connection, OutboxContents), OpenError> {
    wal::check(path)?;
    let header = SqliteHeader::read(path)?;
    let alone = DatabaseWithoutWal::read(path);
    let mut conn = file::connect(path)?;
    // Until it is known to be sound, nothing of its log is brought into it.
    file::keep_log_on_close(&conn, true)?;
    alone.map_or(Ok(()), |alone| alone.check(&conn))?;
    let found = schema::identify(&conn, path)?;
    header.check()?;
    file::set_durability_pragmas(&conn)?;
    budget.apply_hard_limit(&conn)?;
    schema::migrate(&mut conn, found)?;
    file::check(&conn)?;
    for end in [ChainEnd::Anchor, ChainEnd::Head] {
        hash_chain::end(&conn, end)?.map_err(|damage| OpenError::Lost(Box::new(damage)))?;
    }
    // What it finds is for `audit verify` to tell; here it only has to be readable.
    verify::verify_batch(&conn, None, 1)?;
    let restored = restore(&conn)?;
    file::keep_log_on_close(&conn, false)?;
    // Each life of the daemon begins a log of its own: see `log.rs`.
    tidy(&conn);
    Ok((conn, restored))
}

/// Empties the log, unless another reads; tells whether one does. What keeps it from that keeps nothing
/// else from working.
fn tidy(conn: &Connection) -> bool {
    match file::empty_log(conn) {
        Ok(true) => false,
        Ok(false) => {
            tracing::debug!("Outbox's log was not emptied: another program reads it");
            true
        }
        Err(error) => {
            let error: &dyn Error = &error;
            tracing::warn!(error, "Outbox's log was not emptied");
            false
        }
    }
}

/// Every entry, the oldest first.
pub(super) fn entries(
    conn: &Connection,
) -> Result<Vec<Result<Entry, DamagedRow>>, rusqlite::Error> {
    let sql = format!("SELECT {} FROM entry ORDER BY id", row::ENTRY);
    conn.prepare(&sql)?.query_map([], |found| Ok(row::entry(found)))?.collect()
}

/// What a file holds.
pub(super) fn restore(conn: &Connection) -> Result<OutboxContents, rusqlite::Error> {
    let sql = format!("SELECT {} FROM stay ORDER BY reader", row::STAY);
    let stays: Vec<_> = conn
        .prepare(&sql)?
        .query_map([], |found| Ok(row::stay(found)))?
        .collect::<Result<_, _>>()?;
    let mut damaged = Vec::new();
    Ok(OutboxContents {
        entries: partition_damaged(entries(conn)?, &mut damaged),
        last_seen: partition_damaged(stays, &mut damaged),
        latest: partition_damaged(audit_query::latest(conn, LATEST)?, &mut damaged),
        damaged,
        repaired: None,
    })
}

/// What can be believed; the rest goes to `damaged`.
pub(super) fn partition_damaged<T>(
    rows: Vec<Result<T, DamagedRow>>,
    damaged: &mut Vec<DamagedRow>,
) -> Vec<T> {
    rows.into_iter().filter_map(|row| row.map_err(|damage| damaged.push(damage)).ok()).collect()
}

/// Begins what writes, where what is written can be found again.
///
/// Takes the write lock at once: a transaction that read first could be refused it later.
fn begin<'a>(
    conn: &'a mut Connection,
    presence: &FileGuard,
) -> Result<Transaction<'a>, StoreError> {
    presence.check()?;
    Ok(conn.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn find(tx: &Transaction<'_>, id: EntryId) -> Result<Entry, StoreError> {
    let sql = "SELECT id, seen_at, card, draft, stage, seal FROM entry WHERE id = ?";
    let found = tx
        .prepare_cached(sql)?
        .query_row([id.number()], |found| Ok(row::entry(found)))
        .optional()?;
    match found {
        Some(Ok(entry)) => Ok(entry),
        Some(Err(damage)) => Err(StoreError::Damaged(id, damage)),
        None => Err(StoreError::NoSuchEntry(id)),
    }
}

/// What became of an entry that a newer one takes over from.
enum SupersedeResult {
    /// It waited: it ends here, with its line.
    Audited(Box<AuditLine>),
    /// It was parked: its line was written then.
    Removed,
    /// It could not be superseded.
    Kept,
}

/// Removes an entry that a newer one takes over from. The newer must not be lost for an older
/// one's trouble: what cannot be superseded is told and stays.
fn supersede(
    tx: &Transaction<'_>,
    station: &str,
    id: EntryId,
    end: Option<&Settlement>,
) -> Result<SupersedeResult, StoreError> {
    let entry = match find(tx, id) {
        Ok(entry) => entry,
        Err(error @ (StoreError::NoSuchEntry(_) | StoreError::Damaged(..))) => {
            let error: &dyn Error = &error;
            tracing::warn!(entry = id.number(), error, "Entry could not be superseded");
            return Ok(SupersedeResult::Kept);
        }
        Err(error) => return Err(error),
    };
    match (is_parked(&entry.stage), end) {
        (true, _) => {
            delete(tx, id)?;
            Ok(SupersedeResult::Removed)
        }
        (false, Some(end)) => {
            let line = AuditLine::settled(station, id, &entry.card_event, end);
            delete(tx, id)?;
            hash_chain::append(tx, &line)?;
            Ok(SupersedeResult::Audited(Box::new(line)))
        }
        (false, None) => {
            tracing::warn!(entry = id.number(), "Superseded entry kept: it has no outcome yet");
            Ok(SupersedeResult::Kept)
        }
    }
}

fn delete(tx: &Transaction<'_>, id: EntryId) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM entry WHERE id = ?")?.execute([id.number()])?;
    Ok(())
}

/// The number of the next entry, known before the row is written because the seal covers it.
/// `sqlite_sequence` remembers the largest number that ever was (AUTOINCREMENT).
fn next_number(tx: &Transaction<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0), \
                          ifnull((SELECT max(id) FROM entry), 0)) + 1";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn is_parked(stage: &Stage) -> bool {
    match stage {
        Stage::Parked { .. } => true,
        Stage::Queued | Stage::Sent(_) | Stage::Completing(_) => false,
    }
}

#[cfg(test)]
impl Store {
    /// `journal_mode` and `synchronous`, as SQLite has them.
    pub(super) fn durability(&self) -> (String, i64) {
        let get = |pragma| self.conn.pragma_query_value(None, pragma, |row| row.get(0));
        let level = self.conn.pragma_query_value(None, "synchronous", |row| row.get(0));
        (get("journal_mode").unwrap(), level.unwrap())
    }
}
