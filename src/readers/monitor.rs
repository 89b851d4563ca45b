//! The thread that watches the readers. It connects to no card, and nothing stops it but its end:
//! a pcscd that is not there, dies or comes back is something to tell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pcsc::Error;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use crate::domain::{ReaderEvent, ReaderName};

use super::cancel::{CancelToken, WakeCause};
use super::context::PcscContext;
use super::current_insertions::CurrentInsertions;
use super::error_counters::ErrorCounters;
use super::heartbeat::Heartbeat;
use super::mute_watchers::MuteWatchers;
use super::pcsc_errors::{CUT_AT_FIRST, is_lost, is_out_of_sync, pcscd_error_text};
use super::pcscd_instance::PcscdProcess;
use super::pcscd_socket::{self, SocketStamp};
use super::reader_table::{CardPresence, ReaderTable};
use super::status_change::{HotplugWatch, PolledReader, WaitResult, list, poll};
use super::thread::ReaderThread;

/// How long a wait may take while a change could go by without a ring: just after a change,
/// because one that came between the look and the wait may have been missed, and while
/// [`ReaderTable::needs_polling`]. This bounds how late such a change is seen.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long to sleep where nothing is there that could ring: as many readers as one wait takes, and a
/// mute card in each.
const SLEEP_INTERVAL: Duration = Duration::from_millis(200);

/// For how long a pcscd that just came finds its readers, and how long a wait may take meanwhile: a
/// reader that comes between list and wait rings only on a pcscd from 2.3 on.
const SOCKET_POLL_INTERVAL: Duration = Duration::from_secs(3);
const SOCKET_POLL_TIME: Duration = Duration::from_millis(200);

/// How long a wait may take otherwise. Each turn costs some four context switches, so this is what
/// an idle daemon consumes; what it bounds is only how late a reader is seen that came in the
/// fraction of a millisecond between list and wait, on a pcscd before 2.3.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// After this long without a turn pcscd hangs: a calm wait, and a look at a mute card in each of a dozen
/// readers.
pub(super) const HANG_TIMEOUT: Duration = Duration::from_secs(20);

/// Pauses between attempts to reach pcscd.
const RECONNECT: BackoffRange =
    BackoffRange { first: Duration::from_millis(50), most: Duration::from_secs(2) };

/// Pauses after its socket appeared: it may take a moment to listen there.
const CONNECT_AFTER_SOCKET: BackoffRange =
    BackoffRange { first: Duration::from_millis(2), most: Duration::from_secs(2) };

/// A connection that lasted for this long worked; the next one is tried for without delay.
const MIN_HEALTHY_CONNECTION: Duration = Duration::from_millis(100);

/// How many connections in a row may be out of step before that is told.
const MAX_OUT_OF_STEP: u32 = 3;

/// How many connections in a row may break before one of them had its first look: so many are no
/// chance.
const CONFIRM_INTERVAL: u32 = 3;

/// Pauses after rings that brought nothing, so that no trick of a pcscd makes this a busy loop.
const SPURIOUS_WAKEUP_BACKOFF: BackoffRange =
    BackoffRange { first: Duration::from_millis(1), most: Duration::from_millis(500) };

/// The monitor's context, for whoever has to end its wait.
#[derive(Clone, Default)]
pub(super) struct WaitCanceller(Arc<Mutex<Option<Arc<PcscContext>>>>);

/// The watching thread's state.
pub(super) struct Monitor {
    observations: UnboundedSender<ReaderEvent>,
    insertions: CurrentInsertions,
    wait_canceller: WaitCanceller,
    heartbeat: Heartbeat,
    errors: ErrorCounters,
    halt: CancelToken,
    table: ReaderTable,
    service: ReportedPcscd,
    /// The pcscd that was connected to last, where that is certain.
    run: Option<PcscdProcess>,
}

/// What was last told about pcscd.
#[derive(Debug, PartialEq, Eq)]
enum ReportedPcscd {
    /// Nothing. One failure is not told: a pcscd that leaves when idle may die on the first
    /// connection after, and the next one starts it.
    Unreported {
        failures: u32,
    },
    Connected,
    Unavailable {
        reason: String,
    },
}

/// Why the monitor has to do something else than go on.
enum ExitReason {
    /// It was told to end, or nobody listens.
    Cancelled,
    /// pcscd connection failed.
    ConnectionLost(Error),
    /// pcscd took the connection, and ended it before the first look was done.
    Disconnected(Error),
}

