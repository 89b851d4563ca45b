//! A card in a slot of vpcd: connecting is inserting, closing is removing.
//!
//! A frame is a length of two bytes, big-endian, and the payload. From vpcd, one byte
//! is a control code (off, on, reset, or the ATR poll that also tests
//! presence); anything longer is a command APDU. Only the poll and APDUs are
//! answered.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::net::sockopt::set_tcp_quickack;

use super::faults::{Bender, Fate};
use super::{Answering, Card, Faults};
use crate::netns::Namespace;
use crate::process::wait_until;

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
    /// Presence polls.
    pub polls: u32,
    /// Whether an APDU waits for [`InsertedCard::release`].
    pub hanging: bool,
    /// Whether the card is out of the reader.
    pub out: bool,
}

/// A card in a reader; dropping it ejects it.
#[derive(Debug)]
pub struct InsertedCard {
    hand: Arc<Hand>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Hand {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    state: CardState,
    faults: Faults,
    socket: Option<TcpStream>,
    ejected: bool,
}

impl InsertedCard {
    /// Inserts `card` into the slot that listens on `port` in `namespace`.
    /// Comes back once the slot has taken the connection, which may be before
    /// pcscd has polled it.
    pub fn insert(
        namespace: Namespace,
        port: u16,
        card: Box<dyn Card>,
        faults: Faults,
    ) -> Result<Self> {
        let mut socket = None;
        let mut failure = None;
        let connected = wait_until("the slot takes a card", Duration::from_secs(5), || {
            match namespace.connect(port) {
                Ok(stream) => socket = Some(stream),
                Err(error) => failure = Some(error),
            }
            socket.is_some()
        });
        let Some(socket) = socket else { bail!("{connected:?}: {failure:?}") };
        let hand = Arc::new(Hand::default());
        hand.lock().faults = faults;
        hand.lock().socket = Some(socket.try_clone()?);
        let session = Session { hand: Arc::clone(&hand), card, bender: Bender::default() };
        let thread = thread::Builder::new()
            .name(format!("card-{port}"))
            .spawn(move || session.run(socket, &namespace, port))?;
        Ok(Self { hand, thread: Some(thread) })
    }

    /// Takes the card out. Ejecting twice is no harm.
    pub fn eject(&mut self) {
        let mut inner = self.hand.lock();
        inner.ejected = true;
        if let Some(socket) = inner.socket.take() {
            drop(socket.shutdown(Shutdown::Both));
        }
        drop(inner);
        self.hand.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    /// Everything the reader has done with the card so far.
    #[must_use]
    pub fn state(&self) -> CardState {
        self.hand.lock().state.clone()
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
        let deadline = Instant::now() + timeout;
        let mut inner = self.hand.lock();
        while !condition(&inner.state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {timeout:?} in vain: {what}; card: {:?}", inner.state);
            }
            inner = self.hand.wait(inner, left);
        }
        Ok(inner.state.clone())
    }

    /// Whether the card can be powered from the next power-up on.
    pub fn mute(&self, mute: bool) {
        self.hand.lock().faults.mute = mute;
    }

    /// Delays each answer from here on.
    pub fn slow(&self, delay: Duration) {
        self.hand.lock().faults.slow = delay;
    }

    /// Tears the card out in the middle of the nth APDU from here on.
    pub fn remove_at(&self, nth: u32) {
        self.hand.lock().faults.remove_at = Some(nth);
    }

    /// Leaves the nth APDU from here on unanswered until [`Self::release`].
    pub fn hang_at(&self, nth: u32) {
        self.hand.lock().faults.hang_at = Some(nth);
    }

    /// Answers the APDU that hangs.
    pub fn release(&self) {
        self.hand.lock().state.hanging = false;
        self.hand.changed.notify_all();
    }

    /// Sets the manner of answering.
    pub fn answer(&self, how: Answering) {
        self.hand.lock().faults.answering = how;
    }

