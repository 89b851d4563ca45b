//! Cards of every family, of none and of bad will, each from its file in `tests/cards`, through a
//! real pcscd.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use cardbridge_harness::cards::{AppletCard, Card, InsertedCard, Pins, load};
use insta::assert_snapshot;
use serde_json::Value;

use super::*;

/// As many as pcscd has readers for.
const AT_ONCE: usize = 16;

/// Every personalisation file, by name.
fn files() -> Vec<(String, PathBuf)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cards");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cards/{name}.toml"))
}

fn card(name: &str) -> Box<dyn Card> {
    load(path(name)).unwrap()
}

/// What `cardbridge read` says of the card in a reader, once there is one.
fn read(world: &World, reader: usize) -> Value {
    let name = world.pcscd.reader_names()[reader].clone();
    let mut said = None;
    let is_there = || {
        let output = world.cli(&["read", "--reader", &name, "--json", "--trace"]).unwrap();
        said = output.json().ok();
        said.is_some()
    };
    world.wait_until("the card", LONG, is_there).unwrap();
    said.unwrap()
}

/// One card in a few lines.
fn summary(name: &str, said: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = String::new();
    let (identity, why) = (&said["identity"], &said["not_identified"]);
    let (who, inventory) = if identity.is_null() {
        (format!("{}: {}", text(&why["reason"]), text(&why["detail"])), &why["inventory"])
    } else {
        let who = format!("{} {}", text(&identity["family"]), text(&identity["serial"]));
        (who, &identity["inventory"])
    };
    writeln!(lines, "{name}: {who}").unwrap();
    for candidate in said["identity"]["candidates"].as_array().into_iter().flatten() {
        let [id, rule, strength] = ["card_id", "rule", "strength"].map(|key| text(&candidate[key]));
        writeln!(lines, "  {id} {rule} {strength}").unwrap();
    }
    for (number, value) in inventory.as_object().into_iter().flatten() {
        writeln!(lines, "  {number} {}", text(value)).unwrap();
    }
    lines
}

#[test]
fn every_card_file_has_identity_or_reason() {
    let mut all = String::new();
    for batch in files().chunks(AT_ONCE) {
        let world = require!(world()).readers(AT_ONCE).without_daemon().start().unwrap();
        let cards: Vec<InsertedCard> = batch
            .iter()
            .enumerate()
            .map(|(reader, (_, path))| world.insert(reader, load(path).unwrap()).unwrap())
            .collect();
        for (reader, (name, _)) in batch.iter().enumerate() {
            let said = read(&world, reader);
            all += &summary(name, &said);
            assert_reads_only(name, &said);
        }
        drop(cards);
        world.finish().unwrap();
    }
    assert_snapshot!(all);
}

/// What the trace says that was sent: nothing but reads, and not many.
fn assert_reads_only(name: &str, said: &Value) {
    let trace = said["trace"].as_array().unwrap();
    assert!(trace.len() <= 128, "{name}: {} commands", trace.len());
    let known: BTreeSet<&str> =
        ["00a4", "00b0", "00b2", "00c0", "00ca", "00cb", "001d", "00f8", "80ca", "ffca"].into();
    for exchange in trace {
        let command = exchange["command"].as_str().unwrap();
        assert!(known.contains(command.split_at(4).0), "{name}: {command}");
    }
}

/// What OpenSC calls the serial of a card, by the tool that prints it.
fn serial_by_opensc(world: &World, reader: usize, tool: &str, args: &[&str]) -> String {
    let name = &world.pcscd.reader_names()[reader];
    let mut command = cardbridge_harness::process::mortal(tool);
    command.args(["--reader", name]).args(args);
    command.env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path());
    command.env_remove("OPENSC_DRIVER").env_remove("OPENSC_CONF");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.split_once("Serial number")) {
        Some((_, number)) => number.trim_start_matches([' ', ':']).to_owned(),
        None => opensc::bytes(&text),
    }
}

