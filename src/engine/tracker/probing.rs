//! Cards that are being read: from the moment at which their identity is known, that counts.
//!
//! What follows within a probe is the inventory. A card that leaves or hangs then is identified
//! without it, and its entry waits no longer than [`INVENTORY_TIMEOUT`] for it.
//!
//! A card waits for the attributes of its reader only where a `[[reader]]` matches on vendor or serial
//! number: reading it in a reader that is disabled, or under another role, would be wrong. Where the
//! driver cannot be asked, the card is not identified, and read when the driver answers after all.
//!
//! A card that another program uses, and one that was identified in part because of that, are both
//! read again when the other program releases them; or after a while, ever less often, should that
//! not be noticed.

use std::time::Duration;

use super::reader::{AttributesState, CardState};
use super::{ReaderTracker, TrackerEvent};
use crate::domain::{
    CardIdentity, EntryId, InsertedCard, InsertionId, NotIdentified, NotIdentifiedReason,
    ProbeResult, ReaderAttributes, ReaderName, Removal, Trigger,
};
use crate::engine::context::{Context, count};
use crate::engine::interface::{Effect, Notice, Now, ReaderEffect};
use crate::engine::tracker::flapping::HeldCard;

/// How long the inventory may take. The readers send no command for it after half of that.
const INVENTORY_TIMEOUT: Duration = Duration::from_secs(1);

impl ReaderTracker {
    /// Starts to read a card that was seen a moment ago.
    pub(super) fn start_reading(&mut self, cx: &mut Context, card: InsertedCard, seen: Now) {
        let deadline = cx.time.mono + cx.settings.probe_deadline;
        let Some(tracked) = self.readers.get_mut(&card.reader) else { return };
        let skip_atr = &cx.settings.skip_atr;
        let skipped = NotIdentified::skipped_by_config(&tracked.settings, skip_atr, &card.atr);
        if let Some(error) = skipped {
            tracked.card = CardState::NotIdentified { card, error };
            tracked.in_use_retry = None;
            return;
        }
        start_probe(cx, &card, false);
        tracked.card = CardState::Reading { card, seen, deadline, known: None };
    }

