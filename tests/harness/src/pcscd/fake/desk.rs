//! What a pcscd that is not real knows: readers, cards in them, and clients.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::trouble::{Trouble, What};
use super::wire::{ReaderState, Request, SLOTS, SPOKEN, Version, states, word};
use crate::cards::{Contact, Hand};

// Flags of a reader's state.
const UNKNOWN: u32 = 1;
const ABSENT: u32 = 2;
const PRESENT: u32 = 4;
const MUTE: u32 = 8;
const POWERED: u32 = 0x10;
const NEGOTIABLE: u32 = 0x20;

/// The protocol of every connection, as with vpcd.
pub(super) const T1: u32 = 2;

/// A client's number.
pub(super) type ClientId = u32;

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) readers: Vec<Reader>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) log: Vec<Request>,
    /// What hangs waits for this to grow.
    pub(super) releases: u32,
    pub(super) frozen: bool,
    pub(super) alive: bool,
    /// How many lives it had; connections of an earlier one are over.
    pub(super) life: u32,
    /// The one version that it speaks, where it is not all of [`SPOKEN`].
    pub(super) only: Option<Version>,
    /// How many times a reader came or went.
    pub(super) reader_events: u32,
    next: u32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) context: u32,
    pub(super) waits: bool,
    /// The version of the protocol that its library speaks.
    pub(super) version: Version,
    /// Whether it has asked for them in this call; one call may wait several times.
    pub(super) has_events: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, context: 0, waits: false, version: (0, 0), has_events: false }
    }
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) plugged: bool,
    pub(super) broken: bool,
    pub(super) event_count: u32,
    pub(super) counts: bool,
    /// -1 is exclusive.
    pub(super) sharing: i32,
    pub(super) card: Option<Inside>,
    pub(super) handles: Vec<Handle>,
    /// The handle that has a transaction.
    pub(super) locked_by: Option<u32>,
}

/// A card in the reader.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) contact: Arc<Mutex<Contact>>,
    pub(super) hand: Arc<Hand>,
    /// None from a mute card.
    pub(super) atr: Option<Vec<u8>>,
}

/// A connection to a card.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle {
    pub(super) number: u32,
    pub(super) client: ClientId,
    /// Its card went.
    pub(super) removed: bool,
}

impl Desk {
    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Whether a client of this version is taken, and the version that it is told.
    pub(super) fn welcomes(&self, client: Version) -> (bool, Version) {
        match self.only {
            Some(only) => (client == only, only),
            None if SPOKEN.contains(&client) => (true, client),
            None => (false, SPOKEN[0]),
        }
    }

    /// Counts that a reader came or went; as in pcscd the count is never 0.
    pub(super) fn count_reader(&mut self) {
        self.reader_events = (self.reader_events % 0x7FFF) + 1;
    }

    /// Notes a request, and tells what is wrong with its answer.
    pub(super) fn meet(&mut self, request: Request) -> Option<What> {
        self.log.push(request);
        self.troubles.iter_mut().find_map(|trouble| trouble.meet(request))
    }

    /// Sends bytes to a client, if it is there.
    pub(super) fn send(&mut self, client: ClientId, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(&client) {
            drop(client.stream.write_all(bytes));
        }
    }

    /// Sends word of a change to all who wait for it.
    pub(super) fn ring(&mut self) {
        self.tell(0);
    }

    /// Sends a code to all who wait.
    pub(super) fn tell(&mut self, code: u32) {
        for client in self.clients.values_mut().filter(|client| client.waits) {
            client.waits = false;
            // Any code but this one ends the call.
            client.has_events &= code == 0;
            drop(client.stream.write_all(&word(code)));
        }
    }

    /// Whether a client takes the next word for what it waits for, and not for another answer.
    ///
    /// From 4:5 on, a library that waits for readers too asks for their events first. One that
    /// waits for as many readers as there may be has no place left for that.
    pub(super) fn listens(&self, client: &Client) -> bool {
        let asks_for_events = client.version >= (4, 5)
            && self.readers.iter().filter(|reader| reader.plugged).count() < SLOTS;
        client.waits && (client.has_events || !asks_for_events)
    }

    pub(super) fn states(&self) -> Vec<u8> {
        states(self.readers.iter().filter(|reader| reader.plugged).map(Reader::state).collect())
    }

    pub(super) fn reader(&mut self, name: &str) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| reader.plugged && reader.name == name)
    }

    /// The reader that a handle is of, as long as it is there.
    pub(super) fn reader_of(&mut self, handle: u32) -> Option<(&mut Reader, Handle)> {
        self.readers.iter_mut().find_map(|reader| {
            let found = reader.handles.iter().find(|own| own.number == handle).copied();
            found.map(|found| (reader, found))
        })
    }

    /// Ends a connection and all that it held.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.clients.remove(&client);
        for reader in &mut self.readers {
            let gone: Vec<u32> = reader
                .handles
                .iter()
                .filter(|handle| handle.client == client)
                .map(|handle| handle.number)
                .collect();
            for handle in gone {
                reader.close(handle);
            }
        }
    }
}

impl Reader {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            plugged: true,
            broken: false,
            event_count: 0,
            counts: true,
            sharing: 0,
            card: None,
            handles: Vec::new(),
            locked_by: None,
        }
    }

    /// Puts a card in, or takes the one that is in out.
    pub(super) fn put(&mut self, card: Option<Inside>) {
        for handle in &mut self.handles {
            handle.removed = true;
        }
        self.locked_by = None;
        self.card = card;
        self.count();
    }

    /// An insertion or a removal is counted, modulo 65536.
    pub(super) fn count(&mut self) {
        if self.counts {
            self.event_count = (self.event_count + 1) & 0xFFFF;
        }
    }

    /// The plug is pulled, or pcscd dies: nothing is left but the card in it.
    pub(super) fn reset(&mut self) {
        self.handles.clear();
        self.locked_by = None;
        self.sharing = 0;
        self.event_count = 0;
        if let Some(card) = &self.card {
            card.hand.release();
        }
    }

    /// Its plug is pulled.
    pub(super) fn unplug(&mut self) {
        self.plugged = false;
        self.reset();
    }

    /// Lets go of a card.
    pub(super) fn close(&mut self, handle: u32) {
        self.handles.retain(|own| own.number != handle);
        if self.locked_by == Some(handle) {
            self.locked_by = None;
        }
        self.sharing = if self.sharing < 0 { 0 } else { (self.sharing - 1).max(0) };
    }

    fn state(&self) -> ReaderState {
        let atr = self.card.as_ref().and_then(|card| card.atr.clone());
        let flags = match (&self.card, &atr) {
            _ if self.broken => UNKNOWN,
            (None, _) => ABSENT,
            (Some(_), None) => PRESENT | MUTE,
            (Some(_), Some(_)) => PRESENT | POWERED | NEGOTIABLE,
        };
        let atr = if self.broken { Vec::new() } else { atr.unwrap_or_default() };
        ReaderState {
            name: self.name.clone(),
            event_count: self.event_count,
            flags,
            sharing: self.sharing,
            atr,
            protocol: if self.handles.is_empty() { 0 } else { T1 },
        }
    }
}
