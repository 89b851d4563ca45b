//! CM's JSON: smart card records and requests in, status updates out.
//!
//! CM's answers are read by what the public reference says and its examples show, which is not
//! always the same: property names in any case, unknown ones skipped, GUIDs with or without braces,
//! an object where a list was promised, `null` and nothing at all for "none". What could be meant in
//! two ways is refused: two properties whose names differ only in case, a record without a status.
//! `docs/cm-protocol.md` lists what is accepted.

mod array_splitter;
mod error_text;
mod json;
mod list;

use serde::Serialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::domain::{CardRecord, CardStatus, RecordId};

use array_splitter::ArraySplitter;
pub use error_text::{ErrorText, complaint_without, error_text, single_line};
use json::{Aliases, JsonItem, Object};
pub use list::{RequestListReader, RequestSummary, request_statuses, requests};

/// Why a body is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// No JSON, or not to its end: CM is not talking, or was cut off. Waiting may help.
    #[error("the body is not complete JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but none of CM's objects: something else is talking. Waiting may help.
    #[error("the body is JSON, but has {0} where {1} was expected")]
    NotCm(&'static str, &'static str),
    /// One of CM's objects, but one that cannot be acted on. Waiting does not help.
    #[error("{0}")]
    Invalid(String),
    /// CM's, but more of it than is held. Waiting helps when somebody makes it less.
    #[error("{0}")]
    TooLarge(String),
}

/// The properties that are read of a record; by one of the first three it is told from other JSON.
const OF_A_RECORD: Aliases = &["Uuid", "Status", "SerialNumber", "Middleware", "Atr"];

/// The most records of one answer. A card has one for each time it was assigned.
const MAX_RECORDS: usize = 1000;

/// Reads smart card records: a list, a single one, `null` or nothing.
///
/// A record that stands there twice counts once; two of one id that do not say the same are wrong.
pub fn records(body: &[u8]) -> Result<Vec<CardRecord>, ParseError> {
    let mut records = Vec::new();
    each_object(body, ("a smart card", OF_A_RECORD), |object, text| {
        record(object, text).and_then(|record| add(&mut records, record))
    })?;
    Ok(records)
}

/// Hands over each object of a whole body: a list, a single one, `null` or nothing. What is wrong
/// with one is told only when the body is read to its end.
fn each_object(
    body: &[u8],
    (kind, names): (&'static str, Aliases),
    mut take: impl FnMut(&Object, &str) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut fault = None;
    let mut each = |text: &str| {
        let read = match object(text, kind, names)? {
            Ok(Some(object)) => take(&object, text),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = read {
            fault.get_or_insert(error);
        }
        Ok(())
    };
    let mut splitter = ArraySplitter::new(body.len());
    splitter.push(body, &mut each)?;
    splitter.finish(&mut each)?;
    fault.map_or(Ok(()), Err)
}

fn add(records: &mut Vec<CardRecord>, record: CardRecord) -> Result<(), ParseError> {
    let Some(known) = records.iter().find(|known| known.id == record.id) else {
        if records.len() == MAX_RECORDS {
            let words = format!("CM answers with more than {MAX_RECORDS} records");
            return Err(ParseError::TooLarge(words));
        }
        records.push(record);
        return Ok(());
    };
    let same = CardRecord { raw: known.raw.clone(), ..record } == *known;
    if same { Ok(()) } else { Err(wrong("a smart card", "is there twice and not the same")) }
}

/// Whether a body is JSON, whatever it says.
#[must_use]
pub fn is_json(body: &[u8]) -> bool {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The body that asks for a new status, by its name.
#[must_use]
pub fn status_update(name: &str) -> String {
    #[derive(Serialize)]
    struct StatusUpdate<'a> {
        status: &'a str,
    }
    serde_json::json!(StatusUpdate { status: name }).to_string()
}

/// One of CM's objects, `None` for `null`; an error of the inner kind does not end the reading, so
/// that a cut-off body is never taken for a wrong one.
fn object(
    text: &str,
    kind: &'static str,
    names: Aliases,
) -> Result<Result<Option<Object>, ParseError>, ParseError> {
    let marks = names.get(..3).unwrap_or(names);
    Ok(match json::item(text, names).map_err(ParseError::NotJson)? {
        JsonItem::Null => Ok(None),
        JsonItem::Text(_) => Err(ParseError::NotCm("a string", kind)),
        JsonItem::Other(what) => Err(ParseError::NotCm(what, kind)),
        JsonItem::Object(object) if !object.has_any(marks) => {
            Err(ParseError::NotCm("another object", kind))
        }
        JsonItem::Object(object) => match object.duplicate_property() {
            Some(name) => Err(wrong(kind, &format!("has {} twice", single_line(name)))),
            None => Ok(Some(object)),
        },
    })
}

fn record(object: &Object, text: &str) -> Result<CardRecord, ParseError> {
    let kind = "a smart card";
    let id = object.guid("Uuid").and_then(RecordId::new);
    let status = object.integer("Status").map(CardStatus::new);
    Ok(CardRecord {
        id: id.ok_or_else(|| wrong(kind, "has no usable Uuid"))?,
        status: status.ok_or_else(|| wrong(kind, "has no usable Status"))?,
        serial_number: object.text("SerialNumber").unwrap_or_default().trim().to_owned(),
        middleware: object.text("Middleware").unwrap_or_default().to_owned(),
        atr: object.text("Atr").and_then(|text| text.trim().parse().ok()),
        raw: text.into(),
    })
}

fn wrong(kind: &str, what: &str) -> ParseError {
    ParseError::Invalid(format!("{kind} {what}"))
}

impl Object {
    /// A GUID in any of its usual forms.
    fn guid(&self, name: &str) -> Option<Uuid> {
        Uuid::try_parse(self.text(name)?.trim()).ok()
    }
}

#[cfg(test)]
mod tests;
