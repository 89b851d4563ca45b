//! What can be wrong with a card, its contacts or its insertion.

use std::time::Duration;

/// The faults of an inserted card; the default is none.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The card is present and cannot be powered. Looked at on power-up only.
    pub mute: bool,
    /// Delay before each answer.
    pub slow: Duration,
    /// Delay before the answer to a power-up or a reset. A card in vpcd cannot
    /// have it.
    pub slow_power_up: Duration,
    /// The reader speaks T=0 only. A reader of vpcd speaks everything.
    pub t0_only: bool,
    /// The card is torn out in the middle of the nth APDU from now (1 is the
    /// next).
    pub remove_at: Option<u32>,
    /// The card does not answer the nth APDU from now until it is released.
    pub hang_at: Option<u32>,
    /// How commands are answered.
    pub answering: Answering,
}

/// How a card answers commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answering {
    /// As the card does.
    #[default]
    Normal,
    /// This status word and no data, whatever the command.
    StatusWord(u16),
    /// Data never comes at once: 61xx first, then GET RESPONSE.
    GetResponse,
    /// A command whose Le is not exact is answered by 6Cxx.
    WrongLe,
    /// Bytes without sense that end in 9000.
    Garbage,
    /// An answer of one byte, too short for a status word.
    Stump,
}

/// What becomes of the next APDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answer,
    Hang,
    Remove,
}

impl Faults {
    /// Counts one APDU and returns its fate.
    pub(super) fn next_fate(&mut self) -> Fate {
        if due(&mut self.remove_at) {
            Fate::Remove
        } else if due(&mut self.hang_at) {
            Fate::Hang
        } else {
            Fate::Answer
        }
    }

    /// An ATR that presence polls accept and power-up does not: PC/SC knows at
    /// most 33 bytes.
    pub(super) fn atr(&self, atr: Vec<u8>) -> Vec<u8> {
        if self.mute { vec![0x3B; 40] } else { atr }
    }
}

fn due(countdown: &mut Option<u32>) -> bool {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// Bends answers; remembers what it holds back for GET RESPONSE.
#[derive(Debug, Default)]
pub(super) struct Bender {
    held_back: Option<Vec<u8>>,
}

impl Bender {
    /// The answer to `apdu`, asking `card` where the fault leaves that to it.
    pub(super) fn answer(
        &mut self,
        how: Answering,
        apdu: &[u8],
        card: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Vec<u8> {
        match how {
            Answering::Normal => card(apdu),
            Answering::StatusWord(word) => word.to_be_bytes().to_vec(),
            Answering::Garbage => [0xA5; 37].into_iter().chain([0x90, 0x00]).collect(),
            Answering::Stump => vec![0x90],
            Answering::GetResponse => self.hold_back(apdu, card),
            Answering::WrongLe => demand_exact_le(apdu, card),
        }
    }

    fn hold_back(&mut self, apdu: &[u8], card: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        if matches!(apdu, [_, 0xC0, ..])
            && let Some(answer) = self.held_back.take()
        {
            return answer;
        }
        let answer = card(apdu);
        let data = answer.len().saturating_sub(2);
        if data == 0 {
            return answer;
        }
        self.held_back = Some(answer);
        vec![0x61, u8::try_from(data).unwrap_or(0)]
    }
}

fn demand_exact_le(apdu: &[u8], card: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let expected = le(apdu);
    let answer = card(apdu);
    let data = answer.len().saturating_sub(2);
    let exact = data == 0 || data == 256 || expected.is_none() || expected == Some(data);
    if exact { answer } else { vec![0x6C, u8::try_from(data).unwrap_or(0)] }
}

/// Le of a short APDU, 256 for 00; `None` where there is none.
pub(super) fn le(apdu: &[u8]) -> Option<usize> {
    let byte = match apdu {
        [_, _, _, _, le] => *le,
        [_, _, _, _, lc, rest @ ..] if rest.len() == usize::from(*lc) + 1 => *rest.last()?,
        _ => return None,
    };
    Some(if byte == 0 { 256 } else { usize::from(byte) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_apdu_is_counted_from_one() {
        let mut faults = Faults { hang_at: Some(2), ..Faults::default() };
        assert_eq!(faults.next_fate(), Fate::Answer);
        assert_eq!(faults.next_fate(), Fate::Hang);
        assert_eq!(faults.next_fate(), Fate::Answer);
    }

    #[test]
    fn le_is_distinguished_from_data() {
        assert_eq!(le(&[0, 0xCA, 0, 0]), None);
        assert_eq!(le(&[0, 0xC0, 0, 0, 0]), Some(256));
        assert_eq!(le(&[0, 0xA4, 4, 0, 2, 1, 2]), None);
        assert_eq!(le(&[0, 0xA4, 4, 0, 2, 1, 2, 8]), Some(8));
    }

    #[test]
    fn wrong_le_is_cured_by_the_exact_one() {
        let mut bender = Bender::default();
        let card = |_: &[u8]| vec![1, 2, 3, 0x90, 0];
        let first = bender.answer(Answering::WrongLe, &[0, 0xCA, 0, 0, 0], card);
        assert_eq!(first, [0x6C, 3]);
        let second = bender.answer(Answering::WrongLe, &[0, 0xCA, 0, 0, 3], card);
        assert_eq!(second, [1, 2, 3, 0x90, 0]);
    }

    #[test]
    fn held_back_data_comes_with_get_response() {
        let mut bender = Bender::default();
        let card = |_: &[u8]| vec![1, 2, 3, 0x90, 0];
        let first = bender.answer(Answering::GetResponse, &[0, 0xCA, 0, 0, 0], card);
        assert_eq!(first, [0x61, 3]);
        let second = bender.answer(Answering::GetResponse, &[0, 0xC0, 0, 0, 3], card);
        assert_eq!(second, [1, 2, 3, 0x90, 0]);
    }
}
