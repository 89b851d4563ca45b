//! CM's JSON: smart card records and requests in, status updates out.
//!
//! CM's responses are read by what the public reference says and its examples show, which is not
//! always the same: property names in any case, unknown ones skipped, GUIDs with or without braces,
//! an object where a list was promised, `null` and nothing at all for "none". What could be meant in
//! two ways is refused: two properties whose names differ only in case, a record without a status.
//! `docs/cm-protocol.md` lists what is accepted.

use jiff::Timestamp;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::domain::{
    CardRecord, CardStatus, CmRequest, RecordId, RequestId, RequestStatus, RequestType,
};

use super::json::{self, Aliases, ArraySplitter, JsonItem, Object};

pub use super::error_text::{ErrorText, complaint_without, error_text, single_line};
pub use super::json::ParseError;

/// The properties that are read of a record; it has one of the first three.
const RECORD_PROPERTIES: Aliases = &["Uuid", "Status", "SerialNumber", "Middleware", "Atr"];

/// The most records of one response. A card has one for each time it was assigned.
const MAX_RECORDS: usize = 1000;

/// Reads smart card records: a list, a single one, `null` or nothing.
///
/// A record that stands there twice counts once; two of one id that do not say the same are wrong.
pub fn records(body: &[u8]) -> Result<Vec<CardRecord>, ParseError> {
    let mut records = Vec::new();
    each_object(body, ("a smart card", RECORD_PROPERTIES), |object, text| {
        record(object, text).and_then(|record| add(&mut records, record))
    })?;
    Ok(records)
}

/// Hands over each object of a whole body: a list, a single one, `null` or nothing. What is wrong
/// with one is reported only when the body is read to its end.
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
            let message = format!("CM answers with more than {MAX_RECORDS} records");
            return Err(ParseError::TooLarge(message));
        }
        records.push(record);
        return Ok(());
    };
    let same = CardRecord { raw: known.raw.clone(), ..record } == *known;
    if same { Ok(()) } else { Err(wrong("a smart card", "is there twice and not the same")) }
}

/// Whether a body is JSON, whatever it says.
pub fn is_json(body: &[u8]) -> bool {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The body that asks for a new status, by its name.
pub fn status_update(name: &str) -> String {
    serde_json::json!({ "status": name }).to_string()
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
        JsonItem::Integer(_) => Err(ParseError::NotCm("a number", kind)),
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

/// The properties that are read of a request; it has one of the first three.
const REQUEST_PROPERTIES: Aliases =
    &["Uuid", "Status", "RequestType", "OldSmartcardUuid", "NewSmartcardUuid", "Submitted"];

const REQUEST: &str = "a request";

/// The most bytes that are held of one request: as many properties as one may have, each cut.
const REQUEST_LIMIT: usize = 256 << 10;

/// The most requests that are kept of one list: 2 MB of them.
const MAX_REQUESTS: usize = 20_000;

/// So many are kept before it has to be known which records are meant.
const MANY: usize = 10_000;

/// What is kept of a request that names a card. What it lacks matters only if it names ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSummary {
    id: Option<RequestId>,
    request_type: Option<RequestType>,
    status: Option<RequestStatus>,
    old_card: Option<RecordId>,
    new_card: Option<RecordId>,
    submitted: Option<Timestamp>,
}

/// Reads a list of open requests while it arrives.
///
/// CM lists the open requests of all users. Until it is known which records are meant, of each request
/// what may be asked later is kept, about a hundred bytes; from then on only those are kept that name
/// one. So a list may have any length.
pub struct RequestListReader {
    splitter: ArraySplitter,
    kept: Kept,
    /// The first object that is wrong; judged only when the list is whole.
    fault: Option<ParseError>,
    /// Why nothing more is read.
    stopped: Option<ParseError>,
}

impl Default for RequestListReader {
    fn default() -> Self {
        Self {
            splitter: ArraySplitter::shortening(REQUEST_LIMIT),
            kept: Kept::default(),
            fault: None,
            stopped: None,
        }
    }
}

/// What is kept of a list.
#[derive(Default)]
struct Kept {
    requests: Vec<RequestSummary>,
    /// The records of which one has to be named, once that is known.
    wanted: Option<Vec<RecordId>>,
    /// How many requests named a card.
    named: usize,
}

impl Kept {
    fn add(&mut self, request: RequestSummary) -> Result<(), ParseError> {
        self.named += 1;
        if self.wanted.as_ref().is_none_or(|wanted| request.names_one_of(wanted)) {
            self.requests.push(request);
        }
        if self.requests.len() > MAX_REQUESTS {
            let message = match self.wanted {
                Some(_) => format!("CM lists more than {MAX_REQUESTS} open requests for one card"),
                None => format!("CM lists more than {MAX_REQUESTS} open requests"),
            };
            return Err(ParseError::TooLarge(message));
        }
        Ok(())
    }
}

impl RequestListReader {
    /// Keeps only requests that name one of these records, of those that came as well.
    pub fn want(&mut self, records: &[RecordId]) {
        if self.kept.wanted.is_none() {
            self.kept.requests.retain(|request| request.names_one_of(records));
            self.kept.requests.shrink_to_fit();
            self.kept.wanted = Some(records.to_vec());
        }
    }

    /// Whether so much is kept that it has to be known first which records are meant.
    pub const fn is_full(&self) -> bool {
        self.kept.wanted.is_none() && self.kept.requests.len() >= MANY
    }

    /// How many requests named a card so far.
    pub const fn named(&self) -> usize {
        self.kept.named
    }

    /// Takes the next bytes. Whether more can change anything; if not, [`Self::finish`] says why.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if self.stopped.is_none() {
            let (kept, fault) = (&mut self.kept, &mut self.fault);
            let read = self.splitter.push(bytes, &mut |text| one(text, kept, fault));
            self.stopped = read.err();
        }
        self.stopped.is_none()
    }

    /// Reads no further, because the list has more bytes than this.
    pub fn stop(&mut self, limit: usize) {
        let message = format!("CM's list of open requests has more than {limit} bytes");
        self.stopped.get_or_insert(ParseError::TooLarge(message));
    }

    /// The requests that name a card, once the list is at its end.
    pub fn finish(mut self) -> Result<Vec<RequestSummary>, ParseError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        let (kept, fault) = (&mut self.kept, &mut self.fault);
        self.splitter.finish(&mut |text| one(text, kept, fault))?;
        self.fault.map_or(Ok(self.kept.requests), Err)
    }
}

