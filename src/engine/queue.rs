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

use self::expiry::Oldest;
use self::order::Order;
use super::link::millis;
use super::{Now, Retry};
use crate::domain::{
    BootMoment, Candidate, CardEvent, CardKey, Decision, Entry, EntryId, EntryView, InsertionId,
    OutboxView, Outcome, ParkReason, Settlement, Stage, Trigger,
};

mod completing;
mod ends;
mod expiry;
mod order;
mod partial;
mod start;
mod steps;
mod wishes;

/// How often CM may fail on one entry while others go through, before a person is asked.
const MAX_OWN_TROUBLE: u32 = 10;

/// Every entry that is not settled, or settled as parked.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: BTreeMap<EntryId, Waiting>,
    parked: BTreeMap<EntryId, Parked>,
    /// The cards that are being worked on, each with the entry that does.
    busy: BTreeMap<CardKey, EntryId>,
    /// Entries whose outcome the disk did not take, to be offered again.
    unoffered: BTreeSet<EntryId>,
    /// Entries of cards that are known in part: CM knows nothing to do by that part, and the cards are
    /// to be read in full.
    incomplete: BTreeSet<EntryId>,
    oldest: Oldest,
    order: Order,
    /// How many entries came through: CM did, or knew, all that they asked.
    came_through: u64,
}

/// An entry that has no outcome on disk yet.
#[derive(Debug)]
struct Waiting {
    draft: CardEvent,
    /// What has been decided and may have been sent: as on disk, or about to be.
    stage: Stage,
    /// CM said yes to what was sent last, but not what is so now.
    said_yes: bool,
    step: Step,
    /// The older entry of the card, where that has to end first.
    after: Option<EntryId>,
    /// The newer insertion that is about to take over.
    superseded_by: Option<InsertionId>,
    /// The moment of the insertion, on the clock that never jumps.
    seen: Instant,
    /// From when on it waits: the insertion, or the moment at which a person took it up again.
    since: Instant,
    not_before: Instant,
    failures: u32,
    attempts: u32,
    own_trouble: u32,
    /// How many others had come through when CM last failed on this entry.
    through_then: u64,
    /// Whether CM answered anything since the entry was last started.
    heard: bool,
    /// Whether it goes before those that wait: a new insertion, or one that a person wished to go at once,
    /// until it has gone.
    is_first: bool,
    last_error: Option<String>,
    /// The id under which CM had a record when it was last asked.
    known_by: Option<Candidate>,
}

/// An entry that waits for a person.
#[derive(Debug)]
struct Parked {
    entry: Entry,
    /// Who is about to take it away, once the disk says so.
    claim: Option<Claim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// A newer insertion of the card.
    Insertion(InsertionId),
    /// A person.
    Wish,
}

/// What an entry is doing.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Idle,
    LookingUp,
    ReadingBack {
        decision: Decision,
    },
    Saving {
        decision: Decision,
        then: Then,
    },
    Pushing {
        decision: Decision,
    },
    ReadingRequest {
        decision: Decision,
    },
    Completing {
        decision: Decision,
    },
    /// The outcome is decided and on its way to the disk.
    Ending {
        end: Settlement,
    },
}

/// What follows once a decision is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The status is set.
    Push,
    /// The status is set already: the request is completed.
    Complete,
    /// The same, but where the request stands has to be read first.
    ReadRequest,
}

impl Then {
    const fn stage(self, decision: Decision) -> Stage {
        match self {
            Self::Push => Stage::Sent(decision),
            Self::Complete | Self::ReadRequest => Stage::Completing(decision),
        }
    }
}

impl Waiting {
    fn new(draft: CardEvent, stage: Stage, seen: Instant, now: Now) -> Self {
        Self {
            seen,
            since: seen,
            draft,
            stage,
            said_yes: false,
            step: Step::Idle,
            after: None,
            superseded_by: None,
            not_before: now.mono,
            failures: 0,
            attempts: 0,
            own_trouble: 0,
            through_then: 0,
            heard: false,
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
            detail: self.in_words(outcome, detail),
            http_status: None,
            correlation_id: None,
            attempts: self.attempts,
            duration: now.mono.saturating_duration_since(self.seen),
            by: None,
        }
    }

    /// What a person must know where it ends halfway: the first half is done.
    fn in_words(&self, outcome: Outcome, detail: String) -> String {
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
        !matches!(self.step, Step::Ending { .. })
    }
}

