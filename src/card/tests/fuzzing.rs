//! What `tests/fuzz` calls and no other crate may. Compiled for a fuzzer only.

use super::exchange::{self, MAX_PARTS};
use super::{CommandApdu, Transmit, tlv};

pub const MAX_ANSWER: usize = exchange::MAX_ANSWER;
pub const MAX_READS: usize = exchange::MAX_READS;

/// The limit of commands for one exchange.
pub const MAX_QUESTION: usize = 2 * (MAX_PARTS + 1);

/// A tag and its value.
pub type DerObject<'a> = (u32, &'a [u8]);

pub fn ask(transport: &mut dyn Transmit, command: &CommandApdu) -> Result<Vec<u8>, String> {
    exchange::exchange(transport, command).map_err(|error| error.to_string())
}

/// Reads the selected file until there are so many bytes.
pub fn read_file(transport: &mut dyn Transmit, enough: usize) -> Result<Vec<u8>, String> {
    exchange::read_file(transport, |read| read.len() >= enough).map_err(|error| error.to_string())
}

#[must_use]
pub fn all(input: &[u8]) -> Option<Vec<DerObject<'_>>> {
    tlv::all(input).ok().map(pairs)
}

#[must_use]
pub fn before_padding(input: &[u8]) -> Vec<DerObject<'_>> {
    pairs(tlv::before_padding(input))
}

#[must_use]
pub fn value(input: &[u8], tag: u32) -> Option<&[u8]> {
    tlv::value(input, tag).ok()
}

/// The value of the only object before the padding that has this tag.
#[must_use]
pub fn only(input: &[u8], tag: u32) -> Option<&[u8]> {
    tlv::only(&tlv::before_padding(input), tag)
}

fn pairs(objects: Vec<tlv::Tlv<'_>>) -> Vec<DerObject<'_>> {
    objects.into_iter().map(|object| (object.tag, object.value)).collect()
}