impl Monitor {
    /// A monitor that has seen nothing yet.
    pub(super) fn new(
        observations: UnboundedSender<ReaderEvent>,
        board: CurrentInsertions,
        (published, pulse): (WaitCanceller, Heartbeat),
        errors: ErrorCounters,
        halt: CancelToken,
    ) -> Self {
        let service = ReportedPcscd::Unreported { failures: 0 };
        let (table, run) = (ReaderTable::new(), None);
        Self {
            observations,
            insertions: board,
            wait_canceller: published,
            heartbeat: pulse,
            errors,
            halt,
            table,
            service,
            run,
        }
    }

    /// Watches until told to end.
    pub(super) fn run(mut self) {
        let mut pauses = RECONNECT.start();
        let mut missteps = 0;
        let mut cuts = 0;
        loop {
            let socket = SocketStamp::of(&pcscd_socket::path());
            let (stop, lasted) = self.connect_and_watch();
            let (error, is_cut) = match stop {
                ExitReason::Cancelled => break,
                ExitReason::ConnectionLost(error) => (error, false),
                ExitReason::Disconnected(error) => (error, true),
            };
            cuts = if is_cut { cuts + 1 } else { 0 };
            if lasted > MIN_HEALTHY_CONNECTION && !is_cut {
                pauses = RECONNECT.start();
                missteps = 0;
            }
            if is_out_of_sync(error) && missteps < MAX_OUT_OF_STEP {
                missteps += 1;
                debug!(error = %self.errors.count(error), "pcscd connection out of sync; reconnecting");
                continue;
            }
            let reason = pcscd_error_text(self.errors.count(error));
            let reason = if cuts < CONFIRM_INTERVAL { reason } else { CUT_AT_FIRST.to_owned() };
            if self.emit_unavailable(error, reason).is_err() {
                break;
            }
            match pcscd_socket::wait_for(&pcscd_socket::path(), socket, &self.halt, pauses.next()) {
                WakeCause::Cancelled => break,
                WakeCause::Signalled => pauses = CONNECT_AFTER_SOCKET.start(),
                WakeCause::TimedOut => {}
            }
        }
    }

    /// One connection to pcscd, from its beginning to its end, and how long it lasted.
    fn connect_and_watch(&mut self) -> (ExitReason, Duration) {
        self.heartbeat.beat();
        let link = match PcscContext::establish() {
            Ok(link) => Arc::new(link),
            Err(Error::CommError) => {
                return (ExitReason::Disconnected(Error::CommError), Duration::ZERO);
            }
            Err(error) => return (ExitReason::ConnectionLost(error), Duration::ZERO),
        };
        if let Err(stop) = self.note_run(PcscdProcess::of_pcscd()) {
            return (stop, Duration::ZERO);
        }
        let began = Instant::now();
        self.wait_canceller.set(Some(Arc::clone(&link)));
        let stop = PcscdSession::new(self, &link).watch();
        self.wait_canceller.set(None);
        (stop, began.elapsed())
    }

    /// Notes which pcscd is connected to. One that took the place of another within a connection that
    /// was out of step has seen nothing of what was in the readers.
    fn note_run(&mut self, run: Option<PcscdProcess>) -> Result<(), ExitReason> {
        let before = std::mem::replace(&mut self.run, run);
        let is_another = before.is_some() && self.run.is_some() && before != self.run;
        if is_another && self.service == ReportedPcscd::Connected {
            let error = Error::ServiceStopped;
            return self.emit_unavailable(error, pcscd_error_text(self.errors.count(error)));
        }
        Ok(())
    }

    fn emit_unavailable(&mut self, error: Error, reason: String) -> Result<(), ExitReason> {
        debug!(error = %error, "pcscd connection failed");
        match &mut self.service {
            ReportedPcscd::Unreported { failures: failures @ 0 } => {
                *failures = 1;
                return Ok(());
            }
            ReportedPcscd::Unavailable { reason: told } if *told == reason => return Ok(()),
            ReportedPcscd::Unreported { .. }
            | ReportedPcscd::Connected
            | ReportedPcscd::Unavailable { .. } => {}
        }
        warn!(%reason, "pcscd unavailable");
        self.table.clear();
        self.service = ReportedPcscd::Unavailable { reason: reason.clone() };
        self.emit(ReaderEvent::PcscdUnavailable { reason })
    }

