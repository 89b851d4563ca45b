//! JSON from outside: objects with property names of any case, of which a few properties are read; and
//! bodies, split into the values that they hold while they arrive.
//!
//! Nothing here knows what the objects mean. Of properties that are not asked for, and of values
//! that are no scalars, nothing is built: the cost of a response is bounded by its length.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Why a body is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// No JSON, or not to its end: another server responds, or the body was cut off. Waiting may help.
    #[error("the body is not complete JSON")]
    NotJson(#[source] serde_json::Error),
    /// JSON, but none of CM's objects: another server responds. Waiting may help.
    #[error("the body is JSON, but has {0} where {1} was expected")]
    NotCm(&'static str, &'static str),
    /// One of CM's objects, but one that cannot be acted on. Waiting does not help.
    #[error("{0}")]
    Invalid(String),
    /// CM's, but more of it than is held. Waiting helps once it is less.
    #[error("{0}")]
    TooLarge(String),
}

/// The names of the properties to be read.
pub(super) type Aliases = &'static [&'static str];

/// The most properties an object may have; CM's have about twenty.
const MAX_PROPERTIES: usize = 256;

/// What stands where an object was expected.
pub(super) enum JsonItem {
    Null,
    Text(String),
    Integer(i64),
    Object(Object),
    /// Something else, by its kind.
    Other(&'static str),
}

/// What is read of a JSON object.
pub(super) struct Object {
    properties: Vec<(&'static str, JsonItem)>,
    twice: Option<String>,
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
        if let JsonItem::Text(text) = self.get(name)? { Some(text) } else { None }
    }

    /// A whole number, also where it is written as text.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            JsonItem::Integer(number) => Some(*number),
            JsonItem::Text(text) => text.parse().ok(),
            JsonItem::Null | JsonItem::Object(_) | JsonItem::Other(_) => None,
        }
    }

    fn get(&self, name: &str) -> Option<&JsonItem> {
        self.properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Reads one whole value; of an object, the properties of these names.
pub(super) fn item(text: &str, names: Aliases) -> Result<JsonItem, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let item = ItemVisitor(names).deserialize(&mut json)?;
    json.end()?;
    Ok(item)
}

