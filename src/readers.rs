//! The PC/SC readers: what is in them as it comes and goes, and who each card is.
//!
//! One monitor thread watches, and never talks to a card; a mute card has a thread that watches it.
//! Each probe has a thread of its own, at most one a reader, and so has each question to a driver;
//! they may block for as long as pcscd and the card please; a thread that is
//! stuck is given up, counted and capped, never waited for. Every thread has a PC/SC context of its
//! own, and nobody calls anything but `cancel` on another's (`docs/decisions/0002-thread-model.md`).
//!
//! This is the only module that names `pcsc`. It decides nothing: whether a card is probed, how
//! long for and what follows from it is the business of whoever takes the [`Observation`]s.

mod atr;
mod board;
mod comings;
mod describe;
mod diff;
mod errors;
mod halt;
mod instance;
mod link;
mod look;
mod monitor;
mod mutes;
mod probe;
mod pulse;
mod socket;
mod table;
mod trail;
mod transport;
mod trouble;
mod turn;
mod wait;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, warn};

use crate::domain::{
    Atr, CardIdentity, InsertionId, NotIdentified, NotIdentifiedReason, PcscdInstance,
    ProbeSettings, ReaderAttributes, ReaderName, Removal,
};

pub use describe::attributes;
pub use instance::boot_id;
pub use look::{Cards, Holds, Look, look};

use board::Board;
use errors::Errors;
use halt::Halt;
use monitor::{Monitor, Published};
use probe::Probe;
use pulse::Pulse;
use trail::Trail;
use turn::{Stand, Turn};
use worker::Worker;

/// How many stuck probe threads there may be. Each keeps a connection of the 200 that pcscd has for
/// all its clients; with so many stuck, something is wrong that one more thread will not cure.
pub const MAX_ABANDONED: usize = 16;

/// How long a probe waits for its reader to be described, which takes milliseconds.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(1);

/// How long [`Readers::stop`] waits. The whole daemon has two seconds to stop in.
const STOP_WITHIN: Duration = Duration::from_millis(1500);

/// How often a stopping monitor is rung: a `cancel` that comes just before the wait is lost.
const CANCEL_EVERY: Duration = Duration::from_millis(50);

/// How the readers are to be used.
#[derive(Debug, Clone)]
pub struct Options {
    /// What cards are asked.
    pub probing: ProbeSettings,
    /// How long a probe may take; looked at between commands and while waiting for the card.
    pub probe_deadline: Duration,
}

/// Something seen at the readers.
///
/// For each reader, `Inserted` or `Mute` alternates strictly with `Removed`. Whatever changes in a
/// reader ends the stay that was there: a card swapped between two looks, a mute card that
/// another program got to answer, and a card whose ATR became another one are each a `Removed`
/// followed by the new stay under a new insertion.
#[derive(Debug)]
pub enum Observation {
    /// Readers can be watched.
    ServiceUp,
    /// They cannot; every reader is gone, and every card with it. Comes again when the reason
    /// becomes another one.
    ServiceDown {
        /// Why, in words, with what to do about it.
        reason: String,
    },
    /// A reader is there.
    Attached {
        /// The reader.
        reader: ReaderName,
        /// What it is watched through, where that is certain.
        instance: Option<PcscdInstance>,
    },
    /// What a reader's driver tells of it; the answer to [`Readers::describe`].
    Described {
        /// The reader.
        reader: ReaderName,
        /// What it told; nothing, where it cannot.
        attributes: ReaderAttributes,
    },
    /// A reader is gone; its card went before it.
    Detached {
        /// The reader.
        reader: ReaderName,
    },
    /// A card is in a reader and has answered.
    Inserted {
        /// The reader.
        reader: ReaderName,
        /// This stay of this card.
        insertion: InsertionId,
        /// The card's ATR.
        atr: Atr,
        /// pcscd's count of insertions and removals in this reader, modulo 65536.
        event_count: u32,
        /// The card was there when the reader was first looked at, after the reader or pcscd came.
        at_start: bool,
    },
    /// A card is in a reader and does not answer.
    Mute {
        /// The reader.
        reader: ReaderName,
        /// This stay of this card.
        insertion: InsertionId,
    },
    /// A card, mute or not, is out of its reader.
    Removed {
        /// The reader.
        reader: ReaderName,
        /// The stay that ended.
        insertion: InsertionId,
        /// Whether it was taken out, as far as that can be told.
        how: Removal,
    },
    /// Everything that was there when the service came up has been reported.
    Settled,
    /// A card that is being read has said who it is, or a part of that. [`Self::Probed`] follows once it
    /// was asked for all, unless it leaves or hangs then.
    Identified {
        /// The reader.
        reader: ReaderName,
        /// The stay that is being probed.
        insertion: InsertionId,
        /// Who the card is, without its inventory.
        identity: CardIdentity,
    },
    /// Another program let go of the reader, in which a probe has found it.
    LetGo {
        /// The reader.
        reader: ReaderName,
    },
    /// A probe came to its end. Each probe is answered once, unless it was abandoned or a later
    /// probe in the same reader took its place.
    Probed {
        /// The reader.
        reader: ReaderName,
        /// The stay that was probed.
        insertion: InsertionId,
        /// Who the card is.
        result: Result<CardIdentity, NotIdentified>,
        /// What was said on the way.
        exchanges: Vec<Exchange>,
    },
}

