//! Splits a body into the values it holds while it comes in: one of them at a time is in memory.
//!
//! Only brackets, strings and commas are looked at; whether a value is JSON is for its reader.

use serde::de::Error as _;

use super::ReadError;

/// The byte order mark that some servers put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where in a body the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
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
pub(super) struct Splitter {
    place: Place,
    /// How much of the byte order mark was there.
    bom: usize,
    value: Vec<u8>,
    /// The most bytes of one value.
    limit: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            place: Place::Before,
            bom: 0,
            value: Vec::new(),
            limit,
            depth: 0,
            in_string: false,
            escaped: false,
        }
    }

    /// Takes the next bytes, and hands out what ends in them.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&str) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        bytes.iter().try_for_each(|&byte| match self.place {
            Place::Before => self.before(byte),
            Place::Single => self.keep(byte),
            Place::First | Place::Next => self.within(byte, each),
            Place::After if byte.is_ascii_whitespace() => Ok(()),
            Place::After => Err(not_json("something follows the array")),
        })
    }

    /// Hands out a value that only the end of the body ends.
    pub(super) fn finish(
        &mut self,
        each: &mut impl FnMut(&str) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        match self.place {
            Place::Before if !self.bom.is_multiple_of(BOM.len()) => Err(not_json("no UTF-8")),
            Place::Before | Place::After => Ok(()),
            Place::Single => self.hand_out(each),
            Place::First | Place::Next => Err(not_json("the array does not end")),
        }
    }

    fn before(&mut self, byte: u8) -> Result<(), ReadError> {
        if BOM.get(self.bom) == Some(&byte) {
            self.bom += 1;
            return Ok(());
        }
        if !self.bom.is_multiple_of(BOM.len()) {
            return Err(not_json("no UTF-8"));
        }
        match byte {
            b'[' => self.place = Place::First,
            _ if byte.is_ascii_whitespace() => {}
            _ => {
                self.place = Place::Single;
                self.keep(byte)?;
            }
        }
        Ok(())
    }

    fn within(
        &mut self,
        byte: u8,
        each: &mut impl FnMut(&str) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = byte == b'\\' && !self.escaped;
            return self.keep(byte);
        }
        match byte {
            b',' | b']' if self.depth == 0 => {
                let none = self.place == Place::First && byte == b']' && self.value.is_empty();
                self.place = if byte == b',' { Place::Next } else { Place::After };
                return if none { Ok(()) } else { self.hand_out(each) };
            }
            _ if byte.is_ascii_whitespace() && self.value.is_empty() => return Ok(()),
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            // One too many is found by the reader of the value.
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.keep(byte)
    }

    fn keep(&mut self, byte: u8) -> Result<(), ReadError> {
        if self.value.len() == self.limit {
            let limit = self.limit;
            return Err(match self.place {
                Place::Single => not_json("it is too long for one value"),
                Place::Before | Place::First | Place::Next | Place::After => {
                    ReadError::TooMuch(format!("CM lists an object of more than {limit} bytes"))
                }
            });
        }
        self.value.push(byte);
        Ok(())
    }

    fn hand_out(
        &mut self,
        each: &mut impl FnMut(&str) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let text = str::from_utf8(&self.value).map_err(not_json)?;
        each(text.trim_ascii())?;
        self.value.clear();
        Ok(())
    }
}

fn not_json(why: impl std::fmt::Display) -> ReadError {
    ReadError::NotJson(serde_json::Error::custom(why))
}
