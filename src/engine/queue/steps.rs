//! The steps of an entry.

use super::{Step, Then};
use crate::domain::{
    CallError, CardRecord, Decision, EntryId, IdTrust, LookupResult, Outcome, ParkReason,
    SetStatusResult, Settlement, Stage,
};
use crate::engine::link::Answered;
use crate::engine::{Effect, Engine, Notice, Now, StoreFailure};
use crate::rules::{Evaluation, RuleInput, evaluate};

impl Engine {
    /// Takes a step out of an entry that is still current; else frees the card that an answer
    /// nobody waits for kept busy.
    pub(super) fn take_step(&mut self, id: EntryId) -> Option<Step> {
        let step = match self.queue.waiting.get_mut(&id) {
            Some(entry) if entry.superseded_by.is_none() => {
                Some(std::mem::replace(&mut entry.step, Step::Idle))
            }
            superseded => {
                if let Some(entry) = superseded {
                    entry.step = Step::Idle;
                }
                self.queue.busy.retain(|_, busy| *busy != id);
                self.tally.stale_results += 1;
                None
            }
        };
        self.queue.note(id);
        step
    }

    /// Notes what an answer, whoever waits for it, says about CM.
    pub(super) fn heard<T>(&mut self, id: EntryId, result: &Result<T, CallError>, now: Now) {
        if self.link.is_forgotten(id) {
            return;
        }
        match result {
            Ok(_) | Err(CallError::Refused { .. } | CallError::UnexpectedResponse { .. }) => {
                self.answered(id, now);
            }
            Err(error @ CallError::Unavailable { .. }) => self.away(id, error, now),
            Err(error @ CallError::Failed { .. }) => self.heard_failure(id, error, now),
        }
        if result.is_ok()
            && let Some(entry) = self.queue.waiting.get_mut(&id)
        {
            entry.heard = true;
        }
    }

    fn answered(&mut self, id: EntryId, now: Now) {
        match self.link.answered(id, now) {
            Answered::AsBefore => return,
            Answered::Again => {}
            Answered::Back => self.tell(Notice::CmBack),
            Answered::Anew => return self.tell(Notice::CmBack),
        }
        self.queue.release(self.policy.retry, &mut self.random, now);
    }

    fn away(&mut self, id: EntryId, error: &CallError, now: Now) {
        let entry = self.queue.waiting.get(&id);
        let of_update = entry.is_some_and(|entry| {
            matches!(entry.step, Step::Pushing { .. } | Step::Completing { .. })
        });
        let (retry, random) = (self.policy.retry, &mut self.random);
        let notice = self.link.away(id, (error, of_update), retry, random, now);
        self.tally.cm_outages += u64::from(notice.is_some());
        self.effects.extend(notice.map(Effect::Tell));
    }

    /// CM failed on one call: its own trouble where CM is there and others came through since it
    /// last failed, else a sign that CM is away. That CM answers what it is asked about the same
    /// card is no proof: where it takes no update at all, nobody comes through.
    fn heard_failure(&mut self, id: EntryId, error: &CallError, now: Now) {
        let came_through = self.queue.came_through;
        let is_up = self.link.is_up();
        match self.queue.waiting.get_mut(&id) {
            Some(entry) => {
                let then = std::mem::replace(&mut entry.through_then, came_through);
                if is_up && came_through > then {
                    entry.own_trouble += 1;
                    return;
                }
            }
            // The newer entry of the card finds out.
            None if is_up => return,
            None => {}
        }
        self.away(id, error, now);
    }

    pub(in crate::engine) fn looked_up(
        &mut self,
        id: EntryId,
        result: Result<LookupResult, CallError>,
        now: Now,
    ) {
        self.heard(id, &result, now);
        if self.take_step(id).is_none() {
            return;
        }
        match result {
            Ok(found) => self.judge(id, &found, now),
            Err(error) => self.trouble(id, error, now),
        }
    }