    fn emit(&self, observation: ReaderEvent) -> Result<(), ExitReason> {
        self.insertions.apply(&observation);
        self.observations.send(observation).map_err(|_| ExitReason::Cancelled)
    }
}

/// One connection to pcscd.
struct PcscdSession<'a> {
    monitor: &'a mut Monitor,
    link: &'a PcscContext,
    connected_at: Instant,
    /// Whether pcscd came only now: it was away, or has no reader yet.
    is_new: bool,
    hotplug: HotplugWatch,
    /// How the last wait ended.
    last_wait: WaitResult,
    /// The next pauses, should the doorbell ring again for nothing.
    backoff: Backoff,
    mute_watchers: MuteWatchers,
    /// Whether a look on this connection came to its end.
    has_polled: bool,
}

impl<'a> PcscdSession<'a> {
    fn new(monitor: &'a mut Monitor, link: &'a PcscContext) -> Self {
        let is_new = !matches!(
            monitor.service,
            ReportedPcscd::Connected | ReportedPcscd::Unreported { failures: 0 }
        );
        let mutes = MuteWatchers::new(monitor.wait_canceller.clone(), monitor.errors.clone());
        Self {
            monitor,
            link,
            connected_at: Instant::now(),
            is_new,
            hotplug: HotplugWatch::new(),
            last_wait: WaitResult::TimedOut,
            backoff: SPURIOUS_WAKEUP_BACKOFF.start(),
            mute_watchers: mutes,
            has_polled: false,
        }
    }

    /// Turns until the connection is lost or the monitor halted.
    fn watch(mut self) -> ExitReason {
        while !self.monitor.halt.is_cancelled() {
            match self.poll_once() {
                Ok(()) => {}
                // A reader went between list and look, or while it was waited for.
                Err(ExitReason::ConnectionLost(Error::UnknownReader | Error::Cancelled)) => {
                    self.last_wait = WaitResult::Changed;
                    self.slow_down();
                }
                Err(ExitReason::ConnectionLost(error)) if !self.has_polled && is_lost(error) => {
                    return ExitReason::Disconnected(error);
                }
                Err(stop) => return stop,
            }
        }
        ExitReason::Cancelled
    }

    /// Looks, tells what changed, and waits for the next change.
    fn poll_once(&mut self) -> Result<(), ExitReason> {
        self.monitor.heartbeat.beat();
        let there = list(self.link).map_err(ExitReason::ConnectionLost)?;
        self.is_new |= there.is_empty() && self.monitor.service != ReportedPcscd::Connected;
        if self.hotplug.hides_plug_event(self.monitor.table.moved(&there)) {
            debug!("A reader was pulled and put back between two lists");
            self.monitor.table.doubt();
        }
        self.mute_watchers.forget(&there);
        let mut new = self.hotplug.take_mutes();
        new.retain(|new| {
            there.contains(&new.snapshot.reader)
                && !self.mute_watchers.is_watched(&new.snapshot.reader)
        });
        let is_due = |reader: &&ReaderName| {
            !self.mute_watchers.is_watched(reader)
                && new.iter().all(|new| new.snapshot.reader != **reader)
        };
        let due: Vec<_> = there.iter().filter(is_due).cloned().collect();
        let mut seen = self.look(&due).map_err(ExitReason::ConnectionLost)?;
        seen.extend(new);
        seen.extend(self.mute_watchers.take());
        let changed = self.emit_changes(&there, &seen)?;
        if changed || self.last_wait != WaitResult::Changed {
            self.backoff = SPURIOUS_WAKEUP_BACKOFF.start();
        } else {
            self.slow_down();
        }

        self.emit_releases(&mut seen)?;
        let answering = self.hand_off_mute_readers(seen);
        let patience = self.wait_timeout(changed);
        self.last_wait = self
            .hotplug
            .wait(self.link, answering.iter(), patience)
            .map_err(ExitReason::ConnectionLost)?;
        if self.last_wait == WaitResult::NothingToWaitFor {
            self.monitor.halt.wait_timeout(SLEEP_INTERVAL);
        }
        Ok(())
    }

    /// Nothing is told of readers and cards on the word of a pcscd that understands only some of the
    /// requests.
    fn look(&mut self, readers: &[ReaderName]) -> Result<Vec<PolledReader>, Error> {
        if self.has_polled {
            return poll(self.link, readers);
        }
        let seen = self.hotplug.first_poll(self.link, readers)?;
        self.has_polled = true;
        Ok(seen)
    }

