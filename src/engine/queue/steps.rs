//! The steps of an entry.

use super::{AfterSave, EntryStep};
use crate::domain::{
    CallError, CardRecord, Decision, EntryId, IdTrust, LookupResult, Outcome, ParkReason,
    SetStatusResult, Settlement, Stage,
};
use crate::engine::circuit_breaker::AvailabilityChange;
use crate::engine::{Effect, Engine, Notice, Now, OutboxFailure};
use crate::rules::{Evaluation, RuleInput, evaluate};

impl Engine {
    /// Takes a step out of an entry that is still current; else frees the card that an answer
    /// nobody waits for kept busy.
    pub(super) fn take_step(&mut self, id: EntryId) -> Option<EntryStep> {
        let step = match self.queue.waiting.get_mut(&id) {
            Some(entry) if entry.superseded_by.is_none() => {
                Some(std::mem::replace(&mut entry.step, EntryStep::Idle))
            }
            superseded => {
                if let Some(entry) = superseded {
                    entry.step = EntryStep::Idle;
                }
                self.queue.in_progress.retain(|_, busy| *busy != id);
                self.counters.stale_results += 1;
                None
            }
        };
        self.queue.note(id);
        step
    }

    /// Notes what an answer, whoever waits for it, says about CM.
    pub(super) fn on_response<T>(&mut self, id: EntryId, result: &Result<T, CallError>, now: Now) {
        if self.breaker.is_stale(id) {
            return;
        }
        match result {
            Ok(_) | Err(CallError::Refused { .. } | CallError::UnexpectedResponse { .. }) => {
                self.answered(id, now);
            }
            Err(error @ CallError::Unavailable { .. }) => self.on_unavailable(id, error, now),
            Err(error @ CallError::Failed { .. }) => self.on_server_error(id, error, now),
        }
        if result.is_ok()
            && let Some(entry) = self.queue.waiting.get_mut(&id)
        {
            entry.answered = true;
        }
    }

    fn answered(&mut self, id: EntryId, now: Now) {
        match self.breaker.on_response(id, now) {
            AvailabilityChange::None => return,
            AvailabilityChange::Partial => {}
            AvailabilityChange::Full => self.report(Notice::CmAvailable),
            AvailabilityChange::FirstContact => return self.report(Notice::CmAvailable),
        }
        self.queue.schedule_after_recovery(self.policy.retry, &mut self.random, now);
    }

    fn on_unavailable(&mut self, id: EntryId, error: &CallError, now: Now) {
        let entry = self.queue.waiting.get(&id);
        let of_update = entry.is_some_and(|entry| {
            matches!(
                entry.step,
                EntryStep::SettingStatus { .. } | EntryStep::CompletingRequest { .. }
            )
        });
        let (retry, random) = (self.policy.retry, &mut self.random);
        let notice = self.breaker.on_call_failed(id, (error, of_update), retry, random, now);
        self.counters.cm_outages += u64::from(notice.is_some());
        self.effects.extend(notice.map(Effect::Report));
    }

    /// CM failed on one call: its own trouble where CM is there and others came through since it
    /// last failed, else a sign that CM is away. That CM answers what it is asked about the same
    /// card is no proof: where it takes no update at all, nobody comes through.
    fn on_server_error(&mut self, id: EntryId, error: &CallError, now: Now) {
        let came_through = self.queue.success_count;
        let is_up = self.breaker.is_closed();
        match self.queue.waiting.get_mut(&id) {
            Some(entry) => {
                let then = std::mem::replace(&mut entry.successes_at_failure, came_through);
                if is_up && came_through > then {
                    entry.entry_failures += 1;
                    return;
                }
            }
            // The newer entry of the card finds out.
            None if is_up => return,
            None => {}
        }
        self.on_unavailable(id, error, now);
    }