/// One command to a card and the response to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The command's bytes.
    pub command: Vec<u8>,
    /// The response's bytes; none where the exchange failed.
    pub response: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Debug for Exchange {
    /// Tells lengths, not bytes: those belong in no log above TRACE.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("command", &self.command.len())
            .field("response", &self.response.len())
            .field("took", &self.took)
            .finish()
    }
}

/// A probe under way.
#[derive(Debug)]
struct Running {
    worker: Worker,
    trail: Trail,
    turn: Turn,
}

impl Running {
    /// Whether it was given up while another program was in the middle of something, and still waits
    /// for the end of that.
    fn waits_for_others(&self) -> bool {
        self.turn.stand() == Stand::GivenUp && !self.worker.has_ended()
    }
}

/// The handle on the reader threads.
#[derive(Debug)]
pub struct Readers {
    options: Options,
    observations: UnboundedSender<Observation>,
    board: Board,
    monitor: Worker,
    published: Published,
    pulse: Pulse,
    errors: Errors,
    probes: BTreeMap<ReaderName, Running>,
    given_up: Vec<Worker>,
    /// Each with what goes up once the driver was asked.
    describing: BTreeMap<ReaderName, (Worker, Halt)>,
}

impl Readers {
    /// Starts to watch; an error means that the monitor thread could not be made.
    ///
    /// The channel is unbounded because the monitor must never wait for whoever listens. What fills
    /// it are people and cables, a few observations a second, and at most one answer for each call
    /// of [`Self::probe`].
    pub fn start(options: Options) -> io::Result<(Self, UnboundedReceiver<Observation>)> {
        let (observations, receiver) = unbounded_channel();
        let board = Board::default();
        let published = Published::default();
        let (errors, pulse) = (Errors::default(), Pulse::new());
        let monitor = Worker::spawn("pcsc-monitor", {
            let (observations, board, errors) =
                (observations.clone(), board.clone(), errors.clone());
            let signs = (published.clone(), pulse.clone());
            move |halt| Monitor::new(observations, board, signs, errors, halt).run()
        })?;
        let readers = Self {
            options,
            observations,
            board,
            monitor,
            published,
            pulse,
            errors,
            probes: BTreeMap::new(),
            given_up: Vec::new(),
            describing: BTreeMap::new(),
        };
        Ok((readers, receiver))
    }

    /// Asks who the card of an insertion is; the answer comes as [`Observation::Probed`].
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
        if self.probes.get(reader).is_some_and(Running::waits_for_others) {
            return self.refuse(reader, insertion, probe::occupied());
        }
        self.give_up(reader);
        let refusal = match self.board.event_count(reader, insertion) {
            None => NotIdentified::new(
                NotIdentifiedReason::Removed,
                "card was taken out before it was read".to_owned(),
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
        let refused = Observation::Probed {
            reader: reader.clone(),
            insertion,
            result: Err(refusal),
            exchanges: Vec::new(),
        };
        if self.observations.send(refused).is_err() {
            debug!("Nobody listens to the readers");
        }
    }

    /// Asks a reader's driver what it tells of the reader, again and again while it cannot be asked and
    /// the reader is there; the answer comes as [`Observation::Described`].
    pub fn describe(&mut self, reader: &ReaderName) {
        self.describing.retain(|_, (worker, _)| !worker.has_ended());
        if let Some((former, _)) = self.describing.remove(reader) {
            former.halt();
            self.given_up.push(former);
        }
        if self.abandoned() >= MAX_ABANDONED {
            warn!(%reader, "Too much hangs for the reader to be described");
            return;
        }
        let (observations, described) = (self.observations.clone(), reader.clone());
        let (board, tried) = (self.board.clone(), Halt::default());
        let work = {
            let tried = tried.clone();
            move |halt| {
                let goes_on = || board.has(&described);
                let told = describe::asked_until_told(&described, &tried, &halt, goes_on);
                let Some(attributes) = told.filter(|_| !halt.is_called()) else { return };
                let told = Observation::Described { reader: described, attributes };
                if observations.send(told).is_err() {
                    debug!("Nobody listens to the readers");
                }
            }
        };
        match Worker::spawn("reader-about", work) {
            Ok(worker) => drop(self.describing.insert(reader.clone(), (worker, tried))),
            Err(error) => warn!(%reader, %error, "No thread to describe the reader with"),
        }
    }

    /// Gives the reader's probe up: it will not be answered, and its thread, should a card or pcscd
    /// hold it, is left behind. Tells what was said so far.
    pub fn abandon(&mut self, reader: &ReaderName) -> Vec<Exchange> {
        let trail = self.probes.get(reader).map(|probe| probe.trail.so_far());
        self.give_up(reader);
        let abandoned = self.abandoned();
        if abandoned > 0 {
            warn!(%reader, abandoned, "Card reading hangs, its thread is left behind");
        }
        trail.unwrap_or_default()
    }

    /// How many threads that were given up are still stuck.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.given_up.iter().filter(|worker| !worker.has_ended()).count()
    }

