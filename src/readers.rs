//! The PC/SC readers: what is in them as it comes and goes, and who each card is.
//!
//! One monitor thread watches, and never talks to a card; a mute card has a thread that watches it.
//! Each probe has a thread of its own, at most one a reader, and so has each question to a driver;
//! they may block for as long as pcscd and the card please; a thread that is
//! stuck is given up, counted and capped, never waited for. Every thread has a PC/SC context of its
//! own, and nobody calls anything but `cancel` on another's (`docs/decisions/0002-thread-model.md`).
//!
//! This is the only module that names `pcsc`. It decides nothing: whether a card is probed, how
//! long for and what follows from it is the business of whoever takes the [`ReaderEvent`]s.

mod apdu_log;
mod atr;
mod attributes;
mod cancel;
mod context;
mod current_insertions;
mod error_counters;
mod heartbeat;
mod monitor;
mod mute_watchers;
mod pcsc_errors;
mod pcscd_check;
mod pcscd_instance;
mod pcscd_socket;
mod pcscd_table;
mod plug_events;
mod probe;
mod probe_permit;
mod reader_table;
mod status_change;
mod thread;
mod transport;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, warn};

use crate::domain::{
    ApduExchange, Atr, InsertionId, NotIdentified, NotIdentifiedReason, ProbeSettings, ReaderEvent,
    ReaderName,
};

pub use attributes::attributes;
pub use pcscd_check::{CardAccess, PcscdCheck, ReaderContent, check_pcscd};
pub use pcscd_instance::boot_id;

use apdu_log::ApduLog;
use cancel::CancelToken;
use current_insertions::CurrentInsertions;
use error_counters::ErrorCounters;
use heartbeat::Heartbeat;
use monitor::{Monitor, WaitCanceller};
use probe::Probe;
use probe_permit::{ProbePermit, ProbePhase};
use thread::ReaderThread;

/// How many stuck probe threads there may be. Each keeps a connection of the 200 that pcscd has for
/// all its clients; with so many stuck, something is wrong that one more thread will not cure.
pub const MAX_ABANDONED: usize = 16;

/// How long a probe waits for its reader to be described, which takes milliseconds.
const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(1);

/// How long [`Readers::stop`] waits. The whole daemon has two seconds to stop in.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// How often a stopping monitor is rung: a `cancel` that comes just before the wait is lost.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// How the readers are to be used.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// What cards are asked.
    pub probing: ProbeSettings,
    /// How long a probe may take; looked at between commands and while waiting for the card.
    pub probe_deadline: Duration,
}

/// A probe under way.
#[derive(Debug)]
struct RunningProbe {
    worker: ReaderThread,
    apdu_log: ApduLog,
    permit: ProbePermit,
}

impl RunningProbe {
    /// Whether it was given up while another program was in the middle of something, and still waits
    /// for the end of that.
    fn waits_for_others(&self) -> bool {
        self.permit.phase() == ProbePhase::Abandoned && !self.worker.has_ended()
    }
}

/// The handle on the reader threads.
#[derive(Debug)]
pub struct Readers {
    options: ReaderOptions,
    observations: UnboundedSender<ReaderEvent>,
    insertions: CurrentInsertions,
    monitor: ReaderThread,
    wait_canceller: WaitCanceller,
    heartbeat: Heartbeat,
    errors: ErrorCounters,
    probes: BTreeMap<ReaderName, RunningProbe>,
    abandoned: Vec<ReaderThread>,
    /// Each with what goes up once the driver was asked.
    attribute_threads: BTreeMap<ReaderName, (ReaderThread, CancelToken)>,
}

