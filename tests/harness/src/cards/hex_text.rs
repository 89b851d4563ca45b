//! Bytes and status words as text in personalisation files.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Bytes in hex; blanks between them are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hex(pub(super) Vec<u8>);

/// A number of two bytes in hex, such as a status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u16);

/// Exactly N bytes in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exactly<const N: usize>(pub(super) [u8; N]);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: String = text.split_whitespace().collect();
        let bytes = hex::decode(digits);
        bytes.map(Self).map_err(|why| D::Error::custom(format!("{text:?} is not hex: {why}")))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Exactly<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Hex(bytes) = Hex::deserialize(deserializer)?;
        let count = bytes.len();
        let exactly = bytes.try_into().map(Self);
        exactly.map_err(|_| D::Error::custom(format!("{count} bytes where {N} are meant")))
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Exactly::<2>::deserialize(deserializer)
            .map(|Exactly(bytes)| Self(u16::from_be_bytes(bytes)))
    }
}
