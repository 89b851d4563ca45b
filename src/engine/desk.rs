//! Readers and the cards in them, up to an identity.

mod attributes;
mod busy;
mod reading;
mod repeats;
mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;

use attributes::{ATTRIBUTES_WITHIN, Attributes};
use busy::Busy;
use reading::draft;
use repeats::{Held, Repeats};
use settling::Departed;

use super::{Effect, Engine, Now, Presence};
use crate::domain::{
    Atr, CardEvent, CardIdentity, CardView, EntryId, InsertionId, LastSeenCard, NotIdentified,
    NotIdentifiedReason, PcscdInstance, PcscdView, ReaderAttributes, ReaderName, ReaderRules,
    ReaderSettings, ReaderView, Removal, Trigger,
};

/// What is known of the PC/SC service, the readers and the cards in them.
#[derive(Debug)]
pub(super) struct Desk {
    service: PcscdView,
    readers: BTreeMap<ReaderName, Slot>,
    /// The card that each reader last held, as far as it was not seen to leave.
    stays: BTreeMap<ReaderName, LastSeenCard>,
}

#[derive(Debug)]
struct Slot {
    place: ReaderSettings,
    attributes: Attributes,
    /// What the reader is watched through, where that is certain.
    instance: Option<PcscdInstance>,
    since: Timestamp,
    card: Card,
    /// A card that was taken out just now, while it may turn out not to have been.
    departed: Option<Departed>,
    /// The card that is in it was busy, or one before it.
    busy: Option<Busy>,
    repeats: Repeats,
    /// The card that is in it makes its entry later, because it came too often.
    held: Option<Held>,
}

#[derive(Debug)]
enum Card {
    None,
    Mute {
        insertion: InsertionId,
    },
    /// Nobody knows yet what the configuration makes of the reader.
    Waiting {
        presence: Presence,
        seen: Now,
    },
    /// `known` is who it is, once it has said so; its inventory may follow.
    Reading {
        presence: Presence,
        seen: Now,
        deadline: Instant,
        known: Option<Box<CardIdentity>>,
    },
    /// `stay` is the insertion that the stay began with.
    Identified {
        presence: Presence,
        identity: CardIdentity,
        entry: Option<EntryId>,
        stay: InsertionId,
    },
    NotIdentified {
        presence: Presence,
        why: NotIdentified,
    },
}

impl Card {
    const fn insertion(&self) -> Option<InsertionId> {
        match self {
            Self::None => None,
            Self::Mute { insertion } => Some(*insertion),
            Self::Waiting { presence, .. }
            | Self::Reading { presence, .. }
            | Self::Identified { presence, .. }
            | Self::NotIdentified { presence, .. } => Some(presence.insertion),
        }
    }

    fn view(&self) -> CardView {
        match self {
            Self::None => CardView::Empty,
            Self::Mute { .. } => CardView::Mute,
            Self::Waiting { presence, .. } | Self::Reading { presence, .. } => {
                CardView::Reading { atr: presence.atr.clone() }
            }
            Self::Identified { presence, identity, entry, stay: _ } => CardView::Identified {
                atr: presence.atr.clone(),
                identity: identity.clone(),
                entry: *entry,
            },
            Self::NotIdentified { presence, why } => {
                CardView::NotIdentified { atr: presence.atr.clone(), error: why.clone() }
            }
        }
    }
}

