use super::*;

const SELECT: &str = "00A4040009A0000003974254465900";
const TABLE: &str = "00CBA000045C02DF1F00";
const CARDID: &str = "00CBA012045C02DF2000";

fn ask(card: &mut GidsCard, apdu: &str) -> String {
    hex::encode_upper(card.command(&hex::decode(apdu).unwrap()))
}

fn selected(mut card: GidsCard) -> GidsCard {
    card.power();
    let answer = ask(&mut card, SELECT);
    assert_eq!(answer, "61124F0BA000000397425446590201730340 01C09000".replace(' ', ""));
    card
}

#[test]
fn the_table_and_the_cardid_are_read_without_a_pin() {
    let mut card = selected(GidsCard::seed());
    let table = ask(&mut card, TABLE);
    assert_eq!(table.len(), 2 * (4 + 141 + 2));
    assert!(table.starts_with("DF1F818D016D736370"));
    let cardid = ask(&mut card, CARDID);
    assert_eq!(cardid, "DF20103FF188BCBA833740826246EBA1291C6E9000");
}

#[test]
fn a_small_le_chains() {
    let mut card = selected(GidsCard::seed());
    assert!(ask(&mut card, "00CBA000045C02DF1F10").ends_with("6181"));
    assert!(ask(&mut card, "00C0000000").ends_with("9000"));
    let first = ask(&mut card, "00CBA012045C02DF2008");
    assert_eq!(first, "DF20103FF188BCBA610B");
    assert_eq!(ask(&mut card, "00C000000B"), "833740826246EBA1291C6E9000");
}

#[test]
fn a_long_table_chains_at_256_bytes() {
    let mut card = selected(GidsCard::seed().with_more_files(9));
    let first = ask(&mut card, TABLE);
    // 5 + 1 + 14 rows of 28 bytes: 398, of which 142 are left.
    assert!(first.starts_with("DF1F82018901"));
    assert_eq!((first.len(), first.ends_with("618E")), (2 * 258, true));
    assert_eq!(ask(&mut card, "00C000008E").len(), 2 * (142 + 2));
}

#[test]
fn missing_object_has_its_status_word() {
    let mut card = selected(GidsCard::seed());
    assert_eq!(ask(&mut card, "00CBA010045C02DF4400"), "6A88");
    assert_eq!(ask(&mut card, "00CBA015045C02DF2000"), "6A82");
    assert_eq!(ask(&mut card, "00CBA013045C02DF2000"), "6982");
    assert_eq!(ask(&mut card, "00CBA0120000045C02DF200000"), "6700");
    assert_eq!(
        ask(&mut card, "00A404000BA0000003974254465901 0100".replace(' ', "").as_str()),
        "6A82"
    );
    assert_eq!(ask(&mut card, "00CB3FFF045C027F7100"), "7F71069701039301039000");
}

#[test]
fn an_uninitialised_card_has_no_table() {
    let mut card = selected(GidsCard::uninitialised());
    assert_eq!(ask(&mut card, TABLE), "6A82");
}

#[test]
fn without_cardid_neither_row_nor_object_is_there() {
    let mut card = selected(GidsCard::without_cardid());
    assert!(!ask(&mut card, TABLE).contains(&hex::encode_upper("cardid")));
    assert_eq!(ask(&mut card, CARDID), "6A82");
}

#[test]
fn power_deselects() {
    let mut card = selected(GidsCard::seed());
    card.power();
    assert_eq!(ask(&mut card, TABLE), "6D00");
    let mut card = GidsCard::seed().selected_by_default();
    card.power();
    assert!(ask(&mut card, TABLE).ends_with("9000"));
}
