//! Ids that more than one card can carry decide nothing: the card whose record it is not remains as it
//! is in CM, whatever is requested.

use std::path::PathBuf;

use cardbridge_harness::cards::load;
use serde_json::Value;

use super::*;

/// A card of this ATR and these tables.
fn card(
    world: &World,
    name: &str,
    atr: &str,
    tables: &str,
) -> Box<dyn cardbridge_harness::cards::Card> {
    let file: PathBuf = world.dir().join(name);
    std::fs::write(&file, format!("atr = \"{atr}\"\n{tables}\n")).unwrap();
    load(file).unwrap()
}

const PLAIN: &str = "3b800181";
const OTHER_ATR: &str = "3bda18ff81b1fe751f030031f573c001600090001c";

fn openpgp(manufacturer: &str, serial: &str) -> String {
    format!(
        "[openpgp]\nversion = \"0304\"\nmanufacturer = \"{manufacturer}\"\nserial = \"{serial}\""
    )
}

fn pkcs15(serial: &str) -> String {
    format!("default_selected = \"pkcs15\"\n[pkcs15]\nserial = \"{serial}\"\nlabel = \"CARD\"")
}

fn piv(fascn: &str, guid: &str) -> String {
    format!("[piv]\nfascn = \"{fascn}\"\nguid = \"{guid}\"")
}

/// A CM that has a record under this id, with this ATR, which an approved request wants retired.
fn cm_with(id: &str, atr: &str) -> CmOptions {
    let mut record = Record::of_card(id.parse().unwrap());
    atr.clone_into(&mut record.atr);
    let request = Request::approved(RETIRE, &record);
    let mut store = Store::seed();
    store.records = vec![record];
    store.requests = vec![request];
    CmOptions { store, ..CmOptions::default() }
}

/// What becomes of a card, and the audit line of it.
fn outcome(
    id: &str,
    record_atr: &str,
    atr: &str,
    tables: &str,
    extra: &str,
) -> Result<Value, String> {
    let world = world()?;
    let world = world.cm(cm_with(id, record_atr)).config_extra(extra).start().unwrap();
    let _card = world.insert(0, card(&world, "card.toml", atr, tables)).unwrap();
    let outcomes = world.wait_for_outcomes(1, LONG).unwrap();
    let line = world.audit().unwrap()[0].clone();
    assert_eq!(world.cm.puts().len(), usize::from(outcomes == ["updated"]), "{line}");
    world.finish().unwrap();
    Ok(line)
}

/// FASC-N 9999-9999-999999 as older tools wrote it, and the id that it makes.
const CONSTANT: &str = "d4e739da739ced39ce739d836858210842108421384210c3f5";
const ID_OF_CONSTANT: &str = "da39e7d4-9c73-39ed-ce73-9d8368582108";
const GUID: &str = "a04f5343731001f9aa6e34537bee6fc1";

#[test]
fn shared_id_parks_entry_without_update() {
    for (id, atr, tables) in [
        (ID_OF_CONSTANT, PLAIN, piv(CONSTANT, GUID)),
        // Manufacturer 0000, serial number 00000001.
        ("00000000-0100-0000-0000-000100000000", OTHER_ATR, openpgp("0000", "00000001")),
        ("0000ffff-0100-ffff-0000-0001ffff0000", PLAIN, openpgp("ffff", "00000001")),
        // 1234, repeated; and twenty bytes, cut.
        ("34123412-3412-3412-1234-123412341234", PLAIN, pkcs15("1234")),
        (
            "494c5353-3d0a-9b7f-1102-a7c4e6f80911",
            PLAIN,
            pkcs15("53534c490a3d7f9b1102a7c4e6f8091122334401"),
        ),
    ] {
        let line = require!(outcome(id, atr, atr, &tables, ""));
        assert_eq!(line["outcome"], "parked", "{id}: {line}");
        assert_eq!(line["reason"], "shared-id", "{id}: {line}");
        assert!(line["detail"].as_str().unwrap().contains(id), "{line}");
        assert_eq!((&line["card_id"], &line["id_strength"]), (&id.into(), &"shared".into()));
    }
}