impl Desk {
    pub(super) fn new(stays: Vec<LastSeenCard>) -> Self {
        Self {
            service: PcscdView::Connecting,
            readers: BTreeMap::new(),
            stays: stays.into_iter().map(|stay| (stay.reader.clone(), stay)).collect(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.readers
            .values()
            .filter_map(|slot| match slot.card {
                Card::Reading { deadline, .. } => Some(deadline),
                Card::None => slot.settles_at(),
                Card::Waiting { .. } => slot.attributes.deadline(),
                Card::NotIdentified { .. } => slot.again_at(),
                Card::Identified { .. } => {
                    slot.again_at().into_iter().chain(slot.enters_at()).min()
                }
                Card::Mute { .. } => None,
            })
            .min()
    }

    /// The readers of which something holds.
    fn readers_where(&self, holds: impl Fn(&Slot) -> bool) -> Vec<ReaderName> {
        let found = self.readers.iter().filter(|(_, slot)| holds(slot));
        found.map(|(reader, _)| reader.clone()).collect()
    }

    pub(super) fn replace(&mut self, rules: &ReaderRules) {
        for (reader, slot) in &mut self.readers {
            slot.place = rules.settings_for(reader, &slot.attributes.told());
        }
    }

    /// Whether the card of this entry is known in part, and may still be read in full.
    pub(super) fn completes(&self, entry: EntryId) -> bool {
        self.readers.values().any(|slot| slot.completes(entry))
    }

    /// The card in a reader, if there is one, is not known from before.
    pub(super) fn forget_stay(&mut self, reader: &ReaderName) {
        self.stays.remove(reader);
    }

    /// The reader in which an entry's stay goes on.
    pub(super) fn reader_of(&self, entry: EntryId) -> Option<ReaderName> {
        let stay = self.stays.values().find(|stay| stay.entry == entry);
        stay.map(|stay| stay.reader.clone())
    }

    /// How much is held: readers, and stays of cards.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.readers.len(), self.stays.len())
    }

    pub(super) fn service_view(&self) -> PcscdView {
        self.service.clone()
    }

    pub(super) fn reader_views(&self) -> Vec<ReaderView> {
        let view = |(reader, slot): (&ReaderName, &Slot)| ReaderView {
            reader: reader.clone(),
            settings: slot.place.clone(),
            attributes: slot.attributes.told(),
            since: slot.since,
            card: slot.view(),
        };
        self.readers.iter().map(view).collect()
    }

    /// Notes which entry an insertion made, and that the card is in the reader, which was watched
    /// through this.
    pub(super) fn entered(
        &mut self,
        insertion: InsertionId,
        (draft, instance): (&CardEvent, Option<PcscdInstance>),
        entry: EntryId,
    ) {
        if let Some(slot) = self.readers.get_mut(&draft.reader) {
            slot.entered(insertion, entry);
        }
        let stay = LastSeenCard {
            reader: draft.reader.clone(),
            event_count: draft.event_count,
            atr: draft.atr.clone(),
            card: draft.card_key(),
            entry,
            instance,
        };
        self.stays.insert(draft.reader.clone(), stay);
    }

    /// The entry of the same stay, where it is certain that the card never left the reader: same
    /// card, same ATR, same instance, and an event counter that did not move. One at 0 may have begun
    /// anew, or never moves.
    fn same_stay(&self, presence: &Presence, identity: &CardIdentity) -> Option<EntryId> {
        let stay = self.stays.get(&presence.reader).filter(|_| presence.at_start)?;
        let instance = self.instance_of(&presence.reader);
        let is_watched = instance.is_some() && stay.instance == instance;
        let key = identity.key(&presence.atr);
        let is_same = stay.atr == presence.atr && stay.card == key;
        let has_count = stay.event_count == presence.event_count && presence.event_count > 0;
        (is_watched && is_same && has_count).then_some(stay.entry)
    }

    pub(super) fn instance_of(&self, reader: &ReaderName) -> Option<PcscdInstance> {
        self.readers.get(reader)?.instance.clone()
    }
}

impl Engine {
    pub(super) fn service_up(&mut self, now: Now) {
        self.desk.service = PcscdView::Connected { since: now.wall };
    }

    pub(super) fn service_down(&mut self, reason: String, now: Now) {
        let since = match &self.desk.service {
            PcscdView::Unavailable { since, .. } => *since,
            PcscdView::Connecting | PcscdView::Connected { .. } => now.wall,
        };
        let why = || {
            NotIdentified::new(
                NotIdentifiedReason::ReadError,
                format!("the PC/SC service went away: {reason}"),
            )
        };
        for reader in self.desk.readers_where(|_| true) {
            self.end_reading(&reader, now);
        }
        self.let_go_all(Removal::Inferred);
        for (reader, slot) in std::mem::take(&mut self.desk.readers) {
            let told = slot.card.insertion().is_some_and(|card| slot.told_busy(card).is_some());
            if let Card::Waiting { presence, .. } | Card::Reading { presence, .. } = slot.card
                && !told
            {
                self.note_not_identified(&reader, &slot.place, Some(presence.atr), &why(), now);
            }
        }
        self.desk.service = PcscdView::Unavailable { since, reason };
    }

    /// Ends the stays of cards that are not where they were.
    pub(super) fn service_settled(&mut self) {
        let empty: BTreeSet<_> = self
            .desk
            .stays
            .keys()
            .chain(self.intake.readers())
            .filter(|reader| {
                self.desk.readers.get(*reader).is_none_or(|slot| matches!(slot.card, Card::None))
            })
            .cloned()
            .collect();
        for reader in empty {
            self.end_stay(&reader);
        }
    }

    pub(super) fn attached(
        &mut self,
        reader: ReaderName,
        instance: Option<PcscdInstance>,
        now: Now,
    ) {
        let place = self.policy.readers.settings_for(&reader, &ReaderAttributes::default());
        let attributes = Attributes::NotYet { until: now.mono + ATTRIBUTES_WITHIN };
        let slot = Slot {
            place,
            attributes,
            instance,
            since: now.wall,
            card: Card::None,
            departed: None,
            busy: None,
            repeats: Repeats::default(),
            held: None,
        };
        self.effects.push_back(Effect::Describe { reader: reader.clone() });
        self.desk.readers.insert(reader, slot);
    }

    pub(super) fn detached(&mut self, reader: &ReaderName, now: Now) {
        self.end_reading(reader, now);
        self.empty(reader, Removal::Inferred, now);
        self.let_go(reader, Removal::Inferred);
        self.desk.readers.remove(reader);
    }

