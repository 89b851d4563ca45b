//! The decoded ATR for `read`, with names from the list that Debian's package pcsc-tools installs.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use regex_lite::RegexBuilder;
use serde_json::{Value, json};

use crate::card::{Checksum, CompactTlv, DecodedAtr, InterfaceByte, hint};
use crate::domain::Atr;

pub(super) fn as_text(atr: &Atr, list_names: &[String]) -> Vec<String> {
    let decoded = DecodedAtr::of(atr);
    let protocols: Vec<_> = decoded.protocols.iter().map(|t| format!("T={t}")).collect();
    let mut lines: Vec<_> = decoded.known.map(str::to_owned).into_iter().collect();
    lines.extend(list_names.iter().map(|name| format!("pcsc-tools: {name}")));
    lines.extend(hint(atr).map(|family| format!("looks like {family}")));
    lines.push(format!("{}, {}", decoded.convention(), protocols.join(" and ")));
    lines.extend(
        decoded
            .interface
            .iter()
            .map(|byte| format!("  {byte} {:02x}  {}", byte.value, byte.meaning())),
    );
    if !decoded.historical.bytes.is_empty() {
        let text = decoded.historical.text().map_or(String::new(), |text| format!("  {text:?}"));
        lines.push(format!("historical bytes {}{text}", hex::encode(&decoded.historical.bytes)));
    }
    lines.extend(decoded.historical.entries.iter().map(entry_line));
    if decoded.is_contactless {
        lines.push("contactless, ATR composed by the reader".to_owned());
    }
    if decoded.checksum == Checksum::Valid {
        lines.push("check byte valid".to_owned());
    }
    lines.extend(decoded.anomalies().iter().map(|anomaly| format!("anomaly: {anomaly}")));
    lines
}

fn entry_line(entry: &CompactTlv) -> String {
    let text = entry.description().map_or(String::new(), |text| format!("  {text}"));
    format!("  {}: {}{text}", entry.meaning(), hex::encode(&entry.value))
}

pub(super) fn as_json(atr: &Atr, list_names: &[String]) -> Value {
    let decoded = DecodedAtr::of(atr);
    let historical = &decoded.historical;
    json!({
        "convention": decoded.convention(),
        "protocols": decoded.protocols,
        "interface": decoded.interface.iter().copied().map(interface_object).collect::<Vec<_>>(),
        "historical": hex::encode(&historical.bytes),
        "historical_category": historical.category(),
        "historical_text": historical.text(),
        "compact_tlv": historical.entries.iter().map(entry_object).collect::<Vec<_>>(),
        "tck": decoded.checksum.to_string(),
        "truncated": decoded.truncated,
        "anomalies": decoded.anomalies(),
        "contactless": decoded.is_contactless,
        "family_hint": hint(atr),
        "card_name": decoded.known,
        "pcsc_tools_names": list_names,
    })
}

fn interface_object(byte: InterfaceByte) -> Value {
    json!({
        "name": byte.to_string(),
        "value": hex::encode([byte.value]),
        "scope": byte.scope(),
        "meaning": byte.meaning(),
    })
}

fn entry_object(entry: &CompactTlv) -> Value {
    json!({
        "tag": entry.tag,
        "value": hex::encode(&entry.value),
        "meaning": entry.meaning(),
        "description": entry.description(),
    })
}

/// Where Debian's package pcsc-tools installs its list.
const LIST: &str = "/usr/share/pcsc/smartcard_list.txt";

/// The list has half a MiB: room for it to grow, and a bound for what is not the list.
const MAX_FILE: u64 = 4 << 20;

/// The longest ATR has 98 characters in the list's form; sets make a pattern somewhat longer.
const MAX_PATTERN: usize = 512;

/// Bytes of a compiled pattern; those of the list need some KiB.
const MAX_REGEX: usize = 1 << 20;

/// The longest entry of the list has 24 descriptions.
const MAX_NAMES: usize = 32;

/// Characters of a description that are shown; the longest of the list has 276.
const MAX_NAME: usize = 300;

/// The names that the list of pcsc-tools has for an ATR; none where there is no list.
pub(super) fn list_names(atr: &Atr) -> Vec<String> {
    read(Path::new(LIST)).map_or_else(Vec::new, |list| names_in(&list, atr))
}

