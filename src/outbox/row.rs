//! Rows: the domain's values as cells under a seal, and back, believed only if the seal fits.
//!
//! The last column of every table is `seal`: SHA-256 over the table's name and every other cell
//! of the row in column order, each as one tag byte (0 null, 1 integer, 2 text) followed by, for
//! an integer, its 8 bytes big-endian, and for a text, its length as 8 bytes big-endian and its
//! UTF-8. The seal finds accidents; it is no signature and stops nobody who can write the file.

use jiff::Timestamp;
use ring::digest::{Context, Digest, SHA256};
use rusqlite::types::{FromSql, Value, ValueRef};
use rusqlite::{Row, Transaction, params_from_iter};
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::hash_chain::ChainEnd;
use crate::domain::{AuditLine, ChainPosition, Entry, EntryId, LastSeenCard};

/// A row that is not what was written. It was skipped, and stays in the file for a person to see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row} of table {table}: {reason}")]
pub struct DamagedRow {
    /// The table.
    pub table: &'static str,
    /// The row's key, as far as it can be read.
    pub row: String,
    /// What is wrong, in words.
    pub reason: String,
}

/// The columns of `entry`, in the order that the seal covers them.
pub(super) const ENTRY: &str = "id, seen_at, card, draft, stage, seal";
/// The columns of `audit`, in the order that the seal covers them.
pub(super) const AUDIT: &str = "seq, at, outcome, card, entry, line, seal";
/// The columns of `chain`, in the order that the seal covers them.
pub(super) const CHAIN: &str = "place, seq, at, hash, seal";
/// The columns of `stay`, in the order that the seal covers them.
pub(super) const STAY: &str = "reader, stay, seal";

/// Adds an entry; its id must be free.
pub(super) fn insert_entry(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    let sql = "INSERT INTO entry (id, seen_at, card, draft, stage, seal) VALUES (?,?,?,?,?,?)";
    write(tx, sql, "entry", entry_cells(entry)?)
}

/// Writes an entry over the row with its id.
pub(super) fn update_entry(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    let sql = "UPDATE entry SET seen_at = ?2, card = ?3, draft = ?4, stage = ?5, seal = ?6 \
               WHERE id = ?1";
    write(tx, sql, "entry", entry_cells(entry)?)
}

/// Adds a line to the audit trail; its number must be free. Tells its `chain`, which `link` makes
/// of its seal.
pub(super) fn insert_line(
    tx: &Transaction<'_>,
    seq: i64,
    line: &AuditLine,
    link: impl FnOnce(&[u8]) -> String,
) -> Result<String, StoreError> {
    let sql = "INSERT INTO audit (seq, at, outcome, card, entry, line, seal, chain) \
               VALUES (?,?,?,?,?,?,?,?)";
    let mut cells = vec![
        seq.into(),
        instant(line.at).into(),
        line.outcome.clone().into(),
        line.card_id.map(|id| id.to_string()).into(),
        line.entry.map(EntryId::number).into(),
        serde_json::to_string(line)?.into(),
    ];
    let seal = checksum("audit", cells.iter().map(ValueRef::from));
    let chain = link(seal.as_ref());
    cells.extend([Value::Blob(seal.as_ref().to_vec()), chain.clone().into()]);
    tx.prepare_cached(sql)?.execute(params_from_iter(cells))?;
    Ok(chain)
}

/// Writes where an end of the chain is over where it was.
pub(super) fn upsert_mark(
    tx: &Transaction<'_>,
    end: ChainEnd,
    mark: &ChainPosition,
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO chain (place, seq, at, hash, seal) VALUES (?,?,?,?,?)";
    let cells = vec![
        end.name().to_owned().into(),
        mark.seq.into(),
        mark.at.map(instant).into(),
        mark.hash.clone().into(),
    ];
    write(tx, sql, "chain", cells)
}

/// Writes what was last seen in a reader over what was seen there before.
pub(super) fn upsert_stay(tx: &Transaction<'_>, stay: &LastSeenCard) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO stay (reader, stay, seal) VALUES (?,?,?)";
    let cells = vec![stay.reader.as_str().to_owned().into(), serde_json::to_string(stay)?.into()];
    write(tx, sql, "stay", cells)
}

/// The entry of a row of [`ENTRY`] columns.
pub(super) fn entry(row: &Row<'_>) -> Result<Entry, DamagedRow> {
    let cells = VerifiedRow::open("entry", ENTRY, row)?;
    let id = cells.integer(0)?;
    Ok(Entry { id: EntryId::new(id), card_event: cells.json(3)?, stage: cells.json(4)? })
}

