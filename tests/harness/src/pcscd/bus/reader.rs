//! One reader on the bus.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::Shared;
use crate::cards::{CardControl, Contact, Place};

/// A reader as the test sees it.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) plugged: bool,
    /// Its driver reports an error.
    pub(super) broken: bool,
    pub(super) card: Option<Inside>,
    /// What pcscd has opened, while it has.
    pub(super) channel: Option<Channel>,
    /// How many times pcscd has yet to open it.
    pub(super) due: u32,
    /// pcscd's number for it; it remains in the name of a reader that is gone.
    pub(super) lun: u32,
    /// How many times pcscd has seen that the last card is out.
    empty_looks: u32,
}

/// A card in the reader.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) contact: Arc<Mutex<Contact>>,
    pub(super) control: Arc<CardControl>,
}

/// The connections of one opened reader.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) opening: u32,
    pub(super) calls: UnixStream,
    pub(super) events: Option<UnixStream>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            plugged: true,
            broken: false,
            card: None,
            channel: None,
            due: 1,
            lun: 0,
            empty_looks: 0,
        }
    }
}

impl Reader {
    /// The name under which pcscd knows it.
    pub(super) fn name(&self, number: usize) -> String {
        format!("Cardbridge Double (R{number:02}) {:02X} 00", self.lun >> 16)
    }

    /// Whether pcscd uses it, will get events, and has done so with all that was plugged.
    pub(super) fn is_open(&self) -> bool {
        self.due == 0 && self.channel.as_ref().is_some_and(|channel| channel.events.is_some())
    }

    /// Whether this is the opening that there is.
    pub(super) fn is_opening(&self, opening: u32) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.opening == opening)
    }

    /// pcscd has opened it.
    pub(super) fn opened(&mut self, events: UnixStream, opening: u32) {
        self.due = self.due.saturating_sub(1);
        if let Some(channel) = self.channel.as_mut().filter(|own| own.opening == opening) {
            channel.events = Some(events);
        }
    }

    /// Puts a card in, or leaves the reader empty, and lets pcscd know.
    pub(super) fn put(&mut self, contact: Option<Contact>) {
        self.empty_looks = 0;
        self.card = contact.map(|contact| Inside {
            control: contact.control(),
            contact: Arc::new(Mutex::new(contact)),
        });
        self.ring();
    }

    /// pcscd polls, and there is no card.
    pub(super) fn look_empty(&mut self) {
        self.empty_looks += 1;
        if !self.was_seen_empty() {
            self.ring();
        }
    }

    /// Whether pcscd knows by now that the last card is out. It also polls before it switches a card
    /// on or off, and makes nothing of what it sees then.
    fn was_seen_empty(&self) -> bool {
        self.empty_looks >= 3
    }

    /// Something changed: pcscd is to poll.
    pub(super) fn ring(&self) {
        let events = self.channel.as_ref().and_then(|channel| channel.events.as_ref());
        if let Some(mut events) = events {
            drop(events.write_all(&[1]));
        }
    }

    /// Ends a command that hangs: no program waits for the answer.
    pub(super) fn let_go(&self) {
        if let Some(card) = &self.card {
            card.control.release();
        }
    }

    /// Cuts pcscd off.
    pub(super) fn cut(&mut self) {
        self.let_go();
        if let Some(channel) = self.channel.take() {
            drop(channel.calls.shutdown(Shutdown::Both));
        }
    }
}

/// A card's place in a reader.
#[derive(Debug)]
pub(super) struct InReader {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: usize,
    pub(super) control: Arc<CardControl>,
}

impl Place for InReader {
    /// Comes back once pcscd has seen it, so that the next card is another one.
    fn vacate(&mut self) {
        let is_mine = |inside: &Inside| Arc::ptr_eq(&inside.control, &self.control);
        let taken = self.shared.change(self.reader, |reader| {
            if reader.card.as_ref().is_some_and(is_mine) {
                reader.put(None);
            }
            Ok(())
        });
        drop(taken);
        let seen = |reader: &Reader| {
            reader.was_seen_empty() || reader.broken || !reader.plugged || !reader.is_open()
        };
        self.shared.wait(self.reader, seen);
        self.control.leave();
    }
}