    fn judge(&mut self, id: EntryId, found: &LookupResult, now: Now) {
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
            return self.hold_back(id, &verdict, now);
        }
        match verdict {
            Evaluation::Set { decision, warning } => {
                let warning = warning.map(|text| Effect::Tell(Notice::Warning { entry: id, text }));
                self.effects.extend(warning);
                self.save(id, decision, Then::Push);
            }
            Evaluation::AlreadySet { decision } => self.found_set(id, decision, now),
            Evaluation::NothingToDo { why } => self.end(id, Outcome::NothingToDo, why, now),
            Evaluation::UnknownCard { why } => self.end(id, Outcome::UnknownCard, why, now),
            Evaluation::Park { reason, why } => self.end(id, Outcome::Parked(reason), why, now),
        }
    }

    /// The record has the status: by what was sent before, or by somebody else.
    fn found_set(&mut self, id: EntryId, found: Decision, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let sent = entry.stage.sent();
        let ours =
            sent.filter(|sent| sent.record == found.record && sent.new_status == found.new_status);
        let (decision, how) = match ours {
            Some(sent) => (Decision { old_status: sent.old_status, ..found }, UPDATED_LATE),
            None => (found, ALREADY_SET),
        };
        if decision.complete_request {
            self.save(id, decision, Then::Complete);
        } else {
            let outcome = decision.outcome();
            entry.stage = Stage::Sent(decision);
            self.end(id, outcome, how.to_owned(), now);
        }
    }

    /// Has the decision put on disk, and then goes on with it.
    pub(super) fn save(&mut self, id: EntryId, decision: Decision, then: Then) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.said_yes = false;
        self.effects.push_back(Effect::Save { entry: id, stage: then.stage(decision.clone()) });
        entry.step = Step::Saving { decision, then };
    }

    pub(in crate::engine) fn saved(
        &mut self,
        id: EntryId,
        result: Result<(), StoreFailure>,
        now: Now,
    ) {
        let Some(Step::Saving { decision, then }) = self.take_step(id) else { return };
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        match result {
            Ok(()) => {
                entry.stage = then.stage(decision.clone());
                self.store_works();
                match then {
                    Then::Push => self.push(id, decision, now),
                    Then::Complete => self.complete(id, decision, now),
                    Then::ReadRequest => self.read_request(id, decision, now),
                }
            }
            Err(StoreFailure::EntryLost(detail)) => self.lose(id, detail),
            Err(failure) => {
                self.rest(id, failure.detail(), now);
                self.store_fails(&failure);
            }
        }
    }

    fn push(&mut self, id: EntryId, decision: Decision, now: Now) {
        let step = Step::Pushing { decision: decision.clone() };
        self.go_on(id, step, Effect::Push { entry: id, decision }, now);
    }

    /// Makes the next call on an entry's way, unless CM went away meanwhile.
    pub(super) fn go_on(&mut self, id: EntryId, step: Step, call: Effect, now: Now) {
        if !self.link.may_go_on(id) {
            self.rest(id, WENT_AWAY, now);
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
        self.heard(id, &result, now);
        if result.is_ok() {
            self.updates_work(now);
        }
        let Some(Step::Pushing { decision }) = self.take_step(id) else { return };
        match result {
            Ok(SetStatusResult::Confirmed(_)) if decision.complete_request => {
                self.save(id, decision, Then::Complete);
            }
            Ok(SetStatusResult::Confirmed(_)) => {
                self.confirmed(id, Outcome::Updated, CONFIRMED, now)
            }
            Ok(SetStatusResult::Unconfirmed) => self.read_after_yes(id, decision, now),
            Err(error) => self.trouble(id, error, now),
        }
    }

    pub(super) fn confirmed(&mut self, id: EntryId, outcome: Outcome, how: &str, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, how.to_owned(), now);
        self.conclude(id, Settlement { http_status: Some(200), ..end }, now);
    }

    fn read_after_yes(&mut self, id: EntryId, decision: Decision, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.said_yes = true;
        let call = Effect::ReadBack { entry: id, record: decision.record };
        self.go_on(id, Step::ReadingBack { decision }, call, now);
    }

    pub(in crate::engine) fn read_back(
        &mut self,
        id: EntryId,
        result: Result<CardRecord, CallError>,
        now: Now,
    ) {
        self.heard(id, &result, now);
        let Some(Step::ReadingBack { decision }) = self.take_step(id) else { return };
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let (after_yes, completing) = (entry.said_yes, matches!(entry.stage, Stage::Completing(_)));
        // A decision of version 0.1 that was made by an id that other cards may carry.
        let unproven = decision.candidate.trust() == IdTrust::Nothing;
        match result {
            Ok(_) if unproven && (completing || decision.complete_request) => {
                self.judge_again(id, now);
            }
            Ok(record) if record.status == decision.new_status && completing => {
                self.read_request(id, decision, now);
            }
            Ok(record) if record.status == decision.new_status && decision.complete_request => {
                self.save(id, decision, Then::ReadRequest);
            }
            Ok(record) if record.status == decision.new_status => {
                self.end(id, decision.outcome(), READ_BACK.to_owned(), now);
            }
            Ok(record) if completing => {
                let status = self.policy.rules.numbers.card_status_text(record.status);
                let why = format!("the record has status {status} by now");
                self.end(id, Outcome::Parked(ParkReason::UnexpectedResponse), why, now);
            }
            Ok(record) if after_yes => {
                let status = self.policy.rules.numbers.card_status_text(record.status);
                let why = format!("CM said yes, but the record still has status {status}");
                self.end(id, Outcome::Parked(ParkReason::UnexpectedResponse), why, now);
            }
            Ok(_) => self.judge_again(id, now),
            Err(error) => self.trouble(id, error, now),
        }
    }

    /// Has the rules decide afresh, unless CM went away meanwhile.
    fn judge_again(&mut self, id: EntryId, now: Now) {
        if self.link.may_go_on(id) {
            self.look_up(id);
        } else {
            self.rest(id, WENT_AWAY, now);
        }
    }
}

const WENT_AWAY: &str = "CM went away";

const CONFIRMED: &str = "CM confirmed the new status";
const ALREADY_SET: &str = "the record has that status already";
const READ_BACK: &str = "the record, read back, has the new status";
const UPDATED_LATE: &str = "the record has the status that was sent before";
