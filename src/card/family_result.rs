//! What a family's probe returns: a reading with ids, or why there is none.

use uuid::Uuid;

use super::TransmitError;
use super::apdu::CommandApdu;
use super::exchange::ExchangeError;
use crate::domain::{Candidate, CardId, IdRule, Serial, Strength, is_placeholder};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CardReading {
    pub(super) serial: Serial,
    /// The likeliest first.
    pub(super) ids: Vec<ReadId>,
    pub(super) reselect: Option<CommandApdu>,
}

impl CardReading {
    pub(super) fn new(
        serial: Serial,
        ids: impl IntoIterator<Item = Option<ReadId>>,
        reselect: Option<CommandApdu>,
    ) -> Self {
        Self { serial, ids: ids.into_iter().flatten().collect(), reselect }
    }

    #[cfg(test)]
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.ids.iter().map(|id| id.candidate.clone()).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadId {
    pub(super) candidate: Candidate,
    /// Known to belong to no card: a site cannot pin its rule.
    pub(super) is_placeholder: bool,
}

/// What an id proves, by the value that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdWorth {
    /// Generated for this card.
    Unique,
    /// A serial number that its issuer assigns once.
    Serial,
    /// More than one card can have it.
    Shared,
    /// Known to belong to no card.
    Placeholder,
}

impl IdWorth {
    pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
        if is_placeholder(bytes) { Self::Placeholder } else { Self::Unique }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoReading {
    /// Not a card of this family: probe the next one.
    OtherFamily(String),
    /// A card of this family, without a usable id.
    NoId(String),
    Interrupted(TransmitError),
}

impl NoReading {
    pub(super) fn other_family(error: ExchangeError) -> Self {
        if let ExchangeError::Interrupted(error) = error {
            return Self::Interrupted(error);
        }
        Self::OtherFamily(error.to_string())
    }

