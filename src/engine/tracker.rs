//! Readers and the cards in them, up to an identity. Here: how they come and go.
//!
//! A contactless card at the edge of the field leaves and comes many times in one tap. In a reader
//! with a removal debounce a removal counts only once that time is over. A card that is back before
//! is read again at once, and is the same insertion only if it is the same card; a first insertion
//! never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::append_queue::PendingAppend;
use super::context::Context;
use super::failure_notes::FailureNotes;
use super::interface::{Effect, Now, OutboxEffect, ReaderEffect};
use crate::domain::{
    CardEvent, CardIdentity, EntryId, InsertedCard, InsertionId, LastSeenCard, NotIdentified,
    NotIdentifiedReason, PcscdInstance, PcscdView, ReaderAttributes, ReaderEvent, ReaderName,
    ReaderSettings, ReaderView, Removal, Trigger,
};
use reader::{CardState, PendingRemoval, TrackedReader};

mod flapping;
mod probing;
mod reader;

/// How long reading a reader's attributes may take before a card that waits for them is reported.
const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of pcscd, the readers and the cards in them.
#[derive(Debug)]
pub(super) struct ReaderTracker {
    pcscd: PcscdView,
    readers: BTreeMap<ReaderName, TrackedReader>,
    /// The card that each reader last held, as far as it was not seen to leave.
    last_seen: BTreeMap<ReaderName, LastSeenCard>,
    pub(super) failure_notes: FailureNotes,
    /// What was found, for the engine to take.
    pub(super) events: Vec<TrackerEvent>,
}

/// What the tracker found, and other parts have to do something about.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub(super) enum TrackerEvent {
    /// An identified card came or went.
    CardDetected { insertion: InsertionId, append: PendingAppend },
    /// Whatever card was in the reader is not in it any more.
    CardGone { reader: ReaderName, was_last_seen: bool },
    /// A card that was known in part is known in full; `entry` is the one that it made.
    FullyIdentified { insertion: InsertionId, entry: Option<EntryId>, identity: CardIdentity },
}

impl ReaderTracker {
    pub(super) fn new(last_seen: Vec<LastSeenCard>) -> Self {
        Self {
            pcscd: PcscdView::Connecting,
            readers: BTreeMap::new(),
            last_seen: last_seen.into_iter().map(|card| (card.reader.clone(), card)).collect(),
            failure_notes: FailureNotes::default(),
            events: Vec::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let readers = self.readers.values().filter_map(TrackedReader::next_deadline);
        readers.chain(self.failure_notes.next_deadline()).min()
    }

    fn readers_where(&self, holds: impl Fn(&TrackedReader) -> bool) -> Vec<ReaderName> {
        let found = self.readers.iter().filter(|(_, tracked)| holds(tracked));
        found.map(|(reader, _)| reader.clone()).collect()
    }

    pub(super) fn apply_settings(&mut self, cx: &Context) {
        for (reader, tracked) in &mut self.readers {
            tracked.settings = cx.settings.readers.settings_for(reader, &tracked.attributes());
        }
    }

    /// Whether the card of this entry is known in part, and may still be read in full.
    pub(super) fn may_complete(&self, id: EntryId) -> bool {
        self.readers.values().any(|tracked| tracked.may_complete(id))
    }

    /// The card of this entry, if it is still in a reader, counts as a new insertion when it is seen
    /// again.
    pub(super) fn forget_card_of(&mut self, cx: &mut Context, id: EntryId) {
        let of_entry = self.last_seen.values().find(|card| card.entry == id);
        if let Some(reader) = of_entry.map(|card| card.reader.clone()) {
            self.last_seen.remove(&reader);
            cx.store(OutboxEffect::ClearLastSeen { reader });
        }
    }

    /// How much is held: readers, and last seen cards.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.readers.len(), self.last_seen.len())
    }

    pub(super) fn pcscd_view(&self) -> PcscdView {
        self.pcscd.clone()
    }

    pub(super) fn reader_views(&self) -> Vec<ReaderView> {
        self.readers.iter().map(|(reader, tracked)| tracked.view(reader)).collect()
    }

    pub(super) fn instance_of(&self, reader: &ReaderName) -> Option<PcscdInstance> {
        self.readers.get(reader)?.instance.clone()
    }

    /// Notes the entry of an insertion, and that its card is in the reader.
    pub(super) fn on_entry_appended(
        &mut self,
        insertion: InsertionId,
        card_event: &CardEvent,
        instance: Option<PcscdInstance>,
        entry: EntryId,
    ) {
        let reader = card_event.reader.clone();
        if let Some(tracked) = self.readers.get_mut(&reader) {
            tracked.set_entry(insertion, entry);
        }
        let card = LastSeenCard {
            reader: reader.clone(),
            event_count: card_event.event_count,
            atr: card_event.atr.clone(),
            card: card_event.card_key(),
            entry,
            instance,
        };
        self.last_seen.insert(reader, card);
    }

