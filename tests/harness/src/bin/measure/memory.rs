//! Resident memory: after the start, and after many cards.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use cardbridge_harness::cm::{Certificate, CmOptions};
use cardbridge_harness::world::World;

use super::process::{Memory, Pid};
use super::spread::Spread;
use super::{Worlds, badge};

/// What the start needed is over by then, and the wait for readers calm.
const SETTLED: Duration = Duration::from_secs(5);

/// The connections to CM are closed by then.
const QUIET: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Plan {
    /// How many times the agent is started, over each of HTTP and HTTPS.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// How many cards are inserted; 0 leaves that out.
    #[arg(long, default_value_t = 1000)]
    cards: usize,
    /// In how many readers, at the same time.
    #[arg(long, default_value_t = 8)]
    readers: usize,
}

pub(crate) fn measure(plan: &Plan, worlds: impl Worlds) -> Result<()> {
    for (scheme, tls) in [("http", None), ("https", Some(Certificate::Good))] {
        let cm = CmOptions { tls, ..CmOptions::default() };
        let mut world = worlds().cm(cm).without_daemon().start()?;
        let started: Vec<Memory> =
            (0..plan.starts).map(|_| after_start(&mut world)).collect::<Result<_>>()?;
        print(&format!("{scheme}, after the start"), &started);
        world.finish()?;
    }
    if plan.cards > 0 {
        let world = worlds().readers(plan.readers).start()?;
        after_cards(&world, plan)?;
        world.finish()?;
    }
    Ok(())
}

fn after_start(world: &mut World) -> Result<Memory> {
    world.start_daemon()?;
    thread::sleep(SETTLED);
    let memory = Pid(world.daemon_pid()?).memory()?;
    world.stop_daemon()?;
    Ok(memory)
}

fn after_cards(world: &World, plan: &Plan) -> Result<()> {
    let agent = Pid(world.daemon_pid()?);
    thread::sleep(SETTLED);
    print(&format!("{} readers, after the start", plan.readers), &[agent.memory()?]);
    let each = plan.cards.div_ceil(plan.readers);
    badge::many(world, plan.readers, each)?;
    let cards = each * plan.readers;
    println!("{cards} cards, {} PUTs", world.cm.puts().len());
    print(&format!("at once after {cards} cards"), &[agent.memory()?]);
    thread::sleep(QUIET);
    print(&format!("{} s after {cards} cards", QUIET.as_secs()), &[agent.memory()?]);
    Ok(())
}

/// What is printed of each sample, and where it stands.
type Row = (&'static str, fn(&Memory) -> f64);

fn print(what: &str, samples: &[Memory]) {
    println!("{what}, KiB");
    let rows: [Row; 3] = [
        ("VmRSS", |memory| memory.resident),
        ("RssAnon", |memory| memory.anonymous),
        ("VmHWM", |memory| memory.peak),
    ];
    for (name, of) in rows {
        println!("  {name:8} {}", samples.iter().map(of).collect::<Spread>());
    }
}
