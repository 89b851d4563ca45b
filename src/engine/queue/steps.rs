//! The steps of an entry.

use std::time::Instant;

use super::{MAX_OWN_TROUBLE, Parked, Parking, Step, Waiting};
use crate::domain::{
    AuditLine, CallError, Decision, Entry, EntryId, Found, Outcome, ParkReason, PutAnswer, Record,
    Settlement, Stage,
};
use crate::engine::link::Door;
use crate::engine::{Effect, Engine, Notice, Now, StoreFailure};
use crate::rules::{Facts, Verdict, decide};

impl Engine {
    /// The next moment at which an entry may start, expire, or be offered to the disk again.
    pub(in crate::engine) fn next_start(&self) -> Option<Instant> {
        let max_age = self.policy.max_age;
        let startable = || self.queue.startable();
        let expiry = startable().filter_map(|(_, entry)| entry.since.checked_add(max_age)).min();
        let earliest = startable().map(|(_, entry)| entry.not_before).min();
        let start = match self.link.door(self.queue.talking()) {
            Door::Open if self.queue.talking() >= self.policy.concurrency.get() => None,
            Door::Open | Door::One => earliest,
            Door::OneAt(knock) => earliest.map(|at| at.max(knock)),
            Door::Shut => None,
        };
        let ends = self.queue.waiting.values().filter_map(|entry| {
            matches!(entry.step, Step::Ending { offered: false, .. }).then_some(entry.not_before)
        });
        expiry.into_iter().chain(start).chain(ends).min()
    }

    pub(in crate::engine) fn start_entries(&mut self, now: Now) {
        self.offer_ends(now);
        self.expire(now);
        while let Some(entry) = self.next_entry(now) {
            self.link.knocks(entry, now);
            self.start(entry);
        }
    }

    fn next_entry(&self, now: Now) -> Option<EntryId> {
        let talking = self.queue.talking();
        match self.link.door(talking) {
            Door::Open if talking < self.policy.concurrency.get() => {}
            Door::One => {}
            Door::OneAt(knock) if knock <= now.mono => {}
            Door::Open | Door::OneAt(_) | Door::Shut => return None,
        }
        self.queue
            .startable()
            .filter(|(_, entry)| entry.not_before <= now.mono)
            .min_by_key(|(id, entry)| (self.turn(entry), entry.not_before, *id))
            .map(|(id, _)| id)
    }

    /// Of those who could knock, the one that failed least often does: a card that is itself the
    /// trouble must not keep CM looking away for the others.
    const fn turn(&self, entry: &Waiting) -> u32 {
        if self.link.is_up() { 0 } else { entry.failures }
    }

