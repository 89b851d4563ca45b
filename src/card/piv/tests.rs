//! PIV cards as they should be, and as they should not.

use super::super::Protocol;
use super::super::tests::script::Script;
use super::*;
use crate::domain::Strength;

const SELECT: &str = "00a4040009a0000003080000100000";
const READ_CHUID: &str = "00cb3fff055c035fc10200";
const READ_CCC: &str = "00cb3fff055c035fc10700";
const READ_DISCOVERY: &str = "00cb3fff035c017e00";

/// A YubiKey's answer to SELECT.
const SELECTED: &str = "61114f0600001000010079074f05a0000003089000";

/// What Yubico's tools write: FASC-N 9999 9999 999999 …, the same on every card.
const YUBICO_FASCN: &str = "d4e739da739ced39ce739d836858210842108421c84210c3eb";
const GUID: &str = "a04f5343731001f9aa6e34537bee6fc1";

/// A FASC-N of the government: agency 0032 instead of 9999, the rest as it may be.
const AGENCY_FASCN: &str = "d0439458210c2c19a0846d83685a1082108ce73984108ca3fc";

fn chuid(fields: &str) -> String {
    let content = format!("{fields}35083230333030313031 3e00fe00").replace(' ', "");
    format!("53{:02x}{content}9000", content.len() / 2)
}

fn card(fields: &str) -> Script {
    Script::new(Protocol::T1).on(SELECT, SELECTED).on(READ_CHUID, &chuid(fields))
}

fn run(card: &mut Script) -> Result<CardReading, NoReading> {
    probe(card)
}

fn ids(reading: &CardReading) -> Vec<(&'static str, String)> {
    reading.candidates().iter().map(|c| (c.rule.as_str(), c.card_id.to_string())).collect()
}

fn placeholders(reading: &CardReading) -> Vec<IdRule> {
    let placeholders = reading.ids.iter().filter(|id| id.is_placeholder);
    placeholders.map(|id| id.candidate.rule).collect()
}

fn strengths(reading: &CardReading) -> Vec<Strength> {
    reading.candidates().iter().map(|candidate| candidate.strength).collect()
}

const UNIQUE: Strength = Strength::Unique;

const GUID_LE: &str = "43534fa0-1073-f901-aa6e-34537bee6fc1";
const GUID_BE: &str = "a04f5343-7310-01f9-aa6e-34537bee6fc1";

#[test]
fn yubikey_is_identified_by_guid() {
    let mut card = card(&format!("3019{YUBICO_FASCN}3410{GUID}"));
    let reading = run(&mut card).unwrap();
    assert_eq!(reading.serial.to_string(), GUID, "as OpenSC: the issuer is outside the government");
    let expected = [
        ("piv-guid-le", GUID_LE),
        ("piv-guid-be", GUID_BE),
        ("piv-fascn", "da39e7d4-9c73-39ed-ce73-9d8368582108"),
        ("piv-opensc", GUID_LE),
    ];
    assert_eq!(ids(&reading), expected.map(|(rule, id)| (rule, id.to_owned())));
    assert_eq!(strengths(&reading), [UNIQUE, UNIQUE, Strength::Shared, UNIQUE]);
}

#[test]
fn government_card_has_fascn_id() {
    let mut card = card(&format!("3019{AGENCY_FASCN}3410{GUID}"));
    let reading = run(&mut card).unwrap();
    assert_eq!(reading.serial.to_string(), AGENCY_FASCN);
    let fascn = "589443d0-0c21-192c-a084-6d83685a1082";
    let expected = [
        ("piv-guid-le", GUID_LE),
        ("piv-guid-be", GUID_BE),
        ("piv-fascn", fascn),
        ("piv-opensc", fascn),
    ];
    assert_eq!(ids(&reading), expected.map(|(rule, id)| (rule, id.to_owned())));
    assert_eq!(strengths(&reading), [UNIQUE, UNIQUE, Strength::Serial, Strength::Serial]);
}

#[test]
fn fascn_of_tools_is_placeholder() {
    let pivy = "d04210d821086c1084210d836858210842108421c84210c3eb";
    let older = "d4e739da739ced39ce739d836858210842108421384210c3f5";
    for fascn in [YUBICO_FASCN, older, pivy] {
        let reading = run(&mut card(&format!("3019{fascn}"))).unwrap();
        assert_eq!(reading.serial.to_string(), fascn, "that is what OpenSC shows");
        assert_eq!(strengths(&reading), [Strength::Shared; 2]);
        assert_eq!(placeholders(&reading), [IdRule::PivFascn, IdRule::PivOpensc]);
    }
}

#[test]
fn placeholder_guid_is_shared_by_every_rule() {
    for guid in [
        "00000000000040008000000000000000",
        "78787878787878787878787878787878",
        "000102030405060708090a0b0c0d0e0f",
        // NIST's test cards have this text in it.
        "31323334353637383930313233343536",
        "013019d4e739da739ced39ce739d8368",
    ] {
        let reading = run(&mut card(&format!("3019{YUBICO_FASCN}3410{guid}"))).unwrap();
        assert_eq!(strengths(&reading), [Strength::Shared; 4], "{guid}");
        assert!(placeholders(&reading).contains(&IdRule::PivGuidLe), "{guid}");
    }
}

