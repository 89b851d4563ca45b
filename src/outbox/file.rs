//! The file: made for its owner alone, locked for one process, opened so that stored means stored.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::presence::{Identity, Presence};

/// How long a command waits for somebody with `sqlite3` open on the file. Less than the 2 s in
/// which the daemon has to stop.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The pages that SQLite keeps in memory, in KiB; negative is SQLite's sign for that unit.
const CACHE_SIZE: i64 = -256;

/// The size of a page: SQLite's default, and what every outbox was made with.
pub(super) const PAGE: usize = 4096;

/// Up to how many pages a file is checked as a whole at the start: 32 MiB, some 100 ms.
const SMALL: u32 = 8192;

/// Holds every other process off for as long as it lives. The kernel ends it with the process,
/// so a file left behind by a crash locks nobody out.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    path: PathBuf,
    identity: Identity,
}

impl Lock {
    /// The lock of the outbox at this path.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let outbox = path;
        let path = beside(path, ".lock");
        let inaccessible = |source| OpenError::Inaccessible { path: path.clone(), source };
        let mut file = private().open(&path).map_err(inaccessible)?;
        give_to_owner_of(outbox, &file);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::InUse { pid });
            }
            Err(TryLockError::Error(source)) => return Err(inaccessible(source)),
        }
        if let Err(error) = tell_pid(&mut file) {
            tracing::warn!(%error, "Lock does not tell the pid");
        }
        let identity = file.metadata().map_err(inaccessible)?.into();
        Ok(Self { _file: file, path, identity })
    }
}

/// What has to stay where it is: the lock's file, the outbox's (`made`), and, once a connection
/// has read something, the two of SQLite's.
pub(super) fn presence(path: &Path, made: Identity, lock: &Lock) -> Result<Presence, OpenError> {
    let mut presence = Presence::default();
    presence.expect(path.to_owned(), made);
    presence.expect(lock.path.clone(), lock.identity);
    presence.expect_what_is_at(beside(path, "-wal"))?;
    presence.expect_what_is_at(beside(path, "-shm"))?;
    Ok(presence)
}

/// Has a lock that root made, for a daemon that does not run, belong to whom the outbox does.
fn give_to_owner_of(outbox: &Path, lock: &File) {
    if let (Ok(outbox), Ok(made)) = (outbox.metadata(), lock.metadata())
        && (outbox.uid(), outbox.gid()) != (made.uid(), made.gid())
        && let Err(error) = fchown(lock, Some(outbox.uid()), Some(outbox.gid()))
    {
        tracing::debug!(%error, "Lock stays as it is");
    }
}

fn tell_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Makes the directory, mode 0700, where it is missing.
pub(super) fn make_directory(path: &Path) -> Result<(), OpenError> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let missing: Vec<&Path> = directory.ancestors().take_while(|dir| !dir.exists()).collect();
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        missing.iter().filter_map(|made| made.parent()).try_for_each(sync_directory)
    };
    make().map_err(|source| OpenError::Inaccessible { path: directory.to_owned(), source })
}

/// Which file is at the path.
pub(super) fn identity(path: &Path) -> Result<Identity, OpenError> {
    let found = path.metadata();
    found
        .map(Identity::from)
        .map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })
}

/// Makes the file, mode 0600, where it is missing. SQLite gives `-wal` and `-shm` its mode.
pub(super) fn make_file(path: &Path) -> Result<(), OpenError> {
    let make = || {
        private().open(path)?;
        path.parent().map_or(Ok(()), sync_directory)
    };
    make().map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })
}

/// A file that is there, for reading and writing.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// A file that is there, for reading: nothing is written, nothing is made.
///
/// SQLite makes a missing `-wal` even for a reader, and leaves it behind. Without one the file
/// is whole by itself, and nobody has it open; `immutable` then reads it as it is.
pub(super) fn connect_read_only(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let settled = if in_use(path) { "" } else { "&immutable=1" };
    let conn = Connection::open_with_flags(uri(path, &format!("?mode=ro{settled}")), flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Whether somebody has the outbox open, or had when it crashed.
pub(super) fn in_use(path: &Path) -> bool {
    beside(path, "-wal").exists()
}

/// Whether closing leaves the `-wal` as it is. Otherwise the last one to close brings it in.
pub(super) fn keep_log_on_close(conn: &Connection, keep: bool) -> Result<(), OpenError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Whether the file is what SQLite wrote: [`OpenError::Lost`] where it is not.
///
/// A large one only where it holds what waits; the audit trail has a check of its own.
pub(super) fn check(conn: &Connection) -> Result<(), OpenError> {
    let pages: u32 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let checks: &[&str] = if pages <= SMALL {
        &["PRAGMA integrity_check(1)"]
    } else {
        &[
            "PRAGMA quick_check('entry')",
            "PRAGMA quick_check('stay')",
            "PRAGMA quick_check('chain')",
        ]
    };
    for check in checks {
        let verdict: String = conn.query_row(check, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(OpenError::Lost(verdict.into()));
        }
    }
    Ok(())
}

/// Whether the file begins as every outbox does: what SQLite reads there, it believes.
pub(super) fn check_header(path: &Path) -> Result<(), OpenError> {
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let size = u16::try_from(PAGE).unwrap_or_default().to_be_bytes();
    let as_written = header.starts_with(b"SQLite format 3\0")
        && header.get(16..24) == Some(&[size[0], size[1], 2, 2, 0, 64, 32, 32])
        && header.get(44..48) == Some(&[0, 0, 0, 4])
        && header.get(56..60) == Some(&[0, 0, 0, 1]);
    match read {
        Ok(()) if as_written => Ok(()),
        Ok(()) => Err(OpenError::Lost("its header is not that of an outbox".into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(OpenError::Lost("it has no header".into()))
        }
        Err(source) => Err(OpenError::Inaccessible { path: path.to_owned(), source }),
    }
}

/// Sets what durability rests on, and reads back that it holds.
pub(super) fn make_durable(conn: &Connection) -> Result<(), OpenError> {
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NotDurable { setting: "journal_mode=WAL" });
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    let level: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if level != 2 {
        return Err(OpenError::NotDurable { setting: "synchronous=FULL" });
    }
    conn.pragma_update(None, "cache_size", CACHE_SIZE)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    // What was deleted is gone: no damage brings a settled entry back.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// The path with something after its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// A new name is on disk only once its directory is.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The path as SQLite's URI, where `?`, `#` and `%` would mean something.
fn uri(path: &Path, query: &str) -> OsString {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    let mut text = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            text.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            write!(text, "%{byte:02x}").unwrap_or_default();
        }
    }
    text.push_str(query);
    text.into()
}
