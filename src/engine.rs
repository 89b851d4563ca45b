//! The state machine between the readers, the outbox and CM.
//!
//! It reads no clock, sends nothing and stores nothing. The caller reports what happened, with the
//! time at which it happened ([`Engine::handle`], [`Engine::handle_timeout`]), takes out what is to
//! be done ([`Engine::poll_effect`]) and when to come back ([`Engine::poll_timeout`]).
//!
//! - `tracker` follows readers and cards up to an identity.
//! - `append_queue` holds identified cards until they are on disk; from there on they are entries.
//! - `queue` brings entries to their outcome, a step at a time; `circuit_breaker` says when CM may
//!   be called.
//! - `failure_notes` keeps cards that cannot be identified from filling the audit trail.
//!
//! What must never happen, and how it is prevented:
//!
//! - *Something is sent that is not on disk.* `SetStatus` follows only the `StageSaved` of its
//!   decision.
//! - *Something is sent again unseen.* An entry that may have been sent reads the record back first.
//!   A PUT that CM applies only after that is sent again, with the same content.
//! - *Two calls for one card.* A card is in progress from the first step of an entry until its end,
//!   and a call whose result no longer matters keeps its card in progress until it returns.
//! - *A late result is believed.* Each result names its insertion or entry; one that is not current
//!   is dropped and counted. One that names an unknown entry is reported as well.

use std::collections::VecDeque;
use std::time::Instant;

use crate::domain::{
    AuditLine, CardEvent, CardIdentity, CmView, EngineCounters, EntryId, EntryView, InsertionId,
    OutboxView, Outcome, PcscdView, ReaderEvent, ReaderView, Trigger,
};

mod append_queue;
mod circuit_breaker;
mod context;
mod failure_notes;
mod interface;
mod queue;
mod tracker;

pub use interface::{
    ActionError, CmCall, CmEvent, CmResponse, Effect, EngineSettings, Event, NewEntry, Notice, Now,
    OutboxEffect, OutboxEvent, OutboxFailure, ReaderEffect, RestoredState, RetryAccepted,
    RetryPolicy,
};

use append_queue::{AppendQueue, CardEventKey, PendingAppend};
use context::Context;
use queue::{CardReadInPart, Queue};
use tracker::{ReaderTracker, TrackerEvent};

/// The state machine. See the head of this module.
#[derive(Debug)]
pub struct Engine {
    context: Context,
    tracker: ReaderTracker,
    append_queue: AppendQueue,
    queue: Queue,
}

impl Engine {
    /// Continues from what the outbox held. `seed` determines the jitter.
    pub fn new(settings: EngineSettings, restored: RestoredState, seed: u64, now: Now) -> Self {
        let mut engine = Self {
            tracker: ReaderTracker::new(restored.last_seen),
            append_queue: AppendQueue::default(),
            queue: Queue::new(restored.entries, restored.moment.as_ref(), now),
            context: Context {
                time: now,
                settings,
                random: fastrand::Rng::with_seed(seed),
                effects: VecDeque::new(),
                counters: EngineCounters::default(),
                recent_audit: restored.latest.into(),
                outbox_error: None,
                started: restored.moment.map(|moment| (moment, now.mono)),
            },
        };
        engine.advance();
        engine
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, event: Event, now: Now) {
        self.context.time = now;
        match event {
            Event::Reader(event) => self.on_reader_event(event),
            Event::Cm(event) => self.on_cm_event(event),
            Event::Outbox(event) => self.on_outbox_event(event),
            Event::Reconfigured(settings) => {
                self.context.settings = *settings;
                self.tracker.apply_settings(&self.context);
                self.queue.on_reconfigured(&self.context);
            }
        }
        self.advance();
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now) {
        self.context.time = now;
        self.tracker.on_timeout(&mut self.context);
        self.route_tracker_events();
        self.advance();
    }

