//! Cards that are being read: from the moment at which they said who they are, that counts.
//!
//! What follows on the way of a probe is the inventory, for people. A card that leaves or hangs there
//! is identified without it, and the way to CM waits no longer than [`INVENTORY_WITHIN`].

use std::time::Duration;

use super::super::{Effect, Engine, Now};
use super::{Card, Slot};
use crate::domain::{Identity, InsertionId, NotIdentified, NotIdentifiedReason, ReaderName};

/// How long the inventory may take. The readers send no command for it after half of that.
const INVENTORY_WITHIN: Duration = Duration::from_secs(1);

impl Engine {
    /// A card that is being read has said who it is.
    pub(in crate::engine) fn told_identity(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        identity: Identity,
        now: Now,
    ) {
        let slot = self.desk.readers.get_mut(reader);
        if let Some(Card::Reading { presence, deadline, known, .. }) =
            slot.map(|slot| &mut slot.card)
            && presence.insertion == insertion
        {
            if !identity.partial {
                *deadline = (now.mono + INVENTORY_WITHIN).min(*deadline);
            }
            *known = Some(Box::new(identity));
        } else {
            self.tally.stale_answers += 1;
        }
    }

    /// A card that has said who it is is identified, whatever happens to it now.
    pub(super) fn end_reading(&mut self, reader: &ReaderName, now: Now) {
        let slot = self.desk.readers.get(reader);
        if let Some(Card::Reading { presence, known: Some(known), .. }) =
            slot.map(|slot| &slot.card)
        {
            let (insertion, identity) = (presence.insertion, known.as_ref().clone());
            self.probed(reader, insertion, Ok(identity), now);
        }
    }

    /// Gives up on cards that were not read in time.
    pub(in crate::engine) fn abandon_slow_probes(&mut self, now: Now) {
        let is_slow = |slot: &Slot| matches!(slot.card, Card::Reading { deadline, .. } if deadline <= now.mono);
        for reader in self.desk.readers_where(is_slow) {
            let slot = self.desk.readers.get(&reader);
            let Some(insertion) = slot.and_then(|slot| slot.card.insertion()) else { continue };
            self.effects.push_back(Effect::AbandonProbe { reader: reader.clone() });
            let why = NotIdentified::new(
                NotIdentifiedReason::Timeout,
                format!(
                    "the card was not read within {} s: take it out and put it in again",
                    self.policy.probe_deadline.as_secs()
                ),
            );
            self.probed(&reader, insertion, Err(why), now);
        }
    }
}