#[test]
fn serial_number_needs_matching_atr() {
    let id = "34120600-7856-0600-1234-567800061234";
    for (record_atr, outcome_of) in [(PLAIN, "updated"), (OTHER_ATR, "parked"), ("", "parked")] {
        let line = require!(outcome(id, record_atr, PLAIN, &openpgp("0006", "12345678"), ""));
        assert_eq!(line["outcome"], outcome_of, "{line}");
        if outcome_of == "parked" {
            assert_eq!(line["reason"], "atr-mismatch", "{line}");
        }
        assert_eq!((&line["card_id"], &line["id_strength"]), (&id.into(), &"serial".into()));
    }
}

#[test]
fn pinned_id_acts_unless_placeholder() {
    let pin = |rule: &str| format!("[[card]]\nmatch = \"{PLAIN}\"\nid_rule = \"{rule}\"\n");
    let unmanaged = "ff52feff-066f-feff-52ff-6f06fffe52ff";
    let tables = openpgp("fffe", "52ff6f06");
    let line = require!(outcome(unmanaged, OTHER_ATR, PLAIN, &tables, &pin("openpgp-opensc")));
    assert_eq!(line["outcome"], "updated", "{line}");
    assert_eq!((&line["id_strength"], &line["id_pinned"]), (&"shared".into(), &true.into()));
    let tables = piv(CONSTANT, GUID);
    let line = require!(outcome(ID_OF_CONSTANT, PLAIN, PLAIN, &tables, &pin("piv-fascn")));
    assert_eq!((&line["outcome"], &line["reason"]), (&"parked".into(), &"shared-id".into()));
}

#[test]
fn cards_with_shared_id_do_not_supersede_each_other() {
    let id = "0000ffff-0100-ffff-0000-0001ffff0000";
    let world = require!(world()).cm(cm_with(id, PLAIN)).start().unwrap();
    let tables = openpgp("ffff", "00000001");
    let _one = world.insert(0, card(&world, "one.toml", PLAIN, &tables)).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let _other = world.insert(1, card(&world, "other.toml", OTHER_ATR, &tables)).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["parked", "parked"]);
    let waiting = world.cli(&["outbox", "list", "--json"]).unwrap().json().unwrap();
    assert_eq!(waiting.as_array().unwrap().len(), 2, "{waiting}");
    assert_eq!(world.cm.puts().len(), 0);
    world.finish().unwrap();
}

#[test]
fn read_shows_id_strength_and_recommends_unique_ids() {
    let world =
        require!(world()).cm(cm_with(ID_OF_CONSTANT, PLAIN)).without_daemon().start().unwrap();
    let _card = world.insert(0, card(&world, "card.toml", PLAIN, &piv(CONSTANT, GUID))).unwrap();
    let name = world.pcscd.reader_names()[0].clone();
    let mut text = String::new();
    let is_read = || {
        text = world.cli(&["read", "--reader", &name]).unwrap().stdout;
        text.contains("piv-fascn (shared)")
    };
    world.wait_until("the card", LONG, is_read).unwrap();
    assert!(text.contains("an id that several cards can have"), "{text}");
    assert!(!text.contains("to pin it"), "{text}");
    let said = world.cli(&["lookup", "--reader", &name, "--json"]).unwrap().json().unwrap();
    assert_eq!(said["on_insertion"]["reason"], "shared-id", "{said}");
    assert_eq!(said["matched"]["strength"], "shared", "{said}");
    world.finish().unwrap();
}

#[test]
fn log_of_parked_entry_has_no_hidden_id() {
    let world = require!(world()).cm(cm_with(ID_OF_CONSTANT, PLAIN));
    let world = world
        .config_set("log.show_ids", "false")
        .config_set("log.level", "\"trace\"")
        .start()
        .unwrap();
    let _card = world.insert(0, card(&world, "card.toml", PLAIN, &piv(CONSTANT, GUID))).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["parked"]);
    let log = world.daemon_log();
    assert!(log.contains("more than one card can carry"), "{log}");
    for id in [ID_OF_CONSTANT, "43534fa0-1073-f901-aa6e-34537bee6fc1", GUID, CONSTANT] {
        assert!(!log.contains(id), "{id} in {log}");
    }
    world.finish().unwrap();
}
