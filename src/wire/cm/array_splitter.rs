//! Splits a body into the values it holds while it comes in: one of them at a time is in memory.
//!
//! Only brackets, strings and commas are looked at; whether a value is JSON is for its reader. Of a value
//! of which only its short properties are read, the rest is not even held.

use serde::de::Error as _;

use super::ParseError;

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

/// Hands out each element of an array, or the one value that a body is.
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
    /// How many bytes came since its last escape began; those of `\uXXXX` are not parted.
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

    /// Follows strings and brackets, and tells whether this byte is held.
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

    /// Follows the string by a byte, and tells whether that is held.
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

fn not_json(why: impl std::fmt::Display) -> ParseError {
    ParseError::NotJson(serde_json::Error::custom(why))
}
