//! The outbox's files among programs and users who do not know that they are the daemon's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cardbridge_harness::cards::{GidsCard, InsertedCard};
use cardbridge_harness::cm::Fault;
use cardbridge_harness::process::{Process, mortal};

use super::*;

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether the daemon holds a record lock on this file, as the kernel lists it.
fn is_locked(world: &World, path: &Path) -> bool {
    let inode = format!(":{} ", path.metadata().unwrap().ino());
    let pid = format!(" {} ", world.daemon_pid().unwrap());
    let is_it = |line: &str| line.contains("POSIX") && line.contains(&inode) && line.contains(&pid);
    // The list is read in parts, and misses some while others lock and unlock.
    (0..100).any(|_| fs::read_to_string("/proc/locks").unwrap().lines().any(is_it))
}

/// Another program reads the outbox and closes it, as an operator's `sqlite3` does.
fn read_as_other_program(world: &World) {
    let script = "import sqlite3, sys\n\
                  c = sqlite3.connect(sys.argv[1])\n\
                  c.execute('SELECT count(*) FROM audit').fetchall()\n\
                  c.close()";
    let path = world.outbox_path();
    let looked = Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
    assert!(looked.status.success(), "{looked:?}");
}

#[test]
fn another_program_that_reads_the_outbox_harms_nothing() {
    let mut world = require!(world()).start().unwrap();
    let locked = |world: &World, when: &str| {
        for suffix in ["", "-shm"] {
            let path = beside(&world.outbox_path(), suffix);
            assert!(is_locked(world, &path), "outbox.db{suffix} is not locked {when}");
        }
    };
    locked(&world, "after the start");
    read_as_other_program(&world);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    read_as_other_program(&world);
    for command in [&["status"][..], &["audit", "verify"], &["outbox", "list"], &["check"]] {
        world.cli(command).unwrap();
    }
    world.reload_daemon().unwrap();
    world.cli(&["status"]).unwrap();
    locked(&world, "after everything was asked");
    world.kill9_daemon().unwrap();
    world.start_daemon().unwrap();
    assert_eq!(world.outcomes().unwrap(), ["updated"]);
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    world.finish().unwrap();
}

/// How many entries wait.
fn waiting(world: &World) -> usize {
    let listed = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    listed.as_array().unwrap().len()
}

/// A daemon that was stopped with one entry that waits.
fn stopped_with_an_entry() -> Result<(World, InsertedCard), String> {
    let mut world = world()?.start().unwrap();
    world.cm.set_fault(Fault::Reset);
    let card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_until("the entry waits", LONG, || waiting(&world) == 1).unwrap();
    world.stop_daemon().unwrap();
    Ok((world, card))
}

