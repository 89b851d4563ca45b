//! Whether CM is away, and who may knock.
//!
//! While CM is away one entry at a time knocks for all of them, at moments that grow further
//! apart. A new insertion makes the next knock come at once, though never within a second of
//! the last, and never before the time that CM itself asked for. A person passes that time too.
//! The jitter comes on top of that time: CM asks many stations for the same one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Notice, Now, Retry};
use crate::domain::{CallError, CmView, EntryId, UnavailableReason};

/// The least time between a knock and the next, where a new insertion makes that one.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// How often the shortest wait is doubled, at the least, to spread the stations over the time after
/// the one that CM asked for: half a minute, where the shortest is a second.
const SPREAD: u32 = 5;

/// The connection to CM.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: State,
    /// Entries that still wait for the answer of a CM that was forgotten.
    asked_before: BTreeSet<EntryId>,
}

#[derive(Debug)]
enum State {
    /// Nobody knows yet; the first entry finds out.
    Untried {
        /// Whether people were told of an outage before, and not of its end.
        told_away: bool,
    },
    Up {
        since: Timestamp,
    },
    /// CM answers again, but the outage began with an update that failed, and none has succeeded
    /// since: everybody may ask, and people are not told that it is over.
    InDoubt(Outage),
    Away(Away),
}

impl Default for State {
    fn default() -> Self {
        Self::Untried { told_away: false }
    }
}

/// An outage, as people are told of it.
#[derive(Debug, Clone)]
struct Outage {
    since: Timestamp,
    reason: UnavailableReason,
    detail: String,
    /// Whether it began with an update: that CM answers questions does not end it.
    of_updates: bool,
}

#[derive(Debug)]
struct Away {
    outage: Outage,
    failures: u32,
    last_try: Instant,
    next_knock: Instant,
    /// The time that CM asked for.
    not_before: Instant,
    knocker: Option<EntryId>,
    /// Somebody came while the knocker waited for its answer, and does not wait long after it.
    hurry: bool,
}

/// How many entries may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// As many as the configuration says.
    Open,
    /// One, to find out.
    One,
    /// One, from this moment on.
    OneAt(Instant),
    /// None before somebody's answer.
    Shut,
}

/// What an answer says about CM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nothing that was not known.
    AsBefore,
    /// CM answers again; whether it takes updates is not known yet.
    Again,
    /// The outage is over.
    Back,
    /// The outage is over, for a CM that nobody had waited for since it was named.
    Anew,
}

/// The next knock after so many failures. Where CM named a time it names it to many stations, so
/// that even the first wait after it is spread.
fn next_knock(
    asked: Instant,
    failures: u32,
    retry: Retry,
    random: &mut fastrand::Rng,
    now: Now,
) -> Instant {
    let spread = if asked > now.mono { failures.max(SPREAD) } else { failures };
    asked + retry.delay(spread, random)
}

impl Away {
    /// The soonest moment for a knock that does not wait for its turn.
    fn soonest(&self, now: Now) -> Instant {
        self.apart(now).max(self.not_before)
    }

    /// Another call failed: where it was the knock, the next comes later than this one did.
    fn failed(
        &mut self,
        entry: EntryId,
        asked: Instant,
        retry: Retry,
        random: &mut fastrand::Rng,
        now: Now,
    ) {
        if self.knocker == Some(entry) {
            self.knocker = None;
            self.failures = self.failures.saturating_add(1);
            self.next_knock = if std::mem::take(&mut self.hurry) {
                self.soonest(now)
            } else {
                next_knock(asked, self.failures, retry, random, now)
            };
        }
        self.not_before = self.not_before.max(asked);
        self.next_knock = self.next_knock.max(self.not_before);
    }

    /// The soonest moment that is far enough from the last knock.
    fn apart(&self, now: Now) -> Instant {
        now.mono.max(self.last_try + KNOCK_EVERY)
    }
}

impl Link {
    /// Who may start, when `busy` entries are being worked on.
    pub(super) fn door(&self, busy: usize) -> Door {
        match &self.state {
            State::Up { .. } | State::InDoubt(_) => Door::Open,
            State::Untried { .. } if busy == 0 => Door::One,
            State::Away(away) if away.knocker.is_none() && busy == 0 => {
                Door::OneAt(away.next_knock)
            }
            State::Untried { .. } | State::Away(_) => Door::Shut,
        }
    }

    /// This entry is asking now.
    pub(super) fn knocks(&mut self, entry: EntryId, now: Now) {
        if let State::Away(away) = &mut self.state {
            away.knocker = Some(entry);
            away.last_try = now.mono;
        }
    }

