//! One probe of one card, on a thread of its own, for as long as pcscd and the card need.
//!
//! The card is shared, read in one transaction, and left as it was. A result counts only if it is of the
//! inserted card.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcsc::{Card, Disposition, Error, Protocols, ShareMode};
use tracing::debug;

use crate::card::{self, DecodedAtr, ProbeError, ProbeTarget, TransmitError};
use crate::domain::{
    Atr, CardIdentity, InsertionId, Inventory, NotIdentified, NotIdentifiedReason, ProbePlan,
    ReaderEvent, ReaderName,
};

use super::context::{CardConnection, PcscContext};
use super::pcsc_errors::{
    card_error_text, is_gone, is_lost, is_mute, is_out_of_sync, is_without_protocol,
    no_protocol_text, second_connection_error_text, to_transmit_error,
};
use super::reader_table::{CardPresence, ReaderSnapshot};
use super::shared_state::SharedState;
use super::status_change::{PolledReader, poll_one};
use super::thread::{CancelToken, ReaderThread};
use super::transport::{PcscTransport, ProbePhase, ProbeProgress, agreed_protocol};

/// How long to wait, each time, for a program that holds the card exclusively.
const BUSY_PAUSES_MS: [u64; 4] = [250, 500, 1000, 2000];

/// How long to wait, each time, for a connection to pcscd besides the monitor's, or for another one when
/// it broke: other programs may close files or connections meanwhile. If pcscd itself is gone, the monitor
/// finds out, and the probe ends.
const RECONNECT_PAUSES_MS: [u64; 3] = [100, 500, 1000];

/// How long to wait before the second attempt at a card that did not power up, or agree on a protocol.
const MUTE_PAUSE: Duration = Duration::from_millis(500);

/// How long to wait, each time, before a restart. The sum exceeds the 400 ms within which pcscd finds a
/// removal where it has to poll the driver.
const RESTART_PAUSES_MS: [u64; 3] = [0, 200, 400];

/// How long before its deadline a probe that waits for another program is abandoned.
const REPORT_RESERVE: Duration = Duration::from_secs(1);

/// How often the monitor's wait is cancelled until the monitor watches for the release.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

const PROTOCOLS: Protocols = Protocols::T0.union(Protocols::T1);

pub(super) struct Probe {
    pub(super) reader: ReaderName,
    pub(super) insertion: InsertionId,
    pub(super) atr: Atr,
    /// pcscd's event count when the insertion began.
    pub(super) event_count: u32,
    pub(super) plan: ProbePlan,
    pub(super) deadline: Instant,
    pub(super) only_free: bool,
    pub(super) progress: ProbeProgress,
    pub(super) shared: Arc<SharedState>,
    pub(super) halt: CancelToken,
}

type IdentifyResult = Result<CardIdentity, NotIdentified>;

#[derive(Debug)]
struct FailedAttempt {
    next: RetryStrategy,
    /// What is reported if there is no other attempt.
    result: NotIdentified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryStrategy {
    WaitForRelease,
    Restart,
    /// Also for a card that is reported gone: if it is, the monitor finds out meanwhile.
    Reconnect,
    Stop,
}

impl From<NotIdentified> for FailedAttempt {
    fn from(result: NotIdentified) -> Self {
        let in_use = result.reason == NotIdentifiedReason::InUse;
        let next = if in_use { RetryStrategy::WaitForRelease } else { RetryStrategy::Stop };
        Self { next, result }
    }
}

impl From<TransmitError> for FailedAttempt {
    fn from(error: TransmitError) -> Self {
        let next = match &error {
            TransmitError::Reset => RetryStrategy::Restart,
            TransmitError::PcscdLost | TransmitError::Removed => RetryStrategy::Reconnect,
            TransmitError::TimedOut | TransmitError::Failed { .. } => RetryStrategy::Stop,
        };
        Self { next, result: interrupted(&error) }
    }
}

impl Probe {
    /// Probes the card and reports, unless cancelled. Where another program kept the card from being read,
    /// its release is reported too.
    pub(super) fn run(self) {
        let ended = CancelToken::default();
        self.watch_progress(ended.clone());
        let result = self.identify();
        ended.cancel();
        if self.halt.is_cancelled() {
            return;
        }
        let reader = self.reader.clone();
        if self.progress.phase() == ProbePhase::Abandoned {
            // Before the report: the next probe may start before this thread has ended.
            self.progress.end();
            return self.shared.emit(ReaderEvent::CardReleased { reader });
        }
        let is_in_use = match &result {
            Ok(identity) => identity.partial,
            Err(error) => error.reason == NotIdentifiedReason::InUse,
        };
        let (insertion, exchanges) = (self.insertion, self.progress.exchanges());
        self.shared.emit(ReaderEvent::ProbeFinished { reader, insertion, result, exchanges });
        if is_in_use {
            self.watch_release();
        }
    }

