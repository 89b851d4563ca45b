//! Worlds and the demo, tried on a stand-in for the agent: they must see the
//! difference between an agent that does its work and one that says so.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Cm;
use cardbridge_harness::process::{Process, signal_pid, wait_until};
use cardbridge_harness::require;
use cardbridge_harness::world::World;
use rustix::process::Signal;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

/// A stand-in of the given quirk, and the directory it is in.
fn agent(quirk: &str) -> Result<(TempDir, PathBuf), String> {
    cardbridge_harness::pcscd::available()?;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(quirk);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in/agent");
    fs::copy(script, &path).expect("the stand-in is there");
    Ok((dir, path))
}

fn start(agent: &Path) -> World {
    World::builder(agent).start().expect("the world starts")
}

fn demo(agent: &Path) -> Output {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.arg("--agent").arg(agent).output().expect("the demo runs")
}

#[test]
fn a_world_runs_an_agent_and_survives_its_death() {
    let (_dir, agent) = require!(agent("honest"));
    let mut world = start(&agent);
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(world.cm.puts().len(), 1);
    world.kill9_daemon().unwrap();
    assert!(!world.daemon_running());
    card.eject();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn agent_uses_front_server_of_running_simulator() {
    let (_dir, agent) = require!(agent("honest"));
    let front = Cm::seed().unwrap();
    let cm = Cm::seed().unwrap();
    let behind = cm.address();
    let world = World::builder(&agent)
        .running_cm(cm)
        .cm_url(&front.url())
        .env("KRB5_CONFIG", "/nowhere/krb5.conf")
        .start()
        .unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    assert_eq!((front.puts().len(), world.cm.log().len()), (1, 0));
    assert_eq!(world.cm.address(), behind);
    let environment = fs::read(format!("/proc/{}/environ", world.daemon_pid().unwrap())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("\0KRB5_CONFIG=/nowhere/krb5.conf\0"), "{environment}");
    world.finish().unwrap();
}

#[test]
fn unexpected_error_fails_the_scenario() {
    let (_dir, agent) = require!(agent("loud"));
    let error = start(&agent).finish().unwrap_err().to_string();
    assert!(error.contains("Something is wrong"), "{error}");
    let mut world = start(&agent);
    world.expect_error("Something is wrong");
    world.finish().unwrap();
    let dropped = std::panic::catch_unwind(|| drop(start(&agent)));
    assert!(dropped.is_err(), "dropping has the same standard");
}

#[test]
fn agent_ignoring_sigterm_or_failing_start_is_reported() {
    let (_dir, stubborn) = require!(agent("stubborn"));
    let mut world = start(&stubborn);
    let pid = world.daemon_pid().unwrap();
    let error = world.stop_daemon().unwrap_err().to_string();
    assert!(error.contains("still runs"), "{error}");
    assert!(world.finish().is_err());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is gone all the same");
    let (_dir, stillborn) = require!(agent("stillborn"));
    let error = World::builder(&stillborn).start().unwrap_err().to_string();
    assert!(error.contains("did not start (exit status: 7)"), "{error}");
}

#[test]
fn the_demo_believes_an_honest_agent_only() {
    for (quirk, complaint) in [
        ("honest", None),
        ("liar", Some("CM got 0 PUTs, not one")),
        ("repeater", Some("CM got 2 PUTs, not one")),
        ("loud", Some("unexpected errors")),
        ("stillborn", Some("the agent did not start")),
    ] {
        let (_dir, agent) = require!(agent(quirk));
        let output = demo(&agent);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), complaint.is_none(), "{quirk}:\n{text}");
        let Some(complaint) = complaint else { continue };
        assert!(text.contains(complaint), "{quirk}:\n{text}");
    }
}

#[test]
fn an_interrupted_live_demo_leaves_nothing_behind() {
    let (dir, agent) = require!(agent("honest"));
    let temporary = dir.path().join("t");
    fs::create_dir(&temporary).unwrap();
    let output = dir.path().join("output");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--live").arg("--agent").arg(&agent).env("TMPDIR", &temporary);
    command.stdout(fs::File::create(&output).unwrap());
    let mut demo = Process::spawn(command).unwrap();
    let printed = || fs::read_to_string(&output).unwrap_or_default();
    wait_until("instructions", LONG, || printed().contains("/_sim/away/")).unwrap();
    let pid = printed().split("--netns-of ").nth(1).and_then(|rest| {
        let pid = rest.split_whitespace().next()?;
        pid.parse::<u32>().ok()
    });
    let pcscd = format!("/proc/{}", pid.expect("the instructions name pcscd"));
    assert!(Path::new(&pcscd).exists());
    signal_pid(demo.pid(), Signal::INT).unwrap();
    let status = demo.wait_end(LONG).unwrap().expect("it ends");
    assert!(status.success(), "{}", printed());
    assert!(!Path::new(&pcscd).exists());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn nothing_outlives_a_harness_that_is_killed() {
    let (dir, agent) = require!(agent("honest"));
    let output = dir.path().join("output");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--live").arg("--agent").arg(&agent).env("TMPDIR", dir.path());
    command.stdout(fs::File::create(&output).unwrap());
    let mut demo = Process::spawn(command).unwrap();
    let printed = || fs::read_to_string(&output).unwrap_or_default();
    wait_until("instructions", LONG, || printed().contains("/_sim/away/")).unwrap();
    let marker = dir.path().display().to_string();
    let running = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let arguments =
            processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        arguments.filter(|line| String::from_utf8_lossy(line).contains(&marker)).count()
    };
    assert!(running() >= 3, "demo, agent and pcscd");
    demo.kill().unwrap();
    wait_until("all are gone", LONG, || running() == 0).unwrap();
}