    pub(super) fn no_id(what: &str, error: ExchangeError) -> Self {
        if let ExchangeError::Interrupted(error) = error {
            return Self::Interrupted(error);
        }
        Self::NoId(format!("{what}: {error}"))
    }
}

impl From<TransmitError> for NoReading {
    fn from(error: TransmitError) -> Self {
        Self::Interrupted(error)
    }
}

/// The id of 16 bytes that are a Windows GUID in memory order: the first three fields little-endian.
pub(super) fn le(rule: IdRule, bytes: [u8; 16], worth: IdWorth) -> Option<ReadId> {
    id(rule, Uuid::from_bytes_le(bytes), worth)
}

/// The id of 16 bytes in reading order.
pub(super) fn be(rule: IdRule, bytes: [u8; 16], worth: IdWorth) -> Option<ReadId> {
    id(rule, Uuid::from_bytes(bytes), worth)
}

/// No id where CM would have none: all zeros, or all ones.
fn id(rule: IdRule, uuid: Uuid, worth: IdWorth) -> Option<ReadId> {
    let card_id = CardId::try_from(uuid).ok()?;
    let strength = match worth {
        IdWorth::Unique => Strength::Unique,
        IdWorth::Serial => Strength::Serial,
        IdWorth::Shared | IdWorth::Placeholder => Strength::Shared,
    };
    let candidate = Candidate { card_id, rule, strength, pinned: false };
    Some(ReadId { candidate, is_placeholder: worth == IdWorth::Placeholder })
}

/// As many bytes of a serial as OpenSC's minidriver keeps (`SC_MAX_SERIALNR`).
const MAX_SERIAL: usize = 32;

/// The 16 bytes of `cardid` that OpenSC's minidriver for Windows makes of a serial text: its bytes as
/// hex, or else its ASCII bytes, repeated. Windows reads them as a GUID in memory order.
///
/// Source: OpenSC `src/minidriver/minidriver.c`, `md_set_cardid`.
pub(super) fn opensc_cardid(serial: &str) -> [u8; 16] {
    let bytes = hex_to_bin(serial).unwrap_or_else(|| serial.bytes().take(MAX_SERIAL).collect());
    let mut cardid = [0; 16];
    for (to, from) in cardid.iter_mut().zip(bytes.iter().cycle()) {
        *to = *from;
    }
    cardid
}

/// Hex as OpenSC's `sc_hex_to_bin` (`src/libopensc/sc.c`) reads it: either case, blanks and colons
/// between whole bytes only, no odd digit but a single one, at most [`MAX_SERIAL`] bytes.
fn hex_to_bin(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut high: Option<u8> = None;
    for letter in text.chars() {
        match (letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()), high) {
            (None, None) if matches!(letter, ' ' | ':') => {}
            (None, _) => return None,
            (Some(_), None) if bytes.len() == MAX_SERIAL => return None,
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(first)) => {
                bytes.push(first << 4 | digit);
                high = None;
            }
        }
    }
    match high {
        None => Some(bytes),
        Some(single) => bytes.is_empty().then(|| vec![single]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// The serial text, the 16 bytes, and the GUID that Windows shows.
    const TABLE: [(&str, &str, &str); 10] = [
        (
            "fffe52ff6f06",
            "fffe52ff6f06fffe52ff6f06fffe52ff",
            "ff52feff-066f-feff-52ff-6f06fffe52ff",
        ),
        (
            "000612345678",
            "00061234567800061234567800061234",
            "34120600-7856-0600-1234-567800061234",
        ),
        (
            "9276000000001234",
            "92760000000012349276000000001234",
            "00007692-0000-3412-9276-000000001234",
        ),
        ("DENK0200123", "44454e4b3032303031323344454e4b30", "4b4e4544-3230-3030-3132-3344454e4b30"),
        (
            "0006123456780",
            "30303036313233343536373830303030",
            "36303030-3231-3433-3536-373830303030",
        ),
        ("7", "07070707070707070707070707070707", "07070707-0707-0707-0707-070707070707"),
        (
            "d4e739da739ced39ce739d836858210842108421c84210c3eb",
            "d4e739da739ced39ce739d8368582108",
            "da39e7d4-9c73-39ed-ce73-9d8368582108",
        ),
        (
            "a04f5343731001f9aa6e34537bee6fc1",
            "a04f5343731001f9aa6e34537bee6fc1",
            "43534fa0-1073-f901-aa6e-34537bee6fc1",
        ),
        (
            "3ff188bcba833740826246eba1291c6e",
            "3ff188bcba833740826246eba1291c6e",
            "bc88f13f-83ba-4037-8262-46eba1291c6e",
        ),
        ("0000", "00000000000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
    ];

    #[test]
    fn opensc_cardid_is_that_of_minidriver() {
        for (serial, bytes, guid) in TABLE {
            let cardid = opensc_cardid(serial);
            assert_eq!(hex::encode(cardid), bytes, "{serial}");
            assert_eq!(Uuid::from_bytes_le(cardid).to_string(), guid, "{serial}");
        }
    }

    #[test]
    fn hex_separators_are_between_whole_bytes() {
        assert_eq!(hex_to_bin("00:06 12"), Some(vec![0, 6, 0x12]));
        assert_eq!(hex_to_bin(" 00 "), Some(vec![0]));
        assert_eq!(hex_to_bin("0:0"), None);
        assert_eq!(hex_to_bin("7 "), None);
        assert_eq!(hex_to_bin("00-06"), None);
    }

    #[test]
    fn serial_over_32_bytes_is_text() {
        assert_eq!(hex_to_bin(&"0".repeat(64)).unwrap().len(), 32);
        assert_eq!(hex_to_bin(&format!("{}  ", "0".repeat(64))).unwrap().len(), 32);
        assert_eq!(opensc_cardid(&"1".repeat(65)), [b'1'; 16]);
    }

    #[test]
    fn empty_serial_makes_zero_id() {
        assert_eq!(opensc_cardid(""), [0; 16]);
    }

    proptest! {
        #[test]
        fn every_serial_text_has_cardid(text in ".{0,80}") {
            let _ = opensc_cardid(&text);
        }
    }
}
