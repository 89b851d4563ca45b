//! New files, and new files in the place of damaged ones.
//!
//! A file is made beside its place and moved there when it is whole, so that one without content
//! is never ours. A damaged one makes way under a dated name:
//!
//! ```text
//! outbox.db.new        being made; worth nothing
//! outbox.db.ready      whole; from here on the move goes on at the next start, whatever happens
//! outbox.db.damaged-T  the damaged file, with its -wal and -shm; T is the time that .ready bears
//! outbox.db.copy       what is read in its stead: reading may write
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use rusqlite::Connection;

use super::error::OpenError;
use super::lock::Lock;
use super::safe_open::{self, PathKind};
use super::size_limits::SizeLimits;
use super::{OutboxOptions, file, hash_chain, recovery, schema};
use crate::domain::AuditLine;

/// What became of a file that was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// Where the damaged file is; `None` where there was none any more.
    pub set_aside: Option<PathBuf>,
    /// What was wrong with it, in words.
    pub cause: String,
    /// Entries that were carried over.
    pub entries: u64,
    /// Audit lines that were carried over.
    pub lines: u64,
    /// Stays that were carried over.
    pub last_seen: u64,
    /// Rows that were found and are not what was written.
    pub damaged: u64,
}

impl std::fmt::Display for RepairReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { set_aside: aside, cause, entries, lines, last_seen: stays, damaged } = self;
        let aside = aside.as_ref().and_then(|aside| aside.file_name());
        match aside {
            Some(aside) => {
                let aside = aside.to_string_lossy();
                write!(f, "the outbox was damaged ({cause}) and set aside as {aside}; ")?;
            }
            None => write!(f, "the outbox was gone ({cause}); ")?,
        }
        write!(
            f,
            "carried over: {entries} entries, {lines} audit lines, {stays} cards in readers; not \
             believed: {damaged} rows; what could not be read is not counted"
        )
    }
}

/// Makes a file where there is none.
pub(super) fn create(path: &Path, now: Timestamp) -> Result<(), OpenError> {
    let conn = begin(path)?;
    finish(path, conn, now)
}

/// Why a file that is not there has to be told as one that is lost; `None` where there never was
/// one.
pub(super) fn gone(path: &Path, lock: &Lock) -> Result<Option<String>, OpenError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if safe_open::survey(path)? == PathKind::DeadLink {
        return Ok(Some(format!("{name} was a symbolic link that leads nowhere")));
    }
    let left = |suffix| safe_open::sibling_path(path, suffix).exists();
    let left = ["-wal", "-shm"].into_iter().find(|suffix| left(suffix));
    let left = left.or(lock.had_outbox().then_some(".lock"));
    Ok(left.map(|suffix| format!("{name} was not there, and {name}{suffix} was left of it")))
}

/// What is wrong with a file, and what of it is read.
#[derive(Debug)]
pub(super) struct RepairSource {
    /// What is wrong, in words.
    pub(super) cause: String,
    /// Whether its log is read too.
    pub(super) log: bool,
}

/// Makes a file with all that can be read of a damaged one, and moves that aside.
pub(super) fn set_aside(
    path: &Path,
    options: &OutboxOptions,
    budget: SizeLimits,
    source: RepairSource,
) -> Result<RepairReport, OpenError> {
    let RepairSource { cause, log } = source;
    let (stamp, aside) = free_name(path, options.now);
    let left = ["", "-wal", "-shm"].iter().map(|suffix| safe_open::sibling_path(path, suffix));
    let aside = left.into_iter().any(|left| left.symlink_metadata().is_ok()).then_some(aside);
    begin(path)?.close().map_err(|(_, error)| error)?;
    let mut conn = reopen(path, budget)?;
    let tx = conn.transaction()?;
    let found = recovery::recover(path, log, &tx)?;
    let recovery::RecoveryCounts { entries, lines, last_seen: stays, damaged } = found;
    let mended =
        RepairReport { set_aside: aside, cause, entries, lines, last_seen: stays, damaged };
    let line = AuditLine::chain_break(&options.station, options.now, mended.to_string());
    hash_chain::append(&tx, &line)?;
    tx.commit()?;
    finish(path, conn, stamp)?;
    Ok(mended)
}

/// Goes on with a move that was broken off. Tells whether there was one.
pub(super) fn resume(path: &Path) -> Result<bool, OpenError> {
    let ready = safe_open::sibling_path(path, ".ready");
    let inaccessible = |source| OpenError::Inaccessible { path: ready.clone(), source };
    let stamp = match ready.symlink_metadata().and_then(|found| found.modified()) {
        Ok(stamp) => Timestamp::try_from(stamp).unwrap_or(Timestamp::UNIX_EPOCH),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(inaccessible(error)),
    };
    let aside = set_aside_name(path, stamp);
    let moved = || {
        // The -wal first: without it the file is not what it was, and with another's it is worse.
        for suffix in ["-wal", "-shm", ""] {
            move_if_there(
                &safe_open::sibling_path(path, suffix),
                &safe_open::sibling_path(&aside, suffix),
            )?;
        }
        sync_parent(path)?;
        fs::rename(&ready, path)?;
        sync_parent(path)
    };
    moved().map_err(inaccessible)?;
    Ok(true)
}

/// An empty outbox under construction.
fn begin(path: &Path) -> Result<Connection, OpenError> {
    let new = safe_open::sibling_path(path, ".new");
    remove(&new)?;
    let inaccessible = |source| OpenError::Inaccessible { path: new.clone(), source };
    safe_open::create(&new).map_err(inaccessible)?;
    sync_parent(path).map_err(inaccessible)?;
    let mut conn = file::connect(&new)?;
    file::set_durability_pragmas(&conn)?;
    schema::migrate(&mut conn, 0)?;
    Ok(conn)
}

fn reopen(path: &Path, budget: SizeLimits) -> Result<Connection, OpenError> {
    let conn = file::connect(&safe_open::sibling_path(path, ".new"))?;
    file::set_durability_pragmas(&conn)?;
    budget.apply_hard_limit(&conn)?;
    Ok(conn)
}

/// Moves what was made to its place.
fn finish(path: &Path, conn: Connection, stamp: Timestamp) -> Result<(), OpenError> {
    conn.close().map_err(|(_, error)| error)?;
    let (new, ready) =
        (safe_open::sibling_path(path, ".new"), safe_open::sibling_path(path, ".ready"));
    let moved = || {
        let made = safe_open::open_to_write(&new)?;
        made.set_modified(SystemTime::try_from(stamp).map_err(io::Error::other)?)?;
        made.sync_all()?;
        fs::rename(&new, &ready)?;
        sync_parent(path)
    };
    moved().map_err(|source| OpenError::Inaccessible { path: new.clone(), source })?;
    resume(path).map(drop)
}

/// Removes a file of ours that is worth nothing, with what SQLite puts beside it.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = safe_open::sibling_path(path, suffix);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Inaccessible { path, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A second whose name is free, from now on.
fn free_name(path: &Path, now: Timestamp) -> (Timestamp, PathBuf) {
    let mut second = now.as_second();
    loop {
        let stamp = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let name = set_aside_name(path, stamp);
        if !name.exists() || second == i64::MAX {
            return (stamp, name);
        }
        second = second.saturating_add(1);
    }
}

fn set_aside_name(path: &Path, stamp: Timestamp) -> PathBuf {
    safe_open::sibling_path(path, &format!(".damaged-{}", stamp.strftime("%Y%m%dT%H%M%SZ")))
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), safe_open::sync_directory)
}