    pub(super) fn on_reader_event(&mut self, cx: &mut Context, event: ReaderEvent) {
        match event {
            ReaderEvent::PcscdConnected => {
                self.pcscd = PcscdView::Connected { since: cx.time.wall };
            }
            ReaderEvent::PcscdUnavailable { reason } => self.on_pcscd_unavailable(cx, reason),
            ReaderEvent::InitialScanDone => {}
            ReaderEvent::ReaderAttached { reader, instance } => {
                let settings =
                    cx.settings.readers.settings_for(&reader, &ReaderAttributes::default());
                let until = cx.time.mono + ATTRIBUTES_TIMEOUT;
                let tracked = TrackedReader::new(settings, instance, cx.time.wall, until);
                cx.effects.push_back(Effect::Reader(ReaderEffect::ReadAttributes {
                    reader: reader.clone(),
                }));
                self.readers.insert(reader, tracked);
            }
            ReaderEvent::AttributesRead { reader, attributes } => {
                self.on_attributes_read(cx, &reader, attributes);
            }
            ReaderEvent::ReaderDetached { reader } => self.on_detached(cx, &reader),
            ReaderEvent::CardInserted(card) => self.on_card_inserted(cx, card),
            ReaderEvent::CardMute { reader, insertion } => {
                self.on_card_mute(cx, &reader, insertion);
            }
            ReaderEvent::CardRemoved { reader, insertion, removal } => {
                self.on_card_removed(cx, &reader, insertion, removal);
            }
            ReaderEvent::Identified { reader, insertion, identity } => {
                self.on_identified(cx, &reader, insertion, identity);
            }
            ReaderEvent::CardReleased { reader } => {
                if let Some(tracked) = self.readers.get_mut(&reader) {
                    tracked.on_card_released(cx.time);
                }
            }
            ReaderEvent::ProbeFinished { reader, insertion, result, .. } => {
                self.on_probe_finished(cx, &reader, insertion, result);
            }
        }
    }

    /// Does what is due by now.
    pub(super) fn on_timeout(&mut self, cx: &mut Context) {
        let now = cx.time.mono;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for reader in self.readers_where(|tracked| {
            matches!(tracked.card, CardState::AwaitingAttributes { .. })
                && is_due(tracked.attributes_due_at())
        }) {
            self.on_attributes_timeout(cx, &reader);
        }
        for reader in self.readers_where(
            |tracked| matches!(tracked.card, CardState::Reading { deadline, .. } if deadline <= now),
        ) {
            self.abandon_probe(cx, &reader);
        }
        for reader in self.readers_where(|tracked| is_due(tracked.retry_at())) {
            self.retry_in_use(cx, &reader);
        }
        for reader in self.readers_where(|tracked| {
            matches!(tracked.card, CardState::None) && is_due(tracked.removal_due_at())
        }) {
            self.confirm_removal(cx, &reader, Removal::Observed);
        }
        for reader in self.readers_where(|tracked| {
            matches!(tracked.card, CardState::Identified { .. }) && is_due(tracked.held_until())
        }) {
            self.enter_held(cx, &reader);
        }
        self.failure_notes.on_timeout(cx);
    }

    fn on_pcscd_unavailable(&mut self, cx: &mut Context, reason: String) {
        let since = match &self.pcscd {
            PcscdView::Unavailable { since, .. } => *since,
            PcscdView::Connecting => cx.time.wall,
            PcscdView::Connected { .. } => {
                cx.counters.pcscd_losses += 1;
                cx.time.wall
            }
        };
        let detail = format!("the PC/SC service went away: {reason}");
        let error = NotIdentified::new(NotIdentifiedReason::ReadError, detail);
        for reader in self.readers_where(|_| true) {
            self.end_reading(cx, &reader);
        }
        for reader in self.readers_where(|_| true) {
            self.confirm_removal(cx, &reader, Removal::Inferred);
        }
        for (reader, tracked) in std::mem::take(&mut self.readers) {
            if let CardState::AwaitingAttributes { card, .. } | CardState::Reading { card, .. } =
                &tracked.card
                && tracked.in_use_error(card.insertion).is_none()
            {
                let (label, atr) = (tracked.settings.label.as_str(), Some(card.atr.clone()));
                self.failure_notes.add(cx, (&reader, label), atr, &error, cx.time);
            }
        }
        self.pcscd = PcscdView::Unavailable { since, reason };
    }

