//! Cards that another program uses: told once, and read later on.
//!
//! A card of which nobody knows who it is, and one that was identified in part, are both read again
//! when the other program lets go; or after a while, ever less often, should that not be told. An entry
//! of a card that is known in part is with [`super::super::queue`].

use std::time::{Duration, Instant};

use super::super::{Effect, Engine, Now};
use super::{CardState, TrackedReader};
use crate::domain::{
    CardIdentity, EntryId, InsertionId, NotIdentified, NotIdentifiedReason, ReaderName,
};

/// When a card that was busy is tried again; twice as long each time.
const MIN_RETRY: Duration = Duration::from_secs(5);

/// How long it is left alone at most.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// Which part of its pause a card is left alone also when the other program lets go: one that comes
/// and goes all the time must not be answered by as many reads.
const QUIET_PART: u32 = 5;

/// A card that was busy.
#[derive(Debug)]
pub(super) struct InUseRetry {
    insertion: InsertionId,
    /// What was told of it.
    reason: NotIdentified,
    pause: Duration,
    /// When it was tried last.
    tried: Instant,
    /// When it is tried again.
    at: Instant,
    /// Until when the answer is waited for, while a card that is known in part is read again.
    reading: Option<Instant>,
}

impl TrackedReader {
    /// What was told of the card of this insertion when it was busy.
    pub(super) fn reported_in_use(&self, insertion: InsertionId) -> Option<&NotIdentified> {
        self.in_use_retry
            .as_ref()
            .filter(|busy| busy.insertion == insertion)
            .map(|busy| &busy.reason)
    }

    /// What is known of the card that is in the reader and is to be read again.
    fn busy_card(&self) -> Option<&InUseRetry> {
        let insertion = match &self.card {
            CardState::NotIdentified { presence, .. } => presence.insertion,
            CardState::Identified { presence, identity, .. } if identity.partial => {
                presence.insertion
            }
            CardState::None
            | CardState::Mute { .. }
            | CardState::AwaitingAttributes { .. }
            | CardState::Reading { .. }
            | CardState::Identified { .. } => return None,
        };
        self.in_use_retry.as_ref().filter(|busy| busy.insertion == insertion)
    }

    /// When the card that is in the reader is tried again, or given up that is being tried.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.busy_card().map(|busy| busy.reading.unwrap_or(busy.at))
    }

    /// Whether the card of this entry is known in part, and may still be read in full.
    pub(super) fn completes(&self, entry: EntryId) -> bool {
        matches!(&self.card, CardState::Identified { entry: Some(own), .. } if *own == entry)
            && self.busy_card().is_some()
    }

    /// Has the card tried again later, if it was busy; tells whether that was told already.
    pub(super) fn schedule_retry(
        &mut self,
        insertion: InsertionId,
        why: &NotIdentified,
        now: Now,
    ) -> bool {
        let before = self.in_use_retry.take().filter(|busy| busy.insertion == insertion);
        if why.reason != NotIdentifiedReason::InUse {
            return false;
        }
        let pause = before.as_ref().map_or(MIN_RETRY, |busy| (busy.pause * 2).min(MAX_RETRY));
        let (why, at) = (why.clone(), now.mono + pause);
        self.in_use_retry =
            Some(InUseRetry { insertion, reason: why, pause, tried: now.mono, at, reading: None });
        before.is_some()
    }

    /// Has a card read again that was identified in part.
    pub(super) fn complete_later(&mut self, insertion: InsertionId, now: Now) {
        let detail = "another program uses the card, which could only be read in part".to_owned();
        self.schedule_retry(
            insertion,
            &NotIdentified::new(NotIdentifiedReason::InUse, detail),
            now,
        );
    }
}

impl Engine {
    /// Has cards read again that were busy a while ago.
    pub(in crate::engine) fn retry_in_use_cards(&mut self, now: Now) {
        let is_due = |slot: &TrackedReader| slot.retry_at().is_some_and(|at| at <= now.mono);
        for reader in self.tracker.readers_where(is_due) {
            match self.tracker.readers.get(&reader).map(|slot| &slot.card) {
                Some(CardState::NotIdentified { presence, .. }) => {
                    let presence = presence.clone();
                    self.read(presence, now, now);
                }
                Some(CardState::Identified { .. }) => self.read_rest(&reader, now),
                _ => {}
            }
        }
    }

    /// Reads a card again that is known in part, or gives that up for a while.
    fn read_rest(&mut self, reader: &ReaderName, now: Now) {
        let deadline = now.mono + self.policy.probe_deadline;
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let CardState::Identified { presence, .. } = &slot.card else { return };
        let presence = presence.clone();
        let Some(busy) = &mut slot.in_use_retry else { return };
        if busy.reading.is_some() {
            slot.complete_later(presence.insertion, now);
            self.effects.push_back(Effect::AbandonProbe { reader: reader.clone() });
        } else if NotIdentified::skipped_by_config(
            &slot.place,
            &self.policy.skip_atr,
            &presence.atr,
        )
        .is_some()
        {
            slot.in_use_retry = None;
        } else {
            busy.reading = Some(deadline);
            let (reader, atr) = (reader.clone(), presence.atr);
            let insertion = presence.insertion;
            self.effects.push_back(Effect::StartProbe { reader, insertion, atr, only_free: true });
        }
    }

    /// No other program uses the card any more.
    pub(in crate::engine) fn on_card_released(&mut self, reader: &ReaderName, now: Now) {
        if let Some(busy) =
            self.tracker.readers.get_mut(reader).and_then(|slot| slot.in_use_retry.as_mut())
        {
            let soonest = (busy.tried + busy.pause / QUIET_PART).max(now.mono);
            busy.at = busy.at.min(soonest);
        }
    }

    /// The answer of a card that is known in part and was read again; false where it is none.
    pub(super) fn read_again(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        result: &Result<CardIdentity, NotIdentified>,
        now: Now,
    ) -> bool {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return false };
        let is_read = slot.busy_card().is_some_and(|busy| busy.reading.is_some());
        if !is_read || slot.card.insertion() != Some(insertion) {
            return false;
        }
        match result {
            Ok(identity) if !identity.partial => self.on_fully_identified(reader, identity, now),
            Ok(_) | Err(_) => slot.complete_later(insertion, now),
        }
        true
    }

    /// It is known in full who a card is that was known in part. The entry that it made, unless CM was
    /// asked for something by then, gives way to one of the same stay that has all ids.
    pub(super) fn on_fully_identified(
        &mut self,
        reader: &ReaderName,
        whole: &CardIdentity,
        now: Now,
    ) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        slot.in_use_retry = None;
        let CardState::Identified { identity, entry, stay, .. } = &mut slot.card else { return };
        *identity = whole.clone();
        let (entry, stay) = (*entry, *stay);
        match entry {
            Some(entry) => self.renew(stay, entry, whole, now),
            None => self.append_queue.complete(stay, whole),
        }
    }
}
