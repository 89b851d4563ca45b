//! The doubles that go further than vpcd, judged by the tools that Debian ships.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "a test fails where something is not as expected"
)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cardbridge_harness::cards::{Faults, GidsCard, PlainCard};
use cardbridge_harness::pcscd::{Double, Pcscd, PcscdOptions, Request, Trouble, available};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;

/// OpenSC's name for the seed card.
const SEED_CARD: &str = "GIDS Smart Card";

const LONG: Duration = Duration::from_secs(10);

fn start(double: Double, readers: usize) -> Result<Pcscd, String> {
    available()?;
    Ok(Pcscd::start(PcscdOptions { readers, double, ..PcscdOptions::default() }).unwrap())
}

fn opensc_tool(pcscd: &Pcscd, args: &[&str]) -> Output {
    let socket = pcscd.socket_path();
    Command::new("opensc-tool").args(args).env("PCSCLITE_CSOCK_NAME", socket).output().unwrap()
}

/// What kind of card OpenSC says this is.
fn kind(pcscd: &Pcscd) -> String {
    let output = opensc_tool(pcscd, &["-n"]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The table of readers.
fn table(pcscd: &Pcscd) -> String {
    String::from_utf8_lossy(&opensc_tool(pcscd, &["-l"]).stdout).into_owned()
}

/// Waits until a reader's line in the table has a text, or the reader none.
fn wait_table(pcscd: &Pcscd, reader: usize, text: Option<&str>) {
    let name = pcscd.reader_names().swap_remove(reader);
    let is_so = || {
        let table = table(pcscd);
        let row = table.lines().find(|line| line.contains(&name));
        row.is_some() == text.is_some() && row.is_none_or(|row| row.contains(text.unwrap_or("")))
    };
    let waited = wait_until(&format!("{text:?} for {name}"), LONG, is_so);
    waited.unwrap_or_else(|error| panic!("{error}\n{}\n{}", table(pcscd), pcscd.log()));
}

#[test]
fn opensc_reads_the_seed_card_in_each_double() {
    for double in [Double::Ifd, Double::Relay] {
        let pcscd = require!(start(double, 2));
        let mut card = pcscd.insert(1, GidsCard::seed()).unwrap();
        wait_table(&pcscd, 1, Some("Yes"));
        wait_table(&pcscd, 0, Some("No"));
        assert_eq!(kind(&pcscd), SEED_CARD, "{double:?}");
        assert!(card.apdus().len() > 5, "OpenSC talked to the card");
        card.eject();
        wait_table(&pcscd, 1, Some("No"));
    }
}

#[test]
fn sixteen_readers_are_listed() {
    for double in [Double::Ifd, Double::Relay] {
        let pcscd = require!(start(double, 16));
        wait_table(&pcscd, 15, Some("No"));
        assert_eq!(table(&pcscd).matches(" 00\n").count(), 16, "{}", table(&pcscd));
    }
}

#[test]
fn a_reader_is_unplugged_and_plugged_in_with_its_card() {
    for double in [Double::Ifd, Double::Relay] {
        let pcscd = require!(start(double, 2));
        let _card = pcscd.insert(0, PlainCard::default()).unwrap();
        wait_table(&pcscd, 0, Some("Yes"));
        for _ in 0..3 {
            pcscd.unplug(0).unwrap();
            wait_table(&pcscd, 0, None);
            assert!(pcscd.unplug(0).is_err());
            pcscd.plug(0).unwrap();
            wait_table(&pcscd, 0, Some("Yes"));
        }
    }
}

#[test]
fn late_reader_takes_free_slot() {
    let pcscd = require!(start(Double::Ifd, 3));
    assert_eq!(pcscd.reader_names()[0], "Cardbridge Double (R00) 00 00");
    pcscd.unplug(0).unwrap();
    wait_table(&pcscd, 0, None);
    pcscd.unplug(2).unwrap();
    wait_table(&pcscd, 2, None);
    pcscd.plug(2).unwrap();
    let renamed = || pcscd.reader_names()[2] == "Cardbridge Double (R02) 00 00";
    wait_until("the last reader in the first place", LONG, renamed).unwrap();
    wait_table(&pcscd, 2, Some("No"));
}

#[test]
fn a_mute_card_cannot_be_read_in_either_double() {
    for double in [Double::Ifd, Double::Relay] {
        let pcscd = require!(start(double, 1));
        let faults = Faults { mute: true, ..Faults::default() };
        let _card = pcscd.insert_with(0, GidsCard::seed(), faults).unwrap();
        wait_table(&pcscd, 0, Some("Yes"));
        let atr = opensc_tool(&pcscd, &["-a"]);
        assert_eq!(String::from_utf8_lossy(&atr.stdout).trim(), "", "{double:?}");
    }
}

#[test]
fn cards_and_plugs_survive_a_restart_of_pcscd() {
    for double in [Double::Ifd, Double::Relay] {
        let mut pcscd = require!(start(double, 2));
        let _card = pcscd.insert(1, PlainCard::default()).unwrap();
        pcscd.unplug(0).unwrap();
        wait_table(&pcscd, 1, Some("Yes"));
        let absent = pcscd.reader_names()[0].clone();
        pcscd.restart().unwrap();
        wait_table(&pcscd, 1, Some("Yes"));
        assert!(!table(&pcscd).contains(&absent));
        pcscd.stop().unwrap();
        assert!(!pcscd.socket_path().exists());
        pcscd.restart().unwrap();
        wait_table(&pcscd, 1, Some("Yes"));
    }
}

#[test]
fn a_hanging_card_is_pulled_out_from_under_its_reader() {
    for double in [Double::Ifd, Double::Relay] {
        let pcscd = require!(start(double, 1));
        let faults = Faults { hang_at: Some(1), ..Faults::default() };
        let mut card = pcscd.insert_with(0, GidsCard::seed(), faults).unwrap();
        wait_table(&pcscd, 0, Some("Yes"));
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| kind(&pcscd));
            card.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
            let began = Instant::now();
            card.eject();
            assert!(began.elapsed() < Duration::from_secs(2));
            assert_ne!(reading.join().unwrap(), SEED_CARD, "{double:?}");
        });
        wait_table(&pcscd, 0, Some("No"));
    }
}

#[test]
fn cut_connection_fails_client_once() {
    let pcscd = require!(start(Double::Relay, 1));
    let _card = pcscd.insert(0, GidsCard::seed()).unwrap();
    let relay = pcscd.relay().unwrap();
    relay.make(Trouble::cut().on(Request::Transmit).from(2).times(1));
    assert_ne!(kind(&pcscd), SEED_CARD);
    assert_eq!(kind(&pcscd), SEED_CARD);
}

#[test]
fn relay_rejects_clients_of_other_versions() {
    let pcscd = require!(start(Double::Relay, 1));
    let _card = pcscd.insert(0, GidsCard::seed()).unwrap();
    let relay = pcscd.relay().unwrap();
    for (major, minor) in [(4, 3), (5, 0)] {
        relay.make(Trouble::speak(major, minor));
        let before = relay.requests().len();
        assert_ne!(kind(&pcscd), SEED_CARD, "{major}:{minor}");
        let asked = relay.requests().split_off(before);
        assert!(asked.iter().all(|request| *request == Request::Version), "{asked:?}");
        relay.clear_troubles();
    }
    assert_eq!(kind(&pcscd), SEED_CARD);
}
