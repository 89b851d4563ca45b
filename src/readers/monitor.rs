//! The thread that watches the readers. It connects to no card, and reports a pcscd that is missing, ends
//! or comes back; only cancellation ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcsc::Error;
use tracing::{debug, info, warn};

use crate::domain::{ReaderEvent, ReaderName};

use super::context::PcscContext;
use super::mute_watchers::MuteWatchers;
use super::pcsc_errors::{CUT_AT_FIRST, is_lost, is_out_of_sync, pcscd_error_text};
use super::pcscd_process::{PcscdProcess, SocketStamp, socket_path, wait_for_socket};
use super::reader_table::ReaderTable;
use super::shared_state::SharedState;
use super::status_change::{HotplugWatch, PolledReader, WaitResult, list, poll};
use super::thread::{CancelToken, WakeCause};

/// The longest wait while a change can go unnoticed: just after a change, since another one between poll
/// and wait may be lost, and while [`ReaderTable::needs_polling`]. Limits how late such a change is seen.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long to sleep where nothing ends a wait: with as many readers as one wait takes, each with a mute
/// card.
const SLEEP_INTERVAL: Duration = Duration::from_millis(200);

/// How long a started pcscd may take to find its readers, and the longest wait meanwhile: only from 2.3 on
/// a reader that comes between list and wait ends the wait.
const START_TIME: Duration = Duration::from_secs(3);
const START_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The longest wait otherwise. Each turn costs some four context switches, so this is what an idle daemon
/// consumes. Limits only how late a reader is seen that came in the fraction of a millisecond between list
/// and wait, with a pcscd before 2.3.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// Without a turn for so long, pcscd hangs: a quiet wait, and a poll of a dozen mute cards.
pub(super) const HANG_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that lasted for so long worked: the next attempt comes without delay.
const MIN_HEALTHY_CONNECTION: Duration = Duration::from_millis(100);

/// How many connections in a row may be out of sync before that is reported.
const MAX_OUT_OF_SYNC: u32 = 3;

/// After so many connections in a row that were lost before their first poll, it is no coincidence.
const MIN_CUTS: u32 = 3;

/// Pauses that double up to a maximum.
struct Backoff {
    next: Duration,
    max: Duration,
}

/// Between attempts to connect to pcscd.
const RECONNECT: Backoff = Backoff { next: Duration::from_millis(50), max: Duration::from_secs(2) };

/// After pcscd's socket appeared: pcscd may need a moment to listen.
const CONNECT_AFTER_SOCKET: Backoff =
    Backoff { next: Duration::from_millis(2), max: Duration::from_secs(2) };

/// After waits that ended without a change: no pcscd makes this a busy loop.
const SPURIOUS_WAKEUP: Backoff =
    Backoff { next: Duration::from_millis(1), max: Duration::from_millis(500) };

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }
}

pub(super) struct Monitor {
    shared: Arc<SharedState>,
    halt: CancelToken,
    table: ReaderTable,
    reported: ReportedPcscd,
    /// The pcscd of the last connection, if it is certain.
    process: Option<PcscdProcess>,
}

#[derive(Debug, PartialEq, Eq)]
enum ReportedPcscd {
    Nothing,
    /// One failure is not reported: a pcscd that exits when idle may end on the first connection after,
    /// and the next connection starts it.
    OneFailure,
    Connected,
    Unavailable {
        reason: String,
    },
}

struct LostConnection {
    error: Error,
    /// Whether pcscd accepted the connection, and ended it before the first poll was done.
    is_cut: bool,
    lasted: Duration,
}

impl Monitor {
    pub(super) fn new(shared: Arc<SharedState>, halt: CancelToken) -> Self {
        let (table, reported) = (ReaderTable::new(), ReportedPcscd::Nothing);
        Self { shared, halt, table, reported, process: None }
    }

