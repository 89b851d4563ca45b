//! Readers and the cards in them, up to an identity.

mod attributes;
mod debounce;
mod flapping;
mod in_use;
mod probing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;

use attributes::{ATTRIBUTES_TIMEOUT, AttributesState};
use debounce::PendingRemoval;
use flapping::{FlappingCards, HeldCard};
use in_use::InUseRetry;
use probing::draft;

use super::{Effect, Engine, Now};
use crate::domain::{
    Atr, CardEvent, CardIdentity, CardView, EntryId, InsertedCard, InsertionId, LastSeenCard,
    NotIdentified, NotIdentifiedReason, PcscdInstance, PcscdView, ReaderAttributes, ReaderEvent,
    ReaderName, ReaderRules, ReaderSettings, ReaderView, Removal, Trigger,
};

/// What is known of the PC/SC service, the readers and the cards in them.
#[derive(Debug)]
pub(super) struct ReaderTracker {
    service: PcscdView,
    readers: BTreeMap<ReaderName, TrackedReader>,
    /// The card that each reader last held, as far as it was not seen to leave.
    last_seen: BTreeMap<ReaderName, LastSeenCard>,
}

#[derive(Debug)]
struct TrackedReader {
    place: ReaderSettings,
    attributes: AttributesState,
    /// What the reader is watched through, where that is certain.
    instance: Option<PcscdInstance>,
    since: Timestamp,
    card: CardState,
    /// A card that was taken out just now, while it may turn out not to have been.
    pending_removal: Option<PendingRemoval>,
    /// The card that is in it was busy, or one before it.
    in_use_retry: Option<InUseRetry>,
    repeats: FlappingCards,
    /// The card that is in it makes its entry later, because it came too often.
    held: Option<HeldCard>,
}

#[derive(Debug)]
enum CardState {
    None,
    Mute {
        insertion: InsertionId,
    },
    /// Nobody knows yet what the configuration makes of the reader.
    AwaitingAttributes {
        presence: InsertedCard,
        seen: Now,
    },
    /// `known` is who it is, once it has said so; its inventory may follow.
    Reading {
        presence: InsertedCard,
        seen: Now,
        deadline: Instant,
        known: Option<Box<CardIdentity>>,
    },
    /// `stay` is the insertion that the stay began with.
    Identified {
        presence: InsertedCard,
        identity: CardIdentity,
        entry: Option<EntryId>,
        stay: InsertionId,
    },
    NotIdentified {
        presence: InsertedCard,
        why: NotIdentified,
    },
}

impl CardState {
    const fn insertion(&self) -> Option<InsertionId> {
        match self {
            Self::None => None,
            Self::Mute { insertion } => Some(*insertion),
            Self::AwaitingAttributes { presence, .. }
            | Self::Reading { presence, .. }
            | Self::Identified { presence, .. }
            | Self::NotIdentified { presence, .. } => Some(presence.insertion),
        }
    }

