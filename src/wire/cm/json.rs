//! JSON objects with property names of any case, read one at a time.
//!
//! Nothing here knows what the objects mean.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The byte order mark that some servers put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What stands where an object was expected.
pub(super) enum Item {
    Null,
    Object(Object),
    /// Something else, in words.
    Other(&'static str),
}

/// A JSON object as it was received.
pub(super) struct Object {
    properties: Map<String, Value>,
    twice: Option<String>,
}

impl Object {
    /// The first property whose name was there already, perhaps in another case.
    pub(super) fn twice(&self) -> Option<&str> {
        self.twice.as_deref()
    }

    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A whole number, also where it is written as text.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        let value = self.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.properties)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.properties
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Hands out what a body holds: each element of an array, or the one value, or nothing.
/// One element at a time is in memory.
pub(super) fn for_each(body: &[u8], mut each: impl FnMut(Item)) -> Result<(), serde_json::Error> {
    let body = body.strip_prefix(BOM).unwrap_or(body).trim_ascii();
    let mut json = serde_json::Deserializer::from_slice(body);
    match body.first() {
        None => return Ok(()),
        Some(b'[') => json.deserialize_seq(Elements(&mut each))?,
        Some(_) => each(Item::deserialize(&mut json)?),
    }
    json.end()
}

/// Visits an array, and hands out its elements.
struct Elements<'a, F>(&'a mut F);

impl<'de, F: FnMut(Item)> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(item) = elements.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Item, E> {
        Ok(Item::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Item, E> {
        Ok(Item::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Item, E> {
        Ok(Item::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Item, E> {
        Ok(Item::Other("a number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Item, E> {
        Ok(Item::Other("a string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Item, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Item::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut names = HashSet::new();
        let mut object = Object { properties: Map::new(), twice: None };
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if !names.insert(name.to_ascii_lowercase()) {
                object.twice.get_or_insert_with(|| name.clone());
            }
            object.properties.insert(name, value);
        }
        Ok(Item::Object(object))
    }
}
