//! A fleet of stations: the real engine, many times, in simulated time, and one CM that goes away
//! for an hour and comes back.
//!
//! What CM meets then must not be a wave: see `docs/performance.md`. `tests/measure fleet` plays
//! 5,000 stations; here a smaller fleet has to keep the same bounds.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where something is not as expected"
)]

mod cm;
mod station;
mod world;

use std::io::Write as _;
use std::time::Duration;

use world::{Report, play};

/// As many as a debug build plays in a few seconds.
const FEW: usize = 500;

const MINUTE: Duration = Duration::from_mins(1);

/// How large a fleet is, and how much it has to do.
#[derive(Debug, Clone, Copy)]
struct Fleet {
    stations: usize,
    /// Cards put in at each station, in an hour, on average.
    cards_an_hour: f64,
    /// How long CM is away.
    outage: Duration,
    seed: u64,
}

impl Fleet {
    /// The time in which requests are counted: a second, or as long as a smaller fleet takes to
    /// make as many as 5,000 stations in a second. Else its peak would be an accident.
    fn second(&self) -> Duration {
        let stations = u32::try_from(self.stations).unwrap_or(u32::MAX).max(1);
        Duration::from_secs(1).max(Duration::from_secs(5000) / stations)
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Prints past the capture of the test runner, when measuring.
fn print(fleet: &Fleet, report: &Report) {
    if number::<usize>("FLEET").is_some() {
        let line = format!(
            "{} stations, {} cards an hour each, CM away for {} min: {report}\n",
            fleet.stations,
            fleet.cards_an_hour,
            fleet.outage.as_secs() / 60
        );
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}

fn returns_calmly(cards_an_hour: f64) {
    let fleet = Fleet {
        stations: number("FLEET").unwrap_or(FEW),
        cards_an_hour,
        outage: number("FLEET_OUTAGE_MINUTES").map_or(60 * MINUTE, Duration::from_mins),
        seed: number("FLEET_SEED").unwrap_or(1),
    };
    let report = play(&fleet);
    print(&fleet, &report);
    assert!(report.peak_share() < 3.0, "{report}");
    assert!(report.cleared.is_some_and(|after| after < 30 * MINUTE), "{report}");
    assert!(report.backlog > fleet.stations / 2, "{report}");
}

#[test]
fn fleet_returns_spread_over_time() {
    for cards_an_hour in [10.0, 4.0] {
        returns_calmly(cards_an_hour);
    }
}

#[test]
fn busy_fleet_returns_spread_over_time() {
    returns_calmly(40.0);
}