    /// For how long pcscd has hung, if it has: nothing is seen of the readers while it does.
    #[must_use]
    pub fn pcscd_hangs(&self) -> Option<Duration> {
        Some(self.pulse.silence()).filter(|silence| *silence > monitor::HANGS)
    }

    /// Errors of PC/SC so far, by their code.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.so_far()
    }

    /// Asks cards this from the next probe on.
    pub fn set_probing(&mut self, probing: ProbeSettings) {
        self.options.probing = probing;
    }

    /// Stops every thread, and gives up those that have not ended after a second and a half.
    ///
    /// Blocks for that long at worst, when pcscd hangs; a few milliseconds otherwise.
    pub fn stop(mut self) {
        let deadline = Instant::now() + STOP_WITHIN;
        self.halt_all();
        let mut ringing: Option<Worker> = None;
        while !self.monitor.has_ended() && Instant::now() < deadline {
            if ringing.as_ref().is_none_or(Worker::has_ended) {
                ringing = self.published.cancel_from_elsewhere();
            }
            self.monitor.ends_within(CANCEL_EVERY);
        }
        let probes = std::mem::take(&mut self.probes).into_values().map(|probe| probe.worker);
        let describing = std::mem::take(&mut self.describing).into_values().map(|(asks, _)| asks);
        let left_behind = probes
            .chain(describing)
            .filter(|worker| {
                !worker.ends_within(deadline.saturating_duration_since(Instant::now()))
            })
            .count();
        if left_behind > 0 || !self.monitor.has_ended() {
            warn!(threads = left_behind, "pcscd or a card hangs, threads are left behind");
        }
    }

    /// Calls on every thread to end; those that were given up were called on before.
    fn halt_all(&self) {
        self.monitor.halt();
        let probes = self.probes.values().map(|probe| &probe.worker);
        probes.chain(self.describing.values().map(|(asks, _)| asks)).for_each(Worker::halt);
    }

    fn spawn_probe(
        &mut self,
        (reader, insertion, event_count): (&ReaderName, InsertionId, u32),
        atr: &Atr,
        only_free: bool,
    ) -> io::Result<()> {
        let (trail, turn) = (Trail::default(), Turn::default());
        let probe = Probe {
            reader: reader.clone(),
            insertion,
            atr: atr.clone(),
            event_count,
            plan: self.options.probing.plan(atr),
            deadline: Instant::now() + self.options.probe_deadline,
            board: self.board.clone(),
            errors: self.errors.clone(),
            trail: trail.clone(),
            turn: turn.clone(),
            only_free,
        };
        let observations = self.observations.clone();
        let describing = self.describing.get(reader).map(|(_, tried)| tried.clone());
        let published = self.published.clone();
        let work = move |halt| {
            // To the probe, its connection would be that of another program.
            if describing.is_some_and(|tried| !tried.wait(DESCRIBED_WITHIN)) {
                debug!("Driver still tells about its reader");
            }
            probe.run(&halt, &observations, &published);
        };
        let worker = Worker::spawn(&format!("probe-{insertion}"), work)?;
        self.probes.insert(reader.clone(), Running { worker, trail, turn });
        Ok(())
    }

    /// Calls the reader's probe off, and keeps count of it for as long as it does not listen.
    fn give_up(&mut self, reader: &ReaderName) {
        self.given_up.retain(|worker| !worker.has_ended());
        if let Some(Running { worker, .. }) = self.probes.remove(reader) {
            worker.halt();
            if !worker.has_ended() {
                self.given_up.push(worker);
            }
        }
    }
}

impl Drop for Readers {
    /// Tells every thread to end, and waits for none.
    fn drop(&mut self) {
        self.halt_all();
    }
}

#[cfg(test)]
mod tests;
