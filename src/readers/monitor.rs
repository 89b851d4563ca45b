//! The thread that watches the readers. It connects to no card, and nothing stops it but its end:
//! a pcscd that is not there, dies or comes back is something to tell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pcsc::Error;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use crate::domain::ReaderName;

use super::Observation;
use super::board::Board;
use super::diff::{Occupant, Table};
use super::errors::Errors;
use super::halt::{Halt, Woken};
use super::instance::Run;
use super::link::Link;
use super::mutes::Mutes;
use super::pulse::Pulse;
use super::socket::{self, Stamp};
use super::trouble::{CUT_AT_FIRST, is_lost, is_out_of_step, on_service};
use super::wait::{Doorbell, Ring, Seen, list, look};
use super::worker::Worker;

/// How long a wait may take while a change could go by without a ring: just after a change,
/// because one that came between the look and the wait may have been missed, and while
/// [`Table::has_blind_spot`]. This bounds how late such a change is seen.
const WATCHFUL: Duration = Duration::from_secs(2);

/// How long to sleep where nothing is there that could ring: as many readers as one wait takes, and a
/// mute card in each.
const UNWIRED: Duration = Duration::from_millis(200);

/// For how long a pcscd that just came finds its readers, and how long a wait may take meanwhile: a
/// reader that comes between list and wait rings only on a pcscd from 2.3 on.
const FINDING: Duration = Duration::from_secs(3);
const WHILE_FINDING: Duration = Duration::from_millis(200);

/// How long a wait may take otherwise. Each turn costs some four context switches, so this is what
/// an idle daemon consumes; what it bounds is only how late a reader is seen that came in the
/// fraction of a millisecond between list and wait, on a pcscd before 2.3.
const CALM: Duration = Duration::from_secs(15);

/// After this long without a turn pcscd hangs: a calm wait, and a look at a mute card in each of a dozen
/// readers.
pub(super) const HANGS: Duration = Duration::from_secs(20);

/// Pauses between attempts to reach pcscd.
const RECONNECT: Growth = Growth { first: Duration::from_millis(50), most: Duration::from_secs(2) };

/// Pauses after its socket appeared: it may take a moment to listen there.
const APPEARED: Growth = Growth { first: Duration::from_millis(2), most: Duration::from_secs(2) };

/// A connection that lasted for this long worked; the next one is tried for without delay.
const STEADY: Duration = Duration::from_millis(100);

/// How many connections in a row may be out of step before that is told.
const MISSTEPS: u32 = 3;

/// How many connections in a row may break before one of them had its first look: so many are no
/// chance.
const UNPROVEN: u32 = 3;

/// Pauses after rings that brought nothing, so that no trick of a pcscd makes this a busy loop.
const SPINNING: Growth =
    Growth { first: Duration::from_millis(1), most: Duration::from_millis(500) };

/// The monitor's context, for whoever has to end its wait.
#[derive(Clone, Default)]
pub(super) struct Published(Arc<Mutex<Option<Arc<Link>>>>);

/// The watching thread's state.
pub(super) struct Monitor {
    observations: UnboundedSender<Observation>,
    board: Board,
    published: Published,
    pulse: Pulse,
    errors: Errors,
    halt: Halt,
    table: Table,
    service: Service,
    /// The pcscd that was connected to last, where that is certain.
    run: Option<Run>,
}

/// What was last told about pcscd.
#[derive(Debug, PartialEq, Eq)]
enum Service {
    /// Nothing. One failure is not told: a pcscd that leaves when idle may die on the first
    /// connection after, and the next one starts it.
    Untold {
        failures: u32,
    },
    Up,
    Down {
        reason: String,
    },
}

/// Why the monitor has to do something else than go on.
enum Stop {
    /// It was told to end, or nobody listens.
    Halted,
    /// pcscd is not to be had.
    Lost(Error),
    /// pcscd took the connection, and ended it before the first look was done.
    Cut(Error),
}

impl Monitor {
    /// A monitor that has seen nothing yet.
    pub(super) fn new(
        observations: UnboundedSender<Observation>,
        board: Board,
        (published, pulse): (Published, Pulse),
        errors: Errors,
        halt: Halt,
    ) -> Self {
        let service = Service::Untold { failures: 0 };
        let (table, run) = (Table::new(), None);
        Self { observations, board, published, pulse, errors, halt, table, service, run }
    }

    /// Watches until told to end.
    pub(super) fn run(mut self) {
        let mut pauses = RECONNECT.start();
        let mut missteps = 0;
        let mut cuts = 0;
        loop {
            let socket = Stamp::of(&socket::path());
            let (stop, lasted) = self.connect_and_watch();
            let (error, is_cut) = match stop {
                Stop::Halted => break,
                Stop::Lost(error) => (error, false),
                Stop::Cut(error) => (error, true),
            };
            cuts = if is_cut { cuts + 1 } else { 0 };
            if lasted > STEADY && !is_cut {
                pauses = RECONNECT.start();
                missteps = 0;
            }
            if is_out_of_step(error) && missteps < MISSTEPS {
                missteps += 1;
                debug!(error = %self.errors.count(error), "Connection to pcscd is out of step");
                continue;
            }
            let reason = on_service(self.errors.count(error));
            let reason = if cuts < UNPROVEN { reason } else { CUT_AT_FIRST.to_owned() };
            if self.tell_down(error, reason).is_err() {
                break;
            }
            match socket::wait_for(&socket::path(), socket, &self.halt, pauses.next()) {
                Woken::Halted => break,
                Woken::Other => pauses = APPEARED.start(),
                Woken::Late => {}
            }
        }
    }

