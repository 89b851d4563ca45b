//! How long CM waits for the PUT once the card has said who it is.
//!
//! The reader driver polls for cards every 400 ms. All that is printed begins
//! after it has found one.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use cardbridge_harness::cm::{Certificate, Cm, CmOptions, LogEntry, Record, Request};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::world::World;
use clap::ValueEnum;
use uuid::Uuid;

use super::badge::{self, Badge};
use super::process::Pid;
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
    /// How many come before and are not counted: until SQLite has written the
    /// outbox's WAL to its full length once, it grows with every card.
    #[arg(long, default_value_t = 100)]
    before: usize,
    /// How CM is reached, and how much it answers; all of these if not
    /// given.
    #[arg(long, value_enum)]
    cm: Vec<Kind>,
}

/// A kind of CM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// HTTP, card after card.
    Warm,
    /// HTTP, and no connection is left from the card before.
    Cold,
    /// HTTPS, card after card.
    TlsWarm,
    /// HTTPS, and no connection is left from the card before.
    TlsCold,
    /// HTTP, card after card, and 100 open requests for other cards.
    Busy,
}

/// What CM knows besides.
const OTHERS: usize = 100;

/// The processing of one card.
struct Timeline {
    from_event: Millis,
    identified: Millis,
    queued: Millis,
    first_get: Millis,
    last_get: Millis,
    put: Millis,
    settled: Millis,
    new_connections: f64,
}

pub(crate) fn measure(plan: &Plan, worlds: impl Worlds) -> Result<()> {
    let kinds = if plan.cm.is_empty() { Kind::value_variants() } else { &plan.cm };
    for &kind in kinds {
        for run in 1..=plan.runs {
            let world = worlds().cm(kind.cm()).start()?;
            kind.fill(&world.cm);
            badge::many(&world, 2, plan.before.div_ceil(2))?;
            let timelines = timelines(&world, kind, plan.cards)?;
            println!("{kind:?}, run {run} of {}: ms after the card's last answer", plan.runs);
            print(&timelines);
            world.finish()?;
        }
    }
    Ok(())
}

impl Kind {
    fn cm(self) -> CmOptions {
        let tls = matches!(self, Self::TlsWarm | Self::TlsCold).then_some(Certificate::Good);
        CmOptions { tls, ..CmOptions::default() }
    }

    fn fill(self, cm: &Cm) {
        let others = if self == Self::Busy { OTHERS } else { 0 };
        for _ in 0..others {
            cm.add_request(Request::approved(7, &Record::of_card(Uuid::new_v4())));
        }
    }

    const fn is_cold(self) -> bool {
        matches!(self, Self::Cold | Self::TlsCold)
    }
}

fn timelines(world: &World, kind: Kind, cards: usize) -> Result<Vec<Timeline>> {
    let agent = Pid(world.daemon_pid()?);
    let mut known = BTreeSet::new();
    let mut timelines = Vec::new();
    // The first card is not counted: it finds nothing in any cache.
    for number in 0..=cards {
        let badge = Badge::issue(&world.cm);
        let story = Story::from_now(world);
        if kind.is_cold() {
            // A new configuration is a new client, without connections.
            world.reload_daemon()?;
            story.wait_for("Configuration reloaded")?;
        }
        let mut card = badge.retire(world, 0)?;
        story.wait_for("Entry settled")?;
        let open = agent.connections_to(world.cm.address())?;
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let new_connections = open.difference(&known).count() as f64;
        known.extend(open);
        card.eject();
        story.wait_for("Card removed")?;
        if number > 0 {
            timelines.push(Timeline::of(&badge, &story, &world.cm.log(), new_connections)?);
        }
        badge.forget(&world.cm);
    }
    Ok(timelines)
}

impl Timeline {
    fn of(
        badge: &Badge,
        story: &Story<'_>,
        log: &[LogEntry],
        new_connections: f64,
    ) -> Result<Self> {
        let inserted = story.at("Card inserted")?;
        let mut calls = log.iter().rev().skip_while(|call| !badge.is_meant_by(&call.target));
        let put = calls.next().context("CM got no PUT")?;
        let gets: Vec<_> =
            calls.take_while(|call| call.at > inserted).map(|call| call.at).collect();
        let answers = badge.answers();
        let answer = *answers.iter().rfind(|at| **at < put.at).context("no answer before it")?;
        let after = |at| between(answer, at);
        Ok(Self {
            from_event: between(inserted, put.at),
            identified: after(story.at("Card identified")?),
            queued: after(story.at("Entry queued")?),
            first_get: after(*gets.last().context("no GET before it")?),
            last_get: after(*gets.first().context("no GET before it")?),
            put: after(put.at),
            settled: after(story.at("Entry settled")?),
            new_connections,
        })
    }
}

/// What the agent logs from some moment on.
struct Story<'a> {
    world: &'a World,
    skip: usize,
}

impl<'a> Story<'a> {
    fn from_now(world: &'a World) -> Self {
        Self { world, skip: world.daemon_log().len() }
    }

    fn text(&self) -> String {
        self.world.daemon_log().split_off(self.skip)
    }

    fn wait_for(&self, message: &str) -> Result<()> {
        wait_until(message, LIMIT, || self.text().contains(message))
    }

    /// When the agent said so.
    fn at(&self, message: &str) -> Result<SystemTime> {
        let text = self.text();
        let line = text.lines().find(|line| line.contains(message));
        let time = line.and_then(|line| line.split_whitespace().next());
        let time = time.with_context(|| format!("the agent never said {message:?}"))?;
        Ok(humantime::parse_rfc3339(time)?)
    }
}

fn between(from: SystemTime, to: SystemTime) -> Millis {
    match to.duration_since(from) {
        Ok(later) => millis(later),
        Err(earlier) => -millis(earlier.duration()),
    }
}

/// What is printed of each kind of call, and where it stands.
type Row = (&'static str, fn(&Timeline) -> f64);

fn print(timelines: &[Timeline]) {
    let rows: [Row; 7] = [
        ("agent logs: card identified", |timeline| timeline.identified),
        ("agent logs: entry queued", |timeline| timeline.queued),
        ("first GET reaches CM", |timeline| timeline.first_get),
        ("last GET reaches CM", |timeline| timeline.last_get),
        ("PUT reaches CM", |timeline| timeline.put),
        ("agent logs: entry settled", |timeline| timeline.settled),
        ("connections made for a card", |timeline| timeline.new_connections),
    ];
    for (name, of) in rows {
        println!("  {name:30} {}", timelines.iter().map(of).collect::<Spread>());
    }
    let from_event: Spread = timelines.iter().map(|timeline| timeline.from_event).collect();
    println!("  {:30} {from_event}", "PUT, after log: card inserted");
}
