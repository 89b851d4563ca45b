//! A card of no known family.

use super::Card;

/// Answers "not found" (6A82) to everything.
#[derive(Clone, Debug)]
pub struct PlainCard {
    atr: Vec<u8>,
}

impl PlainCard {
    /// A card with the given ATR.
    #[must_use]
    pub fn new(atr: impl Into<Vec<u8>>) -> Self {
        Self { atr: atr.into() }
    }
}

impl Default for PlainCard {
    fn default() -> Self {
        Self::new([0x3B, 0x80, 0x80, 0x01, 0x01])
    }
}

impl Card for PlainCard {
    fn atr(&self) -> Vec<u8> {
        self.atr.clone()
    }

    fn power(&mut self) {}

    fn command(&mut self, _apdu: &[u8]) -> Vec<u8> {
        vec![0x6A, 0x82]
    }
}
