//! What all parts of the engine share: the time, the settings, and what they put out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::interface::{
    Effect, EngineSettings, Notice, Now, OutboxEffect, OutboxFailure, RetryPolicy,
};
use crate::domain::{AuditLine, BootMoment, EngineCounters};

/// How many audit lines `status` shows.
const RECENT_AUDIT_LINES: usize = 20;

#[derive(Debug)]
pub(super) struct Context {
    /// The time of the event that is being handled.
    pub(super) time: Now,
    pub(super) settings: EngineSettings,
    pub(super) random: fastrand::Rng,
    pub(super) effects: VecDeque<Effect>,
    pub(super) counters: EngineCounters,
    pub(super) recent_audit: VecDeque<AuditLine>,
    /// Why the outbox stores nothing, while it does not.
    pub(super) outbox_error: Option<String>,
    /// The moment of the start, by the machine's start and by the monotonic clock.
    pub(super) started: Option<(BootMoment, Instant)>,
}

impl Context {
    pub(super) fn report(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Report(notice));
    }

    pub(super) fn store(&mut self, effect: OutboxEffect) {
        self.effects.push_back(Effect::Outbox(effect));
    }

    /// A result that nothing waits for: it came too late, which is normal.
    pub(super) fn count_stale_result(&mut self) {
        self.counters.stale_results += 1;
    }

    /// A result that nothing can have asked for.
    pub(super) fn report_unexpected(&mut self, of: &impl ToString, result: &'static str) {
        self.count_stale_result();
        self.report(Notice::UnexpectedResult { of: of.to_string(), result });
    }

    /// An audit line is on disk.
    pub(super) fn publish(&mut self, line: AuditLine) {
        if let Some(outcome) = line.outcome() {
            count(&mut self.counters.outcomes, outcome);
        }
        self.recent_audit.push_front(line);
        self.recent_audit.truncate(RECENT_AUDIT_LINES);
    }

    pub(super) fn on_outbox_error(&mut self, failure: &OutboxFailure) {
        self.counters.outbox_errors += 1;
        let detail = failure.detail();
        if self.outbox_error.as_deref() != Some(detail) {
            self.outbox_error = Some(detail.to_owned());
            self.report(Notice::OutboxError(detail.to_owned()));
        }
    }

    pub(super) fn on_outbox_recovered(&mut self) {
        if self.outbox_error.take().is_some() {
            self.report(Notice::OutboxRecovered);
        }
    }

    /// The moment of the next try after so many failures in a row.
    pub(super) fn next_try(&mut self, failures: u32) -> Instant {
        self.time.mono + self.settings.retry.delay(failures, &mut self.random)
    }

    /// A moment, counted from the machine's start.
    pub(super) fn boot_moment(&self, at: Instant) -> Option<BootMoment> {
        let (moment, started) = self.started.as_ref()?;
        Some(match at.checked_duration_since(*started) {
            Some(since) => moment.later(since),
            None => moment.earlier(started.saturating_duration_since(at)),
        })
    }
}

pub(super) fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}

impl RetryPolicy {
    /// The wait after so many failures in a row, with full jitter: anything from the shortest up to the
    /// shortest doubled that many times, so that many stations do not return at one moment.
    pub(super) fn delay(self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let doubled = self.min.saturating_mul(2_u32.saturating_pow(failures.min(31)));
        let most = doubled.clamp(self.min, self.max.max(self.min));
        let span = most.saturating_sub(self.min);
        self.min + span.mul_f64(random.f64())
    }

    /// How much longer an entry waits that has waited so long when CM is available again: up to the same
    /// again, and up to three times the longest wait. All stations learn within one such wait that CM is
    /// back; without this they would all send their backlog at that moment.
    pub(super) fn resume_jitter(self, waited: Duration, random: &mut fastrand::Rng) -> Duration {
        waited.min(self.max.saturating_mul(3)).mul_f64(random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_within_its_bounds() {
        let retry = RetryPolicy { min: Duration::from_secs(1), max: Duration::from_mins(5) };
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 0..200 {
            let most = Duration::from_secs(1 << failures.min(9)).min(retry.max);
            let delay = retry.delay(failures, &mut random);
            assert!(delay >= retry.min && delay <= most, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn resume_jitter_is_bounded_by_the_wait_and_three_maximum_delays() {
        let retry = RetryPolicy { min: Duration::from_secs(1), max: Duration::from_mins(5) };
        let mut random = fastrand::Rng::with_seed(7);
        let most = |waited, random: &mut fastrand::Rng| {
            (0..1000).map(|_| retry.resume_jitter(waited, random)).max().unwrap()
        };
        let short = most(Duration::from_secs(3), &mut random);
        assert!(short > Duration::from_secs(2) && short <= Duration::from_secs(3), "{short:?}");
        let long = most(Duration::from_hours(5), &mut random);
        assert!(long > Duration::from_mins(14) && long <= Duration::from_mins(15), "{long:?}");
    }

    #[test]
    fn recovery_jitter_differs_between_stations() {
        let retry = RetryPolicy { min: Duration::from_secs(1), max: Duration::from_mins(5) };
        let delays: std::collections::BTreeSet<_> = (0..500)
            .map(|seed| retry.delay(9, &mut fastrand::Rng::with_seed(seed)).as_secs() / 10)
            .collect();
        assert!(delays.len() > 25, "{delays:?}");
    }
}
