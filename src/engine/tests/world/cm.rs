//! CM in memory: records, requests, and faults as verbs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::domain::{
    CallError, Candidate, CardId, CardIdentity, CardRecord, CardStatus, CmOperation, CmRequest,
    CompleteRequestResult, Decision, IdRule, LookupResult, RecordId, RequestId, RequestStatus,
    RequestType, SetStatusResult, Strength, UnavailableReason,
};
use crate::engine::{CmCall, CmResponse};

pub(in crate::engine) const ACTIVE: CardStatus = CardStatus::new(2);
pub(in crate::engine) const DISABLED: CardStatus = CardStatus::new(3);
pub(in crate::engine) const RETIRED: CardStatus = CardStatus::new(6);
pub(in crate::engine) const RETIRE: RequestType = RequestType::new(7);
pub(in crate::engine) const DISABLE: RequestType = RequestType::new(4);
pub(in crate::engine) const APPROVED: RequestStatus = RequestStatus::new(3);
pub(in crate::engine) const EXECUTING: RequestStatus = RequestStatus::new(18);
pub(in crate::engine) const COMPLETED: RequestStatus = RequestStatus::new(8);
pub(in crate::engine) const CANCELED: RequestStatus = RequestStatus::new(17);
pub(in crate::engine) const ATR: &str = "3b8d0180fba000000397425446590301c8";

/// How CM takes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Mood {
    Fine,
    /// Not reachable; the call changes nothing.
    Away,
    /// 503 with Retry-After, in seconds.
    Busy(u64),
    /// 500.
    Failing,
    /// 500 with Retry-After, in seconds.
    FailingFor(u64),
    /// 404 on every route: the API is switched off.
    Off,
    /// 403.
    Refusing,
    /// An answer about something else.
    Wrong,
    /// 405 on every PUT; reads are fine.
    PutTaken,
    /// 500 on every PUT; reads are fine.
    PutFailing,
    /// 403 on every PUT; reads are fine.
    PutRefused,
    /// 403 where a request is completed; all else is fine.
    CompleteRefused,
    /// What is asked for is done, but the answer is lost.
    AnswerLost,
    /// 204 on a PUT that was applied; reads are fine.
    NoContent,
    /// 204 on a PUT that was not applied; reads are fine.
    NoContentNoChange,
}

/// Survives a crash of the engine.
#[derive(Debug)]
pub(in crate::engine) struct Cm {
    pub(in crate::engine) records: BTreeMap<RecordId, (CardId, CardRecord)>,
    pub(in crate::engine) requests: Vec<CmRequest>,
    /// For one call each, before everything else.
    pub(in crate::engine) script: VecDeque<Mood>,
    /// For single cards.
    pub(in crate::engine) of_card: BTreeMap<u8, Mood>,
    pub(in crate::engine) mood: Mood,
    pub(in crate::engine) latency: Duration,
}

impl Cm {
    pub(super) fn new() -> Self {
        Self {
            records: BTreeMap::new(),
            requests: Vec::new(),
            script: VecDeque::new(),
            of_card: BTreeMap::new(),
            mood: Mood::Fine,
            latency: Duration::from_millis(20),
        }
    }

    /// CM knows a card, by record `record`, with this status.
    pub(in crate::engine) fn know(&mut self, card: u8, record: u8, status: CardStatus) {
        let id = record_id(record);
        let known = CardRecord {
            id,
            status,
            serial_number: format!("{{{}}}", card_id(card)),
            middleware: "MSBaseCSP".to_owned(),
            atr: Some(ATR.parse().unwrap()),
            raw: Box::default(),
        };
        self.records.insert(id, (card_id(card), known));
    }

    /// Opens a request about a record.
    pub(in crate::engine) fn request(&mut self, record: u8, kind: RequestType) {
        let n = u8::try_from(self.requests.len()).unwrap();
        self.requests.push(CmRequest {
            id: format!("b105403d-d021-41ea-9f11-be3d670000{n:02x}").parse().unwrap(),
            request_type: kind,
            status: APPROVED,
            old_card: Some(record_id(record)),
            new_card: None,
            submitted: "2026-01-01T00:00:00Z".parse().ok(),
        });
    }

