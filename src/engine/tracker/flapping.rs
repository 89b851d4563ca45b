//! Cards that come and go without end: a bad contact, or a card at the edge of a contactless field.
//!
//! Each insertion would make an entry and audit lines, several times a second, until the outbox is
//! full. So a card that came too often in one reader is *flapping*: it has to lie still before it
//! makes an entry, longer each time, and an insertion that ends before is counted like a failure. It
//! is flapping until it did not come for a while. What a reader makes at the pace that is left fits
//! into the audit trail (`docs/decisions/0035-restless-cards.md`).

use std::time::{Duration, Instant};

use crate::domain::{CardKey, InsertionId};
use crate::engine::interface::Now;

/// What is too often: more than so many times at once, or for long at shorter intervals than this. The
/// last limit is that of a card that does not stop.
const LIMITS: [(u32, Duration); 2] = [(20, Duration::from_secs(3)), (200, Duration::from_secs(30))];

/// How long a flapping card is away for it not to be flapping any more.
const QUIET_TIME: Duration = Duration::from_secs(30);

/// How long a flapping card has to lie still, at first and at most; twice as long after each entry
/// once it is beyond the last limit.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Of how many cards a reader remembers how often they came: some may lie in one field together.
const MAX_FOLLOWED: usize = 8;

/// How often cards came recently in one reader, the one that came last at the end.
#[derive(Debug, Default)]
pub(super) struct FlappingCards(Vec<FlappingCard>);

#[derive(Debug)]
struct FlappingCard {
    key: CardKey,
    last_insertion: Instant,
    /// For each limit, until when the insertions are spread at that interval.
    spread: [Instant; LIMITS.len()],
    /// How many entries it made beyond the last limit since it is flapping.
    entries: Option<u32>,
    is_beyond_last: bool,
}

/// A flapping card that has not lain still for long enough.
#[derive(Debug)]
pub(super) struct HeldCard {
    pub(super) insertion: InsertionId,
    pub(super) key: CardKey,
    pub(super) seen: Now,
    pub(super) pause: Duration,
    pub(super) until: Instant,
}

impl FlappingCards {
    /// A card came. Returns how long it is held, and whether that is new.
    pub(super) fn on_insertion(&mut self, key: &CardKey, now: Instant) -> (Duration, bool) {
        let known = self.0.iter().position(|card| card.key == *key);
        let mut card = known.map_or_else(
            || FlappingCard {
                key: key.clone(),
                last_insertion: now,
                spread: [now; 2],
                entries: None,
                is_beyond_last: false,
            },
            |at| self.0.remove(at),
        );
        let is_new = card.on_insertion(now);
        let pause = card.pause();
        self.0.push(card);
        if self.0.len() > MAX_FOLLOWED {
            self.0.remove(0);
        }
        (pause, is_new)
    }

    /// The card makes an entry.
    pub(super) fn count_entry(&mut self, key: &CardKey) {
        let card = self.0.iter_mut().find(|card| card.key == *key && card.is_beyond_last);
        if let Some(entries) = card.and_then(|card| card.entries.as_mut()) {
            *entries = entries.saturating_add(1);
        }
    }
}

impl FlappingCard {
    /// Returns whether it is flapping from now on.
    fn on_insertion(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.last_insertion) >= QUIET_TIME {
            self.entries = None;
        }
        self.last_insertion = now;
        let mut is_too_often = false;
        for ((times, interval), spread) in LIMITS.into_iter().zip(&mut self.spread) {
            let most = now + interval * times;
            let next = (*spread).max(now) + interval;
            self.is_beyond_last = next > most;
            is_too_often |= self.is_beyond_last;
            *spread = next.min(most);
        }
        let is_new = is_too_often && self.entries.is_none();
        if is_new {
            self.entries = Some(0);
        }
        is_new
    }

    /// How long it has to lie still.
    fn pause(&self) -> Duration {
        let Some(entries) = self.entries else { return Duration::ZERO };
        2_u32
            .checked_pow(entries)
            .map_or(MAX_PAUSE, |times| MIN_PAUSE.saturating_mul(times).min(MAX_PAUSE))
    }
}