#[test]
fn opensc_and_daemon_agree_on_serials() {
    require!(readers::has_opensc());
    let opensc_tool = ("opensc-tool", ["--serial"].as_slice());
    let piv_tool = ("piv-tool", ["--serial"].as_slice());
    let openpgp_tool = ("openpgp-tool", ["--card-info"].as_slice());
    let pkcs15_tool = ("pkcs15-tool", ["--dump"].as_slice());
    let judged = [
        ("gids-seed", opensc_tool),
        ("idprime-840", opensc_tool),
        ("idprime-930", opensc_tool),
        ("idprime-940", pkcs15_tool),
        ("piv-yubikey-5", piv_tool),
        ("piv-yubikey-5", pkcs15_tool),
        ("piv-fascn", opensc_tool),
        ("piv-signed-chuid-t0", opensc_tool),
        ("piv-openpgp", piv_tool),
        ("openpgp-v2", opensc_tool),
        ("openpgp-v3", opensc_tool),
        ("openpgp-yubico", openpgp_tool),
        ("openpgp-gnuk", opensc_tool),
        ("pkcs15-transparent", pkcs15_tool),
        ("pkcs15-records", pkcs15_tool),
        ("pkcs15-without-dir", pkcs15_tool),
        ("pkcs15-iso-applet", pkcs15_tool),
        ("pkcs15-cardos", pkcs15_tool),
        ("pkcs15-myeid", pkcs15_tool),
    ];
    for batch in judged.chunks(AT_ONCE) {
        let world = require!(world()).readers(AT_ONCE).without_daemon().start().unwrap();
        let cards: Vec<_> = batch
            .iter()
            .enumerate()
            .map(|(reader, (name, _))| world.insert(reader, card(name)).unwrap())
            .collect();
        for (reader, (name, (tool, args))) in batch.iter().enumerate() {
            let ours = read(&world, reader);
            let serial = ours["identity"]["serial"].as_str().unwrap_or_default();
            let theirs = serial_by_opensc(&world, reader, tool, args);
            assert!(!serial.is_empty(), "{name}: {ours}");
            // One says the manufacturer with it, one in a line of its own.
            let same = theirs.ends_with(serial) || serial.ends_with(&theirs);
            assert!(same && theirs.len() >= 8, "{name}: {tool} says {theirs}, we say {serial}");
        }
        drop(cards);
        world.finish().unwrap();
    }
}

/// A program that has a connection to a card, and does nothing with it until it is ended.
struct Holder {
    _beside: readers::Beside,
    _input: std::io::PipeWriter,
}

/// A world with a card that another program uses, and that has been given its PIN.
fn in_use(name: &str, applet: &str) -> Result<(World, InsertedCard, Pins, Holder), String> {
    let world = world()?;
    readers::has_opensc()?;
    let world = world.without_daemon().start().unwrap();
    let card = AppletCard::load(path(name)).unwrap();
    let pins = card.pins();
    let card = world.insert(0, card).unwrap();
    readers::wait_powered(&card);
    // Unbuffered, so that its answer is seen; without a file to start in, which GIDS has not.
    let mut command = cardbridge_harness::process::mortal("stdbuf");
    command.args(["-o0", "opensc-explorer", "--mf", "", "--reader"]);
    command.arg(&world.pcscd.reader_names()[0]);
    command.env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path());
    let (output, mut input) = std::io::pipe().unwrap();
    command.stdin(output);
    let beside = readers::Beside::start_with(command);
    input.write_all(b"echo connected\n").unwrap();
    let ready = || beside.output().contains("connected");
    world.wait_until("the other program", LONG, ready).unwrap();
    pins.verify(applet);
    assert!(pins.is_verified(applet));
    Ok((world, card, pins, Holder { _beside: beside, _input: input }))
}

fn selects(said: &Value) -> usize {
    let trace = said["trace"].as_array().unwrap();
    trace.iter().filter(|e| e["command"].as_str().unwrap().starts_with("00a4")).count()
}

#[test]
fn card_in_use_is_read_and_keeps_pin() {
    for (name, applet) in
        [("gids-seed", "gids"), ("piv-yubikey-5", "piv"), ("openpgp-v3", "openpgp")]
    {
        let (world, card, pins, holder) = require!(in_use(name, applet));
        let said = read(&world, 0);
        assert_eq!(said["identity"]["family"], applet, "{said}");
        assert_eq!(selects(&said), 0, "{said}");
        assert!(pins.is_verified(applet), "{name}");
        drop((holder, card));
        world.finish().unwrap();
    }
}