    /// A new insertion does not wait for the next knock.
    pub(super) fn knock_soon(&mut self, now: Now) {
        if let State::Away(away) = &mut self.state {
            away.next_knock = away.next_knock.min(away.soonest(now));
            away.hurry = away.knocker.is_some();
        }
    }

    /// A person waits for no turn, not even for the time that CM asked for.
    pub(super) fn knock_now(&mut self, now: Now) {
        self.knock_soon(now);
        if let State::Away(away) = &mut self.state {
            away.next_knock = away.next_knock.min(away.apart(now));
        }
    }

    /// Whatever is known is about a CM that may not be the one that is asked from now on. Of the
    /// calls that are `under_way` the answers say nothing any more.
    pub(super) fn forget(&mut self, under_way: impl Iterator<Item = EntryId>) {
        let told_away = match self.state {
            State::Untried { told_away } => told_away,
            State::Up { .. } => false,
            State::InDoubt(_) | State::Away(_) => true,
        };
        self.state = State::Untried { told_away };
        self.asked_before.extend(under_way);
    }

    /// Whether the answer to this entry comes from a CM that was forgotten since it was asked.
    pub(super) fn is_forgotten(&mut self, entry: EntryId) -> bool {
        self.asked_before.remove(&entry)
    }

    /// CM answered this entry. While it wants to be left alone only a person's knock ends the
    /// waiting: any other answer is to something asked before.
    pub(super) fn answered(&mut self, entry: EntryId, now: Now) -> Answered {
        let up = State::Up { since: now.wall };
        match &self.state {
            State::Up { .. } | State::InDoubt(_) => Answered::AsBefore,
            State::Untried { told_away } => {
                let told_away = *told_away;
                self.state = up;
                if told_away { Answered::Anew } else { Answered::AsBefore }
            }
            State::Away(away) if now.mono < away.not_before && away.knocker != Some(entry) => {
                Answered::AsBefore
            }
            State::Away(Away { outage, .. }) if outage.of_updates => {
                self.state = State::InDoubt(outage.clone());
                Answered::Again
            }
            State::Away(_) => {
                self.state = up;
                Answered::Back
            }
        }
    }

    /// An update succeeded, or none waits any more.
    pub(super) fn updates_work(&mut self, now: Now) -> Option<Notice> {
        matches!(self.state, State::InDoubt(_)).then(|| {
            self.state = State::Up { since: now.wall };
            Notice::CmBack
        })
    }

    /// CM did not answer this entry, which asked for an update, or not.
    pub(super) fn away(
        &mut self,
        entry: EntryId,
        (error, of_update): (&CallError, bool),
        retry: Retry,
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
            State::Away(away) => {
                away.failed(entry, asked, retry, random, now);
                (away.outage.reason, away.outage.detail) = (reason, detail);
                return None;
            }
            State::InDoubt(outage) => Outage { reason, detail, ..outage.clone() },
            State::Untried { .. } | State::Up { .. } => {
                Outage { since: now.wall, reason, detail, of_updates: of_update }
            }
        };
        let told = self.is_in_doubt();
        self.state = State::Away(Away {
            outage,
            failures: 0,
            last_try: now.mono,
            next_knock: next_knock(asked, 0, retry, random, now),
            not_before: asked,
            knocker: None,
            hurry: false,
        });
        (!told).then(|| Notice::CmAway(error.clone()))
    }

    /// Whether an entry that has begun may ask CM something more.
    pub(super) fn may_go_on(&self, entry: EntryId) -> bool {
        match &self.state {
            State::Untried { .. } | State::Up { .. } | State::InDoubt(_) => true,
            State::Away(away) => away.knocker == Some(entry),
        }
    }

    /// Before when nobody asks CM anything, where CM is away.
    pub(super) const fn next_knock(&self) -> Option<Instant> {
        match &self.state {
            State::Untried { .. } | State::Up { .. } | State::InDoubt(_) => None,
            State::Away(away) => Some(away.next_knock),
        }
    }

    /// Whether CM answers what it is asked.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. } | State::InDoubt(_))
    }

    /// How many answers of a CM that was forgotten are waited for.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.asked_before.len()
    }

    #[cfg(test)]
    pub(super) const fn is_away(&self) -> bool {
        matches!(self.state, State::Away(_))
    }

    /// Whether it is not known that CM takes updates, though it answers.
    pub(super) const fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::InDoubt(_))
    }

    /// For the snapshot; `next` is when the next entry asks something, where everybody may.
    pub(super) fn view(&self, next: Option<Instant>, now: Now) -> CmView {
        match &self.state {
            State::Untried { .. } => CmView::Unknown,
            State::Up { since } => CmView::Available { since: *since },
            State::InDoubt(outage) => outage.view(next.unwrap_or(now.mono), now),
            State::Away(away) => away.outage.view(away.next_knock, now),
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
