//! OpenPGP cards as they should be, and as they should not.

use super::super::Protocol;
use super::super::tests::script::Script;
use super::*;
use crate::domain::Strength;

const SELECT: &str = "00a4040006d2760001240100";
const GET_AID: &str = "00ca004f00";

/// The card of the worked example: manufacturer 0006, serial 12345678.
fn card(selected: &str) -> Script {
    Script::new(Protocol::T1)
        .on(SELECT, selected)
        .on(GET_AID, "d27600012401030400061234567800009000")
}

fn id(reading: &CardReading) -> String {
    reading.candidates()[0].card_id.to_string()
}

#[test]
fn manufacturer_and_serial_make_opensc_id() {
    for selected in ["9000", "6f128410d27600012401030400061234567800009000"] {
        let reading = probe(&mut card(selected)).unwrap();
        assert_eq!(reading.serial.to_string(), "000612345678");
        assert_eq!(id(&reading), "34120600-7856-0600-1234-567800061234");
        assert_eq!(reading.candidates()[0].rule, IdRule::OpenpgpOpensc);
    }
}

#[test]
fn t0_select_has_no_le() {
    let mut card = Script::new(Protocol::T0)
        .on("00a4040006d27600012401", "9000")
        .on(GET_AID, "d276000124010200fffe52ff6f0600009000");
    assert_eq!(probe(&mut card).unwrap().serial.to_string(), "fffe52ff6f06");
}

#[test]
fn identifier_counts_with_tag_and_from_select() {
    let tagged = card("9000").on(GET_AID, "4f10d27600012401030400061234567800009000");
    let selected = card("6f128410d27600012401030400061234567800009000").on(GET_AID, "6a88");
    for mut card in [tagged, selected] {
        assert_eq!(probe(&mut card).unwrap().serial.to_string(), "000612345678");
    }
}

#[test]
fn other_application_identifier_is_other_family() {
    for aid in ["9000", "6a88", "d276000124029000", "d276000124010304000612345678009000"] {
        let mut card = card("9000").on(GET_AID, aid);
        assert!(matches!(probe(&mut card), Err(NoReading::OtherFamily(_))), "{aid}");
    }
}

/// The strength of the id of a card with this manufacturer and serial number, and whether the value
/// is a placeholder.
fn strength(manufacturer: &str, serial: &str) -> (Strength, bool) {
    let aid = format!("d27600012401 0304 {manufacturer} {serial} 0000 9000");
    let reading = probe(&mut card("9000").on(GET_AID, &aid)).unwrap();
    (reading.candidates()[0].strength, reading.ids[0].is_placeholder)
}

#[test]
fn only_registered_manufacturer_serial_counts() {
    for manufacturer in ["0005", "0006", "f517", "000f"] {
        assert_eq!(strength(manufacturer, "00000001"), (Strength::Serial, false), "{manufacturer}");
    }
    for manufacturer in ["ff00", "ff7f", "fffe", "afaf", "1234"] {
        assert_eq!(strength(manufacturer, "00000001"), (Strength::Shared, false), "{manufacturer}");
        assert_eq!(strength(manufacturer, "87654321"), (Strength::Shared, false), "{manufacturer}");
    }
}

#[test]
fn test_manufacturer_serial_is_placeholder() {
    for manufacturer in ["0000", "ffff"] {
        for serial in ["00000001", "87654321"] {
            assert_eq!(strength(manufacturer, serial), (Strength::Shared, true), "{manufacturer}");
        }
    }
}

#[test]
fn serial_of_one_character_is_placeholder() {
    for serial in ["00000000", "ffffffff", "11111111", "12121212", "20202020", "30303030"] {
        for manufacturer in ["0006", "afaf"] {
            assert_eq!(strength(manufacturer, serial), (Strength::Shared, true), "{serial}");
        }
    }
}

#[test]
fn terminated_card_is_reported() {
    for status in ["6285", "6283"] {
        let Err(NoReading::NoId(what)) = probe(&mut card(status)) else { panic!("{status}") };
        assert!(what.contains("terminated"), "{what}");
        let Err(NoReading::NoId(_)) = probe(&mut card("9000").on(GET_AID, status)) else {
            panic!("{status}")
        };
    }
}

#[test]
fn selected_application_is_read_without_select() {
    let mut card = card("6a82");
    assert_eq!(probe_selected(&mut card).unwrap().serial.to_string(), "000612345678");
    assert_eq!(card.sent(), [GET_AID]);
}

#[test]
fn registered_manufacturers_exclude_test_and_random_numbers() {
    assert!(MANUFACTURERS.is_sorted() && MANUFACTURERS.contains(&0x0006));
    for number in [0x0000, 0xFF00, 0xFF7F, 0xFFFE, 0xFFFF, 0xAFAF, 0x1234] {
        assert!(!MANUFACTURERS.contains(&number), "{number:04x}");
    }
}