    pub(super) fn on_attributes_read(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        attributes: ReaderAttributes,
    ) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let was_awaited = tracked.awaits_attributes(&cx.settings.readers, reader);
        tracked.settings = cx.settings.readers.settings_for(reader, &attributes);
        tracked.attributes = AttributesState::Known(attributes);
        if let CardState::AwaitingAttributes { card, seen } = &tracked.card {
            let (card, seen) = (card.clone(), *seen);
            self.start_reading(cx, card, seen);
        } else if let CardState::NotIdentified { card, .. } = &tracked.card
            && was_awaited
        {
            let card = card.clone();
            self.start_reading(cx, card, cx.time);
        }
    }

    /// The driver has not answered in time: the card is not identified, unless the rules no longer
    /// ask for attributes.
    pub(super) fn on_attributes_timeout(&mut self, cx: &mut Context, reader: &ReaderName) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let CardState::AwaitingAttributes { card, seen } = &tracked.card else { return };
        let (card, seen) = (card.clone(), *seen);
        if !tracked.awaits_attributes(&cx.settings.readers, reader) {
            return self.start_reading(cx, card, seen);
        }
        let detail = "the driver did not report vendor or serial number, which a [[reader]] rule matches on; another program may hold the card exclusively";
        let error = NotIdentified::new(NotIdentifiedReason::ReadError, detail.to_owned());
        let (label, atr) = (tracked.settings.label.as_str(), Some(card.atr.clone()));
        self.failure_notes.add(cx, (reader, label), atr, &error, cx.time);
        tracked.card = CardState::NotIdentified { card, error };
    }

    /// The identity of a card that is being read is known.
    pub(super) fn on_identified(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        insertion: InsertionId,
        identity: CardIdentity,
    ) {
        let tracked = self.readers.get_mut(reader);
        if let Some(CardState::Reading { card, deadline, known, .. }) =
            tracked.map(|tracked| &mut tracked.card)
            && card.insertion == insertion
        {
            if !identity.partial {
                *deadline = (cx.time.mono + INVENTORY_TIMEOUT).min(*deadline);
            }
            *known = Some(Box::new(identity));
        } else {
            cx.count_stale_result();
        }
    }

    /// A card whose identity is known is identified, whatever happens to it now.
    pub(super) fn end_reading(&mut self, cx: &mut Context, reader: &ReaderName) {
        let tracked = self.readers.get(reader);
        if let Some(CardState::Reading { card, known: Some(known), .. }) =
            tracked.map(|tracked| &tracked.card)
        {
            let (insertion, identity) = (card.insertion, known.as_ref().clone());
            self.on_probe_finished(cx, reader, insertion, Ok(identity));
        }
    }

    /// Gives up on a card that was not read in time.
    pub(super) fn abandon_probe(&mut self, cx: &mut Context, reader: &ReaderName) {
        let insertion = self.readers.get(reader).and_then(|tracked| tracked.card.insertion());
        let Some(insertion) = insertion else { return };
        cx.effects.push_back(Effect::Reader(ReaderEffect::AbandonProbe { reader: reader.clone() }));
        let seconds = cx.settings.probe_deadline.as_secs();
        let detail =
            format!("the card was not read within {seconds} s: take it out and put it in again");
        let error = NotIdentified::new(NotIdentifiedReason::Timeout, detail);
        self.on_probe_finished(cx, reader, insertion, Err(error));
    }

    pub(super) fn on_probe_finished(
        &mut self,
        cx: &mut Context,
        reader: &ReaderName,
        insertion: InsertionId,
        result: Result<CardIdentity, NotIdentified>,
    ) {
        if self.on_read_again(cx, reader, insertion, &result) {
            return;
        }
        let tracked = self.readers.get_mut(reader).map(|tracked| &mut tracked.card);
        let Some(CardState::Reading { card, seen, known, .. }) = tracked else {
            return cx.count_stale_result();
        };
        if card.insertion != insertion {
            return cx.count_stale_result();
        }
        let (card, seen, known) = (card.clone(), *seen, known.take());
        match result.or_else(|error| known.map(|known| *known).ok_or(error)) {
            Ok(identity) => {
                count(&mut cx.counters.probes, ProbeResult::Identified(identity.family));
                if let Some(seen) = self.first_insertion(cx, &card, &identity, seen) {
                    self.on_new_identity(cx, card, identity, seen);
                }
            }
            Err(error) => {
                count(&mut cx.counters.probes, ProbeResult::NotIdentified(error.reason));
                self.on_read_error(cx, card, error);
            }
        }
    }

    fn on_read_error(&mut self, cx: &mut Context, card: InsertedCard, error: NotIdentified) {
        let reader = card.reader.clone();
        // Gone again before it was read: the report of its removal follows.
        if error.reason == NotIdentifiedReason::Removed
            && self.start_debounce(cx, &reader, Removal::Observed)
        {
            return;
        }
        // Whether it is the card that was removed just now is not known.
        self.confirm_removal(cx, &reader, Removal::Inferred);
        let Some(tracked) = self.readers.get_mut(&reader) else { return };
        if !tracked.schedule_retry(card.insertion, &error, cx.time) {
            let (label, atr) = (tracked.settings.label.as_str(), Some(card.atr.clone()));
            self.failure_notes.add(cx, (&reader, label), atr, &error, cx.time);
        }
        tracked.card = CardState::NotIdentified { card, error };
    }

    fn on_new_identity(
        &mut self,
        cx: &mut Context,
        card: InsertedCard,
        identity: CardIdentity,
        seen: Now,
    ) {
        let (reader, insertion) = (card.reader.clone(), card.insertion);
        let entry = self.entry_of_same_insertion(&card, &identity);
        if entry.is_none() {
            self.clear_last_seen(&reader);
        }
        let Some(tracked) = self.readers.get_mut(&reader) else { return };
        let (settings, instance) = (tracked.settings.clone(), tracked.instance.clone());
        tracked.card = CardState::Identified {
            card: card.clone(),
            identity: identity.clone(),
            entry,
            first: insertion,
        };
        tracked.in_use_retry = None;
        if identity.partial {
            tracked.complete_later(insertion, cx.time);
        }
        if let Some(entry) = entry {
            let detected = (card, identity.clone(), settings);
            let card_event = super::card_event(cx, Trigger::Inserted, detected, seen);
            self.on_entry_appended(insertion, &card_event, instance, entry);
            if !identity.partial {
                let entry = Some(entry);
                self.events.push(TrackerEvent::FullyIdentified { insertion, entry, identity });
            }
        } else if !self.hold(cx, &card, &identity, seen) {
            self.detect(cx, Trigger::Inserted, (card, identity, settings), seen);
        }
    }

    /// The entry of the same insertion, where it is certain that the card never left the reader: same
    /// card, same ATR, same instance, and an event counter that did not change. One at 0 may have been
    /// reset, or never changes.
    fn entry_of_same_insertion(
        &self,
        card: &InsertedCard,
        identity: &CardIdentity,
    ) -> Option<EntryId> {
        let last_seen = self.last_seen.get(&card.reader).filter(|_| card.at_start)?;
        let instance = self.instance_of(&card.reader);
        let is_watched = instance.is_some() && last_seen.instance == instance;
        let is_same = last_seen.atr == card.atr && last_seen.card == identity.key(&card.atr);
        let has_count = last_seen.event_count == card.event_count && card.event_count > 0;
        (is_watched && is_same && has_count).then_some(last_seen.entry)
    }

    /// Whether a card that was just identified is held, because it came too often.
    fn hold(
        &mut self,
        cx: &mut Context,
        card: &InsertedCard,
        identity: &CardIdentity,
        seen: Now,
    ) -> bool {
        let Some(tracked) = self.readers.get_mut(&card.reader) else { return false };
        let key = identity.key(&card.atr);
        let (pause, is_new) = tracked.flapping.on_insertion(&key, seen.mono);
        if pause.is_zero() {
            return false;
        }
        let (insertion, until) = (card.insertion, seen.mono + pause);
        tracked.held = Some(HeldCard { insertion, key, seen, pause, until });
        if is_new {
            cx.report(Notice::CardFlapping { reader: card.reader.clone() });
        }
        true
    }

    /// A card that was held and has lain still makes its entry.
    pub(super) fn enter_held(&mut self, cx: &Context, reader: &ReaderName) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let CardState::Identified { card, identity, first, .. } = &tracked.card else { return };
        let Some(held) = tracked.held.take() else { return };
        tracked.flapping.count_entry(&held.key);
        let card = InsertedCard { insertion: *first, ..card.clone() };
        let detected = (card, identity.clone(), tracked.settings.clone());
        self.detect(cx, Trigger::Inserted, detected, held.seen);
    }

    /// Reads a card again that was in use, or gives that up for a while.
    pub(super) fn retry_in_use(&mut self, cx: &mut Context, reader: &ReaderName) {
        let deadline = cx.time.mono + cx.settings.probe_deadline;
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        let Some(card) = tracked.card.card().cloned() else { return };
        if matches!(tracked.card, CardState::NotIdentified { .. }) {
            return self.start_reading(cx, card, cx.time);
        }
        let Some(retry) = &mut tracked.in_use_retry else { return };
        let skip_atr = &cx.settings.skip_atr;
        if retry.reading_until.is_some() {
            tracked.complete_later(card.insertion, cx.time);
            let reader = reader.clone();
            cx.effects.push_back(Effect::Reader(ReaderEffect::AbandonProbe { reader }));
        } else if NotIdentified::skipped_by_config(&tracked.settings, skip_atr, &card.atr).is_some()
        {
            tracked.in_use_retry = None;
        } else {
            retry.reading_until = Some(deadline);
            start_probe(cx, &card, true);
        }
    }

    /// The result of a card that is known in part and was read again; false where it is none.
    fn on_read_again(
        &mut self,
        cx: &Context,
        reader: &ReaderName,
        insertion: InsertionId,
        result: &Result<CardIdentity, NotIdentified>,
    ) -> bool {
        let Some(tracked) = self.readers.get_mut(reader) else { return false };
        let retry = tracked.current_retry();
        if retry.is_none_or(|retry| retry.reading_until.is_none())
            || tracked.card.insertion() != Some(insertion)
        {
            return false;
        }
        match result {
            Ok(identity) if !identity.partial => self.on_fully_identified(reader, identity),
            Ok(_) | Err(_) => tracked.complete_later(insertion, cx.time),
        }
        true
    }

    /// A card that was known in part is known in full.
    pub(super) fn on_fully_identified(&mut self, reader: &ReaderName, identity: &CardIdentity) {
        let Some(tracked) = self.readers.get_mut(reader) else { return };
        tracked.in_use_retry = None;
        let CardState::Identified { identity: known, entry, first, .. } = &mut tracked.card else {
            return;
        };
        known.clone_from(identity);
        let (insertion, entry, identity) = (*first, *entry, identity.clone());
        self.events.push(TrackerEvent::FullyIdentified { insertion, entry, identity });
    }
}

fn start_probe(cx: &mut Context, card: &InsertedCard, only_free: bool) {
    cx.effects.push_back(Effect::Reader(ReaderEffect::StartProbe {
        reader: card.reader.clone(),
        insertion: card.insertion,
        atr: card.atr.clone(),
        only_free,
    }));
}
