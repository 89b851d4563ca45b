//! ATRs of common cards, of no card, and at random.

use proptest::prelude::*;

use super::*;

fn facts(text: &str) -> DecodedAtr {
    DecodedAtr::of(&text.parse().unwrap())
}

#[test]
fn virtual_smart_card_atr_is_decoded() {
    let facts = facts("3b8d0180fba000000397425446590301c8");
    assert_eq!(facts.convention(), "direct");
    assert_eq!(facts.protocols, [1]);
    assert_eq!(facts.checksum, Checksum::Valid);
    assert_eq!(facts.known, Some("Microsoft virtual smart card"));
    assert!(!facts.is_contactless);
    let [entry] = facts.historical.entries.as_slice() else { panic!("{facts:?}") };
    assert_eq!(entry.meaning(), "application");
    assert_eq!(hex::encode(&entry.value), "a0000003974254465903 01".replace(' ', ""));
}

#[test]
fn newer_virtual_smart_card_is_known() {
    assert!(facts("3b8d0180fba000000397425446590401cf").known.is_some());
}

#[test]
fn idprime_atr_needs_no_check_byte() {
    let facts = facts("3b7f96000080318065b0850300ef120ffe829000");
    assert_eq!(facts.protocols, [0]);
    assert_eq!(facts.checksum, Checksum::NotRequired);
    assert!(!facts.truncated);
    let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
    assert_eq!(tags, [3, 6, 1, 8]);
}

#[test]
fn contactless_yubikey_differs_from_contact() {
    let contact = facts("3bfd1300008131fe158073c021c057597562694b657940");
    assert_eq!((contact.protocols.as_slice(), contact.is_contactless), ([1].as_slice(), false));
    let by_air = facts("3b8d80018073c021c057597562694b6579f9");
    assert_eq!(by_air.protocols, [0, 1]);
    assert!(by_air.is_contactless);
    assert_eq!(by_air.checksum, Checksum::Valid);
}

#[test]
fn category_00_status_is_entry() {
    let facts = facts("3bda18ff81b1fe751f030031c573c001400090000c");
    let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
    assert_eq!(tags, [3, 7, 8]);
    assert_eq!(facts.historical.entries[2].value, [0x00, 0x90, 0x00]);
}

#[test]
fn global_bytes_require_check_byte() {
    let facts = facts("3b80801f9f");
    assert_eq!(facts.protocols, [0]);
    assert_ne!(facts.checksum, Checksum::NotRequired);
}

#[test]
fn wrong_or_missing_check_byte_is_anomaly() {
    let wrong = facts("3bde98ff8191fe1fc38031815448534d3173802140810792");
    assert_eq!(wrong.checksum, Checksum::Invalid);
    assert_eq!(wrong.protocols, [1]);
    assert_eq!(facts("3b8001").checksum, Checksum::Missing);
    assert_eq!(wrong.anomalies(), ["check byte wrong"]);
}

#[test]
fn atr_shorter_than_announced_is_truncated() {
    let facts = facts("3b0f8031");
    assert!(facts.truncated);
    assert_eq!(facts.historical.bytes, [0x80, 0x31]);
    assert_eq!(facts.historical.entries, []);
}

#[test]
fn atr_without_announced_interface_bytes_is_truncated() {
    assert!(facts("3bf013").truncated);
    assert!(!facts("3b1013").truncated);
}

#[test]
fn trailing_bytes_are_reported_and_not_checked() {
    let facts = facts("3b8d0180fba000000397425446590301c8ffff");
    assert_eq!(facts.checksum, Checksum::Valid);
    assert_eq!(facts.anomalies(), ["2 bytes too many"]);
}

#[test]
fn anomalies_are_in_byte_order() {
    let begins = "begins with neither 3B nor 3F";
    let td1 = "TD1 names T=15, which is no protocol";
    let meant = [begins, td1, "check byte missing"];
    assert_eq!(facts("00800f").anomalies(), meant);
    let meant = [begins, td1, "ends before it should"];
    assert_eq!(facts("00821f80").anomalies(), meant);
    assert_eq!(facts("3b038032ff").anomalies(), ["the last historical entry is cut off"]);
}

#[test]
fn inverse_and_unknown_convention_are_decoded() {
    assert_eq!(facts("3f00").convention(), "inverse");
    assert_eq!(facts("0000").convention(), "unknown (00)");
}

