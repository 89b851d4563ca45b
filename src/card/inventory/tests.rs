//! What cards say besides their identity.

use super::super::Protocol;
use super::super::tests::script::Script;
use super::*;

const YUBIKEY: &str = "3bfd1300008131fe158073c021c057597562694b657940";
const PLAIN: &str = "3b8d0180fba000000397425446590301c8";
const CONTACTLESS: &str = "3b8d80018073c021c057597562694b6579f9";
const MANAGEMENT: &str = "00a4040008a00000052747111700";
const CARD_MANAGER_SELECT: &str = "00a4040008a00000015100000000";

fn taken(card: &mut Script, atr: &str, family: Option<Family>) -> Inventory {
    let atr: Atr = atr.parse().unwrap();
    let mut inventory = Inventory::default();
    read_from_reader(card, &atr, &mut inventory).unwrap();
    read_from_card(card, (&atr, family), &mut inventory).unwrap();
    inventory
}

fn card() -> Script {
    Script::new(Protocol::T1)
}

#[test]
fn yubikey_serial_is_read_from_piv() {
    let mut key = card().on("00f8000000", "009e2a7b9000");
    let inventory = taken(&mut key, YUBIKEY, Some(Family::Piv));
    assert_eq!(inventory.get(InventoryNumber::YubikeySerial), Some("10365563"));
    assert!(!key.sent().contains(&MANAGEMENT.to_owned()));
}

#[test]
fn older_yubikey_serial_is_read_from_management() {
    let mut key =
        card().on(MANAGEMENT, "9000").on("001d000000", "0c0102023f0204009e2a7b0301029000");
    let serial = Some("10365563");
    assert_eq!(
        taken(&mut key, YUBIKEY, Some(Family::Piv)).get(InventoryNumber::YubikeySerial),
        serial
    );
    assert_eq!(
        taken(&mut key, YUBIKEY, Some(Family::Openpgp)).get(InventoryNumber::YubikeySerial),
        serial
    );
    for information in ["9000", "059000", "0602030102039000", "0402040102 9000"] {
        let mut odd = card().on(MANAGEMENT, "9000").on("001d000000", information);
        assert_eq!(
            taken(&mut odd, YUBIKEY, None).get(InventoryNumber::YubikeySerial),
            None,
            "{information}"
        );
    }
}

#[test]
fn other_cards_get_no_yubikey_commands() {
    let mut other = card();
    taken(&mut other, PLAIN, Some(Family::Piv));
    assert!(!other.sent().iter().any(|sent| sent.starts_with("00f8") || sent == MANAGEMENT));
}

#[test]
fn uid_is_read_only_from_contactless_readers() {
    let uid = || card().on("ffca000000", "04a1b2c3d4e5f69000");
    let contactless = taken(&mut uid(), CONTACTLESS, None);
    assert_eq!(contactless.get(InventoryNumber::ContactlessUid), Some("04a1b2c3d4e5f6"));
    let mut contact = uid();
    assert_eq!(taken(&mut contact, YUBIKEY, None).get(InventoryNumber::ContactlessUid), None);
    assert!(!contact.sent().iter().any(|sent| sent.starts_with("ff")));
}

#[test]
fn iccsn_has_no_padding() {
    let gdo = || {
        card()
            .on("00a40800022f0200", "9000")
            .on("00b0000000", "5a0a925000201010250001 3f5f2003414243 9000")
    };
    for family in [Some(Family::Pkcs15), None] {
        let inventory = taken(&mut gdo(), PLAIN, family);
        assert_eq!(inventory.get(InventoryNumber::Iccsn), Some("9250002010102500013"));
    }
    assert_eq!(taken(&mut gdo(), PLAIN, Some(Family::Gids)).get(InventoryNumber::Iccsn), None);
}

#[test]
fn cplc_has_42_bytes() {
    let data = "42503272129161810700803901 06c2bb1d3c".replace(' ', "") + &"00".repeat(24);
    let manager =
        |answer: &str| card().on(CARD_MANAGER_SELECT, "6f009000").on("80ca9f7f00", answer);
    let cplc = |answer: &str| {
        taken(&mut manager(answer), PLAIN, Some(Family::Gids))
            .get(InventoryNumber::Cplc)
            .map(str::to_owned)
    };
    assert_eq!(cplc(&format!("9f7f2a{data}9000")), Some(data.clone()));
    assert_eq!(cplc(&format!("{data}9000")), Some(data.clone()));
    for answer in ["6a88", "9000", &format!("9f7f29{}9000", "00".repeat(41))] {
        assert_eq!(cplc(answer), None, "{answer}");
    }
}

#[test]
fn hidden_yubikey_serial_is_left_out() {
    let mut key = card().on("00f8000000", "000000009000");
    assert_eq!(
        taken(&mut key, YUBIKEY, Some(Family::Piv)).get(InventoryNumber::YubikeySerial),
        None
    );
}

#[test]
fn inventory_returns_whether_selection_changed() {
    let atr: Atr = PLAIN.parse().unwrap();
    let moved = |mut card: Script| {
        read_from_card(&mut card, (&atr, Some(Family::Gids)), &mut Inventory::default()).unwrap()
    };
    assert!(!moved(card()));
    assert!(moved(card().on(CARD_MANAGER_SELECT, "9000")));
}
