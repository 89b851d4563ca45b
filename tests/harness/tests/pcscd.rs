//! The private pcscd and its cards, judged by the tools that Debian ships.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

use std::process::{Command, Output};
use std::time::Duration;

use cardbridge_harness::cards::{Answering, Faults, GidsCard, InsertedCard, PlainCard};
use cardbridge_harness::pcscd::{Pcscd, PcscdOptions, available};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;

const LONG: Duration = Duration::from_secs(10);

fn start(readers: usize) -> Result<Pcscd, String> {
    available()?;
    Ok(Pcscd::start(PcscdOptions { readers, ..PcscdOptions::default() }).expect("pcscd starts"))
}

fn opensc_tool(pcscd: &Pcscd, args: &[&str]) -> Output {
    Command::new("opensc-tool")
        .args(args)
        .env("PCSCLITE_CSOCK_NAME", pcscd.socket_path())
        .output()
        .expect("opensc-tool runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for pcscd's own view of a reader: opensc-tool's table says whether a
/// card is in it.
fn wait_card(pcscd: &Pcscd, reader: usize, present: bool) {
    let name = pcscd.reader_names().swap_remove(reader);
    wait_until("pcscd has seen the card come or go", LONG, || {
        let table = text(&opensc_tool(pcscd, &["-l"]));
        let row = table.lines().find(|line| line.contains(&name));
        row.is_some_and(|row| row.contains(if present { "Yes" } else { "No" }))
    })
    .expect("pcscd polls its readers");
}

fn insert(pcscd: &Pcscd, reader: usize, card: GidsCard) -> InsertedCard {
    let inserted = pcscd.insert(reader, card).expect("the card goes in");
    wait_card(pcscd, reader, true);
    inserted
}

#[test]
fn opensc_reads_the_seed_card() {
    let pcscd = require!(start(2));
    let card = insert(&pcscd, 0, GidsCard::seed());
    let serial = opensc_tool(&pcscd, &["--reader", "0", "--serial"]);
    assert!(
        text(&serial).starts_with("3F F1 88 BC BA 83 37 40 82 62 46 EB A1 29 1C 6E"),
        "{serial:?}"
    );
    let name = opensc_tool(&pcscd, &["--reader", "0", "-n"]);
    assert_eq!(text(&name).trim(), "GIDS Smart Card");
    let atr = opensc_tool(&pcscd, &["--reader", "0", "-a"]);
    let expected = "3b:8d:01:80:fb:a0:00:00:03:97:42:54:46:59:03:01:c8";
    assert_eq!(text(&atr).trim(), expected);
    assert!(card.apdus().len() > 5, "OpenSC talked to the card");
}

#[test]
fn opensc_reads_a_card_with_a_long_file_table() {
    let pcscd = require!(start(2));
    let id = *b"0123456789abcdef";
    let _card = insert(&pcscd, 1, GidsCard::new(id).with_more_files(9));
    let serial = opensc_tool(&pcscd, &["--reader", "1", "--serial"]);
    assert!(text(&serial).starts_with("30 31 32 33"), "{serial:?}");
}

#[test]
fn two_pcscds_share_nothing() {
    let one = require!(start(2));
    let two = require!(start(4));
    let _card = insert(&one, 0, GidsCard::seed());
    let listed = text(&opensc_tool(&two, &["-l"]));
    assert!(!listed.contains("Yes"), "{listed}");
    for name in two.reader_names() {
        assert!(listed.contains(&name), "{name} is missing in:\n{listed}");
    }
    assert_eq!(text(&opensc_tool(&one, &["-l"])).matches("Virtual").count(), 2);
}

#[test]
fn sixteen_readers_each_have_their_own_card() {
    let pcscd = require!(start(16));
    let _cards: Vec<_> = [3, 15].map(|reader| insert(&pcscd, reader, GidsCard::seed())).into();
    let listed = text(&opensc_tool(&pcscd, &["-l"]));
    assert_eq!(listed.matches("Yes").count(), 2, "{listed}");
    for name in pcscd.reader_names() {
        assert!(listed.contains(&name), "{name} is missing in:\n{listed}");
    }
}

#[test]
fn a_card_comes_goes_and_survives_a_restart_of_pcscd() {
    let mut pcscd = require!(start(2));
    let mut card = insert(&pcscd, 0, GidsCard::seed());
    pcscd.kill9().expect("pcscd is killed");
    assert!(pcscd.socket_path().exists(), "the stale socket remains");
    assert!(!opensc_tool(&pcscd, &["-l"]).status.success() || pcscd.pid().is_none());
    pcscd.restart().expect("pcscd comes back");
    wait_card(&pcscd, 0, true);
    card.eject();
    wait_card(&pcscd, 0, false);
}

#[test]
fn dropping_leaves_nothing_running() {
    let pcscd = require!(start(2));
    let card = insert(&pcscd, 0, GidsCard::seed());
    let pid = pcscd.pid().expect("it runs");
    let socket = pcscd.socket_path();
    drop((card, pcscd));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!socket.exists());
}

#[test]
fn a_mute_card_is_present_and_cannot_be_read() {
    let pcscd = require!(start(2));
    let faults = Faults { mute: true, ..Faults::default() };
    let card = pcscd.insert_with(0, GidsCard::seed(), faults).unwrap();
    card.wait_for("power-up", LONG, |state| state.power_ups > 0).unwrap();
    let serial = opensc_tool(&pcscd, &["--reader", "0", "--serial"]);
    assert!(!serial.status.success(), "{serial:?}");
    assert!(card.apdus().is_empty());
}

#[test]
fn a_card_torn_out_in_the_middle_of_an_apdu_is_out() {
    let pcscd = require!(start(2));
    let card = insert(&pcscd, 0, GidsCard::seed());
    card.remove_at(3);
    let serial = opensc_tool(&pcscd, &["--reader", "0", "--serial"]);
    assert!(!text(&serial).contains("3F F1"), "{serial:?}");
    let state = card.wait_for("card out", LONG, |state| state.out).unwrap();
    assert_eq!(state.exchanges.len(), 3);
    assert_eq!(state.exchanges[2].answer, None);
    wait_card(&pcscd, 0, false);
}

#[test]
fn a_hanging_card_answers_once_it_is_released() {
    let pcscd = require!(start(2));
    let card = insert(&pcscd, 0, GidsCard::seed());
    card.hang_at(1);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| opensc_tool(&pcscd, &["--reader", "0", "--serial"]));
        card.wait_for("an APDU hangs", LONG, |state| state.hanging).unwrap();
        assert!(!read.is_finished());
        card.release();
        assert!(text(&read.join().unwrap()).starts_with("3F F1"));
    });
}

