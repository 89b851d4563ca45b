//! What an agent consumes that has nothing to do.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cardbridge_harness::cards::InsertedCard;
use cardbridge_harness::pcscd::Double;
use cardbridge_harness::world::World;

use super::process::{Pid, Usage};
use super::spread::Spread;
use super::{LIMIT, Worlds, badge};

/// The start, or the last card, is over by then, its connections included.
const SETTLED: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Plan {
    /// How long to measure.
    #[arg(long, value_name = "MINUTES", default_value_t = 4)]
    minutes: u64,
    /// How many agents are looked at, side by side, each with readers and a CM
    /// of its own.
    #[arg(long, default_value_t = 3)]
    agents: usize,
    /// How many cards each has read before.
    #[arg(long, default_value_t = 0)]
    cards: usize,
    /// How many readers each has, of our own driver, with a card that was worked
    /// on in each; with 0, two empty ones of vpcd's.
    #[arg(long, default_value_t = 0)]
    held: usize,
}

pub(crate) fn measure(plan: &Plan, worlds: impl Worlds) -> Result<()> {
    let start = |_| match plan.held {
        0 => worlds().start(),
        held => worlds().double(Double::Ifd).readers(held).start(),
    };
    let worlds: Vec<World> = (0..plan.agents).map(start).collect::<Result<_>>()?;
    let mut held = Vec::new();
    for world in &worlds {
        badge::many(world, 1, plan.cards)?;
        let cards =
            (0..plan.held).map(|reader| badge::Badge::issue(&world.cm).retire(world, reader));
        held.extend(cards.collect::<Result<Vec<_>>>()?);
        let done = || world.outcomes().is_ok_and(|all| all.len() == plan.cards + plan.held);
        world.wait_until("every card's outcome", LIMIT, done)?;
    }
    thread::sleep(SETTLED);
    let agents = worlds.iter().map(|world| Ok(Pid(world.daemon_pid()?)));
    let agents: Vec<Pid> = agents.collect::<Result<_>>()?;
    let commands = commands(&held);
    let began = Instant::now();
    let before: Vec<_> = agents.iter().map(|agent| agent.threads()).collect::<Result<_>>()?;
    thread::sleep(Duration::from_mins(plan.minutes));
    let after: Vec<_> = agents.iter().map(|agent| agent.threads()).collect::<Result<_>>()?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;

    let used: Vec<Vec<Usage>> =
        before.iter().zip(&after).map(|(before, after)| difference(before, after)).collect();
    let readers = match plan.held {
        0 => "two empty readers".to_owned(),
        held => format!("{held} readers with a card each"),
    };
    println!("idle for {minutes:.2} minutes after {} cards, {readers}", plan.cards);
    print(&used, minutes);
    for (agent, threads) in agents.iter().zip(&after) {
        let memory = agent.memory()?;
        println!(
            "  {} threads, {} descriptors, VmRSS {} KiB, RssAnon {} KiB",
            threads.len(),
            agent.descriptors()?,
            memory.resident,
            memory.anonymous,
        );
    }
    let received = self::commands(&held) - commands;
    println!("  commands that the cards received meanwhile: {received}");
    ensure!(received == 0, "an agent with nothing to do asks cards");
    drop(held);
    worlds.into_iter().try_for_each(World::finish)
}

/// How many commands cards have had so far.
fn commands(cards: &[InsertedCard]) -> usize {
    cards.iter().map(|card| card.apdus().len()).sum()
}

/// What each thread used between two samples.
fn difference(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>) -> Vec<Usage> {
    let none = Usage::default();
    let used = |(id, after): (&String, &Usage)| {
        let before = before.get(id).unwrap_or(&none);
        Usage {
            name: after.name.clone(),
            cpu_ns: after.cpu_ns - before.cpu_ns,
            voluntary: after.voluntary - before.voluntary,
            involuntary: after.involuntary - before.involuntary,
        }
    };
    after.iter().map(used).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of some minutes")]
fn print(used: &[Vec<Usage>], minutes: f64) {
    let sum = |of: fn(&Usage) -> u64| -> Spread {
        let total = |threads: &Vec<Usage>| threads.iter().map(of).sum::<u64>() as f64 / minutes;
        used.iter().map(total).collect()
    };
    let hour: Spread = {
        let cpu = |threads: &Vec<Usage>| threads.iter().map(|one| one.cpu_ns).sum::<u64>() as f64;
        used.iter().map(|threads| cpu(threads) / 1e9 / minutes * 60.0).collect()
    };
    println!("  CPU, s an hour            {hour}");
    println!("  voluntary switches a min  {}", sum(|one| one.voluntary));
    println!("  involuntary, a min        {}", sum(|one| one.involuntary));
    for one in used.first().into_iter().flatten() {
        println!(
            "  first agent's thread {:12} {:6.3} ms CPU a minute, {:.1} + {:.1} switches a minute",
            one.name,
            one.cpu_ns as f64 / 1e6 / minutes,
            one.voluntary as f64 / minutes,
            one.involuntary as f64 / minutes,
        );
    }
}
