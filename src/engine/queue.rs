//! Entries, from the disk to their outcome, a step at a time. Here: which of them start, and when.
//!
//! ```text
//! Lookup → Saving → SetStatus → Settling               (what the rules decide is sent)
//! ReadRecord → Settling | Lookup                       (something may have been sent before)
//!
//! SetStatus | Lookup → Saving → CompleteRequest → Settling  (the rule completes the request too)
//! ReadRecord [→ Saving] → ReadRequest → CompleteRequest | Settling
//! ```
//!
//! An entry whose step fails becomes idle and is retried later. What is known about a possible change
//! in CM (`Stage::Sent`, `Stage::Completing`) is never forgotten by that.
//!
//! 100,000 entries may wait, and the queue is asked at every event. So `waiting_order` and
//! `first_order` note each entry that becomes idle, and a note is dropped when it comes up and the
//! entry does something else by then, or waits until another moment. An entry that may not start yet,
//! because its card is in progress or an older entry of it has to end first, keeps its note and is
//! passed over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::circuit_breaker::{Admission, CircuitBreaker, millis_until};
use super::context::Context;
use super::interface::{CmCall, Effect, Now};
use crate::domain::{
    BootMoment, CardEvent, CardKey, CmView, Entry, EntryId, EntryView, InsertionId, OutboxView,
    Outcome, ParkReason, Settlement, Stage, Trigger,
};
use entry::{EntryStep, ParkedEntry, PendingEntry, Takeover};

mod calls;
mod entry;
mod settling;

/// The rules decide nothing for a card that was read in part, and it cannot be read in full any
/// more; with the reason.
#[derive(Debug)]
#[must_use]
pub(super) struct CardReadInPart(pub(super) String);

/// Every entry that is not settled, or settled as parked.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) breaker: CircuitBreaker,
    waiting: BTreeMap<EntryId, PendingEntry>,
    parked: BTreeMap<EntryId, ParkedEntry>,
    /// The cards that are in progress, each with its entry.
    in_progress: BTreeMap<CardKey, EntryId>,
    /// Entries whose outcome the disk refused, to be offered again.
    unsaved_outcomes: BTreeSet<EntryId>,
    /// Entries of cards that are known in part: the rules decide nothing by that part, and the cards
    /// are to be read in full.
    incomplete: BTreeSet<EntryId>,
    /// Idle entries, by the moment until which they wait.
    waiting_order: BTreeSet<(Instant, EntryId)>,
    /// Idle entries that go before those.
    first_order: BTreeSet<EntryId>,
    /// No entry that has not expired has waited since before this.
    oldest_since: Option<Instant>,
    /// An entry has expired, and ends once it may.
    has_overdue: bool,
    /// How many entries succeeded: CM did, or knew, all that they asked.
    success_count: u64,
}

impl Queue {
    pub(super) fn new(entries: Vec<Entry>, moment: Option<&BootMoment>, now: Now) -> Self {
        let mut queue = Self {
            breaker: CircuitBreaker::default(),
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            unsaved_outcomes: BTreeSet::new(),
            incomplete: BTreeSet::new(),
            waiting_order: BTreeSet::new(),
            first_order: BTreeSet::new(),
            oldest_since: None,
            has_overdue: false,
            success_count: 0,
        };
        let mut newest = BTreeMap::new();
        for entry in entries {
            let id = entry.id;
            if matches!(entry.stage, Stage::Parked { .. }) {
                queue.parked.insert(id, ParkedEntry { entry, takeover: None });
                continue;
            }
            let mut waiting = PendingEntry::from_disk(entry, moment, now);
            waiting.blocked_by = newest.insert(waiting.card_event.card_key(), id);
            queue.add(id, waiting);
        }
        queue
    }

    fn add(&mut self, id: EntryId, entry: PendingEntry) {
        self.oldest_since = self.oldest_since.into_iter().chain([entry.since]).min();
        self.waiting.insert(id, entry);
        self.note_idle(id);
    }