    /// Clears the cards that are not where they were. `appending`: the readers of cards that are not
    /// on disk yet.
    pub(super) fn on_initial_scan_done(&mut self, appending: impl Iterator<Item = ReaderName>) {
        let mut readers: BTreeSet<_> = self.last_seen.keys().cloned().chain(appending).collect();
        readers.retain(|reader| {
            let tracked = self.readers.get(reader);
            tracked.is_none_or(|tracked| matches!(tracked.card, CardState::None))
        });
        for reader in readers {
            self.clear_last_seen(&reader);
        }
    }

    fn on_detached(&mut self, cx: &mut Context, reader: &ReaderName) {
        if !self.readers.contains_key(reader) {
            return cx.report_unexpected(reader, "reader detached");
        }
        self.end_reading(cx, reader);
        self.on_card_gone(cx, reader, Removal::Inferred);
        self.confirm_removal(cx, reader, Removal::Inferred);
        self.readers.remove(reader);
    }

    fn on_card_inserted(&mut self, cx: &mut Context, card: InsertedCard) {
        cx.counters.insertions += 1;
        let reader = card.reader.clone();
        self.end_swapped_insertion(cx, &reader, card.insertion);
        let tracked = self.readers.get(&reader);
        if tracked.is_some_and(|it| it.pending_removal.is_some() && !it.may_be_back(&card.atr)) {
            self.confirm_removal(cx, &reader, Removal::Observed);
        }
        let Some(tracked) = self.readers.get_mut(&reader) else {
            return cx.report_unexpected(&reader, "card inserted");
        };
        tracked.since = cx.time.wall;
        if tracked.awaits_attributes(&cx.settings.readers, &reader) {
            tracked.card = CardState::AwaitingAttributes { card, seen: cx.time };
            return;
        }
        self.start_reading(cx, card, cx.time);
    }

    fn on_card_mute(&mut self, cx: &mut Context, reader: &ReaderName, insertion: InsertionId) {
        cx.counters.mute_cards += 1;
        self.end_swapped_insertion(cx, reader, insertion);
        self.confirm_removal(cx, reader, Removal::Inferred);
        let Some(tracked) = self.readers.get_mut(reader) else {
            return cx.report_unexpected(reader, "card mute");
        };
        tracked.since = cx.time.wall;
        tracked.card = CardState::Mute(insertion);
        if tracked.settings.enabled {
            let detail = "the card does not respond: turn it over or clean it".to_owned();
            let error = NotIdentified::new(NotIdentifiedReason::Mute, detail);
            let label = tracked.settings.label.as_str();
            self.failure_notes.add(cx, (reader, label), None, &error, cx.time);
        }
    }

    fn on_card_removed(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        insertion: InsertionId,
        removal: Removal,
    ) {
        cx.counters.removals += 1;
        let current = self.readers.get(reader).and_then(|tracked| tracked.card.insertion());
        if current != Some(insertion) {
            return cx.report_unexpected(&insertion, "card removed");
        }
        self.end_reading(cx, reader);
        if !self.start_debounce(cx, reader, removal) {
            self.on_card_gone(cx, reader, removal);
        }
    }

    /// A card that comes where another is was swapped for that between two polls.
    fn end_swapped_insertion(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        insertion: InsertionId,
    ) {
        let present = self.readers.get(reader).and_then(|tracked| tracked.card.insertion());
        if present.is_some_and(|present| present != insertion) {
            self.end_reading(cx, reader);
            self.on_card_gone(cx, reader, Removal::Observed);
        }
    }

