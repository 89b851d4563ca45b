//! The PC/SC readers: their cards as they come and go, and the identity of each card.
//!
//! One monitor thread watches the readers, without commands to a card; a thread watches each mute card.
//! Each probe and each request to a driver has a thread of its own, at most one a reader. pcscd or the card
//! may block it: a stuck thread is abandoned and counted up to a limit, never waited for. Every thread has a
//! PC/SC context of its own; another's is only ever cancelled (`docs/decisions/0002-thread-model.md`).
//!
//! Only this module names `pcsc`. It decides nothing: the receiver of its [`ReaderEvent`]s decides whether
//! a card is probed, how long, and what follows.

mod context;
mod monitor;
mod mute_watchers;
mod pcsc_errors;
mod pcscd_process;
mod probe;
mod queries;
mod reader_table;
mod shared_state;
mod status_change;
mod thread;
mod transport;

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{debug, warn};

use crate::domain::{
    ApduExchange, Atr, InsertionId, NotIdentified, NotIdentifiedReason, ProbeSettings, ReaderEvent,
    ReaderName,
};

pub use pcscd_process::boot_id;
pub use queries::{CardAccess, PcscdCheck, ReaderContent, attributes, check_pcscd};

use monitor::Monitor;
use probe::Probe;
use shared_state::SharedState;
use thread::{CancelToken, ReaderThread};
use transport::{ProbePhase, ProbeProgress};

/// The limit of stuck threads. Each keeps a connection of the 200 that pcscd has for all its clients; with
/// so many stuck, another thread cures nothing.
pub const MAX_ABANDONED: usize = 16;

/// How long a probe waits for the reader's attributes, which take milliseconds.
const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long [`Readers::stop`] waits. The whole daemon has two seconds to stop.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often the wait of a stopping monitor is cancelled: a call just before the wait is lost.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
pub struct ReaderOptions {
    pub probing: ProbeSettings,
    /// How long a probe may take; checked between commands and while it waits for the card.
    pub probe_deadline: Duration,
}

struct RunningProbe {
    worker: ReaderThread,
    progress: ProbeProgress,
}

impl RunningProbe {
    /// Whether it was abandoned during another program's transaction, and still waits for its end.
    fn waits_for_others(&self) -> bool {
        self.progress.phase() == ProbePhase::Abandoned && !self.worker.has_ended()
    }
}

/// The handle on the reader threads.
pub struct Readers {
    options: ReaderOptions,
    shared: Arc<SharedState>,
    monitor: ReaderThread,
    probes: BTreeMap<ReaderName, RunningProbe>,
    abandoned: Vec<ReaderThread>,
    /// Each with the flag that is set once the driver was asked.
    attribute_threads: BTreeMap<ReaderName, (ReaderThread, CancelToken)>,
}

impl Readers {
    /// Starts to watch; an error means that the monitor thread could not start.
    pub fn start(options: ReaderOptions) -> io::Result<(Self, UnboundedReceiver<ReaderEvent>)> {
        let (shared, receiver) = SharedState::new();
        let monitor = ReaderThread::spawn("pcsc-monitor", {
            let shared = Arc::clone(&shared);
            move |halt| Monitor::new(shared, halt).run()
        })?;
        Ok((Self::new(options, shared, monitor), receiver))
    }

    fn new(options: ReaderOptions, shared: Arc<SharedState>, monitor: ReaderThread) -> Self {
        let (probes, attribute_threads) = (BTreeMap::new(), BTreeMap::new());
        Self { options, shared, monitor, probes, abandoned: Vec::new(), attribute_threads }
    }

    /// Identifies the card of an insertion; the result is a [`ReaderEvent::ProbeFinished`]. Abandons a
    /// probe that still runs in the same reader.
    ///
    /// `only_free`: no command is sent while another program uses the card.
    pub fn probe(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        atr: &Atr,
        only_free: bool,
    ) {
        if let Err(error) = self.try_probe(reader, insertion, atr, only_free) {
            let (reader, result, exchanges) = (reader.clone(), Err(error), Vec::new());
            self.shared.emit(ReaderEvent::ProbeFinished { reader, insertion, result, exchanges });
        }
    }

    fn try_probe(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        atr: &Atr,
        only_free: bool,
    ) -> Result<(), NotIdentified> {
        if self.probes.get(reader).is_some_and(RunningProbe::waits_for_others) {
            return Err(probe::in_use());
        }
        self.abandon_probe(reader);
        let event_count = self.shared.event_count(reader, insertion).ok_or_else(|| {
            let detail = "card was removed before it was read".to_owned();
            NotIdentified::new(NotIdentifiedReason::Removed, detail)
        })?;
        let read_error = |detail| NotIdentified::new(NotIdentifiedReason::ReadError, detail);
        if self.abandoned() >= MAX_ABANDONED {
            return Err(read_error(format!(
                "{MAX_ABANDONED} cards or readers hang already; restart pcscd, then cardbridge"
            )));
        }
        let probe = Probe {
            reader: reader.clone(),
            insertion,
            atr: atr.clone(),
            event_count,
            plan: self.options.probing.plan(atr),
            deadline: Instant::now() + self.options.probe_deadline,
            only_free,
            progress: ProbeProgress::default(),
            shared: Arc::clone(&self.shared),
            halt: CancelToken::default(),
        };
        let progress = probe.progress.clone();
        let attributes_tried = self.attribute_threads.get(reader).map(|(_, tried)| tried.clone());
        let work = move |halt| {
            // To the probe, the connection of that thread would be another program's.
            if attributes_tried.is_some_and(|tried| !tried.wait_timeout(ATTRIBUTES_TIMEOUT)) {
                debug!("Reader attributes still pending; probing anyway");
            }
            Probe { halt, ..probe }.run();
        };
        let worker = ReaderThread::spawn(&format!("probe-{insertion}"), work)
            .map_err(|error| read_error(format!("no thread to read the card with: {error}")))?;
        self.probes.insert(reader.clone(), RunningProbe { worker, progress });
        Ok(())
    }

