//! The PINs of a card's applets, shared with the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::apdu::{Answer, BLOCKED, DATA_NOT_FOUND, OK};

const TRIES: u8 = 3;

/// Which applets of a card have had their PIN verified, and how many tries each
/// has left. A clone is of the same card, also when that is in a reader.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Mutex<BTreeMap<&'static str, Pin>>>);

#[derive(Debug)]
struct Pin {
    value: Vec<u8>,
    verified: bool,
    tries: u8,
}

impl Pins {
    /// Whether the PIN of an applet (`"piv"`, `"openpgp"`, ...) counts as
    /// verified.
    #[must_use]
    pub fn is_verified(&self, applet: &str) -> bool {
        self.with(applet, |pin| pin.verified).unwrap_or(false)
    }

    /// The tries that an applet's PIN has left; `None` without such an applet
    /// or without a PIN.
    #[must_use]
    pub fn tries_left(&self, applet: &str) -> Option<u8> {
        self.with(applet, |pin| pin.tries)
    }

    /// Makes an applet's PIN verified, as if another program had just done so.
    /// It does not select the applet.
    pub fn verify(&self, applet: &str) {
        self.with(applet, |pin| pin.verified = true);
    }

    pub(super) fn add(&self, applet: &'static str, value: Vec<u8>) {
        let pin = Pin { value, verified: false, tries: TRIES };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(applet, pin);
    }

    /// The applet was selected, deselected or reset: it requires its PIN again.
    pub(super) fn forget(&self, applet: &str) {
        self.with(applet, |pin| pin.verified = false);
    }

    /// The answer to VERIFY. An empty body only asks.
    pub(super) fn answer(&self, applet: &str, offered: &[u8]) -> Answer {
        let verified = self.with(applet, |pin| pin.offer(offered));
        Answer::status(verified.unwrap_or(DATA_NOT_FOUND))
    }

    fn with<T>(&self, applet: &str, act: impl FnOnce(&mut Pin) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(applet).map(act)
    }
}

impl Pin {
    fn offer(&mut self, offered: &[u8]) -> u16 {
        if self.tries == 0 {
            return BLOCKED;
        }
        if !offered.is_empty() {
            self.verified = unpadded(offered) == self.value;
            self.tries = if self.verified { TRIES } else { self.tries - 1 };
        }
        if self.verified { OK } else { 0x63C0 | u16::from(self.tries) }
    }
}

/// PIV pads with FF, others with zeros.
fn unpadded(offered: &[u8]) -> &[u8] {
    let last = offered.iter().rposition(|byte| ![0x00, 0xFF].contains(byte));
    offered.get(..last.map_or(0, |last| last + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins() -> Pins {
        let pins = Pins::default();
        pins.add("piv", b"123456".to_vec());
        pins
    }

    #[test]
    fn a_right_pin_verifies_and_a_wrong_one_costs_a_try() {
        let pins = pins();
        assert_eq!(pins.answer("piv", b"000000").status, 0x63C2);
        assert_eq!(pins.answer("piv", b"").status, 0x63C2);
        assert_eq!(pins.answer("piv", b"123456\xFF\xFF").status, OK);
        assert_eq!((pins.is_verified("piv"), pins.tries_left("piv")), (true, Some(3)));
        pins.forget("piv");
        assert_eq!(pins.answer("piv", b"").status, 0x63C3);
    }

    #[test]
    fn a_blocked_pin_stays_blocked() {
        let pins = pins();
        for _ in 0..3 {
            pins.answer("piv", b"1");
        }
        assert_eq!(pins.answer("piv", b"123456").status, BLOCKED);
        assert_eq!(pins.answer("openpgp", b"123456").status, DATA_NOT_FOUND);
    }
}
