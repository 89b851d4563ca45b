//! How an entry's attempt ends: in rest, or in an outcome on disk.

use super::{EntryStep, MAX_ENTRY_FAILURES, ParkDetails, ParkedEntry};
use crate::domain::{AuditLine, CallError, Entry, EntryId, Outcome, ParkReason, Settlement, Stage};
use crate::engine::{Effect, Engine, Notice, Now, OutboxFailure};

impl Engine {
    /// A call failed: the entry rests, or a person has to look.
    pub(super) fn on_call_error(&mut self, id: EntryId, error: CallError, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let worn_out = entry.entry_failures >= MAX_ENTRY_FAILURES;
        match error {
            CallError::Refused { http_status, detail, correlation_id } => {
                let parking = ParkDetails {
                    reason: ParkReason::Refused,
                    detail,
                    http_status: Some(http_status),
                    correlation_id,
                };
                self.park(id, parking, now);
            }
            CallError::UnexpectedResponse { detail } => {
                self.finish_with(id, Outcome::Parked(ParkReason::UnexpectedResponse), detail, now);
            }
            CallError::Failed { http_status, detail, correlation_id, .. } if worn_out => {
                let parking = ParkDetails {
                    reason: ParkReason::RepeatedFailure,
                    detail,
                    http_status: Some(http_status),
                    correlation_id,
                };
                self.park(id, parking, now);
            }
            CallError::Unavailable { .. } | CallError::Failed { .. } => {
                self.back_off(id, &error.to_string(), now);
            }
        }
    }

    fn park(&mut self, id: EntryId, parking: ParkDetails, now: Now) {
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
    pub(super) fn back_off(&mut self, id: EntryId, error: &str, now: Now) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = EntryStep::Idle;
        entry.not_before = now.mono + self.policy.retry.delay(entry.failures, &mut self.random);
        entry.failures = entry.failures.saturating_add(1);
        entry.last_error = Some(error.to_owned());
        self.queue.in_progress.retain(|_, busy| *busy != id);
        self.queue.note(id);
    }

    pub(super) fn finish_with(&mut self, id: EntryId, outcome: Outcome, detail: String, now: Now) {
        let Some(entry) = self.queue.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, detail, now);
        self.finish(id, end, now);
    }

    /// CM did, or knew, all that was asked, unless a person has to look.
    pub(super) fn finish(&mut self, id: EntryId, end: Settlement, now: Now) {
        if end.outcome.park_reason().is_none() {
            self.queue.success_count += 1;
            let works = end.outcome == Outcome::Updated;
            if works || (self.breaker.is_recovering() && !self.queue.updates_wait(id)) {
                self.on_write_succeeded(now);
            }
        }
        self.settle(id, end);
    }

    pub(super) fn on_write_succeeded(&mut self, now: Now) {
        let notice = self.breaker.on_write_succeeded(now);
        self.effects.extend(notice.map(Effect::Report));
    }

    /// The outcome is decided; nothing but the disk is between it and the audit trail.
    pub(super) fn settle(&mut self, id: EntryId, end: Settlement) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        self.queue.in_progress.insert(entry.draft.card_key(), id);
        entry.step = EntryStep::Settling { end: end.clone() };
        self.effects.push_back(Effect::SettleEntry { entry: id, end });
    }

    pub(in crate::engine) fn settled(
        &mut self,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
        now: Now,
    ) {
        if self.queue.parked.contains_key(&id) {
            self.on_parked_discarded(id, result);
            return;
        }
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        let EntryStep::Settling { end } = &entry.step else { return };
        match result {
            Ok(line) => {
                if let Some(stage) = Stage::parked(end) {
                    let entry = Entry { id, card_event: entry.draft.clone(), stage };
                    self.queue.parked.insert(id, ParkedEntry { entry, takeover: None });
                }
                self.queue.waiting.remove(&id);
                self.queue.in_progress.retain(|_, busy| *busy != id);
                self.publish(line);
                self.on_outbox_recovered();
            }
            Err(OutboxFailure::EntryLost(detail)) => self.drop_lost_entry(id, detail),
            // The person is told so, and may wish it again: nothing is done behind their back.
            Err(failure) if end.outcome == Outcome::Discarded => {
                entry.step = EntryStep::Idle;
                self.queue.in_progress.retain(|_, busy| *busy != id);
                self.queue.note(id);
                self.on_outbox_error(&failure);
            }
            Err(failure) => {
                self.queue.unsaved_outcomes.insert(id);
                entry.not_before =
                    now.mono + self.policy.retry.delay(entry.failures, &mut self.random);
                entry.failures = entry.failures.saturating_add(1);
                self.on_outbox_error(&failure);
            }
        }
    }

    /// Gives up an entry that the outbox lost: what CM's record says now is all there is.
    pub(super) fn drop_lost_entry(&mut self, id: EntryId, detail: String) {
        self.queue.waiting.remove(&id);
        self.queue.parked.remove(&id);
        self.queue.in_progress.retain(|_, busy| *busy != id);
        self.report(Notice::EntryLost { entry: id, detail });
    }

    /// Offers outcomes to the disk again that it did not take.
    pub(super) fn retry_unsaved_outcomes(&mut self, now: Now) {
        let queue = &mut self.queue;
        queue.unsaved_outcomes.retain(|id| {
            let Some(entry) = queue.waiting.get(id) else { return false };
            let EntryStep::Settling { end } = &entry.step else { return false };
            if entry.not_before > now.mono {
                return true;
            }
            self.effects.push_back(Effect::SettleEntry { entry: *id, end: end.clone() });
            false
        });
    }
}