/// Which requests a whole body is about, and where each stands; one that is there twice and says
/// the same counts once.
pub fn request_statuses(body: &[u8]) -> Result<Vec<(RequestId, RequestStatus)>, ParseError> {
    let mut requests = Vec::new();
    each_object(body, (REQUEST, REQUEST_PROPERTIES), |object, _| {
        let lacks = |name| wrong(REQUEST, &format!("has no usable {name}"));
        let id = object.guid("Uuid").and_then(RequestId::new).ok_or_else(|| lacks("Uuid"))?;
        let status = object.integer("Status").map(RequestStatus::new);
        let request = (id, status.ok_or_else(|| lacks("Status"))?);
        if !requests.contains(&request) {
            requests.push(request);
        }
        Ok(())
    })?;
    Ok(requests)
}

/// Those requests of a list that name one of the `wanted` records.
pub fn requests(
    list: &[RequestSummary],
    wanted: &[RecordId],
) -> Result<Vec<CmRequest>, ParseError> {
    list.iter()
        .filter(|request| request.names_one_of(wanted))
        .map(RequestSummary::request)
        .collect()
}

fn one(text: &str, kept: &mut Kept, fault: &mut Option<ParseError>) -> Result<(), ParseError> {
    match object(text, REQUEST, REQUEST_PROPERTIES)? {
        Err(error) => {
            fault.get_or_insert(error);
        }
        Ok(found) => {
            if let Some(request) = found.as_ref().and_then(RequestSummary::new) {
                kept.add(request)?;
            }
        }
    }
    Ok(())
}

impl RequestSummary {
    /// Unless it names no card.
    fn new(object: &Object) -> Option<Self> {
        let link = |name| object.guid(name).and_then(RecordId::new);
        let (old_card, new_card) = (link("OldSmartcardUuid"), link("NewSmartcardUuid"));
        (old_card.is_some() || new_card.is_some()).then(|| Self {
            id: object.guid("Uuid").and_then(RequestId::new),
            request_type: object.integer("RequestType").map(RequestType::new),
            status: object.integer("Status").map(RequestStatus::new),
            old_card,
            new_card,
            submitted: object.text("Submitted").and_then(time),
        })
    }

    fn names_one_of(&self, records: &[RecordId]) -> bool {
        let cards = [self.old_card, self.new_card];
        cards.into_iter().flatten().any(|card| records.contains(&card))
    }

    fn request(&self) -> Result<CmRequest, ParseError> {
        let lacks = |name| wrong("a request that names the card", &format!("has no usable {name}"));
        Ok(CmRequest {
            id: self.id.ok_or_else(|| lacks("Uuid"))?,
            request_type: self.request_type.ok_or_else(|| lacks("RequestType"))?,
            status: self.status.ok_or_else(|| lacks("Status"))?,
            old_card: self.old_card,
            new_card: self.new_card,
            submitted: self.submitted,
        })
    }
}

/// A time, unless it is CM's "unset": the first day of the first year, written without a zone.
/// Any other time without a zone could be anywhere's, and is not believed.
fn time(text: &str) -> Option<Timestamp> {
    if text.starts_with("0001-01-01") { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests;
