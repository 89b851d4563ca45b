//! One probe of one card, on a thread of its own, for as long as pcscd and the card let it.
//!
//! The card is shared, read in one transaction, and left as found. An answer is reported only if
//! the card that gave it is the one that was asked about.

use std::time::{Duration, Instant};

use pcsc::{Card, Disposition, Error, Protocols, ShareMode};
use tokio::sync::mpsc::UnboundedSender;
use tracing::debug;

use crate::card::{self, DecodedAtr, ProbeError, ProbeTarget, TransmitError};
use crate::domain::{
    Atr, CardIdentity, InsertionId, Inventory, NotIdentified, NotIdentifiedReason, ProbePlan,
    ReaderEvent, ReaderName,
};

use super::apdu_log::ApduLog;
use super::cancel::CancelToken;
use super::context::{CardConnection, PcscContext};
use super::current_insertions::CurrentInsertions;
use super::error_counters::ErrorCounters;
use super::monitor::WaitCanceller;
use super::pcsc_errors::{
    card_error_text, is_gone, is_lost, is_mute, is_out_of_sync, is_without_protocol, on_protocols,
    second_connection_error_text, to_transmit_error,
};
use super::probe_permit::{ProbePermit, ProbePhase};
use super::reader_table::{CardPresence, ReaderSnapshot};
use super::status_change::{self, PolledReader};
use super::thread::ReaderThread;
use super::transport::{PcscTransport, ProbeLimits};

/// How long to wait, each time, for a program that has the card to itself.
const BUSY_PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// How long to wait, each time, for a connection to pcscd beside the monitor's, or for another one
/// when it broke: others may be about to close files or connections of theirs. Where pcscd itself
/// is gone, the monitor finds that out meanwhile, and the card is not wanted any more.
const SERVICE_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1)];

/// How long to wait before a card that did not power up, or agree on a protocol, is tried once more.
const MUTE_PAUSE: Duration = Duration::from_millis(500);

/// How long to wait, each time, before the probe starts over. The sum is over the 400 ms within
/// which pcscd finds out that the card is gone, where a driver has to be polled for that.
const RESTART_PAUSES: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(400)];

/// How long before its end a probe that waits for another program is given up.
const REPORT_RESERVE: Duration = Duration::from_secs(1);

/// How often the monitor is rung until it listens.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

const PROTOCOLS: Protocols = Protocols::T0.union(Protocols::T1);

/// What a probe is asked to do.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) reader: ReaderName,
    pub(super) insertion: InsertionId,
    pub(super) atr: Atr,
    /// pcscd's event count when the insertion began.
    pub(super) event_count: u32,
    pub(super) plan: ProbePlan,
    pub(super) deadline: Instant,
    pub(super) insertions: CurrentInsertions,
    pub(super) errors: ErrorCounters,
    pub(super) apdu_log: ApduLog,
    pub(super) permit: ProbePermit,
    /// Whether the card is sent nothing while another program uses it.
    pub(super) only_free: bool,
}

/// Who the card is, or why nobody knows.
type IdentifyResult = Result<CardIdentity, NotIdentified>;

