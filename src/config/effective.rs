//! What is in force, and who says so.

use super::EffectiveKey;
use super::keys::{self, KEYS, KeySpec, WILDCARD};
use super::problem::Origin;
use super::tree::{Fields, MergedConfig, numbered};
use crate::domain::{CmEnums, EnumMap};

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
    let mut lines = Vec::new();
    for (item, number) in tree.items(list).iter().zip(1..) {
        lines.extend(
            of_fields(section, &item.fields)
                .into_iter()
                .map(|line| EffectiveKey { key: numbered(&line.key, number), ..line }),
        );
    }
    lines
}

fn of_numbers(section: &str, fields: &Fields, numbers: &CmEnums) -> Vec<EffectiveKey> {
    let line = |(name, number): (&str, i64)| {
        let key = keys::join(section, name);
        let said = fields.iter().find(|(path, _)| path.eq_ignore_ascii_case(&key));
        let origin = said.map_or(Origin::Default, |(_, leaf)| leaf.origin.clone());
        EffectiveKey { key, value: number.to_string(), origin }
    };
    let map = match section {
        "cm.numbers.request_type" => Some(&numbers.request_type),
        "cm.numbers.card_status" => Some(&numbers.card_status),
        "cm.numbers.request_status" => Some(&numbers.request_status),
        _ => None,
    };
    map.into_iter().flat_map(EnumMap::iter).map(line).collect()
}