    /// Starts a thread that reports the card as in use if this one still waits for another program's
    /// transaction just before the deadline: so the card is not taken for one that hangs.
    fn watch_progress(&self, ended: CancelToken) {
        let (reader, insertion, deadline) = (self.reader.clone(), self.insertion, self.deadline);
        let (progress, halt) = (self.progress.clone(), self.halt.clone());
        let shared = Arc::clone(&self.shared);
        let watch = move |_: CancelToken| {
            let timeout = deadline.saturating_duration_since(Instant::now());
            if ended.wait_timeout(timeout.saturating_sub(REPORT_RESERVE)) || halt.is_cancelled() {
                return;
            }
            if waits_for_others(&reader, &progress) && progress.abandon() {
                let (exchanges, result) = (progress.exchanges(), Err(in_use()));
                shared.emit(ReaderEvent::ProbeFinished { reader, insertion, result, exchanges });
            }
        };
        if let Err(error) = ReaderThread::spawn("probe-watch", watch) {
            debug!(reader = %self.reader, %error, "Could not start a thread to watch the probe");
        }
    }

    /// Makes the monitor report when no other program uses the reader any more. A cancellation just before
    /// its wait is lost.
    fn watch_release(&self) {
        self.shared.await_release(&self.reader);
        while !self.halt.is_cancelled()
            && self.check_present().is_ok()
            && !self.shared.is_release_watched(&self.reader)
        {
            self.shared.cancel_wait();
            self.halt.wait_timeout(CANCEL_INTERVAL);
        }
    }

    fn identify(&self) -> IdentifyResult {
        let (mut busy, mut restarts) = (BUSY_PAUSES_MS.iter(), RESTART_PAUSES_MS.iter());
        let mut reconnects = RECONNECT_PAUSES_MS.iter();
        let mut context = self.establish_context(PcscContext::establish)?;
        loop {
            let failed = match self.identify_once(&context) {
                Ok(identity) => return Ok(identity),
                Err(failed) if self.progress.phase() == ProbePhase::Abandoned => {
                    return Err(failed.result);
                }
                Err(failed) => failed,
            };
            let pause = match failed.next {
                RetryStrategy::Stop => return Err(failed.result),
                RetryStrategy::WaitForRelease => busy.next(),
                RetryStrategy::Restart => restarts.next(),
                RetryStrategy::Reconnect => reconnects.next(),
            };
            if !pause.is_some_and(|pause| self.wait(Duration::from_millis(*pause))) {
                return Err(self.final_result(&context, failed));
            }
            if failed.next == RetryStrategy::Reconnect {
                debug!(reader = %self.reader, "Probe restarted on a new connection");
                context = self.establish_context(PcscContext::establish)?;
            }
        }
    }

    /// What is reported when there is no time for another attempt.
    fn final_result(&self, context: &PcscContext, failed: FailedAttempt) -> NotIdentified {
        let same = if failed.next == RetryStrategy::Reconnect {
            self.check_present()
        } else {
            self.check_same(context).map_err(|changed| changed.result)
        };
        match same {
            Err(removed) => removed,
            Ok(()) if failed.result.reason == NotIdentifiedReason::Removed => read_error(
                "the card is repeatedly reported as removed while it is present: bad contact, or too \
                 weak a field",
            ),
            Ok(()) => failed.result,
        }
    }

    /// Reads the card, unless another program's use forbids it. That is polled before each attempt: a
    /// card that was reset has a program that did so.
    fn identify_once(&self, context: &PcscContext) -> Result<CardIdentity, FailedAttempt> {
        self.check_wanted()?;
        let in_use_now = self.poll(context)?.in_use;
        if in_use_now && self.only_free {
            return Err(FailedAttempt { next: RetryStrategy::Stop, result: in_use() });
        }
        let mut connection = self.connect(context)?;
        let mut is_same = false;
        let mut identified = |identity: &CardIdentity| {
            // A connection is to one card until its end, and that card was in the reader since the
            // insertion began: it may leave now.
            is_same = !self.halt.is_cancelled() && self.check_same(context).is_ok();
            if is_same {
                let (reader, insertion) = (self.reader.clone(), self.insertion);
                let identity = identity.clone();
                self.shared.emit(ReaderEvent::Identified { reader, insertion, identity });
            }
        };
        let result = self.transact(&mut connection, in_use_now, &mut identified)?;
        drop(connection);
        if !is_same {
            self.check_same(context)?;
        }
        Ok(result?)
    }

