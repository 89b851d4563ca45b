//! Mute cards, each looked at by a thread of its own.
//!
//! Whatever looks at a mute card takes the library 400 ms, a wait's beginning included, and holds up
//! every other reader in the same call; with some libraries, every other thread as well. So the monitor
//! leaves such a reader to a thread with a context of its own, which waits at pcscd's own table, looks
//! where that shows something new, and rings.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcsc::Error;
use tracing::debug;

use crate::domain::ReaderName;

use super::diff::Occupant;
use super::errors::Errors;
use super::halt::Halt;
use super::link::Link;
use super::monitor::Published;
use super::table::{Connection, Row};
use super::wait::{Seen, look_at, name, wait};
use super::worker::Worker;

/// How long one wait may take. pcscd rings for all that people do to a card, unless its count is 0,
/// as it is for a card that was there before pcscd; it does not ring when another program gets the
/// card to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// When the monitor looks itself at a reader that no thread can look at.
const UNWATCHED: Duration = Duration::from_secs(2);

/// How often the monitor is rung until it listens: a ring that comes just before its wait is lost.
const RING_EVERY: Duration = Duration::from_millis(20);

/// The readers that the monitor need not look at.
pub(super) struct Mutes {
    published: Published,
    errors: Errors,
    watched: BTreeMap<ReaderName, (Worker, News)>,
}

/// What a thread has to tell. Clones are the same.
#[derive(Clone, Default)]
struct News(Arc<Mutex<Told>>);

#[derive(Default)]
enum Told {
    /// Nothing that the monitor does not know.
    #[default]
    Nothing,
    /// A look.
    Seen(Seen),
    /// That it cannot look.
    Blind,
}

impl Mutes {
    /// No reader. The monitor's context is where its wait can be cancelled.
    pub(super) const fn new(published: Published, errors: Errors) -> Self {
        Self { published, errors, watched: BTreeMap::new() }
    }

    /// Whether the monitor need not look at this reader.
    pub(super) fn have(&self, reader: &ReaderName) -> bool {
        self.watched.contains_key(reader)
    }

    /// Leaves a reader to a thread, which goes on from what was seen last, and asks pcscd for its table in
    /// this version of the protocol.
    pub(super) fn watch(&mut self, seen: Seen, minor: u32) -> io::Result<()> {
        let reader = seen.look.reader.clone();
        let news = News::default();
        let worker = Worker::spawn("pcsc-mute", {
            let (published, errors) = (self.published.clone(), self.errors.clone());
            let (reader, news) = (reader.clone(), news.clone());
            move |halt| {
                let tell = |told| news.tell(told, &published, &halt);
                if let Err(error) = watch(seen, minor, &halt, &tell) {
                    let error = errors.count(error);
                    debug!(%reader, %error, "Reader cannot be left to a thread");
                    // One that is unknown was pulled; it may be back already.
                    if error != Error::UnknownReader {
                        halt.wait(UNWATCHED);
                    }
                    tell(Told::Blind);
                }
            }
        })?;
        if let Some((former, _)) = self.watched.insert(reader, (worker, news)) {
            former.halt();
        }
        Ok(())
    }

    /// Forgets readers that are gone, and those that nobody could look at.
    pub(super) fn forget(&mut self, there: &[ReaderName]) {
        self.keep(|reader, news| there.contains(reader) && !news.is_blind());
    }

    /// What the threads have seen. Readers in which no card is mute any more are the monitor's again.
    pub(super) fn take(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        self.keep(|_, news| {
            let Some(seen) = news.take() else { return true };
            let mute = seen.look.occupant == Occupant::Mute;
            all.push(seen);
            mute
        });
        all
    }

    fn keep(&mut self, mut stays: impl FnMut(&ReaderName, &News) -> bool) {
        self.watched.retain(|reader, (worker, news)| {
            let stays = stays(reader, news);
            if !stays {
                worker.halt();
            }
            stays
        });
    }
}

impl Drop for Mutes {
    fn drop(&mut self) {
        for (worker, _) in self.watched.values() {
            worker.halt();
        }
    }
}

impl News {
    /// Tells, and rings the monitor until it has listened.
    fn tell(&self, told: Told, published: &Published, halt: &Halt) {
        *self.lock() = told;
        while !halt.is_called() && !matches!(*self.lock(), Told::Nothing) {
            published.cancel();
            halt.wait(RING_EVERY);
        }
    }

    fn is_blind(&self) -> bool {
        matches!(*self.lock(), Told::Blind)
    }

    fn take(&self) -> Option<Seen> {
        let mut told = self.lock();
        match std::mem::take(&mut *told) {
            Told::Seen(seen) => Some(seen),
            other @ (Told::Nothing | Told::Blind) => {
                *told = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the table may show something else of a reader than it did before. Tells whether it
/// does, so that a look is due.
fn wait_at(
    table: &mut Connection,
    reader: &ReaderName,
    before: &mut Option<Row>,
) -> io::Result<bool> {
    let row = table.row(&name(reader))?;
    let is_due = row != *before;
    *before = row;
    if is_due {
        table.stop_waiting()?;
    } else {
        table.wait(PATIENCE)?;
    }
    Ok(is_due)
}

/// Waits and looks, and tells what is new, until the card in the reader answers or is gone, or nobody
/// wants to know any more.
fn watch(mut known: Seen, minor: u32, halt: &Halt, tell: &impl Fn(Told)) -> Result<(), Error> {
    let link = Link::establish()?;
    let mut table = Connection::open(minor).ok();
    let mut row = Some(Row { is_mute: true, event_count: known.look.event_count });
    while !halt.is_called() && known.look.occupant == Occupant::Mute {
        match table.as_mut().map(|table| wait_at(table, &known.look.reader, &mut row)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => continue,
            Some(Err(error)) => {
                debug!(reader = %known.look.reader, %error, "pcscd's table cannot be read");
                table = None;
                continue;
            }
            None => drop(wait(&link, &mut [known.expected()], PATIENCE)?),
        }
        let seen = look_at(&link, &known.look.reader)?;
        if seen.look != known.look {
            tell(Told::Seen(seen.clone()));
        }
        known = seen;
    }
    Ok(())
}