    /// The next thing to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.context.effects.pop_front()
    }

    /// When [`Engine::handle_timeout`] has something to do, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.tracker.next_deadline(),
            self.append_queue.next_deadline(),
            self.queue.next_deadline(&self.context),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Retries an entry at once; a parked one is requeued on disk first.
    pub fn retry(&mut self, id: EntryId, by: &str, now: Now) -> Result<RetryAccepted, ActionError> {
        self.context.time = now;
        let accepted = self.queue.retry(&mut self.context, id, by)?;
        self.advance();
        Ok(accepted)
    }

    /// Removes an entry for good.
    pub fn discard(&mut self, id: EntryId, by: &str, now: Now) -> Result<(), ActionError> {
        self.context.time = now;
        self.queue.discard(&mut self.context, id, by)
    }

    /// The counts of failures that were not audited yet, for an engine that ends.
    pub fn take_unwritten_counts(&mut self, now: Now) -> Vec<AuditLine> {
        self.context.time = now;
        self.tracker.failure_notes.take(&self.context, true)
    }

    pub const fn counters(&self) -> &EngineCounters {
        &self.context.counters
    }

    pub fn pcscd_view(&self) -> PcscdView {
        self.tracker.pcscd_view()
    }

    pub fn reader_views(&self) -> Vec<ReaderView> {
        self.tracker.reader_views()
    }

    pub fn cm_view(&self, now: Now) -> CmView {
        self.queue.cm_view(now)
    }

    pub fn outbox_view(&self) -> OutboxView {
        self.queue.outbox_view(self.context.outbox_error.clone())
    }

    /// Every entry that waits, the oldest first.
    pub fn entry_views(&self, now: Now) -> Vec<EntryView> {
        self.queue.entry_views(now)
    }

    /// The latest audit lines, the newest first.
    pub fn latest(&self) -> Vec<AuditLine> {
        self.context.recent_audit.iter().cloned().collect()
    }

    fn on_reader_event(&mut self, event: ReaderEvent) {
        if matches!(event, ReaderEvent::InitialScanDone) {
            self.tracker.on_initial_scan_done(self.append_queue.readers().cloned());
        } else {
            self.tracker.on_reader_event(&mut self.context, event);
        }
        self.route_tracker_events();
    }

    /// Hands on what the tracker found, in its order.
    fn route_tracker_events(&mut self) {
        for event in std::mem::take(&mut self.tracker.events) {
            match event {
                TrackerEvent::CardDetected { insertion, append } => {
                    self.enqueue(insertion, append);
                }
                TrackerEvent::CardGone { reader, was_last_seen } => {
                    if self.append_queue.mark_removed(&reader) || was_last_seen {
                        self.context.store(OutboxEffect::ClearLastSeen { reader });
                    }
                }
                TrackerEvent::FullyIdentified { insertion, entry: None, identity } => {
                    self.append_queue.complete(insertion, identity);
                }
                TrackerEvent::FullyIdentified { insertion, entry: Some(entry), identity } => {
                    self.replace_partial(insertion, entry, identity);
                }
            }
        }
    }

    fn enqueue(&mut self, insertion: InsertionId, append: PendingAppend) {
        if let Err(card_event) = self.append_queue.push(insertion, append) {
            self.context.report(Notice::CardDropped(card_event));
        }
    }

    /// Replaces an entry that has a part of its card's ids by one with all of them, unless CM was
    /// asked to change something for it.
    fn replace_partial(&mut self, insertion: InsertionId, id: EntryId, identity: CardIdentity) {
        let now = self.context.time.mono;
        let Some((card_event, seen_at)) = self.queue.to_replace(id, now) else { return };
        let instance = self.tracker.instance_of(&card_event.reader);
        let card_event = CardEvent { identity, ..card_event };
        let mut append = PendingAppend::new(card_event, instance, seen_at);
        append.replaces_partial = Some(id);
        self.enqueue(insertion, append);
    }

    fn on_cm_event(&mut self, event: CmEvent) {
        let id = event.entry;
        let may_complete = self.tracker.may_complete(id);
        let unfinished = self.queue.on_cm_event(&mut self.context, event, may_complete);
        if let Some(CardReadInPart(detail)) = unfinished {
            // If the card still lies in its reader unseen, it is a new insertion once it is seen.
            self.tracker.forget_card_of(&mut self.context, id);
            self.queue.finish(&mut self.context, id, Outcome::NotIdentified, detail);
        }
    }

    fn on_outbox_event(&mut self, event: OutboxEvent) {
        let context = &mut self.context;
        match event {
            OutboxEvent::EntryAppended { insertion, trigger, result: Ok((entry, lines)) } => {
                self.on_entry_appended((insertion, trigger), entry, lines);
            }
            OutboxEvent::EntryAppended { insertion, trigger, result: Err(failure) } => {
                if trigger == Trigger::Inserted {
                    self.queue.not_superseded(insertion);
                }
                self.append_queue.retry((insertion, trigger), |n| context.next_try(n));
                context.on_outbox_error(&failure);
            }
            OutboxEvent::StageSaved { entry, result } => {
                self.queue.on_stage_saved(context, entry, result);
            }
            OutboxEvent::EntrySettled { entry, result } => {
                self.queue.on_settled(context, entry, result);
            }
            OutboxEvent::EntryUnparked { entry, result } => {
                self.queue.on_unparked(context, entry, result);
            }
            OutboxEvent::AuditAppended(line) => context.publish(line),
        }
    }

    fn on_entry_appended(&mut self, key: CardEventKey, id: EntryId, lines: Vec<AuditLine>) {
        let (insertion, trigger) = key;
        let Some(pending) = self.append_queue.take_appended(key) else {
            return self.context.report_unexpected(&insertion, "entry appended");
        };
        for line in lines {
            self.context.publish(line);
        }
        self.context.on_outbox_recovered();
        if !pending.card_removed {
            self.tracker.on_entry_appended(insertion, &pending.card_event, pending.instance, id);
        }
        let PendingAppend { card_event, seen_at, full_identity, .. } = pending;
        self.queue.add_appended(&self.context, insertion, id, (card_event, seen_at));
        if let Some(identity) = full_identity {
            self.replace_partial(insertion, id, identity);
        }
        if trigger == Trigger::Inserted {
            self.queue.breaker.expedite_trial(self.context.time);
        }
    }

    /// Starts whatever may start now.
    fn advance(&mut self) {
        self.start_appends();
        self.queue.release_incomplete(&self.context, |id| self.tracker.may_complete(id));
        self.queue.start_entries(&mut self.context);
    }

    fn start_appends(&mut self) {
        let now = self.context.time.mono;
        while let Some((insertion, append)) = self.append_queue.start_due(now) {
            let PendingAppend { card_event, instance, replaces_partial, .. } = append;
            let (reader, trigger) = (card_event.reader.clone(), card_event.trigger);
            let replaced = (insertion, replaces_partial);
            let (stage, supersedes) = self.queue.supersede(&self.context, &card_event, replaced);
            let entry = NewEntry { card_event, stage, instance, supersedes };
            self.context.store(OutboxEffect::AppendEntry { insertion, entry });
            // Each insertion that is stored becomes the reader's last seen card.
            if append.card_removed && trigger == Trigger::Inserted {
                self.context.store(OutboxEffect::ClearLastSeen { reader });
            }
        }
    }
}

#[cfg(test)]
mod tests;
