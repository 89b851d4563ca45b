use super::*;

const TOKEN: &str = "version = '0304'\nmanufacturer = '0006'\nserial = '12345678'\n";
const FULL: &str = "D2760001240103040006123456780000";

fn openpgp(more: &str) -> OpenPgp {
    toml::from_str::<Personal>(&format!("{TOKEN}{more}")).unwrap().applet()
}

fn ask(applet: &mut impl Applet, apdu: &str) -> (String, u16) {
    let apdu = hex::decode(apdu).unwrap();
    let answer = applet.command(&Command::parse(&apdu).unwrap());
    (hex::encode_upper(&answer.data), answer.status)
}

#[test]
fn the_aid_holds_version_manufacturer_and_serial() {
    assert_eq!(ask(&mut openpgp(""), "00CA004F00"), (FULL.to_owned(), 0x9000));
}

#[test]
fn select_answers_with_control_information_or_with_nothing() {
    assert_eq!(openpgp("").select(&PREFIX), Answer::data([]));
    let control = openpgp("fci = true").select(&PREFIX).data;
    assert_eq!(hex::encode_upper(control), format!("6F128410{FULL}"));
}

#[test]
fn exact_aid_is_required_where_configured() {
    let full = hex::decode(FULL).unwrap();
    let token = openpgp("");
    assert!(token.answers_to(&full) && token.answers_to(&full[..8]) && token.answers_to(&PREFIX));
    let exact = openpgp("short_aid_only = true");
    assert!(!exact.answers_to(&full) && exact.answers_to(&PREFIX));
}

#[test]
fn the_application_data_holds_the_aid_and_no_keys() {
    let (data, _) = ask(&mut openpgp(""), "00CA006E00");
    assert!(data.starts_with(&format!("6E81D94F10{FULL}5F520A")), "{data}");
    assert_eq!(ask(&mut openpgp(""), "00CA010100"), (String::new(), DATA_NOT_FOUND));
}

#[test]
fn a_terminated_card_answers_nothing_else() {
    let mut card = openpgp("terminated = true");
    assert_eq!(card.select(&PREFIX), Answer::status(TERMINATED));
    assert_eq!(ask(&mut card, "00CA004F00"), (String::new(), TERMINATED));
}
