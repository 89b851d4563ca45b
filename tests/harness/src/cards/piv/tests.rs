use super::*;

const CHUID: &str = "00CB3FFF055C035FC10200";
const FASCN: &str = "D4E739DA739CED39CE739D836858210842108421C84210C3EB";
const GUID: &str = "A04F5343731001F9AA6E34537BEE6FC1";

fn piv(personal: &str) -> Piv {
    toml::from_str::<Personal>(personal).unwrap().applet().unwrap()
}

fn ask(applet: &mut impl Applet, apdu: &str) -> (String, u16) {
    let apdu = hex::decode(apdu).unwrap();
    let answer = applet.command(&Command::parse(&apdu).unwrap());
    (hex::encode_upper(&answer.data), answer.status)
}

fn selected(applet: &mut Piv) -> String {
    hex::encode_upper(applet.select(&AID).data)
}

#[test]
fn select_answers_with_the_pix_or_with_the_whole_aid() {
    let pix = selected(&mut piv(""));
    assert_eq!(pix, "61114F0600001000010079074F05A000000308");
    let full = selected(&mut piv("select_aid = 'full'"));
    assert_eq!(full, "61164F0BA00000030800001000010079074F05A000000308");
}

#[test]
fn it_is_selected_by_the_issuers_five_bytes_or_more_of_its_aid() {
    let piv = piv("");
    for (aid, known) in [
        (&AID[..5], true),
        (&AID[..9], true),
        (&AID[..], true),
        (&AID[..4], false),
        (&[0xA0, 0x00, 0x00, 0x03, 0x97][..], false),
    ] {
        assert_eq!(piv.answers_to(aid), known, "{aid:02X?}");
    }
}

#[test]
fn the_chuid_is_made_of_its_parts() {
    let mut piv = piv(&format!("fascn = '{FASCN}'\nguid = '{GUID}'"));
    let (chuid, status) = ask(&mut piv, CHUID);
    assert_eq!(chuid, format!("533B3019{FASCN}3410{GUID}350832303330313233313E00FE00"));
    assert_eq!(status, super::super::apdu::OK);
}

#[test]
fn object_without_personalisation_is_missing() {
    let mut piv = piv("");
    for object in [CHUID, "00CB3FFF055C035FC10700", "00CB3FFF035C017E00"] {
        assert_eq!(ask(&mut piv, object), (String::new(), NOT_FOUND), "{object}");
    }
    for number in ["00F8000000", "00FD000000"] {
        assert_eq!(ask(&mut piv, number).1, NO_SUCH_COMMAND, "{number}");
    }
}

#[test]
fn empty_and_refused_chuid_differ_from_none() {
    assert_eq!(ask(&mut piv("chuid = ''"), CHUID), ("5300".to_owned(), 0x9000));
    let refused = &mut piv("refused = { 5fc102 = '6982' }");
    assert_eq!(ask(refused, CHUID), (String::new(), 0x6982));
}

#[test]
fn token_returns_serial_and_version() {
    let mut piv = piv("serial = '009E2A7B'\nversion = '050403'\ndiscovery = true");
    assert_eq!(ask(&mut piv, "00F8000000").0, "009E2A7B");
    assert_eq!(ask(&mut piv, "00FD000003").0, "050403");
    let discovery = "7E124F0BA0000003080000100001005F2F024000";
    assert_eq!(ask(&mut piv, "00CB3FFF035C017E00").0, discovery);
}

#[test]
fn the_ccc_holds_the_card_identifier() {
    let mut piv = piv("card_identifier = 'A000000116FF02000102030405060708090A0B0C0D'");
    let (ccc, _) = ask(&mut piv, "00CB3FFF055C035FC10700");
    assert!(ccc.starts_with("5333F015A000000116FF02000102"), "{ccc}");
    assert_eq!(ccc.len(), 2 * 53);
}

#[test]
fn get_data_requires_3fff_and_one_tag() {
    let mut piv = piv("");
    assert_eq!(ask(&mut piv, "00CBA000045C02DF1F00").1, WRONG_PARAMETERS);
    assert_eq!(ask(&mut piv, "00CB3FFF025C0300").1, WRONG_DATA);
    assert_eq!(ask(&mut piv, "80CB3FFF035C017E00").1, NO_SUCH_CLASS);
}
