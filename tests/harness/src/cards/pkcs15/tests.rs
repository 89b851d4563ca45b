use super::super::apdu::{NOT_FOUND, OK};
use super::*;

const TOKEN: &str = "serial = '9276000000001234'\nmanufacturer = 'ACME!'\nlabel = 'CARD'\n";

fn pkcs15(personal: &str) -> Pkcs15 {
    let mut applet = toml::from_str::<Personal>(personal).unwrap().applet().unwrap();
    applet.power();
    applet
}

fn ask(applet: &mut impl Applet, apdu: &str) -> (String, u16) {
    let apdu = hex::decode(apdu).unwrap();
    let answer = applet.command(&Command::parse(&apdu).unwrap());
    (hex::encode_upper(&answer.data), answer.status)
}

#[test]
fn token_info_is_made_of_its_parts() {
    let mut card = pkcs15(TOKEN);
    assert_eq!(ask(&mut card, "00A40800045015503200").1, OK);
    let (content, _) = ask(&mut card, "00B0000000");
    let expected = "301E020100040892760000000012340C0541434D452180044341524403020430";
    assert_eq!(content, expected);
}

#[test]
fn the_directory_leads_to_the_application() {
    let mut card = pkcs15("dir = 'records'\npath = '3F004B00'");
    assert_eq!(ask(&mut card, "00A40800022F0000").1, OK);
    let (entry, _) = ask(&mut card, "00B2010400");
    assert_eq!(
        entry,
        "611D4F0CA000000063504B43532D31355007504B43532331355104 3F004B00".replace(' ', "")
    );
    assert_eq!(ask(&mut card, "00A40800044B00503200").1, OK);
    assert_eq!(ask(&mut card, "00A40800045015503200").1, NOT_FOUND);
}

#[test]
fn a_transparent_directory_is_padded() {
    let mut card = pkcs15("dir = 'transparent'");
    assert_eq!(ask(&mut card, "00A40800022F0000").1, OK);
    let (content, _) = ask(&mut card, "00B0000000");
    assert!(content.starts_with("611D") && content.ends_with("0000"), "{content}");
    assert_eq!(ask(&mut pkcs15(""), "00A40800022F0000").1, NOT_FOUND);
}

#[test]
fn it_is_selected_by_the_name_of_its_directory_or_of_its_applet() {
    let mut card = pkcs15("applet_aid = 'F276A288BCFBA69D34F31001'");
    assert!(card.answers_to(&AID) && card.answers_to(&[0xF2, 0x76, 0xA2, 0x88, 0xBC]));
    assert_eq!(card.select(&AID).status, OK);
    assert_eq!(ask(&mut card, "00A40200025032").1, OK);
    assert_eq!(card.select(&[0xF2, 0x76, 0xA2, 0x88, 0xBC]).status, OK);
    assert_eq!(ask(&mut card, "00A40200025032").1, NOT_FOUND);
    assert!(!pkcs15("aid = ''").answers_to(&AID));
}

#[test]
fn the_iccsn_and_the_chips_data_are_read_where_they_are() {
    let mut card = pkcs15("iccsn = '9250002010102500013F'\ndata = { 0181 = '0102' }");
    assert_eq!(ask(&mut card, "00A40800022F0200").1, OK);
    assert_eq!(ask(&mut card, "00B0000000").0, "5A0A9250002010102500013F");
    assert_eq!(ask(&mut card, "00CA018100").0, "0102");
    assert_eq!(ask(&mut card, "00CA018200").1, DATA_NOT_FOUND);
}