    fn start(&mut self, id: EntryId) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.attempts += 1;
        entry.heard = false;
        self.queue.busy.insert(entry.draft.card(), id);
        match entry.sent.clone() {
            Some(decision) => {
                self.effects.push_back(Effect::ReadBack { entry: id, record: decision.record });
                entry.step = Step::ReadingBack { decision };
            }
            None => self.look_up(id),
        }
    }

    fn look_up(&mut self, id: EntryId) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = Step::LookingUp;
        let identity = entry.draft.identity.clone();
        self.effects.push_back(Effect::Lookup { entry: id, identity });
    }

    /// Takes a step out of an entry that is still current; else frees the card that an answer
    /// nobody waits for kept busy.
    fn take_step(&mut self, id: EntryId) -> Option<Step> {
        match self.queue.waiting.get_mut(&id) {
            Some(entry) if entry.superseded_by.is_none() => {
                Some(std::mem::replace(&mut entry.step, Step::Idle))
            }
            superseded => {
                if let Some(entry) = superseded {
                    entry.sent = entry.unconfirmed();
                    entry.step = Step::Idle;
                }
                self.queue.busy.retain(|_, busy| *busy != id);
                self.stale += 1;
                None
            }
        }
    }

    /// Notes what an answer, whoever waits for it, says about CM.
    fn heard<T>(&mut self, id: EntryId, result: &Result<T, CallError>, now: Now) {
        let notice = match result {
            Ok(_) | Err(CallError::Refused { .. } | CallError::WrongAnswer { .. }) => {
                self.link.answered(now)
            }
            Err(error @ CallError::Away { .. }) => {
                self.link.away(id, error, self.policy.retry, &mut self.random, now)
            }
            Err(error @ CallError::Failed { .. }) => self.heard_failure(id, error, now),
        };
        if result.is_ok()
            && let Some(entry) = self.queue.waiting.get_mut(&id)
        {
            entry.heard = true;
        }
        if notice == Some(Notice::CmBack) {
            self.queue.release(now);
        }
        self.effects.extend(notice.map(Effect::Tell));
    }

    /// CM failed on one call: its own trouble where CM is there and others came through since it
    /// last failed, else a sign that CM is away. That CM answers what it is asked about the same
    /// card is no proof: where it takes no update at all, nobody comes through.
    fn heard_failure(&mut self, id: EntryId, error: &CallError, now: Now) -> Option<Notice> {
        let came_through = self.queue.came_through;
        let is_up = self.link.is_up();
        match self.queue.waiting.get_mut(&id) {
            Some(entry) => {
                let then = std::mem::replace(&mut entry.through_then, came_through);
                if is_up && came_through > then {
                    entry.own_trouble += 1;
                    return None;
                }
            }
            // The newer entry of the card finds out.
            None if is_up => return None,
            None => {}
        }
        self.link.away(id, error, self.policy.retry, &mut self.random, now)
    }

    pub(in crate::engine) fn looked_up(
        &mut self,
        id: EntryId,
        result: Result<Found, CallError>,
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

    fn judge(&mut self, id: EntryId, found: &Found, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let draft = &entry.draft;
        let facts = Facts { role: &draft.role, atr: &draft.atr, identity: &draft.identity, found };
        match decide(&self.policy.rules, &facts) {
            Verdict::Set { decision, warning } => {
                entry.step = Step::Saving { decision: decision.clone() };
                let warning = warning.map(|text| Effect::Tell(Notice::Warning { entry: id, text }));
                self.effects.extend(warning);
                self.effects.push_back(Effect::Save { entry: id, stage: Stage::Sent(decision) });
            }
            Verdict::AlreadySet { decision } => {
                let ours = entry
                    .sent
                    .as_ref()
                    .is_some_and(|sent| sent.record == decision.record && sent.to == decision.to);
                if ours {
                    self.end(id, Outcome::Updated, UPDATED_LATE.to_owned(), now);
                } else {
                    entry.sent = Some(decision);
                    self.end(id, Outcome::AlreadySet, ALREADY_SET.to_owned(), now);
                }
            }
            Verdict::NothingToDo { why } => self.end(id, Outcome::NothingToDo, why, now),
            Verdict::UnknownCard { why } => self.end(id, Outcome::UnknownCard, why, now),
            Verdict::Park { reason, why } => self.end(id, Outcome::Parked(reason), why, now),
        }
    }

    pub(in crate::engine) fn saved(
        &mut self,
        id: EntryId,
        result: Result<(), StoreFailure>,
        now: Now,
    ) {
        let Some(Step::Saving { decision }) = self.take_step(id) else { return };
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        match result {
            Ok(()) => {
                entry.sent = Some(decision.clone());
                if !self.link.may_go_on(id) {
                    self.rest(id, WENT_AWAY, now);
                    return;
                }
                entry.step = Step::Pushing { decision: decision.clone() };
                self.store_works();
                self.effects.push_back(Effect::Push { entry: id, decision });
            }
            Err(StoreFailure::EntryLost(detail)) => self.lose(id, detail),
            Err(failure) => {
                self.rest(id, failure.detail(), now);
                self.store_fails(&failure);
            }
        }
    }

    pub(in crate::engine) fn pushed(
        &mut self,
        id: EntryId,
        result: Result<PutAnswer, CallError>,
        now: Now,
    ) {
        self.heard(id, &result, now);
        let Some(Step::Pushing { decision }) = self.take_step(id) else { return };
        match result {
            Ok(PutAnswer::Confirmed(_)) => self.confirmed(id, now),
            Ok(PutAnswer::Unconfirmed) => self.read_after_yes(id, decision, now),
            Err(error) => self.trouble(id, error, now),
        }
    }

    fn confirmed(&mut self, id: EntryId, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(Outcome::Updated, CONFIRMED.to_owned(), now);
        self.conclude(id, Settlement { http_status: Some(200), ..end });
    }

    fn read_after_yes(&mut self, id: EntryId, decision: Decision, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.said_yes = true;
        if !self.link.may_go_on(id) {
            self.rest(id, WENT_AWAY, now);
            return;
        }
        let record = decision.record;
        entry.step = Step::ReadingBack { decision };
        self.effects.push_back(Effect::ReadBack { entry: id, record });
    }

    pub(in crate::engine) fn read_back(
        &mut self,
        id: EntryId,
        result: Result<Record, CallError>,
        now: Now,
    ) {
        self.heard(id, &result, now);
        let Some(Step::ReadingBack { decision }) = self.take_step(id) else { return };
        let after_yes = self.queue.waiting.get(&id).is_some_and(|entry| entry.said_yes);
        match result {
            Ok(record) if record.status == decision.to => {
                self.end(id, Outcome::Updated, READ_BACK.to_owned(), now);
            }
            Ok(record) if after_yes => {
                let status = self.policy.rules.numbers.card_status_text(record.status);
                let why = format!("CM said yes, but the record still has status {status}");
                self.end(id, Outcome::Parked(ParkReason::WrongAnswer), why, now);
            }
            Ok(_) if self.link.may_go_on(id) => self.look_up(id),
            Ok(_) => self.rest(id, WENT_AWAY, now),
            Err(error) => self.trouble(id, error, now),
        }
    }

    /// A call failed: the entry rests, or a person has to look.
    fn trouble(&mut self, id: EntryId, error: CallError, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let worn_out = entry.own_trouble >= MAX_OWN_TROUBLE;
        match error {
            CallError::Refused { http_status, detail, correlation_id } => {
                let parking = Parking {
                    reason: ParkReason::Refused,
                    detail,
                    http_status: Some(http_status),
                    correlation_id,
                };
                self.park(id, parking, now);
            }
            CallError::WrongAnswer { detail } => {
                self.end(id, Outcome::Parked(ParkReason::WrongAnswer), detail, now);
            }
            CallError::Failed { http_status, detail, correlation_id } if worn_out => {
                let parking = Parking {
                    reason: ParkReason::Rejected,
                    detail,
                    http_status: Some(http_status),
                    correlation_id,
                };
                self.park(id, parking, now);
            }
            CallError::Away { .. } | CallError::Failed { .. } => {
                self.rest(id, &error.to_string(), now);
            }
        }
    }

    fn park(&mut self, id: EntryId, parking: Parking, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(Outcome::Parked(parking.reason), parking.detail, now);
        let end = Settlement {
            http_status: parking.http_status,
            correlation_id: parking.correlation_id,
            ..end
        };
        self.settle(id, end);
    }

    /// Lets an entry wait until it is tried again.
    fn rest(&mut self, id: EntryId, error: &str, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = Step::Idle;
        entry.not_before = now.mono + self.policy.retry.delay(entry.failures, &mut self.random);
        entry.failures = entry.failures.saturating_add(1);
        entry.last_error = Some(error.to_owned());
        self.queue.busy.retain(|_, busy| *busy != id);
    }

    fn end(&mut self, id: EntryId, outcome: Outcome, detail: String, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, detail, now);
        self.conclude(id, end);
    }

    /// CM did, or knew, all that was asked, unless a person has to look.
    fn conclude(&mut self, id: EntryId, end: Settlement) {
        if end.outcome.park_reason().is_none() {
            self.queue.came_through += 1;
        }
        self.settle(id, end);
    }

    /// The outcome is decided; nothing but the disk is between it and the audit trail.
    pub(super) fn settle(&mut self, id: EntryId, end: Settlement) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        self.queue.busy.insert(entry.draft.card(), id);
        entry.step = Step::Ending { end: end.clone(), offered: true };
        self.effects.push_back(Effect::Settle { entry: id, end });
    }

    pub(in crate::engine) fn settled(
        &mut self,
        id: EntryId,
        result: Result<AuditLine, StoreFailure>,
        now: Now,
    ) {
        if self.queue.parked.contains_key(&id) {
            self.ended_parked(id, result);
            return;
        }
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let Step::Ending { end, offered } = &mut entry.step else { return };
        match result {
            Ok(line) => {
                if let Some(reason) = end.outcome.park_reason() {
                    let stage = Stage::Parked { reason, detail: end.detail.clone() };
                    let entry = Entry { id, draft: entry.draft.clone(), stage };
                    self.queue.parked.insert(id, Parked { entry, claim: None });
                }
                self.queue.waiting.remove(&id);
                self.queue.busy.retain(|_, busy| *busy != id);
                self.publish(line);
                self.store_works();
            }
            Err(StoreFailure::EntryLost(detail)) => self.lose(id, detail),
            Err(failure) => {
                *offered = false;
                entry.not_before =
                    now.mono + self.policy.retry.delay(entry.failures, &mut self.random);
                entry.failures = entry.failures.saturating_add(1);
                self.store_fails(&failure);
            }
        }
    }

    /// Gives up an entry that the outbox lost: what CM's record says now is all there is.
    pub(super) fn lose(&mut self, id: EntryId, detail: String) {
        self.queue.waiting.remove(&id);
        self.queue.parked.remove(&id);
        self.queue.busy.retain(|_, busy| *busy != id);
        self.tell(Notice::EntryLost { entry: id, detail });
    }

    /// Offers outcomes to the disk again that it did not take.
    fn offer_ends(&mut self, now: Now) {
        for (id, entry) in &mut self.queue.waiting {
            if let Step::Ending { end, offered: offered @ false } = &mut entry.step
                && entry.not_before <= now.mono
            {
                *offered = true;
                self.effects.push_back(Effect::Settle { entry: *id, end: end.clone() });
            }
        }
    }

    /// Parks what has waited too long.
    fn expire(&mut self, now: Now) {
        let max_age = self.policy.max_age;
        let expired: Vec<_> = self
            .queue
            .startable()
            .filter(|(_, entry)| now.mono.saturating_duration_since(entry.since) >= max_age)
            .map(|(id, entry)| (id, entry.last_error.clone()))
            .collect();
        for (id, last_error) in expired {
            let why = last_error.unwrap_or_else(|| "it was never tried".to_owned());
            let detail = format!("waited longer than outbox.max_age; last: {why}");
            self.end(id, Outcome::Parked(ParkReason::Expired), detail, now);
        }
    }
}

const WENT_AWAY: &str = "CM went away";

const CONFIRMED: &str = "CM confirmed the new status";
const ALREADY_SET: &str = "the record has that status already";
const READ_BACK: &str = "the record, read back, has the new status";
const UPDATED_LATE: &str = "the record has the status that was sent before";