    pub(super) fn card_present(&mut self, presence: Presence, now: Now) {
        self.make_room(&presence.reader, presence.insertion, now);
        self.let_go_unless_back(&presence);
        let Some(slot) = self.desk.readers.get_mut(&presence.reader) else { return };
        slot.since = now.wall;
        if slot.is_undecided(&self.policy.readers, &presence.reader) {
            slot.card = Card::Waiting { presence, seen: now };
            return;
        }
        self.read(presence, now, now);
    }

    /// Has a card read that was seen a moment ago.
    fn read(&mut self, presence: Presence, seen: Now, now: Now) {
        let deadline = now.mono + self.policy.probe_deadline;
        let reader = presence.reader.clone();
        let Some(slot) = self.desk.readers.get_mut(&reader) else { return };
        let skip_atr = &self.policy.skip_atr;
        if let Some(why) = NotIdentified::skipped_by_config(&slot.place, skip_atr, &presence.atr) {
            slot.card = Card::NotIdentified { presence, why };
            slot.busy = None;
            return;
        }
        self.effects.push_back(Effect::Probe {
            reader,
            insertion: presence.insertion,
            atr: presence.atr.clone(),
            only_free: false,
        });
        slot.card = Card::Reading { presence, seen, deadline, known: None };
    }

    /// A card that comes where another is was swapped for that between two looks.
    fn make_room(&mut self, reader: &ReaderName, insertion: InsertionId, now: Now) {
        let held = self.desk.readers.get(reader).and_then(|slot| slot.card.insertion());
        if held.is_some_and(|held| held != insertion) {
            self.end_reading(reader, now);
            self.empty(reader, Removal::Observed, now);
        }
    }

    pub(super) fn card_mute(&mut self, reader: &ReaderName, insertion: InsertionId, now: Now) {
        self.make_room(reader, insertion, now);
        self.let_go(reader, Removal::Inferred);
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        slot.since = now.wall;
        slot.card = Card::Mute { insertion };
        if !slot.place.enabled {
            return;
        }
        let place = slot.place.clone();
        let why = NotIdentified::new(
            NotIdentifiedReason::Mute,
            "the card does not answer: turn it round or clean it".to_owned(),
        );
        self.note_not_identified(reader, &place, None, &why, now);
    }

    pub(super) fn card_removed(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        how: Removal,
        now: Now,
    ) {
        let current = self.desk.readers.get(reader).and_then(|slot| slot.card.insertion());
        if current == Some(insertion) {
            self.end_reading(reader, now);
        }
        if current == Some(insertion) && !self.depart(reader, how, now) {
            self.empty(reader, how, now);
        }
    }

    /// The card is out of the reader, or the reader is.
    fn empty(&mut self, reader: &ReaderName, how: Removal, now: Now) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        let card = std::mem::replace(&mut slot.card, Card::None);
        slot.since = now.wall;
        self.left(reader, card, how, now);
    }

    /// What follows from it that a card left.
    fn left(&mut self, reader: &ReaderName, card: Card, how: Removal, now: Now) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        let place = slot.place.clone();
        let told = card.insertion().is_some_and(|card| slot.told_busy(card).is_some());
        let held = slot.ends_held(&card);
        self.end_stay(reader);
        if let Some(held) = held {
            return self.note_restless((reader, &place.label), held, now);
        }
        match card {
            Card::Waiting { presence, .. } | Card::Reading { presence, .. } if !told => {
                let why = NotIdentified::new(
                    NotIdentifiedReason::Removed,
                    "the card was taken out before it was read".to_owned(),
                );
                self.note_not_identified(reader, &place, Some(presence.atr), &why, now);
            }
            Card::Identified { presence, identity, .. } if how == Removal::Observed => {
                self.taken_out(presence, identity, place, now);
            }
            Card::None
            | Card::Mute { .. }
            | Card::Waiting { .. }
            | Card::Reading { .. }
            | Card::Identified { .. }
            | Card::NotIdentified { .. } => {}
        }
    }

    /// A removal is an entry of its own, where any rule is for removals.
    fn taken_out(
        &mut self,
        presence: Presence,
        identity: CardIdentity,
        place: ReaderSettings,
        now: Now,
    ) {
        if self.policy.rules.has_rules_for(Trigger::Removed) {
            let insertion = presence.insertion;
            let moment = self.boot_moment(now.mono);
            let draft = draft(Trigger::Removed, presence, identity, (place, now, moment));
            self.take_in(insertion, (draft, None), now.mono, now);
        }
    }

    fn end_stay(&mut self, reader: &ReaderName) {
        let offered = self.intake.leave(reader);
        if self.desk.stays.remove(reader).is_some() || offered {
            self.effects.push_back(Effect::EndStay { reader: reader.clone() });
        }
    }

    fn note_not_identified(
        &mut self,
        reader: &ReaderName,
        place: &ReaderSettings,
        atr: Option<Atr>,
        why: &NotIdentified,
        now: Now,
    ) {
        self.note_failure((reader, place.label.as_str()), atr, why, now);
    }
}
