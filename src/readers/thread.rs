//! A named thread that can be told to end, and whose end can be waited for without being bound to
//! it: joining a thread that pcscd holds would never come back.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::cancel::CancelToken;

/// The handle on one thread; dropping it lets the thread go on.
#[derive(Debug)]
pub(super) struct ReaderThread {
    halt: CancelToken,
    /// Closes when the thread ends, in whatever way. Nothing is ever sent.
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

    /// Tells the thread to end.
    pub(super) fn cancel(&self) {
        self.halt.cancel();
    }

    /// Whether the thread came to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.join_timeout(Duration::ZERO)
    }

    /// Waits for the thread's end; false when it did not come in time.
    pub(super) fn join_timeout(&self, patience: Duration) -> bool {
        matches!(self.alive.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_ends_when_told() {
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
    fn a_worker_that_hangs_is_waited_for_no_longer_than_asked() {
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
