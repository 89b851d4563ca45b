//! What the unit forbids is nothing that the daemon needs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cardbridge_harness::cards::GidsCard;

use super::*;

const UNIT: &str = include_str!("../../systemd/cardbridge.service");

/// The values of a setting of the unit, in order.
fn setting(name: &str) -> Vec<&'static str> {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).collect()
}

/// systemd's sets of system calls, by name; they hold each other.
fn sets() -> Result<BTreeMap<String, Vec<String>>, String> {
    require::program("systemd-analyze", "systemd")?;
    let output = Command::new("systemd-analyze").arg("syscall-filter").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut sets = BTreeMap::<String, Vec<String>>::new();
    let mut last = String::new();
    for line in text.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            word.clone_into(&mut last);
        } else if line.starts_with(' ') && !word.starts_with('#') && !word.is_empty() {
            sets.entry(last.clone()).or_default().push(word.to_owned());
        }
    }
    Ok(sets)
}

fn expand(sets: &BTreeMap<String, Vec<String>>, name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    sets[name].iter().flat_map(|member| expand(sets, member)).collect()
}

/// What `SystemCallFilter` of the unit lets through.
fn allowed(sets: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut allowed = expand(sets, "@default");
    let mut forbids = false;
    for word in setting("SystemCallFilter") {
        // In a setting that begins with ~, every word is forbidden.
        let name = word.strip_prefix('~').unwrap_or(word);
        forbids |= name != word;
        let calls = expand(sets, name);
        if forbids {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    allowed
}

/// The daemon's own calls, from a trace that begins with the programs before it.
fn calls(trace: &str, binary: &str) -> Vec<String> {
    let own = trace.lines().skip_while(|line| !line.contains(&format!("execve(\"{binary}\"")));
    let call = |line: &str| {
        let (_pid, call) = line.split_once(' ')?;
        let call = call.trim_start();
        call.starts_with(|c: char| c.is_ascii_lowercase()).then(|| call.to_owned())
    };
    own.skip(1).filter_map(call).collect()
}

#[test]
fn unit_permits_every_system_call_of_daemon() {
    let builder = require!(world());
    let sets = require!(sets());
    require!(require::strace());
    let mut world = builder.without_daemon().start().unwrap();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let path = trace.path().to_str().unwrap();
    world.start_daemon_under(&["strace", "-f", "-qq", "-s", "0", "-o", path]).unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.reload_daemon().unwrap();
    let reloaded = || world.daemon_log().contains("Configuration reloaded");
    world.wait_until("the reload", LONG, reloaded).unwrap();
    world.stop_daemon().unwrap();

    let trace = std::fs::read_to_string(path).unwrap();
    let calls = calls(&trace, world.binary().to_str().unwrap());
    assert!(calls.len() > 500, "{} calls", calls.len());
    let allowed = allowed(&sets);
    let name = |call: &String| call.split('(').next().unwrap_or_default().to_owned();
    let names: BTreeSet<_> = calls.iter().map(name).collect();
    let forbidden: Vec<_> = names.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "{forbidden:?} of {names:?}");

    let families = setting("RestrictAddressFamilies");
    for call in calls.iter().filter(|call| call.starts_with("socket(")) {
        // The resolver asks for AF_NETLINK and does without.
        let known = families.iter().any(|family| call.contains(&format!("({family},")));
        assert!(known || call.contains("(AF_NETLINK,"), "{call}");
    }
    let both = |call: &&String| call.contains("PROT_WRITE") && call.contains("PROT_EXEC");
    assert_eq!(calls.iter().find(both), None, "MemoryDenyWriteExecute");
    world.finish().unwrap();
}

#[test]
fn daemon_of_root_harness_has_no_privileges() {
    let world = require!(world()).start().unwrap();
    let status = format!("/proc/{}/status", world.daemon_pid().unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(field("Uid:").iter().all(|id| id != "0"), "{status}");
    assert_eq!(field("CapEff:"), ["0000000000000000"], "{status}");
    world.finish().unwrap();
}