    pub(in crate::engine) fn looked_up(
        &mut self,
        id: EntryId,
        result: Result<LookupResult, CallError>,
        now: Now,
    ) {
        self.on_response(id, &result, now);
        if self.take_step(id).is_none() {
            return;
        }
        match result {
            Ok(found) => self.evaluate_rules(id, &found, now),
            Err(error) => self.on_call_error(id, error, now),
        }
    }

    fn evaluate_rules(&mut self, id: EntryId, found: &LookupResult, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let draft = &entry.draft;
        let facts = RuleInput {
            trigger: draft.trigger,
            role: &draft.role,
            atr: Some(&draft.atr),
            identity: &draft.identity,
            found,
        };
        let verdict = evaluate(&self.policy.rules, &facts);
        entry.known_by = found.records.as_ref().map(|(candidate, _)| candidate.clone());
        if entry.draft.identity.partial && !verdict.is_conclusive() {
            return self.wait_for_rest(id, &verdict, now);
        }
        match verdict {
            Evaluation::Set { decision, warning } => {
                let warning =
                    warning.map(|text| Effect::Report(Notice::Warning { entry: id, text }));
                self.effects.extend(warning);
                self.save(id, decision, AfterSave::SetStatus);
            }
            Evaluation::AlreadySet { decision } => self.on_status_already_set(id, decision, now),
            Evaluation::NothingToDo { why } => self.finish_with(id, Outcome::NothingToDo, why, now),
            Evaluation::UnknownCard { why } => self.finish_with(id, Outcome::UnknownCard, why, now),
            Evaluation::Park { reason, why } => {
                self.finish_with(id, Outcome::Parked(reason), why, now);
            }
        }
    }

    /// The record has the status: by what was sent before, or by somebody else.
    fn on_status_already_set(&mut self, id: EntryId, found: Decision, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let sent = entry.stage.sent();
        let ours =
            sent.filter(|sent| sent.record == found.record && sent.new_status == found.new_status);
        let (decision, how) = match ours {
            Some(sent) => (Decision { old_status: sent.old_status, ..found }, UPDATED_LATE),
            None => (found, ALREADY_SET),
        };
        if decision.complete_request {
            self.save(id, decision, AfterSave::CompleteRequest);
        } else {
            let outcome = decision.outcome();
            entry.stage = Stage::Sent(decision);
            self.finish_with(id, outcome, how.to_owned(), now);
        }
    }

