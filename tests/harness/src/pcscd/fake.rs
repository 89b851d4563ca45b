//! A pcscd that is not there: its protocol, spoken by the test. libpcsclite and
//! the agent are real; readers are made of data, and can do what no driver can.
//!
//! It speaks 4:4, as pcscd 1.9.9 does, and 4:5, as 2.3.3 does; libraries of 2.4.1 and
//! newer fall back to that.

mod desk;
mod serve;
mod trouble;
mod wire;

use std::fs::{self, Permissions};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Readers, Treatment, private};
use crate::cards::{Card, Contact, Faults, InsertedCard, Place};

use desk::{Desk, Inside, Reader};
pub use trouble::Trouble;
pub use wire::Request;

/// Codes of PC/SC.
pub mod code {
    #![expect(missing_docs, reason = "they are PC/SC's, and documented there")]
    pub const SUCCESS: u32 = 0;
    pub const CANCELLED: u32 = 0x8010_0002;
    pub const INVALID_HANDLE: u32 = 0x8010_0003;
    pub const UNKNOWN_READER: u32 = 0x8010_0009;
    pub const SHARING_VIOLATION: u32 = 0x8010_000B;
    pub const NO_SMARTCARD: u32 = 0x8010_000C;
    pub const PROTO_MISMATCH: u32 = 0x8010_000F;
    pub const INVALID_VALUE: u32 = 0x8010_0011;
    pub const NOT_TRANSACTED: u32 = 0x8010_0016;
    pub const READER_UNAVAILABLE: u32 = 0x8010_0017;
    pub const SERVICE_STOPPED: u32 = 0x8010_001E;
    pub const UNSUPPORTED: u32 = 0x8010_001F;
    pub const UNPOWERED_CARD: u32 = 0x8010_0067;
    pub const REMOVED_CARD: u32 = 0x8010_0069;
    pub const SECURITY_VIOLATION: u32 = 0x8010_006A;
}

