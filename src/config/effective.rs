//! What is in force, and who says so.

use super::Effective;
use super::keys::{self, KEYS, Key, OPEN};
use super::problem::Origin;
use super::tree::{Fields, Tree, numbered};
use crate::domain::{CmEnums, EnumMap};

/// Every key with a value, in the order of [`KEYS`].
pub(super) fn effective(tree: &Tree, numbers: &CmEnums) -> Vec<Effective> {
    KEYS.chunk_by(|a, b| a.section() == b.section())
        .flat_map(|section| match section {
            [key] if key.name() == OPEN => of_numbers(key.section(), &tree.fields, numbers),
            [key, ..] if !key.list().is_empty() => of_items(section, tree),
            _ => of_fields(section, &tree.fields),
        })
        .collect()
}

fn of_fields(section: &[Key], fields: &Fields) -> Vec<Effective> {
    let set = section.iter().filter_map(|key| Some((key, fields.get(key.path)?)));
    set.map(|(key, leaf)| Effective {
        key: key.path.to_owned(),
        value: leaf.value.to_string(),
        origin: leaf.origin.clone(),
    })
    .collect()
}

fn of_items(section: &[Key], tree: &Tree) -> Vec<Effective> {
    let list = section.first().map_or("", Key::list);
    let mut lines = Vec::new();
    for (item, number) in tree.items(list).iter().zip(1..) {
        lines.extend(
            of_fields(section, &item.fields)
                .into_iter()
                .map(|line| Effective { key: numbered(&line.key, number), ..line }),
        );
    }
    lines
}

fn of_numbers(section: &str, fields: &Fields, numbers: &CmEnums) -> Vec<Effective> {
    let line = |(name, number): (&str, i64)| {
        let key = keys::join(section, name);
        let said = fields.iter().find(|(path, _)| path.eq_ignore_ascii_case(&key));
        let origin = said.map_or(Origin::Default, |(_, leaf)| leaf.origin.clone());
        Effective { key, value: number.to_string(), origin }
    };
    let map = match section {
        "cm.numbers.request_type" => Some(&numbers.request_type),
        "cm.numbers.card_status" => Some(&numbers.card_status),
        "cm.numbers.request_status" => Some(&numbers.request_status),
        _ => None,
    };
    map.into_iter().flat_map(EnumMap::iter).map(line).collect()
}
