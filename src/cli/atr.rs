//! An ATR in words.

use serde_json::{Value, json};

use crate::card::{Checksum, CompactTlv, DecodedAtr, InterfaceByte, hint};
use crate::domain::Atr;

mod pcsc_tools_list;

pub(super) use pcsc_tools_list::names as list_names;

/// The lines about an ATR; `list_names` is what the list of pcsc-tools says.
pub(super) fn as_text(atr: &Atr, list_names: &[String]) -> Vec<String> {
    let facts = DecodedAtr::of(atr);
    let protocols: Vec<_> = facts.protocols.iter().map(|t| format!("T={t}")).collect();
    let mut lines: Vec<_> = facts.known.map(str::to_owned).into_iter().collect();
    lines.extend(list_names.iter().map(|name| format!("pcsc-tools: {name}")));
    lines.extend(hint(atr).map(|family| format!("looks like {family}")));
    lines.push(format!("{}, {}", facts.convention(), protocols.join(" and ")));
    lines.extend(facts.interface.iter().copied().map(interface_line));
    if !facts.historical.bytes.is_empty() {
        let text = facts.historical.text().map_or(String::new(), |text| format!("  {text:?}"));
        lines.push(format!("historical bytes {}{text}", hex::encode(&facts.historical.bytes)));
    }
    lines.extend(facts.historical.entries.iter().map(entry_line));
    if facts.is_contactless {
        lines.push("contactless, ATR made up by the reader".to_owned());
    }
    if facts.checksum == Checksum::Valid {
        lines.push("check byte valid".to_owned());
    }
    lines.extend(facts.anomalies().iter().map(|odd| format!("odd: {odd}")));
    lines
}

fn interface_line(byte: InterfaceByte) -> String {
    format!("  {byte} {:02x}  {}", byte.value, byte.meaning())
}

fn entry_line(entry: &CompactTlv) -> String {
    let words = entry.description().map_or(String::new(), |words| format!("  {words}"));
    format!("  {}: {}{words}", entry.meaning(), hex::encode(&entry.value))
}

/// The same as an object.
pub(super) fn as_json(atr: &Atr, list_names: &[String]) -> Value {
    let facts = DecodedAtr::of(atr);
    let historical = &facts.historical;
    json!({
        "convention": facts.convention(),
        "protocols": facts.protocols,
        "interface": facts.interface.iter().copied().map(interface_object).collect::<Vec<_>>(),
        "historical": hex::encode(&historical.bytes),
        "historical_category": historical.category(),
        "historical_text": historical.text(),
        "compact_tlv": historical.entries.iter().map(entry_object).collect::<Vec<_>>(),
        "tck": facts.checksum.to_string(),
        "truncated": facts.truncated,
        "anomalies": facts.anomalies(),
        "contactless": facts.is_contactless,
        "family_hint": hint(atr),
        "card_name": facts.known,
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

#[cfg(test)]
mod tests {
    use super::*;

    const YUBIKEY: &str = "3bfd1300008131fe158073c021c057597562694b657940";

    #[test]
    fn our_name_comes_first_and_those_of_the_list_after_it() {
        let lines = as_text(&YUBIKEY.parse().unwrap(), &["Yubico YubiKey 5 NFC (PKI)".to_owned()]);
        let meant = [
            "YubiKey 5 NFC (contact)",
            "pcsc-tools: Yubico YubiKey 5 NFC (PKI)",
            "looks like piv",
            "direct, T=1",
            "  TA1 13  Fi 372, Di 4, up to 5 MHz: at most 53763 bit/s",
        ];
        assert_eq!(lines[..meant.len()], meant);
        assert_eq!(lines.last().unwrap(), "check byte valid");
    }

    #[test]
    fn the_object_has_every_byte_by_name_and_both_kinds_of_names() {
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
    fn a_card_that_nobody_knows_has_no_names() {
        let object = as_json(&"3f00".parse().unwrap(), &[]);
        assert!(object["card_name"].is_null() && object["family_hint"].is_null());
        assert_eq!(object["pcsc_tools_names"], json!([]));
        assert_eq!(as_text(&"3f00".parse().unwrap(), &[]), ["inverse, T=0"]);
    }
}
