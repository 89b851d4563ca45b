//! Cards that come and go without end: a bad contact, or a card at the edge of a contactless field.
//!
//! Each stay would make an entry and audit lines, several times a second, until the outbox is full. So a
//! card that came too often in one reader is restless: it has to lie still before it makes an entry, longer
//! each time, and a stay that ends before is counted like a failure. It is restless until it did not come
//! for a while. What a reader makes at the pace that is left fits into the audit trail
//! (`docs/decisions/0035-restless-cards.md`).

use std::time::{Duration, Instant};

use super::super::{Engine, Notice, Now};
use super::probing::draft;
use super::{CardState, TrackedReader};
use crate::domain::{
    Atr, CardKey, InsertionId, NotIdentified, NotIdentifiedReason, ReaderName, Trigger,
};

/// What is too often: more than so many times at once, or for long at shorter intervals than this. The
/// last limit is that of a card that does not stop.
const LIMITS: [(u32, Duration); 2] = [(20, Duration::from_secs(3)), (200, Duration::from_secs(30))];

/// How long a restless card is away for it not to be restless any more.
const QUIET_TIME: Duration = Duration::from_secs(30);

/// How long a restless card has to lie still, at first and at most; twice as long after each entry
/// once it is beyond the last limit.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Of how many cards a reader remembers how often they came: some may lie in one field together.
const MAX_FOLLOWED: usize = 8;

/// How often cards came of late in one reader, the one that came last at the end.
#[derive(Debug, Default)]
pub(super) struct FlappingCards(Vec<FlappingCard>);

#[derive(Debug)]
struct FlappingCard {
    card: CardKey,
    /// When it came last.
    insertions: Instant,
    /// For each limit, until when the times that it came are spread at that interval.
    spread: [Instant; LIMITS.len()],
    /// How many entries it made beyond the last limit since it is restless.
    reported: Option<u32>,
    is_beyond_last: bool,
}

/// A restless card that has not lain still for long enough.
#[derive(Debug)]
pub(super) struct HeldCard {
    /// The stay that it is held in.
    stay: InsertionId,
    card: CardKey,
    seen: Now,
    pause: Duration,
    until: Instant,
}

impl FlappingCards {
    /// A card came; how long it is held, and whether that is new.
    fn insertions(&mut self, card: &CardKey, now: Instant) -> (Duration, bool) {
        let known = self.0.iter().position(|repeat| repeat.card == *card);
        let mut repeat = known.map_or_else(
            || FlappingCard {
                card: card.clone(),
                insertions: now,
                spread: [now; 2],
                reported: None,
                is_beyond_last: false,
            },
            |at| self.0.remove(at),
        );
        let is_new = repeat.on_insertion(now);
        let pause = repeat.pause();
        self.0.push(repeat);
        if self.0.len() > MAX_FOLLOWED {
            self.0.remove(0);
        }
        (pause, is_new)
    }

    /// The card makes an entry.
    fn may_enter(&mut self, card: &CardKey) {
        let repeat = self.0.iter_mut().find(|repeat| repeat.card == *card && repeat.is_beyond_last);
        if let Some(entries) = repeat.and_then(|repeat| repeat.reported.as_mut()) {
            *entries = entries.saturating_add(1);
        }
    }
}

impl FlappingCard {
    /// It comes; whether it is restless from now on.
    fn on_insertion(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.insertions) >= QUIET_TIME {
            self.reported = None;
        }
        self.insertions = now;
        let mut is_too_often = false;
        for ((times, interval), spread) in LIMITS.into_iter().zip(&mut self.spread) {
            let most = now + interval * times;
            let next = (*spread).max(now) + interval;
            self.is_beyond_last = next > most;
            is_too_often |= self.is_beyond_last;
            *spread = next.min(most);
        }
        let is_new = is_too_often && self.reported.is_none();
        if is_new {
            self.reported = Some(0);
        }
        is_new
    }

    /// How long it has to lie still.
    fn pause(&self) -> Duration {
        let Some(entries) = self.reported else { return Duration::ZERO };
        2_u32
            .checked_pow(entries)
            .map_or(MAX_PAUSE, |times| MIN_PAUSE.saturating_mul(times).min(MAX_PAUSE))
    }
}

impl TrackedReader {
    /// When the card that is in the reader makes its entry, if it is held.
    pub(super) fn enters_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    /// A card that is held has moved: it begins to lie still now.
    pub(super) fn moved(&mut self, now: Now) {
        if let Some(held) = &mut self.held {
            held.until = now.mono + held.pause;
        }
    }

    /// The stay of a card ends; its ATR, and for how long it had to lie still, where it was held.
    pub(super) fn ends_held(&mut self, card: &CardState) -> Option<(Atr, Duration)> {
        let CardState::Identified { presence, stay, .. } = card else { return None };
        let held = self.held.take_if(|held| held.stay == *stay)?;
        Some((presence.atr.clone(), held.pause))
    }
}

impl Engine {
    /// Whether a card that was just identified is held: it came too often.
    pub(super) fn hold(
        &mut self,
        (reader, insertion): (&ReaderName, InsertionId),
        card: CardKey,
        seen: Now,
    ) -> bool {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return false };
        let (pause, is_news) = slot.repeats.insertions(&card, seen.mono);
        if pause.is_zero() {
            return false;
        }
        let until = seen.mono + pause;
        slot.held = Some(HeldCard { stay: insertion, card, seen, pause, until });
        if is_news {
            self.report(Notice::CardFlapping { reader: reader.clone() });
        }
        true
    }

    /// Cards that were held and have lain still make their entries.
    pub(in crate::engine) fn enter_held(&mut self, now: Now) {
        let is_due = |slot: &TrackedReader| {
            matches!(slot.card, CardState::Identified { .. })
                && slot.enters_at().is_some_and(|at| at <= now.mono)
        };
        for reader in self.tracker.readers_where(is_due) {
            let Some(slot) = self.tracker.readers.get_mut(&reader) else { continue };
            let CardState::Identified { presence, identity, stay, .. } = &slot.card else {
                continue;
            };
            let (presence, identity, stay) = (presence.clone(), identity.clone(), *stay);
            let Some(held) = slot.held.take() else { continue };
            slot.repeats.may_enter(&held.card);
            let (place, instance) = (slot.place.clone(), slot.instance.clone());
            let moment = self.boot_moment(held.seen.mono);
            let draft = draft(Trigger::Inserted, presence, identity, (place, held.seen, moment));
            self.enqueue_append(stay, (draft, instance), held.seen.mono, now);
        }
    }

    /// A card that was held did not lie still for as long as it had to.
    pub(super) fn report_flapping(
        &mut self,
        place: (&ReaderName, &str),
        (atr, pause): (Atr, Duration),
        now: Now,
    ) {
        let detail = format!(
            "the card comes and goes all the time, and went before it had lain still for {} s: clean card \
             and reader",
            pause.as_secs()
        );
        let why = NotIdentified::new(NotIdentifiedReason::Removed, detail);
        self.add_failure_note(place, Some(atr), &why, now);
    }
}
