//! Third-party programs on the same readers: they work while the daemon does, and the
//! daemon works while they do.

use std::io::{PipeWriter, Write as _};

use cardbridge_harness::cards::{AppletCard, Pins};

use super::*;

/// A program on the world's pcscd, its output unbuffered; none where it is not installed.
fn program(world: &World, name: &str, package: &str) -> Result<Command, String> {
    require::program(name, package)?;
    let mut command = cardbridge_harness::process::mortal("stdbuf");
    command.args(["-o0", name]).env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path());
    Ok(command)
}

/// Waits until a program has said something, so often.
fn wait_printed(world: &World, program: &Beside, text: &str, times: usize) {
    let said = || program.output().matches(text).count() >= times;
    let waited = world.wait_until(&format!("{text:?} {times} times"), LONG, said);
    waited.unwrap_or_else(|error| panic!("{error}: {}", program.output()));
}

#[test]
fn pcsc_scan_and_the_daemon_both_see_every_card() {
    let world = require!(ifd()).start().unwrap();
    let mut command = require!(program(&world, "pcsc_scan", "pcsc-tools"));
    command.arg("-n");
    let mut scan = Beside::start(command);
    wait_printed(&world, &scan, "Card removed", 2);
    for round in 1..=4 {
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        wait_printed(&world, &scan, "ATR: 3B 8D 01 80", round);
        world.wait_for_outcomes(round, LONG).unwrap();
        wait_idle(&world, 0);
        card.eject();
        wait_card(&world, 0, "empty");
        wait_printed(&world, &scan, "Card removed", 2 + round);
    }
    assert_eq!(world.outcomes().unwrap()[1..], ["already-set"; 3]);
    assert!(scan.runs());
    world.finish().unwrap();
}

#[test]
fn opensc_waits_and_reads_beside_daemon() {
    let world = require!(ifd());
    require!(has_opensc());
    let world = world.start().unwrap();
    wait_readers(&world, 2);
    let mut tools: Vec<_> = [["--wait", "--name"], ["--wait", "--serial"]]
        .into_iter()
        .map(|args| Beside::start(opensc(&world, 0, "app default {}", &args)))
        .collect();
    for tool in &tools {
        wait_printed(&world, tool, "Waiting for a card", 1);
    }
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let ended = || !tools.iter_mut().any(Beside::runs);
    world.wait_until("the tools' ends", LONG, ended).unwrap();
    assert!(tools[0].output().contains("GIDS Smart Card"), "{}", tools[0].output());
    assert!(tools[1].output().contains("3F F1 88 BC"), "{}", tools[1].output());
    let atr = opensc(&world, 0, "app default {}", &["--atr"]).output().unwrap();
    let atr = String::from_utf8_lossy(&atr.stdout).into_owned();
    assert!(atr.starts_with("3b:8d:01:80"), "{atr}");
    world.finish().unwrap();
}

/// `GnuPG`'s daemon for cards, spoken to as its agent does.
struct Scdaemon {
    program: Beside,
    input: PipeWriter,
    _home: tempfile::TempDir,
}

impl Scdaemon {
    /// Starts it with a home of its own; none where it is not installed.
    fn start(world: &World, settings: &str) -> Result<Self, String> {
        let mut command = program(world, "/usr/lib/gnupg/scdaemon", "scdaemon")?;
        let home = tempfile::tempdir().unwrap();
        let settings = format!("disable-ccid\npcsc-driver libpcsclite.so.1\n{settings}\n");
        std::fs::write(home.path().join("scdaemon.conf"), settings).unwrap();
        command.arg("--server").env("GNUPGHOME", home.path());
        let (output, input) = std::io::pipe().unwrap();
        command.stdin(output);
        let program = Beside::start_with(command);
        wait_printed(world, &program, "OK ", 1);
        Ok(Self { program, input, _home: home })
    }