/// The handle on it; clones are the same pcscd.
#[derive(Clone, Debug)]
pub struct Fake {
    shared: Arc<Shared>,
    socket: PathBuf,
    listener: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Fake {
    /// A pcscd with so many readers, not alive yet.
    pub(super) fn prepare(dir: &Path, readers: usize) -> Result<Self> {
        let socket = private::socket(dir);
        fs::create_dir(socket.parent().context("a socket without a directory")?)?;
        let shared = Arc::new(Shared::default());
        let name = |number| Reader::new(format!("Fake Reader {number:02} 00 00"));
        let mut desk = shared.lock();
        desk.readers = (0..readers).map(name).collect();
        (0..=readers).for_each(|_| desk.count_reader());
        drop(desk);
        Ok(Self { shared, socket, listener: Arc::default() })
    }

    /// It dies, with or without its socket's file; every client is cut off.
    pub(super) fn die(&self, tidily: bool) -> Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listener) = listener else { return Ok(()) };
        self.shared.change(|desk| {
            desk.alive = false;
            desk.life += 1;
            for client in desk.clients.values() {
                drop(client.stream.shutdown(Shutdown::Both));
            }
            desk.readers.iter_mut().for_each(Reader::reset);
        });
        drop(UnixStream::connect(&self.socket));
        drop(listener.join());
        if tidily {
            fs::remove_file(&self.socket)?;
            fs::remove_file(self.pid_file())?;
        }
        Ok(())
    }

    fn pid_file(&self) -> PathBuf {
        self.socket.with_file_name("pcscd.pid")
    }

    /// It lives, and knows nothing of its clients of before.
    pub(super) fn come_back(&self) -> Result<()> {
        if self.socket.exists() {
            fs::remove_file(&self.socket)?;
        }
        let listener = UnixListener::bind(&self.socket)?;
        // It is written again by each pcscd, before the first connection.
        fs::write(self.pid_file(), format!("{}\n\0", std::process::id()))?;
        // For everybody, as pcscd's own.
        fs::set_permissions(&self.socket, Permissions::from_mode(0o777))?;
        self.shared.change(|desk| desk.alive = true);
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("fake-pcscd".to_owned());
        let thread = thread.spawn(move || serve::accept(&listener, &shared))?;
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the same as with a real one")]
    pub(super) fn freeze(&self, frozen: bool) -> Result<()> {
        self.shared.change(|desk| desk.frozen = frozen);
        Ok(())
    }

    pub(super) fn story(&self) -> String {
        let words: Vec<String> =
            self.requests().iter().map(|request| format!("{request:?}")).collect();
        words.join(" ")
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().log.clone()
    }

    /// Waits until a condition on the requests holds.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&[Request]) -> bool,
    ) -> Result<()> {
        self.wait_desk(what, timeout, |desk| condition(&desk.log))
    }

    /// Waits until a client waits for word, and so will get it.
    pub fn wait_for_waiter(&self, timeout: Duration) -> Result<()> {
        let waits = |desk: &Desk| desk.clients.values().any(|client| desk.listens(client));
        self.wait_desk("a client that waits", timeout, waits)
    }

    fn wait_desk(
        &self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Desk) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut desk = self.shared.lock();
        while !condition(&desk) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {timeout:?} in vain: {what}; requests: {:?}", desk.log);
            }
            let woken = self.shared.changed.wait_timeout(desk, left);
            desk = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Makes trouble from here on.
    pub fn make(&self, trouble: Trouble) {
        self.shared.change(|desk| desk.troubles.push(trouble));
    }

    /// Makes no more trouble, and lets go of what hangs.
    pub fn clear_troubles(&self) {
        self.shared.change(|desk| desk.troubles.clear());
        self.release();
    }

    /// Answers what hangs.
    pub fn release(&self) {
        self.shared.change(|desk| desk.releases += 1);
    }

    /// From the next connection on it speaks one version of the protocol and takes no client of
    /// another, as a pcscd before 2.4.1 does.
    pub fn speak_only(&self, major: u32, minor: u32) {
        self.shared.change(|desk| desk.only = Some((major, minor)));
    }

    /// Ends that.
    pub fn speak_all(&self) {
        self.shared.change(|desk| desk.only = None);
    }

    /// Wakes every client that waits, for nothing.
    pub fn ring(&self) {
        self.shared.change(Desk::ring);
    }

    /// Ends every wait as a cancel does.
    pub fn cancel_waits(&self) {
        self.shared.change(|desk| desk.tell(code::CANCELLED));
    }

    /// Ends every wait with an error, after which clients ask for nothing to wait for, too.
    pub fn break_waits(&self, code: u32) {
        self.shared.change(|desk| {
            let waiting: Vec<u32> =
                desk.clients.iter().filter(|(_, client)| client.waits).map(|(id, _)| *id).collect();
            desk.tell(code);
            for client in waiting {
                desk.send(client, &wire::word(code::SUCCESS));
            }
        });
    }

    /// Changes several things at once: nobody sees the steps, and clients are
    /// woken once, at the end.
    pub fn at_once(&self, change: impl FnOnce(&mut Hands<'_>)) {
        self.shared.change(|desk| {
            change(&mut Hands { desk });
            desk.ring();
        });
    }
}

/// What can be changed in readers that are made of data.
#[derive(Debug)]
pub struct Hands<'a> {
    desk: &'a mut Desk,
}