/// A try that led to no identity.
#[derive(Debug)]
struct FailedAttempt {
    next: RetryStrategy,
    /// What is told if there is no other try.
    result: NotIdentified,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryStrategy {
    /// Another program may let go of the card.
    WaitForRelease,
    /// The card may answer if asked from the beginning.
    Restart,
    /// Another connection to pcscd may hold. So it is with a card that is said to be gone: if it is,
    /// the monitor finds that out meanwhile.
    Reconnect,
    /// Nothing.
    Stop,
}

impl From<NotIdentified> for FailedAttempt {
    fn from(told: NotIdentified) -> Self {
        let busy = told.reason == NotIdentifiedReason::InUse;
        Self {
            next: if busy { RetryStrategy::WaitForRelease } else { RetryStrategy::Stop },
            result: told,
        }
    }
}

impl From<TransmitError> for FailedAttempt {
    fn from(why: TransmitError) -> Self {
        let next = match &why {
            TransmitError::Reset => RetryStrategy::Restart,
            TransmitError::PcscdLost | TransmitError::Removed => RetryStrategy::Reconnect,
            TransmitError::TimedOut | TransmitError::Failed { .. } => RetryStrategy::Stop,
        };
        Self { next, result: interrupted(&why) }
    }
}

impl Probe {
    /// Probes the card and reports, unless told to end meanwhile. What another program was in the way
    /// of is reported again once that lets go.
    pub(super) fn run(
        self,
        halt: &CancelToken,
        observations: &UnboundedSender<ReaderEvent>,
        published: &WaitCanceller,
    ) {
        let ended = CancelToken::default();
        self.watch_permit(&ended, halt, observations);
        let result = self.identify(halt, observations);
        ended.cancel();
        if halt.is_cancelled() {
            return;
        }
        let reader = self.reader.clone();
        if self.permit.phase() == ProbePhase::Abandoned {
            // Before it is reported: the next probe may come before this thread has ended.
            self.permit.end();
            return tell(observations, ReaderEvent::CardReleased { reader });
        }
        let others = match &result {
            Ok(identity) => identity.partial,
            Err(why) => why.reason == NotIdentifiedReason::InUse,
        };
        let exchanges = self.apdu_log.exchanges();
        let insertion = self.insertion;
        tell(observations, ReaderEvent::ProbeFinished { reader, insertion, result, exchanges });
        if others {
            self.watch_release(halt, published);
        }
    }

    /// Has a thread report that the card is busy, where this one waits for the end of another program's
    /// transaction when the time is nearly over. It can then be told from a card that hangs.
    fn watch_permit(
        &self,
        ended: &CancelToken,
        halt: &CancelToken,
        observations: &UnboundedSender<ReaderEvent>,
    ) {
        let (ended, halt, observations) = (ended.clone(), halt.clone(), observations.clone());
        let (reader, insertion) = (self.reader.clone(), self.insertion);
        let (turn, trail, deadline) = (self.permit.clone(), self.apdu_log.clone(), self.deadline);
        let watch = move |_: CancelToken| {
            let patience = deadline.saturating_duration_since(Instant::now());
            if ended.wait_timeout(patience.saturating_sub(REPORT_RESERVE)) || halt.is_cancelled() {
                return;
            }
            if waits_for_others(&reader, &turn) && turn.abandon() {
                let (exchanges, result) = (trail.exchanges(), Err(occupied()));
                tell(
                    &observations,
                    ReaderEvent::ProbeFinished { reader, insertion, result, exchanges },
                );
            }
        };
        if let Err(error) = ReaderThread::spawn("probe-watch", watch) {
            debug!(reader = %self.reader, %error, "No thread to watch the probe with");
        }
    }

    /// Has the monitor tell when no other program uses the reader any more. A ring that comes just
    /// before its wait is lost.
    fn watch_release(&self, halt: &CancelToken, published: &WaitCanceller) {
        self.insertions.await_release(&self.reader);
        while !halt.is_cancelled()
            && self.check_present().is_ok()
            && !self.insertions.is_release_watched(&self.reader)
        {
            published.cancel();
            halt.wait_timeout(CANCEL_INTERVAL);
        }
    }

    fn identify(
        &self,
        halt: &CancelToken,
        observations: &UnboundedSender<ReaderEvent>,
    ) -> IdentifyResult {
        let (mut busy, mut restarts) = (BUSY_PAUSES.into_iter(), RESTART_PAUSES.into_iter());
        let mut reconnects = SERVICE_PAUSES.into_iter();
        let mut link = self.establish_context(halt, PcscContext::establish)?;
        loop {
            let setback = match self.identify_once(&link, (halt, observations)) {
                Ok(identity) => return Ok(identity),
                Err(setback) if self.permit.phase() == ProbePhase::Abandoned => {
                    return Err(setback.result);
                }
                Err(setback) => setback,
            };
            let pause = match setback.next {
                RetryStrategy::Stop => return Err(setback.result),
                RetryStrategy::WaitForRelease => busy.next(),
                RetryStrategy::Restart => restarts.next(),
                RetryStrategy::Reconnect => reconnects.next(),
            };
            if !pause.is_some_and(|pause| self.pause(halt, pause)) {
                return Err(self.final_result(&link, setback));
            }
            if setback.next == RetryStrategy::Reconnect {
                debug!(reader = %self.reader, "Probe restarted on a new connection");
                link = self.establish_context(halt, PcscContext::establish)?;
            }
        }
    }

