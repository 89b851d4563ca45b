//! Logs in the journal: a socket of the harness stands where journald's is, in a mount namespace
//! of the daemon's own. Root is needed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::systemd::{JournalEntry, JournalSocket};

use super::*;

/// Puts a directory where journald has its own, then runs what comes after it.
const MOUNT: &str = "[ -d /run/systemd/journal ] || \
    { mount -t tmpfs none /run && mkdir -p /run/systemd/journal; }; \
    mount --bind \"$1\" /run/systemd/journal && shift";

/// Standard error becomes a stream of the journal, as far as programs can see.
const STREAM: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)";

/// A daemon that has this in its configuration, started with `first` done before, where the files
/// of `dir` are the journal's.
fn start(dir: &Path, format: &str, first: &str, extra: &[(&str, &str)]) -> Result<World, String> {
    let builder = world()?;
    let mut tried = Command::new("unshare");
    tried.args(["--mount", "sh", "-c", MOUNT, "sh"]).arg(dir);
    require::runs(&mut tried, "no journal of its own")?;
    let mut builder = builder.config_set("log.format", format).without_daemon();
    for (key, value) in extra {
        builder = builder.config_set(key, value);
    }
    let mut world = builder.start().unwrap();
    let script = format!("{MOUNT} && {first} && exec \"$@\"");
    let dir = dir.display().to_string();
    world.start_daemon_under(&["unshare", "--mount", "sh", "-c", &script, "sh", &dir]).unwrap();
    Ok(world)
}

fn journal(dir: &Path) -> JournalSocket {
    JournalSocket::bind(&dir.join("socket")).unwrap()
}

fn entry(journal: &JournalSocket, message: &str) -> JournalEntry {
    let entries = journal.entries().unwrap();
    let found = entries.iter().find(|entry| entry["MESSAGE"].starts_with(message));
    found.unwrap_or_else(|| panic!("{message}: {entries:#?}")).clone()
}

#[test]
fn journal_entry_has_fields_and_complete_message() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let mut world = require!(start(dir.path(), "\"journald\"", "true", &[]));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    let stopped =
        || journal.entries().unwrap().iter().any(|entry| entry["MESSAGE"] == "Daemon stopped");
    world.wait_until("the last line", LONG, stopped).unwrap();

    let settled = entry(&journal, "Entry settled");
    let has = |name: &str, value: &str| {
        assert_eq!(settled.get(name).map(String::as_str), Some(value), "{settled:#?}");
    };
    has("PRIORITY", "6");
    has("SYSLOG_IDENTIFIER", "cardbridge");
    has("CARDBRIDGE_TARGET", "cardbridge::app::event_log");
    has("CARDBRIDGE_OUTCOME", "updated");
    has("CARDBRIDGE_CARD_ID", CARD);
    has("CARDBRIDGE_RECORD", RECORD);
    has("CARDBRIDGE_NEW_STATUS", "Retired");
    for part in ["outcome=updated", &format!("card_id={CARD}"), "new_status=Retired"] {
        assert!(settled["MESSAGE"].contains(part), "{settled:#?}");
    }
    assert!(!settled.contains_key("CARDBRIDGE_REASON"), "what is not there is no field");
    let inserted = entry(&journal, "Card inserted");
    assert!(inserted["CARDBRIDGE_READER"].starts_with("Virtual PCD 1"), "{inserted:#?}");
    let entries = journal.entries().unwrap();
    assert!(entries.iter().any(|entry| entry["PRIORITY"] == "7"), "level = debug");
    assert_eq!(world.daemon_log(), "", "standard error is unused");
    world.finish().unwrap();
}

#[test]
fn ids_are_shortened_in_the_journal_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let hidden = [("log.show_ids", "false"), ("log.level", "\"trace\"")];
    let mut world = require!(start(dir.path(), "\"journald\"", "true", &hidden));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    assert_eq!(entry(&journal, "Entry settled")["CARDBRIDGE_CARD_ID"], "bc88f13f…");
    let all = format!("{:?}", journal.entries().unwrap());
    for id in [CARD, RECORD, REQUEST, "3ff188bcba833740826246eba1291c6e"] {
        assert!(!all.contains(id), "{id}: {all}");
    }
    world.finish().unwrap();
}

#[test]
fn auto_format_uses_journal_on_its_stream() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal(dir.path());
    let mut world = require!(start(dir.path(), "\"auto\"", STREAM, &[]));
    world.stop_daemon().unwrap();
    assert_eq!(entry(&journal, "Daemon started")["PRIORITY"], "6");
    assert_eq!(world.daemon_log(), "");
    let received = journal.entries().unwrap().len();

    // The variable alone, inherited by a program whose standard error goes elsewhere, is no proof.
    let script = format!("{MOUNT} && export JOURNAL_STREAM=1:1 && exec \"$@\"");
    let dir = dir.path().display().to_string();
    world.start_daemon_under(&["unshare", "--mount", "sh", "-c", &script, "sh", &dir]).unwrap();
    world.stop_daemon().unwrap();
    assert_eq!(journal.entries().unwrap().len(), received);
    assert!(world.daemon_log().contains("Daemon started"), "{}", world.daemon_log());
    world.finish().unwrap();
}

#[test]
fn missing_journal_is_logged_once_to_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = require!(start(dir.path(), "\"journald\"", "true", &[]));
    world.stop_daemon().unwrap();
    let log = world.daemon_log();
    assert_eq!(log.matches("Journal unavailable").count(), 1, "{log}");
    assert!(log.contains("Daemon started") && log.contains("Daemon stopped"), "{log}");
    world.finish().unwrap();
}

#[test]
fn lost_journal_moves_lines_to_stderr_until_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = journal(dir.path());
    let mut world = require!(start(dir.path(), "\"journald\"", "true", &[]));
    std::fs::remove_file(dir.path().join("socket")).unwrap();
    drop(first);
    let card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let printed = || world.daemon_log().contains("INFO Entry settled");
    world.wait_until("the line on standard error", LONG, printed).unwrap();

    let second = journal(dir.path());
    drop(card);
    let back = || {
        second.entries().unwrap().iter().any(|entry| entry["MESSAGE"].starts_with("Card removed"))
    };
    world.wait_until("the line in the journal", LONG, back).unwrap();
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn hung_journal_delays_no_card_and_counts_drops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut world = require!(start(dir.path(), "\"journald\"", "true", &[]));
    // Its queue holds some ten lines, or some hundreds; one line is waited for when it is full.
    let queue = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let cards = queue.trim().parse::<usize>().unwrap() / 10 + 2;
    for card in 1..=cards {
        let inserted = world.insert(0, GidsCard::seed()).unwrap();
        world.wait_for_outcomes(card, LONG).unwrap();
        drop(inserted);
        let status = || world.cli(&["status", "--json"]).unwrap().json().unwrap();
        let empty = || status()["readers"][0]["card"]["state"] == "empty";
        world.wait_until("the reader to be empty", LONG, empty).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while socket.recv(&mut buffer).is_ok() {}
    let _card = world.insert(1, GidsCard::seed()).unwrap();
    let mut printed = String::new();
    let takes = || {
        while let Ok(length) = socket.recv(&mut buffer) {
            printed.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        printed.contains("Entry settled")
    };
    world.wait_until("lines in a journal that works again", LONG, takes).unwrap();
    assert_eq!(printed.matches("lines that the journal dropped").count(), 1, "{printed}");
    assert_eq!(printed.matches("CARDBRIDGE_DROPPED_LINES=").count(), 1, "{printed}");
    drop(socket);
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}
