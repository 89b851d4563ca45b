//! An ATR in words.

use serde_json::{Value, json};

use crate::card::{AtrFacts, Checksum, CompactTlv, InterfaceByte, hint};
use crate::domain::Atr;

/// The lines about an ATR.
pub(super) fn as_text(atr: &Atr) -> Vec<String> {
    let facts = AtrFacts::of(atr);
    let protocols: Vec<_> = facts.protocols.iter().map(|t| format!("T={t}")).collect();
    let mut lines: Vec<_> = facts.known.map(str::to_owned).into_iter().collect();
    lines.extend(hint(atr).map(|family| format!("looks like {family}")));
    lines.push(format!("{}, {}", facts.convention, protocols.join(" and ")));
    lines.extend(facts.interface.iter().copied().map(interface_line));
    if !facts.historical.bytes.is_empty() {
        let text = facts.historical.text().map_or(String::new(), |text| format!("  {text:?}"));
        lines.push(format!("historical bytes {}{text}", hex::encode(&facts.historical.bytes)));
    }
    lines.extend(facts.historical.entries.iter().map(entry_line));
    if facts.contactless.is_some() {
        lines.push("contactless, ATR made up by the reader".to_owned());
    }
    if facts.checksum == Checksum::Right {
        lines.push("check byte right".to_owned());
    }
    lines.extend(facts.odd().iter().map(|odd| format!("odd: {odd}")));
    lines
}

fn interface_line(byte: InterfaceByte) -> String {
    format!("  {byte} {:02x}  {}", byte.value, byte.meaning())
}

fn entry_line(entry: &CompactTlv) -> String {
    let words = entry.words().map_or(String::new(), |words| format!("  {words}"));
    format!("  {}: {}{words}", entry.meaning(), hex::encode(&entry.value))
}

/// The same as an object.
pub(super) fn as_json(atr: &Atr) -> Value {
    let facts = AtrFacts::of(atr);
    let historical = &facts.historical;
    json!({
        "convention": facts.convention.to_string(),
        "protocols": facts.protocols,
        "interface": facts.interface.iter().copied().map(interface_object).collect::<Vec<_>>(),
        "historical": hex::encode(&historical.bytes),
        "historical_category": historical.category().map(|category| category.to_string()),
        "historical_text": historical.text(),
        "compact_tlv": historical.entries.iter().map(entry_object).collect::<Vec<_>>(),
        "tck": facts.checksum.to_string(),
        "cut_off": facts.cut_off,
        "odd": facts.odd().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "contactless": facts.contactless.is_some(),
        "family_hint": hint(atr),
        "known_as": facts.known,
    })
}

fn interface_object(byte: InterfaceByte) -> Value {
    json!({
        "name": byte.to_string(),
        "value": hex::encode([byte.value]),
        "scope": byte.scope().to_string(),
        "meaning": byte.meaning(),
    })
}

fn entry_object(entry: &CompactTlv) -> Value {
    json!({
        "tag": entry.tag,
        "value": hex::encode(&entry.value),
        "meaning": entry.meaning(),
        "words": entry.words(),
    })
}