    /// What is told when there was no time for another try.
    fn final_result(&self, link: &PcscContext, setback: FailedAttempt) -> NotIdentified {
        let same = if setback.next == RetryStrategy::Reconnect {
            self.check_present()
        } else {
            self.check_same(link).map_err(|setback| setback.result)
        };
        match same {
            Err(told) => told,
            Ok(()) if setback.result.reason == NotIdentifiedReason::Removed => failed(
                "card is said to be gone again and again while it lies there: bad contact, or too \
                 weak a field"
                    .to_owned(),
            ),
            Ok(()) => setback.result,
        }
    }

    /// Reads the card, unless another program has it in a way that forbids it. Whoever has it is
    /// looked for before each try: a card that was reset has a program that did so.
    fn identify_once(
        &self,
        link: &PcscContext,
        (halt, observations): (&CancelToken, &UnboundedSender<ReaderEvent>),
    ) -> Result<CardIdentity, FailedAttempt> {
        self.check_not_cancelled(halt)?;
        let in_use = self.look(link)?.in_use;
        if in_use && self.only_free {
            return Err(FailedAttempt { next: RetryStrategy::Stop, result: occupied() });
        }
        let mut card = self.connect(link, halt)?;
        let mut known = false;
        let mut identified = |identity: &CardIdentity| {
            known = !halt.is_cancelled() && self.check_same(link).is_ok();
            if known {
                self.emit_identified(identity, observations);
            }
        };
        let verdict = self.transact(&mut card, (in_use, halt), &mut identified)?;
        drop(card);
        if !known {
            self.check_same(link)?;
        }
        Ok(verdict?)
    }

    /// Tells who the card is as soon as it has said so. A connection is to one card until its end, and
    /// it was this one that was in the reader since the insertion began: it may leave now.
    fn emit_identified(
        &self,
        identity: &CardIdentity,
        observations: &UnboundedSender<ReaderEvent>,
    ) {
        let (reader, insertion) = (self.reader.clone(), self.insertion);
        let identity = identity.clone();
        tell(observations, ReaderEvent::Identified { reader, insertion, identity });
    }