#[test]
fn chuid_fields_are_read_in_any_order() {
    let (zeros, ones) = ("00".repeat(16), "ff".repeat(25));
    for fields in [
        format!("3410{GUID}3019{}", "00".repeat(25)),
        format!("ee02003b3410{GUID}3019{ones}"),
        format!("3204000000003410{GUID}"),
    ] {
        let reading = run(&mut card(&fields)).unwrap();
        assert_eq!(reading.serial.to_string(), GUID, "{fields}");
    }
    for fields in [format!("3410{zeros}"), "340100".to_owned(), format!("3410{GUID}3410{GUID}")] {
        assert!(matches!(run(&mut card(&fields)), Err(NoReading::NoId(_))), "{fields}");
    }
}

#[test]
fn missing_chuid_is_no_id() {
    for answer in ["6a82", "6982", "53009000", "9000", "6f00", "340100 9000"] {
        let mut card = card("").on(READ_CHUID, answer);
        assert!(matches!(run(&mut card), Err(NoReading::NoId(_))), "{answer}");
    }
}

#[test]
fn padding_after_objects_is_ignored() {
    let filled = chuid(&format!("3410{GUID}")).replace("fe009000", "fe0000000000ffff9000");
    let reading = run(&mut card("").on(READ_CHUID, &filled)).unwrap();
    assert_eq!(reading.serial.to_string(), GUID);
}

#[test]
fn signed_chuid_is_read_completely() {
    let signature = "3e8202f8".to_owned() + &"5a".repeat(0x2F8);
    let content = format!("3019{AGENCY_FASCN}3410{GUID}{signature}fe00");
    let whole = format!("5382{:04x}{content}", content.len() / 2);
    let parts: Vec<_> =
        whole.as_bytes().chunks(512).map(|part| str::from_utf8(part).unwrap()).collect();
    let mut card =
        Script::new(Protocol::T1).on(SELECT, SELECTED).on(READ_CHUID, &format!("{}6100", parts[0]));
    // The same command brings each part: this one brings the rest at once.
    card = card.on("00c0000000", &format!("{}9000", parts[1..].concat()));
    assert_eq!(run(&mut card).unwrap().serial.to_string(), AGENCY_FASCN);
}

#[test]
fn select_response_names_application_in_several_forms() {
    for selected in [
        SELECTED,
        "610d4f0ba000000308000010000100 9000",
        "61064f0400100001 9000",
        "610a4f0600001000010050009000",
    ] {
        let mut card = card(&format!("3410{GUID}")).on(SELECT, selected);
        assert_eq!(run(&mut card).unwrap().serial.to_string(), GUID, "{selected}");
    }
}

#[test]
fn select_without_name_counts_with_data_object() {
    let with = |selected: &str| card(&format!("3410{GUID}")).on(SELECT, selected);
    for selected in ["9000", "6f00 9000"] {
        let discovery = "7e124f0ba0000003080000100001005f2f0240009000";
        let mut by_discovery = with(selected).on(READ_DISCOVERY, discovery);
        assert!(run(&mut by_discovery).is_ok(), "{selected}");
        assert!(run(&mut with(selected)).is_ok(), "by the CHUID: {selected}");
        let mut blank = with(selected).on(READ_DISCOVERY, discovery).on(READ_CHUID, "6a82");
        assert!(matches!(run(&mut blank), Err(NoReading::NoId(_))), "{selected}");
        let mut neither = with(selected).on(READ_CHUID, "6a82");
        assert!(matches!(run(&mut neither), Err(NoReading::OtherFamily(_))), "{selected}");
    }
    let mut absent = with("6a82");
    assert!(matches!(run(&mut absent), Err(NoReading::OtherFamily(_))));
    assert_eq!(absent.sent().len(), 1);
}

#[test]
fn ccc_card_identifier_is_inventory() {
    let identifier = "a000000116ff02".to_owned() + &"11".repeat(14);
    let ccc = format!(
        "533 3f015{identifier}f10121f20121f300f40100f50110f600f700fa00fb00fc00fd00fe009000"
    )
    .replace(' ', "");
    let mut card = card(&format!("3410{GUID}")).on(READ_CCC, &ccc);
    probe(&mut card).unwrap();
    assert!(!card.sent().iter().any(|sent| sent == READ_CCC), "it is not asked for the id");
    assert_eq!(super::ccc(&mut card), Ok(Some(identifier)));
}

#[test]
fn selected_application_is_read_without_select() {
    let discovery = "7e124f0ba0000003080000100001005f2f0240009000";
    let mut card = card(&format!("3410{GUID}")).on(READ_DISCOVERY, discovery);
    assert!(probe_selected(&mut card).is_ok());
    assert_eq!(card.sent(), [READ_DISCOVERY, READ_CHUID]);
    let mut other = Script::gids(Protocol::T1);
    let no_reading = probe_selected(&mut other);
    assert!(matches!(no_reading, Err(NoReading::OtherFamily(_))));
    assert_eq!(other.sent().len(), 1);
}
