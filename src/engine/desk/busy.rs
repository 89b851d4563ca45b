//! Cards that another program had to itself: told once, and read later on.

use std::time::{Duration, Instant};

use super::super::{Engine, Now};
use super::{Card, Slot};
use crate::domain::{InsertionId, NotIdentified, NotIdentifiedReason};

/// When a card that was busy is tried again; twice as long each time.
const FIRST: Duration = Duration::from_secs(5);

/// How long it is left alone at most.
const MOST: Duration = Duration::from_mins(1);

/// A card that was busy.
#[derive(Debug)]
pub(super) struct Busy {
    insertion: InsertionId,
    /// What was told of it.
    why: NotIdentified,
    pause: Duration,
    /// When it is tried again.
    at: Instant,
}

impl Slot {
    /// What was told of the card of this insertion when it was busy.
    pub(super) fn told_busy(&self, insertion: InsertionId) -> Option<&NotIdentified> {
        self.busy.as_ref().filter(|busy| busy.insertion == insertion).map(|busy| &busy.why)
    }

    /// When the card that is in the reader is tried again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        let Card::NotIdentified { presence, .. } = &self.card else { return None };
        self.busy.as_ref().filter(|busy| busy.insertion == presence.insertion).map(|busy| busy.at)
    }

    /// Has the card tried again later, if it was busy; tells whether that was told already.
    pub(super) fn try_later(
        &mut self,
        insertion: InsertionId,
        why: &NotIdentified,
        now: Now,
    ) -> bool {
        let before = self.busy.take().filter(|busy| busy.insertion == insertion);
        if why.reason != NotIdentifiedReason::Busy {
            return false;
        }
        let pause = before.as_ref().map_or(FIRST, |busy| (busy.pause * 2).min(MOST));
        self.busy = Some(Busy { insertion, why: why.clone(), pause, at: now.mono + pause });
        before.is_some()
    }
}

impl Engine {
    /// Has cards read again that were busy a while ago.
    pub(in crate::engine) fn read_busy_again(&mut self, now: Now) {
        let is_due = |slot: &Slot| slot.again_at().is_some_and(|at| at <= now.mono);
        for reader in self.desk.readers_where(is_due) {
            let slot = self.desk.readers.get(&reader);
            if let Some(Card::NotIdentified { presence, .. }) = slot.map(|slot| &slot.card) {
                let presence = presence.clone();
                self.read(presence, now, now);
            }
        }
    }
}