    pub(super) fn run(mut self) {
        let mut backoff = RECONNECT;
        let (mut out_of_sync, mut cuts) = (0, 0);
        loop {
            let socket = SocketStamp::of(&socket_path());
            let Some(lost) = self.connect_and_watch() else { return };
            let error = self.shared.count(lost.error);
            cuts = if lost.is_cut { cuts + 1 } else { 0 };
            if lost.lasted > MIN_HEALTHY_CONNECTION && !lost.is_cut {
                backoff = RECONNECT;
                out_of_sync = 0;
            }
            if is_out_of_sync(error) && out_of_sync < MAX_OUT_OF_SYNC {
                out_of_sync += 1;
                debug!(error = %error, "pcscd connection out of sync; reconnecting");
                continue;
            }
            debug!(error = %error, "pcscd connection failed");
            let is_cut = cuts >= MIN_CUTS;
            self.report_lost(if is_cut {
                CUT_AT_FIRST.to_owned()
            } else {
                pcscd_error_text(error)
            });
            match wait_for_socket(&socket_path(), socket, &self.halt, backoff.next()) {
                WakeCause::Cancelled => return,
                WakeCause::Signalled => backoff = CONNECT_AFTER_SOCKET,
                WakeCause::TimedOut => {}
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.halt.is_cancelled() || self.shared.is_closed()
    }

    /// One connection to pcscd, until it is lost; `None` when cancelled.
    fn connect_and_watch(&mut self) -> Option<LostConnection> {
        self.shared.beat();
        let context = match PcscContext::establish() {
            Ok(context) => Arc::new(context),
            Err(error) => {
                let is_cut = error == Error::CommError;
                return Some(LostConnection { error, is_cut, lasted: Duration::ZERO });
            }
        };
        self.note_process(PcscdProcess::current());
        self.shared.set_monitor_context(Some(Arc::clone(&context)));
        let lost = PcscdSession::new(self, &context).watch();
        self.shared.set_monitor_context(None);
        lost
    }

    /// Notes the connected pcscd. One that replaced another while the connection was out of sync knows
    /// nothing of what was in the readers.
    fn note_process(&mut self, process: Option<PcscdProcess>) {
        let is_another = process.is_some() && self.process.is_some() && process != self.process;
        self.process = process;
        if is_another && self.reported == ReportedPcscd::Connected {
            self.report_lost(pcscd_error_text(self.shared.count(Error::ServiceStopped)));
        }
    }

    fn report_lost(&mut self, reason: String) {
        if self.reported == ReportedPcscd::Nothing {
            self.reported = ReportedPcscd::OneFailure;
            return;
        }
        let unavailable = ReportedPcscd::Unavailable { reason: reason.clone() };
        if self.reported != unavailable {
            warn!(%reason, "pcscd unavailable");
            self.table.clear();
            self.reported = unavailable;
            self.shared.emit(ReaderEvent::PcscdUnavailable { reason });
        }
    }
}

/// One connection to pcscd.
struct PcscdSession<'a> {
    monitor: &'a mut Monitor,
    context: &'a PcscContext,
    connected_at: Instant,
    /// Whether pcscd just started: it was unavailable, or has no reader yet.
    is_new: bool,
    hotplug: HotplugWatch,
    last_wait: WaitResult,
    backoff: Backoff,
    mute_watchers: MuteWatchers,
    /// Whether a poll on this connection was done.
    has_polled: bool,
}

impl<'a> PcscdSession<'a> {
    fn new(monitor: &'a mut Monitor, context: &'a PcscContext) -> Self {
        let is_new = !matches!(monitor.reported, ReportedPcscd::Connected | ReportedPcscd::Nothing);
        let mute_watchers = MuteWatchers::new(Arc::clone(&monitor.shared));
        Self {
            monitor,
            context,
            connected_at: Instant::now(),
            is_new,
            hotplug: HotplugWatch::new(),
            last_wait: WaitResult::TimedOut,
            backoff: SPURIOUS_WAKEUP,
            mute_watchers,
            has_polled: false,
        }
    }

    /// Watches until the connection is lost; `None` when cancelled.
    fn watch(mut self) -> Option<LostConnection> {
        while !self.monitor.is_cancelled() {
            match self.poll_and_wait() {
                Ok(()) => {}
                // A reader went between list and poll, or during the wait.
                Err(Error::UnknownReader | Error::Cancelled) => {
                    self.last_wait = WaitResult::Changed;
                    self.slow_down();
                }
                Err(error) => {
                    let is_cut = !self.has_polled && is_lost(error);
                    let lasted = self.connected_at.elapsed();
                    return Some(LostConnection { error, is_cut, lasted });
                }
            }
        }
        None
    }