    /// Has it open the card, as often as it says that it finds none: the reader may be slower.
    fn open_card(&mut self, world: &World) {
        for refusals in 1.. {
            self.input.write_all(b"SERIALNO openpgp\n").unwrap();
            let answered = || {
                let said = self.program.output();
                said.contains(YUBICO) || said.matches("ERR ").count() >= refusals
            };
            world.wait_until("scdaemon's answer", LONG, answered).unwrap();
            let said = self.program.output();
            if said.contains(YUBICO) {
                return;
            }
            assert!(refusals < 20 && said.ends_with("No such device <SCD>\n"), "{said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Has it do something, and waits for text that it has not printed before.
    fn ask(&mut self, world: &World, command: &str, answer: &str) {
        self.input.write_all(format!("{command}\n").as_bytes()).unwrap();
        wait_printed(world, &self.program, answer, 1);
    }
}

const YUBICO: &str = "D2760001240103040006123456780000";

fn openpgp() -> (AppletCard, Pins) {
    let card = AppletCard::load("tests/cards/openpgp-yubico.toml").unwrap();
    let pins = card.pins();
    (card, pins)
}

#[test]
fn pin_verified_by_scdaemon_survives_probe() {
    let mut world = require!(ifd()).without_daemon().start().unwrap();
    let mut scdaemon = require!(Scdaemon::start(&world, "pcsc-shared"));
    let (card, pins) = openpgp();
    let card = world.insert(0, card).unwrap();
    wait_powered(&card);
    scdaemon.open_card(&world);
    scdaemon.ask(&world, &format!("CHECKPIN {YUBICO}"), "INQUIRE NEEDPIN");
    scdaemon.ask(&world, "D 123456%00\nEND", "OK\n");
    let verified = || pins.is_verified("openpgp");
    world.wait_until("the PIN to be verified", LONG, verified).unwrap();
    let before = card.apdus().len();
    world.start_daemon().unwrap();
    let known_in_part = || {
        card_in(&world, 0)["identity"]["partial"] == true
            && daemon_status(&world)["outbox"]["waiting"] == 1
    };
    world.wait_until("the card to be known in part", LONG, known_in_part).unwrap();
    let status = world.cli(&["status"]).unwrap().stdout;
    assert!(status.contains("read in part"), "{status}");
    assert_eq!(world.outcomes().unwrap(), [""; 0], "another id of it may be the one that CM knows");
    assert!(card.apdus().len() > before, "the daemon read it");
    assert!(pins.is_verified("openpgp"), "and left the session alone");
    assert_eq!(card.state().resets, 0);
    scdaemon.ask(&world, "GETATTR SERIALNO\nGETINFO version", "D 2.");
    drop(scdaemon);
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["superseded", "unknown-card"]);
    assert!(card_in(&world, 0)["identity"].get("partial").is_none(), "{}", daemon_status(&world));
    world.finish().unwrap();
}

/// CM knows the card by its GIDS id. Both programs use its other application, and the daemon ends in two ways
/// meanwhile.
#[test]
fn two_family_card_waits_for_other_programs() {
    let mut world = require!(ifd()).without_daemon().start().unwrap();
    let mut one = require!(Scdaemon::start(&world, "pcsc-shared"));
    let mut two = require!(Scdaemon::start(&world, "pcsc-shared"));
    let card = AppletCard::load("tests/cards/gids-openpgp.toml").unwrap();
    let card = world.insert(0, card).unwrap();
    wait_powered(&card);
    one.open_card(&world);
    two.open_card(&world);
    let wait_part = |world: &World| {
        let known = || {
            let identity = &card_in(world, 0)["identity"];
            identity["partial"] == true && daemon_status(world)["outbox"]["waiting"] == 1
        };
        world.wait_until("the card to be known in part", LONG, known).unwrap();
    };
    world.start_daemon().unwrap();
    wait_part(&world);
    let name = world.pcscd.reader_names()[0].clone();
    let said = world.cli(&["lookup", "--reader", &name, "--json"]).unwrap().json().unwrap();
    assert_eq!(said["identity"]["partial"], true, "{said}");
    assert_eq!(said["held_back"], true, "{said}");
    let said = world.cli(&["lookup", "--reader", &name]).unwrap().stdout;
    assert!(said.contains("would wait until the card is read in full"), "{said}");
    world.kill9_daemon().unwrap();
    world.start_daemon().unwrap();
    wait_part(&world);
    drop(one);
    world.stop_daemon().unwrap();
    world.start_daemon().unwrap();
    wait_part(&world);
    assert_eq!(world.cm.puts().len(), 0);
    drop(two);
    let updated = || world.outcomes().unwrap().last().is_some_and(|last| last == "updated");
    world.wait_until("the card to be worked on", LONG, updated).unwrap();
    let others = ["superseded", "not-identified", "updated"];
    let outcomes = world.outcomes().unwrap();
    assert!(outcomes.iter().all(|outcome| others.contains(&outcome.as_str())), "{outcomes:?}");
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn scdaemon_finds_cards_before_and_after_probe() {
    let world = require!(ifd()).start().unwrap();
    let (card, _pins) = openpgp();
    let mut card = world.insert(0, card).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["unknown-card"]);
    let mut scdaemon = require!(Scdaemon::start(&world, "pcsc-shared"));
    scdaemon.open_card(&world);
    card.eject();
    wait_card(&world, 0, "empty");
    let (card, _pins) = openpgp();
    let _again = world.insert(0, card).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["unknown-card", "unknown-card"]);
    assert!(scdaemon.program.runs());
    world.finish().unwrap();
}

#[test]
fn exclusive_scdaemon_is_reported_with_remedy() {
    let mut world = require!(ifd()).without_daemon().start().unwrap();
    let mut scdaemon = require!(Scdaemon::start(&world, ""));
    let (card, _pins) = openpgp();
    let card = world.insert(0, card).unwrap();
    wait_powered(&card);
    scdaemon.open_card(&world);
    let before = card.apdus().len();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "in-use", "{line}");
    assert!(line["detail"].as_str().unwrap().contains("pcsc-shared"), "{line}");
    assert_eq!(card.apdus().len(), before, "it was not touched");
    world.finish().unwrap();
}
