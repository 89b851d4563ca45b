//! A flag that goes up once, and that threads can sleep on. It knows nothing of what is halted.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Tells a thread to end. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Halt(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    up: Mutex<bool>,
    went_up: Condvar,
}

impl Halt {
    /// Puts the flag up, for good.
    pub(super) fn call(&self) {
        *self.0.up.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.went_up.notify_all();
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