    /// What a new entry of a card replaces, and what it inherits from it. A removal replaces nothing:
    /// what the insertion began ends first. `replaced` is the new insertion, and the entry of the
    /// same insertion that has a part of its ids.
    pub(super) fn supersede(
        &mut self,
        cx: &Context,
        card_event: &CardEvent,
        (insertion, partial): (InsertionId, Option<EntryId>),
    ) -> (Stage, Vec<(EntryId, Option<Settlement>)>) {
        let card = card_event.card_key();
        let mut inherited = Stage::Queued;
        let mut superseded = Vec::new();
        if card_event.trigger == Trigger::Removed {
            return (inherited, superseded);
        }
        for (id, old) in &mut self.waiting {
            let is_partial = partial == Some(*id);
            if (old.card_event.card_key() == card || is_partial) && old.can_be_superseded() {
                inherited = inherited_stage(inherited, &old.stage);
                old.superseded_by = Some(insertion);
                let detail = if is_partial { FULLY_READ } else { INSERTED_AGAIN }.to_owned();
                let end = old.settlement(Outcome::Superseded, detail, cx.time);
                superseded.push((*id, Some(end)));
            }
        }
        for (id, old) in &mut self.parked {
            let is_replaced = old.entry.card_event.card_key() == card || partial == Some(*id);
            if is_replaced && old.takeover.is_none() {
                old.takeover = Some(Takeover::Insertion(insertion));
                superseded.push((*id, None));
            }
        }
        (inherited, superseded)
    }

    /// The new entry is on disk, and those that it replaces are gone from there.
    pub(super) fn add_appended(
        &mut self,
        cx: &Context,
        insertion: InsertionId,
        id: EntryId,
        (card_event, seen): (CardEvent, Instant),
    ) {
        let card = card_event.card_key();
        let mut stage = Stage::Queued;
        self.waiting.retain(|_, old| {
            let keep = old.superseded_by != Some(insertion);
            if !keep {
                stage = inherited_stage(std::mem::replace(&mut stage, Stage::Queued), &old.stage);
            }
            keep
        });
        self.parked.retain(|_, old| old.takeover != Some(Takeover::Insertion(insertion)));
        let mut new = PendingEntry::new(card_event, stage, seen, cx.time.mono);
        new.successes_at_failure = self.success_count;
        let older = self.waiting.iter().rev().find(|(_, old)| old.card_event.card_key() == card);
        new.blocked_by = older.map(|(id, _)| *id);
        new.is_first = new.card_event.trigger == Trigger::Inserted;
        self.add(id, new);
    }

    /// The new entry is not on disk: those that it would have replaced go on.
    pub(super) fn not_superseded(&mut self, insertion: InsertionId) {
        for old in self.waiting.values_mut() {
            old.superseded_by.take_if(|by| *by == insertion);
        }
        for old in self.parked.values_mut() {
            old.takeover.take_if(|by| *by == Takeover::Insertion(insertion));
        }
    }

    /// What a full identity is put into, and when that card was seen, unless CM was asked to change
    /// something. An entry that is parked by the part that it has, or about to be, is no more than
    /// that part either.
    pub(super) fn to_replace(&self, id: EntryId, now: Instant) -> Option<(CardEvent, Instant)> {
        let (card_event, seen, is_undecided) = if let Some(entry) = self.waiting.get(&id) {
            let is_undecided = match &entry.step {
                EntryStep::Idle | EntryStep::Calling(CmCall::Lookup(_)) => {
                    entry.superseded_by.is_none()
                }
                EntryStep::Settling(end) => end.outcome.park_reason().is_some(),
                EntryStep::Calling(_) | EntryStep::Saving { .. } => false,
            };
            (&entry.card_event, entry.seen, is_undecided && entry.stage.sent().is_none())
        } else {
            let ParkedEntry { entry, takeover } = self.parked.get(&id)?;
            (&entry.card_event, now, takeover.is_none() && entry.stage.sent().is_none())
        };
        (is_undecided && card_event.identity.partial).then(|| (card_event.clone(), seen))
    }

