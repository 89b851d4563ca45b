//! Cards that are being read: from the moment at which they said who they are, that counts.
//!
//! What follows on the way of a probe is the inventory, for people. A card that leaves or hangs there
//! is identified without it, and the way to CM waits no longer than [`INVENTORY_WITHIN`].

use std::time::Duration;

use super::super::{Effect, Engine, Now};
use super::{CardState, TrackedReader};
use crate::domain::{
    BootMoment, CardEvent, CardIdentity, InsertedCard, InsertionId, NotIdentified,
    NotIdentifiedReason, ReaderName, ReaderSettings, Removal, Trigger,
};

/// How long the inventory may take. The readers send no command for it after half of that.
const INVENTORY_WITHIN: Duration = Duration::from_secs(1);

impl Engine {
    /// A card that is being read has said who it is.
    pub(in crate::engine) fn on_identified(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        identity: CardIdentity,
        now: Now,
    ) {
        let slot = self.tracker.readers.get_mut(reader);
        if let Some(CardState::Reading { presence, deadline, known, .. }) =
            slot.map(|slot| &mut slot.card)
            && presence.insertion == insertion
        {
            if !identity.partial {
                *deadline = (now.mono + INVENTORY_WITHIN).min(*deadline);
            }
            *known = Some(Box::new(identity));
        } else {
            self.counters.stale_results += 1;
        }
    }

    /// A card that has said who it is is identified, whatever happens to it now.
    pub(super) fn end_reading(&mut self, reader: &ReaderName, now: Now) {
        let slot = self.tracker.readers.get(reader);
        if let Some(CardState::Reading { presence, known: Some(known), .. }) =
            slot.map(|slot| &slot.card)
        {
            let (insertion, identity) = (presence.insertion, known.as_ref().clone());
            self.probed(reader, insertion, Ok(identity), now);
        }
    }

    /// Gives up on cards that were not read in time.
    pub(in crate::engine) fn abandon_slow_probes(&mut self, now: Now) {
        let is_slow = |slot: &TrackedReader| matches!(slot.card, CardState::Reading { deadline, .. } if deadline <= now.mono);
        for reader in self.tracker.readers_where(is_slow) {
            let slot = self.tracker.readers.get(&reader);
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

    pub(in crate::engine) fn probed(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        result: Result<CardIdentity, NotIdentified>,
        now: Now,
    ) {
        if self.read_again(reader, insertion, &result, now) {
            return;
        }
        let Some(slot) = self.tracker.readers.get_mut(reader) else {
            self.counters.stale_results += 1;
            return;
        };
        let (presence, seen, known) = match &mut slot.card {
            CardState::Reading { presence, seen, known, .. } if presence.insertion == insertion => {
                (presence.clone(), *seen, known.take())
            }
            CardState::None
            | CardState::Mute { .. }
            | CardState::AwaitingAttributes { .. }
            | CardState::Reading { .. }
            | CardState::Identified { .. }
            | CardState::NotIdentified { .. } => {
                self.counters.stale_results += 1;
                return;
            }
        };
        let place = slot.place.clone();
        let result = result.or_else(|why| known.map(|known| *known).ok_or(why));
        self.count_probe(&result);
        match result {
            Ok(identity) => {
                if let Some(seen) = self.first_insertion(&presence, &identity, (seen, now)) {
                    self.identified(presence, identity, (place, seen), now);
                }
            }
            Err(why) => {
                // Gone again before it was read: its removal is on its way.
                if why.reason == NotIdentifiedReason::Removed
                    && self.start_debounce(reader, Removal::Observed, now)
                {
                    return;
                }
                // Whether it is the card that departed nobody knows.
                self.confirm_removal(reader, Removal::Inferred);
                let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
                let atr = presence.atr.clone();
                let told = slot.schedule_retry(insertion, &why, now);
                slot.card = CardState::NotIdentified { presence, why: why.clone() };
                if !told {
                    self.audit_not_identified(reader, &place, Some(atr), &why, now);
                }
            }
        }
    }

    fn identified(
        &mut self,
        presence: InsertedCard,
        identity: CardIdentity,
        (place, seen): (ReaderSettings, Now),
        now: Now,
    ) {
        let entry = self.tracker.entry_of_same_insertion(&presence, &identity);
        let moment = self.boot_moment(seen.mono);
        let seen_there = (place, seen, moment);
        let draft = draft(Trigger::Inserted, presence.clone(), identity.clone(), seen_there);
        let insertion = presence.insertion;
        if entry.is_none() {
            self.clear_last_seen(&presence.reader);
        }
        let partial = identity.partial;
        if let Some(slot) = self.tracker.readers.get_mut(&presence.reader) {
            slot.card = CardState::Identified { presence, identity, entry, stay: insertion };
            slot.in_use_retry = None;
            if partial {
                slot.complete_later(insertion, now);
            }
        }
        let instance = self.tracker.instance_of(&draft.reader);
        match entry {
            Some(entry) => {
                self.tracker.on_entry_appended(insertion, (&draft, instance), entry);
                if !partial {
                    self.renew(insertion, entry, &draft.identity, now);
                }
            }
            None if self.hold((&draft.reader, insertion), draft.card_key(), seen) => {}
            None => self.enqueue_append(insertion, (draft, instance), seen.mono, now),
        }
    }
}

pub(super) fn draft(
    trigger: Trigger,
    presence: InsertedCard,
    identity: CardIdentity,
    (place, seen, boot_moment): (ReaderSettings, Now, Option<BootMoment>),
) -> CardEvent {
    CardEvent {
        trigger,
        seen_at: seen.wall,
        reader: presence.reader,
        label: place.label,
        role: place.role,
        event_count: presence.event_count,
        atr: presence.atr,
        identity,
        boot_moment,
    }
}