    /// One connection to pcscd, from its beginning to its end, and how long it lasted.
    fn connect_and_watch(&mut self) -> (Stop, Duration) {
        self.pulse.beat();
        let link = match Link::establish() {
            Ok(link) => Arc::new(link),
            Err(Error::CommError) => return (Stop::Cut(Error::CommError), Duration::ZERO),
            Err(error) => return (Stop::Lost(error), Duration::ZERO),
        };
        if let Err(stop) = self.note_run(Run::of_pcscd()) {
            return (stop, Duration::ZERO);
        }
        let began = Instant::now();
        self.published.set(Some(Arc::clone(&link)));
        let stop = Session::new(self, &link).watch();
        self.published.set(None);
        (stop, began.elapsed())
    }

    /// Notes which pcscd is connected to. One that took the place of another within a connection that
    /// was out of step has seen nothing of what was in the readers.
    fn note_run(&mut self, run: Option<Run>) -> Result<(), Stop> {
        let before = std::mem::replace(&mut self.run, run);
        let is_another = before.is_some() && self.run.is_some() && before != self.run;
        if is_another && self.service == Service::Up {
            let error = Error::ServiceStopped;
            return self.tell_down(error, on_service(self.errors.count(error)));
        }
        Ok(())
    }

    fn tell_down(&mut self, error: Error, reason: String) -> Result<(), Stop> {
        debug!(error = %error, "pcscd is not to be had");
        match &mut self.service {
            Service::Untold { failures: failures @ 0 } => {
                *failures = 1;
                return Ok(());
            }
            Service::Down { reason: told } if *told == reason => return Ok(()),
            Service::Untold { .. } | Service::Up | Service::Down { .. } => {}
        }
        warn!(%reason, "Readers cannot be watched");
        self.table.clear();
        self.service = Service::Down { reason: reason.clone() };
        self.tell(Observation::ServiceDown { reason })
    }

    fn tell(&self, observation: Observation) -> Result<(), Stop> {
        self.board.follow(&observation);
        self.observations.send(observation).map_err(|_| Stop::Halted)
    }
}

/// One connection to pcscd.
struct Session<'a> {
    monitor: &'a mut Monitor,
    link: &'a Link,
    began: Instant,
    /// Whether pcscd came only now: it was away, or has no reader yet.
    is_new: bool,
    doorbell: Doorbell,
    /// How the last wait ended.
    ring: Ring,
    /// The next pauses, should the doorbell ring again for nothing.
    pauses: Pauses,
    mutes: Mutes,
    /// Whether a look on this connection came to its end.
    has_looked: bool,
}

impl<'a> Session<'a> {
    fn new(monitor: &'a mut Monitor, link: &'a Link) -> Self {
        let is_new = !matches!(monitor.service, Service::Up | Service::Untold { failures: 0 });
        let mutes = Mutes::new(monitor.published.clone(), monitor.errors.clone());
        Self {
            monitor,
            link,
            began: Instant::now(),
            is_new,
            doorbell: Doorbell::new(),
            ring: Ring::Quiet,
            pauses: SPINNING.start(),
            mutes,
            has_looked: false,
        }
    }

    /// Turns until the connection is lost or the monitor halted.
    fn watch(mut self) -> Stop {
        while !self.monitor.halt.is_called() {
            match self.turn() {
                Ok(()) => {}
                // A reader went between list and look, or while it was waited for.
                Err(Stop::Lost(Error::UnknownReader | Error::Cancelled)) => {
                    self.ring = Ring::Rang;
                    self.slow_down();
                }
                Err(Stop::Lost(error)) if !self.has_looked && is_lost(error) => {
                    return Stop::Cut(error);
                }
                Err(stop) => return stop,
            }
        }
        Stop::Halted
    }