/// The beginning of a file, as far as it is readable.
fn read(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut list = Vec::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut list).ok()?;
    Some(list)
}

/// The descriptions of all entries whose pattern matches. An entry is a pattern at the beginning
/// of a line, then descriptions, each after a tab. The file may be damaged.
fn names_in(list: &[u8], atr: &Atr) -> Vec<String> {
    let bytes: Vec<_> = atr.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    let atr = bytes.join(" ");
    let mut names = Vec::new();
    let mut in_match = false;
    for line in list.split(|byte| *byte == b'\n') {
        if let [b'\t', description @ ..] = line {
            if in_match {
                let text = String::from_utf8_lossy(description);
                let name: String = text.trim().chars().take(MAX_NAME).collect();
                names.extend((!name.is_empty()).then_some(name));
            }
        } else {
            in_match = std::str::from_utf8(line).is_ok_and(|line| matches(line.trim_end(), &atr));
        }
        if names.len() == MAX_NAMES {
            break;
        }
    }
    names
}

/// Whether a pattern, a regular expression, matches the whole ATR: upper-case hex, with a space
/// between bytes. Most patterns are literal; compiling them all would take long.
fn matches(pattern: &str, atr: &str) -> bool {
    if !pattern.contains(['.', '[', '(']) {
        return pattern.eq_ignore_ascii_case(atr);
    }
    let is_short = pattern.len() <= MAX_PATTERN;
    let regex = is_short.then(|| format!("^(?:{pattern})$"));
    let regex = regex.and_then(|it| {
        RegexBuilder::new(&it).case_insensitive(true).size_limit(MAX_REGEX).build().ok()
    });
    regex.is_some_and(|regex| regex.is_match(atr))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::escape_control_chars;

    const YUBIKEY: &str = "3bfd1300008131fe158073c021c057597562694b657940";

    #[test]
    fn known_name_comes_before_names_of_the_list() {
        let lines = as_text(&YUBIKEY.parse().unwrap(), &["Yubico YubiKey 5 NFC (PKI)".to_owned()]);
        let expected = [
            "YubiKey 5 NFC (contact)",
            "pcsc-tools: Yubico YubiKey 5 NFC (PKI)",
            "looks like piv",
            "direct, T=1",
            "  TA1 13  Fi 372, Di 4, up to 5 MHz: at most 53763 bit/s",
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert_eq!(lines.last().unwrap(), "check byte valid");
    }

    #[test]
    fn json_has_every_byte_and_all_names() {
        let object = as_json(&YUBIKEY.parse().unwrap(), &["a".to_owned()]);
        assert_eq!(object["card_name"], "YubiKey 5 NFC (contact)");
        assert_eq!(object["pcsc_tools_names"], json!(["a"]));
        assert_eq!(object["family_hint"], "piv");
        assert_eq!(object["historical_category"], "compact-tlv");
        let names: Vec<_> =
            object["interface"].as_array().unwrap().iter().map(|byte| &byte["name"]).collect();
        assert_eq!(names, ["TA1", "TB1", "TC1", "TD1", "TD2", "TA3", "TB3"]);
    }

    #[test]
    fn unknown_card_has_no_names() {
        let object = as_json(&"3f00".parse().unwrap(), &[]);
        assert!(object["card_name"].is_null() && object["family_hint"].is_null());
        assert_eq!(object["pcsc_tools_names"], json!([]));
        assert_eq!(as_text(&"3f00".parse().unwrap(), &[]), ["inverse, T=0"]);
    }

    const LIST: &str = "# a comment\n\
        \n\
        3B 02 14 50\n\
        \tSchlumberger Multiflex 3k\n\
        \thttps://example.com/\n\
        \n\
        3b 02 1. 5[0,1]\n\
        \tany such card\n\
        3F 02 14 50\n\
        \tof inverse convention\n";

    fn named(list: &str, atr: &str) -> Vec<String> {
        names_in(list.as_bytes(), &atr.parse().unwrap())
    }

    fn is_match(pattern: &str, atr: &str) -> bool {
        !named(&format!("{pattern}\n\tname\n"), atr).is_empty()
    }

    #[test]
    fn matching_entries_give_all_their_lines() {
        let expected = ["Schlumberger Multiflex 3k", "https://example.com/", "any such card"];
        assert_eq!(named(LIST, "3b021450"), expected);
        assert_eq!(named(LIST, "3b021551"), ["any such card"]);
        assert_eq!(named(LIST, "3f021450"), ["of inverse convention"]);
        assert_eq!(named(LIST, "3b021460"), [""; 0]);
    }

    #[test]
    fn pattern_matches_the_whole_atr() {
        assert!(is_match("3B 02 14 50", "3b021450"));
        assert!(!is_match("3B 02 14", "3b021450"));
        assert!(!is_match("3B 02 14 50 00", "3b021450"));
    }

    #[test]
    fn syntax_of_the_list_is_understood() {
        let long = "3bef00ff8131424501020338";
        assert!(is_match("3B EF 00 FF 81 31 42 45 .* 38", long));
        assert!(!is_match("3B EF 00 FF 81 31 42 45 .* 39", long));
        assert!(is_match("3B EF 00 FF .*", long) && is_match("3B EF 00 FF.*", long));
        assert!(is_match("3B 6F 0[1-5]", "3b6f03") && !is_match("3B 6F 0[1-5]", "3b6f06"));
        assert!(is_match("3B 6F [6,E]C", "3b6fec") && is_match("3B 6. A[fe]", "3b6faf"));
        assert!(is_match("3B 6F 01\r", "3b6f01"));
    }

    #[test]
    fn invalid_or_oversized_pattern_matches_nothing() {
        let long = format!("3B 0[2]{}", " ?".repeat(MAX_PATTERN));
        let huge = "3B 0[2](.{1000}){1000}";
        for text in ["3B (02|03", "3B 0[^2]", "3B 0[2", "3B 02+", "*3B 02", "", " x", huge, &long] {
            assert!(!is_match(text, "3b02"), "{text}");
        }
    }

    #[test]
    fn damaged_list_gives_readable_names() {
        let mut list = b"\tno pattern before it\n\xff\xfe\x00\n3B 02\n\t\xff\x1b[31mred".to_vec();
        list.extend([b'x'; 1000]);
        let names = names_in(&list, &"3b02".parse().unwrap());
        let [name] = names.as_slice() else { panic!("{names:?}") };
        assert_eq!(name.chars().count(), MAX_NAME);
        assert!(escape_control_chars(name).starts_with("\u{fffd}\\u{1b}[31mred"));
    }

    #[test]
    fn endless_entry_is_cut() {
        let list = format!("3B 02\n{}", "\tname\n".repeat(1000));
        assert_eq!(named(&list, "3b02").len(), MAX_NAMES);
    }

    #[test]
    fn missing_list_is_none_and_huge_list_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        let path = directory.path().join("smartcard_list.txt");
        assert_eq!(read(&path), None);
        File::create(&path).unwrap().set_len(3 * MAX_FILE).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX_FILE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_as_a_list(
            list in prop::collection::vec(any::<u8>(), 0..300),
            atr in prop::collection::vec(any::<u8>(), 2..=33),
        ) {
            let names = names_in(&list, &Atr::try_from(atr.as_slice()).unwrap());
            prop_assert!(names.len() <= MAX_NAMES);
        }

        #[test]
        fn any_text_of_the_syntax_is_safe(
            text in "[0-9A-F .*,\\[\\]\\-(){}?+|^$]{0,60}",
            atr in prop::collection::vec(any::<u8>(), 2..=33),
        ) {
            let _is = is_match(&text, &Atr::try_from(atr.as_slice()).unwrap().to_string());
        }

        #[test]
        fn every_atr_matches_itself_and_itself_with_wildcards(
            atr in prop::collection::vec(any::<u8>(), 2..=33),
            wild in prop::collection::vec(any::<bool>(), 33),
        ) {
            let atr = Atr::try_from(atr.as_slice()).unwrap();
            let bytes: Vec<_> = atr.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
            let text = bytes.join(" ");
            let masked = text.split(' ').zip(&wild);
            let masked: Vec<_> = masked.map(|(byte, wild)| if *wild { ".." } else { byte }).collect();
            for text in [text.clone(), masked.join(" "), ".*".to_owned()] {
                prop_assert!(is_match(&text, &atr.to_string()));
            }
        }
    }
}
