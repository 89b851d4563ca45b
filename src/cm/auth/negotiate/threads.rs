//! The threads of Kerberos: one obtains tickets, one makes tokens.
//!
//! Tickets are replaced as a whole. While the KDC is silent or denies, calls use the present one until it
//! ends.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::ticket::{KerberosError, Retryability, Ticket, TicketRequest};
use crate::cm::secret::FileVersion;

/// The most threads that wait for KDCs at a time. One is in use; a reload abandoned the others while
/// their KDC was silent, and they end when it answers.
const MAX_THREADS: usize = 8;

/// The shortest time between two attempts, even for short-lived tickets.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two renewals after a 401: some servers always answer 401.
const RENEWAL_AFTER_401: Duration = Duration::from_mins(1);

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Obtains tickets: on request, and before they end.
pub(super) struct TicketRenewer {
    /// The number of attempts that the requester has seen. Unbounded: one request per call.
    requests: Sender<u64>,
    state: watch::Receiver<TicketState>,
}

#[derive(Clone, Default)]
pub(super) struct TicketState {
    /// Finished ones.
    pub(super) attempts: u64,
    /// The last one.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// Of the last attempt.
    pub(super) last_failure: Option<RenewalFailure>,
    /// Of the last attempt.
    pub(super) keytab: Option<FileVersion>,
    /// The start of the current attempt.
    pub(super) since: Option<Instant>,
}

#[derive(Clone)]
pub(super) struct RenewalFailure {
    pub(super) error: Arc<KerberosError>,
    /// No attempt before, unless the keytab changes.
    not_before: Instant,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{MAX_THREADS} threads are blocked on unresponsive KDCs")]
    TooMany,
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl TicketRenewer {
    /// Starts the thread, which waits for the first request. It ends after this is dropped, once the KDC
    /// has answered.
    pub(super) fn start(account: Arc<TicketRequest>) -> Result<Self, StartError> {
        let permit = ThreadPermit::new(&THREADS)?;
        let (requests, receiver) = mpsc::channel();
        let (publish, state) = watch::channel(TicketState::default());
        thread::Builder::new().name("kerberos".to_owned()).spawn(move || {
            let _permit = permit;
            RenewalThread {
                account,
                requests: receiver,
                state: publish,
                backoff: RenewalBackoff::default(),
            }
            .run();
        })?;
        Ok(Self { requests, state })
    }

    pub(super) fn state(&self) -> watch::Receiver<TicketState> {
        self.state.clone()
    }

    /// Requests an attempt, unless one has ended since `seen` were seen.
    pub(super) fn request_renewal(&self, seen: u64) {
        if self.requests.send(seen).is_err() {
            tracing::debug!("Ticket renewal thread ended");
        }
    }
}

impl TicketState {
    pub(super) fn valid(&self, now: Timestamp) -> Option<Arc<Ticket>> {
        self.ticket.clone().filter(|ticket| ticket.is_valid(now))
    }

    /// Whether the back-off after a failure is over.
    pub(super) fn may_ask(&self, keytab: Option<FileVersion>, now: Instant) -> bool {
        let is_early = self.last_failure.as_ref().is_some_and(|failure| now < failure.not_before);
        !is_early || self.is_new(keytab)
    }

    /// Whether this keytab was not used yet.
    pub(super) fn is_new(&self, keytab: Option<FileVersion>) -> bool {
        self.attempts > 0 && self.keytab != keytab
    }
}

/// The last renewal after a 401, and the number of attempts before it.
#[derive(Debug, Default)]
pub(super) struct RenewalLimiter(Mutex<Option<(Instant, u64)>>);

impl RenewalLimiter {
    /// Once a minute, and not during back-off: a wrong key that is used for each 401 locks the account.
    /// Calls during a renewal wait for it.
    pub(super) fn may_renew(
        &self,
        state: &TicketState,
        keytab: Option<FileVersion>,
        now: Instant,
    ) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((_, before)) if before == state.attempts => true,
            Some((at, _)) if now.saturating_duration_since(at) < RENEWAL_AFTER_401 => false,
            Some(_) | None if !state.may_ask(keytab, now) => false,
            Some(_) | None => {
                *last = Some((now, state.attempts));
                true
            }
        }
    }
}

