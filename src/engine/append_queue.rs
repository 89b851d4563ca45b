//! Identified cards on their way to the disk.
//!
//! A card that the disk refuses is kept in memory and offered again, so that a full disk that gets
//! room again loses nothing; the number of cards kept so is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::domain::{
    CardEvent, CardIdentity, EntryId, InsertionId, PcscdInstance, ReaderName, Trigger,
};

/// More than a day's work of a station. What does not fit is dropped, and logged as an error.
const MAX_PENDING: usize = 256;

/// An insertion, by its beginning or by its end.
pub(super) type CardEventKey = (InsertionId, Trigger);

#[derive(Debug, Default)]
pub(super) struct AppendQueue(BTreeMap<CardEventKey, PendingAppend>);

/// A card that came or went, and what becomes of it as an entry.
#[derive(Debug, Clone)]
pub(super) struct PendingAppend {
    pub(super) card_event: CardEvent,
    /// What the reader was watched through when the card was read.
    pub(super) instance: Option<PcscdInstance>,
    /// When it came or went, on the monotonic clock.
    pub(super) seen_at: Instant,
    /// The entry of the same insertion that it replaces, since the card is known in full.
    pub(super) replaces_partial: Option<EntryId>,
    /// Whether the card is out of the reader: its insertion is over before it is on disk.
    pub(super) card_removed: bool,
    /// What became known of the card in full after the disk was offered a part.
    pub(super) full_identity: Option<CardIdentity>,
    /// When to offer it to the disk; `None` while that is under way.
    due: Option<Instant>,
    failures: u32,
}

impl PendingAppend {
    pub(super) fn new(
        card_event: CardEvent,
        instance: Option<PcscdInstance>,
        seen_at: Instant,
    ) -> Self {
        Self {
            card_removed: card_event.trigger == Trigger::Removed,
            card_event,
            instance,
            seen_at,
            replaces_partial: None,
            full_identity: None,
            due: Some(seen_at),
            failures: 0,
        }
    }
}

impl AppendQueue {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due().map(|(_, at)| at).min()
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// What is to be offered to the disk, and when: of each card the oldest, and nothing while that
    /// is in flight. One card's entries never overtake each other.
    fn due(&self) -> impl Iterator<Item = (CardEventKey, Instant)> {
        let mut cards = BTreeSet::new();
        self.0.iter().filter_map(move |(key, pending)| {
            let is_oldest = cards.insert(pending.card_event.card_key());
            pending.due.filter(|_| is_oldest).map(|at| (*key, at))
        })
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = &ReaderName> {
        self.0.values().map(|pending| &pending.card_event.reader)
    }

    /// Gives the card back where there is no room.
    pub(super) fn push(
        &mut self,
        insertion: InsertionId,
        append: PendingAppend,
    ) -> Result<(), Box<CardEvent>> {
        if self.0.len() >= MAX_PENDING {
            return Err(Box::new(append.card_event));
        }
        self.0.insert((insertion, append.card_event.trigger), append);
        Ok(())
    }

    /// The next card that is due, which is in flight from now on.
    pub(super) fn start_due(&mut self, now: Instant) -> Option<(InsertionId, PendingAppend)> {
        let (key, _) = self.due().find(|(_, at)| *at <= now)?;
        let pending = self.0.get_mut(&key)?;
        pending.due = None;
        Some((key.0, pending.clone()))
    }

    /// The card is on disk.
    pub(super) fn take_appended(&mut self, key: CardEventKey) -> Option<PendingAppend> {
        self.0.remove(&key)
    }

    /// The disk refused the card.
    pub(super) fn retry(&mut self, key: CardEventKey, next_try: impl FnOnce(u32) -> Instant) {
        if let Some(pending) = self.0.get_mut(&key) {
            pending.due = Some(next_try(pending.failures));
            pending.failures += 1;
        }
    }

    /// The card of an insertion is known in full now.
    pub(super) fn complete(&mut self, insertion: InsertionId, identity: CardIdentity) {
        match self.0.get_mut(&(insertion, Trigger::Inserted)) {
            Some(pending) if pending.due.is_some() => pending.card_event.identity = identity,
            Some(pending) => pending.full_identity = Some(identity),
            None => {}
        }
    }

    /// The cards of this reader are out of it. Returns whether one that was in it is in flight.
    pub(super) fn mark_removed(&mut self, reader: &ReaderName) -> bool {
        let mut in_flight = false;
        for pending in self.0.values_mut() {
            if pending.card_event.reader == *reader && !pending.card_removed {
                pending.card_removed = true;
                in_flight |= pending.due.is_none();
            }
        }
        in_flight
    }
}
