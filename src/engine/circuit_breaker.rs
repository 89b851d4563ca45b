//! Whether CM is away, and who may knock.
//!
//! While CM is away one entry at a time knocks for all of them, at moments that grow further
//! apart. A new insertion makes the next knock come at once, though never within a second of
//! the last, and never before the time that CM itself asked for. A person passes that time too.
//! The jitter comes on top of that time: CM asks many stations for the same one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Notice, Now, RetryPolicy};
use crate::domain::{CallError, CmView, EntryId, UnavailableReason};

/// The least time between a knock and the next, where a new insertion makes that one.
const MIN_TRIAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often the shortest wait is doubled, at the least, to spread the stations over the time after
/// the one that CM asked for: half a minute, where the shortest is a second.
const MIN_JITTER_DOUBLINGS: u32 = 5;

/// The connection to CM.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    state: BreakerState,
    /// Entries that still wait for the answer of a CM that was forgotten.
    stale_calls: BTreeSet<EntryId>,
}

#[derive(Debug)]
enum BreakerState {
    /// Nobody knows yet; the first entry finds out.
    Unknown {
        /// Whether people were told of an outage before, and not of its end.
        outage_reported: bool,
    },
    Closed {
        since: Timestamp,
    },
    /// CM answers again, but the outage began with an update that failed, and none has succeeded
    /// since: everybody may ask, and people are not told that it is over.
    Recovering(Outage),
    Open(OpenState),
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::Unknown { outage_reported: false }
    }
}

/// An outage, as people are told of it.
#[derive(Debug, Clone)]
struct Outage {
    since: Timestamp,
    reason: UnavailableReason,
    detail: String,
    /// Whether it began with an update: that CM answers questions does not end it.
    writes_failed: bool,
}

#[derive(Debug)]
struct OpenState {
    outage: Outage,
    failures: u32,
    last_trial: Instant,
    next_trial: Instant,
    /// The time that CM asked for.
    not_before: Instant,
    trial_entry: Option<EntryId>,
    /// Somebody came while the knocker waited for its answer, and does not wait long after it.
    expedite: bool,
}

/// How many entries may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// As many as the configuration says.
    Unlimited,
    /// One, to find out.
    Single,
    /// One, from this moment on.
    SingleAt(Instant),
    /// None before somebody's answer.
    Blocked,
}

/// What an answer says about CM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AvailabilityChange {
    /// Nothing that was not known.
    None,
    /// CM answers again; whether it takes updates is not known yet.
    Partial,
    /// The outage is over.
    Full,
    /// The outage is over, for a CM that nobody had waited for since it was named.
    FirstContact,
}

/// The next knock after so many failures. Where CM named a time it names it to many stations, so
/// that even the first wait after it is spread.
fn next_trial(
    asked: Instant,
    failures: u32,
    retry: RetryPolicy,
    random: &mut fastrand::Rng,
    now: Now,
) -> Instant {
    let spread = if asked > now.mono { failures.max(MIN_JITTER_DOUBLINGS) } else { failures };
    asked + retry.delay(spread, random)
}

impl OpenState {
    /// The soonest moment for a knock that does not wait for its turn.
    fn earliest_trial(&self, now: Now) -> Instant {
        self.earliest_spaced_trial(now).max(self.not_before)
    }

    /// Another call failed: where it was the knock, the next comes later than this one did.
    fn failed(
        &mut self,
        entry: EntryId,
        asked: Instant,
        retry: RetryPolicy,
        random: &mut fastrand::Rng,
        now: Now,
    ) {
        if self.trial_entry == Some(entry) {
            self.trial_entry = None;
            self.failures = self.failures.saturating_add(1);
            self.next_trial = if std::mem::take(&mut self.expedite) {
                self.earliest_trial(now)
            } else {
                next_trial(asked, self.failures, retry, random, now)
            };
        }
        self.not_before = self.not_before.max(asked);
        self.next_trial = self.next_trial.max(self.not_before);
    }

