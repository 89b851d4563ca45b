//! The example file, and the settings in force with their origins.

use super::keys::{DEFAULT_RULES, DefaultValue, KEYS, KeySpec, WILDCARD, join};
use super::problem::Origin;
use super::tree::{Fields, MergedConfig, numbered};
use crate::domain::CmEnums;

const HEAD: &str = "\
# The configuration of cardbridge; see docs/configure.md.
#
# Every key is here. A line that begins with # and no blank shows how to set a key. A key that is not
# set has its default. `cardbridge config check` reports every problem at once.";

/// One key in force. No value is a secret: those are in the files of the `*_file` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveKey {
    /// The key's path: `cm.url`, `rule[2].name`. Tables of a list are counted over all files.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Where it is set.
    pub origin: Origin,
}

/// A commented example of every key. Unchanged, everything but `cm.url` has its default.
#[must_use]
pub fn example() -> String {
    let sections = KEYS.chunk_by(|a, b| a.section() == b.section());
    let lines = std::iter::once(HEAD.to_owned()).chain(sections.flat_map(section));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn section(keys: &[KeySpec]) -> Vec<String> {
    let Some(first) = keys.first() else { return Vec::new() };
    let mut lines = vec![String::new()];
    if first.section() == "rule[]" {
        lines.push("# The first rule that matches wins. Without any, these two hold:\n#".into());
        lines.extend(DEFAULT_RULES.lines().map(|line| format!("#     {line}").trim().to_owned()));
        lines.push("#\n# A rule with every key:".into());
    }
    let hash = if first.list().is_empty() { "" } else { "#" };
    lines.push(format!("{hash}{}", first.heading()));
    for key in keys {
        let name = if key.name() == WILDCARD { a_name_of(key.section()) } else { key.name() };
        let is_active = key.fallback == DefaultValue::Required && key.list().is_empty();
        let hash = if is_active { "" } else { "#" };
        let default = match key.fallback {
            DefaultValue::Required | DefaultValue::Unset => String::new(),
            DefaultValue::HostName | DefaultValue::Value(_) => {
                format!(" Default: {}.", key.default_text())
            }
        };
        lines.push(format!("# {}{default}", key.meaning));
        lines.push(format!("{hash}{name} = {}", key.example));
    }
    lines
}

/// A name for the example of a number of CM, with the known number: the example has no wrong one.
fn a_name_of(section: &str) -> &'static str {
    match section {
        "cm.numbers.card_status" => "Retired",
        "cm.numbers.request_status" => "Executing",
        _ => "OfflineUnblock",
    }
}

/// Every key with a value, in the order of [`KEYS`].
pub(super) fn effective(tree: &MergedConfig, numbers: &CmEnums) -> Vec<EffectiveKey> {
    KEYS.chunk_by(|a, b| a.section() == b.section())
        .flat_map(|section| match section {
            [key] if key.name() == WILDCARD => of_numbers(key.section(), &tree.fields, numbers),
            [key, ..] if !key.list().is_empty() => of_items(section, tree),
            _ => of_fields(section, &tree.fields),
        })
        .collect()
}

fn of_fields(section: &[KeySpec], fields: &Fields) -> Vec<EffectiveKey> {
    let set = section.iter().filter_map(|key| Some((key, fields.get(key.path)?)));
    set.map(|(key, leaf)| EffectiveKey {
        key: key.path.to_owned(),
        value: leaf.value.to_string(),
        origin: leaf.origin.clone(),
    })
    .collect()
}

fn of_items(section: &[KeySpec], tree: &MergedConfig) -> Vec<EffectiveKey> {
    let list = section.first().map_or("", KeySpec::list);
    let items = tree.items(list).iter().zip(1..);
    let lines = items.flat_map(|(item, number)| {
        let lines = of_fields(section, &item.fields).into_iter();
        lines.map(move |line| EffectiveKey { key: numbered(&line.key, number), ..line })
    });
    lines.collect()
}

fn of_numbers(section: &str, fields: &Fields, numbers: &CmEnums) -> Vec<EffectiveKey> {
    let map = match section {
        "cm.numbers.request_type" => &numbers.request_type,
        "cm.numbers.card_status" => &numbers.card_status,
        _ => &numbers.request_status,
    };
    let line = |(name, number): (&str, i64)| {
        let key = join(section, name);
        let set = fields.iter().find(|(path, _)| path.eq_ignore_ascii_case(&key));
        let origin = set.map_or(Origin::Default, |(_, leaf)| leaf.origin.clone());
        EffectiveKey { key, value: number.to_string(), origin }
    };
    map.iter().map(line).collect()
}
