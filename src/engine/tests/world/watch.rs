//! What must never happen, watched at every call; and what happened, for the tests to look at.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::cm::{DISABLE, RETIRE, RETIRED};
use super::disk::is_parked;
use super::{Call, InFlight, READERS, SECOND, World, number_of};
use crate::domain::{
    CallError, CmOperation, CmView, Decision, Entry, EntryId, ReaderName, SetStatusResult, Stage,
};
use crate::engine::{CmEvent, CmResponse, Event};

/// The most entries that one card has at a time: one whose outcome is on its way to the disk, one
/// of its newest insertion, one for each reader that it was taken out of since; and as many that
/// wait for a person, until it is put in again.
const PER_CARD: usize = 2 * (2 + READERS.len());

impl World {
    pub(super) fn note_retry_after(&mut self, event: &Event) {
        let Event::Cm(CmEvent { entry, result, .. }) = event else { return };
        if self.cm_before.remove(entry) {
            return;
        }
        if let Err(CallError::Unavailable { retry_after: Some(time), .. }) = result {
            self.left_alone_until = self.left_alone_until.max(Some(self.now.mono + *time));
        }
    }

    /// A call has its answer, whether it still matters or not.
    pub(super) fn note_answer(&mut self, event: &Event) {
        let Event::Cm(CmEvent { entry, result, .. }) = event else { return };
        self.in_flight.remove(entry);
        if let Ok(CmResponse::Lookup(found)) = result {
            self.looked_up.insert(*entry, found.clone());
        }
    }

    /// The engine heard this answer, and has to act on it.
    pub(super) fn note_what_it_said(&mut self, event: &Event) {
        let Event::Cm(CmEvent { entry, result: Ok(response), .. }) = event else { return };
        match response {
            CmResponse::SetStatus(answer) => {
                self.said_yes.insert(*entry);
                if matches!(answer, SetStatusResult::Confirmed(_)) {
                    self.saw_it_set.insert(*entry);
                }
            }
            CmResponse::Record(record) => {
                let sent = self.disk.entries.get(entry).and_then(|row| row.stage.sent());
                if sent.is_some_and(|sent| {
                    sent.record == record.id && sent.new_status == record.status
                }) {
                    self.saw_it_set.insert(*entry);
                }
            }
            CmResponse::Lookup(found) => {
                for request in &found.requests {
                    self.completion_unknown.remove(&request.id);
                }
            }
            CmResponse::Request(_) => {
                if let Some(sent) = self.disk.entries.get(entry).and_then(|row| row.stage.sent()) {
                    self.completion_unknown.remove(&sent.request);
                }
            }
            CmResponse::CompleteRequest(_) => {}
        }
    }

    /// A completion is on disk, the record was seen to have the status, the request to be open,
    /// and no earlier completion of it is in the dark.
    pub(super) fn completion_justified(&mut self, entry: EntryId, decision: &Decision) {
        assert!(decision.complete_request, "no rule asks for it");
        assert_eq!(self.disk.entries[&entry].stage, Stage::Completing(decision.clone()));
        let looked_up = self.looked_up.get(&entry).and_then(|found| found.records.as_ref());
        let found_set = looked_up.is_some_and(|(_, records)| {
            records.iter().any(|is| is.id == decision.record && is.status == decision.new_status)
        });
        assert!(found_set || self.saw_it_set.contains(&entry), "unseen: {}", self.story());
        assert!(self.completion_unknown.insert(decision.request), "blindly: {}", self.story());
    }

    /// Never two calls for a card, never more cards than allowed, never two trials.
    pub(super) fn call(&mut self, ask: CmOperation, entry: EntryId, card: u8) {
        self.calls.push(Call { at: self.now.mono, ask, card, entry });
        let is_trial = self.engine.queue.breaker.is_open();
        if self.left_alone_until > Some(self.now.mono) {
            assert!(self.granted, "too soon: {}", self.story());
            (self.granted, self.left_alone_until) = (false, None);
        }
        let first = |(id, row): (&EntryId, &Entry)| {
            number_of(&row.card_event.identity) == card
                && !is_parked(&row.stage)
                && *id < entry
                && !self.retried.contains(id)
        };
        assert!(!self.disk.entries.iter().any(first), "out of order: {}", self.story());
        if is_trial {
            let last = self.last_trial.replace(self.now.mono);
            let apart = last.is_none_or(|last| self.now.mono >= last + SECOND);
            assert!(apart, "trials too close: {}", self.story());
            assert!(
                !self.in_flight.values().any(|call| call.is_trial),
                "two trials: {}",
                self.story()
            );
        }
        assert!(
            !self.in_flight.values().any(|call| call.card == card),
            "two hands: {}",
            self.story()
        );
        self.in_flight.insert(entry, InFlight { card, is_trial });
        assert!(self.in_flight.len() <= self.policy.concurrency.get(), "{}", self.story());
    }

