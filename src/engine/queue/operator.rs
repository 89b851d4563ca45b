//! What a person may wish of an entry.

use super::{EntryStep, PendingEntry, Takeover};
use crate::domain::{AuditLine, EntryId, Outcome};
use crate::engine::{ActionError, Effect, Engine, Now, OutboxFailure, RetryAccepted};

impl Engine {
    /// Tries an entry at once; a parked one goes back into the queue, on disk first.
    pub fn retry(&mut self, id: EntryId, by: &str, now: Now) -> Result<RetryAccepted, ActionError> {
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            if parked.takeover.is_some() {
                return Err(ActionError::InProgress);
            }
            parked.takeover = Some(Takeover::Operator);
            let act = AuditLine::operator_action(
                &self.policy.station,
                &parked.entry,
                "retried",
                by,
                now.wall,
            );
            self.effects.push_back(Effect::UnparkEntry { entry: id, act });
            return Ok(RetryAccepted::OnceStored);
        }
        let entry = self.queue.waiting.get_mut(&id).ok_or(ActionError::NoSuchEntry)?;
        entry.not_before = now.mono;
        entry.is_first = true;
        self.queue.incomplete.remove(&id);
        self.queue.note(id);
        self.breaker.force_trial(now);
        self.advance(now);
        Ok(RetryAccepted::Now)
    }

    /// Removes an entry for good.
    pub fn discard(&mut self, id: EntryId, by: &str, now: Now) -> Result<(), ActionError> {
        let why = format!("discarded by {by}");
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            if parked.takeover.is_some() {
                return Err(ActionError::InProgress);
            }
            parked.takeover = Some(Takeover::Operator);
            let waiting = PendingEntry::from_disk(parked.entry.clone(), None, now);
            let mut end = waiting.settlement(Outcome::Discarded, why, now);
            end.by = Some(by.to_owned());
            self.effects.push_back(Effect::SettleEntry { entry: id, end });
            return Ok(());
        }
        let entry = self.queue.waiting.get(&id).ok_or(ActionError::NoSuchEntry)?;
        if entry.step != EntryStep::Idle
            || entry.superseded_by.is_some()
            || self.queue.in_progress.contains_key(&entry.draft.card_key())
        {
            return Err(ActionError::InProgress);
        }
        let mut end = entry.settlement(Outcome::Discarded, why, now);
        end.by = Some(by.to_owned());
        self.settle(id, end);
        Ok(())
    }

    /// A parked entry that a person discarded is gone from the disk, or not.
    pub(super) fn on_parked_discarded(
        &mut self,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    ) {
        match result {
            Ok(line) => {
                self.queue.parked.remove(&id);
                self.publish(line);
                self.on_outbox_recovered();
            }
            Err(failure) => self.keep_parked(id, failure),
        }
    }

    /// A parked entry that a person took up again waits on the disk too, or not.
    pub(in crate::engine) fn unparked(
        &mut self,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
        now: Now,
    ) {
        match result {
            Ok(line) => {
                let Some(parked) = self.queue.parked.remove(&id) else { return };
                let mut entry = PendingEntry::from_disk(parked.entry, None, now);
                entry.since = now.mono;
                entry.successes_at_failure = self.queue.success_count;
                self.queue.wait(id, entry);
                self.publish(line);
                self.on_outbox_recovered();
                self.breaker.force_trial(now);
            }
            Err(failure) => self.keep_parked(id, failure),
        }
    }

    fn keep_parked(&mut self, id: EntryId, failure: OutboxFailure) {
        if let OutboxFailure::EntryLost(detail) = failure {
            self.drop_lost_entry(id, detail);
            return;
        }
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            parked.takeover = None;
        }
        self.on_outbox_error(&failure);
    }
}