    /// The card is out of the reader, or the reader is gone.
    fn on_card_gone(&mut self, cx: &mut Context, reader: &ReaderName, removal: Removal) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let card = std::mem::replace(&mut tracked.card, CardState::None);
        tracked.since = cx.time.wall;
        self.finish_removal(cx, reader, (card, removal), cx.time);
    }

    /// What follows from a removal.
    fn finish_removal(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        (card, removal): (CardState, Removal),
        at: Now,
    ) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let settings = tracked.settings.clone();
        let is_reported = card.insertion().is_some_and(|it| tracked.in_use_error(it).is_some());
        let held = tracked.take_held(&card);
        self.clear_last_seen(reader);
        let (atr, detail) = match (held, card) {
            (Some((atr, pause)), _) => {
                let seconds = pause.as_secs();
                let detail = format!(
                    "the card comes and goes all the time, and went before it had lain still for \
                     {seconds} s: clean card and reader"
                );
                (atr, detail)
            }
            (
                None,
                CardState::AwaitingAttributes { card, .. } | CardState::Reading { card, .. },
            ) if !is_reported => (card.atr, "the card was taken out before it was read".to_owned()),
            (None, CardState::Identified { card, identity, .. })
                if removal == Removal::Observed
                    && cx.settings.rules.has_rules_for(Trigger::Removed) =>
            {
                return self.detect(cx, Trigger::Removed, (card, identity, settings), at);
            }
            (None, _) => return,
        };
        let error = NotIdentified::new(NotIdentifiedReason::Removed, detail);
        self.failure_notes.add(cx, (reader, &settings.label), Some(atr), &error, at);
    }

    /// An identified card came or went: it makes an entry.
    fn detect(
        &mut self,
        cx: &Context,
        trigger: Trigger,
        (card, identity, settings): (InsertedCard, CardIdentity, ReaderSettings),
        seen: Now,
    ) {
        let insertion = card.insertion;
        let instance = match trigger {
            Trigger::Inserted => self.instance_of(&card.reader),
            Trigger::Removed => None,
        };
        let card_event = card_event(cx, trigger, (card, identity, settings), seen);
        let append = PendingAppend::new(card_event, instance, seen.mono);
        self.events.push(TrackerEvent::CardDetected { insertion, append });
    }

    fn clear_last_seen(&mut self, reader: &ReaderName) {
        let was_last_seen = self.last_seen.remove(reader).is_some();
        self.events.push(TrackerEvent::CardGone { reader: reader.clone(), was_last_seen });
    }

    /// The card is out of the reader, and may be back in a moment. Returns false where that is not
    /// waited for.
    fn start_debounce(&mut self, cx: &Context, reader: &ReaderName, removal: Removal) -> bool {
        let Some(tracked) = self.readers.get_mut(reader) else { return false };
        let debounce = tracked.settings.removal_debounce;
        let may_be_back =
            matches!(tracked.card, CardState::Reading { .. } | CardState::Identified { .. });
        if debounce.is_zero() || removal != Removal::Observed || !may_be_back {
            return false;
        }
        let card = std::mem::replace(&mut tracked.card, CardState::None);
        let until = cx.time.mono + debounce;
        let (since, removed_at) = (tracked.since, cx.time);
        tracked.pending_removal = Some(match tracked.pending_removal.take() {
            // It was the same ATR that was back; which card that was is not known.
            Some(first) => PendingRemoval { until, ..first },
            None => PendingRemoval { card, since, removed_at, until },
        });
        true
    }

    /// The card that was removed is not waited for any longer. Its removal was observed where it
    /// did not come back or another card came; else it may be what came in between.
    fn confirm_removal(&mut self, cx: &mut Context, reader: &ReaderName, removal: Removal) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let Some(pending) = tracked.pending_removal.take() else { return };
        if matches!(tracked.card, CardState::None) {
            tracked.since = pending.removed_at.wall;
        }
        self.finish_removal(cx, reader, (pending.card, removal), pending.removed_at);
    }

    /// Since when a card that was just read is in the reader; `None` where it is the card that was
    /// removed just now, whose insertion goes on.
    fn first_insertion(
        &mut self,
        cx: &mut Context,
        card: &InsertedCard,
        identity: &CardIdentity,
        seen: Now,
    ) -> Option<Now> {
        let tracked = self.readers.get_mut(&card.reader)?;
        match tracked.pending_removal.take() {
            // That one was not read before it was removed.
            Some(PendingRemoval { card: CardState::Reading { seen, .. }, .. }) => Some(seen),
            Some(PendingRemoval {
                card: CardState::Identified { identity: known, entry, first, .. },
                since,
                ..
            }) if is_same_card(&known, identity, card) => {
                tracked.since = since;
                if let Some(held) = &mut tracked.held {
                    held.until = cx.time.mono + held.pause;
                }
                let is_completed = known.partial && !identity.partial;
                tracked.card =
                    CardState::Identified { card: card.clone(), identity: known, entry, first };
                if is_completed {
                    self.on_fully_identified(&card.reader, identity);
                } else if tracked.is_partial() {
                    tracked.complete_later(card.insertion, cx.time);
                }
                None
            }
            pending => {
                tracked.pending_removal = pending;
                self.confirm_removal(cx, &card.reader, Removal::Observed);
                Some(seen)
            }
        }
    }
}

/// Whether a card that came back is the one that was removed. Of one that was read in part not all
/// ids are known, and the first may be another one.
fn is_same_card(known: &CardIdentity, identity: &CardIdentity, card: &InsertedCard) -> bool {
    let is_partial = known.partial || identity.partial;
    known.key(&card.atr) == identity.key(&card.atr)
        || (is_partial && known.shares_id_with(identity))
}

fn card_event(
    cx: &Context,
    trigger: Trigger,
    (card, identity, settings): (InsertedCard, CardIdentity, ReaderSettings),
    seen: Now,
) -> CardEvent {
    CardEvent {
        trigger,
        seen_at: seen.wall,
        reader: card.reader,
        label: settings.label,
        role: settings.role,
        event_count: card.event_count,
        atr: card.atr,
        identity,
        boot_moment: cx.boot_moment(seen.mono),
    }
}
