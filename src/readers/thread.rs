//! Threads that can be cancelled and whose end can be waited for with a timeout: joining a thread that
//! pcscd blocks would never return.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// The handle on one thread; dropping it lets the thread go on.
#[derive(Debug)]
pub(super) struct ReaderThread {
    halt: CancelToken,
    /// Closes when the thread ends, also by a panic. Nothing is ever sent.
    alive: Receiver<Infallible>,
}

impl ReaderThread {
    /// Starts a thread; the kernel shows the first 15 bytes of its name.
    pub(super) fn spawn(
        name: &str,
        work: impl FnOnce(CancelToken) + Send + 'static,
    ) -> io::Result<Self> {
        let halt = CancelToken::default();
        let (living, alive) = channel();
        let own = halt.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _living = living;
            work(own);
        })?;
        Ok(Self { halt, alive })
    }

    pub(super) fn cancel(&self) {
        self.halt.cancel();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.join_timeout(Duration::ZERO)
    }

    /// Waits for the thread's end; false after the timeout.
    pub(super) fn join_timeout(&self, timeout: Duration) -> bool {
        matches!(self.alive.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

/// The result of work that pcscd may block, within a timeout. Its thread is not waited for.
pub(super) fn within<T: Send + 'static>(
    thread: &str,
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    let started =
        thread::Builder::new().name(thread.to_owned()).spawn(move || sender.send(work()).ok());
    started.ok().and_then(|_| receiver.recv_timeout(timeout).ok())
}

/// A flag that is set once, and that threads can wait for. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub(super) struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    is_cancelled: Mutex<bool>,
    cancelled: Condvar,
    /// Readable once the flag is set; made for a wait for another descriptor as well.
    signal: OnceLock<Option<OwnedFd>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeCause {
    Cancelled,
    /// The other descriptor is readable.
    Signalled,
    TimedOut,
}

impl CancelToken {
    pub(super) fn cancel(&self) {
        *self.0.is_cancelled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.cancelled.notify_all();
        if let Some(Some(signal)) = self.0.signal.get() {
            // It fails only when it is full, and so readable.
            let _full = rustix::io::write(signal, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        *self.0.is_cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the flag is set, or until the timeout; whether the flag is set.
    pub(super) fn wait_timeout(&self, timeout: Duration) -> bool {
        let flag = self.0.is_cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.cancelled.wait_timeout_while(flag, timeout, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until the flag is set, another descriptor is readable, or until the timeout.
    pub(super) fn wait_for_signal(&self, other: impl AsFd, timeout: Duration) -> WakeCause {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let signal = self.0.signal.get_or_init(make).as_ref();
        let mut is_readable = false;
        // A cancellation before the signal was made has set the flag; one after it is signalled.
        if !self.is_cancelled() {
            if let (Some(signal), Ok(timeout)) = (signal, Timespec::try_from(timeout)) {
                let mut fds =
                    [PollFd::new(signal, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
                // An interrupted wait is a short one: the caller checks the clock.
                let is_ready = poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0);
                is_readable = is_ready && !fds[1].revents().is_empty();
            } else {
                self.wait_timeout(timeout);
            }
        }
        if self.is_cancelled() {
            WakeCause::Cancelled
        } else if is_readable {
            WakeCause::Signalled
        } else {
            WakeCause::TimedOut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellation_wakes_all_waiting_threads() {
        let halt = CancelToken::default();
        let sleepers: Vec<_> = (0..2)
            .map(|_| {
                let halt = halt.clone();
                thread::spawn(move || halt.wait_timeout(Duration::from_mins(1)))
            })
            .collect();
        halt.cancel();
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap());
        }
    }

    #[test]
    fn cancellation_before_wait_is_not_lost() {
        let halt = CancelToken::default();
        assert!(!halt.wait_timeout(Duration::ZERO));
        halt.cancel();
        assert!(halt.is_cancelled() && halt.wait_timeout(Duration::from_mins(1)));
    }

    #[test]
    fn thread_ends_when_cancelled() {
        let worker = ReaderThread::spawn("listens", |halt| {
            halt.wait_timeout(Duration::from_mins(1));
        })
        .unwrap();
        assert!(!worker.has_ended());
        worker.cancel();
        assert!(worker.join_timeout(Duration::from_mins(1)));
        assert!(worker.has_ended());
    }

    #[test]
    fn join_of_hanging_thread_times_out() {
        let (release, held) = channel::<()>();
        let worker = ReaderThread::spawn("hangs", move |_| {
            held.recv().unwrap_err();
        })
        .unwrap();
        worker.cancel();
        assert!(!worker.join_timeout(Duration::from_millis(10)));
        drop(release);
        assert!(worker.join_timeout(Duration::from_mins(1)));
    }
}
