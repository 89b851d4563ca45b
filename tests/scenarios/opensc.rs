//! Programs that we did not write, on the very card that the agent has read.

use cardbridge_harness::cards::GidsCard;
use serde_json::Value;

use super::readers::{has_opensc, opensc};
use super::*;

/// What OpenSC says of the card in a reader.
fn judged(world: &World, reader: usize, question: &str) -> String {
    let output = opensc(world, reader, "app default {}", &[question]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "opensc-tool {question}: {text}{trouble}");
    text
}

/// The bytes in `3F F1 88 …  ?...` or `3f:f1:88:…`, line by line, without their text.
pub(super) fn bytes(dump: &str) -> String {
    let lines = dump.lines().map(|line| line.split("   ").next().unwrap_or(line));
    let digits = lines.flat_map(|line| line.split([' ', ':']).filter(|byte| byte.len() == 2));
    digits.filter(|byte| hex::decode(byte).is_ok()).collect::<String>().to_lowercase()
}

fn read(world: &World, reader: usize) -> Value {
    let name = &world.pcscd.reader_names()[reader];
    world.cli(&["read", "--reader", name, "--json"]).unwrap().json().unwrap()
}

/// OpenSC and the agent say the same of the card in this reader.
fn agree(world: &World, reader: usize) {
    let ours = read(world, reader);
    assert_eq!(ours["identity"]["family"], "gids", "{ours}");
    assert_eq!(judged(world, reader, "--name").trim(), "GIDS Smart Card");
    assert_eq!(bytes(&judged(world, reader, "--serial")), ours["identity"]["serial"]);
    assert_eq!(bytes(&judged(world, reader, "--atr")), ours["atr"]);
}

#[test]
fn opensc_names_the_card_as_the_agent_does() {
    let world = require!(world());
    require!(has_opensc());
    let world = world.readers(4).without_daemon().start().unwrap();
    let other = hex::decode("3b8d0180fba000000397425446590401cf").unwrap();
    let _cards = [
        world.insert(0, GidsCard::seed()).unwrap(),
        world.insert(1, GidsCard::new([0x5a; 16])).unwrap(),
        world.insert(2, GidsCard::seed().with_more_files(12)).unwrap(),
        world.insert(3, GidsCard::new(*b"0123456789abcdef").with_atr(other)).unwrap(),
    ];
    for reader in 0..4 {
        let there =
            || world.cli(&["read", "--reader", &world.pcscd.reader_names()[reader]]).unwrap();
        world.wait_until("the card", LONG, || there().code == Some(0)).unwrap();
        agree(&world, reader);
    }
    world.finish().unwrap();
}

#[test]
fn opensc_and_daemon_work_side_by_side() {
    let world = require!(world());
    require!(has_opensc());
    let world = world.start().unwrap();
    for insertion in 1..=3 {
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        // While the daemon reads it, as likely as not.
        card.slow(Duration::from_millis(20));
        card.wait_for("the first command", LONG, |state| !state.exchanges.is_empty()).unwrap();
        agree(&world, 0);
        world.wait_for_outcomes(insertion, LONG).unwrap();
        agree(&world, 0);
        card.eject();
        let removed = || world.daemon_log().matches("Card removed").count() == insertion;
        world.wait_until("the removal", LONG, removed).unwrap();
    }
    let outcomes = world.outcomes().unwrap();
    assert_eq!(outcomes, ["updated", "already-set", "already-set"]);
    let audit = world.audit().unwrap();
    let serial = hex::encode(cardid(CARD));
    assert!(audit.iter().all(|line| line["serial"] == serial.as_str()), "{audit:?}");
    world.finish().unwrap();
}
