//! Everything that happens to readers, by chance and at once: cards put in, taken out, swapped, torn out
//! and turned the wrong way, readers unplugged and broken, pcscd killed, stopped and held. The
//! daemon is never touched: it has to be afterwards what it was before.

mod holdings;
mod places;
mod script;

use cardbridge_harness::cm::{CmOptions, Store};
use cardbridge_harness::outcome_checker::insertions::{Run, exact, insertions};
use cardbridge_harness::outcome_checker::{Evidence, complaints};
use cardbridge_harness::pcscd::Double;
use cardbridge_harness::require;
use cardbridge_harness::world::World;
use serde_json::Value;

use super::{LONG, report, rounds, seeds};
use holdings::Holdings;
use places::store;
use script::Script;

/// As many as pcscd has room for.
const READERS: usize = 16;

/// Rounds of `make test`, after the first one, which loads what remains.
const FEW_ROUNDS: u64 = 2;

/// What is done in a round of `make test`, and of `make soak`.
const FEW_STEPS: usize = 200;
const STEPS: usize = 700;

#[test]
fn random_insertions_each_end_once() {
    require!(cardbridge_harness::pcscd::available());
    let few = std::env::var_os("SOAK_ROUNDS").is_none();
    let steps = if few { FEW_STEPS } else { STEPS };
    let seed = seeds(1).next().unwrap_or_default();
    let rounds = 1 + rounds(FEW_ROUNDS);
    report(&format!("chaos: SOAK_SEED={seed}, {rounds} rounds of {steps} steps"));
    let before = store();
    let mut world = World::builder(env!("CARGO_BIN_EXE_cardbridge"))
        .readers(READERS)
        .double(Double::Ifd)
        .cm(CmOptions { store: before.clone(), ..CmOptions::default() })
        .start()
        .unwrap();
    let mut script = Script::new(seed);
    let mut held = Vec::new();
    // What the daemon waits with for a pcscd that is gone remains as well.
    script.replace_service(&mut world);
    for _ in 0..rounds {
        script.play(&mut world, steps);
        rest(&mut script, &mut world);
        held.push(Holdings::at_rest(&world, held.first()));
        report(&format!("chaos: {}", held[held.len() - 1]));
    }
    judge(&world, &before, &script);
    // The first round loads what remains: pages of the program, caches, buffers.
    for after in &held[1..] {
        assert_eq!(after.grown_since(&held[0]), None, "{held:?}");
    }
    world.finish().unwrap();
}

/// Everything is well, a card is put into each reader and worked on, and all are taken out.
fn rest(script: &mut Script, world: &mut World) {
    script.heal(world);
    let status = |world: &World| world.cli(&["status", "--json"]).unwrap().json().unwrap();
    let count = |world: &World, is_so: fn(&Value) -> bool| {
        let status: Value = status(world);
        let readers = status["readers"].as_array().cloned().unwrap_or_default();
        readers.iter().filter(|reader| is_so(&reader["card"])).count()
    };
    let is_empty = |card: &Value| card["state"] == "empty";
    let is_done = |card: &Value| card["entry"].is_number();
    world.wait_until("empty readers", LONG, || count(world, is_empty) == READERS).unwrap();
    script.fill(world);
    world.wait_until("a card's entry each", LONG, || count(world, is_done) == READERS).unwrap();
    script.clear();
    world.wait_until("empty readers", LONG, || count(world, is_empty) == READERS).unwrap();
    let idle = || status(world)["outbox"]["waiting"] == 0;
    world.wait_until("every entry's end", LONG, idle).unwrap();
}

fn judge(world: &World, before: &Store, script: &Script) {
    let (after, calls, audit) = (world.cm.state(), world.cm.log(), world.audit().unwrap());
    let log = world.daemon_log();
    let run = Run {
        insertions: script.insertions(),
        away: script.away(),
        restarts: script.restarts(),
        audit: &audit,
        log: &log,
    };
    let evidence = Evidence { before, after: &after, calls: &calls, audit: &audit, log: &log };
    report(&format!(
        "chaos: {} insertions, {} of them long and undisturbed, pcscd away or held {} times, {} audit lines",
        run.insertions.len(),
        exact(&run),
        run.away.len(),
        audit.len(),
    ));
    assert!(exact(&run) > 0, "no card lay long enough to be judged");
    let mut complaints = complaints(&evidence);
    complaints.extend(insertions(&run));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
