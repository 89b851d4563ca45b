//! A flag that goes up once, and that threads can sleep on. It knows nothing of what is halted.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Tells a thread to end. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Halt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    up: Mutex<bool>,
    went_up: Condvar,
    /// Readable once the flag is up; made for whoever waits for another descriptor as well.
    signal: OnceLock<Option<OwnedFd>>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The flag is up.
    Halted,
    /// The other descriptor is readable.
    Other,
    /// Nothing happened in time.
    Late,
}

impl Halt {
    /// Puts the flag up, for good.
    pub(super) fn call(&self) {
        *self.0.up.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.went_up.notify_all();
        if let Some(Some(signal)) = self.0.signal.get() {
            // It fails only when it is full, and so readable.
            let _full = rustix::io::write(signal, &1_u64.to_ne_bytes());
        }
    }

    /// Whether the flag is up.
    pub(super) fn is_called(&self) -> bool {
        *self.0.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for as long, or until the flag goes up; tells whether it is up.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let up = self.0.up.lock().unwrap_or_else(PoisonError::into_inner);
        let (up, _) = self
            .0
            .went_up
            .wait_timeout_while(up, patience, |up| !*up)
            .unwrap_or_else(PoisonError::into_inner);
        *up
    }

    /// Waits for as long, until the flag goes up, or until another descriptor is readable.
    pub(super) fn wait_or(&self, other: impl AsFd, patience: Duration) -> Woken {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let signal = self.0.signal.get_or_init(make);
        // A call before the signal was made has put the flag up; one after it is signalled.
        if self.is_called() {
            return Woken::Halted;
        }
        let timeout = Timespec::try_from(patience).ok();
        let Some((signal, timeout)) = signal.as_ref().zip(timeout) else {
            return if self.wait(patience) { Woken::Halted } else { Woken::Late };
        };
        let mut both = [PollFd::new(signal, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        // An interrupted wait is a short one: whoever waits looks at the clock.
        let ready = poll(&mut both, Some(&timeout)).unwrap_or(0);
        let [_, other] = both;
        match ready {
            _ if self.is_called() => Woken::Halted,
            0 => Woken::Late,
            _ if other.revents().is_empty() => Woken::Late,
            _ => Woken::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_wakes_every_sleeper() {
        let halt = Halt::default();
        let sleepers: Vec<_> = (0..2)
            .map(|_| {
                let halt = halt.clone();
                std::thread::spawn(move || halt.wait(Duration::from_mins(1)))
            })
            .collect();
        halt.call();
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap());
        }
    }

    #[test]
    fn a_call_before_the_sleep_is_not_lost() {
        let halt = Halt::default();
        assert!(!halt.wait(Duration::ZERO));
        halt.call();
        assert!(halt.is_called() && halt.wait(Duration::from_mins(1)));
    }
}