    /// Tells which readers other programs have let go of, and has the wait end for the others.
    fn emit_releases(&self, seen: &mut [PolledReader]) -> Result<(), ExitReason> {
        for seen in seen {
            let reader = &seen.snapshot.reader;
            let (watched, released) = self.monitor.insertions.set_in_use(reader, seen.in_use);
            seen.is_release_watched = watched;
            if released {
                self.monitor.emit(ReaderEvent::CardReleased { reader: reader.clone() })?;
            }
        }
        Ok(())
    }

    fn wait_timeout(&self, changed: bool) -> Duration {
        if self.is_new && self.connected_at.elapsed() < SOCKET_POLL_INTERVAL {
            SOCKET_POLL_TIME
        } else if changed || self.monitor.table.needs_polling() {
            POLL_INTERVAL
        } else {
            MAX_WAIT
        }
    }

    /// Sleeps a little, and a little longer each time until something happens.
    fn slow_down(&mut self) {
        self.monitor.halt.wait_timeout(self.backoff.next());
    }

    /// Leaves readers with mute cards to threads of their own; the others are to be waited for.
    fn hand_off_mute_readers(&mut self, seen: Vec<PolledReader>) -> Vec<PolledReader> {
        let mut answering = Vec::new();
        for seen in seen {
            let reader = seen.snapshot.reader.clone();
            let is_mute = seen.snapshot.occupant == CardPresence::Mute;
            let is_left =
                is_mute && (self.mute_watchers.is_watched(&reader) || self.leave(seen.clone()));
            if !is_left {
                answering.push(seen);
            }
        }
        answering
    }

    fn leave(&mut self, seen: PolledReader) -> bool {
        let left = self.mute_watchers.watch(seen, self.hotplug.protocol());
        if let Err(error) = &left {
            debug!(%error, "Could not start a thread for a mute card");
        }
        left.is_ok()
    }

    /// Tells what changed since the last turn, and whether anything did.
    fn emit_changes(
        &mut self,
        there: &[ReaderName],
        seen: &[PolledReader],
    ) -> Result<bool, ExitReason> {
        let looks = seen.iter().map(|seen| seen.snapshot.clone()).collect();
        let changes = self.monitor.table.update(there, looks);
        let came_up = self.monitor.service != ReportedPcscd::Connected;
        if came_up {
            info!(readers = there.len(), "Connected to pcscd");
            self.monitor.service = ReportedPcscd::Connected;
            self.monitor.emit(ReaderEvent::PcscdConnected)?;
        }
        let changed = !changes.is_empty();
        for mut change in changes {
            if let ReaderEvent::ReaderAttached { instance, .. } = &mut change {
                *instance = self.monitor.run.as_ref().map(PcscdProcess::instance);
            }
            if matches!(
                change,
                ReaderEvent::ReaderAttached { .. } | ReaderEvent::ReaderDetached { .. }
            ) {
                self.hotplug.readers_changed();
            }
            self.monitor.emit(change)?;
        }
        if came_up {
            self.monitor.emit(ReaderEvent::InitialScanDone)?;
        }
        Ok(changed || came_up)
    }
}

impl WaitCanceller {
    fn set(&self, link: Option<Arc<PcscContext>>) {
        // What was there is dropped after the lock is: dropping a context talks to pcscd.
        let _before =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), link);
    }

    /// Cancels the monitor's wait. Hangs when pcscd does.
    pub(super) fn cancel(&self) {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Err(error)) = link.map(|link| link.cancel()) {
            debug!(error = %error, "SCardCancel failed");
        }
    }

    /// Cancels the monitor's wait from a thread of its own, if there may be one.
    pub(super) fn cancel_on_thread(&self) -> Option<ReaderThread> {
        let published = self.clone();
        ReaderThread::spawn("pcsc-cancel", move |_| published.cancel()).ok()
    }
}

impl std::fmt::Debug for WaitCanceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Published")
    }
}

/// Pauses that double from a first one up to the longest.
struct BackoffRange {
    first: Duration,
    most: Duration,
}

/// The pauses of a [`BackoffRange`], one after the other.
struct Backoff {
    next: Duration,
    most: Duration,
}

impl BackoffRange {
    const fn start(&self) -> Backoff {
        Backoff { next: self.first, most: self.most }
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = RECONNECT.start();
        let taken: Vec<u128> = (0..8).map(|_| pauses.next().as_millis()).collect();
        assert_eq!(taken, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
