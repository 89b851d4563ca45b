//! The file as a SQLite database: opened so that stored means stored, identified, migrated, checked.
//!
//! `application_id` says that the file is an outbox, `user_version` which version it has. A file of
//! another program or of a later version is rejected and not changed.
//!
//! A file is created beside its place and moved there when it is complete, so that a file without
//! content is never ours. A damaged one is moved to a dated name:
//!
//! ```text
//! outbox.db.new        being created; worth nothing
//! outbox.db.ready      complete; from here on the move continues at the next start, whatever happens
//! outbox.db.damaged-T  the damaged file, with its -wal and -shm; T is the time that .ready has
//! ```

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::{OpenError, StoreError};
use super::files::{self, sibling_path, sync_parent};
use super::hash_chain;

/// How long a command waits for another program that holds the file. Less than the 2 s in which the
/// daemon has to stop.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The pages that SQLite keeps in memory, in KiB; negative is SQLite's sign for that unit.
const CACHE_SIZE: i64 = -256;

/// The size of a page: SQLite's default, and that of every outbox.
pub(super) const PAGE: usize = 4096;
/// The same, in the header.
const PAGE_SIZE: [u8; 2] = [0x10, 0];

/// Up to how many pages a file is checked as a whole at the start: 32 MiB, some 100 ms.
const FULL_CHECK_MAX_PAGES: u32 = 8192;

/// The version that this program reads and writes. Raising it takes a migration, and a fixture
/// `tests/fixtures/outbox/v<VERSION>.db` (see `tests/fixture.rs`).
pub(super) const VERSION: u32 = 2;

/// What turns version n into n + 1, from n = 0, which is an empty file.
const MIGRATIONS: [Migration; VERSION as usize] = [
    |tx| Ok(tx.execute_batch(include_str!("v1.sql"))?),
    |tx| {
        tx.execute_batch(include_str!("v2.sql"))?;
        hash_chain::init(tx)
    },
];

type Migration = fn(&Transaction<'_>) -> Result<(), StoreError>;

/// How many versions may follow this one; a number beyond them is damage.
const FUTURE_VERSIONS: u32 = 1000;

/// `cbrd`, the mark of an outbox.
const APPLICATION_ID: i32 = 0x6362_7264;

/// Creates a file where there is none.
pub(super) fn create(path: &Path, now: Timestamp) -> Result<(), OpenError> {
    let conn = begin_new(path)?;
    finish_new(path, conn, now)
}

/// Continues a move that was interrupted. Returns whether there was one.
pub(super) fn resume_move(path: &Path) -> Result<bool, OpenError> {
    let ready = sibling_path(path, ".ready");
    let stamp = match ready.symlink_metadata().and_then(|found| found.modified()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found.map_err(OpenError::at(&ready))?,
    };
    let stamp = Timestamp::try_from(stamp).unwrap_or(Timestamp::UNIX_EPOCH);
    let aside = set_aside_path(path, stamp);
    let move_all = || {
        // The -wal first: without it the file is not what it was, and with another's it is worse.
        for suffix in ["-wal", "-shm", ""] {
            match fs::rename(sibling_path(path, suffix), sibling_path(&aside, suffix)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                moved => moved?,
            }
        }
        sync_parent(path)?;
        fs::rename(&ready, path)?;
        sync_parent(path)
    };
    move_all().map_err(OpenError::at(&ready))?;
    Ok(true)
}

/// Creates an empty outbox as `.new`.
pub(super) fn begin_new(path: &Path) -> Result<Connection, OpenError> {
    let new = sibling_path(path, ".new");
    remove(&new)?;
    files::create(&new).and_then(|_| sync_parent(path)).map_err(OpenError::at(&new))?;
    let mut conn = connect(&new)?;
    set_durability_pragmas(&conn)?;
    migrate(&mut conn, 0)?;
    Ok(conn)
}

/// Moves what was created to its place.
pub(super) fn finish_new(path: &Path, conn: Connection, stamp: Timestamp) -> Result<(), OpenError> {
    conn.close().map_err(|(_, error)| error)?;
    let new = sibling_path(path, ".new");
    let make_ready = || {
        let created = files::open_to_write(&new)?;
        created.set_modified(SystemTime::try_from(stamp).map_err(io::Error::other)?)?;
        created.sync_all()?;
        fs::rename(&new, sibling_path(path, ".ready"))?;
        sync_parent(path)
    };
    make_ready().map_err(OpenError::at(&new))?;
    resume_move(path).map(drop)
}

/// Removes a file that is worth nothing, with what SQLite creates beside it.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = sibling_path(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(OpenError::at(&path))?,
        }
    }
    Ok(())
}

/// Where a damaged file is moved.
pub(super) fn set_aside_path(path: &Path, stamp: Timestamp) -> PathBuf {
    sibling_path(path, &format!(".damaged-{}", stamp.strftime("%Y%m%dT%H%M%SZ")))
}