impl Queue {
    pub(super) fn new(entries: Vec<Entry>, moment: Option<&BootMoment>, now: Now) -> Self {
        let mut queue = Self {
            waiting: BTreeMap::new(),
            parked: BTreeMap::new(),
            busy: BTreeMap::new(),
            unoffered: BTreeSet::new(),
            incomplete: BTreeSet::new(),
            oldest: Oldest::default(),
            order: Order::default(),
            came_through: 0,
        };
        let mut newest = BTreeMap::new();
        for entry in entries {
            let id = entry.id;
            if matches!(entry.stage, Stage::Parked { .. }) {
                queue.parked.insert(id, Parked { entry, claim: None });
                continue;
            }
            let mut waiting = Waiting::from_disk(entry, moment, now);
            waiting.after = newest.insert(waiting.draft.card_key(), id);
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
                inherited = newer(inherited, &old.stage);
                old.superseded_by = Some(insertion);
                let why = if renewed { READ_IN_FULL } else { PUT_IN_AGAIN }.to_owned();
                gone.push((*id, Some(old.settlement(Outcome::Superseded, why, now))));
            }
        }
        for (id, old) in &mut self.parked {
            let is_replaced = old.entry.card_event.card_key() == card || renews == Some(*id);
            if is_replaced && old.claim.is_none() {
                old.claim = Some(Claim::Insertion(insertion));
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
            stage = newer(std::mem::replace(&mut stage, Stage::Queued), &old.stage);
            false
        });
        self.parked.retain(|_, old| old.claim != Some(Claim::Insertion(insertion)));
        let mut new = Waiting::new(draft, stage, seen, now);
        new.through_then = self.came_through;
        let older = self.waiting.iter().rev().find(|(_, old)| old.draft.card_key() == card);
        new.after = older.map(|(id, _)| *id);
        new.is_first = new.draft.trigger == Trigger::Inserted;
        self.wait(entry, new);
    }

    fn wait(&mut self, id: EntryId, entry: Waiting) {
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
            if old.claim == Some(Claim::Insertion(insertion)) {
                old.claim = None;
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
        let wait = |entry: &Waiting| {
            let next = knock.map_or(entry.not_before, |knock| knock.max(entry.not_before));
            millis(next.saturating_duration_since(now.mono))
        };
        let waiting = self.waiting.iter().map(|(id, entry)| EntryView {
            entry: Entry { id: *id, card_event: entry.draft.clone(), stage: entry.stage.clone() },
            attempts: entry.attempts,
            last_error: entry.last_error.clone(),
            next_try_ms: (entry.step == Step::Idle).then(|| wait(entry)),
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
    fn release(&mut self, retry: Retry, random: &mut fastrand::Rng, now: Now) {
        for entry in self.waiting.values_mut() {
            if entry.step == Step::Idle && !entry.heard && !entry.is_first {
                let waited = now.mono.saturating_duration_since(entry.since);
                let turn = now.mono + retry.spread(waited, random);
                // A turn that was drawn before, and has not come yet, is only ever moved forward.
                let drawn = entry.not_before > now.mono;
                entry.not_before = if drawn { turn.min(entry.not_before) } else { turn };
            }
        }
        self.order = Order::of(&self.waiting);
    }

    /// Whatever made an entry wait may be mended.
    pub(super) fn release_all(&mut self, now: Now) {
        for entry in self.waiting.values_mut() {
            if entry.step == Step::Idle {
                entry.not_before = entry.not_before.min(now.mono);
            }
        }
        self.order = Order::of(&self.waiting);
    }

    /// The entries that wait for an answer of CM, or whose answer nobody waits for any more.
    pub(super) fn asking(&self) -> impl Iterator<Item = EntryId> {
        self.busy.values().copied().filter(|id| {
            self.waiting.get(id).is_none_or(|entry| match entry.step {
                Step::LookingUp
                | Step::ReadingBack { .. }
                | Step::Pushing { .. }
                | Step::ReadingRequest { .. }
                | Step::Completing { .. } => true,
                Step::Idle | Step::Saving { .. } | Step::Ending { .. } => false,
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
    fn talking(&self) -> usize {
        let ending = |id: &EntryId| {
            self.waiting.get(id).is_some_and(|entry| matches!(entry.step, Step::Ending { .. }))
        };
        self.busy.values().filter(|id| !ending(id)).count()
    }

    /// How much is held: entries that wait, entries that are parked, cards in hand.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.parked.len(), self.busy.len())
    }

    fn may_start(&self, id: EntryId, entry: &Waiting) -> bool {
        entry.step == Step::Idle
            && !self.incomplete.contains(&id)
            && entry.superseded_by.is_none()
            && entry.after.is_none_or(|older| !self.waiting.contains_key(&older))
            && !self.busy.contains_key(&entry.draft.card_key())
    }
}

const PUT_IN_AGAIN: &str = "the card was put in again";
const READ_IN_FULL: &str = "the card was read in full, once the other program let go of it";

/// What a newer entry inherits: what the newest of the older ones may have sent.
fn newer(inherited: Stage, old: &Stage) -> Stage {
    if old.sent().is_some() { old.clone() } else { inherited }
}

/// What an entry is parked with.
struct Parking {
    reason: ParkReason,
    detail: String,
    http_status: Option<u16>,
    correlation_id: Option<String>,
}
