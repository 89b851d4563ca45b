//! CM's JSON: smart card records and requests in, status updates out.
//!
//! CM's answers are read by what the public reference says and its examples show, which is not
//! always the same: property names in any case, unknown ones skipped, GUIDs with or without braces,
//! an object where a list was promised, `null` and nothing at all for "none". What could be meant in
//! two ways is refused: two properties whose names differ only in case, a record without a status.
//! `docs/cm-protocol.md` lists what is accepted.

mod complaint;
mod json;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::{CardStatus, Record, RecordId, Request, RequestId, RequestStatus, RequestType};

pub use complaint::{Complaint, complaint, plain};
use json::{Item, Object};

/// Why a body is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No JSON, or not to its end: CM is not talking, or was cut off. Waiting may help.
    #[error("the body is no whole JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but none of CM's objects: something else is talking. Waiting may help.
    #[error("the body is JSON, but {0} where CM has {1}")]
    Foreign(&'static str, &'static str),
    /// One of CM's objects, but one that cannot be acted on. Waiting does not help.
    #[error("{0}")]
    Wrong(String),
}

/// The properties by one of which a record is told from other JSON.
const OF_A_RECORD: [&str; 3] = ["Uuid", "Status", "SerialNumber"];

/// The properties by one of which a request is told from other JSON.
const OF_A_REQUEST: [&str; 3] = ["Uuid", "Status", "RequestType"];

/// Reads smart card records: a list, a single one, `null` or nothing.
pub fn records(body: &[u8]) -> Result<Vec<Record>, ReadError> {
    collect(body, ("a smart card", &OF_A_RECORD), |object| record(object).map(Some))
}

/// Reads those requests that name one of the `wanted` records.
///
/// The others are dropped one by one while reading: a long list never stands in memory as objects.
pub fn requests(body: &[u8], wanted: &[RecordId]) -> Result<Vec<Request>, ReadError> {
    collect(body, ("a request", &OF_A_REQUEST), |object| request(&object, wanted))
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

/// Reads a body to its end, so that a cut-off one is never taken for a wrong one.
fn collect<T>(
    body: &[u8],
    (kind, marks): (&'static str, &[&str]),
    mut convert: impl FnMut(Object) -> Result<Option<T>, ReadError>,
) -> Result<Vec<T>, ReadError> {
    let mut kept = Vec::new();
    let mut fault = None;
    json::for_each(body, |item| {
        let read = match item {
            Item::Null => Ok(None),
            Item::Other(what) => Err(ReadError::Foreign(what, kind)),
            Item::Object(object) if !object.has_any(marks) => {
                Err(ReadError::Foreign("another object", kind))
            }
            Item::Object(object) => match object.twice() {
                Some(name) => Err(wrong(kind, &format!("has {} twice", plain(name)))),
                None => convert(object),
            },
        };
        match read {
            Ok(value) => kept.extend(value),
            Err(error) => {
                fault.get_or_insert(error);
            }
        }
    })
    .map_err(ReadError::NotJson)?;
    fault.map_or(Ok(kept), Err)
}

fn record(object: Object) -> Result<Record, ReadError> {
    let kind = "a smart card";
    let id = object.guid("Uuid").and_then(RecordId::new);
    let status = object.integer("Status").map(CardStatus::new);
    Ok(Record {
        id: id.ok_or_else(|| wrong(kind, "has no usable Uuid"))?,
        status: status.ok_or_else(|| wrong(kind, "has no usable Status"))?,
        serial_number: object.text("SerialNumber").unwrap_or_default().to_owned(),
        middleware: object.text("Middleware").unwrap_or_default().to_owned(),
        atr: object.text("Atr").and_then(|text| text.trim().parse().ok()),
        raw: object.into_value(),
    })
}

/// A request that names a wanted record; `None` for one that does not, whatever else it lacks.
fn request(object: &Object, wanted: &[RecordId]) -> Result<Option<Request>, ReadError> {
    let link = |name| object.guid(name).and_then(RecordId::new);
    let (old_card, new_card) = (link("OldSmartcardUuid"), link("NewSmartcardUuid"));
    if ![old_card, new_card].iter().flatten().any(|card| wanted.contains(card)) {
        return Ok(None);
    }
    let kind = "a request that names the card";
    let id = object.guid("Uuid").and_then(RequestId::new);
    let request_type = object.integer("RequestType").map(RequestType::new);
    let status = object.integer("Status").map(RequestStatus::new);
    Ok(Some(Request {
        id: id.ok_or_else(|| wrong(kind, "has no usable Uuid"))?,
        request_type: request_type.ok_or_else(|| wrong(kind, "has no usable RequestType"))?,
        status: status.ok_or_else(|| wrong(kind, "has no usable Status"))?,
        old_card,
        new_card,
        submitted: object.text("Submitted").and_then(time),
    }))
}

/// A time, unless it is CM's "unset": the first day of the first year, written without a zone.
/// Any other time without a zone could be anywhere's, and is not believed.
fn time(text: &str) -> Option<Timestamp> {
    if text.starts_with("0001-01-01") { None } else { text.parse().ok() }
}

fn wrong(kind: &str, what: &str) -> ReadError {
    ReadError::Wrong(format!("{kind} {what}"))
}

impl Object {
    /// A GUID in any of its usual forms.
    fn guid(&self, name: &str) -> Option<Uuid> {
        Uuid::try_parse(self.text(name)?.trim()).ok()
    }
}

#[cfg(test)]
mod tests;
