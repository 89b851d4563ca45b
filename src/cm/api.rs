//! The calls of CM's REST API: what is sent, and whether the response is about what was asked.

use std::collections::BTreeMap;

use reqwest::{Method, Url};

use super::classify::unparsable_body;
use crate::config::CmSettings;
use crate::domain::{
    CallError, CardId, CardRecord, CmEnums, CmRequest, CompleteRequestResult, Decision, Problem,
    RecordId, RequestId, RequestStatus, SetStatusResult, UnavailableReason,
};
use crate::wire::cm;

/// The longest response with records: a record has about 700 bytes.
const OBJECT_LIMIT: usize = 1 << 20;

/// The longest list of requests, which is not kept in memory: 200,000 requests with white space are
/// about 300 MB.
const LIST_LIMIT: usize = 1 << 30;

const COMPLETED: &str = "Completed";

/// One call to CM.
#[derive(Debug, Clone, Copy)]
pub(super) enum ApiCall<'a> {
    /// `GET /smartcards?cardid={guid}`
    RecordsOfCard(CardId),
    /// `GET /smartcards/{uuid}`
    Record(RecordId),
    /// `GET /requests?status={name}`
    OpenRequests(&'static str),
    /// `PUT /requests/{reqid}/smartcards/{scid}`
    SetStatus(&'a Decision),
    /// `GET /requests/{id}`
    Request(RequestId),
    /// `PUT /requests/{id}`
    CompleteRequest(RequestId),
}

impl ApiCall<'_> {
    /// The route without ids, for the log.
    pub(super) const fn route(&self) -> &'static str {
        match self {
            Self::RecordsOfCard(_) => "/smartcards?cardid",
            Self::Record(_) => "/smartcards/{uuid}",
            Self::OpenRequests(_) => "/requests?status",
            Self::SetStatus(_) => "/requests/{reqid}/smartcards/{scid}",
            Self::Request(_) | Self::CompleteRequest(_) => "/requests/{id}",
        }
    }

    pub(super) const fn method(&self) -> Method {
        if self.is_change() { Method::PUT } else { Method::GET }
    }

    pub(super) const fn is_change(&self) -> bool {
        matches!(self, Self::SetStatus(_) | Self::CompleteRequest(_))
    }

    /// The longest good response, in bytes.
    pub(super) const fn limit(&self) -> usize {
        if matches!(self, Self::OpenRequests(_)) { LIST_LIMIT } else { OBJECT_LIMIT }
    }

    /// The JSON of a change.
    pub(super) fn body(&self) -> Option<String> {
        let status = match self {
            Self::SetStatus(decision) => &decision.new_status_name,
            Self::CompleteRequest(_) => COMPLETED,
            Self::RecordsOfCard(_) | Self::Record(_) | Self::OpenRequests(_) | Self::Request(_) => {
                return None;
            }
        };
        Some(cm::status_update(status))
    }

    /// The URL below `base`.
    pub(super) fn url(&self, base: &Url) -> Url {
        let (path, query) = match self {
            Self::RecordsOfCard(card) => {
                (vec!["smartcards".to_owned()], Some(("cardid", card.to_string())))
            }
            Self::Record(record) => (vec!["smartcards".to_owned(), record.to_string()], None),
            Self::OpenRequests(status) => {
                (vec!["requests".to_owned()], Some(("status", (*status).to_owned())))
            }
            Self::Request(request) | Self::CompleteRequest(request) => {
                (vec!["requests".to_owned(), request.to_string()], None)
            }
            Self::SetStatus(Decision { request, record, .. }) => {
                let (request, record) = (request.to_string(), record.to_string());
                (vec!["requests".to_owned(), request, "smartcards".to_owned(), record], None)
            }
        };
        let mut url = base.clone();
        // Only URLs like `mailto:` have no segments; `base_url` rejects them.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, &value);
        }
        url
    }
}

