//! A card in a reader, whatever kind of reader that is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::card_control::{CardControl, CardState, Exchange};
use super::{Answering, Faults};

/// Where a card is: what has to be done there when it is taken out.
pub(crate) trait Place: fmt::Debug + Send {
    /// The card goes; comes back once it is out.
    fn vacate(&mut self);
}

/// A card in a reader; dropping it ejects it.
#[derive(Debug)]
pub struct InsertedCard {
    control: Arc<CardControl>,
    place: Option<Box<dyn Place>>,
}

impl InsertedCard {
    pub(crate) fn new(control: Arc<CardControl>, place: impl Place + 'static) -> Self {
        Self { control, place: Some(Box::new(place)) }
    }

    /// Takes the card out. Ejecting twice is no harm.
    pub fn eject(&mut self) {
        self.control.eject();
        if let Some(mut place) = self.place.take() {
            place.vacate();
        }
    }

    /// Everything the reader has done with the card so far.
    #[must_use]
    pub fn state(&self) -> CardState {
        self.control.lock().state.clone()
    }

    /// The APDUs so far, in order.
    #[must_use]
    pub fn apdus(&self) -> Vec<Exchange> {
        self.state().exchanges
    }

    /// Waits for a condition on the card's state, and returns that state.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&CardState) -> bool,
    ) -> Result<CardState> {
        self.control.wait_for(what, timeout, condition)
    }

    /// Whether the card can be powered from the next power-up on.
    pub fn mute(&self, mute: bool) {
        self.control.lock().faults.mute = mute;
    }

    /// Delays each answer from here on.
    pub fn slow(&self, delay: Duration) {
        self.control.lock().faults.slow = delay;
    }

    /// Tears the card out in the middle of the nth APDU from here on.
    pub fn remove_at(&self, nth: u32) {
        self.control.lock().faults.remove_at = Some(nth);
    }

    /// Leaves the nth APDU from here on unanswered until [`Self::release`].
    pub fn hang_at(&self, nth: u32) {
        self.control.lock().faults.hang_at = Some(nth);
    }

    /// Answers the APDU that hangs.
    pub fn release(&self) {
        self.control.release();
    }

    /// Sets how it answers.
    pub fn answer(&self, how: Answering) {
        self.control.lock().faults.answering = how;
    }

    /// Ends every fault; what hangs is answered.
    pub fn heal(&self) {
        self.control.lock().faults = Faults::default();
        self.release();
    }
}

impl Drop for InsertedCard {
    fn drop(&mut self) {
        self.eject();
    }
}
