//! Readers and cards: what comes, goes, hangs and lies between the card and the outbox.

mod card_errors;
mod crowds;
mod cut_connections;
mod debounce;
mod event_counts;
mod hangs;
mod idle;
mod insertions;
mod other_programs;
mod pcscd;
mod pcscd_returns;
mod plugs;
mod refusals;
mod scan;
mod serials;
mod settings;
mod sharing;
mod stops;

use std::process::Command;
use std::time::Instant;

use cardbridge_harness::cards::{GidsCard, InsertedCard};
use cardbridge_harness::pcscd::{Double, Relay, Request};
use cardbridge_harness::process::Process;
use serde_json::{Value, json};

use super::*;

pub(super) use sharing::{has_opensc, opensc};

const OTHER: &str = "7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806";

/// A world with a driver of our own: readers that are plugged, break down, and report events at once.
fn ifd() -> Result<WorldBuilder, String> {
    Ok(world()?.double(Double::Ifd))
}

/// The same, with a relay before pcscd.
fn relayed() -> Result<WorldBuilder, String> {
    Ok(world()?.double(Double::Relay))
}

/// How often clients made a request.
fn asked(relay: &Relay, request: Request) -> usize {
    relay.requests().iter().filter(|asked| **asked == request).count()
}

/// Waits until so many of these requests were made since `before`.
fn wait_asked(relay: &Relay, request: Request, before: usize, more: usize) {
    let enough =
        |log: &[Request]| log.iter().filter(|asked| **asked == request).count() >= before + more;
    relay.wait_for(&format!("{more} more of {request:?}"), LONG, enough).unwrap();
}

/// Waits until the attributes of so many readers were read: for that the library waits, too.
fn wait_described(world: &World, count: usize) {
    let described = || world.daemon_log().matches("Reader attributes read").count() >= count;
    world.wait_until("the readers to be described", LONG, described).unwrap();
}

/// Waits until `cardbridge status` shows so many readers.
fn wait_readers(world: &World, count: usize) {
    let is_so = || daemon_status(world)["readers"].as_array().is_some_and(|all| all.len() == count);
    world.wait_until(&format!("{count} readers"), LONG, is_so).unwrap();
}

/// Waits until `cardbridge status` shows this of pcscd.
fn wait_service(world: &World, state: &str) {
    let is_so = || daemon_status(world)["pcscd"]["state"] == state;
    world.wait_until(&format!("pcscd to be shown as {state}"), LONG, is_so).unwrap();
}

/// Ids of so many cards.
fn ids(count: u128) -> Vec<String> {
    (1..=count).map(|n| drawn_id(n).to_string()).collect()
}

/// A CM that knows the cards of these ids, each with an approved Retire request.
fn cm_of(ids: &[String]) -> CmOptions {
    cm_with(&ids.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The card that CM knows beside the seed's, in a world of [`cm_with`].
fn other() -> GidsCard {
    GidsCard::new(cardid(OTHER))
}

/// Everything that `cardbridge status` shows.
fn daemon_status(world: &World) -> Value {
    world.cli(&["status", "--json"]).unwrap().json().unwrap()
}

/// What `cardbridge status` shows of the card in a reader; null where the reader is not there.
fn card_in(world: &World, reader: usize) -> Value {
    let name = &world.pcscd.reader_names()[reader];
    let status = daemon_status(world);
    let readers = status["readers"].as_array().unwrap();
    let view = readers.iter().find(|view| view["reader"] == name.as_str());
    view.map_or(Value::Null, |view| view["card"].clone())
}

/// Waits until the card in a reader is in this state, and returns what is shown of it.
fn wait_card(world: &World, reader: usize, state: &str) -> Value {
    let mut card = Value::Null;
    let is_so = || {
        card = card_in(world, reader);
        card["state"] == state
    };
    world.wait_until(&format!("{state} in reader {reader}"), LONG, is_so).unwrap();
    card
}

/// Waits until pcscd knows whether there is a card in a reader, whatever the daemon knows. A card
/// that follows another at once may be taken for the same by vpcd.
pub(super) fn wait_pcscd(world: &World, reader: usize, card: bool) {
    let name = &world.pcscd.reader_names()[reader];
    let is_so = || {
        let seen = world.cli(&["scan", "--once", "--json"]).unwrap();
        let of_reader = |line: &&str| line.contains("\"card-") && line.contains(name.as_str());
        seen.code == Some(0) && seen.stdout.lines().any(|line| of_reader(&line)) == card
    };
    world.wait_until(&format!("pcscd to see a card: {card}"), LONG, is_so).unwrap();
}

/// Waits until pcscd has powered a card, and so will count it.
pub(super) fn wait_powered(card: &InsertedCard) {
    card.wait_for("pcscd to power the card", LONG, |state| state.power_ups > 0).unwrap();
}

/// Waits until the daemon has made of the card in a reader whatever it makes of it, and has nothing
/// left to do.
fn wait_idle(world: &World, reader: usize) -> Value {
    let card = wait_card(world, reader, "identified");
    let done = || {
        let status = daemon_status(world);
        card_in(world, reader)["entry"].is_number() && status["outbox"]["waiting"] == 0
    };
    world.wait_until("the daemon to be done", LONG, done).unwrap();
    card
}

/// The entries in the audit trail, in order.
fn entries(world: &World) -> Vec<u64> {
    world.audit().unwrap().iter().filter_map(|line| line["entry"].as_u64()).collect()
}

/// The values of one key, over the whole audit trail.
fn column(world: &World, key: &str) -> Vec<String> {
    let audit = world.audit().unwrap();
    audit.iter().map(|line| line[key].as_str().unwrap_or_default().to_owned()).collect()
}

/// A program beside the daemon, with its output in a file.
pub(super) struct Beside {
    process: Process,
    output: tempfile::NamedTempFile,
}

impl Beside {
    fn start(mut command: Command) -> Self {
        command.stdin(std::process::Stdio::null());
        Self::start_with(command)
    }

    /// The same, with the input that the command says.
    pub(super) fn start_with(mut command: Command) -> Self {
        let output = tempfile::NamedTempFile::new().unwrap();
        let file = output.reopen().unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { process: Process::spawn(command).unwrap(), output }
    }

    pub(super) fn output(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }

    fn runs(&mut self) -> bool {
        self.process.ended().unwrap().is_none()
    }
}