#[test]
fn retry_of_a_waiting_entry_of_a_stopped_daemon_waits_for_its_start() {
    let (mut world, _card) = require!(stopped_with_an_entry());
    let retried = world.cli(&["outbox", "retry", "1"]).unwrap();
    assert_eq!(retried.code, Some(0), "{retried:?}");
    assert_eq!(retried.stdout, "Entry 1 is waiting: the daemon retries it when it starts.\n");
    let json = world.cli(&["outbox", "retry", "1", "--json"]).unwrap().json().unwrap();
    assert_eq!(json["result"], "waiting");
    assert!(world.audit().unwrap().is_empty(), "nothing was done");
    world.cm.clear_faults();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn root_follows_no_link_that_the_service_left() {
    let (mut world, _card) = require!(stopped_with_an_entry());
    let path = world.outbox_path();
    let target = world.dir().join("of-root");
    fs::write(&target, "root's").unwrap();
    let before = target.metadata().unwrap();
    for suffix in [".lock", "-wal", "-shm"] {
        let link = beside(&path, suffix);
        drop(fs::remove_file(&link));
        symlink(&target, &link).unwrap();
        for command in [&["outbox", "discard", "1", "--yes"][..], &["outbox", "retry", "1"]] {
            let refused = world.cli(command).unwrap();
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(refused.stderr.contains("is a symbolic link"), "{refused:?}");
        }
        let after = target.metadata().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "root's", "{suffix}");
        assert_eq!((after.uid(), after.gid(), after.mtime()), {
            (before.uid(), before.gid(), before.mtime())
        });
        fs::remove_file(&link).unwrap();
    }
    // What root makes is the service's, and the daemon goes on with it.
    assert_eq!(world.cli(&["outbox", "retry", "1"]).unwrap().code, Some(0));
    let owner = path.metadata().unwrap().uid();
    assert_eq!(beside(&path, ".lock").metadata().unwrap().uid(), owner);
    world.cm.clear_faults();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn root_commands_create_no_outbox_files() {
    require!(require::root());
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Reset);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_until("the entry waits", LONG, || waiting(&world) == 1).unwrap();
    world.kill9_daemon().unwrap();
    // What the owner may not do, no reading command does.
    let index = beside(&world.outbox_path(), "-shm");
    fs::remove_file(&index).unwrap();
    let directory = world.outbox_path().parent().unwrap().to_owned();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    for command in [&["check"][..], &["outbox", "list"], &["audit"], &["audit", "verify"]] {
        let output = world.cli(command).unwrap();
        assert!(!index.exists(), "{output:?}");
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    world.cm.clear_faults();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn a_pipe_at_the_outboxs_path_is_refused_and_nothing_hangs() {
    let mut world = require!(world()).without_daemon().start().unwrap();
    let made = Command::new("mkfifo").arg(world.outbox_path()).status().unwrap();
    assert!(made.success());
    world.launch_daemon().unwrap();
    assert!(!world.wait_daemon_end(LONG).unwrap().success());
    assert!(world.daemon_log().contains("is a named pipe"), "{}", world.daemon_log());
    for command in [&["outbox", "list"][..], &["audit"], &["audit", "verify"], &["check"]] {
        let output = world.cli(command).unwrap();
        assert_ne!(output.code, Some(0), "{output:?}");
    }
    world.finish().unwrap();
}

#[test]
fn missing_outbox_is_logged_as_error() {
    let (mut world, _card) = require!(stopped_with_an_entry());
    world.expect_error("Outbox file was missing");
    fs::remove_file(world.outbox_path()).unwrap();
    world.cm.clear_faults();
    world.start_daemon().unwrap();
    let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
    let damage = status["data_loss"].as_str().unwrap_or_default();
    assert!(damage.contains("the outbox was gone"), "{status}");
    let verified = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("the outbox was gone"), "{verified:?}");
    world.finish().unwrap();
}

/// A program that reads the outbox and keeps it open, so that its log is not emptied.
fn hold_open(world: &World) -> Process {
    let script = "import sqlite3, sys, time\n\
                  c = sqlite3.connect(sys.argv[1])\n\
                  c.execute('BEGIN')\n\
                  c.execute('SELECT count(*) FROM audit').fetchall()\n\
                  open(sys.argv[2], 'w').close()\n\
                  time.sleep(600)";
    let inside = world.dir().join("inside");
    let mut command = mortal("python3");
    command.args(["-c", script]).arg(world.outbox_path()).arg(&inside);
    let process = Process::spawn(command).unwrap();
    world.wait_until("the other program reads", LONG, || inside.exists()).unwrap();
    process
}

#[test]
fn flipped_wal_bit_after_kill_loses_no_card() {
    let mut world = require!(world()).readers(2).start().unwrap();
    world.expect_error("Damaged outbox file set aside");
    world.cm.set_fault(Fault::Reset);
    let mut reading = hold_open(&world);
    let _cards = [GidsCard::seed(), GidsCard::new(cardid(REQUEST))]
        .into_iter()
        .enumerate()
        .map(|(reader, card)| world.insert(reader, card).unwrap())
        .collect::<Vec<_>>();
    world.wait_until("two cards wait", LONG, || waiting(&world) == 2).unwrap();
    world.kill9_daemon().unwrap();
    reading.kill().unwrap();
    let log = beside(&world.outbox_path(), "-wal");
    let mut bytes = fs::read(&log).unwrap();
    bytes[32 + 24 + 2000] ^= 1;
    fs::write(&log, bytes).unwrap();
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(1));

    world.start_daemon().unwrap();
    assert_eq!(waiting(&world), 2);
    let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
    let damage = status["data_loss"].as_str().unwrap_or_default();
    assert!(damage.contains("its log is damaged"), "{status}");
    let verified = world.cli(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("its log is damaged"), "{verified:?}");
    world.finish().unwrap();
}
