//! An ATR in words.

use serde_json::{Value, json};

use crate::card::{AtrFacts, Checksum};
use crate::domain::Atr;

pub(super) fn as_text(atr: &Atr) -> Vec<String> {
    let facts = AtrFacts::of(atr);
    let protocols: Vec<_> = facts.protocols.iter().map(|t| format!("T={t}")).collect();
    let mut lines = vec![format!("{}, {}", facts.convention, protocols.join(" and "))];
    lines.extend(facts.known.map(str::to_owned));
    if !facts.historical.is_empty() {
        lines.push(format!("historical bytes {}", hex::encode(&facts.historical)));
    }
    for entry in &facts.entries {
        lines.push(format!("  {}: {}", entry.meaning(), hex::encode(&entry.value)));
    }
    if facts.contactless.is_some() {
        lines.push("contactless, ATR made up by the reader".to_owned());
    }
    if matches!(facts.checksum, Checksum::Wrong | Checksum::Missing) {
        lines.push(format!("check byte {}", facts.checksum));
    }
    if facts.cut_off {
        lines.push("ends before it should".to_owned());
    }
    lines
}

pub(super) fn as_json(atr: &Atr) -> Value {
    let facts = AtrFacts::of(atr);
    let entries: Vec<_> = facts
        .entries
        .iter()
        .map(|entry| json!({ "tag": entry.tag, "value": hex::encode(&entry.value) }))
        .collect();
    json!({
        "convention": facts.convention.to_string(),
        "protocols": facts.protocols,
        "historical": hex::encode(&facts.historical),
        "compact_tlv": entries,
        "tck": facts.checksum.to_string(),
        "cut_off": facts.cut_off,
        "contactless": facts.contactless.is_some(),
        "known_as": facts.known,
    })
}