    /// Has the decision put on disk, and then goes on with it.
    pub(super) fn save(&mut self, id: EntryId, decision: Decision, then: AfterSave) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.accepted_unverified = false;
        self.effects
            .push_back(Effect::SaveStage { entry: id, stage: then.stage(decision.clone()) });
        entry.step = EntryStep::Saving { decision, then };
    }

    pub(in crate::engine) fn saved(
        &mut self,
        id: EntryId,
        result: Result<(), OutboxFailure>,
        now: Now,
    ) {
        let Some(EntryStep::Saving { decision, then }) = self.take_step(id) else { return };
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        match result {
            Ok(()) => {
                entry.stage = then.stage(decision.clone());
                self.on_outbox_recovered();
                match then {
                    AfterSave::SetStatus => self.push(id, decision, now),
                    AfterSave::CompleteRequest => self.complete(id, decision, now),
                    AfterSave::ReadRequest => self.read_request(id, decision, now),
                }
            }
            Err(OutboxFailure::EntryLost(detail)) => self.drop_lost_entry(id, detail),
            Err(failure) => {
                self.back_off(id, failure.detail(), now);
                self.on_outbox_error(&failure);
            }
        }
    }

    fn push(&mut self, id: EntryId, decision: Decision, now: Now) {
        let step = EntryStep::SettingStatus { decision: decision.clone() };
        self.start_call(id, step, Effect::SetStatus { entry: id, decision }, now);
    }

    /// Makes the next call on an entry's way, unless CM became unavailable meanwhile.
    pub(super) fn start_call(&mut self, id: EntryId, step: EntryStep, call: Effect, now: Now) {
        if !self.breaker.may_continue(id) {
            self.back_off(id, CM_UNAVAILABLE, now);
            return;
        }
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = step;
        self.effects.push_back(call);
    }

    pub(in crate::engine) fn pushed(
        &mut self,
        id: EntryId,
        result: Result<SetStatusResult, CallError>,
        now: Now,
    ) {
        self.on_response(id, &result, now);
        if result.is_ok() {
            self.on_write_succeeded(now);
        }
        let Some(EntryStep::SettingStatus { decision }) = self.take_step(id) else { return };
        match result {
            Ok(SetStatusResult::Confirmed(_)) if decision.complete_request => {
                self.save(id, decision, AfterSave::CompleteRequest);
            }
            Ok(SetStatusResult::Confirmed(_)) => {
                self.confirmed(id, Outcome::Updated, CONFIRMED, now);
            }
            Ok(SetStatusResult::Unconfirmed) => self.verify_accepted_update(id, decision, now),
            Err(error) => self.on_call_error(id, error, now),
        }
    }

    pub(super) fn confirmed(&mut self, id: EntryId, outcome: Outcome, how: &str, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, how.to_owned(), now);
        self.finish(id, Settlement { http_status: Some(200), ..end }, now);
    }

    fn verify_accepted_update(&mut self, id: EntryId, decision: Decision, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.accepted_unverified = true;
        let call = Effect::ReadRecord { entry: id, record: decision.record };
        self.start_call(id, EntryStep::ReadingRecord { decision }, call, now);
    }

    pub(in crate::engine) fn read_back(
        &mut self,
        id: EntryId,
        result: Result<CardRecord, CallError>,
        now: Now,
    ) {
        self.on_response(id, &result, now);
        let Some(EntryStep::ReadingRecord { decision }) = self.take_step(id) else { return };
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let (after_yes, completing) =
            (entry.accepted_unverified, matches!(entry.stage, Stage::Completing(_)));
        // A decision of version 0.1 that was made by an id that other cards may carry.
        let unproven = decision.candidate.trust() == IdTrust::Nothing;
        match result {
            Ok(_) if unproven && (completing || decision.complete_request) => {
                self.evaluate_again(id, now);
            }
            Ok(record) if record.status == decision.new_status && completing => {
                self.read_request(id, decision, now);
            }
            Ok(record) if record.status == decision.new_status && decision.complete_request => {
                self.save(id, decision, AfterSave::ReadRequest);
            }
            Ok(record) if record.status == decision.new_status => {
                self.finish_with(id, decision.outcome(), READ_BACK.to_owned(), now);
            }
            Ok(record) if completing => {
                let status = self.policy.rules.numbers.card_status_text(record.status);
                let why = format!("the record has status {status} by now");
                self.finish_with(id, Outcome::Parked(ParkReason::UnexpectedResponse), why, now);
            }
            Ok(record) if after_yes => {
                let status = self.policy.rules.numbers.card_status_text(record.status);
                let why = format!("CM said yes, but the record still has status {status}");
                self.finish_with(id, Outcome::Parked(ParkReason::UnexpectedResponse), why, now);
            }
            Ok(_) => self.evaluate_again(id, now),
            Err(error) => self.on_call_error(id, error, now),
        }
    }

    /// Has the rules decide afresh, unless CM became unavailable meanwhile.
    fn evaluate_again(&mut self, id: EntryId, now: Now) {
        if self.breaker.may_continue(id) {
            self.look_up(id);
        } else {
            self.back_off(id, CM_UNAVAILABLE, now);
        }
    }
}

const CM_UNAVAILABLE: &str = "CM became unavailable";

const CONFIRMED: &str = "CM confirmed the new status";
const ALREADY_SET: &str = "the record already has this status";
const READ_BACK: &str = "read back: the record has the new status";
const UPDATED_LATE: &str = "the record has the status sent earlier";
