//! CM as a fleet sees it: it knows every card, each with a request to retire it, and counts what
//! it is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use cardbridge::domain::{
    CallError, Candidate, CardIdentity, CardRecord, CardStatus, CmRequest, Decision, LookupResult,
    RecordId, RequestId, RequestStatus, RequestType, SetStatusResult, UnavailableReason,
};
use uuid::Uuid;

pub(crate) const ACTIVE: CardStatus = CardStatus::new(2);
pub(crate) const RETIRED: CardStatus = CardStatus::new(6);
const RETIRE: RequestType = RequestType::new(7);
const APPROVED: RequestStatus = RequestStatus::new(3);

/// What a look-up costs: the record, and two lists of open requests.
const LOOKUP_REQUESTS: usize = 3;

/// One CM for all stations.
#[derive(Debug, Default)]
pub(crate) struct Cm {
    pub(crate) away: bool,
    retired: BTreeSet<RecordId>,
    /// When each HTTP request arrived, while CM was there.
    pub(crate) requests: Vec<Duration>,
}

impl Cm {
    pub(crate) fn look_up(
        &mut self,
        identity: &CardIdentity,
        now: Duration,
    ) -> Result<LookupResult, CallError> {
        self.arrive(LOOKUP_REQUESTS, now)?;
        let candidate: Candidate = identity.primary().clone();
        let id = record_id(candidate.card_id.uuid());
        let request = CmRequest {
            id: request_id(candidate.card_id.uuid()),
            request_type: RETIRE,
            status: APPROVED,
            old_card: Some(id),
            new_card: None,
            submitted: None,
        };
        let records = Some((candidate, vec![self.record(id)]));
        Ok(LookupResult { records, requests: vec![request] })
    }

    pub(crate) fn read(&mut self, id: RecordId, now: Duration) -> Result<CardRecord, CallError> {
        self.arrive(1, now)?;
        Ok(self.record(id))
    }

    /// Every record is retired once: a second time is the fleet's mistake.
    pub(crate) fn put(
        &mut self,
        decision: &Decision,
        now: Duration,
    ) -> Result<SetStatusResult, CallError> {
        self.arrive(1, now)?;
        let first = self.retired.insert(decision.record);
        assert!(first, "record {} is retired twice", decision.record);
        Ok(SetStatusResult::Confirmed(decision.new_status))
    }

    fn arrive(&mut self, requests: usize, now: Duration) -> Result<(), CallError> {
        if self.away {
            let detail = "connection refused".to_owned();
            return Err(CallError::Unavailable {
                reason: UnavailableReason::Unreachable,
                detail,
                retry_after: None,
            });
        }
        self.requests.extend(std::iter::repeat_n(now, requests));
        Ok(())
    }

    fn record(&self, id: RecordId) -> CardRecord {
        let retired = self.retired.contains(&id);
        CardRecord {
            id,
            status: if retired { RETIRED } else { ACTIVE },
            serial_number: String::new(),
            middleware: "MSBaseCSP".to_owned(),
            atr: Some(super::station::ATR.parse().unwrap()),
            raw: Box::default(),
        }
    }
}

/// The record of a card.
fn record_id(card: Uuid) -> RecordId {
    with_first_word(card, 0x17cf_0000).to_string().parse().unwrap()
}

/// The request to retire it.
fn request_id(card: Uuid) -> RequestId {
    with_first_word(card, 0xb105_0000).to_string().parse().unwrap()
}

fn with_first_word(card: Uuid, first: u128) -> Uuid {
    Uuid::from_u128((card.as_u128() & (u128::MAX >> 32)) | (first << 96))
}
