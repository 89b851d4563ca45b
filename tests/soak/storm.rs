//! Kills at random moments: eight readers whose cards come and go, a CM with every kind of
//! trouble, and the real daemon in between, killed again and again.

mod card_movers;
mod weather;

use std::time::Duration;

use cardbridge_harness::cm::{CmOptions, LogEntry, Store};
use cardbridge_harness::outcome_checker::{Evidence, complaints};
use cardbridge_harness::require;
use cardbridge_harness::world::World;
use fastrand::Rng;

use super::{LONG, report, seeds};
use card_movers::{CardMovers, Deck};
use weather::Weather;

const READERS: usize = 8;

/// Kills in a round of `make soak`, and of `make test`.
const KILLS: usize = 12;
const FEW_KILLS: usize = 6;

#[test]
fn random_kills_under_load_lose_no_insertion() {
    let few = std::env::var_os("SOAK_ROUNDS").is_none();
    let kills = if few { FEW_KILLS } else { KILLS };
    for seed in seeds(1) {
        require!(cardbridge_harness::pcscd::available());
        report(&format!("storm: SOAK_SEED={seed}, {kills} kills"));
        play(seed, kills);
    }
}

fn play(seed: u64, kills: usize) {
    let deck = Deck::new();
    let before = Deck::store();
    let mut world = World::builder(env!("CARGO_BIN_EXE_cardbridge"))
        .readers(READERS)
        .cm(CmOptions { store: before.clone(), ..CmOptions::default() })
        .config_set("cm.timeout", "\"2s\"")
        .start()
        .unwrap();
    let mut random = Rng::with_seed(seed);
    let card_movers = CardMovers::start(&world.pcscd.namespace(), &deck, &mut random);
    let mut weather = Weather::default();
    for _ in 0..kills {
        live_and_die(&mut world, &mut weather, &mut random);
    }
    let inserted = card_movers.stop();
    weather.clear(&world.cm);
    quiesce(&world);
    judge(&world, &before, inserted);
    world.finish().unwrap();
}

/// One life of the daemon: some weather, then a kill, sometimes one more before the next life has
/// come up.
fn live_and_die(world: &mut World, weather: &mut Weather, random: &mut Rng) {
    for _ in 0..random.u8(2..=5) {
        weather.change(&world.cm, random);
        pause(random, 400);
    }
    world.kill9_daemon().unwrap();
    if random.u8(..3) == 0 {
        world.launch_daemon().unwrap();
        pause(random, 200);
        world.kill9_daemon().unwrap();
    }
    if random.bool() {
        pause(random, 300);
    }
    world.start_daemon().unwrap();
}

/// A pause that the script asks for: nothing is waited for.
fn pause(random: &mut Rng, most: u64) {
    std::thread::sleep(Duration::from_millis(random.u64(..most)));
}

/// In calm weather: a last card in each reader, and everything comes to its end.
fn quiesce(world: &World) {
    let status = || world.cli(&["status", "--json"]).unwrap().json().unwrap();
    let readers = || status()["readers"].as_array().cloned().unwrap_or_default();
    let empty = || readers().iter().filter(|at| at["card"]["state"] == "empty").count() == READERS;
    world.wait_until("empty readers", LONG, empty).unwrap();
    let last: Vec<_> =
        (0..READERS).map(|reader| world.insert(reader, Deck::last(reader)).unwrap()).collect();
    let done = || {
        let status = status();
        let readers = status["readers"].as_array().unwrap();
        readers.iter().filter(|reader| reader["card"]["entry"].is_number()).count() == READERS
            && status["outbox"]["waiting"] == 0
    };
    world.wait_until("every entry's end", LONG, done).unwrap();
    drop(last);
}

fn judge(world: &World, before: &Store, inserted: usize) {
    let (after, calls, audit) = (world.cm.state(), world.cm.log(), world.audit().unwrap());
    let log = world.daemon_log();
    let evidence = Evidence { before, after: &after, calls: &calls, audit: &audit, log: &log };
    let complaints = complaints(&evidence);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    verify_chain(world);
    let puts: Vec<&LogEntry> = calls.iter().filter(|call| call.method == "PUT").collect();
    let applied = puts.iter().filter(|put| put.applied).count();
    let parked = audit.iter().filter(|line| line["outcome"] == "parked").count();
    report(&format!(
        "storm: {inserted} cards put in, {} audit lines ({parked} parked), {} calls, {} PUTs, {applied} applied",
        audit.len(),
        calls.len(),
        puts.len(),
    ));
}

/// The audit trail's own check.
fn verify_chain(world: &World) {
    let verified = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
