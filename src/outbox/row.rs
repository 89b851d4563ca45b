//! Rows: values of the domain as cells under a checksum. A row is believed only if its checksum is
//! right.
//!
//! The column `seal` of every table is SHA-256 over the table's name and every cell before it, in
//! column order, each as one tag byte (0 null, 1 integer, 2 text) followed by, for an integer, its 8
//! bytes big-endian, and for a text, its length as 8 bytes big-endian and its UTF-8. The checksum
//! finds accidents; it is no signature and stops no user who can write the file.

use jiff::Timestamp;
use ring::digest::{Context, Digest, SHA256};
use rusqlite::types::{FromSql, Value, ValueRef};
use rusqlite::{Connection, Params, Row, ToSql, Transaction, params_from_iter};
use serde::de::DeserializeOwned;

use super::error::{Checked, DamagedRow, StoreError};
use crate::domain::{AuditLine, ChainPosition, Entry, EntryId, LastSeenCard};

/// A table of the file, whose rows are values of one type.
pub(super) struct Table<T> {
    pub(super) name: &'static str,
    columns: &'static str,
    /// The column that has the checksum of those before it.
    pub(super) checksum: usize,
    decode: fn(&VerifiedRow<'_>) -> Checked<T>,
}

pub(super) const ENTRY: Table<Entry> = Table {
    name: "entry",
    columns: "id, seen_at, card, draft, stage, seal",
    checksum: 5,
    decode: |row| {
        let id = EntryId::new(row.get(0)?);
        Ok(Entry { id, card_event: row.json(3)?, stage: row.json(4)? })
    },
};
pub(super) const AUDIT: Table<AuditLine> = Table {
    name: "audit",
    columns: "seq, at, outcome, card, entry, line, seal, chain",
    checksum: 6,
    decode: |row| row.json(5),
};
pub(super) const CHAIN: Table<ChainPosition> = Table {
    name: "chain",
    columns: "place, seq, at, hash, seal",
    checksum: 4,
    decode: |row| {
        let at: Option<String> = row.get(2)?;
        let at = at.map(|at| at.parse()).transpose();
        let at = at.map_err(|error| row.damage(&format!("invalid time: {error}")))?;
        Ok(ChainPosition { seq: row.get(1)?, at, hash: row.get(3)? })
    },
};
pub(super) const LAST_SEEN: Table<LastSeenCard> =
    Table { name: "stay", columns: "reader, stay, seal", checksum: 2, decode: |row| row.json(1) };

impl<T> Table<T> {
    /// The query for all columns of the rows that meet the condition.
    pub(super) fn select(&self, condition: &str) -> String {
        format!("SELECT {} FROM {} {condition}", self.columns, self.name)
    }

    /// The rows that meet the condition.
    pub(super) fn find(
        &self,
        conn: &Connection,
        condition: &str,
        params: impl Params,
    ) -> rusqlite::Result<Vec<Checked<T>>> {
        let mut statement = conn.prepare_cached(&self.select(condition))?;
        statement.query_map(params, |row| Ok(self.read_row(row)))?.collect()
    }

    /// The first of them.
    pub(super) fn find_one(
        &self,
        conn: &Connection,
        condition: &str,
        params: impl Params,
    ) -> rusqlite::Result<Option<Checked<T>>> {
        Ok(self.find(conn, condition, params)?.into_iter().next())
    }

    /// The value of a row that has all columns.
    pub(super) fn read_row(&self, row: &Row<'_>) -> Checked<T> {
        let cells: Vec<_> = (0..).map_while(|column| row.get_ref(column).ok()).collect();
        self.read(&cells)
    }