/// Builds no object where no name is given.
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

    fn visit_i64<E>(self, number: i64) -> Result<JsonItem, E> {
        Ok(JsonItem::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonItem, E> {
        Ok(i64::try_from(number).map_or(JsonItem::Other("a number"), JsonItem::Integer))
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
        if self.0.is_empty() {
            IgnoredAny.visit_map(map)?;
            return Ok(JsonItem::Other("an object"));
        }
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
                    object.properties.push((asked, map.next_value_seed(ItemVisitor(&[]))?));
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

impl<'de> DeserializeSeed<'de> for ItemVisitor {
    type Value = JsonItem;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<JsonItem, D::Error> {
        json.deserialize_any(self)
    }
}

/// The byte order mark that some servers put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where in a body the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SplitState {
    Before,
    /// In a body that is no array.
    Single,
    /// In the first element of an array, if it has one.
    First,
    /// In an element that must be there.
    Next,
    After,
}

/// Hands out each element of an array, or the one value that a body is; one of them at a time is in
/// memory. Only brackets, strings and commas are parsed; whether a value is JSON is for its reader.
pub(super) struct ArraySplitter {
    place: SplitState,
    /// How much of the byte order mark was there.
    bom: usize,
    value: Vec<u8>,
    /// The most bytes of one value.
    limit: usize,
    /// Whether of a value only its own properties are held, and of long strings the beginning.
    shortens: bool,
    depth: usize,
    /// The string in which the next byte stands.
    string: Option<InString>,
}

/// A string that is not at its end.
#[derive(Clone, Copy)]
struct InString {
    escaped: bool,
    /// How many bytes it has so far.
    length: usize,
    /// How many bytes came since its last escape began: a cut never splits `\uXXXX`.
    unescaped: usize,
    /// Whether the rest is left out.
    is_cut: bool,
}

/// What is held of a string, in bytes: no property that is read is longer.
const STRING: usize = 512;

/// How many bytes follow the backslash of the longest escape, `\uXXXX`.
const ESCAPE: usize = 5;

impl ArraySplitter {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            place: SplitState::Before,
            bom: 0,
            value: Vec::new(),
            limit,
            shortens: false,
            depth: 0,
            string: None,
        }
    }

    /// The same, but of each value only its own properties are handed out, what is nested in them is
    /// empty, and long strings are cut: one value may be as long as it likes.
    pub(super) fn shortening(limit: usize) -> Self {
        Self { shortens: true, ..Self::new(limit) }
    }

    /// Takes the next bytes, and hands out what ends in them.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&str) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        bytes.iter().try_for_each(|&byte| match self.place {
            SplitState::Before => self.before(byte),
            SplitState::Single => {
                let is_held = self.follow(byte);
                if is_held { self.keep(byte) } else { Ok(()) }
            }
            SplitState::First | SplitState::Next => self.within(byte, each),
            SplitState::After if byte.is_ascii_whitespace() => Ok(()),
            SplitState::After => Err(not_json("something follows the array")),
        })
    }

    /// Hands out a value that only the end of the body ends.
    pub(super) fn finish(
        &mut self,
        each: &mut impl FnMut(&str) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        match self.place {
            SplitState::Before if !self.bom.is_multiple_of(BOM.len()) => Err(not_json("no UTF-8")),
            SplitState::Before | SplitState::After => Ok(()),
            SplitState::Single => self.hand_out(each),
            SplitState::First | SplitState::Next => Err(not_json("the array does not end")),
        }
    }

    fn before(&mut self, byte: u8) -> Result<(), ParseError> {
        if BOM.get(self.bom) == Some(&byte) {
            self.bom += 1;
            return Ok(());
        }
        if !self.bom.is_multiple_of(BOM.len()) {
            return Err(not_json("no UTF-8"));
        }
        match byte {
            b'[' => self.place = SplitState::First,
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                self.place = SplitState::Single;
                self.follow(byte);
                self.keep(byte)?;
            }
        }
        Ok(())
    }

    fn within(
        &mut self,
        byte: u8,
        each: &mut impl FnMut(&str) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        match byte {
            b',' | b']' if self.depth == 0 && self.string.is_none() => {
                let none = self.place == SplitState::First && byte == b']' && self.value.is_empty();
                self.place = if byte == b',' { SplitState::Next } else { SplitState::After };
                return if none { Ok(()) } else { self.hand_out(each) };
            }
            _ if byte.is_ascii_whitespace() && self.value.is_empty() => return Ok(()),
            _ => {}
        }
        let is_held = self.follow(byte);
        if is_held { self.keep(byte) } else { Ok(()) }
    }

    /// Follows strings and brackets, and returns whether this byte is held.
    fn follow(&mut self, byte: u8) -> bool {
        let before = self.depth;
        if let Some(mut string) = self.string.take() {
            let ends = byte == b'"' && !string.escaped;
            let is_held = string.follow(byte, self.shortens) || ends;
            self.string = (!ends).then_some(string);
            return is_held && (!self.shortens || before <= 1);
        }
        match byte {
            b'"' => self.string = Some(InString::BEGINNING),
            b'{' | b'[' => self.depth += 1,
            // One too many is found by the reader of the value.
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        // The brackets of what is nested are held, and nothing between them; nor is the space that
        // makes JSON pretty.
        let is_idle = byte.is_ascii_whitespace();
        !self.shortens || (before.min(self.depth) <= 1 && !is_idle)
    }

    fn keep(&mut self, byte: u8) -> Result<(), ParseError> {
        if self.value.len() == self.limit {
            let limit = self.limit;
            return Err(match self.place {
                SplitState::Single => not_json("it is too long for one value"),
                SplitState::Before | SplitState::First | SplitState::Next | SplitState::After => {
                    ParseError::TooLarge(format!("CM lists an object of more than {limit} bytes"))
                }
            });
        }
        self.value.push(byte);
        Ok(())
    }

    fn hand_out(
        &mut self,
        each: &mut impl FnMut(&str) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        let text = str::from_utf8(&self.value).map_err(not_json)?;
        each(text.trim_ascii())?;
        self.value.clear();
        Ok(())
    }
}

impl InString {
    const BEGINNING: Self = Self { escaped: false, length: 0, unescaped: ESCAPE, is_cut: false };

    /// Follows the string by a byte, and returns whether that is held.
    const fn follow(&mut self, byte: u8, shortens: bool) -> bool {
        let begins_a_character = byte & 0xC0 != 0x80;
        let may_be_cut = !self.escaped && self.unescaped >= ESCAPE && begins_a_character;
        self.is_cut |= shortens && self.length >= STRING && may_be_cut;
        self.escaped = byte == b'\\' && !self.escaped;
        self.unescaped = if self.escaped { 0 } else { self.unescaped.saturating_add(1) };
        self.length += 1;
        !self.is_cut
    }
}

fn not_json(reason: impl fmt::Display) -> ParseError {
    ParseError::NotJson(serde_json::Error::custom(reason))
}