    fn poll_and_wait(&mut self) -> Result<(), Error> {
        self.monitor.shared.beat();
        let present = list(self.context)?;
        self.is_new |= present.is_empty() && self.monitor.reported != ReportedPcscd::Connected;
        if self.hotplug.hides_plug_event(self.monitor.table.moved(&present)) {
            debug!("A reader was disconnected and connected again between two lists");
            self.monitor.table.doubt();
        }
        let mut polled = self.poll(&present)?;
        let is_changed = self.emit_changes(&present, &polled);
        if is_changed || self.last_wait != WaitResult::Changed {
            self.backoff = SPURIOUS_WAKEUP;
        } else {
            self.slow_down();
        }
        self.emit_releases(&mut polled);
        polled.retain(|reader| !reader.is_mute() || !self.is_left_to_watcher(reader));
        if !self.monitor.is_cancelled() {
            let timeout = self.wait_timeout(is_changed);
            self.last_wait = self.hotplug.wait(self.context, &polled, timeout)?;
        }
        if self.last_wait == WaitResult::NothingToWaitFor {
            self.monitor.halt.wait_timeout(SLEEP_INTERVAL);
        }
        Ok(())
    }

    /// Polls the readers, but for those with a mute card that the last wait returned or that has a watcher.
    /// A pcscd that knows only some of the requests reports no reader and no card.
    fn poll(&mut self, present: &[ReaderName]) -> Result<Vec<PolledReader>, Error> {
        self.mute_watchers.forget(present);
        let mut mute = self.hotplug.take_mute_cards();
        mute.retain(|polled| {
            let reader = &polled.snapshot.reader;
            present.contains(reader) && !self.mute_watchers.is_watched(reader)
        });
        let mut due = present.to_vec();
        due.retain(|reader| {
            !self.mute_watchers.is_watched(reader)
                && mute.iter().all(|polled| polled.snapshot.reader != *reader)
        });
        let mut polled = if self.has_polled {
            poll(self.context, &due)?
        } else {
            self.hotplug.first_poll(self.context, &due)?
        };
        self.has_polled = true;
        polled.extend(mute);
        polled.extend(self.mute_watchers.take());
        Ok(polled)
    }

    /// Emits what changed since the last turn; whether anything did.
    fn emit_changes(&mut self, present: &[ReaderName], polled: &[PolledReader]) -> bool {
        let snapshots = polled.iter().map(|polled| polled.snapshot.clone()).collect();
        let monitor = &mut *self.monitor;
        let changes = monitor.table.update(present, snapshots);
        let is_start = monitor.reported != ReportedPcscd::Connected;
        if is_start {
            info!(readers = present.len(), "Connected to pcscd");
            monitor.reported = ReportedPcscd::Connected;
            monitor.shared.emit(ReaderEvent::PcscdConnected);
        }
        let is_changed = is_start || !changes.is_empty();
        for mut change in changes {
            if let ReaderEvent::ReaderAttached { instance, .. } = &mut change {
                *instance = monitor.process.as_ref().map(PcscdProcess::instance);
                self.hotplug.on_readers_changed();
            } else if let ReaderEvent::ReaderDetached { .. } = change {
                self.hotplug.on_readers_changed();
            }
            monitor.shared.emit(change);
        }
        if is_start {
            monitor.shared.emit(ReaderEvent::InitialScanDone);
        }
        is_changed
    }

    /// Emits which readers other programs released, and makes the wait end for the others.
    fn emit_releases(&self, polled: &mut [PolledReader]) {
        for polled in polled {
            let reader = &polled.snapshot.reader;
            let (is_watched, is_released) = self.monitor.shared.set_in_use(reader, polled.in_use);
            polled.is_release_watched = is_watched;
            if is_released {
                self.monitor.shared.emit(ReaderEvent::CardReleased { reader: reader.clone() });
            }
        }
    }

    /// Whether a thread watches this mute card. If it cannot, the monitor waits for it too.
    fn is_left_to_watcher(&mut self, polled: &PolledReader) -> bool {
        if self.mute_watchers.is_watched(&polled.snapshot.reader) {
            return true;
        }
        let started = self.mute_watchers.watch(polled.clone(), self.hotplug.protocol());
        if let Err(error) = &started {
            debug!(%error, "Could not start a thread for a mute card");
        }
        started.is_ok()
    }

    fn wait_timeout(&self, is_changed: bool) -> Duration {
        if self.is_new && self.connected_at.elapsed() < START_TIME {
            START_POLL_INTERVAL
        } else if is_changed || self.monitor.table.needs_polling() {
            POLL_INTERVAL
        } else {
            MAX_WAIT
        }
    }

    fn slow_down(&mut self) {
        self.monitor.halt.wait_timeout(self.backoff.next());
    }
}