proptest! {
    #[test]
    fn any_atr_is_decoded(bytes in prop::collection::vec(any::<u8>(), 2..=33)) {
        let facts = DecodedAtr::of(&Atr::try_from(bytes.as_slice()).unwrap());
        let _words: Vec<_> = facts.interface.iter().map(InterfaceByte::meaning).collect();
        let _entries: Vec<_> = facts.historical.entries.iter().map(CompactTlv::description).collect();
        let _hint = (hint(&Atr::try_from(bytes.as_slice()).unwrap()), facts.historical.text());
        prop_assert!(!facts.protocols.is_empty());
        // A buffer is cut where this decoder finds the end, too.
        let is_buffer = bytes.len() == 33 && matches!(bytes.first(), Some(0x3B | 0x3F));
        prop_assert!(!is_buffer || facts.trailing_bytes == 0);
        prop_assert!(facts.historical.bytes.len() <= 15);
    }
}

const CARDS: &str = include_str!("../../../docs/cards.md");

fn hint_of(text: &str) -> Option<Family> {
    hint(&text.parse().unwrap())
}

#[test]
fn known_atrs_are_complete() {
    for (atr, name, _) in &KNOWN {
        let facts = DecodedAtr::of(&atr.parse().unwrap());
        assert_eq!(facts.known, Some(*name), "{atr} is there twice, or not lower case");
        assert!(facts.anomalies().is_empty(), "{name}: {:?}", facts.anomalies());
        let due = !atr.starts_with("3b7f96000080318065b0");
        let meant = if due { Checksum::Valid } else { Checksum::NotRequired };
        assert_eq!(facts.checksum, meant, "{name}");
    }
}

#[test]
fn known_atrs_match_document() {
    let heading = "### ATRs known by name";
    let lines = CARDS.lines().skip_while(|line| *line != heading).skip(1);
    let rows = lines.take_while(|line| !line.starts_with('#'));
    let written: Vec<_> = rows.filter(|line| line.starts_with("| `3")).collect();
    assert_eq!(written.len(), KNOWN.len());
    for (row, (atr, name, first)) in written.iter().zip(&KNOWN) {
        let first = first.map_or("–".to_owned(), |family| format!("`{family}`"));
        let meant = format!("| `{atr}` | {name} | {first} |");
        assert!(row.starts_with(&meant), "{row}\nshould begin\n{meant}");
    }
}

#[test]
fn hint_of_unknown_card_is_by_historical_bytes() {
    for (atr, family) in [
        ("3b8d0180fba000000397425446590501ce", Some(Family::Gids)),
        ("3b8a8001a000000308000010000030", Some(Family::Piv)),
        ("3b8a8001d276000124010304000600", Some(Family::Openpgp)),
        ("3b8e800180fca000000063504b43532d313500", Some(Family::Pkcs15)),
        ("3b7f96000080318065b08403000f120fff829000", Some(Family::Idprime)),
        ("3bfd1300008131fe158073c021c057597562694b657941", Some(Family::Piv)),
        ("3b8001", None),
    ] {
        assert_eq!(hint_of(atr), family, "{atr}");
    }
}

#[test]
fn mark_outside_historical_bytes_is_ignored() {
    assert_eq!(hint_of("3bf0a00000030800"), None);
}

fn historical(text: &str) -> Historical {
    Historical::of(&hex::decode(text).unwrap())
}

#[test]
fn first_historical_byte_is_category() {
    for (text, category) in [
        ("0031c573c00140059000", "compact-tlv-and-status"),
        ("1000", "directory-reference"),
        ("8031", "compact-tlv"),
        ("8131", "reserved"),
        ("597562696b657934", "proprietary"),
    ] {
        assert_eq!(historical(text).category(), Some(category));
    }
    assert_eq!(Historical::default().category(), None);
}

#[test]
fn text_in_historical_bytes_is_found() {
    assert_eq!(historical("597562696b657934").text().as_deref(), Some("Yubikey4"));
    assert_eq!(historical("8073c021c057597562694b6579").text().as_deref(), Some("YubiKey"));
    assert_eq!(historical("8031815448534d31").text().as_deref(), Some("HSM1"));
    assert_eq!(historical("80318065b0").text(), None);
}

#[test]
fn too_long_historical_entry_is_left_over() {
    let cut = historical("803180654142");
    assert_eq!(cut.entries.len(), 1);
    assert_eq!(cut.leftover, [0x65, 0x41, 0x42]);
}

#[test]
fn services_capabilities_and_status_are_described() {
    let descriptions: Vec<_> = historical("0031c573c00140059000")
        .entries
        .iter()
        .map(|entry| entry.description().unwrap())
        .collect();
    assert_eq!(
        descriptions,
        [
            "applications by full name, applications by partial name",
            "DF by full name, DF by partial name",
            "operational, status word 9000",
        ]
    );
}