    /// Looks, tells what changed, and waits for the next change.
    fn turn(&mut self) -> Result<(), Stop> {
        self.monitor.pulse.beat();
        let there = list(self.link).map_err(Stop::Lost)?;
        self.is_new |= there.is_empty() && self.monitor.service != Service::Up;
        if self.doorbell.hides_a_plug(self.monitor.table.moved(&there)) {
            debug!("A reader was pulled and put back between two lists");
            self.monitor.table.doubt();
        }
        self.mutes.forget(&there);
        let mut new = self.doorbell.take_mutes();
        new.retain(|new| there.contains(&new.look.reader) && !self.mutes.have(&new.look.reader));
        let is_due = |reader: &&ReaderName| {
            !self.mutes.have(reader) && new.iter().all(|new| new.look.reader != **reader)
        };
        let due: Vec<_> = there.iter().filter(is_due).cloned().collect();
        let mut seen = self.look(&due).map_err(Stop::Lost)?;
        seen.extend(new);
        seen.extend(self.mutes.take());
        let changed = self.tell_changes(&there, &seen)?;
        if changed || self.ring != Ring::Rang {
            self.pauses = SPINNING.start();
        } else {
            self.slow_down();
        }

        self.tell_releases(&mut seen)?;
        let answering = self.leave_mutes(seen);
        let patience = self.patience(changed);
        self.ring =
            self.doorbell.wait(self.link, answering.iter(), patience).map_err(Stop::Lost)?;
        if self.ring == Ring::Unwired {
            self.monitor.halt.wait(UNWIRED);
        }
        Ok(())
    }

    /// Nothing is told of readers and cards on the word of a pcscd that understands only some of the
    /// requests.
    fn look(&mut self, readers: &[ReaderName]) -> Result<Vec<Seen>, Error> {
        if self.has_looked {
            return look(self.link, readers);
        }
        let seen = self.doorbell.first_look(self.link, readers)?;
        self.has_looked = true;
        Ok(seen)
    }

    /// Tells which readers other programs have let go of, and has the wait end for the others.
    fn tell_releases(&self, seen: &mut [Seen]) -> Result<(), Stop> {
        for seen in seen {
            let reader = &seen.look.reader;
            let (watched, released) = self.monitor.board.see_use(reader, seen.in_use);
            seen.is_release_watched = watched;
            if released {
                self.monitor.tell(Observation::LetGo { reader: reader.clone() })?;
            }
        }
        Ok(())
    }

    fn patience(&self, changed: bool) -> Duration {
        if self.is_new && self.began.elapsed() < FINDING {
            WHILE_FINDING
        } else if changed || self.monitor.table.has_blind_spot() {
            WATCHFUL
        } else {
            CALM
        }
    }

    /// Sleeps a little, and a little longer each time until something happens.
    fn slow_down(&mut self) {
        self.monitor.halt.wait(self.pauses.next());
    }

    /// Leaves readers with mute cards to threads of their own; the others are to be waited for.
    fn leave_mutes(&mut self, seen: Vec<Seen>) -> Vec<Seen> {
        let mut answering = Vec::new();
        for seen in seen {
            let reader = seen.look.reader.clone();
            let is_mute = seen.look.occupant == Occupant::Mute;
            let is_left = is_mute && (self.mutes.have(&reader) || self.leave(seen.clone()));
            if !is_left {
                answering.push(seen);
            }
        }
        answering
    }

    fn leave(&mut self, seen: Seen) -> bool {
        let left = self.mutes.watch(seen, self.doorbell.protocol());
        if let Err(error) = &left {
            debug!(%error, "No thread for a mute card");
        }
        left.is_ok()
    }

    /// Tells what changed since the last turn, and whether anything did.
    fn tell_changes(&mut self, there: &[ReaderName], seen: &[Seen]) -> Result<bool, Stop> {
        let looks = seen.iter().map(|seen| seen.look.clone()).collect();
        let changes = self.monitor.table.update(there, looks);
        let came_up = self.monitor.service != Service::Up;
        if came_up {
            info!(readers = there.len(), "Readers are being watched");
            self.monitor.service = Service::Up;
            self.monitor.tell(Observation::ServiceUp)?;
        }
        let changed = !changes.is_empty();
        for mut change in changes {
            if let Observation::Attached { instance, .. } = &mut change {
                *instance = self.monitor.run.as_ref().map(Run::instance);
            }
            if matches!(change, Observation::Attached { .. } | Observation::Detached { .. }) {
                self.doorbell.readers_changed();
            }
            self.monitor.tell(change)?;
        }
        if came_up {
            self.monitor.tell(Observation::Settled)?;
        }
        Ok(changed || came_up)
    }
}

impl Published {
    fn set(&self, link: Option<Arc<Link>>) {
        // What was there is dropped after the lock is: dropping a context talks to pcscd.
        let _before =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), link);
    }

    /// Cancels the monitor's wait. Hangs when pcscd does.
    pub(super) fn cancel(&self) {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Err(error)) = link.map(|link| link.cancel()) {
            debug!(error = %error, "Wait for the readers could not be cancelled");
        }
    }

    /// Cancels the monitor's wait from a thread of its own, if there may be one.
    pub(super) fn cancel_from_elsewhere(&self) -> Option<Worker> {
        let published = self.clone();
        Worker::spawn("pcsc-cancel", move |_| published.cancel()).ok()
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Published")
    }
}

/// Pauses that double from a first one up to the longest.
struct Growth {
    first: Duration,
    most: Duration,
}

/// The pauses of a [`Growth`], one after the other.
struct Pauses {
    next: Duration,
    most: Duration,
}

impl Growth {
    const fn start(&self) -> Pauses {
        Pauses { next: self.first, most: self.most }
    }
}

impl Pauses {
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