    /// The value of a row with these cells.
    pub(super) fn read(&self, cells: &[ValueRef<'_>]) -> Checked<T> {
        let row = VerifiedRow { table: self.name, cells };
        let Some((covered, [ValueRef::Blob(stored), ..])) = cells.split_at_checked(self.checksum)
        else {
            return Err(row.damage("it has no checksum"));
        };
        if checksum(self.name, covered.iter().copied()).as_ref() != *stored {
            return Err(row.damage("its checksum is wrong"));
        }
        (self.decode)(&row)
    }

    /// Writes a row, and returns how many were written; `verb` is what SQL's `INTO` follows.
    pub(super) fn insert(
        &self,
        tx: &Transaction<'_>,
        verb: &str,
        cells: impl IntoIterator<Item = impl ToSql>,
    ) -> Result<usize, StoreError> {
        let places = self.columns.split(',').map(|_| "?").collect::<Vec<_>>().join(",");
        let sql = format!("{verb} INTO {} ({}) VALUES ({places})", self.name, self.columns);
        Ok(tx.prepare_cached(&sql)?.execute(params_from_iter(cells))?)
    }

    /// Appends the checksum of these cells to them.
    fn seal(&self, cells: &mut Vec<Value>) -> Digest {
        let checksum = checksum(self.name, cells.iter().map(ValueRef::from));
        cells.push(Value::Blob(checksum.as_ref().to_vec()));
        checksum
    }

    fn write(&self, tx: &Transaction<'_>, verb: &str, cells: Vec<Value>) -> Result<(), StoreError> {
        let mut cells = cells;
        self.seal(&mut cells);
        self.insert(tx, verb, &cells).map(drop)
    }
}

/// Adds an entry; its id must be free.
pub(super) fn insert_entry(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    ENTRY.write(tx, "INSERT", entry_cells(entry)?)
}

/// Writes an entry over the row with its id.
pub(super) fn update_entry(tx: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    let sql = "UPDATE entry SET seen_at = ?2, card = ?3, draft = ?4, stage = ?5, seal = ?6 \
               WHERE id = ?1";
    let mut cells = entry_cells(entry)?;
    ENTRY.seal(&mut cells);
    tx.prepare_cached(sql)?.execute(params_from_iter(cells))?;
    Ok(())
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

/// Adds a line to the audit trail; its number must be free. Returns its `chain`, given that of the line
/// before.
pub(super) fn insert_line(
    tx: &Transaction<'_>,
    seq: i64,
    line: &AuditLine,
    before: &str,
) -> Result<String, StoreError> {
    let mut cells = vec![
        seq.into(),
        instant(line.at).into(),
        line.outcome.clone().into(),
        line.card_id.map(|id| id.to_string()).into(),
        line.entry.map(EntryId::number).into(),
        serde_json::to_string(line)?.into(),
    ];
    let hash = next_hash(before, AUDIT.seal(&mut cells).as_ref());
    cells.push(hash.clone().into());
    AUDIT.insert(tx, "INSERT", &cells)?;
    Ok(hash)
}

/// Writes an end of the chain over the one with its name.
pub(super) fn write_position(
    tx: &Transaction<'_>,
    end: &str,
    position: &ChainPosition,
) -> Result<(), StoreError> {
    let cells = vec![
        end.to_owned().into(),
        position.seq.into(),
        position.at.map(instant).into(),
        position.hash.clone().into(),
    ];
    CHAIN.write(tx, "REPLACE", cells)
}

/// Writes the last card of a reader over the one before.
pub(super) fn write_last_seen(tx: &Transaction<'_>, card: &LastSeenCard) -> Result<(), StoreError> {
    let cells = vec![card.reader.as_str().to_owned().into(), serde_json::to_string(card)?.into()];
    LAST_SEEN.write(tx, "REPLACE", cells)
}

/// An instant as text of one length, so that the order of the texts is the order in time.
pub(super) fn instant(at: Timestamp) -> String {
    format!("{at:.9}")
}

/// The checksum of a table's row with these cells.
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
            // No column has these types: such a cell is damaged, and the checksum must be wrong.
            ValueRef::Real(_) | ValueRef::Blob(_) => context.update(&[u8::MAX]),
        }
    }
    context.finish()
}

/// The `chain` of a line, given that of the line before and the line's own checksum.
pub(super) fn next_hash(before: &str, checksum: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(before.as_bytes());
    context.update(checksum);
    hex::encode(context.finish())
}

/// A row whose checksum is right.
pub(super) struct VerifiedRow<'a> {
    table: &'static str,
    cells: &'a [ValueRef<'a>],
}

impl<'a> VerifiedRow<'a> {
    fn cell(&self, column: usize) -> ValueRef<'a> {
        self.cells.get(column).copied().unwrap_or(ValueRef::Null)
    }

    fn get<T: FromSql>(&self, column: usize) -> Checked<T> {
        T::column_result(self.cell(column)).map_err(|error| self.damage(&error.to_string()))
    }

    fn json<T: DeserializeOwned>(&self, column: usize) -> Checked<T> {
        let text = self.cell(column).as_bytes().unwrap_or_default();
        serde_json::from_slice(text)
            .map_err(|error| self.damage(&format!("its content is invalid: {error}")))
    }

    fn damage(&self, reason: &str) -> DamagedRow {
        let row = match self.cell(0) {
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => "?".to_owned(),
        };
        DamagedRow { table: self.table, row, reason: reason.to_owned() }
    }
}