#[test]
fn opensc_copes_with_get_response_on_every_answer() {
    let pcscd = require!(start(2));
    let card = insert(&pcscd, 0, GidsCard::seed());
    card.answer(Answering::GetResponse);
    let serial = opensc_tool(&pcscd, &["--reader", "0", "--serial"]);
    assert!(text(&serial).starts_with("3F F1"), "{serial:?}");
    let held_back = |answer: &Option<Vec<u8>>| matches!(answer.as_deref(), Some([0x61, _]));
    assert!(card.apdus().iter().any(|apdu| held_back(&apdu.answer)));
    card.answer(Answering::StatusWord(0x6F00));
    let serial = opensc_tool(&pcscd, &["--reader", "0", "--serial"]);
    assert!(!text(&serial).contains("3F F1"), "{serial:?}");
}

#[test]
fn a_card_of_no_family_says_not_found() {
    let pcscd = require!(start(2));
    let card = pcscd.insert(0, PlainCard::default()).unwrap();
    wait_card(&pcscd, 0, true);
    let answer = opensc_tool(&pcscd, &["--reader", "0", "-s", "00A4040005A000000003"]);
    assert!(text(&answer).contains("SW1=0x6A, SW2=0x82"), "{answer:?}");
    assert!(!card.apdus().is_empty());
}