    fn view(&self) -> CardView {
        match self {
            Self::None => CardView::Empty,
            Self::Mute { .. } => CardView::Mute,
            Self::AwaitingAttributes { presence, .. } | Self::Reading { presence, .. } => {
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

impl ReaderTracker {
    pub(super) fn new(stays: Vec<LastSeenCard>) -> Self {
        Self {
            service: PcscdView::Connecting,
            readers: BTreeMap::new(),
            last_seen: stays.into_iter().map(|stay| (stay.reader.clone(), stay)).collect(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.readers
            .values()
            .filter_map(|slot| match slot.card {
                CardState::Reading { deadline, .. } => Some(deadline),
                CardState::None => slot.removal_due_at(),
                CardState::AwaitingAttributes { .. } => slot.attributes.deadline(),
                CardState::NotIdentified { .. } => slot.retry_at(),
                CardState::Identified { .. } => {
                    slot.retry_at().into_iter().chain(slot.enters_at()).min()
                }
                CardState::Mute { .. } => None,
            })
            .min()
    }

    /// The readers of which something holds.
    fn readers_where(&self, holds: impl Fn(&TrackedReader) -> bool) -> Vec<ReaderName> {
        let found = self.readers.iter().filter(|(_, slot)| holds(slot));
        found.map(|(reader, _)| reader.clone()).collect()
    }

    pub(super) fn apply_settings(&mut self, rules: &ReaderRules) {
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
        self.last_seen.remove(reader);
    }

    /// The reader in which an entry's stay goes on.
    pub(super) fn reader_of(&self, entry: EntryId) -> Option<ReaderName> {
        let stay = self.last_seen.values().find(|stay| stay.entry == entry);
        stay.map(|stay| stay.reader.clone())
    }

    /// How much is held: readers, and stays of cards.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.readers.len(), self.last_seen.len())
    }

    pub(super) fn service_view(&self) -> PcscdView {
        self.service.clone()
    }

    pub(super) fn reader_views(&self) -> Vec<ReaderView> {
        let view = |(reader, slot): (&ReaderName, &TrackedReader)| ReaderView {
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
    pub(super) fn on_entry_appended(
        &mut self,
        insertion: InsertionId,
        (draft, instance): (&CardEvent, Option<PcscdInstance>),
        entry: EntryId,
    ) {
        if let Some(slot) = self.readers.get_mut(&draft.reader) {
            slot.has_entry(insertion, entry);
        }
        let stay = LastSeenCard {
            reader: draft.reader.clone(),
            event_count: draft.event_count,
            atr: draft.atr.clone(),
            card: draft.card_key(),
            entry,
            instance,
        };
        self.last_seen.insert(draft.reader.clone(), stay);
    }

    /// The entry of the same stay, where it is certain that the card never left the reader: same
    /// card, same ATR, same instance, and an event counter that did not move. One at 0 may have begun
    /// anew, or never moves.
    fn entry_of_same_insertion(
        &self,
        presence: &InsertedCard,
        identity: &CardIdentity,
    ) -> Option<EntryId> {
        let stay = self.last_seen.get(&presence.reader).filter(|_| presence.at_start)?;
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
    pub(super) fn on_reader_event(&mut self, event: ReaderEvent, now: Now) {
        match event {
            ReaderEvent::PcscdConnected => self.service_up(now),
            ReaderEvent::PcscdUnavailable { reason } => self.service_down(reason, now),
            ReaderEvent::InitialScanDone => self.initial_scan_done(),
            ReaderEvent::ReaderAttached { reader, instance } => {
                self.attached(reader, instance, now);
            }
            ReaderEvent::AttributesRead { reader, attributes } => {
                self.on_attributes_read(&reader, attributes, now);
            }
            ReaderEvent::ReaderDetached { reader } => self.detached(&reader, now),
            ReaderEvent::CardInserted(presence) => self.card_present(presence, now),
            ReaderEvent::CardMute { reader, insertion } => self.card_mute(&reader, insertion, now),
            ReaderEvent::CardRemoved { reader, insertion, removal } => {
                self.card_removed(&reader, insertion, removal, now);
            }
            ReaderEvent::Identified { reader, insertion, identity } => {
                self.on_identified(&reader, insertion, identity, now);
            }
            ReaderEvent::CardReleased { reader } => self.on_card_released(&reader, now),
            ReaderEvent::ProbeFinished { reader, insertion, result, .. } => {
                self.probed(&reader, insertion, result, now);
            }
        }
    }

    pub(super) fn service_up(&mut self, now: Now) {
        self.tracker.service = PcscdView::Connected { since: now.wall };
    }

    pub(super) fn service_down(&mut self, reason: String, now: Now) {
        let since = match &self.tracker.service {
            PcscdView::Unavailable { since, .. } => *since,
            PcscdView::Connecting | PcscdView::Connected { .. } => now.wall,
        };
        let why = || {
            NotIdentified::new(
                NotIdentifiedReason::ReadError,
                format!("the PC/SC service went away: {reason}"),
            )
        };
        for reader in self.tracker.readers_where(|_| true) {
            self.end_reading(&reader, now);
        }
        self.confirm_all_removals(Removal::Inferred);
        for (reader, slot) in std::mem::take(&mut self.tracker.readers) {
            let told =
                slot.card.insertion().is_some_and(|card| slot.reported_in_use(card).is_some());
            if let CardState::AwaitingAttributes { presence, .. }
            | CardState::Reading { presence, .. } = slot.card
                && !told
            {
                self.audit_not_identified(&reader, &slot.place, Some(presence.atr), &why(), now);
            }
        }
        self.tracker.service = PcscdView::Unavailable { since, reason };
    }

    /// Ends the stays of cards that are not where they were.
    pub(super) fn initial_scan_done(&mut self) {
        let empty: BTreeSet<_> = self
            .tracker
            .last_seen
            .keys()
            .chain(self.append_queue.readers())
            .filter(|reader| {
                self.tracker
                    .readers
                    .get(*reader)
                    .is_none_or(|slot| matches!(slot.card, CardState::None))
            })
            .cloned()
            .collect();
        for reader in empty {
            self.clear_last_seen(&reader);
        }
    }

    pub(super) fn attached(
        &mut self,
        reader: ReaderName,
        instance: Option<PcscdInstance>,
        now: Now,
    ) {
        let place = self.policy.readers.settings_for(&reader, &ReaderAttributes::default());
        let attributes = AttributesState::Pending { until: now.mono + ATTRIBUTES_TIMEOUT };
        let slot = TrackedReader {
            place,
            attributes,
            instance,
            since: now.wall,
            card: CardState::None,
            pending_removal: None,
            in_use_retry: None,
            repeats: FlappingCards::default(),
            held: None,
        };
        self.effects.push_back(Effect::ReadAttributes { reader: reader.clone() });
        self.tracker.readers.insert(reader, slot);
    }

    pub(super) fn detached(&mut self, reader: &ReaderName, now: Now) {
        self.end_reading(reader, now);
        self.on_card_gone(reader, Removal::Inferred, now);
        self.confirm_removal(reader, Removal::Inferred);
        self.tracker.readers.remove(reader);
    }

    pub(super) fn card_present(&mut self, presence: InsertedCard, now: Now) {
        self.end_swapped_insertion(&presence.reader, presence.insertion, now);
        self.cancel_or_confirm_removal(&presence);
        let Some(slot) = self.tracker.readers.get_mut(&presence.reader) else { return };
        slot.since = now.wall;
        if slot.awaits_attributes(&self.policy.readers, &presence.reader) {
            slot.card = CardState::AwaitingAttributes { presence, seen: now };
            return;
        }
        self.read(presence, now, now);
    }

    /// Has a card read that was seen a moment ago.
    fn read(&mut self, presence: InsertedCard, seen: Now, now: Now) {
        let deadline = now.mono + self.policy.probe_deadline;
        let reader = presence.reader.clone();
        let Some(slot) = self.tracker.readers.get_mut(&reader) else { return };
        let skip_atr = &self.policy.skip_atr;
        if let Some(why) = NotIdentified::skipped_by_config(&slot.place, skip_atr, &presence.atr) {
            slot.card = CardState::NotIdentified { presence, why };
            slot.in_use_retry = None;
            return;
        }
        self.effects.push_back(Effect::StartProbe {
            reader,
            insertion: presence.insertion,
            atr: presence.atr.clone(),
            only_free: false,
        });
        slot.card = CardState::Reading { presence, seen, deadline, known: None };
    }

    /// A card that comes where another is was swapped for that between two looks.
    fn end_swapped_insertion(&mut self, reader: &ReaderName, insertion: InsertionId, now: Now) {
        let held = self.tracker.readers.get(reader).and_then(|slot| slot.card.insertion());
        if held.is_some_and(|held| held != insertion) {
            self.end_reading(reader, now);
            self.on_card_gone(reader, Removal::Observed, now);
        }
    }

    pub(super) fn card_mute(&mut self, reader: &ReaderName, insertion: InsertionId, now: Now) {
        self.end_swapped_insertion(reader, insertion, now);
        self.confirm_removal(reader, Removal::Inferred);
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        slot.since = now.wall;
        slot.card = CardState::Mute { insertion };
        if !slot.place.enabled {
            return;
        }
        let place = slot.place.clone();
        let why = NotIdentified::new(
            NotIdentifiedReason::Mute,
            "the card does not respond: turn it over or clean it".to_owned(),
        );
        self.audit_not_identified(reader, &place, None, &why, now);
    }

    pub(super) fn card_removed(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        how: Removal,
        now: Now,
    ) {
        let current = self.tracker.readers.get(reader).and_then(|slot| slot.card.insertion());
        if current == Some(insertion) {
            self.end_reading(reader, now);
        }
        if current == Some(insertion) && !self.start_debounce(reader, how, now) {
            self.on_card_gone(reader, how, now);
        }
    }

    /// The card is out of the reader, or the reader is.
    fn on_card_gone(&mut self, reader: &ReaderName, how: Removal, now: Now) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let card = std::mem::replace(&mut slot.card, CardState::None);
        slot.since = now.wall;
        self.finish_removal(reader, card, how, now);
    }

    /// What follows from it that a card left.
    fn finish_removal(&mut self, reader: &ReaderName, card: CardState, how: Removal, now: Now) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let place = slot.place.clone();
        let told = card.insertion().is_some_and(|card| slot.reported_in_use(card).is_some());
        let held = slot.ends_held(&card);
        self.clear_last_seen(reader);
        if let Some(held) = held {
            return self.report_flapping((reader, &place.label), held, now);
        }
        match card {
            CardState::AwaitingAttributes { presence, .. }
            | CardState::Reading { presence, .. }
                if !told =>
            {
                let why = NotIdentified::new(
                    NotIdentifiedReason::Removed,
                    "the card was taken out before it was read".to_owned(),
                );
                self.audit_not_identified(reader, &place, Some(presence.atr), &why, now);
            }
            CardState::Identified { presence, identity, .. } if how == Removal::Observed => {
                self.enqueue_removal(presence, identity, place, now);
            }
            CardState::None
            | CardState::Mute { .. }
            | CardState::AwaitingAttributes { .. }
            | CardState::Reading { .. }
            | CardState::Identified { .. }
            | CardState::NotIdentified { .. } => {}
        }
    }

    /// A removal is an entry of its own, where any rule is for removals.
    fn enqueue_removal(
        &mut self,
        presence: InsertedCard,
        identity: CardIdentity,
        place: ReaderSettings,
        now: Now,
    ) {
        if self.policy.rules.has_rules_for(Trigger::Removed) {
            let insertion = presence.insertion;
            let moment = self.boot_moment(now.mono);
            let draft = draft(Trigger::Removed, presence, identity, (place, now, moment));
            self.enqueue_append(insertion, (draft, None), now.mono, now);
        }
    }

    fn clear_last_seen(&mut self, reader: &ReaderName) {
        let offered = self.append_queue.mark_removed(reader);
        if self.tracker.last_seen.remove(reader).is_some() || offered {
            self.effects.push_back(Effect::ClearLastSeen { reader: reader.clone() });
        }
    }

    fn audit_not_identified(
        &mut self,
        reader: &ReaderName,
        place: &ReaderSettings,
        atr: Option<Atr>,
        why: &NotIdentified,
        now: Now,
    ) {
        self.add_failure_note((reader, place.label.as_str()), atr, why, now);
    }
}
