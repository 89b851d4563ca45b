//! The steps of an entry: calls to CM, and what follows from their results.
//!
//! Where a rule completes the request too, nothing is completed that the record does not confirm:
//! [`Stage::Completing`] is written only after CM said that the record has the status. What may have
//! been sent is read back, record and request, before it is sent again.

use super::entry::{AfterSave, EntryStep, PendingEntry};
use super::{CardReadInPart, Queue};
use crate::domain::{
    CallError, CardRecord, CmOperation, CompleteRequestResult, Decision, EntryId, IdTrust,
    LookupResult, Outcome, ParkReason, RequestStatus, SetStatusResult, Settlement, Stage,
};
use crate::engine::circuit_breaker::AvailabilityChange;
use crate::engine::context::Context;
use crate::engine::interface::{
    CmCall, CmEvent, CmResponse, Effect, Notice, OutboxEffect, OutboxFailure,
};
use crate::rules::{Evaluation, RuleInput, evaluate};

const CM_UNAVAILABLE: &str = "CM became unavailable";
const ALREADY_SET: &str = "the record already has this status";
const ALREADY_SET_COMPLETED: &str = "the record already has this status; CM completed the request";
const CONFIRMED: &str = "CM confirmed the new status";
const CONFIRMED_COMPLETED: &str = "CM confirmed the new status and completed the request";
const READ_BACK: &str = "read back: the record has the new status";
const READ_BACK_COMPLETED: &str = "read back: record and request are in the expected state";
const UPDATED_LATE: &str = "the record has the status sent earlier";

impl Queue {
    /// A call returned. `may_complete`: the card is known in part, and may still be read in full.
    pub(in crate::engine) fn on_cm_event(
        &mut self,
        cx: &mut Context,
        event: CmEvent,
        may_complete: bool,
    ) -> Option<CardReadInPart> {
        let CmEvent { entry: id, operation, result } = event;
        self.note_availability(cx, id, &result);
        let is_update = [CmOperation::SetStatus, CmOperation::CompleteRequest].contains(&operation);
        if is_update && result.is_ok() {
            self.breaker.on_write_succeeded(cx);
        }
        let is_answered = |step: &EntryStep| matches!(step, EntryStep::Calling(call) if call.operation() == operation);
        let step = self.take_step(cx, id, operation.as_str(), is_answered);
        let Some(EntryStep::Calling(call)) = step else { return None };
        match result {
            Ok(response) => return self.on_response(cx, id, call, response, may_complete),
            Err(error) => self.on_call_error(cx, id, error),
        }
        None
    }

    fn on_response(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        call: CmCall,
        response: CmResponse,
        may_complete: bool,
    ) -> Option<CardReadInPart> {
        match (call, response) {
            (CmCall::Lookup(_), CmResponse::Lookup(found)) => {
                return self.evaluate_rules(cx, id, &found, may_complete);
            }
            (CmCall::ReadRecord(decision), CmResponse::Record(record)) => {
                self.on_record_read(cx, id, decision, &record);
            }
            (CmCall::SetStatus(decision), CmResponse::SetStatus(SetStatusResult::Unconfirmed)) => {
                self.verify_accepted_update(cx, id, CmCall::ReadRecord(decision));
            }
            (CmCall::SetStatus(decision), CmResponse::SetStatus(_))
                if decision.complete_request =>
            {
                self.save(cx, id, decision, AfterSave::CompleteRequest);
            }
            (CmCall::SetStatus(_), CmResponse::SetStatus(_)) => {
                self.finish_confirmed(cx, id, Outcome::Updated, CONFIRMED);
            }
            (CmCall::ReadRequest(decision), CmResponse::Request(status)) => {
                self.on_request_read(cx, id, decision, status);
            }
            (
                CmCall::CompleteRequest(decision),
                CmResponse::CompleteRequest(CompleteRequestResult::Unconfirmed),
            ) => self.verify_accepted_update(cx, id, CmCall::ReadRequest(decision)),
            (CmCall::CompleteRequest(decision), CmResponse::CompleteRequest(_)) => {
                let outcome = decision.outcome();
                let is_set = outcome == Outcome::AlreadySet;
                let detail = if is_set { ALREADY_SET_COMPLETED } else { CONFIRMED_COMPLETED };
                self.finish_confirmed(cx, id, outcome, detail);
            }
            (call, _) => {
                cx.report_unexpected(&id, call.operation().as_str());
                self.back_off(cx, id, "the response belongs to another call");
            }
        }
        None
    }

    /// Takes the step that a result belongs to, if that is current. Else frees the card that a call
    /// whose result no longer matters kept in progress.
    pub(super) fn take_step(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: &'static str,
        is_answered: impl Fn(&EntryStep) -> bool,
    ) -> Option<EntryStep> {
        let Some(entry) = self.waiting.get_mut(&id) else {
            let in_progress = self.in_progress.values().any(|busy| *busy == id);
            if in_progress {
                cx.count_stale_result();
            } else {
                cx.report_unexpected(&id, result);
            }
            self.free_card(id);
            return None;
        };
        if !is_answered(&entry.step) {
            cx.report_unexpected(&id, result);
            return None;
        }
        let is_superseded = entry.superseded_by.is_some();
        let step = std::mem::replace(&mut entry.step, EntryStep::Idle);
        self.note_idle(id);
        if is_superseded {
            cx.count_stale_result();
            self.free_card(id);
        }
        (!is_superseded).then_some(step)
    }

