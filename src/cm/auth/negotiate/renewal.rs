//! Tickets are had on a thread of their own, and exchanged whole: while the KDC is silent, or says
//! no, calls go on with the present one as long as that is good.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::super::super::reloading_file::FileVersion;
use super::error::{KerberosError, Retryability};
use super::ticket::{Ticket, TicketRequest};

/// Threads that may wait for KDCs at a time, over all reloads of the configuration. One asks; the
/// others were left alone by a reload while their KDC was silent, and end when they hear from it.
const MAX_THREADS: usize = 8;

/// The KDC is asked no more often, however soon its tickets end.
const SHORTEST: Duration = Duration::from_secs(1);

/// How often a 401 may be the reason for a new ticket: a server that always says 401 must not have
/// the KDC asked all the time.
const RENEWAL_AFTER_401: Duration = Duration::from_mins(1);

/// How many threads there are.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Asks for tickets: when they are wished for, and before they end.
pub(super) struct TicketRenewer {
    /// How many attempts whoever wishes for one more has seen. Unbounded: a wish a call.
    requests: Sender<u64>,
    standing: watch::Receiver<TicketState>,
}

/// How it stands with the ticket.
#[derive(Clone, Default)]
pub(super) struct TicketState {
    /// Attempts that have ended.
    pub(super) attempts: u64,
    /// The last ticket that could be had.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// Why the last attempt went wrong, if it did.
    pub(super) last_failure: Option<RenewalFailure>,
    /// The keytab of the last attempt.
    pub(super) keytab: Option<FileVersion>,
    /// Since when an attempt is under way.
    pub(super) since: Option<Instant>,
}

/// Why there is no new ticket.
#[derive(Clone)]
pub(super) struct RenewalFailure {
    pub(super) failure: Arc<KerberosError>,
    /// Nobody asks again before, unless the keytab changes.
    not_before: Instant,
}

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// Too many are there.
    #[error("{MAX_THREADS} threads are blocked on unresponsive KDCs")]
    TooMany,
    /// The system has none.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl TicketRenewer {
    /// Starts the thread, which asks nobody before the first wish. It ends when this is dropped, or
    /// once the KDC has answered.
    pub(super) fn start(account: Arc<TicketRequest>) -> Result<Self, StartError> {
        let counted = ThreadPermit::new(&THREADS)?;
        let (wishes, orders) = mpsc::channel();
        let (publish, standing) = watch::channel(TicketState::default());
        thread::Builder::new().name("kerberos".to_owned()).spawn(move || {
            let _counted = counted;
            RenewalThread {
                account,
                requests: orders,
                standing: publish,
                pace: RenewalBackoff::default(),
            }
            .run();
        })?;
        Ok(Self { requests: wishes, standing })
    }

    pub(super) fn state(&self) -> watch::Receiver<TicketState> {
        self.standing.clone()
    }

    /// Wishes for one more attempt than there were. Nothing happens where one ended meanwhile.
    pub(super) fn request_renewal(&self, seen: u64) {
        if self.requests.send(seen).is_err() {
            tracing::debug!("Ticket renewal thread ended");
        }
    }
}

impl TicketState {
    /// A ticket that can be used.
    pub(super) fn valid(&self, now: Timestamp) -> Option<Arc<Ticket>> {
        self.ticket.clone().filter(|ticket| ticket.is_valid(now))
    }

    /// Whether asking the KDC is of use now.
    pub(super) fn may_ask(&self, keytab: Option<FileVersion>, now: Instant) -> bool {
        let asked_too_soon =
            self.last_failure.as_ref().is_some_and(|trouble| now < trouble.not_before);
        !asked_too_soon || self.is_new(keytab)
    }

    /// Whether this keytab has not been tried.
    pub(super) fn is_new(&self, keytab: Option<FileVersion>) -> bool {
        self.attempts > 0 && self.keytab != keytab
    }
}

/// When a 401 was last the reason for a new ticket, and how many attempts there were before.
#[derive(Debug, Default)]
pub(super) struct RenewalLimiter(Mutex<Option<(Instant, u64)>>);

impl RenewalLimiter {
    /// Once a minute, and not while the KDC is not to be asked: a wrong key that is tried for each
    /// 401 locks the account. Whoever comes while a new ticket is under way waits for that.
    pub(super) fn may_renew(
        &self,
        standing: &TicketState,
        keytab: Option<FileVersion>,
        now: Instant,
    ) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((_, before)) if before == standing.attempts => true,
            Some((at, _)) if now.saturating_duration_since(at) < RENEWAL_AFTER_401 => false,
            Some(_) | None if !standing.may_ask(keytab, now) => false,
            Some(_) | None => {
                *last = Some((now, standing.attempts));
                true
            }
        }
    }
}

