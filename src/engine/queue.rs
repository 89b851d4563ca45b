//! Entries: from the disk to their outcome, a step at a time.
//!
//! ```text
//! Idle → LookingUp → Saving → Pushing → Ending        (what the rules decide is sent)
//!      → ReadingBack → Ending | LookingUp             (something may have been sent before)
//!
//! Pushing | LookingUp → Saving → Completing → Ending  (the rule completes the request as well)
//! ReadingBack [→ Saving] → ReadingRequest → Completing | Ending
//! ```
//!
//! Whatever fails on the way goes back to Idle and is tried again later; what is known about a
//! possible change in CM (`Stage::Sent`, `Stage::Completing`) is never forgotten on that way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::expiry::ExpiryTimer;
use self::start_order::StartOrder;
use super::circuit_breaker::millis;
use super::{Now, RetryPolicy};
use crate::domain::{
    BootMoment, Candidate, CardEvent, CardKey, Decision, Entry, EntryId, EntryView, InsertionId,
    OutboxView, Outcome, ParkReason, Settlement, Stage, Trigger,
};

mod complete_request;
mod expiry;
mod operator;
mod partial_identity;
mod schedule;
mod settling;
mod start_order;
mod steps;

/// How often CM may fail on one entry while others go through, before a person is asked.
const MAX_ENTRY_FAILURES: u32 = 10;

/// Every entry that is not settled, or settled as parked.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: BTreeMap<EntryId, PendingEntry>,
    parked: BTreeMap<EntryId, ParkedEntry>,
    /// The cards that are being worked on, each with the entry that does.
    in_progress: BTreeMap<CardKey, EntryId>,
    /// Entries whose outcome the disk did not take, to be offered again.
    unsaved_outcomes: BTreeSet<EntryId>,
    /// Entries of cards that are known in part: CM knows nothing to do by that part, and the cards are
    /// to be read in full.
    incomplete: BTreeSet<EntryId>,
    oldest: ExpiryTimer,
    order: StartOrder,
    /// How many entries came through: CM did, or knew, all that they asked.
    success_count: u64,
}

/// An entry that has no outcome on disk yet.
#[derive(Debug)]
struct PendingEntry {
    draft: CardEvent,
    /// What has been decided and may have been sent: as on disk, or about to be.
    stage: Stage,
    /// CM said yes to what was sent last, but not what is so now.
    accepted_unverified: bool,
    step: EntryStep,
    /// The older entry of the card, where that has to end first.
    blocked_by: Option<EntryId>,
    /// The newer insertion that is about to take over.
    superseded_by: Option<InsertionId>,
    /// The moment of the insertion, on the clock that never jumps.
    seen: Instant,
    /// From when on it waits: the insertion, or the moment at which a person took it up again.
    since: Instant,
    not_before: Instant,
    failures: u32,
    attempts: u32,
    entry_failures: u32,
    /// How many others had come through when CM last failed on this entry.
    successes_at_failure: u64,
    /// Whether CM answered anything since the entry was last started.
    answered: bool,
    /// Whether it goes before those that wait: a new insertion, or one that a person wished to go at once,
    /// until it has gone.
    is_first: bool,
    last_error: Option<String>,
    /// The id under which CM had a record when it was last asked.
    known_by: Option<Candidate>,
}

/// An entry that waits for a person.
#[derive(Debug)]
struct ParkedEntry {
    entry: Entry,
    /// Who is about to take it away, once the disk says so.
    takeover: Option<Takeover>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takeover {
    /// A newer insertion of the card.
    Insertion(InsertionId),
    /// A person.
    Operator,
}

/// What an entry is doing.
#[derive(Debug, Clone, PartialEq)]
enum EntryStep {
    Idle,
    LookingUp,
    ReadingRecord {
        decision: Decision,
    },
    Saving {
        decision: Decision,
        then: AfterSave,
    },
    SettingStatus {
        decision: Decision,
    },
    ReadingRequest {
        decision: Decision,
    },
    CompletingRequest {
        decision: Decision,
    },
    /// The outcome is decided and on its way to the disk.
    Settling {
        end: Settlement,
    },
}

/// What follows once a decision is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterSave {
    /// The status is set.
    SetStatus,
    /// The status is set already: the request is completed.
    CompleteRequest,
    /// The same, but where the request stands has to be read first.
    ReadRequest,
}

impl AfterSave {
    const fn stage(self, decision: Decision) -> Stage {
        match self {
            Self::SetStatus => Stage::Sent(decision),
            Self::CompleteRequest | Self::ReadRequest => Stage::Completing(decision),
        }
    }
}

impl PendingEntry {
    fn new(draft: CardEvent, stage: Stage, seen: Instant, now: Now) -> Self {
        Self {
            seen,
            since: seen,
            draft,
            stage,
            accepted_unverified: false,
            step: EntryStep::Idle,
            blocked_by: None,
            superseded_by: None,
            not_before: now.mono,
            failures: 0,
            attempts: 0,
            entry_failures: 0,
            successes_at_failure: 0,
            answered: false,
            is_first: false,
            known_by: None,
            last_error: None,
        }
    }

