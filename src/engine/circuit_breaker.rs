//! Whether CM is available, and which entry may call it.
//!
//! While CM is unavailable one entry at a time calls it, at moments that grow further apart. A new
//! insertion makes the next trial immediate, though never within a second of the last, and never
//! before the time that CM itself asked for. An operator passes that time too. The jitter comes on
//! top of that time: CM asks many stations for the same one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::context::Context;
use super::interface::{Notice, Now};
use crate::domain::{CallError, CmView, EntryId, UnavailableReason};

/// The least time between two trials, the second of which is made for a new insertion.
const MIN_TRIAL_INTERVAL: Duration = Duration::from_secs(1);

/// How often the shortest wait is doubled, at the least, to spread the stations over the time after
/// the one that CM asked for: half a minute, where the shortest is a second.
const MIN_JITTER_DOUBLINGS: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    state: BreakerState,
    /// Entries whose call was made to the CM of before a reload.
    stale_calls: BTreeSet<EntryId>,
}

#[derive(Debug)]
enum BreakerState {
    /// No call was made yet; the first entry finds out.
    Unknown {
        /// Whether an outage was reported before, and not its end.
        outage_reported: bool,
    },
    Closed {
        since: Timestamp,
    },
    /// CM answers again, but the outage began with an update that failed, and none has succeeded
    /// since: every entry may call, and the end is not reported yet.
    Recovering(Outage),
    Open(OpenState),
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::Unknown { outage_reported: false }
    }
}

/// An outage, as it is reported.
#[derive(Debug, Clone)]
struct Outage {
    since: Timestamp,
    reason: UnavailableReason,
    detail: String,
    /// Whether it began with an update: that CM answers reads does not end it.
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
    /// A card was inserted during the trial: the next one follows soon.
    expedite: bool,
}

/// How many entries may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// As many as the configuration says.
    Unlimited,
    Single,
    SingleAt(Instant),
    /// None before the trial returns.
    Blocked,
}

/// What a response says about CM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AvailabilityChange {
    /// Nothing that was not known.
    None,
    /// CM answers again; whether it takes updates is not known yet.
    Partial,
    /// The outage is over.
    Full,
    /// The outage is over, for a CM that no entry has waited for since the reload.
    FirstContact,
}

/// The next trial after so many failures. Where CM named a time it names it to many stations, so
/// that even the first wait after it is spread.
fn next_trial(cx: &mut Context, asked: Instant, failures: u32) -> Instant {
    let spread = if asked > cx.time.mono { failures.max(MIN_JITTER_DOUBLINGS) } else { failures };
    asked + cx.settings.retry.delay(spread, &mut cx.random)
}

impl OpenState {
    /// The soonest moment for a trial that does not wait for its turn.
    fn earliest_trial(&self, now: Now) -> Instant {
        self.earliest_spaced_trial(now).max(self.not_before)
    }

    fn earliest_spaced_trial(&self, now: Now) -> Instant {
        now.mono.max(self.last_trial + MIN_TRIAL_INTERVAL)
    }

    /// Another call failed: where it was the trial, the next comes later than this one did.
    fn failed(&mut self, cx: &mut Context, entry: EntryId, asked: Instant) {
        if self.trial_entry == Some(entry) {
            self.trial_entry = None;
            self.failures = self.failures.saturating_add(1);
            self.next_trial = if std::mem::take(&mut self.expedite) {
                self.earliest_trial(cx.time)
            } else {
                next_trial(cx, asked, self.failures)
            };
        }
        self.not_before = self.not_before.max(asked);
        self.next_trial = self.next_trial.max(self.not_before);
    }
}

impl CircuitBreaker {
    /// Which entries may start, when so many have a call in flight.
    pub(super) fn admission(&self, in_flight: usize) -> Admission {
        match &self.state {
            BreakerState::Closed { .. } | BreakerState::Recovering(_) => Admission::Unlimited,
            BreakerState::Unknown { .. } if in_flight == 0 => Admission::Single,
            BreakerState::Open(open) if open.trial_entry.is_none() && in_flight == 0 => {
                Admission::SingleAt(open.next_trial)
            }
            BreakerState::Unknown { .. } | BreakerState::Open(_) => Admission::Blocked,
        }
    }

    pub(super) fn start_trial(&mut self, entry: EntryId, now: Now) {
        if let BreakerState::Open(open) = &mut self.state {
            open.trial_entry = Some(entry);
            open.last_trial = now.mono;
        }
    }

    /// A new insertion does not wait for the next trial.
    pub(super) fn expedite_trial(&mut self, now: Now) {
        if let BreakerState::Open(open) = &mut self.state {
            open.next_trial = open.next_trial.min(open.earliest_trial(now));
            open.expedite = open.trial_entry.is_some();
        }
    }

    /// An operator's retry waits for no turn, not even for the time that CM asked for.
    pub(super) fn force_trial(&mut self, now: Now) {
        self.expedite_trial(now);
        if let BreakerState::Open(open) = &mut self.state {
            open.next_trial = open.next_trial.min(open.earliest_spaced_trial(now));
        }
    }

