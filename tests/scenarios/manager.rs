//! What the service manager receives: that the daemon is ready, how it is, and whether its loop turns.

use std::time::Instant;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;
use cardbridge_harness::process::{Process, mortal};
use cardbridge_harness::systemd::NotifySocket;

use super::*;

/// What the manager asks for; the daemon feeds at half of it.
const WATCHDOG: Duration = Duration::from_millis(800);

/// A world under a service manager, and the directory of its socket.
fn managed() -> Result<(WorldBuilder, NotifySocket, tempfile::TempDir), String> {
    let builder = world()?;
    let dir = tempfile::tempdir().unwrap();
    let manager = NotifySocket::bind(&dir.path().join("notify")).unwrap();
    let builder = builder
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    Ok((builder, manager, dir))
}

fn wait_status(world: &World, manager: &NotifySocket, status: &str) {
    let shown = world.wait_until(status, LONG, || manager.status() == status);
    shown.unwrap_or_else(|error| panic!("{error}: {:?}", manager.news()));
}

fn feeds(manager: &NotifySocket) -> usize {
    manager.moments("WATCHDOG=1").len()
}

fn wait_fed(world: &World, manager: &NotifySocket) {
    let before = feeds(manager);
    world
        .wait_until("the watchdog to be fed twice", LONG, || feeds(manager) >= before + 2)
        .unwrap();
}

/// Whether the manager would restart the daemon.
fn starves(manager: &NotifySocket) -> bool {
    manager.moments("WATCHDOG=1").last().is_some_and(|at| at.elapsed() > 2 * WATCHDOG)
}

/// The line's first moment.
fn first(manager: &NotifySocket, line: &str) -> Instant {
    *manager.moments(line).first().unwrap_or_else(|| panic!("{line}: {:?}", manager.news()))
}

#[test]
fn systemd_gets_ready_status_reload_stop_in_order() {
    let (builder, manager, _dir) = require!(managed());
    let mut world = builder.start().unwrap();
    let ready = || !manager.moments("READY=1").is_empty();
    world.wait_until("READY=1", LONG, ready).unwrap();
    assert_eq!(world.cli(&["status"]).unwrap().code, Some(0), "ready is: it answers");
    wait_status(&world, &manager, "2 readers, 0 cards, CM not contacted, 0 entries waiting");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    wait_status(&world, &manager, "2 readers, 1 card, CM available, 0 entries waiting");

    world.reload_daemon().unwrap();
    let reloaded = || manager.moments("READY=1").len() == 2;
    world.wait_until("the second READY=1", LONG, reloaded).unwrap();
    let began = first(&manager, "RELOADING=1");
    assert!(began <= *manager.moments("READY=1").last().unwrap());
    let clock = |line: &str| line.strip_prefix("MONOTONIC_USEC=").and_then(|at| at.parse().ok());
    let at: Vec<u64> = manager.news().iter().filter_map(|(_, line)| clock(line)).collect();
    assert!(matches!(at.as_slice(), [at] if *at > 0), "{at:?}");

    let asked = Instant::now();
    world.stop_daemon().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2));
    let last = || manager.news().last().is_some_and(|(_, line)| line == "STOPPING=1");
    world.wait_until("STOPPING=1 to be the last message", LONG, last).unwrap();
    world.finish().unwrap();
}

#[test]
fn rejected_configuration_keeps_daemon_ready() {
    let (builder, manager, _dir) = require!(managed());
    let mut world = builder.start().unwrap();
    world.expect_error("Configuration reload failed");
    std::fs::write(world.config_path(), "[cm]\nurl = 7\n").unwrap();
    world.reload_daemon().unwrap();
    let again = || manager.moments("READY=1").len() == 2;
    world.wait_until("the second READY=1", LONG, again).unwrap();
    wait_fed(&world, &manager);
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn systemd_status_updates_at_most_once_per_second() {
    let (builder, manager, _dir) = require!(managed());
    let world = builder.start().unwrap();
    world.cm.set_fault(Fault::Reset);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    wait_status(
        &world,
        &manager,
        "2 readers, 1 card, CM unavailable (unreachable), 1 entry waiting",
    );
    world.cm.clear_faults();
    wait_status(&world, &manager, "2 readers, 1 card, CM available, 0 entries waiting");
    let sent: Vec<_> =
        manager.news().into_iter().filter(|(_, line)| line.starts_with("STATUS=")).collect();
    for pair in sent.windows(2) {
        assert_ne!(pair[0].1, pair[1].1, "sent only when it changes");
        // As this process saw them come.
        let apart = pair[1].0 - pair[0].0;
        assert!(apart > Duration::from_millis(900), "{apart:?}: {sent:?}");
    }
    world.finish().unwrap();
}

#[test]
fn frozen_daemon_sends_no_watchdog_ping() {
    let (builder, manager, _dir) = require!(managed());
    let world = builder.start().unwrap();
    wait_fed(&world, &manager);
    world.freeze_daemon().unwrap();
    world.wait_until("the watchdog to starve", LONG, || starves(&manager)).unwrap();
    world.thaw_daemon().unwrap();
    wait_fed(&world, &manager);
    world.finish().unwrap();
}

/// Only the loop's own thread is held here; whatever other threads there are go on.
#[test]
fn stuck_loop_sends_no_watchdog_ping() {
    require!(require::strace());
    let (builder, manager, _dir) = require!(managed());
    let world = builder.start().unwrap();
    wait_fed(&world, &manager);
    let pid = world.daemon_pid().unwrap().to_string();
    let mut strace = mortal("strace");
    strace.args([
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=epoll_wait:delay_exit=3000000",
        "-p",
        &pid,
    ]);
    let mut strace = Process::spawn(strace).unwrap();
    world.wait_until("the watchdog to starve", LONG, || starves(&manager)).unwrap();
    assert!(strace.ended().unwrap().is_none(), "strace holds the loop");
    let task = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert!(task > 1, "the other threads live");
    strace.kill().unwrap();
    wait_fed(&world, &manager);
    world.finish().unwrap();
}