    /// An entry that is known from the disk only. How old it is said to be is what the clock on the
    /// wall says; for how long it has waited is what surely passed.
    fn from_disk(entry: Entry, moment: Option<&BootMoment>, now: Now) -> Self {
        let (draft, stage) = (entry.card_event, entry.stage.resumed());
        let age = Duration::try_from(now.wall.duration_since(draft.seen_at)).unwrap_or_default();
        let waited = match (moment, &draft.boot_moment) {
            (Some(moment), Some(seen)) => moment.surely_since(seen),
            (None, _) | (_, None) => Duration::ZERO,
        };
        let before = |by| now.mono.checked_sub(by).unwrap_or(now.mono);
        Self { since: before(waited), ..Self::new(draft, stage, before(age), now) }
    }

    fn settlement(&self, outcome: Outcome, detail: String, now: Now) -> Settlement {
        Settlement {
            outcome,
            at: now.wall,
            decision: self.stage.sent().cloned(),
            known_by: self.known_by.clone(),
            detail: self.settlement_detail(outcome, detail),
            http_status: None,
            correlation_id: None,
            attempts: self.attempts,
            duration: now.mono.saturating_duration_since(self.seen),
            by: None,
        }
    }

    /// What a person must know where it ends halfway: the first half is done.
    fn settlement_detail(&self, outcome: Outcome, detail: String) -> String {
        let Stage::Completing(decision) = &self.stage else { return detail };
        if outcome.park_reason().is_none() && outcome != Outcome::Discarded {
            return detail;
        }
        let to = &decision.new_status_name;
        let done = if decision.outcome() == Outcome::AlreadySet {
            format!("the record has status {to} already")
        } else {
            format!("the status WAS set to {to}")
        };
        format!("{done}, but the request is not completed: {detail}")
    }

    /// Whether a newer insertion of the card can still take over: not once the outcome is decided.
    const fn can_be_superseded(&self) -> bool {
        !matches!(self.step, EntryStep::Settling { .. })
    }
}

impl Queue {
    pub(super) fn new(entries: Vec<Entry>, moment: Option<&BootMoment>, now: Now) -> Self {
        let mut queue = Self {
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            unsaved_outcomes: BTreeSet::new(),
            incomplete: BTreeSet::new(),
            oldest: ExpiryTimer::default(),
            order: StartOrder::default(),
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
            waiting.blocked_by = newest.insert(waiting.draft.card_key(), id);
            queue.wait(id, waiting);
        }
        queue
    }

    /// What a new entry of a card takes the place of, and what it inherits from it. A card that went
    /// takes nobody's place: what its insertion began is brought to its end first.
    pub(super) fn supersede(
        &mut self,
        draft: &CardEvent,
        (insertion, renews): (InsertionId, Option<EntryId>),
        now: Now,
    ) -> (Stage, Vec<(EntryId, Option<Settlement>)>) {
        let card = draft.card_key();
        let mut inherited = Stage::Queued;
        let mut gone = Vec::new();
        if draft.trigger == Trigger::Removed {
            return (inherited, gone);
        }
        for (id, old) in &mut self.waiting {
            let renewed = renews == Some(*id);
            if (old.draft.card_key() == card || renewed) && old.can_be_superseded() {
                inherited = inherited_stage(inherited, &old.stage);
                old.superseded_by = Some(insertion);
                let why = if renewed { FULLY_READ } else { INSERTED_AGAIN }.to_owned();
                gone.push((*id, Some(old.settlement(Outcome::Superseded, why, now))));
            }
        }
        for (id, old) in &mut self.parked {
            let is_replaced = old.entry.card_event.card_key() == card || renews == Some(*id);
            if is_replaced && old.takeover.is_none() {
                old.takeover = Some(Takeover::Insertion(insertion));
                gone.push((*id, None));
            }
        }
        (inherited, gone)
    }

    /// The new entry is on disk, and those whose place it takes are gone from there.
    pub(super) fn superseded(
        &mut self,
        insertion: InsertionId,
        entry: EntryId,
        (draft, seen): (CardEvent, Instant),
        now: Now,
    ) {
        let card = draft.card_key();
        let mut stage = Stage::Queued;
        self.waiting.retain(|_, old| {
            if old.superseded_by != Some(insertion) {
                return true;
            }
            stage = inherited_stage(std::mem::replace(&mut stage, Stage::Queued), &old.stage);
            false
        });
        self.parked.retain(|_, old| old.takeover != Some(Takeover::Insertion(insertion)));
        let mut new = PendingEntry::new(draft, stage, seen, now);
        new.successes_at_failure = self.success_count;
        let older = self.waiting.iter().rev().find(|(_, old)| old.draft.card_key() == card);
        new.blocked_by = older.map(|(id, _)| *id);
        new.is_first = new.draft.trigger == Trigger::Inserted;
        self.wait(entry, new);
    }

    fn wait(&mut self, id: EntryId, entry: PendingEntry) {
        self.oldest.add(entry.since);
        self.order.add(id, &entry);
        self.waiting.insert(id, entry);
    }