    pub(super) fn free_card(&mut self, id: EntryId) {
        self.in_progress.retain(|_, busy| *busy != id);
    }

    /// Notes what a result, current or not, says about CM.
    fn note_availability(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: &Result<CmResponse, CallError>,
    ) {
        if self.breaker.take_stale_call(id) {
            return;
        }
        match result {
            Ok(_) | Err(CallError::Refused { .. } | CallError::UnexpectedResponse { .. }) => {
                let change = self.breaker.on_response(id, cx.time);
                if matches!(change, AvailabilityChange::Full | AvailabilityChange::FirstContact) {
                    cx.report(Notice::CmAvailable);
                }
                if matches!(change, AvailabilityChange::Full | AvailabilityChange::Partial) {
                    self.schedule_after_recovery(cx);
                }
            }
            Err(error @ CallError::Unavailable { .. }) => self.on_unavailable(cx, id, error),
            Err(error @ CallError::Failed { .. }) => self.on_server_error(cx, id, error),
        }
        if result.is_ok()
            && let Some(entry) = self.waiting.get_mut(&id)
        {
            entry.answered = true;
        }
    }

    fn on_unavailable(&mut self, cx: &mut Context, id: EntryId, error: &CallError) {
        let of_update = self.waiting.get(&id).is_some_and(PendingEntry::is_updating);
        self.breaker.on_call_failed(cx, id, error, of_update);
    }

    /// CM failed on one call: that is about the entry where CM is available and others succeeded since
    /// it last failed, else a sign that CM is unavailable. That CM answers reads of the same card is
    /// no proof: where it takes no update at all, none succeeds.
    fn on_server_error(&mut self, cx: &mut Context, id: EntryId, error: &CallError) {
        let is_up = self.breaker.is_closed();
        match self.waiting.get_mut(&id) {
            Some(entry) => {
                let then = std::mem::replace(&mut entry.successes_at_failure, self.success_count);
                if is_up && self.success_count > then {
                    entry.entry_failures += 1;
                    return;
                }
            }
            // The newer entry of the card finds out.
            None if is_up => return,
            None => {}
        }
        self.on_unavailable(cx, id, error);
    }

    fn evaluate_rules(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        found: &LookupResult,
        may_complete: bool,
    ) -> Option<CardReadInPart> {
        let entry = self.waiting.get_mut(&id)?;
        let card_event = &entry.card_event;
        let input = RuleInput {
            trigger: card_event.trigger,
            role: &card_event.role,
            atr: Some(&card_event.atr),
            identity: &card_event.identity,
            found,
        };
        let evaluation = evaluate(&cx.settings.rules, &input);
        entry.known_by = found.records.as_ref().map(|(candidate, _)| candidate.clone());
        if entry.card_event.identity.partial && !evaluation.is_conclusive() {
            let reason = inconclusive_reason(evaluation);
            if !may_complete {
                let detail = format!("the card was read in part only; by that part: {reason}");
                return Some(CardReadInPart(detail));
            }
            entry.last_error = Some(format!(
                "another program uses the card, which is read in full after that; {reason}"
            ));
            self.free_card(id);
            self.incomplete.insert(id);
            return None;
        }
        match evaluation {
            Evaluation::Set { decision, warning } => {
                if let Some(text) = warning {
                    cx.report(Notice::Warning { entry: id, text });
                }
                self.save(cx, id, decision, AfterSave::SetStatus);
            }
            Evaluation::AlreadySet { decision } => self.on_status_already_set(cx, id, decision),
            Evaluation::NothingToDo { detail } => self.finish(cx, id, Outcome::NothingToDo, detail),
            Evaluation::UnknownCard { detail } => self.finish(cx, id, Outcome::UnknownCard, detail),
            Evaluation::Park { reason, detail } => {
                self.finish(cx, id, Outcome::Parked(reason), detail);
            }
        }
        None
    }

