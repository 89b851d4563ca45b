//! A card under the control of a test, wherever it is inserted: it answers, misbehaves on demand, and
//! everything that is done with it is remembered.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::faults::{Bender, Fate};
use super::{Card, Faults};

/// A command and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command APDU.
    pub command: Vec<u8>,
    /// The answer with its status word; `None` until, and unless, it is given.
    pub answer: Option<Vec<u8>>,
}

/// What the reader has done with the card so far.
#[derive(Clone, Debug, Default)]
pub struct CardState {
    /// Every APDU, in order, over all power cycles.
    pub exchanges: Vec<Exchange>,
    /// Power-ups and resets.
    pub power_ups: u32,
    /// Resets alone: a program took the card's state from every other one.
    pub resets: u32,
    /// How often the reader was asked whether there is a card.
    pub polls: u32,
    /// When the reader was first asked so.
    pub seen: Option<Instant>,
    /// When the card was first powered up, and had answered that.
    pub powered: Option<Instant>,
    /// When a program first connected to the card; only where the driver reports it.
    pub connected: Option<Instant>,
    /// When the first APDU came.
    pub asked: Option<Instant>,
    /// Whether an APDU waits for [`super::InsertedCard::release`].
    pub hanging: bool,
    /// Whether the card is out of the reader.
    pub out: bool,
}

/// What the test and the reader share of a card.
#[derive(Debug, Default)]
pub(crate) struct CardControl {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) state: CardState,
    pub(super) faults: Faults,
    ejected: bool,
}

impl CardControl {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, limit: Duration) -> MutexGuard<'a, Inner> {
        let result = self.changed.wait_timeout(inner, limit);
        result.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// A program connects to the card.
    pub(crate) fn connect(&self) {
        self.change(|inner| {
            inner.state.connected.get_or_insert_with(Instant::now);
        });
    }

    /// Whether the reader speaks T=0 only.
    pub(crate) fn is_in_t0_reader(&self) -> bool {
        self.lock().faults.t0_only
    }

    /// The card is being taken out: whatever hangs or is slow ends.
    pub(super) fn eject(&self) {
        self.change(|inner| inner.ejected = true);
    }

    /// Whether it is being taken out.
    pub(crate) fn is_ejected(&self) -> bool {
        self.lock().ejected
    }

    /// The card is out.
    pub(crate) fn leave(&self) {
        self.change(|inner| inner.state.out = true);
    }

    /// Answers the APDU that hangs.
    pub(crate) fn release(&self) {
        self.change(|inner| inner.state.hanging = false);
    }

    /// Waits for a condition on the card's state, and returns that state.
    pub(super) fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&CardState) -> bool,
    ) -> Result<CardState> {
        let deadline = Instant::now() + timeout;
        let mut inner = self.lock();
        while !condition(&inner.state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not within {timeout:?}: {what}; card: {:?}", inner.state);
            }
            inner = self.wait(inner, left);
        }
        Ok(inner.state.clone())
    }

    /// Sleeps, but not past an ejection.
    pub(super) fn delay(&self, delay: Duration) {
        let deadline = Instant::now() + delay;
        let mut inner = self.lock();
        while !inner.ejected {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner = self.wait(inner, left);
        }
    }

    fn hang(&self) {
        self.change(|inner| inner.state.hanging = true);
        let mut inner = self.lock();
        while inner.state.hanging && !inner.ejected {
            inner = self.wait(inner, Duration::from_secs(1));
        }
        inner.state.hanging = false;
    }
}

/// The card where the reader touches it.
pub(crate) struct Contact {
    control: Arc<CardControl>,
    card: Box<dyn Card>,
    bender: Bender,
}

impl Contact {
    /// A card with faults from the first moment on.
    pub(crate) fn new(card: Box<dyn Card>, faults: Faults) -> Self {
        let control = Arc::new(CardControl::default());
        control.lock().faults = faults;
        Self { control, card, bender: Bender::default() }
    }

    /// The control of it.
    pub(crate) fn control(&self) -> Arc<CardControl> {
        Arc::clone(&self.control)
    }

    /// A poll for a card; returns its ATR as vpcd expects it.
    pub(crate) fn poll(&self) -> Vec<u8> {
        let atr = self.card.atr();
        self.control.change(|inner| {
            inner.state.polls += 1;
            inner.state.seen.get_or_insert_with(Instant::now);
            inner.faults.atr(atr)
        })
    }

    /// The card gets power, or loses its state by a reset, at once.
    pub(crate) fn power(&mut self, reset: bool) {
        self.card.power();
        self.control.change(|inner| {
            inner.state.power_ups += 1;
            inner.state.resets += u32::from(reset);
            inner.state.powered.get_or_insert_with(Instant::now);
        });
    }

    /// The same, as long as it takes, and with the answer: none from a mute card.
    pub(crate) fn answer_to_reset(&mut self, reset: bool) -> Option<Vec<u8>> {
        let (mute, delay) =
            self.control.change(|inner| (inner.faults.mute, inner.faults.slow_power_up));
        self.control.delay(delay);
        if mute || self.control.is_ejected() {
            return None;
        }
        self.power(reset);
        Some(self.card.atr())
    }

    /// The answer to an APDU; `None` where the card is torn out instead.
    pub(crate) fn apdu(&mut self, apdu: &[u8]) -> Option<Vec<u8>> {
        let (fate, slow, how) = self.control.change(|inner| {
            inner.state.asked.get_or_insert_with(Instant::now);
            inner.state.exchanges.push(Exchange { command: apdu.to_vec(), answer: None });
            let fate = inner.faults.next_fate();
            (fate, inner.faults.slow, inner.faults.answering)
        });
        match fate {
            Fate::Remove => return None,
            Fate::Hang => self.control.hang(),
            Fate::Answer => self.control.delay(slow),
        }
        if self.control.is_ejected() {
            return None;
        }
        let card = &mut self.card;
        let answer = self.bender.answer(how, apdu, |apdu| card.command(apdu));
        self.control.change(|inner| {
            if let Some(last) = inner.state.exchanges.last_mut() {
                last.answer = Some(answer.clone());
            }
        });
        Some(answer)
    }
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact").field("control", &self.control).finish_non_exhaustive()
    }
}
