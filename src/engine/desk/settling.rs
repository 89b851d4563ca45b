//! Cards that flicker: gone and back within `[[reader]] settle`.
//!
//! A contactless card at the edge of the field leaves and comes many times in one tap. In a reader
//! with a settle time a departure counts only once that time is over. A card that is back before is
//! read again at once, and is the same stay only if it is the same card; a first arrival never waits.

use std::time::Instant;

use jiff::Timestamp;

use super::super::{Engine, Now, Presence};
use super::{Card, Slot};
use crate::domain::{Atr, CardIdentity, CardView, EntryId, InsertionId, ReaderName, Removal};

/// A card that was taken out just now.
#[derive(Debug)]
pub(super) struct Departed {
    /// As it was; being read, or identified.
    card: Card,
    /// Since when it was there.
    since: Timestamp,
    /// When it was taken out.
    at: Now,
    /// When it is gone for good.
    until: Instant,
}

impl Departed {
    fn atr(&self) -> Option<&Atr> {
        match &self.card {
            Card::Reading { presence, .. }
            | Card::Identified { presence, .. }
            | Card::NotIdentified { presence, .. } => Some(&presence.atr),
            Card::None | Card::Mute { .. } | Card::Waiting { .. } => None,
        }
    }
}

impl Slot {
    /// When the card that departed is gone for good.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        self.departed.as_ref().map(|departed| departed.until)
    }

    /// A card that may come back in a moment is still shown, and so is one that was busy while it is
    /// tried again.
    pub(super) fn view(&self) -> CardView {
        match (&self.card, &self.departed) {
            (Card::None, Some(departed)) => departed.card.view(),
            (Card::Reading { presence, .. }, _) => match self.told_busy(presence.insertion) {
                Some(why) => {
                    CardView::NotIdentified { atr: presence.atr.clone(), error: why.clone() }
                }
                None => self.card.view(),
            },
            (card, _) => card.view(),
        }
    }

    fn is_partial(&self) -> bool {
        matches!(&self.card, Card::Identified { identity, .. } if identity.partial)
    }

    /// Notes the entry of the stay that began with this insertion.
    pub(super) fn entered(&mut self, insertion: InsertionId, entry: EntryId) {
        let departed = self.departed.as_mut().map(|departed| &mut departed.card);
        for card in [Some(&mut self.card), departed].into_iter().flatten() {
            if let Card::Identified { entry: known, stay, .. } = card
                && *stay == insertion
            {
                *known = Some(entry);
            }
        }
    }
}

/// Whether a card that came back is the one that departed. Of one that was read in part not all ids are
/// known, and the first may be another one.
fn is_same_card(known: &CardIdentity, identity: &CardIdentity, presence: &Presence) -> bool {
    let is_partial = known.partial || identity.partial;
    known.key(&presence.atr) == identity.key(&presence.atr)
        || (is_partial && known.shares_id_with(identity))
}

impl Engine {
    /// The card is out of the reader, and may be back in a moment; false where that is not waited for.
    pub(super) fn depart(&mut self, reader: &ReaderName, how: Removal, now: Now) -> bool {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return false };
        let waits = !slot.place.removal_debounce.is_zero() && how == Removal::Observed;
        if !waits || !matches!(slot.card, Card::Reading { .. } | Card::Identified { .. }) {
            return false;
        }
        let card = std::mem::replace(&mut slot.card, Card::None);
        let until = now.mono + slot.place.removal_debounce;
        slot.departed = Some(match slot.departed.take() {
            // It was the same ATR that was back; who that was is not known.
            Some(first) => Departed { until, ..first },
            None => Departed { card, since: slot.since, at: now, until },
        });
        true
    }

    /// A card is in the reader again: the one that departed is gone, unless this may be it.
    pub(super) fn let_go_unless_back(&mut self, presence: &Presence) {
        let departed =
            self.desk.readers.get(&presence.reader).and_then(|slot| slot.departed.as_ref());
        if departed.is_some_and(|departed| departed.atr() != Some(&presence.atr)) {
            self.let_go(&presence.reader, Removal::Observed);
        }
    }

    /// The card that departed is not waited for any longer. It was taken out where it stayed away or
    /// another card came; where something else came in between it may be lying there.
    pub(super) fn let_go(&mut self, reader: &ReaderName, how: Removal) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        let Some(Departed { card, at, .. }) = slot.departed.take() else { return };
        if matches!(slot.card, Card::None) {
            slot.since = at.wall;
        }
        self.left(reader, card, how, at);
    }

    /// No card that departed is waited for any longer.
    pub(super) fn let_go_all(&mut self, how: Removal) {
        for reader in self.desk.readers_where(|_| true) {
            self.let_go(&reader, how);
        }
    }

    /// Cards whose time to come back is over are gone.
    pub(in crate::engine) fn let_go_due(&mut self, now: Now) {
        let due = |slot: &Slot| {
            matches!(slot.card, Card::None) && slot.settles_at().is_some_and(|at| at <= now.mono)
        };
        for reader in self.desk.readers_where(due) {
            self.let_go(&reader, Removal::Observed);
        }
    }

    /// When the stay of a card that was just read began; `None` where it is the stay of the card that
    /// had departed, which goes on.
    pub(super) fn begun(
        &mut self,
        presence: &Presence,
        identity: &CardIdentity,
        (seen, now): (Now, Now),
    ) -> Option<Now> {
        let slot = self.desk.readers.get_mut(&presence.reader)?;
        match slot.departed.take() {
            // That one was not read before it flickered.
            Some(Departed { card: Card::Reading { seen, .. }, .. }) => Some(seen),
            Some(Departed {
                card: Card::Identified { identity: known, entry, stay, .. },
                since,
                ..
            }) if is_same_card(&known, identity, presence) => {
                slot.since = since;
                slot.moved(now);
                let presence = presence.clone();
                let (reader, insertion) = (presence.reader.clone(), presence.insertion);
                let completed = known.partial && !identity.partial;
                slot.card = Card::Identified { presence, identity: known, entry, stay };
                if completed {
                    self.know_in_full(&reader, identity, now);
                } else if slot.is_partial() {
                    slot.complete_later(insertion, now);
                }
                None
            }
            departed => {
                slot.departed = departed;
                self.let_go(&presence.reader, Removal::Observed);
                Some(seen)
            }
        }
    }
}