    /// A connection to pcscd, patiently: there is one already, on which the monitor sees the card.
    fn establish_context<T>(
        &self,
        halt: &CancelToken,
        mut establish: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, NotIdentified> {
        let mut pauses = SERVICE_PAUSES.into_iter();
        loop {
            self.check_not_cancelled(halt)?;
            let error = match establish() {
                Ok(link) => return Ok(link),
                Err(error) => self.errors.count(error),
            };
            debug!(reader = %self.reader, error = %error, "Could not open a connection for the probe");
            match pauses.next() {
                Some(pause) if self.pause(halt, pause) => {}
                _ => {
                    self.check_not_cancelled(halt)?;
                    return Err(failed(second_connection_error_text(error)));
                }
            }
        }
    }

    /// Connects to the card together with whoever else is; a mute one is given a second try.
    fn connect(
        &self,
        link: &PcscContext,
        halt: &CancelToken,
    ) -> Result<CardConnection, FailedAttempt> {
        let mut mute = Some(MUTE_PAUSE);
        loop {
            self.check_not_cancelled(halt)?;
            let connected = self.with_call_mutex(ProbePhase::Connecting, || {
                link.connect(&self.reader, ShareMode::Shared, PROTOCOLS)
            })?;
            let error = match connected {
                Ok(card) => return Ok(card),
                Err(error) => self.errors.count(error),
            };
            let is_tried_again = is_mute(error) || is_without_protocol(error);
            let pause = if is_tried_again { mute.take() } else { None };
            match pause {
                Some(pause) if self.pause(halt, pause) => {}
                _ => return Err(self.not_connected(link, error)),
            }
        }
    }

    /// Does what may have to wait for another program. Nothing is done with the card if that took so
    /// long that this probe was given up.
    fn with_call_mutex<T>(
        &self,
        stand: ProbePhase,
        work: impl FnOnce() -> T,
    ) -> Result<T, NotIdentified> {
        if !self.permit.start(stand) {
            return Err(occupied());
        }
        let done = work();
        if self.permit.start(ProbePhase::Free) { Ok(done) } else { Err(occupied()) }
    }

    /// A connection that broke says nothing about the card, where a refusal does. Both can have the
    /// same code; after a refusal the connection still works, but for pcscd up to 2.0.0, which
    /// closes it: there the tries run out.
    fn not_connected(&self, link: &PcscContext, error: Error) -> FailedAttempt {
        let told = self.refused(error);
        let broke = is_out_of_sync(error) || (is_lost(error) && self.look(link).is_err());
        if broke || is_gone(error) {
            return FailedAttempt { next: RetryStrategy::Reconnect, result: told };
        }
        // What pcscd says as well when it switches the card off just then, because another program
        // let go of the reader.
        if error == Error::ProtoMismatch {
            return FailedAttempt { next: RetryStrategy::Restart, result: told };
        }
        told.into()
    }

    /// Why the card could not be connected to, or not again.
    fn refused(&self, error: Error) -> NotIdentified {
        if is_gone(error) {
            removed()
        } else if is_mute(error) {
            let detail = "card does not respond at power-up: turn it over or clean it";
            not_identified(NotIdentifiedReason::Mute, detail.to_owned())
        } else if is_without_protocol(error) {
            failed(on_protocols(&DecodedAtr::of(&self.atr).protocols))
        } else if error == Error::SharingViolation {
            let detail = "another program holds the card exclusively: close it, or enable sharing (scdaemon: pcsc-shared)";
            not_identified(NotIdentifiedReason::InUse, detail.to_owned())
        } else {
            failed(card_error_text(error))
        }
    }

    /// One transaction with the card, in which it says who it is, or that it does not know.
    fn transact(
        &self,
        card: &mut Card,
        (in_use, halt): (bool, &CancelToken),
        identified: &mut dyn FnMut(&CardIdentity),
    ) -> Result<IdentifyResult, FailedAttempt> {
        let counted = |error| to_transmit_error(self.errors.count(error));
        let transaction =
            self.with_call_mutex(ProbePhase::Starting, || card.transaction())?.map_err(counted)?;
        let limits = ProbeLimits { reader: &self.reader, deadline: self.deadline, halt };
        let kept = (&self.apdu_log, &self.errors);
        let mut transport = PcscTransport::new(&transaction, limits, kept, identified)?;
        let mut inventory = Inventory::default();
        let subject = ProbeTarget { atr: &self.atr, plan: &self.plan, in_use };
        let verdict = match card::identify(&mut transport, subject, &mut inventory) {
            Ok(identity) => Ok(identity.with_inventory(inventory)),
            Err(ProbeError::Interrupted(why)) => return Err(why.into()),
            Err(error) => Err(NotIdentified { inventory, ..unidentified(&error) }),
        };
        match transaction.end(Disposition::LeaveCard) {
            Err((_, error)) if is_gone(error) && verdict.is_err() => {
                Err(TransmitError::Removed.into())
            }
            Err(_) | Ok(()) => Ok(verdict),
        }
    }

    /// Sleeps; false when there is no time for that.
    fn pause(&self, halt: &CancelToken, pause: Duration) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        pause < left && !halt.wait_timeout(pause)
    }

