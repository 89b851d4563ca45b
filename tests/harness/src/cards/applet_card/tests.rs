use std::path::PathBuf;

use super::*;

const PIV: &str = "00A4040009A0000003080000100000";
const OPENPGP: &str = "00A4040006D2760001240100";
const ABSENT: &str = "00A4040007A000000000000100";
const CHUID: &str = "00CB3FFF055C035FC10200";
const PIV_PIN: &str = "0020008008313233343536FFFF";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../cards").join(name)
}

fn card(name: &str) -> AppletCard {
    let mut card = AppletCard::load(file(name)).unwrap();
    card.power();
    card
}

fn ask(card: &mut AppletCard, apdu: &str) -> String {
    hex::encode_upper(card.command(&hex::decode(apdu).unwrap()))
}

fn with_pin(name: &str) -> (AppletCard, Pins) {
    let mut card = card(name);
    let pins = card.pins();
    assert!(ask(&mut card, PIV).ends_with("9000"));
    assert_eq!(ask(&mut card, PIV_PIN), "9000");
    assert!(pins.is_verified("piv"));
    (card, pins)
}

#[test]
fn failed_select_keeps_verified_pin() {
    let (mut card, pins) = with_pin("piv-openpgp.toml");
    assert_eq!(ask(&mut card, ABSENT), "6A82");
    assert!(ask(&mut card, CHUID).ends_with("9000"));
    assert!(pins.is_verified("piv"));
}

#[test]
fn select_or_reset_clears_verified_pin() {
    for lose in [OPENPGP, PIV] {
        let (mut card, pins) = with_pin("piv-openpgp.toml");
        assert!(ask(&mut card, lose).ends_with("9000"));
        assert!(!pins.is_verified("piv"), "{lose}");
    }
    let (mut card, pins) = with_pin("piv-openpgp.toml");
    card.power();
    assert!(!pins.is_verified("piv"));
}

#[test]
fn test_verifies_pin_from_outside() {
    let mut card = card("piv-openpgp.toml");
    let pins = card.pins();
    assert!(ask(&mut card, PIV).ends_with("9000"));
    pins.verify("piv");
    assert_eq!(ask(&mut card, "00200080"), "9000");
    assert_eq!(pins.tries_left("piv"), Some(3));
}

#[test]
fn unknown_aid_gets_configured_status() {
    for (name, expected) in [
        ("piv-openpgp.toml", "6A82"),
        ("unknown-aid-6999.toml", "6999"),
        ("unknown-aid-6d00.toml", "6D00"),
        ("unknown-aid-9000.toml", "9000"),
    ] {
        let mut card = card(name);
        assert!(ask(&mut card, PIV).ends_with("9000"));
        assert_eq!(ask(&mut card, ABSENT), expected, "{name}");
        assert!(ask(&mut card, CHUID).starts_with("53"), "{name}");
        assert_eq!(card.current(), Some("piv"));
    }
}

#[test]
fn reset_selects_only_configured_default_applet() {
    assert_eq!(ask(&mut card("piv-openpgp.toml"), CHUID), "6D00");
    assert!(ask(&mut card("piv-default-selected.toml"), CHUID).ends_with("9000"));
}

#[test]
fn bare_select_returns_no_data() {
    let mut card = card("piv-bare-select.toml");
    assert_eq!(ask(&mut card, PIV), "9000");
    assert!(ask(&mut card, CHUID).ends_with("9000"));
}

#[test]
fn only_card_manager_returns_cplc() {
    let mut card = card("multi-cplc.toml");
    assert!(ask(&mut card, "80CA9F7F00").starts_with("9F7F2A4250"));
    assert!(ask(&mut card, PIV).ends_with("9000"));
    assert_eq!(ask(&mut card, "80CA9F7F00"), "6E00");
    assert_eq!(ask(&mut card, "00A4040008A00000015100000000"), "6F0A8408A0000001510000009000");
    assert!(ask(&mut card, "80CA9F7F2D").starts_with("9F7F2A4250"));
    assert_eq!(card.current(), None);
}

#[test]
fn only_contactless_card_returns_uid() {
    assert_eq!(ask(&mut card("piv-contactless.toml"), "FFCA000000"), "04A1B2C3D4E5809000");
    assert_eq!(ask(&mut card("piv-openpgp.toml"), "FFCA000000"), "6E00");
}

#[test]
fn a_signed_chuid_chains() {
    let mut card = card("piv-signed-chuid.toml");
    ask(&mut card, PIV);
    let first = ask(&mut card, CHUID);
    assert!(first.starts_with("5382") && first.len() == 2 * 258, "{first}");
    let mut last = first;
    while let [.., six, one, high, low] = last.as_bytes()
        && (six, one) == (&b'6', &b'1')
    {
        let count = String::from_utf8(vec![*high, *low]).unwrap();
        last = ask(&mut card, &format!("00C00000{count}"));
    }
    assert!(last.ends_with("FE009000"), "{last}");
}

#[test]
fn on_t0_a_select_is_answered_on_request() {
    let mut card = card("idprime-930.toml");
    let first = ask(&mut card, "00A404000BA000000018800000000662");
    assert_eq!(first, "610F");
    assert_eq!(ask(&mut card, "00C0000000"), "6C0F");
    assert_eq!(ask(&mut card, "00C000000F"), "6F0D840BA0000000188000000006629000");
    assert!(ask(&mut card, "00A40000020201").starts_with("61"));
    assert!(ask(&mut card, "00B0000010").ends_with("9000"));
    assert_eq!(ask(&mut card, "00B0000000"), "6C10");
}

#[test]
fn terminated_openpgp_card_returns_its_status() {
    let mut card = card("openpgp-terminated.toml");
    assert_eq!(ask(&mut card, OPENPGP), "6285");
    assert_eq!(ask(&mut card, "00CA004F00"), "6285");
}
