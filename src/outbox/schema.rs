//! Versions of the file: what a new one gets, and how an old one becomes a new one.
//!
//! `application_id` tells that the file is ours, `user_version` which version it has. A file of
//! somebody else's or of a later version is refused and left as it is.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{OpenError, StoreError};
use super::hash_chain;

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
const FUTURE: u32 = 1000;

/// `cbrd`, the mark of an outbox.
const APPLICATION_ID: i32 = 0x6362_7264;

/// The file's version; 0 for an empty file. Writes nothing.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<u32, OpenError> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = application == 0 && found == 0 && objects == 0;
    let ours = has(conn, "entry")? && has(conn, "audit")? && has(conn, "stay")?;
    if !empty && !ours && application != APPLICATION_ID {
        return Err(OpenError::NotAnOutbox { path: path.to_owned() });
    }
    let tables = if has(conn, "chain")? { 2 } else { 1 };
    let fits = match found {
        0 => empty,
        found if found <= VERSION => application == APPLICATION_ID && ours && tables == found,
        found => found < VERSION + FUTURE,
    };
    if !fits {
        return Err(OpenError::Lost("its version is not that of its tables".into()));
    }
    if found > VERSION {
        return Err(OpenError::Newer { found, known: VERSION });
    }
    Ok(found)
}

/// Whether the file has this table.
pub(super) fn has(conn: &Connection, table: &str) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?)";
    conn.query_row(sql, [table], |row| row.get(0))
}

/// Brings the file from version `found` to [`VERSION`], wholly or not at all.
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