impl Readers {
    /// Starts to watch; an error means that the monitor thread could not be made.
    ///
    /// The channel is unbounded because the monitor must never wait for whoever listens. What fills
    /// it are people and cables, a few observations a second, and at most one answer for each call
    /// of [`Self::probe`].
    pub fn start(options: ReaderOptions) -> io::Result<(Self, UnboundedReceiver<ReaderEvent>)> {
        let (observations, receiver) = unbounded_channel();
        let board = CurrentInsertions::default();
        let published = WaitCanceller::default();
        let (errors, pulse) = (ErrorCounters::default(), Heartbeat::new());
        let monitor = ReaderThread::spawn("pcsc-monitor", {
            let (observations, board, errors) =
                (observations.clone(), board.clone(), errors.clone());
            let signs = (published.clone(), pulse.clone());
            move |halt| Monitor::new(observations, board, signs, errors, halt).run()
        })?;
        let readers = Self {
            options,
            observations,
            insertions: board,
            monitor,
            wait_canceller: published,
            heartbeat: pulse,
            errors,
            probes: BTreeMap::new(),
            abandoned: Vec::new(),
            attribute_threads: BTreeMap::new(),
        };
        Ok((readers, receiver))
    }

    /// Asks who the card of an insertion is; the answer comes as [`ReaderEvent::ProbeFinished`].
    ///
    /// A probe that is still under way in the same reader is called off.
    ///
    /// `only_free`: the card is sent nothing while another program uses it.
    pub fn probe(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        atr: &Atr,
        only_free: bool,
    ) {
        if self.probes.get(reader).is_some_and(RunningProbe::waits_for_others) {
            return self.refuse(reader, insertion, probe::occupied());
        }
        self.abandon_probe(reader);
        let refusal = match self.insertions.event_count(reader, insertion) {
            None => NotIdentified::new(
                NotIdentifiedReason::Removed,
                "card was removed before it was read".to_owned(),
            ),
            Some(_) if self.abandoned() >= MAX_ABANDONED => NotIdentified::new(
                NotIdentifiedReason::ReadError,
                format!(
                    "{MAX_ABANDONED} cards or readers hang already; restart pcscd, then cardbridge"
                ),
            ),
            Some(event_count) => {
                match self.spawn_probe((reader, insertion, event_count), atr, only_free) {
                    Ok(()) => return,
                    Err(error) => NotIdentified::new(
                        NotIdentifiedReason::ReadError,
                        format!("no thread to read the card with: {error}"),
                    ),
                }
            }
        };
        self.refuse(reader, insertion, refusal);
    }

    fn refuse(&self, reader: &ReaderName, insertion: InsertionId, refusal: NotIdentified) {
        let refused = ReaderEvent::ProbeFinished {
            reader: reader.clone(),
            insertion,
            result: Err(refusal),
            exchanges: Vec::new(),
        };
        if self.observations.send(refused).is_err() {
            debug!("Reader event receiver closed");
        }
    }

