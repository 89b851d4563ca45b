//! Readers that the configuration names by what their drivers tell: serial number and vendor.

use super::*;

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

/// What `cardbridge status` tells of a reader, apart from the card.
fn reader(world: &World, reader: usize) -> Value {
    let name = &world.pcscd.reader_names()[reader];
    let told = told(world);
    let readers = told["readers"].as_array().unwrap();
    readers.iter().find(|view| view["reader"] == name.as_str()).unwrap().clone()
}

#[test]
fn cards_that_were_there_before_are_worked_on_under_what_the_serial_number_says() {
    let Some(world) = ifd() else { return };
    let mut world = world
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
    assert_eq!(card["why"]["reason"], "skipped");

    let desk = reader(&world, 1);
    assert_eq!(desk["place"]["role"], "returns", "{desk}");
    assert_eq!(desk["attributes"]["vendor"], "cardbridge", "{desk}");
    assert_eq!(desk["attributes"]["serial"], "R01", "{desk}");
    let text = world.cli(&["status"]).unwrap().stdout;
    assert!(text.contains("by cardbridge") && text.contains("serial R02"), "{text}");
    let check = world.cli(&["check"]).unwrap().stdout;
    assert!(check.contains("by cardbridge (serial R01) with a card;"), "{check}");
    assert!(check.contains("(serial R02) with a card, switched off"), "{check}");
    assert_eq!(off.apdus(), [], "it was not touched");
    assert_eq!(off.state().resets, 0);
    world.finish().unwrap();
}

#[test]
fn cards_that_come_later_are_worked_on_under_what_the_serial_number_says() {
    let Some(world) = ifd() else { return };
    let world = world.readers(3).cm(cm_with(&[OTHER])).config_extra(RULES).start().unwrap();
    wait_described(&world, 3);
    let off = world.insert(2, other()).unwrap();
    let card = wait_card(&world, 2, "not-identified");
    assert_eq!(card["why"]["reason"], "skipped");
    let _desk = world.insert(1, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let _elsewhere = world.insert(0, GidsCard::new(cardid(&ids(1)[0]))).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "unknown-card"]);
    assert_eq!(column(&world, "label"), ["Front desk", "Elsewhere"]);
    assert_eq!(off.apdus(), [], "it was not touched");
    assert_eq!((off.state().connected, off.state().power_ups), (None, 1), "nor connected to");
    world.finish().unwrap();
}