    /// Whether there is still a card to read, and somebody who wants to know.
    fn check_not_cancelled(&self, halt: &CancelToken) -> Result<(), NotIdentified> {
        if halt.is_cancelled() { Err(removed()) } else { self.check_present() }
    }

    /// Whether the monitor still sees the card.
    fn check_present(&self) -> Result<(), NotIdentified> {
        self.insertions.event_count(&self.reader, self.insertion).map(drop).ok_or_else(removed)
    }

    /// Whether the card in the reader is still the one that was inserted.
    ///
    /// The monitor may not have looked since a swap, and a connection that was made after it is
    /// as good as any. pcscd's event count tells: if it is what it was when the insertion began,
    /// nothing was taken out or put in between.
    fn check_same(&self, link: &PcscContext) -> Result<(), FailedAttempt> {
        self.check_present()?;
        let seen = self.look(link)?;
        let expected = ReaderSnapshot {
            reader: self.reader.clone(),
            occupant: CardPresence::Present(self.atr.clone()),
            event_count: self.event_count,
        };
        if seen.snapshot == expected {
            return Ok(());
        }
        debug!(was = ?expected, is = ?seen.snapshot, "Card changed during the probe");
        Err(removed().into())
    }

    fn look(&self, link: &PcscContext) -> Result<PolledReader, TransmitError> {
        status_change::poll_one(link, &self.reader)
            .map_err(|error| to_transmit_error(self.errors.count(error)))
    }
}

/// Whether a probe has to wait for another program: pcscd answers, and either gave it a connection and
/// no transaction, or has somebody else connected.
fn waits_for_others(reader: &ReaderName, turn: &ProbePermit) -> bool {
    let seen = PcscContext::establish().and_then(|link| status_change::poll_one(&link, reader));
    match turn.phase() {
        ProbePhase::Connecting => seen.is_ok_and(|seen| seen.in_use),
        ProbePhase::Starting => seen.is_ok(),
        ProbePhase::Free | ProbePhase::Abandoned | ProbePhase::Ended => false,
    }
}

fn tell(observations: &UnboundedSender<ReaderEvent>, observation: ReaderEvent) {
    if observations.send(observation).is_err() {
        debug!("Reader event receiver closed");
    }
}

/// Another program is in the middle of something with the card.
pub(super) fn occupied() -> NotIdentified {
    let detail = "another program is using the card and has not let go of it: the card is read once \
                  it does";
    not_identified(NotIdentifiedReason::InUse, detail.to_owned())
}

/// Why a card that could be spoken to did not say who it is.
fn unidentified(error: &ProbeError) -> NotIdentified {
    let reason = match error {
        ProbeError::UnknownFamily { .. } => NotIdentifiedReason::UnknownFamily,
        ProbeError::NoId { .. } => NotIdentifiedReason::NoCardId,
        ProbeError::InUse => NotIdentifiedReason::InUse,
        ProbeError::Interrupted(why) => return interrupted(why),
    };
    not_identified(reason, error.to_string())
}

fn interrupted(why: &TransmitError) -> NotIdentified {
    let reason = match why {
        TransmitError::Removed => return removed(),
        TransmitError::Reset => {
            return failed(
                "the card was reset repeatedly: another program resets it, or the contacts are dirty"
                    .to_owned(),
            );
        }
        TransmitError::TimedOut => NotIdentifiedReason::Timeout,
        TransmitError::PcscdLost | TransmitError::Failed { .. } => NotIdentifiedReason::ReadError,
    };
    not_identified(reason, why.to_string())
}

fn removed() -> NotIdentified {
    let detail = "card was removed before it was identified";
    not_identified(NotIdentifiedReason::Removed, detail.to_owned())
}

fn failed(detail: String) -> NotIdentified {
    not_identified(NotIdentifiedReason::ReadError, detail)
}

fn not_identified(reason: NotIdentifiedReason, detail: String) -> NotIdentified {
    NotIdentified::new(reason, detail)
}

#[cfg(test)]
mod tests;
