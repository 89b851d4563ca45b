//! How soon the agent asks a card that its reader has reported.
//!
//! The reader is one with events, of our own driver. All times are taken at the
//! driver's end, in one process, so what pcscd and libpcsclite need is in them.

use std::time::Instant;

use anyhow::{Context as _, Result};
use cardbridge_harness::cards::CardState;
use cardbridge_harness::pcscd::Double;

use super::badge::Badge;
use super::spread::{Millis, Spread, millis};
use super::{LIMIT, Worlds};

#[derive(clap::Args)]
pub(crate) struct Plan {
    /// How many times the whole world is started.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How many cards are inserted in each.
    #[arg(long, default_value_t = 50)]
    cards: usize,
}

/// What is printed of a card, and between which moments.
type Row = (&'static str, fn(&CardState) -> Option<(Instant, Instant)>);

const ROWS: [Row; 4] = [
    ("reader's event to power-up", |card| Some((card.seen?, card.powered?))),
    ("power-up to the agent's connection", |card| Some((card.powered?, card.connected?))),
    ("reader's event to the connection", |card| Some((card.seen?, card.connected?))),
    ("reader's event to the first command", |card| Some((card.seen?, card.asked?))),
];

pub(crate) fn measure(plan: &Plan, worlds: impl Worlds) -> Result<()> {
    for run in 1..=plan.runs {
        let world = worlds().double(Double::Ifd).start()?;
        let mut cards = Vec::new();
        // The first card is not counted: it finds nothing in any cache.
        for number in 0..=plan.cards {
            let badge = Badge::issue(&world.cm);
            let mut card = badge.retire(&world, 0)?;
            badge.forget(&world.cm);
            card.eject();
            let gone = format!("insertion={}", number + 1);
            world.wait_until("the agent to see the reader empty", LIMIT, || {
                let log = world.daemon_log();
                log.lines().any(|line| line.contains("Card removed") && line.ends_with(&gone))
            })?;
            if number > 0 {
                cards.push(card.state());
            }
        }
        println!("Run {run} of {}: ms", plan.runs);
        for (name, between) in ROWS {
            println!("  {name:36} {}", spread(&cards, between)?);
        }
        world.finish()?;
    }
    Ok(())
}

fn spread(
    cards: &[CardState],
    between: fn(&CardState) -> Option<(Instant, Instant)>,
) -> Result<Spread> {
    let sample = |card: &CardState| -> Result<Millis> {
        let (from, to) = between(card).context("a moment that never was")?;
        Ok(millis(to.saturating_duration_since(from)))
    };
    let samples: Vec<Millis> = cards.iter().map(sample).collect::<Result<_>>()?;
    Ok(samples.into_iter().collect())
}