/// One of the threads that are counted.
struct ThreadPermit(&'static AtomicUsize);

impl ThreadPermit {
    fn new(threads: &'static AtomicUsize) -> Result<Self, StartError> {
        let more = |count| (count < MAX_THREADS).then_some(count + 1);
        let counted = threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map(|_| Self(threads)).map_err(|_| StartError::TooMany)
    }
}

impl Drop for ThreadPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the thread waited for.
enum WakeReason {
    /// One more attempt than so many is wished for.
    Requested(u64),
    /// It is time.
    Due,
    /// Nobody is left to hear of tickets.
    Shutdown,
}

struct RenewalThread {
    account: Arc<TicketRequest>,
    requests: Receiver<u64>,
    standing: watch::Sender<TicketState>,
    pace: RenewalBackoff,
}

impl RenewalThread {
    fn run(mut self) {
        let mut due = None;
        loop {
            let attempts = self.standing.borrow().attempts;
            match self.wait(due) {
                // What was wished for has come meanwhile.
                WakeReason::Requested(seen) if seen < attempts => {}
                WakeReason::Requested(_) | WakeReason::Due => due = Some(self.attempt()),
                WakeReason::Shutdown => return,
            }
        }
    }

    fn wait(&self, due: Option<Instant>) -> WakeReason {
        let Some(due) = due else {
            return self.requests.recv().map_or(WakeReason::Shutdown, WakeReason::Requested);
        };
        match self.requests.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(seen) => WakeReason::Requested(seen),
            Err(RecvTimeoutError::Timeout) => WakeReason::Due,
            Err(RecvTimeoutError::Disconnected) => WakeReason::Shutdown,
        }
    }

    /// Asks for a ticket, publishes what came of it, and says when it is to be asked again.
    fn attempt(&mut self) -> Instant {
        let keytab = stamp(&self.account.keytab);
        self.standing.send_modify(|standing| standing.since = Some(Instant::now()));
        let outcome = Ticket::obtain(&self.account);
        let now = Instant::now();
        let mut standing = self.standing.borrow().clone();
        standing.attempts += 1;
        standing.keytab = keytab;
        standing.since = None;
        let pause = match outcome {
            Ok(ticket) => self.succeeded(ticket, &mut standing),
            Err(failure) => self.failed(failure, &mut standing, now),
        };
        // The old ticket is let go of here, and not while others wait to read.
        drop(self.standing.send_replace(standing));
        now + pause
    }

    fn succeeded(&mut self, ticket: Ticket, standing: &mut TicketState) -> Duration {
        let Ticket { principal, valid_until, .. } = &ticket;
        if standing.last_failure.take().is_some() {
            tracing::info!(%principal, %valid_until, "Kerberos ticket obtained after earlier failures");
        } else {
            tracing::debug!(%principal, %valid_until, "Kerberos ticket obtained");
        }
        let left = ticket.renew_at.duration_since(Timestamp::now());
        standing.ticket = Some(Arc::new(ticket));
        self.pace = RenewalBackoff::default();
        Duration::try_from(left).unwrap_or_default().max(SHORTEST)
    }

    /// Told once for each kind of trouble. A ticket is asked for in the last fifth of the life of
    /// the one before, so this is in time.
    fn failed(
        &mut self,
        failure: KerberosError,
        standing: &mut TicketState,
        now: Instant,
    ) -> Duration {
        let pause = self.pace.pause(failure.outlook);
        let not_before = now + RenewalBackoff::min_interval(failure.outlook, pause);
        let known = standing.last_failure.take().is_some_and(|before| *before.failure == failure);
        if !known {
            let valid_until = standing.ticket.as_ref().map(|ticket| ticket.valid_until.to_string());
            let valid_until = valid_until.as_deref().unwrap_or("none");
            tracing::warn!(error = %failure, valid_until, "Kerberos ticket request failed");
        }
        standing.last_failure = Some(RenewalFailure { failure: Arc::new(failure), not_before });
        pause
    }
}

/// The keytab as it is now; none where it cannot be read.
pub(super) fn stamp(keytab: &Path) -> Option<FileVersion> {
    FileVersion::of(keytab).ok()
}

/// How long it is until the KDC is asked again, after failures.
#[derive(Debug, Default)]
struct RenewalBackoff {
    failures: u32,
}

impl RenewalBackoff {
    /// The time until the next attempt that nobody wished for.
    ///
    /// A directory that locks accounts does so after five wrong passwords in half an hour, or more:
    /// a wrong key is tried after 0, 1, 5, 20 and 35 minutes.
    fn pause(&mut self, outlook: Retryability) -> Duration {
        let (first, factor, most) = match outlook {
            Retryability::Transient => (5, 2_u64, 300),
            Retryability::Denied => (60, 4, 900),
        };
        let pause = factor.saturating_pow(self.failures).saturating_mul(first).min(most);
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs(pause)
    }

    /// The time in which wishes are not obeyed either.
    fn min_interval(outlook: Retryability, pause: Duration) -> Duration {
        match outlook {
            Retryability::Transient => Duration::from_secs(1),
            Retryability::Denied => pause,
        }
    }
}

#[cfg(test)]
mod tests;
