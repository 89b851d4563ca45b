//! A flag that goes up once, and that threads can sleep on. It knows nothing of what is halted.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Tells a thread to end. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub(super) struct CancelToken(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    cancelled: Mutex<bool>,
    cancelled_at: Condvar,
    /// Readable once the flag is up; made for whoever waits for another descriptor as well.
    signal: OnceLock<Option<OwnedFd>>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeCause {
    /// The flag is up.
    Cancelled,
    /// The other descriptor is readable.
    Signalled,
    /// Nothing happened in time.
    TimedOut,
}

impl CancelToken {
    /// Puts the flag up, for good.
    pub(super) fn cancel(&self) {
        *self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.cancelled_at.notify_all();
        if let Some(Some(signal)) = self.0.signal.get() {
            // It fails only when it is full, and so readable.
            let _full = rustix::io::write(signal, &1_u64.to_ne_bytes());
        }
    }

    /// Whether the flag is up.
    pub(super) fn is_cancelled(&self) -> bool {
        *self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for as long, or until the flag goes up; tells whether it is up.
    pub(super) fn wait_timeout(&self, patience: Duration) -> bool {
        let up = self.0.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let (up, _) = self
            .0
            .cancelled_at
            .wait_timeout_while(up, patience, |up| !*up)
            .unwrap_or_else(PoisonError::into_inner);
        *up
    }

    /// Waits for as long, until the flag goes up, or until another descriptor is readable.
    pub(super) fn wait_for_signal(&self, other: impl AsFd, patience: Duration) -> WakeCause {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let signal = self.0.signal.get_or_init(make);
        // A call before the signal was made has put the flag up; one after it is signalled.
        if self.is_cancelled() {
            return WakeCause::Cancelled;
        }
        let timeout = Timespec::try_from(patience).ok();
        let Some((signal, timeout)) = signal.as_ref().zip(timeout) else {
            return if self.wait_timeout(patience) {
                WakeCause::Cancelled
            } else {
                WakeCause::TimedOut
            };
        };
        let mut both = [PollFd::new(signal, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        // An interrupted wait is a short one: whoever waits looks at the clock.
        let ready = poll(&mut both, Some(&timeout)).unwrap_or(0);
        let [_, other] = both;
        match ready {
            _ if self.is_cancelled() => WakeCause::Cancelled,
            0 => WakeCause::TimedOut,
            _ if other.revents().is_empty() => WakeCause::TimedOut,
            _ => WakeCause::Signalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_wakes_every_sleeper() {
        let halt = CancelToken::default();
        let sleepers: Vec<_> = (0..2)
            .map(|_| {
                let halt = halt.clone();
                std::thread::spawn(move || halt.wait_timeout(Duration::from_mins(1)))
            })
            .collect();
        halt.cancel();
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap());
        }
    }

    #[test]
    fn a_call_before_the_sleep_is_not_lost() {
        let halt = CancelToken::default();
        assert!(!halt.wait_timeout(Duration::ZERO));
        halt.cancel();
        assert!(halt.is_cancelled() && halt.wait_timeout(Duration::from_mins(1)));
    }
}
