//! The processing of one card, from the reader to CM, to watch; and a
//! check that it is really gone: `make demo`.

#![expect(clippy::print_stdout, reason = "a program for users")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cardbridge_harness::cards::{GidsCard, InsertedCard, SEED_ATR, SEED_CARDID};
use cardbridge_harness::cm::{BASE_PATH, CmOptions, LogEntry, Record, Request, Store};
use cardbridge_harness::pcscd::FIRST_PORT;
use cardbridge_harness::process::{interrupted, wait_until};
use cardbridge_harness::world::World;
use clap::Parser;
use serde_json::Value;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(20);

/// Shows the processing of a card from a virtual reader to CM's record, and fails
/// unless the record really changes.
#[derive(Parser)]
struct Arguments {
    /// The cardbridge binary.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// Leaves everything running, for trying things by hand, until Ctrl-C.
    #[arg(long)]
    live: bool,
}

fn main() -> ExitCode {
    let result = interrupted().and_then(|stop| run(&Arguments::parse(), stop));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, stop: Arc<AtomicBool>) -> Result<()> {
    cardbridge_harness::pcscd::available().map_err(anyhow::Error::msg)?;
    let agent = arguments.agent.canonicalize();
    let agent = agent.with_context(|| format!("no agent at {}", arguments.agent.display()))?;
    let world = World::builder(&agent)
        .cm(CmOptions { store: Store::seed(), control: true, ..CmOptions::default() })
        .start()?;
    let demo = Demo { world, stop };
    let result = if arguments.live { demo.live(&agent) } else { demo.show() };
    match result {
        Ok(()) => demo.world.finish()?,
        Err(error) => {
            println!("\nThe agent's log:\n{}", demo.world.daemon_log());
            println!("Calls to CM:\n{}", demo.world.cm.story());
            // The world's own verdict is of no use any more.
            drop(demo.world.finish());
            return Err(error);
        }
    }
    if !arguments.live {
        println!("\nAll of this was checked against the simulator's state and log and the");
        println!("agent's audit trail. Nothing is left running.");
    }
    Ok(())
}

struct Demo {
    world: World,
    stop: Arc<AtomicBool>,
}

impl Demo {
    fn show(&self) -> Result<()> {
        self.introduce();
        println!("\n2. The card goes into the first reader.");
        let mut card = self.insert()?;
        self.wait_outcomes(&["updated"])?;
        self.show_reading()?;
        self.show_call()?;
        self.show_record()?;

        println!("\n6. The card comes out and goes in again.");
        card.eject();
        self.wait("the agent's reader is empty", || {
            self.scanned().is_ok_and(|card| card.is_none())
        })?;
        let _card = self.insert()?;
        self.wait_outcomes(&["updated", "already-set"])?;
        let puts = self.world.cm.puts();
        ensure!(puts.len() == 1, "CM got {} PUTs, not one", puts.len());
        println!("   outcome: already-set; CM still got exactly one PUT");
        self.check_record()?;
        Ok(())
    }

    fn introduce(&self) {
        println!("1. A private pcscd, a simulated CM and the agent are running.");
        for name in self.world.pcscd.reader_names() {
            println!("   reader: {name}");
        }
        println!("   CM: {}{BASE_PATH}", self.world.cm.url());
        let (record, request) = (Record::seed(), Request::seed());
        println!("   CM knows the card {}: status 2 (Active)", record.serial_number);
        println!("   and an approved request to retire it, {}", request.uuid);
    }

    fn insert(&self) -> Result<InsertedCard> {
        self.world.insert(0, GidsCard::seed())
    }

    /// What the agent itself says about the card.
    fn show_reading(&self) -> Result<()> {
        let card = self.scanned()?.context("the agent's scan shows no card")?;
        let atr = card.get("atr").and_then(Value::as_str);
        let candidates = card.pointer("/identity/candidates").and_then(Value::as_array);
        let ids = candidates.into_iter().flatten();
        let mut ids = ids.filter_map(|one| one.get("card_id")?.as_str());
        let id = ids.next().context("the agent found no card id")?;
        println!("\n3. What the agent read from the card:");
        println!("   ATR:     {}", atr.unwrap_or("none"));
        println!("   card id: {id}");
        ensure!(atr == Some(&hex::encode(SEED_ATR)), "this is not the card's ATR");
        let expected = Uuid::from_bytes_le(SEED_CARDID);
        ensure!(id.parse() == Ok(expected), "the card's id is {expected}");
        Ok(())
    }

    /// The card in the first reader, by `cardbridge scan`.
    fn scanned(&self) -> Result<Option<Value>> {
        let output = self.world.cli(&["scan", "--once", "--json"])?;
        ensure!(output.code == Some(0), "cardbridge scan failed: {output:?}");
        let lines = output.stdout.lines().map(serde_json::from_str::<Value>);
        let events = lines.collect::<Result<Vec<_>, _>>()?;
        let inserted = |event: &Value| event.get("event") == Some(&"card-inserted".into());
        Ok(events.into_iter().find(inserted))
    }

