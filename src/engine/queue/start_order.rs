//! In which order entries start, without a look at each of the 100,000 that may wait.
//!
//! A note says that an entry rests until a moment. Notes are made whenever an entry comes to rest, and
//! dropped when they come up and the entry does something else by then, or rests until another moment.
//! An entry that may not start yet, because its card is in hand or an older entry of it has to end
//! first, keeps its note and is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{EntryStep, PendingEntry, Queue};
use crate::domain::EntryId;

/// The entries that rest.
#[derive(Debug, Default)]
pub(super) struct StartOrder {
    /// Those that wait, by the moment until which they do.
    waiting: BTreeSet<(Instant, EntryId)>,
    /// Those that go before them.
    first: BTreeSet<EntryId>,
}

impl StartOrder {
    /// Notes of all that rest.
    pub(super) fn of(entries: &BTreeMap<EntryId, PendingEntry>) -> Self {
        let mut order = Self::default();
        for (id, entry) in entries {
            order.add(*id, entry);
        }
        order
    }

    /// Notes an entry, if it rests.
    pub(super) fn add(&mut self, id: EntryId, entry: &PendingEntry) {
        if entry.step != EntryStep::Idle {
            return;
        }
        if entry.is_first {
            self.first.insert(id);
        } else {
            self.waiting.insert((entry.not_before, id));
        }
    }

    /// The moment at which the next entry may start.
    pub(super) fn earliest(&self, queue: &Queue) -> Option<Instant> {
        let waiting = self.waiting.iter().filter(|(at, id)| queue.is_backing_off(*id, *at));
        let mut startable = waiting.filter(|(_, id)| queue.can_start(*id));
        let waiting = startable.next().map(|(at, _)| *at);
        waiting.into_iter().chain(queue.earliest_first()).min()
    }
}

impl Queue {
    /// An entry has come to rest, or rests until another moment.
    pub(super) fn note(&mut self, id: EntryId) {
        if let Some(entry) = self.waiting.get(&id) {
            self.order.add(id, entry);
        }
    }

    /// The newest of those that go before the others, and may start.
    pub(super) fn first(&self, now: Instant) -> Option<EntryId> {
        let is_due = |id: &EntryId| {
            self.waiting.get(id).is_some_and(|entry| entry.is_first && entry.not_before <= now)
        };
        let mut first = self.order.first.iter().rev().copied().filter(is_due);
        first.find(|id| self.can_start(*id))
    }

    /// When one of those may start.
    pub(super) fn earliest_first(&self) -> Option<Instant> {
        let first = self.order.first.iter().filter(|id| self.can_start(**id));
        first.filter_map(|id| Some(self.waiting.get(id)?.not_before)).min()
    }

    /// The others that may start, the one that has waited longest first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = EntryId> {
        let notes = self.order.waiting.iter().take_while(move |(at, _)| *at <= now);
        notes
            .filter(|(at, id)| self.is_backing_off(*id, *at) && self.can_start(*id))
            .map(|(_, id)| *id)
    }

    /// Drops notes of entries that do something else by now.
    pub(super) fn forget_stale(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.waiting.first().copied() {
            if at > now || self.is_backing_off(id, at) {
                break;
            }
            self.order.waiting.pop_first();
        }
        let waiting = &self.waiting;
        self.order.first.retain(|id| {
            waiting.get(id).is_some_and(|entry| entry.is_first && entry.step == EntryStep::Idle)
        });
    }

    /// Whether the entry waits until this moment.
    fn is_backing_off(&self, id: EntryId, until: Instant) -> bool {
        self.waiting.get(&id).is_some_and(|entry| {
            entry.step == EntryStep::Idle && entry.not_before == until && !entry.is_first
        })
    }

    fn can_start(&self, id: EntryId) -> bool {
        self.waiting.get(&id).is_some_and(|entry| self.may_start(id, entry))
    }
}