    /// An update is on disk, follows from what was looked up last, and was not confirmed before.
    pub(super) fn justified(&mut self, entry: EntryId, decision: &Decision) {
        assert_eq!(self.disk.entries[&entry].stage, Stage::Sent(decision.clone()));
        assert!(
            !self.said_yes.contains(&entry),
            "CM said yes to {entry} already: {}",
            self.story()
        );
        let found = self.looked_up.remove(&entry).expect("looked up just before");
        let asks = |kind| {
            let mut requests = found.requests.iter();
            requests.any(|request| {
                request.id == decision.request
                    && request.request_type == kind
                    && request.old_card == Some(decision.record)
            })
        };
        let kind = if decision.new_status == RETIRED { RETIRE } else { DISABLE };
        assert!(asks(kind), "no request asks for {decision:?}");
        let (_, records) = found.records.as_ref().unwrap();
        let record = records.iter().find(|record| record.id == decision.record).unwrap();
        assert_eq!(record.status, decision.old_status);
        assert_ne!(record.status, decision.new_status);
    }

    /// What is held in memory has a bound that no history passes.
    pub(super) fn bounded(&self) {
        let engine = &self.engine;
        let cards: BTreeSet<u8> =
            self.disk.appended.values().map(|draft| number_of(&draft.identity)).collect();
        let (waiting, parked, busy) = engine.queue.sizes();
        let (readers, stays) = engine.tracker.sizes();
        let held = waiting
            + parked
            + engine.append_queue.size()
            + readers
            + engine.tracker.failure_notes.size();
        let story = || self.story();
        assert!(waiting + parked <= PER_CARD * cards.len(), "entries: {}", story());
        assert!(busy <= cards.len(), "cards in hand: {}", story());
        assert!(engine.context.effects.len() <= 2 * held + 8, "effects: {}", story());
        assert!(engine.context.recent_audit.len() <= 20, "lines: {}", story());
        assert!(engine.queue.breaker.size() <= self.in_flight.len(), "forgotten: {}", story());
        assert!(readers <= READERS.len() && stays <= READERS.len(), "readers: {}", story());
    }

    /// Every removal that was seen in this life is on disk, and none that was not.
    pub(in crate::engine) fn check_removals(&self) {
        assert_eq!(self.disk.removals(), self.removals_due, "{}", self.story());
    }

    pub(in crate::engine) fn seated(&self) -> impl Iterator<Item = (&ReaderName, u8)> {
        self.seats.iter().filter_map(|(reader, seat)| Some((reader, seat.card?)))
    }

    pub(in crate::engine) fn trail(&self, entry: i64) -> Vec<String> {
        self.disk.trail(EntryId::new(entry))
    }

    /// The last line about an entry.
    pub(in crate::engine) fn outcome(&self, entry: i64) -> String {
        self.trail(entry).pop().unwrap_or_else(|| "none".to_owned())
    }

    pub(in crate::engine) fn asked(&self, ask: CmOperation) -> usize {
        self.calls.iter().filter(|call| call.ask == ask).count()
    }

    pub(in crate::engine) fn asked_for(&self, card: u8) -> usize {
        self.calls.iter().filter(|call| call.card == card).count()
    }

    pub(in crate::engine) fn is_away(&self) -> bool {
        matches!(self.engine.cm_view(self.now), CmView::Unavailable { .. })
    }

    /// What happened, for a test that fails.
    pub(in crate::engine) fn story(&self) -> String {
        let mut story = String::new();
        for call in &self.calls {
            let at = call.at.saturating_duration_since(self.started.mono);
            writeln!(story, "{at:?} {:?} card {} entry {}", call.ask, call.card, call.entry)
                .unwrap();
        }
        for id in self.disk.ever() {
            let stage = self.disk.entries.get(&id).map(|row| &row.stage);
            writeln!(story, "entry {id}: {:?} {stage:?}", self.disk.trail(id)).unwrap();
        }
        let at = self.now.mono.saturating_duration_since(self.started.mono);
        format!("\n{story}at {at:?}, crash {:?}, {:#?}", self.crash, self.engine)
    }

    pub(in crate::engine) fn entries(&self) -> i64 {
        self.disk.last
    }
}
