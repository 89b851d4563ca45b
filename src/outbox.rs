//! The outbox: the durable queue of insertions, and the audit trail, in one SQLite file.
//!
//! What is reported as stored survives a crash and a power cut; what did not fit is refused, never
//! dropped. This module decides nothing about an entry, sends nothing and reads no clock. It never
//! changes an audit line, and removes only the oldest. Why SQLite: `docs/decisions/0001`.
//!
//! | what | limit | beyond it |
//! |---|---|---|
//! | entries, waiting and parked | `max_entries` (default 100,000) | [`StoreError::Full`], nothing stored |
//! | notes: audit lines that end no entry | 65,536 | the same for notes; entries continue |
//! | file | see `limits.rs` | nothing new stored; settling continues, with room of its own |
//! | commands that wait | 1,024 | [`StoreError::Busy`] |
//! | waiting for another program's lock | 1 s | [`StoreError::Busy`] |
//! | a page of the audit trail, a batch of the chain | 1,000 lines | the next page or batch |
//! | processes | 1, and any number that only read | [`OpenError::InUse`] |
//!
//! # Layout, version 2
//!
//! `outbox.db` (0600, `user_version` 2, `application_id` "cbrd"), `outbox.db-wal` and `-shm`
//! while it is open, `outbox.db.lock` with the pid of the process that has it open.
//!
//! ```text
//! entry  id       integer, never used twice      audit  seq      integer, in order of writing
//!        seen_at  RFC 3339, UTC, 9 decimals             at       RFC 3339, UTC, 9 decimals
//!        card     likeliest card id                     outcome  text
//!        draft    JSON of CardEvent                     card     card id, or null
//!        stage    JSON of Stage                         entry    entry's id, or null
//!        seal                                           line     JSON of AuditLine
//! stay   reader   PC/SC name                            seal
//!        stay     JSON of LastSeenCard                  chain    64 hex digits, see hash_chain.rs
//!        seal
//! chain  place    anchor or head      hash  its chain
//!        seq, at  of that line        seal
//! ```
//!
//! `seal` is a SHA-256 over the row (`row.rs`): SQLite's file has no checksum of its own. Triggers
//! prevent that a line of `audit` is changed, or deleted before the anchor has passed it.
//!
//! # Recovery
//!
//! - Killed or powered off: a transaction whose result was not awaited may have happened or not,
//!   never half. A `-wal` of which SQLite would drop what was acknowledged is damage (`wal.rs`). It
//!   is emptied at the start and after a second without commands.
//! - A row whose checksum is wrong is skipped, reported ([`OutboxContents::damaged`]) and left in
//!   the file. It counts as an entry until the operator deletes it with `sqlite3`.
//! - A file that is damaged as a whole is set aside, and all that is readable goes into a new one
//!   ([`RepairReport`], `recovery.rs`); log and audit trail report it. So they do where a file is
//!   missing and its lock or its `-wal` is there.
//! - A file that is removed or replaced while it is open is [`StoreError::Lost`] for every command
//!   that writes, which ends the daemon (`files.rs`). Put a moved file back, with its `-wal`, before
//!   the next start. Where only the `-wal` is missing, closing brings its content into the file.
//! - A full disk refuses what is new with [`StoreError::Full`], and recovers in the same process.
//!   Where other files took the room that the limits count on, settling is refused too, and is
//!   retried. A disk that takes no writes at the start: see `thread.rs`.

mod database;
mod error;
mod files;
mod hash_chain;
mod limits;
mod read_only;
mod recovery;
mod row;
mod store;
mod thread;
mod verify;
mod wal;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use error::{DamagedRow, FullReason, InvalidCursor, OpenError, StoreError};
pub use read_only::{
    AuditCursor, AuditFilter, Listing, MAX_PAGE_LINES, ReadOnlyError, ReadOnlyOutbox,
    StoredAuditPage,
};
pub use recovery::RepairReport;
pub use thread::StoreReply;
pub use verify::ChainCursor;

use crate::domain::{
    AuditLine, CardEvent, ChainBatch, ChainPosition, Entry, EntryId, LastSeenCard, PcscdInstance,
    ReaderName, Settlement, Stage,
};
use files::PathKind;
use limits::SizeLimits;
use store::DamagePolicy;
use thread::{LazyStore, OutboxThread};

