//! A card in a slot of vpcd: connecting is inserting, closing is removing.
//!
//! A frame is a length of two bytes, big-endian, and the payload. From vpcd, one byte
//! is a control code (off, on, reset, or the ATR poll that also tests
//! presence); anything longer is a command APDU. Only the poll and APDUs are
//! answered.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::net::sockopt::set_tcp_quickack;

use super::card_control::{CardControl, Contact};
use super::inserted::{InsertedCard, Place};
use super::{Card, Faults};
use crate::netns::Namespace;
use crate::process::wait_until;

impl InsertedCard {
    /// Inserts `card` into the slot of vpcd that listens on `port` in
    /// `namespace`. Comes back once the slot has taken the connection, which may
    /// be before pcscd has polled it.
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
        let contact = Contact::new(card, faults);
        let control = contact.control();
        let open = Open::default();
        open.set(Some(socket.try_clone()?));
        let session = Session { control: Arc::clone(&control), contact, open: open.clone() };
        let thread = thread::Builder::new()
            .name(format!("card-{port}"))
            .spawn(move || session.run(socket, &namespace, port))?;
        Ok(Self::new(control, Slot { open, thread: Some(thread) }))
    }
}

/// The connection to the slot, while there is one. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<Option<TcpStream>>>);

impl Open {
    fn set(&self, socket: Option<TcpStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = socket;
    }

    fn close(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

#[derive(Debug)]
struct Slot {
    open: Open,
    thread: Option<JoinHandle<()>>,
}

impl Place for Slot {
    fn vacate(&mut self) {
        self.open.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Session {
    control: Arc<CardControl>,
    contact: Contact,
    open: Open,
}

impl Session {
    fn run(mut self, first: TcpStream, namespace: &Namespace, port: u16) {
        let mut socket = Some(first);
        while let Some(stream) = socket.take() {
            let torn_out = matches!(self.serve(&stream), Ok(TornOut));
            drop(stream.shutdown(Shutdown::Both));
            self.open.set(None);
            if torn_out {
                break;
            }
            socket = self.wait_for_reader(namespace, port);
        }
        self.control.leave();
    }

    /// The reader is gone and the card still in it: pcscd was restarted, or
    /// will be.
    fn wait_for_reader(&self, namespace: &Namespace, port: u16) -> Option<TcpStream> {
        loop {
            self.control.delay(Duration::from_millis(20));
            if self.control.is_ejected() {
                return None;
            }
            let Ok(stream) = namespace.connect(port) else {
                continue;
            };
            self.open.set(stream.try_clone().ok());
            // An eject before that has found nothing to close.
            return (!self.control.is_ejected()).then_some(stream);
        }
    }

    fn serve(&mut self, socket: &TcpStream) -> io::Result<TornOut> {
        loop {
            let frame = receive(socket)?;
            let answer = match *frame.as_slice() {
                [0x04] => self.contact.poll(),
                [0x00] => continue,
                [control @ (0x01 | 0x02)] => {
                    self.contact.power(control == 0x02);
                    continue;
                }
                _ => match self.contact.apdu(&frame) {
                    Some(answer) => answer,
                    None => return Ok(TornOut),
                },
            };
            send(socket, &answer)?;
        }
    }
}

/// The card was torn out in the middle of a command.
struct TornOut;

/// Debian's vpcd sends length and payload in two writes; without a quick
/// acknowledgement of the first, the second waits 40 ms. The kernel forgets the
/// option, hence at each connection.
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