#[test]
fn unidentifiable_card_in_use_waits_until_free() {
    let (mut world, card, pins, holder) = require!(in_use("pkcs15-transparent", "pkcs15"));
    let said = read(&world, 0);
    assert_eq!(said["not_identified"]["reason"], "in-use", "{said}");
    assert_eq!(selects(&said), 0, "{said}");
    assert!(pins.is_verified("pkcs15"));
    world.start_daemon().unwrap();
    let trying = card.apdus().len();
    card.wait_for("the daemon to try", LONG, |state| state.exchanges.len() > trying).unwrap();
    drop(holder);
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["unknown-card"]);
    drop(card);
    world.finish().unwrap();
}

/// The GUID in the CHUID of the YubiKey's file, in reading order.
const GUID_BE: &str = "a04f5343-7310-01f9-aa6e-34537bee6fc1";
const YUBIKEY_ATR: &str = "3bfd1300008131fe158073c021c057597562694b657940";

/// A CM that knows the YubiKey by the second-choice id, with this ATR, and wants it retired.
fn cm_that_knows_by_be(atr: &str) -> CmOptions {
    let mut record = Record::of_card(GUID_BE.parse().unwrap());
    atr.clone_into(&mut record.atr);
    let request = Request::approved(RETIRE, &record);
    let mut store = Store::seed();
    store.records = vec![record];
    store.requests = vec![request];
    CmOptions { store, ..CmOptions::default() }
}

#[test]
fn secondary_id_needs_matching_atr_unless_pinned() {
    let pin = format!("[[card]]\nmatch = \"{YUBIKEY_ATR}\"\nid_rule = \"piv-guid-be\"\n");
    let other_atr = "3b8d0180fba000000397425446590301c8";
    for (atr, extra, outcome) in [
        (YUBIKEY_ATR, "", "updated"),
        (other_atr, "", "unknown-card"),
        (other_atr, pin.as_str(), "updated"),
    ] {
        let world =
            require!(world()).cm(cm_that_knows_by_be(atr)).config_extra(extra).start().unwrap();
        let _card = world.insert(0, card("piv-yubikey-5")).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), [outcome], "{atr} {extra}");
        let line = &world.audit().unwrap()[0];
        assert_eq!(line["family"], "piv");
        assert_eq!(line["inventory"]["yubikey_serial"], "10365563", "{line}");
        if outcome == "updated" {
            assert_eq!(line["id_rule"], "piv-guid-be");
            assert_eq!(line["card_id"], GUID_BE);
        }
        world.finish().unwrap();
    }
}

#[test]
fn read_compares_ids_with_cm_and_suggests_rule() {
    let world =
        require!(world()).cm(cm_that_knows_by_be(YUBIKEY_ATR)).without_daemon().start().unwrap();
    let _card = world.insert(0, card("piv-yubikey-5")).unwrap();
    let said = read(&world, 0);
    let cm = &said["cm"];
    assert_eq!(cm["matched_rule"], "piv-guid-be", "{said}");
    let candidates = cm["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 4, "{said}");
    assert_eq!(cm["matched_strength"], "unique", "{said}");
    assert_eq!(candidates[0]["records"], serde_json::json!([]));
    assert_eq!(candidates[1]["records"][0]["serial_number"], format!("{{{GUID_BE}}}"));
    assert_eq!(world.cm.puts().len(), 0);

    let name = world.pcscd.reader_names()[0].clone();
    let text = world.cli(&["read", "--reader", &name]).unwrap().stdout;
    let pin = format!("[[card]] match = \"{YUBIKEY_ATR}\", id_rule = \"piv-guid-be\"");
    assert!(text.contains(&pin), "{text}");
    assert!(text.contains(&format!("SerialNumber {{{GUID_BE}}}")), "{text}");
    assert!(text.contains("YubiKey serial"), "{text}");
    world.finish().unwrap();
}

#[test]
fn disabled_family_is_not_probed() {
    let world = require!(world()).config_extra("[cards]\nfamilies = [\"gids\"]\n").without_daemon();
    let world = world.start().unwrap();
    let _card = world.insert(0, card("piv-yubikey-5")).unwrap();
    let said = read(&world, 0);
    assert_eq!(said["not_identified"]["reason"], "unknown-family", "{said}");
    let piv = "00a4040009a000000308";
    let trace = said["trace"].as_array().unwrap();
    assert!(!trace.iter().any(|e| e["command"].as_str().unwrap().starts_with(piv)), "{said}");
    world.finish().unwrap();
}