    /// What the agent asked, found and sent, as CM received it.
    fn show_call(&self) -> Result<()> {
        println!("\n4. What the agent asked CM, found and sent:");
        let log = self.world.cm.log();
        for entry in &log {
            println!("   {entry}");
        }
        let asked = |part: &str| {
            let mut gets = log.iter().filter(|entry| entry.method == "GET");
            let found = gets.any(|entry| entry.target.to_lowercase().contains(part));
            ensure!(found, "the agent never asked for {part}");
            Ok(())
        };
        asked("/smartcards?cardid=")?;
        asked("/requests?status=approved")?;
        let (record, request) = (Record::seed().uuid, Request::seed().uuid);
        println!("   record:  {record}");
        println!("   request: {request} (Retire)");
        check_put(&self.world.cm.puts(), record, request)
    }

    fn show_record(&self) -> Result<()> {
        let record = self.check_record()?;
        println!("\n5. CM's own view of the card now:");
        println!("   {}", record.json());
        println!("   status 6 (Retired)");
        Ok(())
    }

    fn check_record(&self) -> Result<Record> {
        let record = self.world.cm.record(Record::seed().uuid);
        let record = record.context("CM has lost the record")?;
        ensure!(record.status == 6, "CM's status is {}, not 6", record.status);
        Ok(record)
    }

    fn wait_outcomes(&self, expected: &[&str]) -> Result<()> {
        let mut last = Vec::new();
        let arrived = self.wait("the outcome in the audit trail", || {
            last = self.world.outcomes().unwrap_or_default();
            last.len() >= expected.len()
        });
        arrived.with_context(|| format!("expected {expected:?}, the audit trail has {last:?}"))?;
        ensure!(last == expected, "expected {expected:?}, the audit trail has {last:?}");
        println!("   outcome in the agent's audit trail: {}", last.join(", "));
        Ok(())
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let stopped = || self.stop.load(Ordering::SeqCst);
        wait_until(what, LIMIT, || stopped() || condition())?;
        ensure!(!stopped(), "interrupted");
        Ok(())
    }

    fn live(&self, agent: &std::path::Path) -> Result<()> {
        println!("{}", self.instructions(agent)?);
        while !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("\nEnding everything.");
        Ok(())
    }

    fn instructions(&self, agent: &std::path::Path) -> Result<String> {
        let tools = std::env::current_exe()?;
        let tools = tools.parent().context("a program has a directory")?.display();
        let agent = agent.display();
        let config = self.world.config_path();
        let config = config.display();
        let socket = self.world.pcscd.socket_path();
        let pid = self.world.pcscd.pid().context("pcscd runs")?;
        let cm = self.world.cm.url();
        let (card, record) = (Uuid::from_bytes_le(SEED_CARDID), Record::seed().uuid);
        Ok(format!(
            "Running until Ctrl-C, all of it in {dir}

Readers (first slot: port {FIRST_PORT}, second: {second})
  export PCSCLITE_CSOCK_NAME={socket}
  opensc-tool -l

Insert the card; Ctrl-C takes it out
  {tools}/virtual-card --netns-of {pid} --port {FIRST_PORT}
  {tools}/virtual-card --netns-of {pid} --port {second} --cardid 00112233445566778899aabbccddeeff
Run anything else inside the readers' network
  nsenter -t {pid} {user}-n bash

The agent
  {agent} status --config {config}
  {agent} audit --config {config}
  {agent} scan --config {config}
  tail -f {dir}/daemon.log

CM
  curl -s '{cm}{BASE_PATH}/smartcards?cardid={card}'
  curl -s {cm}{BASE_PATH}/smartcards/{record}
  curl -s '{cm}{BASE_PATH}/requests?status=Approved'
  curl -s {cm}/_sim/log
  curl -s {cm}/_sim/faults -d '{{\"fault\":\"unavailable\",\"times\":3}}'
  curl -s -X POST {cm}/_sim/away/5000",
            dir = self.world.dir().display(),
            second = FIRST_PORT + 1,
            socket = socket.display(),
            user = if rustix::process::geteuid().is_root() {
                ""
            } else {
                "-U --preserve-credentials "
            },
        ))
    }
}

/// The one PUT there may be, to the letter.
fn check_put(puts: &[LogEntry], record: Uuid, request: Uuid) -> Result<()> {
    let [put] = puts else {
        bail!("CM got {} PUTs, not one", puts.len());
    };
    println!("   The update, as it arrived:");
    println!("     {} {}", put.method, put.target);
    println!("     {}", put.body);
    let path = format!("{BASE_PATH}/requests/{request}/smartcards/{record}");
    ensure!(put.target.eq_ignore_ascii_case(&path), "the PUT should go to {path}");
    let body: Value = serde_json::from_str(&put.body).context("the PUT's body is not JSON")?;
    ensure!(body == serde_json::json!({"status": "Retired"}), "the PUT should say Retired");
    ensure!(put.applied && put.status == Some(200), "CM did not do it: {put}");
    Ok(())
}