    /// Asks a reader's driver what it tells of the reader, again and again while it cannot be asked and
    /// the reader is there; the answer comes as [`ReaderEvent::AttributesRead`].
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
        let (observations, described) = (self.observations.clone(), reader.clone());
        let (board, tried) = (self.insertions.clone(), CancelToken::default());
        let work = {
            let tried = tried.clone();
            move |halt| {
                let goes_on = || board.contains(&described);
                let told = attributes::poll_attributes(&described, &tried, &halt, goes_on);
                let Some(attributes) = told.filter(|_| !halt.is_cancelled()) else { return };
                let told = ReaderEvent::AttributesRead { reader: described, attributes };
                if observations.send(told).is_err() {
                    debug!("Reader event receiver closed");
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

    /// Gives the reader's probe up: it will not be answered, and its thread, should a card or pcscd
    /// hold it, is left behind. Tells what was said so far.
    pub fn abandon(&mut self, reader: &ReaderName) -> Vec<ApduExchange> {
        let trail = self.probes.get(reader).map(|probe| probe.apdu_log.exchanges());
        self.abandon_probe(reader);
        let abandoned = self.abandoned();
        if abandoned > 0 {
            warn!(%reader, abandoned, "Card probe timed out; thread abandoned");
        }
        trail.unwrap_or_default()
    }

    /// How many threads that were given up are still stuck.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.abandoned.iter().filter(|worker| !worker.has_ended()).count()
    }

    /// For how long pcscd has hung, if it has: nothing is seen of the readers while it does.
    #[must_use]
    pub fn pcscd_hang_duration(&self) -> Option<Duration> {
        Some(self.heartbeat.elapsed()).filter(|silence| *silence > monitor::HANG_TIMEOUT)
    }

    /// Errors of PC/SC so far, by their code.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.counts()
    }

    /// Asks cards this from the next probe on.
    pub fn set_probing(&mut self, probing: ProbeSettings) {
        self.options.probing = probing;
    }

    /// Stops every thread, and gives up those that have not ended after a second and a half.
    ///
    /// Blocks for that long at worst, when pcscd hangs; a few milliseconds otherwise.
    pub fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.cancel_all();
        let mut ringing: Option<ReaderThread> = None;
        while !self.monitor.has_ended() && Instant::now() < deadline {
            if ringing.as_ref().is_none_or(ReaderThread::has_ended) {
                ringing = self.wait_canceller.cancel_on_thread();
            }
            self.monitor.join_timeout(CANCEL_INTERVAL);
        }
        let probes = std::mem::take(&mut self.probes).into_values().map(|probe| probe.worker);
        let describing =
            std::mem::take(&mut self.attribute_threads).into_values().map(|(asks, _)| asks);
        let left_behind = probes
            .chain(describing)
            .filter(|worker| {
                !worker.join_timeout(deadline.saturating_duration_since(Instant::now()))
            })
            .count();
        if left_behind > 0 || !self.monitor.has_ended() {
            warn!(threads = left_behind, "Threads still blocked in pcscd at shutdown; abandoned");
        }
    }

    /// Calls on every thread to end; those that were given up were called on before.
    fn cancel_all(&self) {
        self.monitor.cancel();
        let probes = self.probes.values().map(|probe| &probe.worker);
        probes
            .chain(self.attribute_threads.values().map(|(asks, _)| asks))
            .for_each(ReaderThread::cancel);
    }

    fn spawn_probe(
        &mut self,
        (reader, insertion, event_count): (&ReaderName, InsertionId, u32),
        atr: &Atr,
        only_free: bool,
    ) -> io::Result<()> {
        let (trail, turn) = (ApduLog::default(), ProbePermit::default());
        let probe = Probe {
            reader: reader.clone(),
            insertion,
            atr: atr.clone(),
            event_count,
            plan: self.options.probing.plan(atr),
            deadline: Instant::now() + self.options.probe_deadline,
            insertions: self.insertions.clone(),
            errors: self.errors.clone(),
            apdu_log: trail.clone(),
            permit: turn.clone(),
            only_free,
        };
        let observations = self.observations.clone();
        let describing = self.attribute_threads.get(reader).map(|(_, tried)| tried.clone());
        let published = self.wait_canceller.clone();
        let work = move |halt| {
            // To the probe, its connection would be that of another program.
            if describing.is_some_and(|tried| !tried.wait_timeout(ATTRIBUTES_TIMEOUT)) {
                debug!("Reader attributes still pending; probing anyway");
            }
            probe.run(&halt, &observations, &published);
        };
        let worker = ReaderThread::spawn(&format!("probe-{insertion}"), work)?;
        self.probes.insert(reader.clone(), RunningProbe { worker, apdu_log: trail, permit: turn });
        Ok(())
    }

    /// Calls the reader's probe off, and keeps count of it for as long as it does not listen.
    fn abandon_probe(&mut self, reader: &ReaderName) {
        self.abandoned.retain(|worker| !worker.has_ended());
        if let Some(RunningProbe { worker, .. }) = self.probes.remove(reader) {
            worker.cancel();
            if !worker.has_ended() {
                self.abandoned.push(worker);
            }
        }
    }
}

impl Drop for Readers {
    /// Tells every thread to end, and waits for none.
    fn drop(&mut self) {
        self.cancel_all();
    }
}

#[cfg(test)]
mod tests;
