//! A list of open requests, read while it comes in.
//!
//! CM lists the open requests of everybody. Until it is known which records are meant, of each request
//! what may be asked later is kept, about a hundred bytes; from then on only those are kept that name
//! one. So a list may be as long as it likes.

use jiff::Timestamp;

use super::array_splitter::ArraySplitter;
use super::json::{Aliases, Object};
use super::{ParseError, each_object, object, wrong};
use crate::domain::{CmRequest, RecordId, RequestId, RequestStatus, RequestType};

/// The properties that are read of a request; by one of the first three it is told from other JSON.
const OF_A_REQUEST: Aliases =
    &["Uuid", "Status", "RequestType", "OldSmartcardUuid", "NewSmartcardUuid", "Submitted"];

/// What stands where one is expected, in words.
const KIND: &str = "a request";

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

/// Reads a list of requests in the pieces in which it comes.
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
            let words = match self.wanted {
                Some(_) => format!("CM lists more than {MAX_REQUESTS} open requests for one card"),
                None => format!("CM lists more than {MAX_REQUESTS} open requests"),
            };
            return Err(ParseError::TooLarge(words));
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
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.kept.wanted.is_none() && self.kept.requests.len() >= MANY
    }

    /// How many requests named a card so far.
    #[must_use]
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
        let words = format!("CM's list of open requests has more than {limit} bytes");
        self.stopped.get_or_insert(ParseError::TooLarge(words));
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
    each_object(body, (KIND, OF_A_REQUEST), |object, _| {
        let lacks = |name| wrong(KIND, &format!("has no usable {name}"));
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
    match object(text, KIND, OF_A_REQUEST)? {
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
