//! Figures of the real agent between a private pcscd and a simulated CM:
//! `tests/measure`, and docs/performance.md for what is in each figure.
//!
//! It prints what it finds and fails only where the agent did not do its work:
//! no time is ever too long.

#![expect(clippy::print_stdout, reason = "a program for users")]

mod badge;
mod idle;
mod latency;
mod memory;
mod probe;
mod process;
mod spread;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cardbridge_harness::world::{World, WorldBuilder};
use clap::{Parser, Subcommand};

/// Longer than anything takes that is going to happen at all.
const LIMIT: Duration = Duration::from_secs(30);

/// Measures the agent; nothing passes or fails by time.
#[derive(Parser)]
struct Arguments {
    /// The cardbridge binary, a release build.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From the card's last answer to the PUT's arrival at CM.
    Latency(latency::Plan),
    /// From the reader's event of a card to the agent's first command.
    Probe(probe::Plan),
    /// Resident memory after the start and after many cards.
    Memory(memory::Plan),
    /// CPU time and context switches of an agent with nothing to do.
    Idle(idle::Plan),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    cardbridge_harness::pcscd::available().map_err(anyhow::Error::msg)?;
    let agent = arguments.agent.canonicalize();
    let agent = agent.with_context(|| format!("no agent at {}", arguments.agent.display()))?;
    // As it is deployed: the harness' own default, debug, would be in every figure.
    let world = || World::builder(&agent).config_set("log.level", "\"info\"");
    match arguments.what {
        What::Latency(plan) => latency::measure(&plan, world),
        What::Probe(plan) => probe::measure(&plan, world),
        What::Memory(plan) => memory::measure(&plan, world),
        What::Idle(plan) => idle::measure(&plan, world),
    }
}

/// Makes a world that has only to be started.
trait Worlds: Fn() -> WorldBuilder {}
impl<F: Fn() -> WorldBuilder> Worlds for F {}
