//! How an entry's attempt ends: in rest, or in an outcome on disk.

use super::{MAX_OWN_TROUBLE, Parked, Parking, Step};
use crate::domain::{AuditLine, CallError, Entry, EntryId, Outcome, ParkReason, Settlement, Stage};
use crate::engine::{Effect, Engine, Notice, Now, StoreFailure};

impl Engine {
    /// A call failed: the entry rests, or a person has to look.
    pub(super) fn trouble(&mut self, id: EntryId, error: CallError, now: Now) {
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
            CallError::UnexpectedResponse { detail } => {
                self.end(id, Outcome::Parked(ParkReason::UnexpectedResponse), detail, now);
            }
            CallError::Failed { http_status, detail, correlation_id, .. } if worn_out => {
                let parking = Parking {
                    reason: ParkReason::RepeatedFailure,
                    detail,
                    http_status: Some(http_status),
                    correlation_id,
                };
                self.park(id, parking, now);
            }
            CallError::Unavailable { .. } | CallError::Failed { .. } => {
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
    pub(super) fn rest(&mut self, id: EntryId, error: &str, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = Step::Idle;
        entry.not_before = now.mono + self.policy.retry.delay(entry.failures, &mut self.random);
        entry.failures = entry.failures.saturating_add(1);
        entry.last_error = Some(error.to_owned());
        self.queue.busy.retain(|_, busy| *busy != id);
        self.queue.note(id);
    }

    pub(super) fn end(&mut self, id: EntryId, outcome: Outcome, detail: String, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, detail, now);
        self.conclude(id, end, now);
    }

    /// CM did, or knew, all that was asked, unless a person has to look.
    pub(super) fn conclude(&mut self, id: EntryId, end: Settlement, now: Now) {
        if end.outcome.park_reason().is_none() {
            self.queue.came_through += 1;
            let works = end.outcome == Outcome::Updated;
            if works || (self.link.is_in_doubt() && !self.queue.updates_wait(id)) {
                self.updates_work(now);
            }
        }
        self.settle(id, end);
    }

    pub(super) fn updates_work(&mut self, now: Now) {
        let notice = self.link.updates_work(now);
        self.effects.extend(notice.map(Effect::Tell));
    }

    /// The outcome is decided; nothing but the disk is between it and the audit trail.
    pub(super) fn settle(&mut self, id: EntryId, end: Settlement) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        self.queue.busy.insert(entry.draft.card_key(), id);
        entry.step = Step::Ending { end: end.clone() };
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
        let Step::Ending { end } = &entry.step else { return };
        match result {
            Ok(line) => {
                if let Some(stage) = Stage::parked(end) {
                    let entry = Entry { id, card_event: entry.draft.clone(), stage };
                    self.queue.parked.insert(id, Parked { entry, claim: None });
                }
                self.queue.waiting.remove(&id);
                self.queue.busy.retain(|_, busy| *busy != id);
                self.publish(line);
                self.store_works();
            }
            Err(StoreFailure::EntryLost(detail)) => self.lose(id, detail),
            // The person is told so, and may wish it again: nothing is done behind their back.
            Err(failure) if end.outcome == Outcome::Discarded => {
                entry.step = Step::Idle;
                self.queue.busy.retain(|_, busy| *busy != id);
                self.queue.note(id);
                self.store_fails(&failure);
            }
            Err(failure) => {
                self.queue.unoffered.insert(id);
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
    pub(super) fn offer_ends(&mut self, now: Now) {
        let queue = &mut self.queue;
        queue.unoffered.retain(|id| {
            let Some(entry) = queue.waiting.get(id) else { return false };
            let Step::Ending { end } = &entry.step else { return false };
            if entry.not_before > now.mono {
                return true;
            }
            self.effects.push_back(Effect::Settle { entry: *id, end: end.clone() });
            false
        });
    }
}