    /// Opens a connection to pcscd, with retries: the monitor has one, on which it sees the card.
    fn establish_context<T>(
        &self,
        mut establish: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, NotIdentified> {
        let mut pauses = RECONNECT_PAUSES_MS.map(Duration::from_millis).into_iter();
        loop {
            self.check_wanted()?;
            let error = match establish() {
                Ok(context) => return Ok(context),
                Err(error) => self.shared.count(error),
            };
            debug!(reader = %self.reader, error = %error, "Could not open a connection for the probe");
            if !pauses.next().is_some_and(|pause| self.wait(pause)) {
                self.check_wanted()?;
                return Err(read_error(second_connection_error_text(error)));
            }
        }
    }

    /// Connects to the card besides other programs; a mute card gets a second attempt.
    fn connect(&self, context: &PcscContext) -> Result<CardConnection, FailedAttempt> {
        let mut retry = Some(MUTE_PAUSE);
        loop {
            self.check_wanted()?;
            let connected = self.in_phase(ProbePhase::Connecting, || {
                context.connect(&self.reader, ShareMode::Shared, PROTOCOLS)
            })?;
            let error = match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => self.shared.count(error),
            };
            let is_retried = (is_mute(error) || is_without_protocol(error))
                && retry.take().is_some_and(|pause| self.wait(pause));
            if !is_retried {
                return Err(self.connect_failure(context, error));
            }
        }
    }

    /// Does what may wait for another program. No command is sent if the probe was abandoned meanwhile.
    fn in_phase<T>(&self, phase: ProbePhase, work: impl FnOnce() -> T) -> Result<T, NotIdentified> {
        if !self.progress.start(phase) {
            return Err(in_use());
        }
        let done = work();
        if self.progress.start(ProbePhase::Free) { Ok(done) } else { Err(in_use()) }
    }

    /// A broken connection proves nothing about the card, a refusal does. Both can have the same code;
    /// after a refusal the connection still works, except that pcscd up to 2.0.0 closes it: there the
    /// attempts run out.
    fn connect_failure(&self, context: &PcscContext, error: Error) -> FailedAttempt {
        let is_broken = is_out_of_sync(error) || (is_lost(error) && self.poll(context).is_err());
        let (next, result) = if is_gone(error) {
            (RetryStrategy::Reconnect, removed())
        } else if is_mute(error) {
            let detail = "card does not respond at power-up: turn it over or clean it";
            let mute = NotIdentified::new(NotIdentifiedReason::Mute, detail.to_owned());
            (RetryStrategy::Stop, mute)
        } else if is_without_protocol(error) {
            let detail = no_protocol_text(&DecodedAtr::of(&self.atr).protocols);
            (RetryStrategy::Stop, read_error(detail))
        } else if error == Error::SharingViolation {
            let detail = "another program holds the card exclusively: close it, or enable sharing (scdaemon: pcsc-shared)";
            let in_use = NotIdentified::new(NotIdentifiedReason::InUse, detail.to_owned());
            (RetryStrategy::WaitForRelease, in_use)
        } else if error == Error::ProtoMismatch {
            // Also returned while pcscd powers the card down, because another program released it.
            (RetryStrategy::Restart, read_error(card_error_text(error)))
        } else {
            (RetryStrategy::Stop, read_error(card_error_text(error)))
        };
        FailedAttempt { next: if is_broken { RetryStrategy::Reconnect } else { next }, result }
    }