/// Where the outbox is and how much it may hold.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    /// The file; its directory is created if it is missing.
    pub path: PathBuf,
    /// How many entries may be stored, waiting and parked together.
    pub max_entries: usize,
    /// The station's id, for audit lines.
    pub station: String,
    /// The time of opening.
    pub now: Timestamp,
}

/// What an outbox holds when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxContents {
    /// The entries, waiting and parked, the oldest first.
    pub entries: Vec<Entry>,
    /// The card that was last seen in each reader, unless its removal was seen.
    pub last_seen: Vec<LastSeenCard>,
    /// The newest 20 audit lines, the newest first.
    pub latest: Vec<AuditLine>,
    /// Rows that were skipped: each may have been an entry.
    pub damaged: Vec<DamagedRow>,
    /// What became of the file, where it was damaged as a whole.
    pub repaired: Option<RepairReport>,
}

/// An insertion or removal to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The insertion or removal.
    pub card_event: CardEvent,
    /// `Queued`, or that of a superseded entry that may have sent something; never `Parked`.
    pub stage: Stage,
    /// The pcscd through which the reader of an inserted card was watched, where that is certain.
    pub instance: Option<PcscdInstance>,
    /// Older entries of the same card, each with its end; `None` where it was parked and has one.
    pub supersedes: Vec<(EntryId, Option<Settlement>)>,
}

/// What an [`AppendRequest`] became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendResult {
    /// The new entry.
    pub entry: EntryId,
    /// The audit lines of the superseded entries, in the order of the request.
    pub lines: Vec<AuditLine>,
}

/// An open outbox. Clones share it.
///
/// Each command is submitted when its method is called, not when the future is polled first, and
/// commands run in that order. Dropping a future cancels nothing. A result says that the command is
/// on disk.
#[derive(Debug, Clone)]
pub struct Outbox {
    thread: Arc<OutboxThread>,
}

/// Opens the outbox, or creates it, and starts its thread. Blocks.
pub fn open(options: OutboxOptions) -> Result<(Outbox, OutboxContents), OpenError> {
    let limits = SizeLimits::of(options.max_entries);
    open_within(options, limits, DamagePolicy::Repair)
}

/// Opens an outbox that is there, to change it while no daemon runs. Blocks. Damage is left to the
/// daemon.
pub fn open_stopped(options: OutboxOptions) -> Result<(Outbox, OutboxContents), OpenError> {
    if files::survey(&options.path)? != PathKind::File {
        return Err(OpenError::Missing(options.path));
    }
    let limits = SizeLimits::of(options.max_entries);
    open_within(options, limits, DamagePolicy::Report)
}

/// Opens the outbox at this path for reading, whether a daemon has it open or not. Blocks, as does
/// every query of it.
pub fn open_read_only(path: &Path) -> Result<ReadOnlyOutbox, OpenError> {
    ReadOnlyOutbox::open(path)
}

/// Lets a process of root continue with the rights of the outbox's owner: for commands that open it
/// beside the daemon or instead of it. For the calling thread, and those that it starts.
pub fn act_as_owner(path: &Path) -> Result<(), OpenError> {
    files::act_as_owner(path)
}

fn open_within(
    options: OutboxOptions,
    limits: SizeLimits,
    on_damage: DamagePolicy,
) -> Result<(Outbox, OutboxContents), OpenError> {
    let path = options.path.clone();
    let (store, contents, error) = LazyStore::new(options, limits, on_damage)?;
    let error = error.map(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    });
    if let Some(error) = &error {
        tracing::error!(
            error,
            "Outbox is not writable; cards are identified and stored once it is"
        );
    }
    let thread =
        OutboxThread::start(store, error).map_err(|error| OpenError::Unusable(Box::new(error)))?;
    tracing::info!(
        path = %path.display(),
        entries = contents.entries.len(),
        damaged = contents.damaged.len(),
        "Outbox opened"
    );
    Ok((Outbox { thread: Arc::new(thread) }, contents))
}

