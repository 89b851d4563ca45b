//! What the configuration makes of readers and cards.

use super::*;

const SEED_ATR: &str = "3b8d0180fba000000397425446590301c8";

#[test]
fn skipped_atr_is_never_touched() {
    let mut world = require!(world())
        .cm(cm_with(&[OTHER]))
        .config_set("cards.skip_atr", "[\"3b8d01??fba000000397425446590301c8\"]")
        .start()
        .unwrap();
    let skipped = world.insert(0, GidsCard::seed()).unwrap();
    let card = wait_card(&world, 0, "not-identified");
    assert_eq!((&card["atr"], &card["error"]["reason"]), (&SEED_ATR.into(), &"skipped".into()));
    let others_atr = hex::decode("3b8d0180fba000000397425446590401cf").unwrap();
    let _other = world.insert(1, other().with_atr(others_atr)).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.kill9_daemon().unwrap();
    world.start_daemon().unwrap();
    wait_card(&world, 0, "not-identified");
    wait_idle(&world, 1);
    assert_eq!(skipped.apdus(), [], "it was not touched");
    assert_eq!(column(&world, "card_id"), [OTHER]);
    world.finish().unwrap();
}

#[test]
fn card_in_disabled_reader_is_never_touched() {
    let world = require!(world())
        .cm(cm_with(&[OTHER]))
        .config_extra("[[reader]]\nmatch = \"* 00 01\"\nenabled = false")
        .start()
        .unwrap();
    let off = world.insert(1, GidsCard::seed()).unwrap();
    let card = wait_card(&world, 1, "not-identified");
    assert_eq!(card["error"]["reason"], "skipped");
    let _other = world.insert(0, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(off.apdus(), [], "it was not touched");
    assert_eq!(column(&world, "card_id"), [OTHER]);
    assert_eq!(status(&world), ACTIVE);
    world.finish().unwrap();
}

#[test]
fn reader_glob_ignores_case() {
    let world = require!(world());
    let rules = "[[reader]]\nmatch = \"*virtual PCD 1 00 00*\"\nlabel = \"Left\"\n\
                 [[reader]]\nmatch = \"*\"\nenabled = false";
    let world = world.config_extra(rules).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let _off = world.insert(1, other()).unwrap();
    wait_card(&world, 1, "not-identified");
    let status = world.cli(&["status"]).unwrap().stdout;
    assert!(status.contains("Virtual PCD 1 00 01: disabled, with a card"), "{status}");
    assert_eq!(status.matches(": disabled").count(), 1, "{status}");
    world.finish().unwrap();
}

/// pcscd 1.9.9 at times gives the length of its buffer instead of the ATR's.
#[test]
fn atr_is_cut_from_longer_buffer() {
    let world = require!(world()).config_set("cards.atr_mismatch", "\"refuse\"").start().unwrap();
    let mut buffer = hex::decode(SEED_ATR).unwrap();
    buffer.resize(33, 0);
    let _card = world.insert(0, GidsCard::seed().with_atr(buffer)).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(wait_card(&world, 0, "identified")["atr"], SEED_ATR);
    assert_eq!(column(&world, "atr"), [SEED_ATR]);
    let read = world.cli(&["read", "--reader", &world.pcscd.reader_names()[0], "--json"]).unwrap();
    let read = read.json().unwrap();
    assert_eq!(
        (&read["atr"], &read["atr_decoded"]["anomalies"]),
        (&SEED_ATR.into(), &Value::Array(vec![]))
    );
    world.finish().unwrap();
}

#[test]
fn reader_label_and_role_reach_audit_and_rules() {
    let rule = |name: &str, role: &str, set: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nrequest_type = [\"Retire\"]\nset_status = \"{set}\"\n\
             reader_role = [\"{role}\"]\n"
        )
    };
    let text = [
        "[[reader]]\nmatch = \"*1 00 00\"\nlabel = \"Desk A\"\nrole = \"returns\"\n".to_owned(),
        "[[reader]]\nmatch = \"*1 00 01\"\nlabel = \"Desk B\"\nrole = \"lost+found\"\n".to_owned(),
        rule("retire-returns", "returns", "Retired"),
        rule("disable-lost", "lost+found", "Disabled"),
    ];
    let third = "b81f62d9-40ae-4c17-93f5-0d6e72a9c35b";
    let world = require!(world())
        .readers(4)
        .cm(cm_with(&[OTHER, third]))
        .config_extra(&text.concat())
        .start()
        .unwrap();
    let in_order = [GidsCard::seed(), other(), GidsCard::new(cardid(third))];
    let mut inserted = Vec::new();
    for (reader, card) in in_order.into_iter().enumerate() {
        inserted.push(world.insert(reader, card).unwrap());
        world.wait_for_outcomes(reader + 1, LONG).unwrap();
    }
    assert_eq!(world.outcomes().unwrap(), ["updated", "updated", "nothing-to-do"]);
    assert_eq!(column(&world, "label"), ["Desk A", "Desk B", "Virtual PCD 2 00 00"]);
    assert_eq!(column(&world, "rule"), ["retire-returns", "disable-lost", ""]);
    assert_eq!(column(&world, "new_status_name"), ["Retired", "Disabled", ""]);
    let view = &daemon_status(&world)["readers"][0];
    assert_eq!(
        (&view["settings"]["label"], &view["settings"]["role"]),
        (&"Desk A".into(), &"returns".into())
    );
    world.finish().unwrap();
}

#[test]
fn scan_touches_no_excluded_card() {
    let world = require!(world())
        .without_daemon()
        .config_set("cards.skip_atr", "[\"3b8d0180fba000000397425446590301??\"]")
        .config_extra("[[reader]]\nmatch = \"* 00 01\"\nenabled = false")
        .start()
        .unwrap();
    let others_atr = hex::decode("3b8d0180fba000000397425446590401cf").unwrap();
    let skipped = world.insert(0, GidsCard::seed()).unwrap();
    let off = world.insert(1, other().with_atr(others_atr)).unwrap();
    wait_powered(&skipped);
    wait_powered(&off);
    let seen = || world.cli(&["scan", "--once", "--json"]).unwrap().stdout;
    let both = || seen().matches(r#""reason":"skipped""#).count() == 2;
    world.wait_until("both to be reported as skipped", LONG, both).unwrap();
    for reader in world.pcscd.reader_names() {
        let read = world.cli(&["read", "--reader", &reader, "--json", "--trace"]).unwrap();
        let said = read.json().unwrap();
        assert_eq!(said["not_identified"]["reason"], "skipped", "{said}");
        assert_eq!(said["trace"], serde_json::json!([]));
    }
    assert_eq!((skipped.apdus(), off.apdus()), (vec![], vec![]), "they were not touched");
    world.finish().unwrap();
}

#[test]
fn hidden_ids_are_in_no_log_line() {
    let world = require!(world())
        .config_set("log.show_ids", "false")
        .config_set("log.level", "\"trace\"")
        .start()
        .unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let log = world.daemon_log();
    let serial = hex::encode(cardid(CARD));
    for id in [CARD, RECORD, REQUEST, serial.as_str()] {
        assert!(!log.contains(id), "{id} in {log}");
    }
    assert!(log.contains("bc88f13f…"), "shortened: {log}");
    world.finish().unwrap();
}
