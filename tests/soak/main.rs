//! What only shows under load and over many rounds: kills and power cuts at random moments.
//!
//! `make test` plays a few rounds, `make soak` many. Each run prints its seed, and
//! `SOAK_SEED=…` plays the same script again: the same cards, faults, pauses and kills. The
//! machine's own timing is not part of the script.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where something is not as expected"
)]

mod chaos;
mod power;
mod storm;

use std::io::Write as _;
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_mins(1);

/// How many rounds to play.
fn rounds(few: u64) -> u64 {
    variable("SOAK_ROUNDS").unwrap_or(few)
}

/// The seed of each round, the first one's printed by the test that plays it.
fn seeds(few: u64) -> impl Iterator<Item = u64> {
    let first = variable("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    (0..rounds(few)).map(move |round| first + round)
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Prints, past the capture of the test runner, what was played.
fn report(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}
