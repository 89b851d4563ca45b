//! Mute cards, each watched by a thread of its own.
//!
//! Whatever looks at a mute card takes the library 400 ms, a wait's beginning included, and holds up
//! every other reader in the same call. So the monitor leaves such a reader to a thread with a
//! context of its own, and looks at it again when that says so.

use std::collections::BTreeMap;
use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pcsc::Error;
use tracing::debug;

use crate::domain::ReaderName;

use super::halt::Halt;
use super::link::Link;
use super::monitor::Published;
use super::wait::{Ring, Seen, look, wait};
use super::worker::Worker;

/// How long one wait may take. pcscd rings for all that people do to a card, unless its count is 0,
/// as it is for a card that was there before pcscd; it does not ring when another program gets the
/// card to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// When the monitor looks again at a mute card that could not be watched.
const UNWATCHED: Duration = Duration::from_secs(2);

/// How often the monitor is rung until it looks: a ring that comes just before its wait is lost.
const RING_EVERY: Duration = Duration::from_millis(20);

/// The readers with mute cards that the monitor need not look at.
pub(super) struct Mutes {
    published: Published,
    watched: BTreeMap<ReaderName, Watch>,
}

/// One reader with a mute card.
struct Watch {
    worker: Worker,
    /// There is something for the monitor to look at.
    stirred: Arc<AtomicBool>,
}

impl Mutes {
    /// No reader. The monitor's context is where its wait can be cancelled.
    pub(super) const fn new(published: Published) -> Self {
        Self { published, watched: BTreeMap::new() }
    }

    /// Whether the monitor may leave this reader alone.
    pub(super) fn are_quiet_in(&self, reader: &ReaderName) -> bool {
        self.watched.get(reader).is_some_and(|watch| !watch.stirred.load(Ordering::Acquire))
    }

    /// Leaves a reader to a thread, from what the monitor saw in it.
    pub(super) fn watch(&mut self, seen: &Seen) -> io::Result<()> {
        let (published, stirred) = (self.published.clone(), Arc::new(AtomicBool::new(false)));
        let reader = seen.look.reader.clone();
        let worker = Worker::spawn("pcsc-mute", {
            let (seen, stirred) = (seen.clone(), Arc::clone(&stirred));
            move |halt| {
                let watched = watch(&seen, &halt);
                if let Err(error) = &watched {
                    debug!(reader = %seen.look.reader, %error, "Mute card cannot be watched");
                    halt.wait(UNWATCHED);
                }
                stirred.store(true, Ordering::Release);
                ring(&published, &halt);
            }
        })?;
        self.forget(&reader);
        self.watched.insert(reader, Watch { worker, stirred });
        Ok(())
    }

    /// Forgets readers that are gone.
    pub(super) fn keep(&mut self, there: &[ReaderName]) {
        let gone: Vec<_> =
            self.watched.keys().filter(|reader| !there.contains(reader)).cloned().collect();
        for reader in gone {
            self.forget(&reader);
        }
    }

    /// Forgets a reader that the monitor looks at itself.
    pub(super) fn forget(&mut self, reader: &ReaderName) {
        if let Some(watch) = self.watched.remove(reader) {
            watch.worker.halt();
        }
    }
}

impl Drop for Mutes {
    fn drop(&mut self) {
        for watch in self.watched.values() {
            watch.worker.halt();
        }
    }
}

/// Waits until something changes in the reader, or nobody wants to know any more. The context comes
/// back because the monitor is in more of a hurry than its release.
fn watch(seen: &Seen, halt: &Halt) -> Result<Link, Error> {
    let link = Link::establish()?;
    while !halt.is_called() && wait(&link, &mut [seen.expected()], PATIENCE)? == Ring::Quiet {
        let now = look(&link, slice::from_ref(&seen.look.reader))?;
        if now.iter().any(|now| now.look != seen.look) {
            break;
        }
    }
    Ok(link)
}

/// Rings the monitor until it has looked.
fn ring(published: &Published, halt: &Halt) {
    while !halt.is_called() {
        published.cancel();
        halt.wait(RING_EVERY);
    }
}
