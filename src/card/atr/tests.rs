//! ATRs of common cards, of no card, and at random.

use proptest::prelude::*;

use super::*;

fn facts(text: &str) -> DecodedAtr {
    DecodedAtr::of(&text.parse().unwrap())
}

#[test]
fn a_microsoft_virtual_smart_card_names_its_application() {
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
fn the_newer_virtual_smart_card_is_known_too() {
    assert!(facts("3b8d0180fba000000397425446590401cf").known.is_some());
}

#[test]
fn an_idprime_card_offers_t0_only_and_has_no_check_byte() {
    let facts = facts("3b7f96000080318065b0850300ef120ffe829000");
    assert_eq!(facts.protocols, [0]);
    assert_eq!(facts.checksum, Checksum::NotRequired);
    assert!(!facts.truncated);
    let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
    assert_eq!(tags, [3, 6, 1, 8]);
}

#[test]
fn a_yubikey_5_by_contact_offers_t1_and_by_air_is_contactless() {
    let contact = facts("3bfd1300008131fe158073c021c057597562694b657940");
    assert_eq!((contact.protocols.as_slice(), contact.is_contactless), ([1].as_slice(), false));
    let by_air = facts("3b8d80018073c021c057597562694b6579f9");
    assert_eq!(by_air.protocols, [0, 1]);
    assert!(by_air.is_contactless);
    assert_eq!(by_air.checksum, Checksum::Valid);
}

#[test]
fn the_status_at_the_end_of_category_00_is_an_entry() {
    let facts = facts("3bda18ff81b1fe751f030031c573c001400090000c");
    let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
    assert_eq!(tags, [3, 7, 8]);
    assert_eq!(facts.historical.entries[2].value, [0x00, 0x90, 0x00]);
}

#[test]
fn global_bytes_are_no_protocol_but_make_a_check_byte_due() {
    let facts = facts("3b80801f9f");
    assert_eq!(facts.protocols, [0]);
    assert_ne!(facts.checksum, Checksum::NotRequired);
}

#[test]
fn a_wrong_or_missing_check_byte_is_told_and_forgiven() {
    let wrong = facts("3bde98ff8191fe1fc38031815448534d3173802140810792");
    assert_eq!(wrong.checksum, Checksum::Invalid);
    assert_eq!(wrong.protocols, [1]);
    assert_eq!(facts("3b8001").checksum, Checksum::Missing);
    assert_eq!(wrong.anomalies(), ["check byte wrong"]);
}

#[test]
fn an_atr_that_announces_more_than_it_has_is_cut_off() {
    let facts = facts("3b0f8031");
    assert!(facts.truncated);
    assert_eq!(facts.historical.bytes, [0x80, 0x31]);
    assert_eq!(facts.historical.entries, []);
}

#[test]
fn an_atr_that_ends_within_its_interface_bytes_is_cut_off() {
    assert!(facts("3bf013").truncated);
    assert!(!facts("3b1013").truncated);
}

#[test]
fn bytes_after_the_end_are_told_and_not_checked() {
    let facts = facts("3b8d0180fba000000397425446590301c8ffff");
    assert_eq!(facts.checksum, Checksum::Valid);
    assert_eq!(facts.anomalies(), ["2 bytes too many"]);
}

#[test]
fn everything_that_is_odd_is_told_in_the_order_of_the_bytes() {
    let begins = "begins with neither 3B nor 3F";
    let td1 = "TD1 names T=15, which is no protocol";
    let meant = [begins, td1, "check byte missing"];
    assert_eq!(facts("00800f").anomalies(), meant);
    let meant = [begins, td1, "ends before it should"];
    assert_eq!(facts("00821f80").anomalies(), meant);
    assert_eq!(facts("3b038032ff").anomalies(), ["the last historical entry is cut off"]);
}

#[test]
fn inverse_convention_and_nonsense_are_told() {
    assert_eq!(facts("3f00").convention(), "inverse");
    assert_eq!(facts("0000").convention(), "unknown (00)");
}

proptest! {
    #[test]
    fn every_atr_is_decoded(bytes in prop::collection::vec(any::<u8>(), 2..=33)) {
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
fn every_known_atr_is_whole_and_has_a_right_check_byte_where_one_is_due() {
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
fn the_table_is_the_one_in_the_document() {
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
fn an_unknown_card_is_hinted_at_by_what_its_historical_bytes_hold() {
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
fn a_mark_outside_the_historical_bytes_is_no_hint() {
    assert_eq!(hint_of("3bf0a00000030800"), None);
}

fn historical(text: &str) -> Historical {
    Historical::of(&hex::decode(text).unwrap())
}

#[test]
fn the_first_byte_says_how_to_read_the_others() {
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
fn a_text_in_the_bytes_is_found() {
    assert_eq!(historical("597562696b657934").text().as_deref(), Some("Yubikey4"));
    assert_eq!(historical("8073c021c057597562694b6579").text().as_deref(), Some("YubiKey"));
    assert_eq!(historical("8031815448534d31").text().as_deref(), Some("HSM1"));
    assert_eq!(historical("80318065b0").text(), None);
}

#[test]
fn an_entry_that_is_longer_than_the_rest_is_left_over() {
    let cut = historical("803180654142");
    assert_eq!(cut.entries.len(), 1);
    assert_eq!(cut.leftover, [0x65, 0x41, 0x42]);
}

#[test]
fn services_capabilities_and_status_have_words() {
    let words: Vec<_> = historical("0031c573c00140059000")
        .entries
        .iter()
        .map(|entry| entry.description().unwrap())
        .collect();
    assert_eq!(
        words,
        [
            "applications by full name, applications by partial name",
            "DF by full name, DF by partial name",
            "operational, status word 9000",
        ]
    );
}
