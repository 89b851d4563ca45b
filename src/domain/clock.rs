//! Time that surely passed.
//!
//! The clock on the wall may be wrong by years: a station without a battery for its clock begins in
//! 1970, and somebody types a wrong year. Nothing is forgotten or given up because of that clock alone.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment, counted from a start of the machine: no setting of a clock changes that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMoment {
    /// The kernel's id of the boot.
    pub boot: String,
    /// Seconds since then, those of sleep included.
    pub seconds: u64,
}

impl BootMoment {
    /// The moment that much later.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Self { boot: self.boot.clone(), seconds: self.seconds.saturating_add(by.as_secs()) }
    }

    /// The moment that much earlier; never before the boot.
    #[must_use]
    pub fn earlier(&self, by: Duration) -> Self {
        Self { boot: self.boot.clone(), seconds: self.seconds.saturating_sub(by.as_secs()) }
    }

    /// How much time surely passed since an `earlier` moment. One in another boot was before this
    /// one began; how long before, nobody knows.
    #[must_use]
    pub fn surely_since(&self, earlier: &Self) -> Duration {
        let before = if self.boot == earlier.boot { earlier.seconds } else { 0 };
        Duration::from_secs(self.seconds.saturating_sub(before))
    }
}

/// What proves that a date was reached, other than this machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct ClockWitness {
    /// When this program was built.
    built: Timestamp,
    /// Since when it runs.
    started: Instant,
    /// The last `Date` of CM's, and when that came.
    latest: Option<(Timestamp, Instant)>,
}

impl ClockWitness {
    /// Knows the date of the build only.
    #[must_use]
    pub const fn new(built: Timestamp, started: Instant) -> Self {
        Self { built, started, latest: None }
    }

    /// Takes CM's date, in place of an older one: its clock may have been set as well.
    pub const fn observe(&mut self, date: Timestamp, at: Instant) {
        self.latest = Some((date, at));
    }

    /// The date that has been reached: whatever the clock on the wall says, and a witness besides.
    #[must_use]
    pub fn reached(&self, wall: Timestamp, now: Instant) -> Timestamp {
        let after = |date: Timestamp, at: Instant| {
            date.checked_add(now.saturating_duration_since(at)).unwrap_or(date)
        };
        let built = after(self.built, self.started);
        let told = self.latest.map(|(date, at)| after(date, at));
        wall.min(told.map_or(built, |told| told.max(built)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn date(text: &str) -> Timestamp {
        format!("{text}T00:00:00Z").parse().unwrap()
    }

    fn moment(boot: &str, seconds: u64) -> BootMoment {
        BootMoment { boot: boot.to_owned(), seconds }
    }

    #[test]
    fn within_a_boot_all_time_counts_and_across_boots_only_that_since_the_last() {
        let then = moment("a", 100);
        assert_eq!(moment("a", 350).surely_since(&then), Duration::from_secs(250));
        assert_eq!(moment("a", 50).surely_since(&then), Duration::ZERO);
        assert_eq!(moment("b", 30).surely_since(&then), Duration::from_secs(30));
        assert_eq!(then.earlier(DAY), moment("a", 0));
        assert_eq!(then.later(Duration::from_secs(5)), moment("a", 105));
    }

    #[test]
    fn a_clock_that_is_ahead_has_reached_no_more_than_its_witnesses() {
        let started = Instant::now();
        let mut witness = ClockWitness::new(date("2026-01-01"), started);
        let ahead = date("2027-06-01");
        assert_eq!(witness.reached(ahead, started), date("2026-01-01"));
        assert_eq!(witness.reached(ahead, started + 3 * DAY), date("2026-01-04"));
        witness.observe(date("2026-02-01"), started + DAY);
        assert_eq!(witness.reached(ahead, started + 2 * DAY), date("2026-02-02"));
        witness.observe(date("1999-01-01"), started + 2 * DAY);
        assert_eq!(
            witness.reached(ahead, started + 2 * DAY),
            date("2026-01-03"),
            "not before it ran"
        );
    }

    #[test]
    fn a_clock_that_is_behind_has_reached_only_what_it_says() {
        let started = Instant::now();
        let mut witness = ClockWitness::new(date("2026-01-01"), started);
        witness.observe(date("2026-02-01"), started);
        assert_eq!(witness.reached(date("1970-01-01"), started), date("1970-01-01"));
    }
}
