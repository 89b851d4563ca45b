//! The file as SQLite has it: opened so that stored means stored.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;
use super::file_guard::{FileGuard, FileId};
use super::lock::Lock;
use super::safe_open::{self, sibling_path};

/// How long a command waits for somebody with `sqlite3` open on the file. Less than the 2 s in
/// which the daemon has to stop.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The pages that SQLite keeps in memory, in KiB; negative is SQLite's sign for that unit.
const CACHE_SIZE: i64 = -256;

/// The size of a page: SQLite's default, and what every outbox was made with.
pub(super) const PAGE: usize = 4096;

/// Up to how many pages a file is checked as a whole at the start: 32 MiB, some 100 ms.
const FULL_CHECK_MAX_PAGES: u32 = 8192;

/// What has to stay where it is: the lock's file, the outbox's (`made`), and, once a connection
/// has read something, the two of SQLite's.
pub(super) fn presence(path: &Path, made: FileId, lock: &Lock) -> Result<FileGuard, OpenError> {
    let mut presence = FileGuard::default();
    presence.expect(path.to_owned(), made);
    let (lock, identity) = lock.file();
    presence.expect(lock, identity);
    presence.expect_what_is_at(sibling_path(path, "-wal"))?;
    presence.expect_what_is_at(sibling_path(path, "-shm"))?;
    Ok(presence)
}

/// Which file is at the path.
pub(super) fn identity(path: &Path) -> Result<FileId, OpenError> {
    let found = path.metadata();
    found
        .map(FileId::from)
        .map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })
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

/// What the file says without its log, whoever has it open.
pub(super) fn connect_alone(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(uri(path, "?mode=ro&immutable=1"), flags)?)
}

/// Whether somebody has the outbox open, or had when it crashed.
pub(super) fn in_use(path: &Path) -> bool {
    sibling_path(path, "-wal").exists()
}

/// Whether closing leaves the `-wal` as it is. Otherwise the last one to close brings it in.
pub(super) fn keep_log_on_close(conn: &Connection, keep: bool) -> Result<(), OpenError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Brings the log into the file and cuts it to nothing, without waiting for others. Tells whether
/// that was done.
pub(super) fn empty_log(conn: &Connection) -> Result<bool, rusqlite::Error> {
    conn.busy_timeout(Duration::ZERO)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(busy? == 0)
}

/// Whether the file is what SQLite wrote: [`OpenError::Lost`] where it is not.
///
/// A large one only where it holds what waits; the audit trail has a check of its own.
pub(super) fn check(conn: &Connection) -> Result<(), OpenError> {
    let pages: u32 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let checks: &[&str] = if pages <= FULL_CHECK_MAX_PAGES {
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

/// What the file begins with, read before a connection has it open (`safe_open.rs`).
#[derive(Debug)]
pub(super) struct SqliteHeader(Option<[u8; 100]>);

impl SqliteHeader {
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        let mut header = [0; 100];
        let read = safe_open::open(path).and_then(|mut file| file.read_exact(&mut header));
        match read {
            Ok(()) => Ok(Self(Some(header))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Self(None)),
            Err(source) => Err(OpenError::Inaccessible { path: path.to_owned(), source }),
        }
    }

    /// Whether the file begins as every outbox does: what SQLite reads there, it believes. Another
    /// program may have set `journal_mode` (the two 2s are 1s then); opening sets it back.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let Some(header) = &self.0 else {
            return Err(OpenError::Lost("it has no header".into()));
        };
        let size = u16::try_from(PAGE).unwrap_or_default().to_be_bytes();
        let as_written = header.starts_with(b"SQLite format 3\0")
            && header.get(16..18) == Some(&size)
            && matches!(header.get(18..20), Some([1, 1] | [2, 2]))
            && header.get(20..24) == Some(&[0, 64, 32, 32])
            && header.get(44..48) == Some(&[0, 0, 0, 4])
            && header.get(56..60) == Some(&[0, 0, 0, 1]);
        if as_written {
            Ok(())
        } else {
            Err(OpenError::Lost("its header is not that of an outbox".into()))
        }
    }
}

/// Sets what durability rests on, and reads back that it holds.
pub(super) fn set_durability_pragmas(conn: &Connection) -> Result<(), OpenError> {
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
    // A log that begins again leaves nothing of the one before behind it.
    conn.pragma_update(None, "journal_size_limit", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    // What was deleted is gone: no damage brings a settled entry back.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
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
