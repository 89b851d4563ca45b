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
const POWER_FAILED: u32 = 608;
const COMMUNICATION_ERROR: u32 = 612;
const PRESENT: u32 = 615;
const NOT_PRESENT: u32 = 616;
const NO_SUCH_DEVICE: u32 = 617;

/// Longer than any APDU.
const LONGEST: u32 = 1 << 17;

/// A code and what belongs to it.
type Answer = (u32, Vec<u8>);

/// Takes the driver's connections until the bus is gone.
pub(super) fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.lock().stopped {
            break;
        }
        if let Ok(stream) = stream {
            let shared = Arc::clone(shared);
            thread::spawn(move || drop(welcome(stream, &shared)));
        }
    }
}

fn welcome(mut stream: UnixStream, shared: &Shared) -> Result<()> {
    let mut hello = [0; 6];
    stream.read_exact(&mut hello)?;
    let [role, number, lun @ ..] = hello;
    let number = usize::from(number);
    match role {
        b'U' => shared.watch(stream),
        b'C' => {
            let calls = stream.try_clone()?;
            shared.change(number, |reader| {
                reader.lun = u32::from_le_bytes(lun);
                reader.channel = Some(Channel { calls, events: None });
                Ok(())
            })?;
            let ended = serve(&stream, shared, number);
            shared.change(number, |reader| {
                reader.channel = None;
                Ok(())
            })?;
            ended
        }
        b'E' => {
            // The driver connects for calls first, but may be served second.
            shared.wait(number, |reader| reader.channel.is_some());
            shared.change(number, |reader| {
                reader.opened(stream);
                Ok(())
            })
        }
        other => bail!("a connection for nothing known: {other}"),
    }
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
            b'N' => {
                if let Some(card) = shared.card(number)? {
                    card.hand.connect();
                }
                (SUCCESS, Vec::new())
            }
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
                // While a command is under way nobody asks.
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

fn transmit(shared: &Shared, number: usize, command: &[u8]) -> Result<Answer> {
    let Some(card) = shared.card(number)? else { return Ok((NOT_PRESENT, Vec::new())) };
    let answer = touch(&card).apdu(command);
    shared.change(number, |reader| {
        Ok(match answer {
            _ if !reader.plugged => (NO_SUCH_DEVICE, Vec::new()),
            Some(_) if reader.broken || card.hand.is_ejected() => (COMMUNICATION_ERROR, Vec::new()),
            Some(answer) => (SUCCESS, answer),
            None => {
                reader.put(None);
                card.hand.leave();
                (COMMUNICATION_ERROR, Vec::new())
            }
        })
    })
}

impl Shared {
    fn card(&self, number: usize) -> Result<Option<Inside>> {
        self.change(number, |reader| Ok(reader.card.clone()))
    }
}

fn touch(card: &Inside) -> MutexGuard<'_, Contact> {
    card.contact.lock().unwrap_or_else(PoisonError::into_inner)
}