    fn transact(
        &self,
        card: &mut Card,
        in_use: bool,
        identified: &mut dyn FnMut(&CardIdentity),
    ) -> Result<IdentifyResult, FailedAttempt> {
        let transaction = self
            .in_phase(ProbePhase::Starting, || card.transaction())?
            .map_err(|error| to_transmit_error(self.shared.count(error)))?;
        let mut transport = PcscTransport {
            protocol: agreed_protocol(&transaction, &self.shared)?,
            transaction: &transaction,
            reader: &self.reader,
            deadline: self.deadline,
            halt: &self.halt,
            progress: &self.progress,
            shared: &self.shared,
            identified,
        };
        let mut inventory = Inventory::default();
        let target = ProbeTarget { atr: &self.atr, plan: &self.plan, in_use };
        let result = match card::identify(&mut transport, target, &mut inventory) {
            Ok(identity) => Ok(identity.with_inventory(inventory)),
            Err(ProbeError::Interrupted(error)) => return Err(error.into()),
            Err(error) => Err(NotIdentified { inventory, ..not_identified(&error) }),
        };
        match transaction.end(Disposition::LeaveCard) {
            Err((_, error)) if is_gone(error) && result.is_err() => {
                Err(TransmitError::Removed.into())
            }
            Err(_) | Ok(()) => Ok(result),
        }
    }

    /// Sleeps; false when there is no time for that.
    fn wait(&self, pause: Duration) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        pause < left && !self.halt.wait_timeout(pause)
    }

    /// Whether there still is a card to read, and the probe is not cancelled.
    fn check_wanted(&self) -> Result<(), NotIdentified> {
        if self.halt.is_cancelled() { Err(removed()) } else { self.check_present() }
    }

    /// Whether the monitor still sees the card.
    fn check_present(&self) -> Result<(), NotIdentified> {
        self.shared.event_count(&self.reader, self.insertion).map(drop).ok_or_else(removed)
    }

    /// Whether the inserted card is still in the reader.
    ///
    /// The monitor may not have polled since another card was inserted, and a connection after that works
    /// as well. If pcscd's event count is that of the insertion, nothing was removed or inserted since.
    fn check_same(&self, context: &PcscContext) -> Result<(), FailedAttempt> {
        self.check_present()?;
        let current = self.poll(context)?.snapshot;
        let expected = ReaderSnapshot {
            reader: self.reader.clone(),
            occupant: CardPresence::Present(self.atr.clone()),
            event_count: self.event_count,
        };
        if current == expected {
            return Ok(());
        }
        debug!(was = ?expected, is = ?current, "Card changed during the probe");
        Err(removed().into())
    }

    fn poll(&self, context: &PcscContext) -> Result<PolledReader, TransmitError> {
        poll_one(context, &self.reader).map_err(|error| to_transmit_error(self.shared.count(error)))
    }
}

/// Whether a probe has to wait for another program: pcscd answers, and either has connected the probe
/// without a transaction, or another program.
fn waits_for_others(reader: &ReaderName, progress: &ProbeProgress) -> bool {
    let polled = PcscContext::establish().and_then(|context| poll_one(&context, reader));
    match progress.phase() {
        ProbePhase::Connecting => polled.is_ok_and(|polled| polled.in_use),
        ProbePhase::Starting => polled.is_ok(),
        ProbePhase::Free | ProbePhase::Abandoned | ProbePhase::Ended => false,
    }
}

pub(super) fn in_use() -> NotIdentified {
    let detail = "another program is using the card and has not let go of it: the card is read once \
                  it does";
    NotIdentified::new(NotIdentifiedReason::InUse, detail.to_owned())
}

/// Why a card was not identified, though commands reached it.
fn not_identified(error: &ProbeError) -> NotIdentified {
    let reason = match error {
        ProbeError::UnknownFamily { .. } => NotIdentifiedReason::UnknownFamily,
        ProbeError::NoId { .. } => NotIdentifiedReason::NoCardId,
        ProbeError::InUse => NotIdentifiedReason::InUse,
        ProbeError::Interrupted(error) => return interrupted(error),
    };
    NotIdentified::new(reason, error.to_string())
}

fn interrupted(error: &TransmitError) -> NotIdentified {
    match error {
        TransmitError::Removed => removed(),
        TransmitError::Reset => read_error(
            "the card was reset repeatedly: another program resets it, or the contacts are dirty",
        ),
        TransmitError::TimedOut => {
            NotIdentified::new(NotIdentifiedReason::Timeout, error.to_string())
        }
        TransmitError::PcscdLost | TransmitError::Failed { .. } => read_error(error.to_string()),
    }
}

fn removed() -> NotIdentified {
    let detail = "card was removed before it was identified";
    NotIdentified::new(NotIdentifiedReason::Removed, detail.to_owned())
}

fn read_error(detail: impl Into<String>) -> NotIdentified {
    NotIdentified::new(NotIdentifiedReason::ReadError, detail.into())
}

#[cfg(test)]
mod tests;
