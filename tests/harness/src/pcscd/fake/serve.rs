//! One client's connection, request by request.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

use super::desk::{Client, ClientId, Handle, Inside, T1};
use super::trouble::What;
use super::wire::{Body, Request, at, events, word};
use super::{Shared, code};
use crate::cards::Contact;

const EXCLUSIVE: u32 = 1;
const SCARD_DIRECT: u32 = 3;

/// Takes clients until pcscd dies.
pub(super) fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if !shared.lock().alive {
            break;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || drop(welcome(&stream, &shared)));
    }
}

fn welcome(stream: &UnixStream, shared: &Shared) -> Result<()> {
    let own = stream.try_clone()?;
    let (client, life) = shared.change(|desk| {
        let number = desk.number();
        desk.clients.insert(number, Client::new(own));
        (number, desk.life)
    });
    let ended = Session { stream, shared, client, life }.run();
    shared.change(|desk| desk.forget(client));
    ended
}

struct Session<'a> {
    stream: &'a UnixStream,
    shared: &'a Shared,
    client: ClientId,
    life: u32,
}

impl Session<'_> {
    fn run(&self) -> Result<()> {
        while self.turn()?.is_some() {}
        Ok(())
    }

    /// One request; `None` ends the connection.
    fn turn(&self) -> Result<Option<()>> {
        let (request, length) = Request::read(self.stream)?;
        self.while_frozen();
        // What hangs can be released from the moment on at which it can be seen to hang.
        let (trouble, releases) = self.shared.change(|desk| (desk.meet(request), desk.releases));
        if trouble == Some(What::CutUnread) {
            // The body is there, and a byte of it stays unread.
            Body::read(self.stream, length.saturating_sub(1))?;
            return Ok(None);
        }
        let body = Body::read(self.stream, length)?;
        let sent = if request == Request::Transmit {
            body.number(at::SENT)
        } else if request == Request::Control {
            body.number(at::CONTROL_SENT)
        } else {
            0
        };
        let bytes = Body::read(self.stream, usize::try_from(sent)?)?.0;
        match trouble {
            Some(What::Cut) => return Ok(None),
            Some(What::Hang) => self.hang(releases),
            Some(What::Answer(code)) => {
                self.shared.change(|desk| desk.send(self.client, &body.with_code(code)));
                return Ok(Some(()));
            }
            Some(What::CutUnread) | None => {}
        }
        self.answer(request, body, &bytes);
        Ok(Some(()))
    }

    fn while_frozen(&self) {
        self.shared.wait_while(|desk| desk.frozen && desk.life == self.life);
    }

    fn hang(&self, before: u32) {
        self.shared.wait_while(|desk| desk.releases == before && desk.life == self.life);
    }

    fn answer(&self, request: Request, mut body: Body, bytes: &[u8]) {
        let client = self.client;
        let answer = match request {
            Request::Transmit => self.transmit(body, bytes),
            Request::Connect => self.connect(body),
            Request::Version => {
                let version = (body.number(at::MAJOR), body.number(at::MINOR));
                let (is_welcome, (major, minor)) = self.shared.change(|desk| {
                    if let Some(client) = desk.clients.get_mut(&client) {
                        client.version = version;
                    }
                    desk.welcomes(version)
                });
                body.set(at::MAJOR, major);
                body.set(at::MINOR, minor);
                body.with_code(if is_welcome { code::SUCCESS } else { code::SERVICE_STOPPED })
            }
            Request::Establish => self.shared.change(|desk| {
                let context = desk.number();
                body.set(at::NEW_CONTEXT, context);
                if let Some(client) = desk.clients.get_mut(&client) {
                    client.context = context;
                }
                body.with_code(code::SUCCESS)
            }),
            Request::Release => body.with_code(code::SUCCESS),
            Request::Events => {
                return self.shared.change(|desk| {
                    if let Some(client) = desk.clients.get_mut(&client) {
                        client.has_events = true;
                    }
                    desk.send(client, &events(desk.reader_events));
                });
            }
            Request::Control | Request::Attribute => body.with_code(code::UNSUPPORTED),
            Request::Cancel => self.cancel(body),
            Request::Reconnect => {
                let handle = body.number(at::HANDLE);
                body.set(at::RECONNECTED_PROTOCOL, T1);
                self.on_handle(body, handle, |_, _| code::SUCCESS)
            }
            Request::Status => {
                let handle = body.number(at::HANDLE);
                self.on_handle(body, handle, |_, _| code::SUCCESS)
            }
            Request::Disconnect | Request::Begin | Request::End => self.hold(request, body),
            Request::States => return self.shared.change(|desk| desk.send(client, &desk.states())),
            Request::Wait => {
                return self.shared.change(|desk| {
                    if let Some(client) = desk.clients.get_mut(&client) {
                        client.waits = true;
                    }
                    desk.send(client, &desk.states());
                });
            }
            Request::Unwait => {
                return self.shared.change(|desk| {
                    let Some(own) = desk.clients.get_mut(&client) else { return };
                    own.has_events = false;
                    if own.waits {
                        own.waits = false;
                        desk.send(client, &word(code::SUCCESS));
                    }
                });
            }
        };
        self.shared.change(|desk| desk.send(client, &answer));
    }

    /// Whoever waits under this context waits no longer.
    fn cancel(&self, body: Body) -> Vec<u8> {
        let context = body.number(at::CONTEXT);
        self.shared.change(|desk| {
            let waiting = |client: &&mut Client| client.waits && client.context == context;
            let found = desk.clients.values_mut().find(waiting);
            let Some(client) = found else { return body.with_code(code::INVALID_HANDLE) };
            (client.waits, client.has_events) = (false, false);
            let sent = std::io::Write::write_all(&mut client.stream, &word(code::CANCELLED));
            body.with_code(if sent.is_ok() { code::SUCCESS } else { code::INVALID_HANDLE })
        })
    }

    fn connect(&self, mut body: Body) -> Vec<u8> {
        let name = body.text(at::READER);
        // A transaction of somebody else's is waited for.
        self.shared.wait_while(|desk| {
            desk.life == self.life
                && desk.reader(&name).is_some_and(|reader| reader.locked_by.is_some())
        });
        let share = body.number(at::SHARE);
        let client = self.client;
        self.shared.change(|desk| {
            let number = desk.number();
            let Some(reader) = desk.reader(&name) else {
                return body.with_code(code::UNKNOWN_READER);
            };
            let exclusive = share == EXCLUSIVE;
            let refusal = match &reader.card {
                _ if reader.broken => Some(code::READER_UNAVAILABLE),
                _ if reader.sharing < 0 || (exclusive && reader.sharing > 0) => {
                    Some(code::SHARING_VIOLATION)
                }
                _ if share == SCARD_DIRECT => None,
                None => Some(code::NO_SMARTCARD),
                Some(Inside { atr: None, .. }) => Some(code::UNPOWERED_CARD),
                Some(_) => None,
            };
            if let Some(refusal) = refusal {
                return body.with_code(refusal);
            }
            reader.sharing = if exclusive { -1 } else { reader.sharing + 1 };
            reader.handles.push(Handle { number, client, removed: false });
            body.set(at::NEW_HANDLE, number);
            body.set(at::PROTOCOL, T1);
            body.with_code(code::SUCCESS)
        })
    }

    /// Requests about having a card to oneself, or no longer.
    fn hold(&self, request: Request, body: Body) -> Vec<u8> {
        let handle = body.number(at::HANDLE);
        if request == Request::Disconnect {
            return self.shared.change(|desk| match desk.reader_of(handle) {
                None => body.with_code(code::INVALID_VALUE),
                Some((reader, _)) => {
                    reader.close(handle);
                    body.with_code(code::SUCCESS)
                }
            });
        }
        self.on_handle(body, handle, |reader, handle| match (reader.locked_by, request) {
            (Some(other), _) if other != handle.number => code::SHARING_VIOLATION,
            (_, Request::Begin) => {
                reader.locked_by = Some(handle.number);
                code::SUCCESS
            }
            (_, _) => {
                reader.locked_by = None;
                code::SUCCESS
            }
        })
    }

    /// Does something with the reader of a handle, as long as its card is in it.
    fn on_handle(
        &self,
        body: Body,
        handle: u32,
        work: impl FnOnce(&mut super::desk::Reader, Handle) -> u32,
    ) -> Vec<u8> {
        self.shared.change(|desk| {
            let code = match desk.reader_of(handle) {
                None => code::INVALID_VALUE,
                Some((_, handle)) if handle.removed => code::REMOVED_CARD,
                Some((reader, _)) if reader.broken => code::READER_UNAVAILABLE,
                Some((reader, handle)) => work(reader, handle),
            };
            body.with_code(code)
        })
    }

    fn transmit(&self, mut body: Body, command: &[u8]) -> Vec<u8> {
        let handle = body.number(at::HANDLE);
        let found = self.shared.change(|desk| match desk.reader_of(handle) {
            None => Err(code::INVALID_VALUE),
            Some((_, handle)) if handle.removed => Err(code::REMOVED_CARD),
            Some((reader, _)) => reader.card.clone().ok_or(code::REMOVED_CARD),
        });
        let card = match found {
            Ok(card) => card,
            Err(refusal) => return body.with_code(refusal),
        };
        let answer = self.exchange(&card, command);
        let still = self
            .shared
            .change(|desk| desk.reader_of(handle).is_some_and(|(_, handle)| !handle.removed));
        match answer {
            Ok(answer) if still && !card.hand.is_ejected() => {
                body.set(at::ROOM, u32::try_from(answer.len()).unwrap_or(0));
                [body.with_code(code::SUCCESS), answer].concat()
            }
            Ok(_) | Err(_) => body.with_code(code::NOT_TRANSACTED),
        }
    }

    fn exchange(&self, card: &Inside, command: &[u8]) -> Result<Vec<u8>> {
        let answer = touch(card, |contact| contact.apdu(command));
        if answer.is_none() {
            self.shared.take_out(card);
            card.hand.leave();
        }
        answer.context("the card was torn out")
    }
}

fn touch<T>(card: &Inside, work: impl FnOnce(&mut Contact) -> T) -> T {
    work(&mut card.contact.lock().unwrap_or_else(PoisonError::into_inner))
}