impl Outbox {
    /// Stores an insertion or removal in place of the older entries of its card, and with an
    /// insertion the card as last seen in its reader.
    ///
    /// A superseded entry that is gone or damaged does not block the new one.
    pub fn append(&self, append: AppendRequest) -> StoreReply<AppendResult> {
        self.thread.submit(move |store| store.append(&append))
    }

    /// Stores how far a waiting entry has come: any stage but `Parked`.
    pub fn save(&self, entry: EntryId, stage: Stage) -> StoreReply<()> {
        self.thread.submit(move |store| store.save(entry, stage))
    }

    /// Ends an entry: audited and deleted, or audited and parked. A parked one can only be
    /// discarded.
    pub fn settle(&self, entry: EntryId, end: Settlement) -> StoreReply<AuditLine> {
        self.thread.submit(move |store| store.settle(entry, &end))
    }

    /// Lets a parked entry wait again, and audits the operator's action.
    pub fn unpark(&self, entry: EntryId, action: AuditLine) -> StoreReply<()> {
        self.thread.submit(move |store| store.unpark(entry, &action))
    }

    /// Audits what ends no entry: a card that could not be identified, an operator's action.
    pub fn append_audit(&self, line: AuditLine) -> StoreReply<()> {
        self.thread.submit(move |store| store.append_audit(&line))
    }

    /// Deletes the oldest audit lines that are older than `keep`, and returns how many.
    ///
    /// Other commands run between its transactions. At most a tenth of the trail goes: should `now`
    /// be wrong after all, most of it is left.
    pub async fn prune(&self, keep: Duration, now: Timestamp) -> Result<usize, StoreError> {
        let mut pruned = 0;
        let limit = self.thread.submit(|store| store.prune_limit()).await?;
        while pruned < limit {
            let batch = verify::PRUNE_BATCH.min(limit - pruned);
            match self.thread.submit(move |store| store.prune(keep, now, batch)).await? {
                0 => return Ok(pruned),
                lines => pruned += lines,
            }
        }
        if pruned > 0 {
            tracing::info!(pruned, "Audit trail reached the limit of one pruning run");
        }
        Ok(pruned)
    }

    /// Deletes the card last seen in the reader: it was removed.
    pub fn clear_last_seen(&self, reader: ReaderName) -> StoreReply<()> {
        self.thread.submit(move |store| store.clear_last_seen(&reader))
    }

    /// A page of the audit trail.
    pub fn audit(&self, filter: AuditFilter) -> StoreReply<StoredAuditPage> {
        self.thread.submit(move |store| read_only::audit_page(store.conn(), &filter))
    }

    /// The place in the chain of the audit line with this number, if there is one.
    pub fn mark(&self, seq: i64) -> StoreReply<Option<ChainPosition>> {
        self.thread.submit(move |store| read_only::position(store.conn(), seq))
    }

    /// Logs the newest audit line's place in the chain.
    pub fn log_head(&self) -> StoreReply<()> {
        self.thread.submit(|store| {
            hash_chain::log_head(&hash_chain::sound_end(store.conn(), hash_chain::HEAD)?);
            Ok(())
        })
    }

    /// Verifies the next batch of the audit trail's chain.
    pub fn verify(&self, after: Option<ChainCursor>) -> StoreReply<ChainBatch> {
        self.thread.submit(move |store| {
            verify::verify_batch(store.conn(), after.as_ref(), verify::BATCH_LINES)
        })
    }

    /// Why the file could not be opened for writing since the start. Calling this starts another
    /// attempt.
    #[must_use]
    pub fn write_error(&self) -> Option<String> {
        let error = self.thread.write_error();
        if error.is_some() {
            drop(self.thread.submit(|_| Ok(())));
        }
        error
    }

    /// Returns once the file as a whole is found to be damaged or gone ([`StoreError::Lost`]):
    /// nothing can be stored any more.
    pub async fn lost(&self) {
        self.thread.lost.notified().await;
    }

    /// Finishes what was submitted and closes the file. Blocks for as long as the disk does. Commands
    /// of other clones then result in [`StoreError::Closed`].
    ///
    /// Dropping the last clone does the same.
    pub fn close(self) {
        self.thread.close();
    }
}

#[cfg(test)]
mod tests;
