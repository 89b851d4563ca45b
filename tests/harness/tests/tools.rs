//! The programs for manual work.

#![expect(clippy::expect_used, reason = "a test's helpers may fail the test")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cardbridge_harness::pcscd::{Pcscd, PcscdOptions, available};
use cardbridge_harness::process::{Process, wait_until};
use cardbridge_harness::require;
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(10);

fn printed(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn wait_printed(file: &Path, text: &str) {
    let there = || printed(file).contains(text);
    wait_until(text, LONG, there).expect("the program prints it");
}

#[test]
fn virtual_card_is_inserted_until_input_ends() {
    require!(available());
    let pcscd = Pcscd::start(PcscdOptions::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("output");
    let pid = pcscd.pid().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtual-card"));
    command.args(["--netns-of", &pid, "--port", "35964", "--fault", "slow=1"]);
    command.args(["--cardid", "00112233445566778899aabbccddeeff"]);
    command.stdin(Stdio::piped()).stdout(File::create(&output).unwrap());
    let mut card = Process::spawn(command).unwrap();
    wait_printed(&output, "card in, port 35964");
    let read = || {
        let mut tool = Command::new("opensc-tool");
        tool.args(["--reader", "1", "--serial"]);
        let result = tool.env("PCSCLITE_CSOCK_NAME", pcscd.socket_path()).output();
        String::from_utf8_lossy(&result.unwrap().stdout).starts_with("00 11 22 33")
    };
    wait_until("the card is read", LONG, read).unwrap();
    wait_printed(&output, "> 00A4040009A00000039742544659");
    drop(card.take_stdin());
    assert!(card.wait_end(LONG).unwrap().is_some_and(|status| status.success()));
    assert!(printed(&output).ends_with("card out\n"));
}

#[test]
fn virtual_card_is_what_its_file_says() {
    require!(available());
    let pcscd = Pcscd::start(PcscdOptions::default()).unwrap();
    let pid = pcscd.pid().unwrap().to_string();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cards/openpgp-yubico.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtual-card"));
    command.args(["--netns-of", &pid, "--card"]).arg(file);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let _card = Process::spawn(command).unwrap();
    wait_until("the card is read", LONG, || {
        let mut tool = Command::new("opensc-tool");
        tool.args(["--reader", "0", "--serial"]);
        let result = tool.env("PCSCLITE_CSOCK_NAME", pcscd.socket_path()).output();
        String::from_utf8_lossy(&result.unwrap().stdout).starts_with("00 06 12 34 56 78")
    })
    .unwrap();
}

#[test]
fn virtual_card_refuses_what_is_no_card() {
    let wrong =
        [["--cardid", "0011"], ["--atr", "xyz"], ["--fault", "melt"], ["--card", "no/such.toml"]];
    for arguments in wrong {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtual-card"));
        let status = command.args(arguments).stdin(Stdio::null()).output().unwrap().status;
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn cm_sim_prints_its_calls_and_starts_from_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let (output, state) = (dir.path().join("output"), dir.path().join("state.json"));
    fs::write(&state, r#"{"Records":[{"Uuid":"00000000-0000-4000-8000-00000000000a"}]}"#).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cm-sim"));
    command.args(["--listen", "127.0.0.1:0", "--state"]).arg(&state);
    command.stdout(File::create(&output).unwrap());
    let mut sim = Process::spawn(command).unwrap();
    wait_printed(&output, "/CertificateManagement/api/v1.0\n");
    let line = printed(&output);
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let mut wire = TcpStream::connect(address.unwrap()).unwrap();
    let path = "/CertificateManagement/api/v1.0/smartcards/00000000-0000-4000-8000-00000000000a";
    write!(wire, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    wire.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    wait_printed(&output, &format!("GET {path} -> 200"));
    sim.signal(Signal::TERM).unwrap();
    assert!(sim.wait_end(LONG).unwrap().is_some_and(|status| status.success()));
}
