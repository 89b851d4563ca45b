//! Whether what CM says is about what was asked, and what it says.

use std::collections::BTreeMap;

use super::api_call::COMPLETED;
use super::classify::unparsable_body;
use super::http::RequestedList;
use super::{UnavailableReason, away};
use crate::domain::{
    CallError, CardId, CardRecord, CmEnums, CmRequest, CompleteRequestResult, Decision, RecordId,
    RequestId, RequestStatus, SetStatusResult,
};
use crate::wire::cm;

/// The names of the statuses in which a request is open.
pub(super) const OPEN: [&str; 2] = ["Approved", "Executing"];

/// The records of a card. CM finds them by their serial number; one that has another is none.
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

/// The one record that was asked for by its id.
pub(super) fn parse_record(id: RecordId, body: &[u8]) -> Result<CardRecord, CallError> {
    let mut records = read(body)?;
    match (records.pop(), records.as_slice()) {
        (Some(record), []) if record.id == id => Ok(record),
        (Some(record), []) => Err(another_record(id, record.id)),
        (Some(_), _) => Err(several_records(id)),
        (None, _) => Err(away(
            UnavailableReason::NotCm,
            "the answer is empty where a record must be".to_owned(),
        )),
    }
}

/// Whether CM set what it was told to set.
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

/// Where the one request that was asked for by its id stands.
pub(super) fn parse_request(id: RequestId, body: &[u8]) -> Result<RequestStatus, CallError> {
    one_request(id, body)?.ok_or_else(|| {
        away(UnavailableReason::NotCm, "the answer is empty where a request must be".to_owned())
    })
}

/// Whether CM completed what it was told to complete.
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

/// The status of the request with this id; `None` where the answer says nothing.
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
/// A request that was approved in one list and is executing in the next is one request. A request
/// in another status is none: a server that ignores the filter would have us act on a closed one.
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
