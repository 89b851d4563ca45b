use super::super::apdu::{NOT_FOUND, OK, WRONG_OFFSET};
use super::*;

fn idprime(personal: &str) -> IdPrime {
    let mut applet = toml::from_str::<Personal>(personal).unwrap().applet();
    assert_eq!(applet.select(&AID).status, OK);
    applet
}

fn ask(applet: &mut impl Applet, apdu: &str) -> (String, u16) {
    let apdu = hex::decode(apdu).unwrap();
    let answer = applet.command(&Command::parse(&apdu).unwrap());
    (hex::encode_upper(&answer.data), answer.status)
}

fn index(card: &mut IdPrime) -> String {
    assert_eq!(ask(card, "00A40000020101").1, OK);
    ask(card, "00B0000000").0
}

#[test]
fn the_cardid_is_in_the_index_and_in_its_file() {
    let mut card = idprime("cardid = '3FF188BCBA833740826246EBA1291C6E'");
    let row = "02010010636172646964 0000 000000000000000000".replace(' ', "");
    assert!(index(&mut card).starts_with(&format!("03{row}")), "{}", index(&mut card));
    for select in ["00A40000020201", "00A40800020201", "00A40200020201"] {
        assert_eq!(ask(&mut card, select).1, OK, "{select}");
    }
    assert_eq!(ask(&mut card, "00B0000010").0, "3FF188BCBA833740826246EBA1291C6E");
    assert_eq!(ask(&mut card, "00B0001010").1, WRONG_OFFSET);
}

#[test]
fn without_cardid_neither_entry_nor_file_is_there() {
    let mut card = idprime("");
    assert!(index(&mut card).starts_with("020202"), "{}", index(&mut card));
    assert_eq!(ask(&mut card, "00A40000020201").1, NOT_FOUND);
}

#[test]
fn the_index_is_whole_entries_of_21_bytes() {
    let mut card = idprime("odd_cardid = '0011'");
    assert_eq!(index(&mut card).len(), 2 * (1 + 3 * 21));
}
