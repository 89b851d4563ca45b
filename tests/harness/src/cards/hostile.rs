//! Cards that are made to hurt their readers. Silent ones and ones that are
//! torn out are faults of the contact: see [`super::Faults`].

use serde::Deserialize;

use super::apdu::object;
use super::{AppletCard, Card};

/// How a hostile card answers every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Malice {
    /// The tag that was asked for, with lengths that promise more than comes:
    /// long, indefinite or none at all, in turn.
    WrongLengths,
    /// Sixteen bytes and "more is waiting" (61FF), for ever.
    EndlessGetResponse,
    /// 61xx without a byte of data, for ever.
    EmptyGetResponse,
    /// 6C00: a wrong Le, whatever Le.
    EndlessWrongLe,
    /// 64 KiB of one object in pieces of 256 bytes, then 9000; after that again.
    Huge,
    /// Well-formed objects with tags that were not asked for.
    WrongTags,
    /// 9000 and no data.
    BareSuccess,
    /// The command itself, and 9000.
    Echo,
    /// Random bytes of random length from [`HostileCard::with_seed`]'s seed; the
    /// last two are whatever they are.
    Random,
    /// Objects nested in objects, as deep as an answer is long.
    Nested,
}

const PIECE: usize = 256;
const HUGE: usize = 0x1_0000;

/// A card that answers every command with the same malice; with
/// [`HostileCard::behind`], every command but SELECT.
#[derive(Debug)]
pub struct HostileCard {
    atr: Vec<u8>,
    malice: Malice,
    /// Answers SELECT, if there is one.
    face: Option<AppletCard>,
    /// State of the generator.
    random: u64,
    /// Bytes of [`Malice::Huge`] sent so far.
    sent: usize,
    /// Commands so far.
    turn: usize,
}

impl HostileCard {
    /// A card with this ATR and this malice.
    #[must_use]
    pub fn new(atr: impl Into<Vec<u8>>, malice: Malice) -> Self {
        Self { atr: atr.into(), malice, face: None, random: 1, sent: 0, turn: 0 }
    }

    /// The same card with another seed of its random bytes.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.random = seed.max(1);
        self
    }

    /// The same card, but what `face` answers to SELECT is answered so: the malice
    /// begins once the reader believes that it knows the applet.
    #[must_use]
    pub fn behind(mut self, face: AppletCard) -> Self {
        self.face = Some(face);
        self
    }

    /// One piece of a huge object: its head says 65536 bytes.
    fn piece(&mut self) -> Vec<u8> {
        let mut piece = if self.sent == 0 { vec![0x53, 0x83, 0x01, 0x00, 0x00] } else { vec![] };
        piece.resize(PIECE, 0x5A);
        self.sent += PIECE;
        let left = self.sent < HUGE;
        piece.extend(if left { [0x61, 0x00] } else { [0x90, 0x00] });
        if !left {
            self.sent = 0;
        }
        piece
    }

    fn random_answer(&mut self) -> Vec<u8> {
        let [low, high, ..] = self.next_random().to_le_bytes();
        // One answer in four is as long as an answer may be.
        let count = if high < 0x40 { 258 } else { usize::from(low) % 64 + 2 };
        let mut answer = Vec::new();
        while answer.len() < count {
            answer.extend(self.next_random().to_le_bytes());
        }
        answer.truncate(count);
        answer
    }

    /// Xorshift: the same seed always gives the same bytes.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Card for HostileCard {
    fn atr(&self) -> Vec<u8> {
        self.atr.clone()
    }

    fn power(&mut self) {
        self.sent = 0;
        if let Some(face) = &mut self.face {
            face.power();
        }
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        if let (Some(face), [_, 0xA4, ..]) = (&mut self.face, apdu) {
            return face.command(apdu);
        }
        self.turn += 1;
        let good = |mut data: Vec<u8>| {
            data.extend([0x90, 0x00]);
            data
        };
        match self.malice {
            Malice::WrongLengths => good(wrong_length(apdu, self.turn)),
            Malice::EndlessGetResponse => [&[0x53; 16][..], &[0x61, 0xFF]].concat(),
            Malice::EmptyGetResponse => vec![0x61, 0x10],
            Malice::EndlessWrongLe => vec![0x6C, 0x00],
            Malice::Huge => self.piece(),
            Malice::WrongTags => good([object(0x42, b"wrong"), object(0x7F99, &[1, 2])].concat()),
            Malice::BareSuccess => good(Vec::new()),
            Malice::Echo => good(apdu.to_vec()),
            Malice::Random => self.random_answer(),
            Malice::Nested => good([0x30, 0x80].repeat(64)),
        }
    }
}

/// The tag asked for (`5C`), or that of file control information, and then a
/// length that is a lie.
fn wrong_length(apdu: &[u8], turn: usize) -> Vec<u8> {
    const LIES: [&[u8]; 7] = [
        &[0x7F],
        &[0x81, 0xFF],
        &[0x82, 0xFF, 0xFF],
        &[0x84, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x88, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x80],
        &[],
    ];
    let mut answer = match apdu {
        [_, 0xCB, _, _, _, 0x5C, count, rest @ ..] => {
            rest.iter().take(usize::from(*count)).copied().collect()
        }
        [_, 0xA4, ..] => vec![0x61],
        _ => vec![0x30],
    };
    let lie = LIES.get(turn % LIES.len()).copied().unwrap_or_default();
    answer.extend(lie);
    if !lie.is_empty() {
        answer.extend([0x04, 0x01, 0x00]);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(malice: Malice) -> HostileCard {
        HostileCard::new([0x3B, 0x80, 0x80, 0x01, 0x01], malice)
    }

    #[test]
    fn a_huge_answer_is_64_kib_and_ends() {
        let mut card = card(Malice::Huge);
        let mut total = 0;
        loop {
            let piece = card.command(&[0, 0xC0, 0, 0, 0]);
            total += piece.len() - 2;
            if piece.ends_with(&[0x90, 0x00]) {
                break;
            }
            assert!(piece.ends_with(&[0x61, 0x00]), "{piece:02X?}");
        }
        assert_eq!(total, HUGE);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let answers = |seed: u64| {
            let mut card = card(Malice::Random).with_seed(seed);
            (0..50).map(|_| card.command(&[0; 5])).collect::<Vec<_>>()
        };
        assert_eq!(answers(7), answers(7));
        assert_ne!(answers(7), answers(9));
        assert!(answers(7).iter().all(|answer| (2..=258).contains(&answer.len())));
    }

    #[test]
    fn wrong_length_is_on_requested_object() {
        let mut card = card(Malice::WrongLengths);
        let asked = [0, 0xCB, 0x3F, 0xFF, 5, 0x5C, 3, 0x5F, 0xC1, 2, 0];
        for _ in 0..7 {
            let answer = card.command(&asked);
            assert!(answer.starts_with(&[0x5F, 0xC1, 2]) && answer.ends_with(&[0x90, 0]));
        }
    }
}
