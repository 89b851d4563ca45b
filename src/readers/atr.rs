//! The ATR of a `SCARD_READERSTATE`, whatever length the library tells.

#![expect(unsafe_code, reason = "the crate `pcsc` panics: docs/decisions/0002-thread-model.md")]

use std::ptr;

use pcsc::ReaderState;
use pcsc::ffi::SCARD_READERSTATE;

/// The ATR, or nothing where the library tells one of more bytes than there is room for. pcscd has a
/// length of 34 for a reader that it knows nothing of yet or no more, and below 2.0.3 the library may
/// take that for the length of a card that it saw before. `ReaderState::atr` panics then.
pub(super) fn atr(state: &ReaderState) -> &[u8] {
    // SAFETY: `ReaderState` is `repr(C)` with a `SCARD_READERSTATE` as its only field, which it has to
    // be directly transmutable to; the reference lives as long as the one that it comes from.
    let raw = unsafe { &*ptr::from_ref(state).cast::<SCARD_READERSTATE>() };
    usize::try_from(raw.cbAtr).ok().and_then(|length| raw.rgbAtr.get(..length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pcsc::{PNP_NOTIFICATION, State};

    use super::*;

    fn state(length: u64) -> ReaderState {
        let mut state = ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE);
        // SAFETY: as above.
        let raw = unsafe { &mut *ptr::from_mut(&mut state).cast::<SCARD_READERSTATE>() };
        raw.cbAtr = length;
        raw.rgbAtr[0] = 0x3B;
        state
    }

    #[test]
    fn an_atr_has_the_length_that_is_told() {
        assert!(atr(&state(0)).is_empty());
        assert_eq!(atr(&state(2)), [0x3B, 0]);
        assert_eq!(atr(&state(33)).len(), 33);
    }

    #[test]
    fn an_atr_that_is_too_long_is_none() {
        assert!(atr(&state(34)).is_empty() && atr(&state(u64::MAX)).is_empty());
    }
}
