//! CM's state and the rules by which requests change it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{CARD_STATUS, REQUEST_STATUS, Record, Request, number};

/// Everything CM knows; also the format of `cm-sim --state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Store {
    /// Smart cards.
    pub records: Vec<Record>,
    /// Requests.
    pub requests: Vec<Request>,
}

/// Why CM does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 403: not in this state, or not by this request.
    Forbidden,
    /// 500: CM does not understand, or trips.
    Failure,
}

const APPROVED: u32 = 3;
const COMPLETED: u32 = 8;
const PENDING: u32 = 16;
const CANCELED: u32 = 17;
const EXECUTING: u32 = 18;

impl Store {
    /// The documentation's example: one active card and the approved request
    /// to retire it.
    #[must_use]
    pub fn seed() -> Self {
        Self { records: vec![Record::seed()], requests: vec![Request::seed()] }
    }

    /// The record with this id.
    #[must_use]
    pub fn record(&self, uuid: Uuid) -> Option<&Record> {
        self.records.iter().find(|record| record.uuid == uuid)
    }

    /// The request with this id.
    #[must_use]
    pub fn request(&self, uuid: Uuid) -> Option<&Request> {
        self.requests.iter().find(|request| request.uuid == uuid)
    }

    /// The records whose serial number is this card's id.
    pub(super) fn of_card(&self, card: Uuid) -> Vec<&Record> {
        let is_card = |record: &&Record| Uuid::try_parse(&record.serial_number) == Ok(card);
        self.records.iter().filter(is_card).collect()
    }

    /// What the caller may do with a card.
    pub(super) fn operations(&self, uuid: Uuid) -> Option<&'static [&'static str]> {
        Some(match self.record(uuid)?.status {
            2 => &["renew", "unblock", "retire"],
            3 => &["retire"],
            _ => &[],
        })
    }

    /// Sets a card's status within a request, which must be open and name the
    /// card; the first such step makes it Executing.
    pub(super) fn put_card_status(
        &mut self,
        request: Uuid,
        record: Uuid,
        status: &str,
    ) -> Result<&Record, Refusal> {
        let request = self.requests.iter_mut().find(|known| known.uuid == request);
        let request = request.ok_or(Refusal::Forbidden)?;
        if !request.is_open() || !request.names(record) {
            return Err(Refusal::Forbidden);
        }
        let record = self.records.iter_mut().find(|known| known.uuid == record);
        let record = record.ok_or(Refusal::Forbidden)?;
        record.status = number(&CARD_STATUS, status).ok_or(Refusal::Failure)?;
        request.status = EXECUTING;
        Ok(record)
    }

    /// Ends a request. Abandoned has no number of its own: it counts as
    /// Canceled.
    pub(super) fn put_request_status(
        &mut self,
        request: Uuid,
        status: &str,
    ) -> Result<&Request, Refusal> {
        let request = self.requests.iter_mut().find(|known| known.uuid == request);
        let request = request.ok_or(Refusal::Forbidden)?;
        let (wanted, allowed) = match status.to_ascii_lowercase().as_str() {
            "completed" => (COMPLETED, request.is_open()),
            "canceled" | "abandoned" => (CANCELED, request.is_open() || request.status == PENDING),
            _ => return Err(Refusal::Failure),
        };
        if !allowed {
            return Err(Refusal::Forbidden);
        }
        request.status = wanted;
        request.completed = now();
        Ok(request)
    }

    /// Binds a card to an open request: a new record, Assigned.
    pub(super) fn bind_card(
        &mut self,
        request: Uuid,
        card: Uuid,
        atr: &str,
    ) -> Result<Uuid, Refusal> {
        let request = self.requests.iter_mut().find(|known| known.uuid == request);
        let request = request.filter(|request| request.is_open());
        let request = request.ok_or(Refusal::Forbidden)?;
        let record = Record {
            status: 1,
            atr: atr.to_owned(),
            assigned_user_uuid: request.target_user_uuid,
            profile_template_uuid: request.profile_template_uuid,
            ..Record::of_card(card)
        };
        request.new_smartcard_uuid = record.uuid;
        request.status = EXECUTING;
        let uuid = record.uuid;
        self.records.push(record);
        Ok(uuid)
    }

    /// Opens a request, which then waits for approval.
    pub(super) fn open_request(&mut self, asked: Request) -> Uuid {
        let request = Request { status: PENDING, submitted: now(), ..asked };
        let uuid = request.uuid;
        self.requests.push(request);
        uuid
    }

    /// Approves a pending request, as a manager does in CM's portal.
    pub fn approve(&mut self, request: Uuid) {
        for known in &mut self.requests {
            if known.uuid == request && known.status == PENDING {
                known.status = APPROVED;
            }
        }
    }

    /// The requests in a state, or all; `None` for a state CM does not know.
    pub(super) fn requests_in(&self, status: Option<&str>) -> Option<Vec<&Request>> {
        let Some(status) = status else {
            return Some(self.requests.iter().collect());
        };
        let wanted = number(&REQUEST_STATUS, status)?;
        let in_state = |request: &&Request| request.status == wanted;
        Some(self.requests.iter().filter(in_state).collect())
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}