/// Opens a file that is there, for reading and writing.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Opens a file that is there, for reading: nothing is written, nothing is created.
///
/// SQLite creates a missing `-wal` even for a reader, and leaves it behind. Without one no process
/// has the file open, and it is complete.
pub(super) fn connect_read_only(path: &Path) -> Result<Connection, OpenError> {
    if !in_use(path) {
        return connect_without_wal(path);
    }
    let conn = open_uri(path, "?mode=ro")?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Opens the file alone, without its `-wal`, for reading; whether another process has it open.
pub(super) fn connect_without_wal(path: &Path) -> Result<Connection, OpenError> {
    open_uri(path, "?mode=ro&immutable=1")
}

fn open_uri(path: &Path, query: &str) -> Result<Connection, OpenError> {
    let mut uri = b"file://".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        if b"%?#".contains(&byte) {
            uri.extend(format!("%{byte:02x}").bytes());
        } else {
            uri.push(byte);
        }
    }
    uri.extend(query.bytes());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(OsString::from_vec(uri), flags)?)
}

/// Whether a process has the outbox open, or had when it crashed.
pub(super) fn in_use(path: &Path) -> bool {
    sibling_path(path, "-wal").exists()
}

/// What is wrong with the file's header, of which SQLite believes everything. Another program may
/// have set `journal_mode` (the two 2s are 1s then); opening sets it back.
///
/// Opens the file: not while a connection has it open.
pub(super) fn header_fault(path: &Path) -> Result<Option<&'static str>, OpenError> {
    let mut header = [0; 100];
    match files::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Ok(Some("it has no header"));
        }
        read => read.map_err(OpenError::at(path))?,
    }
    let has =
        |at: usize, bytes: &[u8]| header.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    let is_as_written = has(0, b"SQLite format 3\0")
        && has(16, &PAGE_SIZE)
        && (has(18, &[2, 2]) || has(18, &[1, 1]))
        && has(20, &[0, 64, 32, 32])
        && has(44, &[0, 0, 0, 4])
        && has(56, &[0, 0, 0, 1]);
    Ok((!is_as_written).then_some("its header is not that of an outbox"))
}

/// The file's version; 0 for an empty file. Writes nothing.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<u32, OpenError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = application == 0 && found == 0 && objects == 0;
    let has_tables =
        has_table(conn, "entry")? && has_table(conn, "audit")? && has_table(conn, "stay")?;
    if !is_empty && !has_tables && application != APPLICATION_ID {
        return Err(OpenError::NotAnOutbox(path.to_owned()));
    }
    let tables = if has_table(conn, "chain")? { 2 } else { 1 };
    let fits = match found {
        0 => is_empty,
        1..=VERSION => application == APPLICATION_ID && has_tables && tables == found,
        _ => found < VERSION + FUTURE_VERSIONS,
    };
    if !fits {
        return Err(OpenError::Lost("its version is not that of its tables".into()));
    }
    if found > VERSION {
        return Err(OpenError::Newer(found, VERSION));
    }
    Ok(found)
}

pub(super) fn has_table(conn: &Connection, table: &str) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)";
    conn.query_row(sql, [table], |row| row.get(0))
}

/// Sets what durability rests on, and reads back that it holds.
pub(super) fn set_durability_pragmas(conn: &Connection) -> Result<(), OpenError> {
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NotDurable("journal_mode=WAL"));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    let level: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if level != 2 {
        return Err(OpenError::NotDurable("synchronous=FULL"));
    }
    conn.pragma_update(None, "cache_size", CACHE_SIZE)?;
    // A log that begins again leaves nothing of the one before behind it.
    conn.pragma_update(None, "journal_size_limit", 0)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    // What was deleted is gone: no damage brings a settled entry back.
    conn.pragma_update(None, "secure_delete", true)?;
    Ok(())
}

/// Migrates the file from version `found` to [`VERSION`], completely or not at all.
pub(super) fn migrate(conn: &mut Connection, found: u32) -> Result<(), OpenError> {
    if found == VERSION {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(found as usize) {
        step(&tx)?;
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    tracing::info!(from = found, to = VERSION, "Outbox schema migrated");
    Ok(())
}

/// [`OpenError::Lost`] where the file is not what SQLite wrote.
///
/// Of a large file, only the tables of what waits are checked; the audit trail has its own check.
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
        let result: String = conn.query_row(check, [], |row| row.get(0))?;
        if result != "ok" {
            return Err(OpenError::Lost(result.into()));
        }
    }
    Ok(())
}

/// Moves the `-wal` into the file and truncates it, without waiting for others. Returns whether
/// another program prevents that; a failure is logged, and prevents nothing else.
pub(super) fn empty_wal(conn: &Connection) -> bool {
    let empty = || {
        conn.busy_timeout(Duration::ZERO)?;
        let busy = truncate_wal(conn);
        conn.busy_timeout(BUSY_TIMEOUT)?;
        busy
    };
    let is_busy = empty().unwrap_or_else(|error| {
        let error: &dyn Error = &error;
        tracing::warn!(error, "Outbox's write-ahead log was not emptied");
        false
    });
    if is_busy {
        tracing::debug!("Outbox's write-ahead log was not emptied: another program reads it");
    }
    is_busy
}

/// Closes the connection and leaves one file behind: without a `-wal`, unless another program reads.
pub(super) fn close(conn: Connection) {
    let closed = truncate_wal(&conn).and_then(|_| conn.close().map_err(|(_, error)| error));
    if let Err(error) = closed {
        let error: &dyn Error = &error;
        tracing::warn!(error, "Outbox was not closed cleanly; the next start completes it");
    }
}

fn truncate_wal(conn: &Connection) -> Result<bool, rusqlite::Error> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
}