    /// The record has the status: by what was sent before, or by another hand.
    fn on_status_already_set(&mut self, cx: &mut Context, id: EntryId, found: Decision) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        let sent = entry.stage.sent();
        let ours =
            sent.filter(|sent| sent.record == found.record && sent.new_status == found.new_status);
        let (decision, detail) = match ours {
            Some(sent) => (Decision { old_status: sent.old_status, ..found }, UPDATED_LATE),
            None => (found, ALREADY_SET),
        };
        if decision.complete_request {
            self.save(cx, id, decision, AfterSave::CompleteRequest);
        } else {
            let outcome = decision.outcome();
            entry.stage = Stage::Sent(decision);
            self.finish(cx, id, outcome, detail.to_owned());
        }
    }

    /// Stores the decision, and then goes on with it.
    fn save(&mut self, cx: &mut Context, id: EntryId, decision: Decision, then: AfterSave) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        entry.accepted_unverified = false;
        cx.store(OutboxEffect::SaveStage { entry: id, stage: then.stage(decision.clone()) });
        entry.step = EntryStep::Saving { decision, then };
    }

    pub(in crate::engine) fn on_stage_saved(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: Result<(), OutboxFailure>,
    ) {
        let is_saving = |step: &EntryStep| matches!(step, EntryStep::Saving { .. });
        let step = self.take_step(cx, id, "stage saved", is_saving);
        let Some(EntryStep::Saving { decision, then }) = step else { return };
        match result {
            Ok(()) => {
                if let Some(entry) = self.waiting.get_mut(&id) {
                    entry.stage = then.stage(decision.clone());
                }
                cx.on_outbox_recovered();
                self.start_call(cx, id, then.call(decision));
            }
            Err(OutboxFailure::EntryLost(detail)) => self.drop_lost_entry(cx, id, detail),
            Err(failure) => {
                self.back_off(cx, id, failure.detail());
                cx.on_outbox_error(&failure);
            }
        }
    }

    /// Makes the next call for an entry, unless CM became unavailable meanwhile.
    fn start_call(&mut self, cx: &mut Context, id: EntryId, call: CmCall) {
        if !self.breaker.may_continue(id) {
            self.back_off(cx, id, CM_UNAVAILABLE);
            return;
        }
        if let Some(entry) = self.waiting.get_mut(&id) {
            entry.step = EntryStep::Calling(call.clone());
            cx.effects.push_back(Effect::Cm { entry: id, call });
        }
    }

    fn finish_confirmed(&mut self, cx: &mut Context, id: EntryId, outcome: Outcome, how: &str) {
        let Some(entry) = self.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, how.to_owned(), cx.time);
        self.finish_with(cx, id, Settlement { http_status: Some(200), ..end });
    }

    /// CM accepted an update, but did not say what is so now: the next call reads it.
    fn verify_accepted_update(&mut self, cx: &mut Context, id: EntryId, call: CmCall) {
        if let Some(entry) = self.waiting.get_mut(&id) {
            entry.accepted_unverified = true;
        }
        self.start_call(cx, id, call);
    }

    fn on_record_read(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        decision: Decision,
        record: &CardRecord,
    ) {
        let Some(entry) = self.waiting.get(&id) else { return };
        let is_accepted = entry.accepted_unverified;
        let is_completing = matches!(entry.stage, Stage::Completing(_));
        let is_set = record.status == decision.new_status;
        // A decision of version 0.1 that was made by an id that other cards may carry.
        let is_unproven = decision.candidate.trust() == IdTrust::Nothing;
        let lookup = CmCall::Lookup(entry.card_event.identity.clone());
        if is_unproven && (is_completing || decision.complete_request) {
            self.start_call(cx, id, lookup);
        } else if is_set && is_completing {
            self.start_call(cx, id, CmCall::ReadRequest(decision));
        } else if is_set && decision.complete_request {
            self.save(cx, id, decision, AfterSave::ReadRequest);
        } else if is_set {
            self.finish(cx, id, decision.outcome(), READ_BACK.to_owned());
        } else if is_completing || is_accepted {
            let status = cx.settings.rules.numbers.card_status_text(record.status);
            let detail = if is_completing {
                format!("the record has status {status} by now")
            } else {
                format!("CM said yes, but the record still has status {status}")
            };
            self.finish(cx, id, Outcome::Parked(ParkReason::UnexpectedResponse), detail);
        } else {
            self.start_call(cx, id, lookup);
        }
    }

    fn on_request_read(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        decision: Decision,
        status: RequestStatus,
    ) {
        let is_accepted = self.waiting.get(&id).is_some_and(|entry| entry.accepted_unverified);
        let numbers = &cx.settings.rules.numbers;
        let text = numbers.request_status_text(status);
        let is = |name| numbers.request_status.number(name) == Some(status.number());
        if is("Completed") {
            self.finish(cx, id, decision.outcome(), READ_BACK_COMPLETED.to_owned());
        } else if !is("Approved") && !is("Executing") {
            let detail = format!("the request is {text} by now");
            self.finish(cx, id, Outcome::Parked(ParkReason::Refused), detail);
        } else if is_accepted {
            let detail = format!("CM said yes, but the request is still {text}");
            self.finish(cx, id, Outcome::Parked(ParkReason::UnexpectedResponse), detail);
        } else {
            self.start_call(cx, id, CmCall::CompleteRequest(decision));
        }
    }
}

/// Why the rules decide nothing by the ids that are known.
fn inconclusive_reason(evaluation: Evaluation) -> String {
    match evaluation {
        Evaluation::Set { decision, .. } | Evaluation::AlreadySet { decision } => format!(
            "CM has a record under the id {} ({}), which alone does not prove that it is this card's",
            decision.candidate.card_id, decision.candidate.rule
        ),
        Evaluation::NothingToDo { detail }
        | Evaluation::UnknownCard { detail }
        | Evaluation::Park { detail, .. } => detail,
    }
}
