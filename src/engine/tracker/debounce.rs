//! Cards that flicker: gone and back within `[[reader]] settle`.
//!
//! A contactless card at the edge of the field leaves and comes many times in one tap. In a reader
//! with a settle time a departure counts only once that time is over. A card that is back before is
//! read again at once, and is the same stay only if it is the same card; a first arrival never waits.

use std::time::Instant;

use jiff::Timestamp;

use super::super::{Engine, Now};
use super::{CardState, TrackedReader};
use crate::domain::{
    Atr, CardIdentity, CardView, EntryId, InsertedCard, InsertionId, ReaderName, Removal,
};

/// A card that was taken out just now.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    /// As it was; being read, or identified.
    card: CardState,
    /// Since when it was there.
    since: Timestamp,
    /// When it was taken out.
    at: Now,
    /// When it is gone for good.
    until: Instant,
}

impl PendingRemoval {
    fn atr(&self) -> Option<&Atr> {
        match &self.card {
            CardState::Reading { presence, .. }
            | CardState::Identified { presence, .. }
            | CardState::NotIdentified { presence, .. } => Some(&presence.atr),
            CardState::None | CardState::Mute { .. } | CardState::AwaitingAttributes { .. } => None,
        }
    }
}

impl TrackedReader {
    /// When the card that departed is gone for good.
    pub(super) fn removal_due_at(&self) -> Option<Instant> {
        self.pending_removal.as_ref().map(|departed| departed.until)
    }

    /// A card that may come back in a moment is still shown, and so is one that was busy while it is
    /// tried again.
    pub(super) fn view(&self) -> CardView {
        match (&self.card, &self.pending_removal) {
            (CardState::None, Some(departed)) => departed.card.view(),
            (CardState::Reading { presence, .. }, _) => {
                match self.reported_in_use(presence.insertion) {
                    Some(why) => {
                        CardView::NotIdentified { atr: presence.atr.clone(), error: why.clone() }
                    }
                    None => self.card.view(),
                }
            }
            (card, _) => card.view(),
        }
    }

    fn is_partial(&self) -> bool {
        matches!(&self.card, CardState::Identified { identity, .. } if identity.partial)
    }

    /// Notes the entry of the stay that began with this insertion.
    pub(super) fn has_entry(&mut self, insertion: InsertionId, entry: EntryId) {
        let departed = self.pending_removal.as_mut().map(|departed| &mut departed.card);
        for card in [Some(&mut self.card), departed].into_iter().flatten() {
            if let CardState::Identified { entry: known, stay, .. } = card
                && *stay == insertion
            {
                *known = Some(entry);
            }
        }
    }
}

/// Whether a card that came back is the one that departed. Of one that was read in part not all ids are
/// known, and the first may be another one.
fn is_same_card(known: &CardIdentity, identity: &CardIdentity, presence: &InsertedCard) -> bool {
    let is_partial = known.partial || identity.partial;
    known.key(&presence.atr) == identity.key(&presence.atr)
        || (is_partial && known.shares_id_with(identity))
}

impl Engine {
    /// The card is out of the reader, and may be back in a moment; false where that is not waited for.
    pub(super) fn start_debounce(&mut self, reader: &ReaderName, how: Removal, now: Now) -> bool {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return false };
        let waits = !slot.place.removal_debounce.is_zero() && how == Removal::Observed;
        if !waits || !matches!(slot.card, CardState::Reading { .. } | CardState::Identified { .. })
        {
            return false;
        }
        let card = std::mem::replace(&mut slot.card, CardState::None);
        let until = now.mono + slot.place.removal_debounce;
        slot.pending_removal = Some(match slot.pending_removal.take() {
            // It was the same ATR that was back; who that was is not known.
            Some(first) => PendingRemoval { until, ..first },
            None => PendingRemoval { card, since: slot.since, at: now, until },
        });
        true
    }

    /// A card is in the reader again: the one that departed is gone, unless this may be it.
    pub(super) fn cancel_or_confirm_removal(&mut self, presence: &InsertedCard) {
        let departed = self
            .tracker
            .readers
            .get(&presence.reader)
            .and_then(|slot| slot.pending_removal.as_ref());
        if departed.is_some_and(|departed| departed.atr() != Some(&presence.atr)) {
            self.confirm_removal(&presence.reader, Removal::Observed);
        }
    }

    /// The card that departed is not waited for any longer. It was taken out where it stayed away or
    /// another card came; where something else came in between it may be lying there.
    pub(super) fn confirm_removal(&mut self, reader: &ReaderName, how: Removal) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let Some(PendingRemoval { card, at, .. }) = slot.pending_removal.take() else { return };
        if matches!(slot.card, CardState::None) {
            slot.since = at.wall;
        }
        self.finish_removal(reader, card, how, at);
    }

    /// No card that departed is waited for any longer.
    pub(super) fn confirm_all_removals(&mut self, how: Removal) {
        for reader in self.tracker.readers_where(|_| true) {
            self.confirm_removal(&reader, how);
        }
    }

    /// Cards whose time to come back is over are gone.
    pub(in crate::engine) fn confirm_due_removals(&mut self, now: Now) {
        let due = |slot: &TrackedReader| {
            matches!(slot.card, CardState::None)
                && slot.removal_due_at().is_some_and(|at| at <= now.mono)
        };
        for reader in self.tracker.readers_where(due) {
            self.confirm_removal(&reader, Removal::Observed);
        }
    }

    /// When the stay of a card that was just read began; `None` where it is the stay of the card that
    /// had departed, which goes on.
    pub(super) fn first_insertion(
        &mut self,
        presence: &InsertedCard,
        identity: &CardIdentity,
        (seen, now): (Now, Now),
    ) -> Option<Now> {
        let slot = self.tracker.readers.get_mut(&presence.reader)?;
        match slot.pending_removal.take() {
            // That one was not read before it flickered.
            Some(PendingRemoval { card: CardState::Reading { seen, .. }, .. }) => Some(seen),
            Some(PendingRemoval {
                card: CardState::Identified { identity: known, entry, stay, .. },
                since,
                ..
            }) if is_same_card(&known, identity, presence) => {
                slot.since = since;
                slot.moved(now);
                let presence = presence.clone();
                let (reader, insertion) = (presence.reader.clone(), presence.insertion);
                let completed = known.partial && !identity.partial;
                slot.card = CardState::Identified { presence, identity: known, entry, stay };
                if completed {
                    self.on_fully_identified(&reader, identity, now);
                } else if slot.is_partial() {
                    slot.complete_later(insertion, now);
                }
                None
            }
            departed => {
                slot.pending_removal = departed;
                self.confirm_removal(&presence.reader, Removal::Observed);
                Some(seen)
            }
        }
    }
}
