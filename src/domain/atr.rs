//! Answer-to-reset: the bytes a card says when it is powered (ISO 7816-3 section 8).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest ATR that ISO 7816-3 section 8.2.1 allows: TS and 32 more bytes.
const MAX_LEN: usize = 33;

/// The answer-to-reset of a card, 2 to 33 bytes; its text is lower-case hex.
///
/// An ATR contains its length, and bytes after its end are no part of it. pcscd 1.9.9 at times
/// gives the length of its buffer, and what the buffer holds. So zeros after the end are left out,
/// and whatever follows the end of one that fills the buffer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Atr(Vec<u8>);

/// Why some bytes or some text are not an ATR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAtrError {
    #[error("not hexadecimal")]
    NotHex,
    #[error("ATR has {0} bytes, expected 2 to 33")]
    Length(usize),
}

impl Atr {
    /// The bytes, TS first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Atr {
    type Error = ParseAtrError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseAtrError> {
        if (2..=MAX_LEN).contains(&bytes.len()) {
            Ok(Self(without_padding(bytes).to_vec()))
        } else {
            Err(ParseAtrError::Length(bytes.len()))
        }
    }
}

/// The bytes up to the end that they give themselves, where what follows is a buffer's.
fn without_padding(bytes: &[u8]) -> &[u8] {
    let Some((atr, after)) = length(bytes).and_then(|length| bytes.split_at_checked(length)) else {
        return bytes;
    };
    let is_buffer = bytes.len() == MAX_LEN || after.iter().all(|byte| *byte == 0);
    if is_buffer { atr } else { bytes }
}

/// The length of an ATR by its own account (ISO 7816-3:2006 section 8.2): TS and T0, the interface
/// bytes that T0 and each TD announce, the historical bytes, and TCK where a TD names another
/// protocol than T=0. Nothing, where it begins as no ATR does or ends before that.
fn length(bytes: &[u8]) -> Option<usize> {
    let [DIRECT | INVERSE, t0, ..] = *bytes else { return None };
    let (mut announced, mut has_tck) = (t0, false);
    let mut length = 2;
    loop {
        length += usize::try_from((announced & INTERFACE).count_ones()).ok()?;
        if announced & TD == 0 {
            break;
        }
        // TD is the last of the four.
        announced = *bytes.get(length.checked_sub(1)?)?;
        has_tck |= announced & PROTOCOL != 0;
    }
    length += usize::from(t0 & HISTORICAL) + usize::from(has_tck);
    (length <= bytes.len()).then_some(length)
}

/// TS: the conventions by which a card sends bits.
const DIRECT: u8 = 0x3B;
const INVERSE: u8 = 0x3F;

/// T0 and TD: which of TA, TB, TC and TD follow; in T0, the number of historical bytes; in TD, the
/// protocol.
const INTERFACE: u8 = 0xF0;
const TD: u8 = 0x80;
const HISTORICAL: u8 = 0x0F;
const PROTOCOL: u8 = 0x0F;

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

/// Why some text is not an ATR pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAtrPatternError {
    #[error("{0:?} is not a hex digit or `?`")]
    Character(char),
    #[error("ATR pattern has {0} digits, expected an even number from 4 to 66")]
    Length(usize),
}

impl AtrPattern {
    pub fn matches(&self, atr: &Atr) -> bool {
        let text = atr.to_string();
        text.len() == self.0.len()
            && self.0.chars().zip(text.chars()).all(|(want, is)| want == '?' || want == is)
    }

    /// The pattern as text, lower case.
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
        // Without a ? it is an ATR, and ends where that does.
        Ok(Self(text.parse().map_or(text, |atr: Atr| atr.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: &str = "3b8d0180fba000000397425446590301c8";

    /// Whole ATRs: T=1 with TCK, T=0 alone, T=0 and T=1, T=1 and T=15, inverse, nothing but TS and T0.
    const WHOLE: [&str; 6] = [
        SEED,
        "3b6500002063cb6800",
        "3bf71100008131fe6543616e6f6b657999",
        "3b8f8001804f0ca000000306030001000000006a",
        "3f65000000000000ff",
        "3b00",
    ];

    fn bytes_of(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn buffer_is_cut_to_its_atr() {
        for text in WHOLE {
            let whole = bytes_of(text);
            for length in whole.len()..=MAX_LEN {
                let mut buffer = whole.clone();
                buffer.resize(length, 0);
                assert_eq!(Atr::try_from(buffer.as_slice()).unwrap().to_string(), text, "{length}");
            }
            let mut used = whole.clone();
            used.resize(MAX_LEN, 0x90);
            assert_eq!(Atr::try_from(used.as_slice()).unwrap().to_string(), text);
            assert_eq!(hex::encode(&used).parse::<Atr>().unwrap().to_string(), text);
            let stored = format!("\"{}\"", hex::encode(&used));
            assert_eq!(serde_json::from_str::<Atr>(&stored).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_bytes_are_kept() {
        for text in ["3b0000aa", "3b8d0180fb0000", "000000", "3bff", "3c000000", "3b80800101ff"] {
            assert_eq!(text.parse::<Atr>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn cut_atr_is_a_stable_prefix(
            bytes in prop::collection::vec(any::<u8>(), 2..=MAX_LEN),
        ) {
            let atr = Atr::try_from(bytes.as_slice()).unwrap();
            prop_assert!(bytes.starts_with(atr.as_bytes()));
            prop_assert_eq!(&Atr::try_from(atr.as_bytes()).unwrap(), &atr);
        }

        #[test]
        fn atr_ignores_trailing_zeros(
            t0 in any::<u8>(), rest in prop::collection::vec(any::<u8>(), MAX_LEN - 2),
            zeros in 1_usize..MAX_LEN,
        ) {
            let bytes = [&[DIRECT, t0], rest.as_slice()].concat();
            let Some(whole) = length(&bytes).and_then(|length| bytes.get(..length)) else {
                return Ok(());
            };
            let mut padded = whole.to_vec();
            padded.resize((whole.len() + zeros).min(MAX_LEN), 0);
            prop_assert_eq!(Atr::try_from(padded.as_slice()).unwrap(), Atr(whole.to_vec()));
        }
    }

    #[test]
    fn atr_text_is_lower_case_hex() {
        let atr: Atr = SEED.to_ascii_uppercase().parse().unwrap();
        assert_eq!(atr.to_string(), SEED);
    }

    #[test]
    fn atr_of_invalid_length_is_rejected() {
        assert_eq!("3b".parse::<Atr>(), Err(ParseAtrError::Length(1)));
        assert_eq!("3b".repeat(34).parse::<Atr>(), Err(ParseAtrError::Length(34)));
        assert_eq!("3b0".parse::<Atr>(), Err(ParseAtrError::NotHex));
        assert!("3b".repeat(33).parse::<Atr>().is_ok());
    }

    #[test]
    fn pattern_from_padded_buffer_matches() {
        for text in WHOLE {
            let mut buffer = bytes_of(text);
            buffer.resize(MAX_LEN, 0);
            let pattern: AtrPattern = hex::encode_upper(buffer).parse().unwrap();
            assert!(pattern.matches(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn pattern_matches_whole_atr_only() {
        let atr: Atr = SEED.parse().unwrap();
        assert!("3B8D0180fba000000397425446590301??".parse::<AtrPattern>().unwrap().matches(&atr));
        assert!(!"3b8d".parse::<AtrPattern>().unwrap().matches(&atr));
        assert!("3g".parse::<AtrPattern>().is_err());
        assert!("3b?".parse::<AtrPattern>().is_err());
    }
}
