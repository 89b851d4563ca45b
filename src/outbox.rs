//! The outbox: the durable queue of insertions, and the audit trail, in one SQLite file.
//!
//! What is told as stored survives a crash and a power cut; what did not fit is refused, never
//! dropped. This module decides nothing about an entry, sends nothing and reads no clock. It
//! never changes an audit line, and removes only the oldest (`prune.rs`). Why SQLite: `docs/decisions/0001-storage-engine.md`.
//!
//! # Limits
//!
//! | what | limit | beyond it |
//! |---|---|---|
//! | entries, waiting and parked | `max_entries` (default 100,000) | [`StoreError::Full`], nothing stored |
//! | notes: audit lines that end no entry | 65,536 | the same for notes; entries go on |
//! | file, for what is new | `max_entries` × 2 KiB + 1 GiB + notes × 2 KiB | nothing stored; settling goes on |
//! | file, in all | that + `max_entries` × 2 KiB + 1 MiB | the same, for every command |
//! | commands that wait | 1,024 | [`StoreError::Busy`] |
//! | waiting for somebody else's lock | 1 s | [`StoreError::Busy`] |
//! | a page of the audit trail | 1,000 lines | the next page |
//! | a piece of the chain that is looked along | 1,000 lines | the next piece |
//! | SQLite's cache | 256 KiB | – |
//! | processes | 1, and any number that only look | [`OpenError::InUse`] |
//!
//! An audit line takes about 1 KiB. When the outcomes in the trail have used its 1 GiB (about a
//! million cards), the outbox is full until lines are pruned: what is pruned makes room in the file.
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
//!        draft    JSON of Draft                         card     card id, or null
//!        stage    JSON of Stage                         entry    entry's id, or null
//!        seal                                           line     JSON of AuditLine
//! stay   reader   PC/SC name                            seal
//!        stay     JSON of Stay                          chain    64 hex digits, see chain.rs
//!        seal
//! chain  place    anchor or head      hash  its chain
//!        seq, at  of that line        seal
//! ```
//!
//! `seal` is a SHA-256 over the row (`row.rs`): SQLite's file has no checksum of its own. Triggers
//! refuse to change a line of `audit`, or to delete one that the anchor has not passed.
//!
//! # Writing
//!
//! `journal_mode=WAL` and `synchronous=FULL`, read back on every opening: one sync a transaction.
//!
//! | command | one transaction |
//! |---|---|
//! | append | an audit line for each superseded entry that waits; the superseded ones deleted; the entry added; the reader's stay written, unless the card went |
//! | save | the entry's stage |
//! | settle | an audit line; the entry deleted, or its stage set to parked |
//! | unpark | an audit line; the entry's stage set to queued |
//! | note | an audit line |
//! | prune | the anchor moved; up to 500 audit lines deleted |
//! | end of a stay | the reader's stay deleted |
//!
//! Each asks first whether `outbox.db` and the files beside it are those that were opened
//! (`presence.rs`): SQLite would go on writing to a file that has no name any more.
//!
//! # Recovery
//!
//! - Killed or powered off: nothing to do. A transaction whose answer nobody got may have
//!   happened or not, never half.
//! - A `-wal` of which SQLite would drop what was acknowledged is damage of the file (`log.rs`).
//!   It is emptied at the start and after a second without commands.
//! - A row whose seal does not fit is skipped and told ([`OutboxContents::damaged`]), and left in the
//!   file. It counts as an entry until somebody deletes it with `sqlite3`.
//! - A file that is gone, while its lock or its `-wal` says that it was there, is told in the same
//!   way as one that is damaged. Links, pipes and the like are refused ([`OpenError::Unsuitable`]).
//! - A file that is damaged as a whole is set aside, and all that is readable goes into a new one
//!   ([`RepairReport`]), which is told loudly, and in the audit trail (`mend.rs`, `salvage.rs`).
//! - A disk that takes no writes at the start: what can be read is told, and every command tries
//!   again to open the file (`slot.rs`).
//! - A file that is removed or replaced while it is open is [`StoreError::Lost`] for every command
//!   that writes, which ends the daemon. What waited in it is gone, unless it was only moved: put
//!   it back, with its `-wal`, before the next start, which would make an empty one. Where only
//!   the `-wal` went, its content is brought into the file on closing.
//! - A full disk refuses what is new with [`StoreError::Full`], and heals in the same process.
//!   Where other files took the room that the limits above count on, settling is refused too, and
//!   is to be tried again: what was sent is stored as sent, and read back before it is repeated.

