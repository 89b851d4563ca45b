//! JSON objects with property names of any case, of which a few properties are read.
//!
//! Nothing here knows what the objects mean. Of properties that nobody asked for, and of values that
//! are no scalars, nothing is built: what an answer costs is bounded by its length, whatever it holds.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The names of the properties to be read.
pub(super) type Aliases = &'static [&'static str];

/// The most properties an object may have; CM's have about twenty.
const MAX_PROPERTIES: usize = 256;

/// What stands where an object was expected.
pub(super) enum JsonItem {
    Null,
    Text(String),
    Object(Object),
    /// Something else, in words.
    Other(&'static str),
}

/// What is read of a JSON object.
pub(super) struct Object {
    properties: Vec<(&'static str, Scalar)>,
    twice: Option<String>,
}

enum Scalar {
    Text(String),
    Integer(i64),
    /// `null`, another number, or no scalar at all.
    Other,
}

impl Object {
    /// The first property whose name was there already, perhaps in another case.
    pub(super) fn duplicate_property(&self) -> Option<&str> {
        self.twice.as_deref()
    }

    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Scalar::Text(text) => Some(text),
            Scalar::Integer(_) | Scalar::Other => None,
        }
    }

    /// A whole number, also where it is written as text.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Scalar::Integer(number) => Some(*number),
            Scalar::Text(text) => text.parse().ok(),
            Scalar::Other => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Scalar> {
        self.properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Reads one whole value; of an object, the properties of these names.
pub(super) fn item(text: &str, names: Aliases) -> Result<JsonItem, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let item = json.deserialize_any(ItemVisitor(names))?;
    json.end()?;
    Ok(item)
}

struct ItemVisitor(Aliases);

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = JsonItem;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<JsonItem, E> {
        Ok(JsonItem::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<JsonItem, E> {
        Ok(JsonItem::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<JsonItem, E> {
        Ok(JsonItem::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<JsonItem, E> {
        Ok(JsonItem::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonItem, E> {
        Ok(JsonItem::Other("a number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonItem, E> {
        Ok(JsonItem::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<JsonItem, A::Error> {
        IgnoredAny.visit_seq(elements)?;
        Ok(JsonItem::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonItem, A::Error> {
        let mut names = BTreeSet::new();
        let mut object = Object { properties: Vec::new(), twice: None };
        while let Some(name) = map.next_key::<String>()? {
            if names.len() == MAX_PROPERTIES {
                map.next_value::<IgnoredAny>()?;
                IgnoredAny.visit_map(map)?;
                return Ok(JsonItem::Other("an object of more than 256 properties"));
            }
            let first = names.insert(name.to_ascii_lowercase());
            let asked = self.0.iter().find(|asked| name.eq_ignore_ascii_case(asked));
            match asked {
                Some(asked) if first => {
                    object.properties.push((asked, map.next_value_seed(ScalarSeed)?));
                }
                Some(_) | None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if !first {
                object.twice.get_or_insert(name);
            }
        }
        Ok(JsonItem::Object(object))
    }
}

/// Reads a scalar, and passes over what is none.
struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Scalar, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(number).map_or(Scalar::Other, Scalar::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_seq(elements)?;
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, properties: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_map(properties)?;
        Ok(Scalar::Other)
    }
}
