//! What the driver is answered.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, bail};

use super::Shared;
use super::reader::{Channel, Inside};
use crate::cards::Contact;

// Codes of `ifdhandler.h`.
const SUCCESS: u32 = 0;
const PROTOCOL_NOT_SUPPORTED: u32 = 607;
const POWER_FAILED: u32 = 608;
const COMMUNICATION_ERROR: u32 = 612;
const PRESENT: u32 = 615;
const NOT_PRESENT: u32 = 616;
const NO_SUCH_DEVICE: u32 = 617;

/// T=0 as the driver is asked for it; T=1 is 2.
const T0: [u8; 4] = 1_u32.to_le_bytes();

/// Longer than any APDU.
const LONGEST: u32 = 1 << 17;

/// A code and what belongs to it.
type Answer = (u32, Vec<u8>);

/// Takes the driver's connections until the bus is gone. Each says at once what it is for, and is
/// noted before the next one is taken: a reader can be opened again within a millisecond.
pub(super) fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.lock().stopped {
            break;
        }
        let Ok(Some(calls)) = stream.map_err(Into::into).and_then(|it| welcome(it, shared)) else {
            continue;
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || calls.serve(&shared));
    }
}

/// A connection for the calls of one opened reader.
struct Calls {
    stream: UnixStream,
    number: usize,
    opening: u32,
}

impl Calls {
    fn serve(&self, shared: &Shared) {
        // It ends when the driver closes it, or dies.
        drop(serve(&self.stream, shared, self.number));
        let ended = shared.change(self.number, |reader| {
            // pcscd may have opened it again by now.
            if reader.is_opening(self.opening) {
                reader.channel = None;
            }
            Ok(())
        });
        drop(ended);
    }
}

fn welcome(mut stream: UnixStream, shared: &Shared) -> Result<Option<Calls>> {
    let (mut hello, mut lun, mut opening) = ([0; 2], [0; 4], [0; 4]);
    stream.read_exact(&mut hello)?;
    stream.read_exact(&mut lun)?;
    stream.read_exact(&mut opening)?;
    let [role, number] = hello;
    let (number, opening) = (usize::from(number), u32::from_le_bytes(opening));
    match role {
        b'U' => shared.watch(stream)?,
        b'C' => {
            let calls = stream.try_clone()?;
            shared.change(number, |reader| {
                reader.lun = u32::from_le_bytes(lun);
                reader.channel = Some(Channel { opening, calls, events: None });
                Ok(())
            })?;
            return Ok(Some(Calls { stream, number, opening }));
        }
        b'E' => shared.change(number, |reader| {
            reader.opened(stream, opening);
            Ok(())
        })?,
        b'W' => shared.change(number, |reader| {
            if reader.is_opening(opening) {
                reader.ring();
            }
            Ok(())
        })?,
        other => bail!("a connection for nothing known: {other}"),
    }
    Ok(None)
}

fn serve(mut stream: &UnixStream, shared: &Shared, number: usize) -> Result<()> {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [want, length @ ..] = head;
        let mut data = vec![0; usize::try_from(u32::from_le_bytes(length).min(LONGEST))?];
        stream.read_exact(&mut data)?;
        let (code, answer) = match want {
            b'P' => (presence(shared, number)?, Vec::new()),
            b'U' => power_up(shared, number, false)?,
            b'R' => power_up(shared, number, true)?,
            b'T' => transmit(shared, number, &data)?,
            b'N' => (negotiate(shared, number, &data)?, Vec::new()),
            _ => (SUCCESS, Vec::new()),
        };
        send(stream, code, &answer)?;
    }
}

fn send(mut stream: &UnixStream, code: u32, answer: &[u8]) -> Result<()> {
    let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
    let mut message = code.to_le_bytes().to_vec();
    message.extend(length.to_le_bytes());
    message.extend(answer);
    Ok(stream.write_all(&message)?)
}

fn presence(shared: &Shared, number: usize) -> Result<u32> {
    shared.change(number, |reader| {
        Ok(match &reader.card {
            _ if reader.broken => COMMUNICATION_ERROR,
            Some(card) => {
                // While a command is under way no poll comes.
                if let Ok(contact) = card.contact.try_lock() {
                    contact.poll();
                }
                PRESENT
            }
            None => {
                reader.look_empty();
                NOT_PRESENT
            }
        })
    })
}

fn power_up(shared: &Shared, number: usize, reset: bool) -> Result<Answer> {
    let Some(card) = shared.card(number)? else { return Ok((POWER_FAILED, Vec::new())) };
    let atr = touch(&card).answer_to_reset(reset);
    Ok(atr.map_or((POWER_FAILED, Vec::new()), |atr| (SUCCESS, atr)))
}

fn negotiate(shared: &Shared, number: usize, protocol: &[u8]) -> Result<u32> {
    let Some(card) = shared.card(number)? else { return Ok(SUCCESS) };
    card.control.connect();
    let is_spoken = protocol.starts_with(&T0) || !card.control.is_in_t0_reader();
    Ok(if is_spoken { SUCCESS } else { PROTOCOL_NOT_SUPPORTED })
}

fn transmit(shared: &Shared, number: usize, command: &[u8]) -> Result<Answer> {
    let Some(card) = shared.card(number)? else { return Ok((NOT_PRESENT, Vec::new())) };
    let answer = touch(&card).apdu(command);
    shared.change(number, |reader| {
        Ok(match answer {
            _ if !reader.plugged => (NO_SUCH_DEVICE, Vec::new()),
            Some(_) if reader.broken || card.control.is_ejected() => {
                (COMMUNICATION_ERROR, Vec::new())
            }
            Some(answer) => (SUCCESS, answer),
            None => {
                reader.put(None);
                card.control.leave();
                (COMMUNICATION_ERROR, Vec::new())
            }
        })
    })
}

impl Shared {
    /// The card in a reader that is plugged in; no other card gets anything.
    fn card(&self, number: usize) -> Result<Option<Inside>> {
        self.change(number, |reader| Ok(reader.card.clone().filter(|_| reader.plugged)))
    }
}

fn touch(card: &Inside) -> MutexGuard<'_, Contact> {
    card.contact.lock().unwrap_or_else(PoisonError::into_inner)
}