    pub(in crate::engine) fn status(&self, record: u8) -> CardStatus {
        self.records[&record_id(record)].1.status
    }

    /// The open requests that name a record.
    pub(in crate::engine) fn open(&self, record: u8) -> usize {
        let named = |request: &&CmRequest| is_open(request) && request.names(record_id(record));
        self.requests.iter().filter(named).count()
    }

    /// What the open requests that name a record want, the oldest first.
    pub(in crate::engine) fn open_kinds(&self, record: u8) -> Vec<RequestType> {
        let named = |request: &&CmRequest| is_open(request) && request.names(record_id(record));
        let mut open: Vec<_> = self.requests.iter().filter(named).collect();
        open.sort_by_key(|request| (request.submitted, request.id));
        open.iter().map(|request| request.request_type).collect()
    }

    pub(super) fn mood(&mut self, card: u8) -> Mood {
        self.script.pop_front().or_else(|| self.of_card.get(&card).copied()).unwrap_or(self.mood)
    }

    pub(super) fn answer(&mut self, call: &CmCall, mood: Mood) -> Result<CmResponse, CallError> {
        match call {
            CmCall::Lookup(identity) => self.look_up(identity, mood).map(CmResponse::Lookup),
            CmCall::ReadRecord(decision) => {
                self.read(decision.record, mood).map(CmResponse::Record)
            }
            CmCall::SetStatus(decision) => self.put(decision, mood).map(CmResponse::SetStatus),
            CmCall::ReadRequest(decision) => {
                self.read_request(decision.request, mood).map(CmResponse::Request)
            }
            CmCall::CompleteRequest(decision) => {
                self.complete(decision, mood).map(CmResponse::CompleteRequest)
            }
        }
    }

    fn look_up(&self, identity: &CardIdentity, mood: Mood) -> Result<LookupResult, CallError> {
        fault(CmOperation::Lookup, mood)?;
        let known = |candidate: &Candidate| {
            let of_card = self.records.values().filter(|(card, _)| *card == candidate.card_id);
            let records: Vec<_> = of_card.map(|(_, record)| record.clone()).collect();
            (!records.is_empty()).then(|| (candidate.clone(), records))
        };
        let records = identity.candidates().find_map(known);
        let named = |request: &&CmRequest| {
            let found = records.as_ref().map_or(&[][..], |(_, records)| records);
            found.iter().any(|record| request.names(record.id))
        };
        let open = self.requests.iter().filter(|request| is_open(request));
        let requests = open.filter(named).cloned().collect();
        Ok(LookupResult { records, requests })
    }

    fn read(&self, record: RecordId, mood: Mood) -> Result<CardRecord, CallError> {
        fault(CmOperation::ReadRecord, mood)?;
        Ok(self.records[&record].1.clone())
    }

    fn put(&mut self, decision: &Decision, mood: Mood) -> Result<SetStatusResult, CallError> {
        let answer = fault(CmOperation::SetStatus, mood);
        let applied = match mood {
            Mood::Fine | Mood::NoContent | Mood::AnswerLost | Mood::CompleteRefused => true,
            Mood::Away
            | Mood::Busy(_)
            | Mood::FailingFor(_)
            | Mood::Failing
            | Mood::Off
            | Mood::Refusing
            | Mood::Wrong
            | Mood::PutTaken
            | Mood::PutFailing
            | Mood::PutRefused
            | Mood::NoContentNoChange => false,
        };
        if applied {
            let request = self.requests.iter_mut().find(|known| known.id == decision.request);
            let Some(request) = request.filter(|request| is_open(request)) else {
                return Err(refused());
            };
            request.status = EXECUTING;
            self.records.get_mut(&decision.record).unwrap().1.status = decision.new_status;
        }
        answer?;
        if matches!(mood, Mood::NoContent | Mood::NoContentNoChange) {
            return Ok(SetStatusResult::Unconfirmed);
        }
        Ok(SetStatusResult::Confirmed(decision.new_status))
    }

    fn read_request(&self, request: RequestId, mood: Mood) -> Result<RequestStatus, CallError> {
        fault(CmOperation::ReadRequest, mood)?;
        Ok(self.requests.iter().find(|known| known.id == request).unwrap().status)
    }

