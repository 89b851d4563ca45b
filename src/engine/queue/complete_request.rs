//! The second half of an entry whose rule completes the request: the record has the status, and
//! CM is told that the request is done.
//!
//! Nothing is completed that the record does not confirm: [`Stage::Completing`] is written only
//! after CM said that the record has the status, and what may have been sent is read back, record
//! and request, before it is sent again.

#[cfg(doc)]
use crate::domain::Stage;

use super::EntryStep;
use crate::domain::{
    CallError, CompleteRequestResult, Decision, EntryId, Outcome, ParkReason, RequestStatus,
};
use crate::engine::{Effect, Engine, Now};

/// Where a request stands, as far as it matters to whoever wants it completed.
enum RequestState {
    Completed,
    Open,
    /// Over in another way, or not begun.
    Other,
}

impl Engine {
    pub(super) fn complete(&mut self, id: EntryId, decision: Decision, now: Now) {
        let step = EntryStep::CompletingRequest { decision: decision.clone() };
        self.start_call(id, step, Effect::CompleteRequest { entry: id, decision }, now);
    }

    pub(super) fn read_request(&mut self, id: EntryId, decision: Decision, now: Now) {
        let call = Effect::ReadRequest { entry: id, request: decision.request };
        self.start_call(id, EntryStep::ReadingRequest { decision }, call, now);
    }

    pub(in crate::engine) fn completed(
        &mut self,
        id: EntryId,
        result: Result<CompleteRequestResult, CallError>,
        now: Now,
    ) {
        self.on_response(id, &result, now);
        if result.is_ok() {
            self.on_write_succeeded(now);
        }
        let Some(EntryStep::CompletingRequest { decision }) = self.take_step(id) else { return };
        match result {
            Ok(CompleteRequestResult::Confirmed) => {
                let outcome = decision.outcome();
                let already = outcome == Outcome::AlreadySet;
                self.confirmed(id, outcome, if already { ALREADY_SET } else { CONFIRMED }, now);
            }
            Ok(CompleteRequestResult::Unconfirmed) => {
                if let Some(entry) = self.queue.waiting.get_mut(&id) {
                    entry.accepted_unverified = true;
                }
                self.read_request(id, decision, now);
            }
            Err(error) => self.on_call_error(id, error, now),
        }
    }

    pub(in crate::engine) fn request_read(
        &mut self,
        id: EntryId,
        result: Result<RequestStatus, CallError>,
        now: Now,
    ) {
        self.on_response(id, &result, now);
        let Some(EntryStep::ReadingRequest { decision }) = self.take_step(id) else { return };
        match result {
            Ok(status) => self.act_on_request_state(id, decision, status, now),
            Err(error) => self.on_call_error(id, error, now),
        }
    }

    fn act_on_request_state(
        &mut self,
        id: EntryId,
        decision: Decision,
        status: RequestStatus,
        now: Now,
    ) {
        let after_yes = self.queue.waiting.get(&id).is_some_and(|entry| entry.accepted_unverified);
        let text = self.policy.rules.numbers.request_status_text(status);
        match self.request_state(status) {
            RequestState::Completed => {
                self.finish_with(id, decision.outcome(), READ_BACK.to_owned(), now);
            }
            RequestState::Open if after_yes => {
                let why = format!("CM said yes, but the request is still {text}");
                self.finish_with(id, Outcome::Parked(ParkReason::UnexpectedResponse), why, now);
            }
            RequestState::Open => self.complete(id, decision, now),
            RequestState::Other => {
                let why = format!("the request is {text} by now");
                self.finish_with(id, Outcome::Parked(ParkReason::Refused), why, now);
            }
        }
    }

    fn request_state(&self, status: RequestStatus) -> RequestState {
        let numbers = &self.policy.rules.numbers.request_status;
        let is = |name| numbers.number(name) == Some(status.number());
        if is("Completed") {
            RequestState::Completed
        } else if is("Approved") || is("Executing") {
            RequestState::Open
        } else {
            RequestState::Other
        }
    }
}

const CONFIRMED: &str = "CM confirmed the new status and completed the request";
const ALREADY_SET: &str = "the record already has this status; CM completed the request";
const READ_BACK: &str = "read back: record and request are in the expected state";