mod audit_query;
mod error;
mod file;
mod file_guard;
mod hash_chain;
mod head_log;
mod lazy_store;
mod lock;
mod note_limits;
mod prune;
mod read_only;
mod recovery;
mod repair;
mod row;
mod safe_open;
mod same_history;
mod schema;
mod size_limits;
mod store;
mod thread;
mod verify;
mod wal;
mod wal_image;
mod wal_index;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use audit_query::{AuditCursor, AuditFilter, InvalidCursor, MAX_PAGE_LINES, StoredAuditPage};
pub use error::{FullReason, OpenError, StoreError};
pub use read_only::{Listing, ReadOnlyError, ReadOnlyOutbox};
pub use repair::RepairReport;
pub use row::DamagedRow;
pub use verify::ChainCursor;

use crate::domain::{
    AuditLine, CardEvent, ChainBatch, ChainPosition, Entry, EntryId, LastSeenCard, PcscdInstance,
    ReaderName, Settlement, Stage,
};
use lazy_store::LazyStore;
use safe_open::PathKind;
use size_limits::SizeLimits;
use store::DamagePolicy;
use thread::{OutboxThread, answer};

/// How many of the newest audit lines are told on opening.
const LATEST: usize = 20;

/// Where the outbox is and how much it may hold.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    /// The file; its directory is made if it is missing.
    pub path: PathBuf,
    /// How many entries may wait, for CM and for people together.
    pub max_entries: usize,
    /// The station's id, for audit lines.
    pub station: String,
    /// The moment of the opening.
    pub now: Timestamp,
}

/// What an outbox holds when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxContents {
    /// The entries, waiting and parked, the oldest first.
    pub entries: Vec<Entry>,
    /// The card that was last seen in each reader, where it was not seen leaving.
    pub last_seen: Vec<LastSeenCard>,
    /// The newest 20 audit lines, the newest first.
    pub latest: Vec<AuditLine>,
    /// Rows that were skipped: to be told loudly, each may have been an entry.
    pub damaged: Vec<DamagedRow>,
    /// What became of the file, where it was damaged as a whole.
    pub repaired: Option<RepairReport>,
}

/// An insertion to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The insertion.
    pub card_event: CardEvent,
    /// `Queued`, or that of a superseded entry that may have sent something; never `Parked`.
    pub stage: Stage,
    /// What the reader of a card that came was watched through, where that is certain.
    pub instance: Option<PcscdInstance>,
    /// Older entries of the same card, each with its end; `None` where it was parked and has one.
    pub supersedes: Vec<(EntryId, Option<Settlement>)>,
}

/// What an [`AppendRequest`] became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendResult {
    /// The new entry.
    pub entry: EntryId,
    /// The audit lines of the superseded entries, in the order in which those were named.
    pub lines: Vec<AuditLine>,
}

/// An open outbox. Clones share it.
///
/// Each command is submitted when its method is called, not when the future is polled first, and
/// commands run in that order. A future that is dropped takes back nothing. An answer says that
/// the command is on disk.
#[derive(Debug, Clone)]
pub struct Outbox {
    thread: Arc<OutboxThread>,
}

/// Opens the outbox, or makes it, and starts its thread. Blocks.
pub fn open(options: OutboxOptions) -> Result<(Outbox, OutboxContents), OpenError> {
    let budget = SizeLimits::of(options.max_entries);
    open_within(options, budget, DamagePolicy::Repair)
}

/// Opens an outbox that is there, to act on it while no daemon runs. Blocks. What is damaged is
/// left to the daemon.
pub fn open_stopped(options: OutboxOptions) -> Result<(Outbox, OutboxContents), OpenError> {
    if safe_open::survey(&options.path)? != PathKind::File {
        return Err(OpenError::Missing { path: options.path });
    }
    let budget = SizeLimits::of(options.max_entries);
    open_within(options, budget, DamagePolicy::Report)
}

/// Looks into the outbox at this path, whether a daemon has it open or not. Blocks, as does
/// everything that is asked of it.
pub fn open_read_only(path: &Path) -> Result<ReadOnlyOutbox, OpenError> {
    ReadOnlyOutbox::open(path)
}

/// Has the process go on with the rights of the outbox's owner where it has root's: for commands
/// that open it beside the daemon or in its stead. For the thread that calls it, and those that it
/// starts.
pub fn act_as_owner(path: &Path) -> Result<(), OpenError> {
    safe_open::act_as_owner(path)
}