    fn complete(
        &mut self,
        decision: &Decision,
        mood: Mood,
    ) -> Result<CompleteRequestResult, CallError> {
        let status = self.records[&decision.record].1.status;
        assert_eq!(status, decision.new_status, "completed before it is done");
        let answer = fault(CmOperation::CompleteRequest, mood);
        if matches!(mood, Mood::Fine | Mood::NoContent | Mood::AnswerLost) {
            let request = self.requests.iter_mut().find(|known| known.id == decision.request);
            let Some(request) = request.filter(|request| is_open(request)) else {
                return Err(refused());
            };
            request.status = COMPLETED;
        }
        answer?;
        if matches!(mood, Mood::NoContent | Mood::NoContentNoChange) {
            return Ok(CompleteRequestResult::Unconfirmed);
        }
        Ok(CompleteRequestResult::Confirmed)
    }
}

fn is_open(request: &CmRequest) -> bool {
    [APPROVED, EXECUTING].contains(&request.status)
}

fn refused() -> CallError {
    CallError::Refused {
        http_status: 403,
        detail: "not for you".to_owned(),
        correlation_id: Some("beef".to_owned()),
    }
}

/// What goes wrong with such a call in such a mood.
fn fault(ask: CmOperation, mood: Mood) -> Result<(), CallError> {
    let away = |reason, seconds: Option<u64>| CallError::Unavailable {
        reason,
        detail: "the tests say so".to_owned(),
        retry_after: seconds.map(Duration::from_secs),
    };
    let failed = |seconds: Option<u64>| CallError::Failed {
        http_status: 500,
        detail: "an error has occurred".to_owned(),
        correlation_id: Some("c0ffee".to_owned()),
        retry_after: seconds.map(Duration::from_secs),
    };
    let put = matches!(ask, CmOperation::SetStatus | CmOperation::CompleteRequest);
    match mood {
        Mood::PutTaken if put => Err(away(UnavailableReason::MethodNotAllowed, None)),
        Mood::PutFailing if put => Err(failed(None)),
        Mood::PutRefused if put => Err(refused()),
        Mood::CompleteRefused if ask == CmOperation::CompleteRequest => Err(refused()),
        Mood::Fine
        | Mood::NoContent
        | Mood::NoContentNoChange
        | Mood::PutTaken
        | Mood::PutFailing
        | Mood::PutRefused
        | Mood::CompleteRefused => Ok(()),
        Mood::Away => Err(away(UnavailableReason::Unreachable, None)),
        Mood::AnswerLost => Err(away(UnavailableReason::Timeout, None)),
        Mood::Busy(seconds) => Err(away(UnavailableReason::Busy, Some(seconds))),
        Mood::Failing => Err(failed(None)),
        Mood::FailingFor(seconds) => Err(failed(Some(seconds))),
        // The three calls of a look-up are enough to know; a single one is not.
        Mood::Off if ask == CmOperation::Lookup => Err(away(UnavailableReason::ApiDisabled, None)),
        Mood::Off => Err(CallError::Failed {
            http_status: 404,
            detail: "404 Not Found".to_owned(),
            correlation_id: None,
            retry_after: None,
        }),
        Mood::Refusing => Err(refused()),
        Mood::Wrong => {
            Err(CallError::UnexpectedResponse { detail: "another card's record".to_owned() })
        }
    }
}

pub(in crate::engine) fn card_id(card: u8) -> CardId {
    format!("bc88f13f-83ba-4037-8262-46eba12900{card:02x}").parse().unwrap()
}

pub(in crate::engine) fn candidate(card: u8, rule: IdRule) -> Candidate {
    Candidate { card_id: card_id(card), rule, strength: Strength::Unique, pinned: false }
}

pub(in crate::engine) fn record_id(record: u8) -> RecordId {
    format!("17cf063d-e337-4aa9-a822-3465540000{record:02x}").parse().unwrap()
}

pub(in crate::engine) fn request_id(n: u8) -> RequestId {
    format!("b105403d-d021-41ea-9f11-be3d670000{n:02x}").parse().unwrap()
}
