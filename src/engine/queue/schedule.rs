//! Who starts, and when.

use std::cmp::Reverse;
use std::time::Instant;

use super::EntryStep;
use crate::domain::EntryId;
use crate::engine::circuit_breaker::Admission;
use crate::engine::{Effect, Engine, Now};

impl Engine {
    /// The next moment at which an entry may start, expire, or be offered to the disk again.
    pub(in crate::engine) fn next_start(&self) -> Option<Instant> {
        let earliest = || self.queue.next_idle();
        let start = match self.breaker.admission(self.queue.calls_in_flight()) {
            Admission::Unlimited => self.next_turn(),
            Admission::Single => earliest(),
            Admission::SingleAt(knock) => earliest().map(|at| at.max(knock)),
            Admission::Blocked => None,
        };
        let unoffered = self.queue.unsaved_outcomes.iter();
        let ends = unoffered.filter_map(|id| Some(self.queue.waiting.get(id)?.not_before));
        self.next_expiry().into_iter().chain(start).chain(ends).min()
    }

    pub(in crate::engine) fn start_entries(&mut self, now: Now) {
        self.retry_unsaved_outcomes(now);
        self.expire(now);
        while let Some(entry) = self.next_entry(now) {
            self.breaker.start_trial(entry, now);
            self.start(entry);
        }
    }

    /// The next moment at which an entry may start while CM is there.
    fn next_turn(&self) -> Option<Instant> {
        let (all, of_backlog) = self.free();
        let first = (all > 0).then(|| self.queue.earliest_first()).flatten();
        let waiting = (of_backlog > 0).then(|| self.queue.next_idle()).flatten();
        first.into_iter().chain(waiting).min()
    }

    /// How many entries may start, and how many of those that are no new insertions: one place is kept
    /// for a card that comes now, so that it waits for nobody's call to end.
    fn free(&self) -> (usize, usize) {
        let places = self.policy.concurrency.get();
        let free = places.saturating_sub(self.queue.calls_in_flight());
        (free, if places > 1 { free.saturating_sub(1) } else { free })
    }

    fn next_entry(&mut self, now: Now) -> Option<EntryId> {
        self.queue.forget_stale(now.mono);
        let talking = self.queue.calls_in_flight();
        match self.breaker.admission(talking) {
            Admission::Unlimited => {
                let (all, of_backlog) = self.free();
                let first = (all > 0).then(|| self.queue.first(now.mono)).flatten();
                return first.or_else(|| {
                    (of_backlog > 0).then(|| self.queue.due(now.mono).next()).flatten()
                });
            }
            Admission::Single => {}
            Admission::SingleAt(knock) if knock <= now.mono => {}
            Admission::SingleAt(_) | Admission::Blocked => return None,
        }
        // Of those who could knock, the one that failed least often does, and of these a new insertion: a
        // card that is itself the trouble must not keep CM looking away for the others.
        let turn = |id: &EntryId| {
            let entry = self.queue.waiting.get(id)?;
            let newest = entry.is_first.then_some(Reverse(*id));
            Some((entry.failures, newest.is_none(), newest, entry.not_before, *id))
        };
        self.queue.due(now.mono).chain(self.queue.first(now.mono)).min_by_key(turn)
    }

    fn start(&mut self, id: EntryId) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.attempts += 1;
        entry.answered = false;
        entry.is_first = false;
        self.queue.in_progress.insert(entry.draft.card_key(), id);
        match entry.stage.sent().cloned() {
            Some(decision) => {
                self.effects.push_back(Effect::ReadRecord { entry: id, record: decision.record });
                entry.step = EntryStep::ReadingRecord { decision };
            }
            None => self.look_up(id),
        }
    }

    pub(super) fn look_up(&mut self, id: EntryId) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = EntryStep::LookingUp;
        let identity = entry.draft.identity.clone();
        self.effects.push_back(Effect::Lookup { entry: id, identity });
    }
}