impl Hands<'_> {
    /// Sets pcscd's count of insertions and removals.
    pub fn set_event_count(&mut self, reader: usize, count: u32) {
        self.each(reader, |reader| reader.event_count = count);
    }

    /// Whether insertions and removals are counted.
    pub fn set_counting(&mut self, reader: usize, counts: bool) {
        self.each(reader, |reader| reader.counts = counts);
    }

    /// How many programs use the card; -1 is one that has it to itself.
    pub fn set_sharing(&mut self, reader: usize, sharing: i32) {
        self.each(reader, |reader| reader.sharing = sharing);
    }

    /// Gives a reader another name.
    pub fn rename(&mut self, reader: usize, name: &str) {
        self.each(reader, |reader| name.clone_into(&mut reader.name));
    }

    /// Pulls a reader's plug.
    pub fn unplug(&mut self, reader: usize) {
        self.each(reader, Reader::unplug);
        self.desk.count_reader();
    }

    /// Plugs a reader in.
    pub fn plug(&mut self, reader: usize) {
        self.each(reader, |reader| reader.plugged = true);
        self.desk.count_reader();
    }

    /// Exchanges the cards of two readers, as if each had been taken out and put
    /// in.
    pub fn exchange_cards(&mut self, one: usize, other: usize) {
        let mut take = |reader: usize| {
            self.desk.readers.get_mut(reader).and_then(|r: &mut Reader| r.card.take())
        };
        let (first, second) = (take(one), take(other));
        for (reader, card) in [(one, second), (other, first)] {
            self.each(reader, |reader| {
                reader.put(None);
                reader.put(card);
            });
        }
    }

    fn each(&mut self, reader: usize, change: impl FnOnce(&mut Reader)) {
        if let Some(reader) = self.desk.readers.get_mut(reader) {
            change(reader);
        }
    }
}

impl Readers for Fake {
    fn names(&self) -> Vec<String> {
        self.shared.lock().readers.iter().map(|reader| reader.name.clone()).collect()
    }

    fn are_ready(&self, _pid: u32) -> bool {
        true
    }

    fn insert(&self, reader: usize, card: Box<dyn Card>, faults: Faults) -> Result<InsertedCard> {
        let mut contact = Contact::new(card, faults);
        let hand = contact.hand();
        contact.poll();
        let atr = contact.answer_to_reset(false);
        let contact = Arc::new(Mutex::new(contact));
        let card = Inside { contact, hand: Arc::clone(&hand), atr };
        let place = OnDesk { shared: Arc::clone(&self.shared), card: card.clone() };
        self.shared.change(|desk| {
            let found = desk.readers.get_mut(reader);
            let found = found.with_context(|| format!("there is no reader {reader}"))?;
            ensure!(found.card.is_none(), "there is a card in it already");
            found.put(Some(card));
            desk.ring();
            Ok(())
        })?;
        Ok(InsertedCard::new(hand, place))
    }

    fn treat(&self, reader: usize, treatment: Treatment) -> Result<()> {
        self.shared.change(|desk| {
            let found = desk.readers.get_mut(reader);
            let found = found.with_context(|| format!("there is no reader {reader}"))?;
            match treatment {
                Treatment::Unplug => found.unplug(),
                Treatment::Plug => found.plugged = true,
                // It drops none.
                Treatment::Dropped => {}
                Treatment::BreakDown => found.broken = true,
                Treatment::Repair => {
                    found.broken = false;
                    // As pcscd does: it counts what it finds then.
                    found.count();
                }
            }
            if matches!(treatment, Treatment::Unplug | Treatment::Plug) {
                desk.count_reader();
            }
            desk.ring();
            Ok(())
        })
    }
}

/// A card's place in a reader.
#[derive(Debug)]
struct OnDesk {
    shared: Arc<Shared>,
    card: Inside,
}

impl Place for OnDesk {
    fn vacate(&mut self) {
        self.shared.take_out(&self.card);
        self.card.hand.leave();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Desk) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn wait_while(&self, mut condition: impl FnMut(&mut Desk) -> bool) {
        let waited = self.changed.wait_while(self.lock(), |desk| condition(desk));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a card out of whatever reader it is in.
    fn take_out(&self, card: &Inside) {
        self.change(|desk| {
            let is_it = |reader: &&mut Reader| {
                let hand = reader.card.as_ref().map(|inside| &inside.hand);
                hand.is_some_and(|hand| Arc::ptr_eq(hand, &card.hand))
            };
            if let Some(reader) = desk.readers.iter_mut().find(is_it) {
                reader.put(None);
                desk.ring();
            }
        });
    }
}