    pub(super) fn outbox_view(&self, write_error: Option<String>) -> OutboxView {
        OutboxView {
            waiting: self.waiting.len(),
            parked: self.parked.len(),
            oldest_waiting_at: self.waiting.values().map(|entry| entry.card_event.seen_at).min(),
            write_error,
        }
    }

    pub(super) fn cm_view(&self, now: Now) -> CmView {
        self.breaker.view(self.next_idle(), now)
    }

    /// Every entry; one that waits for CM waits for the next trial too.
    pub(super) fn entry_views(&self, now: Now) -> Vec<EntryView> {
        let trial = self.breaker.next_trial();
        let waiting = self.waiting.iter().map(|(id, entry)| EntryView {
            entry: Entry {
                id: *id,
                card_event: entry.card_event.clone(),
                stage: entry.stage.clone(),
            },
            attempts: entry.attempts,
            last_error: entry.last_error.clone(),
            next_try_ms: (entry.step == EntryStep::Idle).then(|| {
                let next = trial.map_or(entry.not_before, |trial| trial.max(entry.not_before));
                millis_until(next, now)
            }),
        });
        let parked = self.parked.values().map(|parked| EntryView {
            entry: parked.entry.clone(),
            attempts: 0,
            last_error: None,
            next_try_ms: None,
        });
        let mut views: Vec<_> = waiting.chain(parked).collect();
        views.sort_by_key(|view| view.entry.id);
        views
    }

    /// CM is available again: an entry that only waited for that waits for nothing but its turn in
    /// the return of all stations. An entry that CM answered before it failed keeps its own distance,
    /// or two such entries would alternate without end.
    fn schedule_after_recovery(&mut self, cx: &mut Context) {
        let now = cx.time.mono;
        for entry in self.waiting.values_mut() {
            if entry.step == EntryStep::Idle && !entry.answered && !entry.is_first {
                let waited = now.saturating_duration_since(entry.since);
                let turn = now + cx.settings.retry.resume_jitter(waited, &mut cx.random);
                // A turn that was drawn before, and has not come yet, is only ever moved forward.
                let is_drawn = entry.not_before > now;
                entry.not_before = if is_drawn { turn.min(entry.not_before) } else { turn };
            }
        }
        self.note_all_idle();
    }

    /// The configuration was reloaded: whatever made an entry wait may be repaired.
    pub(super) fn on_reconfigured(&mut self, cx: &Context) {
        let is_calling = |id: &EntryId| {
            let entry = self.waiting.get(id);
            entry.is_none_or(|entry| matches!(entry.step, EntryStep::Calling(_)))
        };
        self.breaker.reset(self.in_progress.values().copied().filter(is_calling));
        for entry in self.waiting.values_mut() {
            if entry.step == EntryStep::Idle {
                entry.not_before = entry.not_before.min(cx.time.mono);
            }
        }
        self.note_all_idle();
    }

    /// How many entries have a call in flight, or a result that is being stored, or one that no
    /// longer matters.
    fn calls_in_flight(&self) -> usize {
        let is_settling = |id: &&EntryId| {
            self.waiting.get(id).is_some_and(|entry| matches!(entry.step, EntryStep::Settling(_)))
        };
        self.in_progress.values().filter(|id| !is_settling(id)).count()
    }