    /// The soonest moment that is far enough from the last knock.
    fn earliest_spaced_trial(&self, now: Now) -> Instant {
        now.mono.max(self.last_trial + MIN_TRIAL_INTERVAL)
    }
}

impl CircuitBreaker {
    /// Who may start, when `busy` entries are being worked on.
    pub(super) fn admission(&self, busy: usize) -> Admission {
        match &self.state {
            BreakerState::Closed { .. } | BreakerState::Recovering(_) => Admission::Unlimited,
            BreakerState::Unknown { .. } if busy == 0 => Admission::Single,
            BreakerState::Open(away) if away.trial_entry.is_none() && busy == 0 => {
                Admission::SingleAt(away.next_trial)
            }
            BreakerState::Unknown { .. } | BreakerState::Open(_) => Admission::Blocked,
        }
    }

    /// This entry is asking now.
    pub(super) fn start_trial(&mut self, entry: EntryId, now: Now) {
        if let BreakerState::Open(away) = &mut self.state {
            away.trial_entry = Some(entry);
            away.last_trial = now.mono;
        }
    }

    /// A new insertion does not wait for the next knock.
    pub(super) fn expedite_trial(&mut self, now: Now) {
        if let BreakerState::Open(away) = &mut self.state {
            away.next_trial = away.next_trial.min(away.earliest_trial(now));
            away.expedite = away.trial_entry.is_some();
        }
    }

    /// A person waits for no turn, not even for the time that CM asked for.
    pub(super) fn force_trial(&mut self, now: Now) {
        self.expedite_trial(now);
        if let BreakerState::Open(away) = &mut self.state {
            away.next_trial = away.next_trial.min(away.earliest_spaced_trial(now));
        }
    }

    /// Whatever is known is about a CM that may not be the one that is asked from now on. Of the
    /// calls that are `under_way` the answers say nothing any more.
    pub(super) fn reset(&mut self, under_way: impl Iterator<Item = EntryId>) {
        let told_away = match self.state {
            BreakerState::Unknown { outage_reported: told_away } => told_away,
            BreakerState::Closed { .. } => false,
            BreakerState::Recovering(_) | BreakerState::Open(_) => true,
        };
        self.state = BreakerState::Unknown { outage_reported: told_away };
        self.stale_calls.extend(under_way);
    }

    /// Whether the answer to this entry comes from a CM that was forgotten since it was asked.
    pub(super) fn is_stale(&mut self, entry: EntryId) -> bool {
        self.stale_calls.remove(&entry)
    }

    /// CM answered this entry. While it wants to be left alone only a person's knock ends the
    /// waiting: any other answer is to something asked before.
    pub(super) fn on_response(&mut self, entry: EntryId, now: Now) -> AvailabilityChange {
        let up = BreakerState::Closed { since: now.wall };
        match &self.state {
            BreakerState::Closed { .. } | BreakerState::Recovering(_) => AvailabilityChange::None,
            BreakerState::Unknown { outage_reported: told_away } => {
                let told_away = *told_away;
                self.state = up;
                if told_away { AvailabilityChange::FirstContact } else { AvailabilityChange::None }
            }
            BreakerState::Open(away)
                if now.mono < away.not_before && away.trial_entry != Some(entry) =>
            {
                AvailabilityChange::None
            }
            BreakerState::Open(OpenState { outage, .. }) if outage.writes_failed => {
                self.state = BreakerState::Recovering(outage.clone());
                AvailabilityChange::Partial
            }
            BreakerState::Open(_) => {
                self.state = up;
                AvailabilityChange::Full
            }
        }
    }

    /// An update succeeded, or none waits any more.
    pub(super) fn on_write_succeeded(&mut self, now: Now) -> Option<Notice> {
        matches!(self.state, BreakerState::Recovering(_)).then(|| {
            self.state = BreakerState::Closed { since: now.wall };
            Notice::CmAvailable
        })
    }

