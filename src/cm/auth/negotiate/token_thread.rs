//! A thread for what must not hold up the loop, however short it is.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after the other; it ends when this is dropped and the last is done.
pub(super) struct TokenThread {
    // Unbounded: a job is part of a call, and there are no more calls than `cm.concurrency` allows.
    jobs: mpsc::Sender<Job>,
}

/// There is no answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenTimeout;

impl TokenThread {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, orders) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in orders {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// What comes of a job; one that is late is done all the same, and nobody hears of it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TokenTimeout> {
        let (answer, done) = oneshot::channel();
        let job = move || {
            // Whoever gave up waiting has dropped the other end.
            drop(answer.send(job()));
        };
        self.jobs.send(Box::new(job)).map_err(|_| TokenTimeout)?;
        timeout_at(deadline, done).await.map_err(|_| TokenTimeout)?.map_err(|_| TokenTimeout)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn jobs_are_done_elsewhere_in_their_order() {
        let worker = TokenThread::start("test").unwrap();
        let name = || thread::current().name().map(str::to_owned);
        assert_eq!(worker.run(soon(), name).await, Ok(Some("test".to_owned())));
    }

    #[tokio::test]
    async fn a_late_answer_is_not_waited_for_and_the_next_one_comes() {
        let worker = TokenThread::start("test").unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        let stuck = worker.run(Instant::now(), move || wait.recv().is_ok()).await;
        assert_eq!(stuck, Err(TokenTimeout));
        go_on.send(()).unwrap();
        assert_eq!(worker.run(soon(), || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_owner() {
        let worker = TokenThread::start("test").unwrap();
        let (alive, ended) = oneshot::channel::<()>();
        // The job is over, its capture is kept by the thread.
        thread_local!(static KEPT: std::cell::Cell<Option<oneshot::Sender<()>>> = const { std::cell::Cell::new(None) });
        worker.run(soon(), move || KEPT.set(Some(alive))).await.unwrap();
        drop(worker);
        assert!(timeout_at(soon(), ended).await.unwrap().is_err());
    }
}
