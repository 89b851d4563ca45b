//! Keeps threads out of the library once the process ends.
//!
//! When a program ends, the C library runs the end of every library while other threads go on.
//! libkrb5 destroys its locks there, and aborts the process when a thread takes one afterwards. So
//! every call goes through this gate, which is shut before: whoever comes later waits, and is gone
//! with the process.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the process's end waits for calls under way. Most take less than a millisecond; those
/// that wait for a silent KDC touch no lock meanwhile, and nobody waits for them.
const PATIENCE: Duration = Duration::from_millis(300);

/// The one that the process has.
pub(super) static GATE: ExitGuard = ExitGuard::new();

/// Counts the calls under way.
pub(super) struct ExitGuard {
    calls: Mutex<CallCount>,
    changed: Condvar,
}

struct CallCount {
    under_way: usize,
    shut: bool,
}

/// A call under way.
pub(super) struct CallGuard<'a>(&'a ExitGuard);

impl ExitGuard {
    const fn new() -> Self {
        let calls = Mutex::new(CallCount { under_way: 0, shut: false });
        Self { calls, changed: Condvar::new() }
    }

    /// Lets a call begin; never again once the gate is shut.
    pub(super) fn enter(&self) -> CallGuard<'_> {
        let mut calls = self
            .changed
            .wait_while(self.calls(), |calls| calls.shut)
            .unwrap_or_else(PoisonError::into_inner);
        calls.under_way += 1;
        CallGuard(self)
    }

    /// Lets no call begin any more, and waits a little for those under way.
    pub(super) fn shut(&self) {
        let mut calls = self.calls();
        calls.shut = true;
        drop(self.changed.wait_timeout_while(calls, PATIENCE, |calls| calls.under_way > 0));
    }

    fn calls(&self) -> MutexGuard<'_, CallCount> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.0.calls().under_way -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_end_waits_for_a_call_under_way_and_lets_no_other_begin() {
        static GATE: ExitGuard = ExitGuard::new();
        let inside = GATE.enter();
        let (shut, seen) = channel();
        thread::spawn(move || {
            GATE.shut();
            shut.send(()).unwrap();
        });
        while !GATE.calls().shut {
            thread::yield_now();
        }
        let (entered, never) = channel();
        thread::spawn(move || {
            let _inside = GATE.enter();
            entered.send(()).unwrap();
        });
        drop(inside);
        seen.recv().unwrap();
        assert!(never.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        static GATE: ExitGuard = ExitGuard::new();
        let _stuck = GATE.enter();
        let started = Instant::now();
        GATE.shut();
        assert!(started.elapsed() >= PATIENCE);
    }
}