/// The line of a row of [`AUDIT`] columns.
pub(super) fn line(row: &Row<'_>) -> Result<AuditLine, DamagedRow> {
    VerifiedRow::open("audit", AUDIT, row)?.json(5)
}

/// The stay of a row of [`STAY`] columns.
pub(super) fn stay(row: &Row<'_>) -> Result<LastSeenCard, DamagedRow> {
    VerifiedRow::open("stay", STAY, row)?.json(1)
}

/// The place in the chain of a row of [`CHAIN`] columns.
pub(super) fn mark(row: &Row<'_>) -> Result<ChainPosition, DamagedRow> {
    let cells = VerifiedRow::open("chain", CHAIN, row)?;
    let at: Option<String> = cells.get(2)?;
    let at = at.map(|at| at.parse()).transpose();
    Ok(ChainPosition {
        seq: cells.integer(1)?,
        at: at.map_err(|error| cells.damage(&format!("it cannot be understood: {error}")))?,
        hash: cells.get(3)?,
    })
}

/// SHA-256 over these parts, one after the other.
pub(super) fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

/// An instant as text of one length, so that the order of the texts is the order in time.
pub(super) fn instant(at: Timestamp) -> String {
    format!("{at:.9}")
}

fn entry_cells(entry: &Entry) -> Result<Vec<Value>, StoreError> {
    Ok(vec![
        entry.id.number().into(),
        instant(entry.card_event.seen_at).into(),
        entry.card_event.card_key().to_string().into(),
        serde_json::to_string(&entry.card_event)?.into(),
        serde_json::to_string(&entry.stage)?.into(),
    ])
}

fn write(
    tx: &Transaction<'_>,
    sql: &str,
    table: &str,
    mut cells: Vec<Value>,
) -> Result<(), StoreError> {
    let seal = checksum(table, cells.iter().map(ValueRef::from));
    cells.push(Value::Blob(seal.as_ref().to_vec()));
    tx.prepare_cached(sql)?.execute(params_from_iter(cells))?;
    Ok(())
}

pub(super) fn checksum<'a>(table: &str, cells: impl Iterator<Item = ValueRef<'a>>) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(table.as_bytes());
    for cell in cells {
        match cell {
            ValueRef::Null => context.update(&[0]),
            ValueRef::Integer(number) => {
                context.update(&[1]);
                context.update(&number.to_be_bytes());
            }
            ValueRef::Text(text) => {
                context.update(&[2]);
                context.update(&(text.len() as u64).to_be_bytes());
                context.update(text);
            }
            // No column has these types: a cell that does is damaged and must not fit.
            ValueRef::Real(_) | ValueRef::Blob(_) => context.update(&[u8::MAX]),
        }
    }
    context.finish()
}

/// A row whose seal fits.
struct VerifiedRow<'a> {
    table: &'static str,
    row: &'a Row<'a>,
}

impl<'a> VerifiedRow<'a> {
    /// The row begins with these columns, of which the seal is the last.
    fn open(table: &'static str, columns: &str, row: &'a Row<'a>) -> Result<Self, DamagedRow> {
        let sealed = Self { table, row };
        let columns = columns.split(',').count();
        let cells = (0..columns - 1).map(|i| row.get_ref(i)).collect::<Result<Vec<_>, _>>();
        let (Ok(cells), Ok(ValueRef::Blob(stored))) = (cells, row.get_ref(columns - 1)) else {
            return Err(sealed.damage("it has no seal"));
        };
        if checksum(table, cells.into_iter()).as_ref() == stored {
            Ok(sealed)
        } else {
            Err(sealed.damage("its seal does not fit"))
        }
    }

    fn integer(&self, column: usize) -> Result<i64, DamagedRow> {
        self.get(column)
    }

    fn get<T: FromSql>(&self, column: usize) -> Result<T, DamagedRow> {
        self.row.get(column).map_err(|error| self.damage(&error.to_string()))
    }

    fn json<T: DeserializeOwned>(&self, column: usize) -> Result<T, DamagedRow> {
        let text = self.row.get_ref(column).ok().and_then(|cell| cell.as_bytes().ok());
        serde_json::from_slice(text.unwrap_or_default())
            .map_err(|error| self.damage(&format!("it cannot be understood: {error}")))
    }

    fn damage(&self, why: &str) -> DamagedRow {
        let row = match self.row.get_ref(0) {
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            Ok(ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_)) | Err(_) => "?".to_owned(),
        };
        DamagedRow { table: self.table, row, reason: why.to_owned() }
    }
}
