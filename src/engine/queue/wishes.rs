//! What a person may wish of an entry.

use super::{Claim, Step, Waiting};
use crate::domain::{AuditLine, EntryId, Outcome};
use crate::engine::{Effect, Engine, Now, Refusal, StoreFailure, Taken};

impl Engine {
    /// Tries an entry at once; a parked one goes back into the queue, on disk first.
    pub fn retry(&mut self, id: EntryId, by: &str, now: Now) -> Result<Taken, Refusal> {
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            if parked.claim.is_some() {
                return Err(Refusal::Busy);
            }
            parked.claim = Some(Claim::Wish);
            let act = AuditLine::operator_action(
                &self.policy.station,
                &parked.entry,
                "retried",
                by,
                now.wall,
            );
            self.effects.push_back(Effect::Unpark { entry: id, act });
            return Ok(Taken::OnceOnDisk);
        }
        let entry = self.queue.waiting.get_mut(&id).ok_or(Refusal::NoSuchEntry)?;
        entry.not_before = now.mono;
        entry.is_first = true;
        self.queue.incomplete.remove(&id);
        self.queue.note(id);
        self.link.knock_now(now);
        self.advance(now);
        Ok(Taken::Now)
    }

    /// Removes an entry for good.
    pub fn discard(&mut self, id: EntryId, by: &str, now: Now) -> Result<(), Refusal> {
        let why = format!("discarded by {by}");
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            if parked.claim.is_some() {
                return Err(Refusal::Busy);
            }
            parked.claim = Some(Claim::Wish);
            let waiting = Waiting::from_disk(parked.entry.clone(), None, now);
            let mut end = waiting.settlement(Outcome::Discarded, why, now);
            end.by = Some(by.to_owned());
            self.effects.push_back(Effect::Settle { entry: id, end });
            return Ok(());
        }
        let entry = self.queue.waiting.get(&id).ok_or(Refusal::NoSuchEntry)?;
        if entry.step != Step::Idle
            || entry.superseded_by.is_some()
            || self.queue.busy.contains_key(&entry.draft.card_key())
        {
            return Err(Refusal::Busy);
        }
        let mut end = entry.settlement(Outcome::Discarded, why, now);
        end.by = Some(by.to_owned());
        self.settle(id, end);
        Ok(())
    }

    /// A parked entry that a person discarded is gone from the disk, or not.
    pub(super) fn ended_parked(&mut self, id: EntryId, result: Result<AuditLine, StoreFailure>) {
        match result {
            Ok(line) => {
                self.queue.parked.remove(&id);
                self.publish(line);
                self.store_works();
            }
            Err(failure) => self.leave_parked(id, failure),
        }
    }

    /// A parked entry that a person took up again waits on the disk too, or not.
    pub(in crate::engine) fn unparked(
        &mut self,
        id: EntryId,
        result: Result<AuditLine, StoreFailure>,
        now: Now,
    ) {
        match result {
            Ok(line) => {
                let Some(parked) = self.queue.parked.remove(&id) else { return };
                let mut entry = Waiting::from_disk(parked.entry, None, now);
                entry.since = now.mono;
                entry.through_then = self.queue.came_through;
                self.queue.wait(id, entry);
                self.publish(line);
                self.store_works();
                self.link.knock_now(now);
            }
            Err(failure) => self.leave_parked(id, failure),
        }
    }

    fn leave_parked(&mut self, id: EntryId, failure: StoreFailure) {
        if let StoreFailure::EntryLost(detail) = failure {
            self.lose(id, detail);
            return;
        }
        if let Some(parked) = self.queue.parked.get_mut(&id) {
            parked.claim = None;
        }
        self.store_fails(&failure);
    }
}