    /// Ends every fault; what hangs is answered.
    pub fn heal(&self) {
        self.hand.lock().faults = Faults::default();
        self.release();
    }
}

impl Drop for InsertedCard {
    fn drop(&mut self) {
        self.eject();
    }
}

impl Hand {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, limit: Duration) -> MutexGuard<'a, Inner> {
        let result = self.changed.wait_timeout(inner, limit);
        result.unwrap_or_else(PoisonError::into_inner).0
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Sleeps, but not past an ejection.
    fn delay(&self, delay: Duration) {
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

struct Session {
    hand: Arc<Hand>,
    card: Box<dyn Card>,
    bender: Bender,
}

impl Session {
    fn run(mut self, first: TcpStream, namespace: &Namespace, port: u16) {
        let mut socket = Some(first);
        while let Some(stream) = socket.take() {
            let torn_out = matches!(self.serve(&stream), Ok(Fate::Remove));
            drop(stream.shutdown(Shutdown::Both));
            self.hand.change(|inner| inner.socket = None);
            if torn_out {
                break;
            }
            socket = self.wait_for_reader(namespace, port);
        }
        self.hand.change(|inner| inner.state.out = true);
    }

    /// The reader is gone and the card still in it: pcscd was restarted, or
    /// will be.
    fn wait_for_reader(&self, namespace: &Namespace, port: u16) -> Option<TcpStream> {
        loop {
            self.hand.delay(Duration::from_millis(20));
            if self.hand.lock().ejected {
                return None;
            }
            let Ok(stream) = namespace.connect(port) else {
                continue;
            };
            let mut inner = self.hand.lock();
            inner.socket = stream.try_clone().ok();
            return (!inner.ejected).then_some(stream);
        }
    }

    fn serve(&mut self, socket: &TcpStream) -> io::Result<Fate> {
        loop {
            let frame = receive(socket)?;
            let answer = match *frame.as_slice() {
                [0x04] => Some(self.poll()),
                [0x00] => None,
                [control @ (0x01 | 0x02)] => {
                    self.hand.change(|inner| {
                        inner.state.power_ups += 1;
                        inner.state.resets += u32::from(control == 0x02);
                    });
                    self.card.power();
                    None
                }
                _ => match self.apdu(&frame) {
                    Some(answer) => Some(answer),
                    None => return Ok(Fate::Remove),
                },
            };
            if let Some(answer) = answer {
                send(socket, &answer)?;
            }
        }
    }

    fn poll(&self) -> Vec<u8> {
        let atr = self.card.atr();
        self.hand.change(|inner| {
            inner.state.polls += 1;
            inner.faults.atr(atr)
        })
    }

    /// The answer to an APDU; `None` where the card is torn out instead.
    fn apdu(&mut self, apdu: &[u8]) -> Option<Vec<u8>> {
        let (fate, slow, how) = self.hand.change(|inner| {
            inner.state.exchanges.push(Exchange { command: apdu.to_vec(), answer: None });
            let fate = inner.faults.next_fate();
            (fate, inner.faults.slow, inner.faults.answering)
        });
        match fate {
            Fate::Remove => return None,
            Fate::Hang => self.hand.hang(),
            Fate::Answer => self.hand.delay(slow),
        }
        let card = &mut self.card;
        let answer = self.bender.answer(how, apdu, |apdu| card.command(apdu));
        self.hand.change(|inner| {
            if let Some(last) = inner.state.exchanges.last_mut() {
                last.answer = Some(answer.clone());
            }
        });
        Some(answer)
    }
}

/// Debian's vpcd sends length and payload in two writes; without a quick
/// acknowledgement of the first, the second waits 40 ms. The kernel forgets the
/// option, hence each time anew.
fn receive(mut socket: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    set_tcp_quickack(socket, true)?;
    socket.read_exact(&mut length)?;
    set_tcp_quickack(socket, true)?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}

fn send(mut socket: &TcpStream, payload: &[u8]) -> io::Result<()> {
    let length = u16::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(payload);
    socket.write_all(&frame)
}