    /// The new entry is not on disk: those whose place it would have taken go on.
    pub(super) fn not_superseded(&mut self, insertion: InsertionId) {
        for old in self.waiting.values_mut() {
            if old.superseded_by == Some(insertion) {
                old.superseded_by = None;
            }
        }
        for old in self.parked.values_mut() {
            if old.takeover == Some(Takeover::Insertion(insertion)) {
                old.takeover = None;
            }
        }
    }

    pub(super) fn view(&self, trouble: Option<String>) -> OutboxView {
        OutboxView {
            waiting: self.waiting.len(),
            parked: self.parked.len(),
            oldest_waiting_at: self.waiting.values().map(|entry| entry.draft.seen_at).min(),
            write_error: trouble,
        }
    }

    /// Every entry; one that waits for CM waits for the `knock` too.
    pub(super) fn entry_views(&self, knock: Option<Instant>, now: Now) -> Vec<EntryView> {
        let wait = |entry: &PendingEntry| {
            let next = knock.map_or(entry.not_before, |knock| knock.max(entry.not_before));
            millis(next.saturating_duration_since(now.mono))
        };
        let waiting = self.waiting.iter().map(|(id, entry)| EntryView {
            entry: Entry { id: *id, card_event: entry.draft.clone(), stage: entry.stage.clone() },
            attempts: entry.attempts,
            last_error: entry.last_error.clone(),
            next_try_ms: (entry.step == EntryStep::Idle).then(|| wait(entry)),
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

    /// CM is back: whoever only waited for that waits for nothing but its turn in the return of
    /// all stations. An entry that CM answered before it failed keeps its own distance, or two
    /// such entries would chase each other.
    fn schedule_after_recovery(
        &mut self,
        retry: RetryPolicy,
        random: &mut fastrand::Rng,
        now: Now,
    ) {
        for entry in self.waiting.values_mut() {
            if entry.step == EntryStep::Idle && !entry.answered && !entry.is_first {
                let waited = now.mono.saturating_duration_since(entry.since);
                let turn = now.mono + retry.resume_jitter(waited, random);
                // A turn that was drawn before, and has not come yet, is only ever moved forward.
                let drawn = entry.not_before > now.mono;
                entry.not_before = if drawn { turn.min(entry.not_before) } else { turn };
            }
        }
        self.order = StartOrder::of(&self.waiting);
    }

    /// Whatever made an entry wait may be mended.
    pub(super) fn retry_all_now(&mut self, now: Now) {
        for entry in self.waiting.values_mut() {
            if entry.step == EntryStep::Idle {
                entry.not_before = entry.not_before.min(now.mono);
            }
        }
        self.order = StartOrder::of(&self.waiting);
    }

    /// The entries that wait for an answer of CM, or whose answer nobody waits for any more.
    pub(super) fn entries_awaiting_cm(&self) -> impl Iterator<Item = EntryId> {
        self.in_progress.values().copied().filter(|id| {
            self.waiting.get(id).is_none_or(|entry| match entry.step {
                EntryStep::LookingUp
                | EntryStep::ReadingRecord { .. }
                | EntryStep::SettingStatus { .. }
                | EntryStep::ReadingRequest { .. }
                | EntryStep::CompletingRequest { .. } => true,
                EntryStep::Idle | EntryStep::Saving { .. } | EntryStep::Settling { .. } => false,
            })
        })
    }

    /// When the next entry may ask CM something, where everybody may.
    pub(super) fn next_idle(&self) -> Option<Instant> {
        self.order.earliest(self)
    }

    /// Whether anything that may have been sent is not confirmed, but for this entry's.
    fn updates_wait(&self, but: EntryId) -> bool {
        self.waiting.iter().any(|(id, entry)| *id != but && entry.stage.sent().is_some())
    }

    /// How many entries have a call under way, or one that nobody waits for any more.
    fn calls_in_flight(&self) -> usize {
        let ending = |id: &EntryId| {
            self.waiting
                .get(id)
                .is_some_and(|entry| matches!(entry.step, EntryStep::Settling { .. }))
        };
        self.in_progress.values().filter(|id| !ending(id)).count()
    }

    /// How much is held: entries that wait, entries that are parked, cards in hand.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.parked.len(), self.in_progress.len())
    }

    fn may_start(&self, id: EntryId, entry: &PendingEntry) -> bool {
        entry.step == EntryStep::Idle
            && !self.incomplete.contains(&id)
            && entry.superseded_by.is_none()
            && entry.blocked_by.is_none_or(|older| !self.waiting.contains_key(&older))
            && !self.in_progress.contains_key(&entry.draft.card_key())
    }
}

const INSERTED_AGAIN: &str = "the card was inserted again";
const FULLY_READ: &str = "the card was read in full, once the other program let go of it";

/// What a newer entry inherits: what the newest of the older ones may have sent.
fn inherited_stage(inherited: Stage, old: &Stage) -> Stage {
    if old.sent().is_some() { old.clone() } else { inherited }
}

/// What an entry is parked with.
struct ParkDetails {
    reason: ParkReason,
    detail: String,
    http_status: Option<u16>,
    correlation_id: Option<String>,
}
