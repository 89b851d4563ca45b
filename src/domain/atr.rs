//! Answer-to-reset: the bytes a card says when it is powered (ISO 7816-3 section 8).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest ATR that ISO 7816-3 section 8.2.1 allows: TS and 32 more bytes.
const MAX_LEN: usize = 33;

/// The answer-to-reset of a card, 2 to 33 bytes; its text is lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Atr(Vec<u8>);

/// Why some bytes or some text are no ATR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAtrError {
    /// Not pairs of hex digits.
    #[error("not hexadecimal")]
    NotHex,
    /// Shorter than TS and T0, or longer than the standard allows.
    #[error("{0} bytes where an ATR has 2 to 33")]
    Length(usize),
}

impl Atr {
    /// The bytes, TS first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Atr {
    type Error = ParseAtrError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseAtrError> {
        if (2..=MAX_LEN).contains(&bytes.len()) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(ParseAtrError::Length(bytes.len()))
        }
    }
}

impl FromStr for Atr {
    type Err = ParseAtrError;

    fn from_str(text: &str) -> Result<Self, ParseAtrError> {
        let bytes = hex::decode(text).map_err(|_| ParseAtrError::NotHex)?;
        Self::try_from(bytes.as_slice())
    }
}

impl TryFrom<String> for Atr {
    type Error = ParseAtrError;

    fn try_from(text: String) -> Result<Self, ParseAtrError> {
        text.parse()
    }
}

impl From<Atr> for String {
    fn from(atr: Atr) -> Self {
        atr.to_string()
    }
}

impl fmt::Display for Atr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Atr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Atr({self})")
    }
}

/// A pattern over the hex text of an ATR, where `?` stands for any one digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtrPattern(String);

/// Why some text is no ATR pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAtrPatternError {
    /// A character that is neither a hex digit nor `?`.
    #[error("{0:?} is neither a hex digit nor ?")]
    Character(char),
    /// An odd number of digits, or a length that no ATR has.
    #[error("{0} digits where an ATR has an even number from 4 to 66")]
    Length(usize),
}

impl AtrPattern {
    /// Whether the pattern stands for this ATR, whole.
    #[must_use]
    pub fn matches(&self, atr: &Atr) -> bool {
        let text = atr.to_string();
        text.len() == self.0.len()
            && self.0.chars().zip(text.chars()).all(|(want, is)| want == '?' || want == is)
    }

    /// The pattern as text, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AtrPattern {
    type Err = ParseAtrPatternError;

    fn from_str(text: &str) -> Result<Self, ParseAtrPatternError> {
        let text = text.to_ascii_lowercase();
        if let Some(c) = text.chars().find(|c| !c.is_ascii_hexdigit() && *c != '?') {
            return Err(ParseAtrPatternError::Character(c));
        }
        if !text.len().is_multiple_of(2) || !(4..=2 * MAX_LEN).contains(&text.len()) {
            return Err(ParseAtrPatternError::Length(text.len()));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "3b8d0180fba000000397425446590301c8";

    #[test]
    fn text_is_lower_case_hex_whatever_the_case_read() {
        let atr: Atr = SEED.to_ascii_uppercase().parse().unwrap();
        assert_eq!(atr.to_string(), SEED);
    }

    #[test]
    fn lengths_outside_the_standard_are_no_atr() {
        assert_eq!("3b".parse::<Atr>(), Err(ParseAtrError::Length(1)));
        assert_eq!("3b".repeat(34).parse::<Atr>(), Err(ParseAtrError::Length(34)));
        assert_eq!("3b0".parse::<Atr>(), Err(ParseAtrError::NotHex));
        assert!("3b".repeat(33).parse::<Atr>().is_ok());
    }

    #[test]
    fn a_pattern_matches_whole_atrs_only() {
        let atr: Atr = SEED.parse().unwrap();
        assert!("3B8D0180fba000000397425446590301??".parse::<AtrPattern>().unwrap().matches(&atr));
        assert!(!"3b8d".parse::<AtrPattern>().unwrap().matches(&atr));
        assert!("3g".parse::<AtrPattern>().is_err());
        assert!("3b?".parse::<AtrPattern>().is_err());
    }
}
