//! A card that a fuzzer plays: whatever it is asked, it gives the next of its answers, and the last
//! one for ever.
//!
//! The first byte of the input is about the circumstances: [`T0`], [`IN_USE`], [`TORN_OUT`], and in
//! the high half which of [`ATRS`] the card has. Then come the answers, status words included: a byte
//! says how long one is, FF that two bytes (high, low) say so. The last may be cut off.

use cardbridge::card::{CommandApdu, Protocol, Transmit, TransmitError};
use cardbridge::domain::Atr;

/// Reader and card speak T=0, not T=1.
pub const T0: u8 = 0x01;

/// Another program uses the card.
pub const IN_USE: u8 = 0x02;

/// The card is gone after its last answer, instead of giving it for ever.
pub const TORN_OUT: u8 = 0x04;

/// ATRs that make a difference to what a card is asked: none known, a contactless card, YubiKeys
/// with and without contacts, `MyEID`, `CardOS`.
pub const ATRS: [&[u8]; 6] = [
    &[0x3B, 0x00],
    &[0x3B, 0x80, 0x80, 0x01, 0x01],
    b"\x3B\xFD\x13\x00\x00\x81\x31\xFE\x15\x80\x73\xC0\x21\xC0\x57YubiKey\x40",
    b"\x3B\x8D\x80\x01\x80\x73\xC0\x21\xC0\x57YubiKey\xF9",
    b"\x3B\xF5\x18\x00\x00\x81\x31\xFE\x45MyEID\x9A",
    &[0x3B, 0xD2, 0x18, 0x00, 0x81, 0x31, 0xFE, 0x58, 0xC9, 0x02, 0x17],
];

/// The card.
#[derive(Debug)]
pub struct Hostile {
    answers: Vec<Vec<u8>>,
    circumstances: u8,
    /// Every command that it got.
    pub sent: Vec<Vec<u8>>,
    /// Whether it was gone when it was asked.
    pub gone: bool,
}

impl Hostile {
    /// The card that the input describes.
    #[must_use]
    pub fn new(data: &[u8]) -> Self {
        let (circumstances, mut rest) = data.split_first().unwrap_or((&0, &[]));
        let mut answers = Vec::new();
        while let Some((answer, after)) = split(rest) {
            answers.push(answer.to_vec());
            rest = after;
        }
        Self { answers, circumstances: *circumstances, sent: Vec::new(), gone: false }
    }

    /// Its ATR.
    #[must_use]
    pub fn atr(&self) -> Option<Atr> {
        let number = usize::from(self.circumstances >> 4) % ATRS.len();
        ATRS.get(number).and_then(|bytes| Atr::try_from(*bytes).ok())
    }

    /// Whether another program uses it.
    #[must_use]
    pub const fn is_in_use(&self) -> bool {
        self.circumstances & IN_USE != 0
    }

    /// All data that it has given, in one piece. What comes with 6Cxx is not data.
    #[must_use]
    pub fn given(&self) -> Vec<u8> {
        let given = (0..self.sent.len()).filter_map(|number| self.answer(number));
        let parts = given.filter_map(|answer| answer.split_last_chunk::<2>());
        parts
            .filter(|(_, status)| status.first() != Some(&0x6C))
            .flat_map(|(data, _)| data)
            .copied()
            .collect()
    }

    /// Its last answer.
    #[must_use]
    pub fn last_answer(&self) -> &[u8] {
        self.sent.len().checked_sub(1).and_then(|number| self.answer(number)).unwrap_or_default()
    }

    /// What it says to the command of this number.
    fn answer(&self, number: usize) -> Option<&[u8]> {
        let last = self.answers.last().filter(|_| self.circumstances & TORN_OUT == 0);
        self.answers.get(number).or(last).map(Vec::as_slice)
    }
}

/// The first answer, and what follows it.
fn split(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match input {
        [0xFF, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [length, rest @ ..] => (usize::from(*length), rest),
        [] => return None,
    };
    Some(rest.split_at(length.min(rest.len())))
}

/// An input that describes such a card.
#[must_use]
pub fn encode(circumstances: u8, answers: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![circumstances];
    for answer in answers {
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        if let Ok(short @ ..=0xFE) = u8::try_from(length) {
            input.push(short);
        } else {
            input.push(0xFF);
            input.extend(length.to_be_bytes());
        }
        input.extend(answer.iter().take(usize::from(length)));
    }
    input
}

impl Transmit for Hostile {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        if let Some(answer) = self.answer(self.sent.len()).map(<[u8]>::to_vec) {
            self.sent.push(command.to_bytes(self.protocol()));
            return Ok(answer);
        }
        self.gone = true;
        Err(TransmitError::Removed)
    }

    fn protocol(&self) -> Protocol {
        if self.circumstances & T0 == 0 { Protocol::T1 } else { Protocol::T0 }
    }
}
