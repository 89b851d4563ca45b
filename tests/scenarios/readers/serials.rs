//! Readers that the configuration names by what their drivers report: serial number and vendor.

use cardbridge_harness::pcscd::Trouble;

use super::*;

const SHARING_VIOLATION: u32 = 0x8010_000B;

const RULES: &str = r#"
[[reader]]
match = "serial:R01"
label = "Front desk"
role = "returns"
[[reader]]
match = "serial:R02"
enabled = false
[[reader]]
match = "vendor:card*"
label = "Elsewhere"
"#;

/// What `cardbridge status` shows of a reader, apart from the card.
fn reader(world: &World, reader: usize) -> Value {
    let name = &world.pcscd.reader_names()[reader];
    let status = daemon_status(world);
    let readers = status["readers"].as_array().unwrap();
    readers.iter().find(|view| view["reader"] == name.as_str()).unwrap().clone()
}

#[test]
fn present_cards_use_settings_by_serial_number() {
    let mut world = require!(ifd())
        .readers(3)
        .cm(cm_with(&[OTHER]))
        .config_extra(RULES)
        .without_daemon()
        .start()
        .unwrap();
    let _desk = world.insert(1, GidsCard::seed()).unwrap();
    let off = world.insert(2, other()).unwrap();
    // pcscd counts nothing for a card that was there before it.
    world.pcscd.restart().unwrap();
    wait_powered(&off);
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(column(&world, "label"), ["Front desk"]);
    let card = wait_card(&world, 2, "not-identified");
    assert_eq!(card["error"]["reason"], "skipped");

    let desk = reader(&world, 1);
    assert_eq!(desk["settings"]["role"], "returns", "{desk}");
    assert_eq!(desk["attributes"]["vendor"], "cardbridge", "{desk}");
    assert_eq!(desk["attributes"]["serial"], "R01", "{desk}");
    let text = world.cli(&["status"]).unwrap().stdout;
    assert!(text.contains("by cardbridge") && text.contains("serial R02"), "{text}");
    let check = world.cli(&["check"]).unwrap().stdout;
    assert!(check.contains("by cardbridge (serial R01) with a card;"), "{check}");
    assert!(check.contains("(serial R02) with a card, disabled"), "{check}");
    assert_eq!(off.apdus(), [], "it was not touched");
    assert_eq!(off.state().resets, 0);
    world.finish().unwrap();
}

#[test]
fn later_cards_use_settings_by_serial_number() {
    let world =
        require!(ifd()).readers(3).cm(cm_with(&[OTHER])).config_extra(RULES).start().unwrap();
    wait_described(&world, 3);
    let off = world.insert(2, other()).unwrap();
    let card = wait_card(&world, 2, "not-identified");
    assert_eq!(card["error"]["reason"], "skipped");
    let _desk = world.insert(1, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let _elsewhere = world.insert(0, GidsCard::new(cardid(&ids(1)[0]))).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "unknown-card"]);
    assert_eq!(column(&world, "label"), ["Front desk", "Elsewhere"]);
    assert_eq!(off.apdus(), [], "it was not touched");
    assert_eq!((off.state().connected, off.state().power_ups), (None, 1), "nor connected to");
    world.finish().unwrap();
}

#[test]
fn card_waits_until_reader_attributes_are_read() {
    let rule = "[[reader]]\nmatch = \"serial:R01\"\nenabled = false";
    let mut world = require!(relayed()).config_extra(rule).without_daemon().start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    let busy = Trouble::answer(SHARING_VIOLATION).on(Request::Connect);
    world.pcscd.relay().unwrap().make(busy);
    world.start_daemon().unwrap();
    let view = wait_card(&world, 0, "not-identified");
    assert!(view["error"]["detail"].as_str().unwrap().contains("driver did not report"), "{view}");
    assert_eq!(card.apdus(), [], "it was not touched");
    // The rule is for another reader.
    world.pcscd.relay().unwrap().clear_troubles();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    world.finish().unwrap();
}