fn open_within(
    options: OutboxOptions,
    budget: SizeLimits,
    on_damage: DamagePolicy,
) -> Result<(Outbox, OutboxContents), OpenError> {
    let path = options.path.clone();
    let (slot, restored, trouble) = LazyStore::open(options, budget, on_damage)?;
    let trouble = trouble.map(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    });
    if let Some(trouble) = &trouble {
        tracing::error!(
            trouble,
            "Outbox is not writable; cards are identified and stored once it is"
        );
    }
    let worker =
        OutboxThread::start(slot, trouble).map_err(|error| OpenError::Unusable(Box::new(error)))?;
    tracing::info!(
        path = %path.display(),
        entries = restored.entries.len(),
        damaged = restored.damaged.len(),
        "Outbox opened"
    );
    Ok((Outbox { thread: Arc::new(worker) }, restored))
}

impl Outbox {
    /// Stores an insertion in place of the older entries of its card, and the stay that made it.
    ///
    /// A superseded entry that is gone or damaged does not keep the new one out.
    pub fn append(
        &self,
        append: AppendRequest,
    ) -> impl Future<Output = Result<AppendResult, StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.append(&append)))
    }

    /// Stores how far a waiting entry has come: any stage but `Parked`.
    pub fn save(
        &self,
        entry: EntryId,
        stage: Stage,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.save(entry, stage)))
    }

    /// Ends an entry: audited and deleted, or audited and parked. A parked one can only be
    /// discarded.
    pub fn settle(
        &self,
        entry: EntryId,
        end: Settlement,
    ) -> impl Future<Output = Result<AuditLine, StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.settle(entry, &end)))
    }

    /// Has a parked entry wait again, and audits the act of the person who said so.
    pub fn unpark(
        &self,
        entry: EntryId,
        act: AuditLine,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.unpark(entry, &act)))
    }

    /// Audits what ends no entry: a card that could not be identified, a person's act.
    pub fn append_audit(
        &self,
        line: AuditLine,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.note(&line)))
    }

    /// Forgets the oldest audit lines that are older than `keep`, in as many transactions as it
    /// takes, between which other commands run, but at most a tenth of the trail: should `now` be wrong
    /// after all, most is left. Tells how many lines went.
    pub async fn prune(&self, keep: Duration, now: Timestamp) -> Result<usize, StoreError> {
        let mut pruned = 0;
        let most = answer(self.thread.submit(store::Store::prunable)).await?;
        while pruned < most {
            let batch = prune::BATCH.min(most - pruned);
            let batch = self.thread.submit(move |store| store.prune(keep, now, batch));
            match answer(batch).await? {
                0 => return Ok(pruned),
                lines => pruned += lines,
            }
        }
        if pruned > 0 {
            tracing::info!(pruned, "Audit trail forgets no more at once; it goes on another time");
        }
        Ok(pruned)
    }

    /// Forgets the reader's stay: its card was taken out.
    pub fn clear_last_seen(
        &self,
        reader: ReaderName,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.end_stay(&reader)))
    }

    /// A page of the audit trail.
    pub fn audit(
        &self,
        filter: AuditFilter,
    ) -> impl Future<Output = Result<StoredAuditPage, StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.audit(&filter)))
    }

    /// The place in the chain of the audit line with this number, if there is one.
    pub fn mark(
        &self,
        seq: i64,
    ) -> impl Future<Output = Result<Option<ChainPosition>, StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.mark(seq)))
    }

    /// Logs the newest audit line's place in the chain.
    pub fn log_head(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        answer(self.thread.submit(|store| store.log_head()))
    }

    /// Looks along the next piece of the audit trail's chain.
    pub fn verify(
        &self,
        after: Option<ChainCursor>,
    ) -> impl Future<Output = Result<ChainBatch, StoreError>> + Send + use<> {
        answer(self.thread.submit(move |store| store.verify(after.as_ref())))
    }

    /// Why the file cannot be written, where it could not since the start; asking has it tried
    /// again.
    #[must_use]
    pub fn write_error(&self) -> Option<String> {
        let trouble = self.thread.trouble();
        if trouble.is_some() {
            drop(self.thread.submit(|_| Ok(())));
        }
        trouble
    }

    /// Comes back once the file as a whole is found to be damaged or gone ([`StoreError::Lost`]):
    /// nothing can be kept any more, and somebody has to come.
    pub async fn lost(&self) {
        self.thread.lost().await;
    }

    /// Finishes what was submitted, tidies up and lets the file go. Blocks for as long as the
    /// disk does. Commands of other clones are then answered with [`StoreError::Closed`].
    ///
    /// The last clone to be dropped does the same.
    pub fn close(self) {
        self.thread.close();
    }
}

#[cfg(test)]
mod tests;