    /// How much is held: entries that wait, entries that are parked, cards in progress.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.parked.len(), self.in_progress.len())
    }

    /// The next moment at which an entry may start, expire, or be offered to the disk again.
    pub(super) fn next_deadline(&self, cx: &Context) -> Option<Instant> {
        let start = match self.breaker.admission(self.calls_in_flight()) {
            Admission::Unlimited => {
                let (all, of_backlog) = self.free_places(cx);
                let first = (all > 0).then(|| self.earliest_first()).flatten();
                let waiting = (of_backlog > 0).then(|| self.next_idle()).flatten();
                first.into_iter().chain(waiting).min()
            }
            Admission::Single => self.next_idle(),
            Admission::SingleAt(trial) => self.next_idle().map(|at| at.max(trial)),
            Admission::Blocked => None,
        };
        let unsaved = self.unsaved_outcomes.iter();
        let ends = unsaved.filter_map(|id| Some(self.waiting.get(id)?.not_before));
        self.next_expiry(cx).into_iter().chain(start).chain(ends).min()
    }

    pub(super) fn start_entries(&mut self, cx: &mut Context) {
        self.retry_unsaved_outcomes(cx);
        self.expire(cx);
        while let Some(id) = self.next_to_start(cx) {
            self.breaker.start_trial(id, cx.time);
            self.start(cx, id);
        }
    }

    /// How many entries may start, and how many of those that are no new insertions: one place is kept
    /// for a card that is inserted now, so that it waits for no call of the backlog.
    fn free_places(&self, cx: &Context) -> (usize, usize) {
        let places = cx.settings.concurrency.get();
        let free = places.saturating_sub(self.calls_in_flight());
        (free, if places > 1 { free.saturating_sub(1) } else { free })
    }

    fn next_to_start(&mut self, cx: &Context) -> Option<EntryId> {
        let now = cx.time.mono;
        self.forget_stale_notes(now);
        match self.breaker.admission(self.calls_in_flight()) {
            Admission::Unlimited => {
                let (all, of_backlog) = self.free_places(cx);
                let first = (all > 0).then(|| self.newest_first(now)).flatten();
                return first.or_else(|| (of_backlog > 0).then(|| self.due(now).next()).flatten());
            }
            Admission::Single => {}
            Admission::SingleAt(trial) if trial <= now => {}
            Admission::SingleAt(_) | Admission::Blocked => return None,
        }
        // The trial is made by the entry that failed least often, and of these by a new insertion: a
        // card that itself makes CM fail must not keep the breaker open for the others.
        let turn = |id: &EntryId| {
            let entry = self.waiting.get(id)?;
            let newest = entry.is_first.then_some(Reverse(*id));
            Some((entry.failures, newest.is_none(), newest, entry.not_before, *id))
        };
        self.due(now).chain(self.newest_first(now)).min_by_key(turn)
    }

    fn start(&mut self, cx: &mut Context, id: EntryId) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        entry.attempts += 1;
        entry.answered = false;
        entry.is_first = false;
        self.in_progress.insert(entry.card_event.card_key(), id);
        let call = match entry.stage.sent() {
            Some(decision) => CmCall::ReadRecord(decision.clone()),
            None => CmCall::Lookup(entry.card_event.identity.clone()),
        };
        entry.step = EntryStep::Calling(call.clone());
        cx.effects.push_back(Effect::Cm { entry: id, call });
    }

    /// Entries whose cards cannot be read in full any more are processed by what is known.
    pub(super) fn release_incomplete(
        &mut self,
        cx: &Context,
        may_complete: impl Fn(EntryId) -> bool,
    ) {
        for id in std::mem::take(&mut self.incomplete) {
            let Some(entry) = self.waiting.get_mut(&id) else { continue };
            if may_complete(id) || entry.superseded_by.is_some() {
                self.incomplete.insert(id);
            } else {
                entry.not_before = cx.time.mono;
                self.note_idle(id);
            }
        }
    }

    /// When the next entry may have waited too long.
    fn next_expiry(&self, cx: &Context) -> Option<Instant> {
        self.oldest_since.and_then(|since| since.checked_add(cx.settings.max_age))
    }

    /// Parks entries that have waited too long.
    fn expire(&mut self, cx: &mut Context) {
        let now = cx.time.mono;
        if !self.has_overdue && self.next_expiry(cx).is_none_or(|at| now < at) {
            return;
        }
        (self.oldest_since, self.has_overdue) = (None, false);
        let mut expired = Vec::new();
        for (id, entry) in &self.waiting {
            if now.saturating_duration_since(entry.since) < cx.settings.max_age {
                self.oldest_since = self.oldest_since.into_iter().chain([entry.since]).min();
            } else if self.may_start(*id, entry) {
                expired.push((*id, entry.last_error.clone()));
            } else {
                self.has_overdue = true;
            }
        }
        for (id, last_error) in expired {
            let error = last_error
                .unwrap_or_else(|| "it was not tried since the daemon started".to_owned());
            let detail = format!("waited longer than outbox.max_age; last error: {error}");
            self.finish(cx, id, Outcome::Parked(ParkReason::Expired), detail);
        }
    }

    /// Notes that an entry is idle, if it is, or waits until another moment.
    fn note_idle(&mut self, id: EntryId) {
        let entry = self.waiting.get(&id).filter(|entry| entry.step == EntryStep::Idle);
        let Some(entry) = entry else { return };
        if entry.is_first {
            self.first_order.insert(id);
        } else {
            self.waiting_order.insert((entry.not_before, id));
        }
    }

    fn note_all_idle(&mut self) {
        self.waiting_order.clear();
        self.first_order.clear();
        let ids: Vec<_> = self.waiting.keys().copied().collect();
        for id in ids {
            self.note_idle(id);
        }
    }

    /// Drops notes of entries that do something else by now.
    fn forget_stale_notes(&mut self, now: Instant) {
        while let Some((at, id)) = self.waiting_order.first().copied() {
            if at > now || self.is_backing_off(id, at) {
                break;
            }
            self.waiting_order.pop_first();
        }
        let waiting = &self.waiting;
        self.first_order.retain(|id| {
            waiting.get(id).is_some_and(|entry| entry.is_first && entry.step == EntryStep::Idle)
        });
    }

    /// The newest of those that go before the others, and may start.
    fn newest_first(&self, now: Instant) -> Option<EntryId> {
        let is_due = |id: &EntryId| {
            self.waiting.get(id).is_some_and(|entry| entry.is_first && entry.not_before <= now)
        };
        let mut first = self.first_order.iter().rev().copied();
        first.find(|id| is_due(id) && self.can_start(*id))
    }

    /// When one of those may start.
    fn earliest_first(&self) -> Option<Instant> {
        let first = self.first_order.iter().filter(|id| self.can_start(**id));
        first.filter_map(|id| Some(self.waiting.get(id)?.not_before)).min()
    }

    /// The others that may start, the one that has waited longest first.
    fn due(&self, now: Instant) -> impl Iterator<Item = EntryId> {
        let notes = self.waiting_order.iter().take_while(move |(at, _)| *at <= now);
        notes.filter(|note| self.is_startable(note)).map(|(_, id)| *id)
    }

    fn is_startable(&self, (at, id): &(Instant, EntryId)) -> bool {
        self.is_backing_off(*id, *at) && self.can_start(*id)
    }

    /// When the next entry may make a call, where every entry may.
    fn next_idle(&self) -> Option<Instant> {
        let waiting = self.waiting_order.iter().find(|note| self.is_startable(note));
        waiting.map(|(at, _)| *at).into_iter().chain(self.earliest_first()).min()
    }

    /// Whether the entry waits until this moment.
    fn is_backing_off(&self, id: EntryId, until: Instant) -> bool {
        self.waiting.get(&id).is_some_and(|entry| {
            entry.step == EntryStep::Idle && entry.not_before == until && !entry.is_first
        })
    }

    fn can_start(&self, id: EntryId) -> bool {
        self.waiting.get(&id).is_some_and(|entry| self.may_start(id, entry))
    }

    fn may_start(&self, id: EntryId, entry: &PendingEntry) -> bool {
        entry.step == EntryStep::Idle
            && !self.incomplete.contains(&id)
            && entry.superseded_by.is_none()
            && entry.blocked_by.is_none_or(|older| !self.waiting.contains_key(&older))
            && !self.in_progress.contains_key(&entry.card_event.card_key())
    }
}

const INSERTED_AGAIN: &str = "the card was inserted again";
const FULLY_READ: &str = "the card was read in full, once the other program let go of it";

/// What a newer entry inherits: what the newest of the older ones may have sent.
fn inherited_stage(inherited: Stage, old: &Stage) -> Stage {
    if old.sent().is_some() { old.clone() } else { inherited }
}
