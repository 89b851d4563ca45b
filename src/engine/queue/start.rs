//! Who starts, and when.

use std::time::Instant;

use super::{Step, Waiting};
use crate::domain::EntryId;
use crate::engine::link::Door;
use crate::engine::{Effect, Engine, Now};

impl Engine {
    /// The next moment at which an entry may start, expire, or be offered to the disk again.
    pub(in crate::engine) fn next_start(&self) -> Option<Instant> {
        // Only where it is asked for: 10,000 entries may wait, and this is asked at every event.
        let earliest = || self.queue.startable().map(|(_, entry)| entry.not_before).min();
        let start = match self.link.door(self.queue.talking()) {
            Door::Open if self.queue.talking() >= self.policy.concurrency.get() => None,
            Door::Open | Door::One => earliest(),
            Door::OneAt(knock) => earliest().map(|at| at.max(knock)),
            Door::Shut => None,
        };
        let unoffered = self.queue.unoffered.iter();
        let ends = unoffered.filter_map(|id| Some(self.queue.waiting.get(id)?.not_before));
        self.next_expiry().into_iter().chain(start).chain(ends).min()
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
        entry.wished = false;
        self.queue.busy.insert(entry.draft.card(), id);
        match entry.stage.sent().cloned() {
            Some(decision) => {
                self.effects.push_back(Effect::ReadBack { entry: id, record: decision.record });
                entry.step = Step::ReadingBack { decision };
            }
            None => self.look_up(id),
        }
    }

    pub(super) fn look_up(&mut self, id: EntryId) {
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = Step::LookingUp;
        let identity = entry.draft.identity.clone();
        self.effects.push_back(Effect::Lookup { entry: id, identity });
    }
}
