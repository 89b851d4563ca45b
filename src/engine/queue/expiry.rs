//! Who has waited too long.
//!
//! 10,000 entries may wait, and the engine is asked at every event. So they are looked at only when
//! one of them may have waited too long.

use std::time::Instant;

use crate::domain::{Outcome, ParkReason};
use crate::engine::{Engine, Now};

/// When to look for entries that have waited too long.
#[derive(Debug, Default)]
pub(super) struct ExpiryTimer {
    /// None that has not waited too long began to wait before.
    since: Option<Instant>,
    /// One has waited too long, and ends once it may.
    overdue: bool,
}

impl ExpiryTimer {
    /// Another entry waits.
    pub(super) fn add(&mut self, since: Instant) {
        self.since = Some(self.since.map_or(since, |oldest| oldest.min(since)));
    }
}

impl Engine {
    /// When the next entry may have waited too long.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.queue.oldest.since.and_then(|since| since.checked_add(self.policy.max_age))
    }

    /// Parks what has waited too long.
    pub(super) fn expire(&mut self, now: Now) {
        if !self.queue.oldest.overdue && self.next_expiry().is_none_or(|at| now.mono < at) {
            return;
        }
        let mut oldest = ExpiryTimer::default();
        let mut expired = Vec::new();
        for (id, entry) in &self.queue.waiting {
            if now.mono.saturating_duration_since(entry.since) < self.policy.max_age {
                oldest.add(entry.since);
            } else if self.queue.may_start(*id, entry) {
                expired.push((*id, entry.last_error.clone()));
            } else {
                oldest.overdue = true;
            }
        }
        self.queue.oldest = oldest;
        for (id, last_error) in expired {
            let why = last_error
                .unwrap_or_else(|| "it was not tried since the daemon started".to_owned());
            let detail = format!("waited longer than outbox.max_age; last error: {why}");
            self.finish_with(id, Outcome::Parked(ParkReason::Expired), detail, now);
        }
    }
}