struct ThreadPermit(&'static AtomicUsize);

impl ThreadPermit {
    fn new(threads: &'static AtomicUsize) -> Result<Self, StartError> {
        let more = |count| (count < MAX_THREADS).then_some(count + 1);
        let permit = threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        permit.map(|_| Self(threads)).map_err(|_| StartError::TooMany)
    }
}

impl Drop for ThreadPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct RenewalThread {
    account: Arc<TicketRequest>,
    requests: Receiver<u64>,
    state: watch::Sender<TicketState>,
    backoff: RenewalBackoff,
}

impl RenewalThread {
    fn run(mut self) {
        let mut due: Option<Instant> = None;
        loop {
            let requested = match due {
                None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    self.requests.recv_timeout(due.saturating_duration_since(Instant::now()))
                }
            };
            match requested {
                // The requested attempt has ended meanwhile.
                Ok(seen) if seen < self.state.borrow().attempts => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => due = Some(self.attempt()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes an attempt, publishes its result, and returns the time of the next one.
    fn attempt(&mut self) -> Instant {
        let keytab = FileVersion::of(&self.account.keytab).ok();
        self.state.send_modify(|state| state.since = Some(Instant::now()));
        let outcome = Ticket::obtain(&self.account);
        let now = Instant::now();
        let mut state = self.state.borrow().clone();
        state.attempts += 1;
        state.keytab = keytab;
        state.since = None;
        let pause = match outcome {
            Ok(ticket) => self.succeeded(ticket, &mut state),
            Err(error) => self.failed(error, &mut state, now),
        };
        // Drops the old ticket here, and not while readers wait.
        drop(self.state.send_replace(state));
        now + pause
    }

    fn succeeded(&mut self, ticket: Ticket, state: &mut TicketState) -> Duration {
        let Ticket { principal, valid_until, .. } = &ticket;
        if state.last_failure.take().is_some() {
            tracing::info!(%principal, %valid_until, "Kerberos ticket obtained after earlier failures");
        } else {
            tracing::debug!(%principal, %valid_until, "Kerberos ticket obtained");
        }
        let left = ticket.renew_at.duration_since(Timestamp::now());
        state.ticket = Some(Arc::new(ticket));
        self.backoff = RenewalBackoff::default();
        Duration::try_from(left).unwrap_or_default().max(MIN_RENEWAL_INTERVAL)
    }

    /// Logs each kind of failure once. Renewal begins in the last fifth of a ticket's life, so that this
    /// is in time.
    fn failed(&mut self, error: KerberosError, state: &mut TicketState, now: Instant) -> Duration {
        let pause = self.backoff.pause(error.retryability);
        let not_before = now + RenewalBackoff::min_interval(error.retryability, pause);
        let known = state.last_failure.take().is_some_and(|before| *before.error == error);
        if !known {
            let valid_until = state.ticket.as_ref().map(|ticket| ticket.valid_until.to_string());
            let valid_until = valid_until.as_deref().unwrap_or("none");
            tracing::warn!(%error, valid_until, "Kerberos ticket request failed");
        }
        state.last_failure = Some(RenewalFailure { error: Arc::new(error), not_before });
        pause
    }
}

/// The time between attempts after failures.
#[derive(Debug, Default)]
struct RenewalBackoff {
    failures: u32,
}

impl RenewalBackoff {
    /// The time until the next attempt without a request.
    ///
    /// A directory that locks accounts does so after five wrong passwords in half an hour, or later: a
    /// wrong key is used after 0, 1, 5, 20 and 35 minutes.
    fn pause(&mut self, retryability: Retryability) -> Duration {
        let (first, factor, most) = match retryability {
            Retryability::Transient => (5, 2_u64, 300),
            Retryability::Denied => (60, 4, 900),
        };
        let pause = factor.saturating_pow(self.failures).saturating_mul(first).min(most);
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs(pause)
    }

    /// The time in which requests are ignored too.
    fn min_interval(retryability: Retryability, pause: Duration) -> Duration {
        match retryability {
            Retryability::Transient => Duration::from_secs(1),
            Retryability::Denied => pause,
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs one job after the other; it ends when this is dropped and the last job is done.
pub(super) struct TokenThread {
    // Unbounded: a job is part of a call, and `cm.concurrency` limits the calls.
    jobs: Sender<Job>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenTimeout;

impl TokenThread {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in receiver {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// The result of a job; a late job runs too, and its result is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: tokio::time::Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TokenTimeout> {
        let (answer, done) = oneshot::channel();
        let job = move || {
            // A caller that stopped waiting has dropped the receiver.
            drop(answer.send(job()));
        };
        self.jobs.send(Box::new(job)).map_err(|_| TokenTimeout)?;
        timeout_at(deadline, done).await.map_err(|_| TokenTimeout)?.map_err(|_| TokenTimeout)
    }
}

#[cfg(test)]
mod tests;