    /// Asks a reader's driver for its attributes, until it answers or the reader is gone; the result is a
    /// [`ReaderEvent::AttributesRead`].
    pub fn read_attributes(&mut self, reader: &ReaderName) {
        self.attribute_threads.retain(|_, (worker, _)| !worker.has_ended());
        if let Some((former, _)) = self.attribute_threads.remove(reader) {
            former.cancel();
            self.abandoned.push(former);
        }
        if self.abandoned() >= MAX_ABANDONED {
            warn!(%reader, "Too many stuck threads; reader attributes not read");
            return;
        }
        let tried = CancelToken::default();
        let work = {
            let (shared, tried, reader) = (Arc::clone(&self.shared), tried.clone(), reader.clone());
            move |halt: CancelToken| {
                let is_present = || shared.has_reader(&reader);
                let attributes = queries::poll_attributes(&reader, &tried, &halt, is_present);
                if let Some(attributes) = attributes.filter(|_| !halt.is_cancelled()) {
                    shared.emit(ReaderEvent::AttributesRead { reader, attributes });
                }
            }
        };
        match ReaderThread::spawn("reader-about", work) {
            Ok(worker) => drop(self.attribute_threads.insert(reader.clone(), (worker, tried))),
            Err(error) => {
                warn!(%reader, %error, "Could not start a thread to read reader attributes");
            }
        }
    }

    /// Abandons the reader's probe: it reports no result, and its thread is left behind if the card or
    /// pcscd blocks it. Returns the exchanges so far.
    pub fn abandon(&mut self, reader: &ReaderName) -> Vec<ApduExchange> {
        let exchanges = self.probes.get(reader).map(|probe| probe.progress.exchanges());
        self.abandon_probe(reader);
        let abandoned = self.abandoned();
        if abandoned > 0 {
            warn!(%reader, abandoned, "Card probe timed out; thread abandoned");
        }
        exchanges.unwrap_or_default()
    }

    fn abandon_probe(&mut self, reader: &ReaderName) {
        self.abandoned.retain(|worker| !worker.has_ended());
        if let Some(RunningProbe { worker, .. }) = self.probes.remove(reader) {
            worker.cancel();
            self.abandoned.push(worker);
        }
    }

    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.abandoned.iter().filter(|worker| !worker.has_ended()).count()
    }

    /// How long pcscd has hung, if it has: the readers are not seen meanwhile.
    #[must_use]
    pub fn pcscd_hang_duration(&self) -> Option<Duration> {
        Some(self.shared.since_heartbeat()).filter(|silence| *silence > monitor::HANG_TIMEOUT)
    }

    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.error_counts()
    }

    pub fn set_probing(&mut self, probing: ProbeSettings) {
        self.options.probing = probing;
    }

    /// Stops all threads, and abandons those that have not ended after `STOP_TIMEOUT`. Takes so long
    /// only if pcscd hangs, else some milliseconds.
    pub fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.cancel_all();
        let mut canceller: Option<ReaderThread> = None;
        while !self.monitor.has_ended() && Instant::now() < deadline {
            if canceller.as_ref().is_none_or(ReaderThread::has_ended) {
                // A thread of its own, since the call hangs when pcscd does.
                let shared = Arc::clone(&self.shared);
                canceller = ReaderThread::spawn("pcsc-cancel", move |_| shared.cancel_wait()).ok();
            }
            self.monitor.join_timeout(CANCEL_INTERVAL);
        }
        let probes = mem::take(&mut self.probes).into_values().map(|probe| probe.worker);
        let others = mem::take(&mut self.attribute_threads).into_values().map(|(worker, _)| worker);
        let left = || deadline.saturating_duration_since(Instant::now());
        let threads = probes.chain(others).filter(|worker| !worker.join_timeout(left())).count();
        if threads > 0 || !self.monitor.has_ended() {
            warn!(threads, "Threads still blocked in pcscd at shutdown; abandoned");
        }
    }

    /// Cancels all threads that were not abandoned before.
    fn cancel_all(&self) {
        self.monitor.cancel();
        self.probes.values().for_each(|probe| probe.worker.cancel());
        self.attribute_threads.values().for_each(|(worker, _)| worker.cancel());
    }
}

impl Drop for Readers {
    /// Cancels all threads, and waits for none.
    fn drop(&mut self) {
        self.cancel_all();
    }
}

#[cfg(test)]
mod tests;
