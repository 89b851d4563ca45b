//! Connections to pcscd and to the cards in its readers. They are opened and closed one at a time.
//!
//! libpcsclite keeps one list for all contexts of a process, and before 2.4.0 `SCardDisconnect` walks it
//! without its lock. A thread that establishes or releases its own context meanwhile frees entries of
//! the list, and the process dies. So these three calls take turns here
//! (`docs/decisions/0002-thread-model.md`).

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use pcsc::{Card, Context, Disposition, Error, Protocols, Scope, ShareMode};
use tracing::debug;

use crate::domain::ReaderName;

use super::pcsc_errors::{is_gone, is_lost};
use super::status_change::pcsc_name;

/// After this long pcscd or a driver blocks a call, and other calls pass it. A blocked call is not at the
/// list; where it goes on beside another one, that is the risk that is left.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

static CALL_MUTEX: CallMutex = CallMutex::new(LOCK_TIMEOUT);

pub(super) struct PcscContext(Option<Context>);

/// A connection to a reader or the card in it. When dropped, it leaves the card as it is: dropping
/// a [`Card`] would reset it, under every program that uses it.
pub(super) struct CardConnection(Option<Card>);

impl PcscContext {
    /// `SCardEstablishContext`.
    pub(super) fn establish() -> Result<Self, Error> {
        let _turn = CALL_MUTEX.take();
        Context::establish(Scope::System).map(|context| Self(Some(context)))
    }

    /// `SCardConnect`, without a turn: it may take as long as a card takes to power up.
    pub(super) fn connect(
        &self,
        reader: &ReaderName,
        mode: ShareMode,
        protocols: Protocols,
    ) -> Result<CardConnection, Error> {
        let card = Context::connect(self, &pcsc_name(reader), mode, protocols)?;
        Ok(CardConnection(Some(card)))
    }
}

impl Deref for PcscContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        self.0.as_ref().unwrap_or_else(|| unreachable!("present until dropped"))
    }
}

impl Drop for PcscContext {
    fn drop(&mut self) {
        let _turn = CALL_MUTEX.take();
        drop(self.0.take());
    }
}

impl Deref for CardConnection {
    type Target = Card;

    fn deref(&self) -> &Card {
        self.0.as_ref().unwrap_or_else(|| unreachable!("present until dropped"))
    }
}

impl DerefMut for CardConnection {
    fn deref_mut(&mut self) -> &mut Card {
        self.0.as_mut().unwrap_or_else(|| unreachable!("present until dropped"))
    }
}

impl Drop for CardConnection {
    fn drop(&mut self) {
        let _turn = CALL_MUTEX.take();
        let left = self.0.take().map_or(Ok(()), |card| card.disconnect(Disposition::LeaveCard));
        if let Err((card, error)) = left {
            debug!(error = %error, "SCardDisconnect failed");
            // Without a card or pcscd at the other end, the reset of a drop does no harm. Else a handle
            // that leaks is the lesser harm.
            if !is_gone(error) && !is_lost(error) {
                mem::forget(card);
            }
        }
    }
}

/// Lets one thread after the other pass, and all past a blocked one.
struct CallMutex {
    held: Duration,
    taken: Mutex<Option<(ThreadId, Instant)>>,
    given_back: Condvar,
}

struct CallMutexGuard<'a>(&'a CallMutex);

impl CallMutex {
    const fn new(held: Duration) -> Self {
        Self { held, taken: Mutex::new(None), given_back: Condvar::new() }
    }

    fn take(&self) -> CallMutexGuard<'_> {
        let mut taken = self.lock();
        while let Some((_, since)) = *taken {
            let Some(left) = self.held.checked_sub(since.elapsed()) else { break };
            taken =
                self.given_back.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = Some((thread::current().id(), Instant::now()));
        CallMutexGuard(self)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(ThreadId, Instant)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallMutexGuard<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.lock();
        // Another thread may have gone past this one.
        if taken.is_some_and(|(holder, _)| holder == thread::current().id()) {
            *taken = None;
            self.0.given_back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn calls_take_turns() {
        let turns = CallMutex::new(Duration::from_mins(1));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.take();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 0, "how many others there were inside");
    }

    #[test]
    fn blocked_thread_is_passed_and_ends_only_its_turn() {
        let turns = CallMutex::new(Duration::from_millis(10));
        let (release, held) = channel::<()>();
        thread::scope(|scope| {
            let (ready, is_ready) = channel();
            let stuck = scope.spawn({
                let turns = &turns;
                move || {
                    let turn = turns.take();
                    ready.send(()).unwrap();
                    held.recv().unwrap();
                    drop(turn);
                }
            });
            is_ready.recv().unwrap();
            let turn = turns.take();
            release.send(()).unwrap();
            stuck.join().unwrap();
            assert_eq!(turns.lock().unwrap().0, thread::current().id());
            drop(turn);
            assert!(turns.lock().is_none());
        });
    }
}