    /// CM did not answer this entry, which asked for an update, or not.
    pub(super) fn on_call_failed(
        &mut self,
        entry: EntryId,
        (error, of_update): (&CallError, bool),
        retry: RetryPolicy,
        random: &mut fastrand::Rng,
        now: Now,
    ) -> Option<Notice> {
        let (reason, retry_after) = match error {
            CallError::Unavailable { reason, retry_after, .. } => (*reason, *retry_after),
            // Nobody comes through, and what is asked for is not there: so it is while the API is off.
            CallError::Failed { http_status: 404, retry_after, .. } => {
                (UnavailableReason::ApiDisabled, *retry_after)
            }
            CallError::Failed { http_status: 500.., retry_after, .. } => {
                (UnavailableReason::ServerError, *retry_after)
            }
            CallError::Failed { retry_after, .. } => (UnavailableReason::NotCm, *retry_after),
            CallError::Refused { .. } | CallError::UnexpectedResponse { .. } => {
                (UnavailableReason::ServerError, None)
            }
        };
        let asked = now.mono + retry_after.unwrap_or_default();
        let detail = error.detail().to_owned();
        let outage = match &mut self.state {
            BreakerState::Open(away) => {
                away.failed(entry, asked, retry, random, now);
                (away.outage.reason, away.outage.detail) = (reason, detail);
                return None;
            }
            BreakerState::Recovering(outage) => Outage { reason, detail, ..outage.clone() },
            BreakerState::Unknown { .. } | BreakerState::Closed { .. } => {
                Outage { since: now.wall, reason, detail, writes_failed: of_update }
            }
        };
        let told = self.is_recovering();
        self.state = BreakerState::Open(OpenState {
            outage,
            failures: 0,
            last_trial: now.mono,
            next_trial: next_trial(asked, 0, retry, random, now),
            not_before: asked,
            trial_entry: None,
            expedite: false,
        });
        (!told).then(|| Notice::CmUnavailable(error.clone()))
    }

    /// Whether an entry that has begun may ask CM something more.
    pub(super) fn may_continue(&self, entry: EntryId) -> bool {
        match &self.state {
            BreakerState::Unknown { .. }
            | BreakerState::Closed { .. }
            | BreakerState::Recovering(_) => true,
            BreakerState::Open(away) => away.trial_entry == Some(entry),
        }
    }

    /// Before when nobody asks CM anything, where CM is away.
    pub(super) const fn next_knock(&self) -> Option<Instant> {
        match &self.state {
            BreakerState::Unknown { .. }
            | BreakerState::Closed { .. }
            | BreakerState::Recovering(_) => None,
            BreakerState::Open(away) => Some(away.next_trial),
        }
    }

    /// Whether CM answers what it is asked.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, BreakerState::Closed { .. } | BreakerState::Recovering(_))
    }

    /// How many answers of a CM that was forgotten are waited for.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.stale_calls.len()
    }

    #[cfg(test)]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, BreakerState::Open(_))
    }

    /// Whether it is not known that CM takes updates, though it answers.
    pub(super) const fn is_recovering(&self) -> bool {
        matches!(self.state, BreakerState::Recovering(_))
    }

    /// For the snapshot; `next` is when the next entry asks something, where everybody may.
    pub(super) fn view(&self, next: Option<Instant>, now: Now) -> CmView {
        match &self.state {
            BreakerState::Unknown { .. } => CmView::Unknown,
            BreakerState::Closed { since } => CmView::Available { since: *since },
            BreakerState::Recovering(outage) => outage.view(next.unwrap_or(now.mono), now),
            BreakerState::Open(away) => away.outage.view(away.next_trial, now),
        }
    }
}

impl Outage {
    fn view(&self, next_try: Instant, now: Now) -> CmView {
        CmView::Unavailable {
            since: self.since,
            reason: self.reason.as_str().to_owned(),
            detail: self.detail.clone(),
            remedy: self.reason.remedy().to_owned(),
            next_try_ms: millis(next_try.saturating_duration_since(now.mono)),
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
