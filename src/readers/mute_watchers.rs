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

use super::cancel::CancelToken;
use super::context::PcscContext;
use super::error_counters::ErrorCounters;
use super::monitor::WaitCanceller;
use super::pcscd_table::{PcscdConnection, ReaderStateRow};
use super::reader_table::CardPresence;
use super::status_change::{PolledReader, name, poll_one, wait};
use super::thread::ReaderThread;

/// How long one wait may take. pcscd rings for all that people do to a card, unless its count is 0,
/// as it is for a card that was there before pcscd; it does not ring when another program gets the
/// card to answer.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// When the monitor looks itself at a reader that no thread can look at.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the monitor is rung until it listens: a ring that comes just before its wait is lost.
const WAKE_INTERVAL: Duration = Duration::from_millis(20);

/// The readers that the monitor need not look at.
pub(super) struct MuteWatchers {
    published: WaitCanceller,
    errors: ErrorCounters,
    watched: BTreeMap<ReaderName, (ReaderThread, WatcherMailbox)>,
}

/// What a thread has to tell. Clones are the same.
#[derive(Clone, Default)]
struct WatcherMailbox(Arc<Mutex<WatcherReport>>);

#[derive(Default)]
enum WatcherReport {
    /// Nothing that the monitor does not know.
    #[default]
    Nothing,
    /// A look.
    Polled(PolledReader),
    /// That it cannot look.
    CannotWatch,
}

impl MuteWatchers {
    /// No reader. The monitor's context is where its wait can be cancelled.
    pub(super) const fn new(published: WaitCanceller, errors: ErrorCounters) -> Self {
        Self { published, errors, watched: BTreeMap::new() }
    }

    /// Whether the monitor need not look at this reader.
    pub(super) fn is_watched(&self, reader: &ReaderName) -> bool {
        self.watched.contains_key(reader)
    }

    /// Leaves a reader to a thread, which goes on from what was seen last, and asks pcscd for its table in
    /// this version of the protocol.
    pub(super) fn watch(&mut self, seen: PolledReader, minor: u32) -> io::Result<()> {
        let reader = seen.snapshot.reader.clone();
        let news = WatcherMailbox::default();
        let worker = ReaderThread::spawn("pcsc-mute", {
            let (published, errors) = (self.published.clone(), self.errors.clone());
            let (reader, news) = (reader.clone(), news.clone());
            move |halt| {
                let tell = |told| news.post(told, &published, &halt);
                if let Err(error) = watch(seen, minor, &halt, &tell) {
                    let error = errors.count(error);
                    debug!(%reader, %error, "Mute-card watcher failed");
                    // One that is unknown was pulled; it may be back already.
                    if error != Error::UnknownReader {
                        halt.wait_timeout(FALLBACK_POLL_INTERVAL);
                    }
                    tell(WatcherReport::CannotWatch);
                }
            }
        })?;
        if let Some((former, _)) = self.watched.insert(reader, (worker, news)) {
            former.cancel();
        }
        Ok(())
    }

    /// Forgets readers that are gone, and those that nobody could look at.
    pub(super) fn forget(&mut self, there: &[ReaderName]) {
        self.keep(|reader, news| there.contains(reader) && !news.cannot_watch());
    }

    /// What the threads have seen. Readers in which no card is mute any more are the monitor's again.
    pub(super) fn take(&mut self) -> Vec<PolledReader> {
        let mut all = Vec::new();
        self.keep(|_, news| {
            let Some(seen) = news.take() else { return true };
            let mute = seen.snapshot.occupant == CardPresence::Mute;
            all.push(seen);
            mute
        });
        all
    }

    fn keep(&mut self, mut stays: impl FnMut(&ReaderName, &WatcherMailbox) -> bool) {
        self.watched.retain(|reader, (worker, news)| {
            let stays = stays(reader, news);
            if !stays {
                worker.cancel();
            }
            stays
        });
    }
}

impl Drop for MuteWatchers {
    fn drop(&mut self) {
        for (worker, _) in self.watched.values() {
            worker.cancel();
        }
    }
}

impl WatcherMailbox {
    /// Tells, and rings the monitor until it has listened.
    fn post(&self, told: WatcherReport, published: &WaitCanceller, halt: &CancelToken) {
        *self.lock() = told;
        while !halt.is_cancelled() && !matches!(*self.lock(), WatcherReport::Nothing) {
            published.cancel();
            halt.wait_timeout(WAKE_INTERVAL);
        }
    }

    fn cannot_watch(&self) -> bool {
        matches!(*self.lock(), WatcherReport::CannotWatch)
    }

    fn take(&self) -> Option<PolledReader> {
        let mut told = self.lock();
        match std::mem::take(&mut *told) {
            WatcherReport::Polled(seen) => Some(seen),
            other @ (WatcherReport::Nothing | WatcherReport::CannotWatch) => {
                *told = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, WatcherReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the table may show something else of a reader than it did before. Tells whether it
/// does, so that a look is due.
fn wait_at(
    table: &mut PcscdConnection,
    reader: &ReaderName,
    before: &mut Option<ReaderStateRow>,
) -> io::Result<bool> {
    let row = table.row(&name(reader))?;
    let is_due = row != *before;
    *before = row;
    if is_due {
        table.stop_waiting()?;
    } else {
        table.wait(WAIT_TIMEOUT)?;
    }
    Ok(is_due)
}

/// Waits and looks, and tells what is new, until the card in the reader answers or is gone, or nobody
/// wants to know any more.
fn watch(
    mut known: PolledReader,
    minor: u32,
    halt: &CancelToken,
    tell: &impl Fn(WatcherReport),
) -> Result<(), Error> {
    let link = PcscContext::establish()?;
    let mut table = PcscdConnection::open(minor).ok();
    let mut row = Some(ReaderStateRow { is_mute: true, event_count: known.snapshot.event_count });
    while !halt.is_cancelled() && known.snapshot.occupant == CardPresence::Mute {
        match table.as_mut().map(|table| wait_at(table, &known.snapshot.reader, &mut row)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => continue,
            Some(Err(error)) => {
                debug!(reader = %known.snapshot.reader, %error, "pcscd's table cannot be read");
                table = None;
                continue;
            }
            None => drop(wait(&link, &mut [known.expected()], WAIT_TIMEOUT)?),
        }
        let seen = poll_one(&link, &known.snapshot.reader)?;
        if seen.snapshot != known.snapshot {
            tell(WatcherReport::Polled(seen.clone()));
        }
        known = seen;
    }
    Ok(())
}