/// The URL of the API, below which the routes are.
pub(super) fn base_url(settings: &CmSettings) -> Result<Url, Problem> {
    let CmSettings { url: text, api_path, .. } = settings;
    let unusable = |url: &str, reason: &str| {
        Problem::new(
            format!("cm.url {url:?} is not usable: {reason}"),
            "write cm.url as https://HOST or https://HOST:PORT",
        )
    };
    let mut url: Url = text.parse().map_err(|error| unusable(text, &format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(unusable(text, "it is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it has a password.
        return Err(unusable("(with a user name)", "credentials belong to [cm.auth]"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(unusable(text, "it has a query or a fragment"));
    }
    let path = [url.path(), api_path].map(|part| part.trim_matches('/')).join("/");
    url.set_path(&path);
    Ok(url)
}

/// The requests of a list, or why the list is unusable.
pub(super) type RequestedList = Result<Vec<cm::RequestSummary>, CallError>;

/// The statuses of an open request.
pub(super) const OPEN: [&str; 2] = ["Approved", "Executing"];

/// The records of a card. CM finds them by their serial number; one with another number is ignored.
pub(super) fn records_of(card: CardId, body: &[u8]) -> Result<Vec<CardRecord>, CallError> {
    let answered = read(body)?;
    let asked = |record: &CardRecord| record.serial_number.parse() == Ok(card);
    let (records, others): (Vec<_>, Vec<_>) = answered.into_iter().partition(asked);
    if records.is_empty() && !others.is_empty() {
        let detail = format!(
            "asked about card {card}, CM answered with {} records of other cards, the first with serial number {:?}",
            others.len(),
            cm::single_line(others.first().map_or("", |record| &record.serial_number)),
        );
        return Err(CallError::UnexpectedResponse { detail });
    }
    if !others.is_empty() {
        let (kept, dropped) = (records.len(), others.len());
        tracing::warn!(kept, dropped, "CM returned records of other cards; ignored");
    }
    Ok(records)
}

/// The record with this id.
pub(super) fn parse_record(id: RecordId, body: &[u8]) -> Result<CardRecord, CallError> {
    let mut records = read(body)?;
    match (records.pop(), records.as_slice()) {
        (Some(record), []) if record.id == id => Ok(record),
        (Some(record), []) => Err(another_record(id, record.id)),
        (Some(_), _) => Err(several_records(id)),
        (None, _) => Err(CallError::unavailable(
            UnavailableReason::NotCm,
            "the response is empty where a record must be".to_owned(),
        )),
    }
}

/// Whether CM confirms the new status.
pub(super) fn parse_set_status(
    decision: &Decision,
    body: &[u8],
) -> Result<SetStatusResult, CallError> {
    let mut records = read(body)?;
    match (records.pop(), records.as_slice()) {
        (Some(record), []) if record.id != decision.record => {
            Err(another_record(decision.record, record.id))
        }
        (Some(record), []) if record.status == decision.new_status => {
            Ok(SetStatusResult::Confirmed(record.status))
        }
        (Some(_), []) | (None, _) => Ok(SetStatusResult::Unconfirmed),
        (Some(_), _) => Err(several_records(decision.record)),
    }
}

/// The status of the request with this id.
pub(super) fn parse_request(id: RequestId, body: &[u8]) -> Result<RequestStatus, CallError> {
    one_request(id, body)?.ok_or_else(|| {
        let detail = "the response is empty where a request must be".to_owned();
        CallError::unavailable(UnavailableReason::NotCm, detail)
    })
}

/// Whether CM confirms the completion.
pub(super) fn parse_complete_request(
    id: RequestId,
    body: &[u8],
    numbers: &CmEnums,
) -> Result<CompleteRequestResult, CallError> {
    let completed = numbers.request_status.number(COMPLETED).map(RequestStatus::new);
    let status = one_request(id, body)?;
    let confirmed = status.is_some() && status == completed;
    Ok(if confirmed {
        CompleteRequestResult::Confirmed
    } else {
        CompleteRequestResult::Unconfirmed
    })
}

/// The status of the request with this id; `None` for an empty response.
fn one_request(id: RequestId, body: &[u8]) -> Result<Option<RequestStatus>, CallError> {
    let requests = cm::request_statuses(body).map_err(|error| unparsable_body(&error, body))?;
    match requests.as_slice() {
        [] => Ok(None),
        [(known, status)] if *known == id => Ok(Some(*status)),
        [(other, _)] => Err(CallError::UnexpectedResponse {
            detail: format!("asked about request {id}, CM answered about request {other}"),
        }),
        [..] => Err(CallError::UnexpectedResponse {
            detail: format!("asked about request {id}, CM answered with several"),
        }),
    }
}

/// The open requests that name one of the records.
///
/// A request that is approved in one list and executing in the next is one request. Requests in other
/// statuses are ignored: the server may have ignored the filter.
pub(super) fn requests_for(
    records: &[CardRecord],
    lists: [RequestedList; 2],
    numbers: &CmEnums,
) -> Result<Vec<CmRequest>, CallError> {
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let open = OPEN.map(|name| numbers.request_status.number(name).map(RequestStatus::new));
    let mut requests: BTreeMap<RequestId, CmRequest> = BTreeMap::new();
    let mut closed = 0_usize;
    for list in lists {
        for request in cm::requests(&list?, &ids).map_err(|error| unparsable_body(&error, b""))? {
            if !open.contains(&Some(request.status)) {
                closed += 1;
                continue;
            }
            requests.insert(request.id, request);
        }
    }
    if closed > 0 {
        tracing::warn!(closed, "CM returned requests that are not open; ignored");
    }
    Ok(requests.into_values().collect())
}

fn read(body: &[u8]) -> Result<Vec<CardRecord>, CallError> {
    cm::records(body).map_err(|error| unparsable_body(&error, body))
}

fn another_record(asked: RecordId, answered: RecordId) -> CallError {
    let detail = format!("asked about record {asked}, CM answered about record {answered}");
    CallError::UnexpectedResponse { detail }
}

fn several_records(asked: RecordId) -> CallError {
    CallError::UnexpectedResponse {
        detail: format!("asked about record {asked}, CM answered with several"),
    }
}

#[cfg(test)]
mod tests;
