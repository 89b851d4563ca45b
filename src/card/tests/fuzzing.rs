//! The way in for `tests/fuzz` to what no other crate may call. Compiled under a fuzzer only.

use super::exchange::{self, MAX_PARTS};
use super::{CommandApdu, Transmit, tlv};

/// The most bytes of any answer, and of any file.
pub const MAX_ANSWER: usize = exchange::MAX_ANSWER;

/// The most commands that one question takes.
pub const MAX_QUESTION: usize = 2 * (MAX_PARTS + 1);

/// The most questions that one file takes.
pub const MAX_READS: usize = exchange::MAX_READS;

/// Asks one question. The error is for people.
pub fn ask(transport: &mut dyn Transmit, command: &CommandApdu) -> Result<Vec<u8>, String> {
    exchange::exchange(transport, command).map_err(|why| why.to_string())
}

/// Reads the selected file until there are this many bytes. The error is for people.
pub fn read_file(transport: &mut dyn Transmit, enough: usize) -> Result<Vec<u8>, String> {
    exchange::read_file(transport, |read| read.len() >= enough).map_err(|why| why.to_string())
}

/// A tag and its value.
pub type DerObject<'a> = (u32, &'a [u8]);

/// Every data object, where the input is nothing else.
#[must_use]
pub fn all(input: &[u8]) -> Option<Vec<DerObject<'_>>> {
    tlv::all(input).ok().map(pairs)
}

/// The data objects up to padding or to whatever is none.
#[must_use]
pub fn before_padding(input: &[u8]) -> Vec<DerObject<'_>> {
    pairs(tlv::before_padding(input))
}

/// The value of the one data object that the input is.
#[must_use]
pub fn value(input: &[u8], tag: u32) -> Option<&[u8]> {
    tlv::value(input, tag).ok()
}

/// The value of the one object before the padding that has this tag.
#[must_use]
pub fn only(input: &[u8], tag: u32) -> Option<&[u8]> {
    tlv::only(&tlv::before_padding(input), tag)
}

fn pairs(objects: Vec<tlv::Tlv<'_>>) -> Vec<DerObject<'_>> {
    objects.into_iter().map(|object| (object.tag, object.value)).collect()
}
