//! How long to wait between tries: exponential, with full jitter.

use std::time::Duration;

/// The bounds of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl RetryPolicy {
    /// The wait after so many failures in a row: anything from the shortest up to the shortest
    /// doubled that many times, so that many stations do not come back at one moment.
    pub(super) fn delay(self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let doubled = self.min.saturating_mul(2_u32.saturating_pow(failures.min(31)));
        let most = doubled.clamp(self.min, self.max.max(self.min));
        let span = most.saturating_sub(self.min);
        self.min + span.mul_f64(random.f64())
    }

    /// How much longer somebody waits who has waited so long for a CM that is back: anything up
    /// to the same again, and up to three times the longest wait between tries. All stations learn
    /// within one such wait that CM is back; without this they would bring it everything they
    /// have at that moment.
    pub(super) fn resume_jitter(self, waited: Duration, random: &mut fastrand::Rng) -> Duration {
        waited.min(self.max.saturating_mul(3)).mul_f64(random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_never_leave_the_bounds() {
        let retry = RetryPolicy { min: Duration::from_secs(1), max: Duration::from_mins(5) };
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 0..200 {
            let most = Duration::from_secs(1 << failures.min(9)).min(retry.max);
            let delay = retry.delay(failures, &mut random);
            assert!(delay >= retry.min && delay <= most, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn after_an_outage_nobody_waits_longer_than_before_nor_than_three_of_the_longest_waits() {
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
    fn stations_with_different_seeds_come_back_at_different_moments() {
        let retry = RetryPolicy { min: Duration::from_secs(1), max: Duration::from_mins(5) };
        let delays: std::collections::BTreeSet<_> = (0..500)
            .map(|seed| retry.delay(9, &mut fastrand::Rng::with_seed(seed)).as_secs() / 10)
            .collect();
        assert!(delays.len() > 25, "{delays:?}");
    }
}