    /// The configuration may name another CM: nothing is known of it, and the results of the calls
    /// that are in flight say nothing any more.
    pub(super) fn reset(&mut self, in_flight: impl Iterator<Item = EntryId>) {
        let outage_reported = match self.state {
            BreakerState::Unknown { outage_reported } => outage_reported,
            BreakerState::Closed { .. } => false,
            BreakerState::Recovering(_) | BreakerState::Open(_) => true,
        };
        self.state = BreakerState::Unknown { outage_reported };
        self.stale_calls.extend(in_flight);
    }

    /// Whether this entry's call was made before the configuration was reloaded.
    pub(super) fn take_stale_call(&mut self, entry: EntryId) -> bool {
        self.stale_calls.remove(&entry)
    }

    /// CM responded to this entry. Before the time that CM asked for only the trial of an operator
    /// ends the waiting: any other response is to a call that was made before.
    pub(super) fn on_response(&mut self, entry: EntryId, now: Now) -> AvailabilityChange {
        let (state, change) = match &self.state {
            BreakerState::Closed { .. } | BreakerState::Recovering(_) => {
                return AvailabilityChange::None;
            }
            BreakerState::Open(open)
                if now.mono < open.not_before && open.trial_entry != Some(entry) =>
            {
                return AvailabilityChange::None;
            }
            BreakerState::Open(OpenState { outage, .. }) if outage.writes_failed => {
                (BreakerState::Recovering(outage.clone()), AvailabilityChange::Partial)
            }
            BreakerState::Unknown { outage_reported: false } => {
                (BreakerState::Closed { since: now.wall }, AvailabilityChange::None)
            }
            BreakerState::Unknown { outage_reported: true } => {
                (BreakerState::Closed { since: now.wall }, AvailabilityChange::FirstContact)
            }
            BreakerState::Open(_) => {
                (BreakerState::Closed { since: now.wall }, AvailabilityChange::Full)
            }
        };
        self.state = state;
        change
    }

    /// An update succeeded, or none waits any more.
    pub(super) fn on_write_succeeded(&mut self, cx: &mut Context) {
        if self.is_recovering() {
            self.state = BreakerState::Closed { since: cx.time.wall };
            cx.report(Notice::CmAvailable);
        }
    }

    /// A call for this entry, an update or not, found CM unavailable.
    pub(super) fn on_call_failed(
        &mut self,
        cx: &mut Context,
        entry: EntryId,
        error: &CallError,
        of_update: bool,
    ) {
        let (reason, retry_after) = match error {
            CallError::Unavailable { reason, retry_after, .. } => (*reason, *retry_after),
            // No call succeeds, and nothing is found: so it is while the API is off.
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
        let asked = cx.time.mono + retry_after.unwrap_or_default();
        let detail = error.detail().to_owned();
        let was_reported = self.is_recovering();
        let outage = match &mut self.state {
            BreakerState::Open(open) => {
                open.failed(cx, entry, asked);
                (open.outage.reason, open.outage.detail) = (reason, detail);
                return;
            }
            BreakerState::Recovering(outage) => Outage { reason, detail, ..outage.clone() },
            BreakerState::Unknown { .. } | BreakerState::Closed { .. } => {
                Outage { since: cx.time.wall, reason, detail, writes_failed: of_update }
            }
        };
        self.state = BreakerState::Open(OpenState {
            outage,
            failures: 0,
            last_trial: cx.time.mono,
            next_trial: next_trial(cx, asked, 0),
            not_before: asked,
            trial_entry: None,
            expedite: false,
        });
        if !was_reported {
            cx.counters.cm_outages += 1;
            cx.report(Notice::CmUnavailable(error.clone()));
        }
    }

    /// Whether an entry that has started may make another call.
    pub(super) fn may_continue(&self, entry: EntryId) -> bool {
        !matches!(&self.state, BreakerState::Open(open) if open.trial_entry != Some(entry))
    }

    pub(super) const fn next_trial(&self) -> Option<Instant> {
        if let BreakerState::Open(open) = &self.state { Some(open.next_trial) } else { None }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, BreakerState::Closed { .. } | BreakerState::Recovering(_))
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.stale_calls.len()
    }

    #[cfg(test)]
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, BreakerState::Open(_))
    }

    pub(super) const fn is_recovering(&self) -> bool {
        matches!(self.state, BreakerState::Recovering(_))
    }

    /// `next` is when the next entry makes a call, where every entry may.
    pub(super) fn view(&self, next: Option<Instant>, now: Now) -> CmView {
        let (outage, next_try) = match &self.state {
            BreakerState::Unknown { .. } => return CmView::Unknown,
            BreakerState::Closed { since } => return CmView::Available { since: *since },
            BreakerState::Recovering(outage) => (outage, next.unwrap_or(now.mono)),
            BreakerState::Open(open) => (&open.outage, open.next_trial),
        };
        CmView::Unavailable {
            since: outage.since,
            reason: outage.reason.as_str().to_owned(),
            detail: outage.detail.clone(),
            remedy: outage.reason.remedy().to_owned(),
            next_try_ms: millis_until(next_try, now),
        }
    }
}

pub(super) fn millis_until(moment: Instant, now: Now) -> u64 {
    let wait = moment.saturating_duration_since(now.mono);
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
