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
    ReaderName,
};

use super::Observation;
use super::board::Board;
use super::diff::{Look, Occupant};
use super::errors::Errors;
use super::halt::Halt;
use super::link::{Handle, Link};
use super::monitor::Published;
use super::trail::Trail;
use super::transport::{Limits, Transport};
use super::trouble::{
    interruption, is_gone, is_lost, is_mute, is_out_of_step, is_without_protocol,
    on_another_connection, on_card, on_protocols,
};
use super::turn::{Stand, Turn};
use super::wait::{self, Seen};
use super::worker::Worker;

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
const TO_TELL: Duration = Duration::from_secs(1);

/// How often the monitor is rung until it listens.
const RING_EVERY: Duration = Duration::from_millis(20);

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
    pub(super) board: Board,
    pub(super) errors: Errors,
    pub(super) trail: Trail,
    pub(super) turn: Turn,
    /// Whether the card is sent nothing while another program uses it.
    pub(super) only_free: bool,
}

/// Who the card is, or why nobody knows.
type Verdict = Result<CardIdentity, NotIdentified>;

/// A try that led to no identity.
#[derive(Debug)]
struct Setback {
    next: Next,
    /// What is told if there is no other try.
    told: NotIdentified,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another program may let go of the card.
    WaitForOthers,
    /// The card may answer if asked from the beginning.
    StartOver,
    /// Another connection to pcscd may hold. So it is with a card that is said to be gone: if it is,
    /// the monitor finds that out meanwhile.
    Reconnect,
    /// Nothing.
    GiveUp,
}

impl From<NotIdentified> for Setback {
    fn from(told: NotIdentified) -> Self {
        let busy = told.reason == NotIdentifiedReason::InUse;
        Self { next: if busy { Next::WaitForOthers } else { Next::GiveUp }, told }
    }
}

impl From<TransmitError> for Setback {
    fn from(why: TransmitError) -> Self {
        let next = match &why {
            TransmitError::Reset => Next::StartOver,
            TransmitError::PcscdLost | TransmitError::Removed => Next::Reconnect,
            TransmitError::TimedOut | TransmitError::Failed { .. } => Next::GiveUp,
        };
        Self { next, told: interrupted(&why) }
    }
}

impl Probe {
    /// Probes the card and reports, unless told to end meanwhile. What another program was in the way
    /// of is reported again once that lets go.
    pub(super) fn run(
        self,
        halt: &Halt,
        observations: &UnboundedSender<Observation>,
        published: &Published,
    ) {
        let ended = Halt::default();
        self.watch_turn(&ended, halt, observations);
        let result = self.identify(halt, observations);
        ended.call();
        if halt.is_called() {
            return;
        }
        let reader = self.reader.clone();
        if self.turn.stand() == Stand::GivenUp {
            // Before it is reported: the next probe may come before this thread has ended.
            self.turn.end();
            return tell(observations, Observation::LetGo { reader });
        }
        let others = match &result {
            Ok(identity) => identity.partial,
            Err(why) => why.reason == NotIdentifiedReason::InUse,
        };
        let exchanges = self.trail.so_far();
        let insertion = self.insertion;
        tell(observations, Observation::Probed { reader, insertion, result, exchanges });
        if others {
            self.have_release_watched(halt, published);
        }
    }

    /// Has a thread report that the card is busy, where this one waits for the end of another program's
    /// transaction when the time is nearly over. It can then be told from a card that hangs.
    fn watch_turn(&self, ended: &Halt, halt: &Halt, observations: &UnboundedSender<Observation>) {
        let (ended, halt, observations) = (ended.clone(), halt.clone(), observations.clone());
        let (reader, insertion) = (self.reader.clone(), self.insertion);
        let (turn, trail, deadline) = (self.turn.clone(), self.trail.clone(), self.deadline);
        let watch = move |_: Halt| {
            let patience = deadline.saturating_duration_since(Instant::now());
            if ended.wait(patience.saturating_sub(TO_TELL)) || halt.is_called() {
                return;
            }
            if waits_for_others(&reader, &turn) && turn.give_up() {
                let (exchanges, result) = (trail.so_far(), Err(occupied()));
                tell(&observations, Observation::Probed { reader, insertion, result, exchanges });
            }
        };
        if let Err(error) = Worker::spawn("probe-watch", watch) {
            debug!(reader = %self.reader, %error, "No thread to watch the probe with");
        }
    }

    /// Has the monitor tell when no other program uses the reader any more. A ring that comes just
    /// before its wait is lost.
    fn have_release_watched(&self, halt: &Halt, published: &Published) {
        self.board.await_release(&self.reader);
        while !halt.is_called()
            && self.check_present().is_ok()
            && !self.board.is_release_watched(&self.reader)
        {
            published.cancel();
            halt.wait(RING_EVERY);
        }
    }

    fn identify(&self, halt: &Halt, observations: &UnboundedSender<Observation>) -> Verdict {
        let (mut busy, mut restarts) = (BUSY_PAUSES.into_iter(), RESTART_PAUSES.into_iter());
        let mut reconnects = SERVICE_PAUSES.into_iter();
        let mut link = self.reach_pcscd(halt, Link::establish)?;
        loop {
            let setback = match self.identify_once(&link, (halt, observations)) {
                Ok(identity) => return Ok(identity),
                Err(setback) if self.turn.stand() == Stand::GivenUp => return Err(setback.told),
                Err(setback) => setback,
            };
            let pause = match setback.next {
                Next::GiveUp => return Err(setback.told),
                Next::WaitForOthers => busy.next(),
                Next::StartOver => restarts.next(),
                Next::Reconnect => reconnects.next(),
            };
            if !pause.is_some_and(|pause| self.pause(halt, pause)) {
                return Err(self.last_word(&link, setback));
            }
            if setback.next == Next::Reconnect {
                debug!(reader = %self.reader, "Card is read again on another connection");
                link = self.reach_pcscd(halt, Link::establish)?;
            }
        }
    }

    /// What is told when there was no time for another try.
    fn last_word(&self, link: &Link, setback: Setback) -> NotIdentified {
        let same = if setback.next == Next::Reconnect {
            self.check_present()
        } else {
            self.check_same(link).map_err(|setback| setback.told)
        };
        match same {
            Err(told) => told,
            Ok(()) if setback.told.reason == NotIdentifiedReason::Removed => failed(
                "card is said to be gone again and again while it lies there: bad contact, or too \
                 weak a field"
                    .to_owned(),
            ),
            Ok(()) => setback.told,
        }
    }

    /// Reads the card, unless another program has it in a way that forbids it. Whoever has it is
    /// looked for before each try: a card that was reset has a program that did so.
    fn identify_once(
        &self,
        link: &Link,
        (halt, observations): (&Halt, &UnboundedSender<Observation>),
    ) -> Result<CardIdentity, Setback> {
        self.check_wanted(halt)?;
        let in_use = self.look(link)?.in_use;
        if in_use && self.only_free {
            return Err(Setback { next: Next::GiveUp, told: occupied() });
        }
        let mut card = self.connect(link, halt)?;
        let mut known = false;
        let mut identified = |identity: &CardIdentity| {
            known = !halt.is_called() && self.check_same(link).is_ok();
            if known {
                self.tell_identified(identity, observations);
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
    fn tell_identified(
        &self,
        identity: &CardIdentity,
        observations: &UnboundedSender<Observation>,
    ) {
        let (reader, insertion) = (self.reader.clone(), self.insertion);
        let identity = identity.clone();
        tell(observations, Observation::Identified { reader, insertion, identity });
    }

    /// A connection to pcscd, patiently: there is one already, on which the monitor sees the card.
    fn reach_pcscd<T>(
        &self,
        halt: &Halt,
        mut establish: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, NotIdentified> {
        let mut pauses = SERVICE_PAUSES.into_iter();
        loop {
            self.check_wanted(halt)?;
            let error = match establish() {
                Ok(link) => return Ok(link),
                Err(error) => self.errors.count(error),
            };
            debug!(reader = %self.reader, error = %error, "No connection to read the card on");
            match pauses.next() {
                Some(pause) if self.pause(halt, pause) => {}
                _ => {
                    self.check_wanted(halt)?;
                    return Err(failed(on_another_connection(error)));
                }
            }
        }
    }

    /// Connects to the card together with whoever else is; a mute one is given a second try.
    fn connect(&self, link: &Link, halt: &Halt) -> Result<Handle, Setback> {
        let mut mute = Some(MUTE_PAUSE);
        loop {
            self.check_wanted(halt)?;
            let connected = self.in_turn(Stand::Connecting, || {
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
    fn in_turn<T>(&self, stand: Stand, work: impl FnOnce() -> T) -> Result<T, NotIdentified> {
        if !self.turn.go(stand) {
            return Err(occupied());
        }
        let done = work();
        if self.turn.go(Stand::Free) { Ok(done) } else { Err(occupied()) }
    }

    /// A connection that broke says nothing about the card, where a refusal does. Both can have the
    /// same code; after a refusal the connection still works, but for pcscd up to 2.0.0, which
    /// closes it: there the tries run out.
    fn not_connected(&self, link: &Link, error: Error) -> Setback {
        let told = self.refused(error);
        let broke = is_out_of_step(error) || (is_lost(error) && self.look(link).is_err());
        if broke || is_gone(error) {
            return Setback { next: Next::Reconnect, told };
        }
        // What pcscd says as well when it switches the card off just then, because another program
        // let go of the reader.
        if error == Error::ProtoMismatch {
            return Setback { next: Next::StartOver, told };
        }
        told.into()
    }

    /// Why the card could not be connected to, or not again.
    fn refused(&self, error: Error) -> NotIdentified {
        if is_gone(error) {
            removed()
        } else if is_mute(error) {
            let detail = "card does not answer at power-up: turn it round, or clean it";
            not_identified(NotIdentifiedReason::Mute, detail.to_owned())
        } else if is_without_protocol(error) {
            failed(on_protocols(&DecodedAtr::of(&self.atr).protocols))
        } else if error == Error::SharingViolation {
            let detail = "another program has the card to itself: end it, or let it share the card \
                          (scdaemon: pcsc-shared)";
            not_identified(NotIdentifiedReason::InUse, detail.to_owned())
        } else {
            failed(on_card(error))
        }
    }

    /// One transaction with the card, in which it says who it is, or that it does not know.
    fn transact(
        &self,
        card: &mut Card,
        (in_use, halt): (bool, &Halt),
        identified: &mut dyn FnMut(&CardIdentity),
    ) -> Result<Verdict, Setback> {
        let counted = |error| interruption(self.errors.count(error));
        let transaction =
            self.in_turn(Stand::Beginning, || card.transaction())?.map_err(counted)?;
        let limits = Limits { reader: &self.reader, deadline: self.deadline, halt };
        let kept = (&self.trail, &self.errors);
        let mut transport = Transport::new(&transaction, limits, kept, identified)?;
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
    fn pause(&self, halt: &Halt, pause: Duration) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        pause < left && !halt.wait(pause)
    }

    /// Whether there is still a card to read, and somebody who wants to know.
    fn check_wanted(&self, halt: &Halt) -> Result<(), NotIdentified> {
        if halt.is_called() { Err(removed()) } else { self.check_present() }
    }

    /// Whether the monitor still sees the card.
    fn check_present(&self) -> Result<(), NotIdentified> {
        self.board.event_count(&self.reader, self.insertion).map(drop).ok_or_else(removed)
    }

    /// Whether the card in the reader is still the one that was inserted.
    ///
    /// The monitor may not have looked since a swap, and a connection that was made after it is
    /// as good as any. pcscd's event count tells: if it is what it was when the insertion began,
    /// nothing was taken out or put in between.
    fn check_same(&self, link: &Link) -> Result<(), Setback> {
        self.check_present()?;
        let seen = self.look(link)?;
        let expected = Look {
            reader: self.reader.clone(),
            occupant: Occupant::Card(self.atr.clone()),
            event_count: self.event_count,
        };
        if seen.look == expected {
            return Ok(());
        }
        debug!(was = ?expected, is = ?seen.look, "Card is not the one that was asked for");
        Err(removed().into())
    }

    fn look(&self, link: &Link) -> Result<Seen, TransmitError> {
        wait::look_at(link, &self.reader).map_err(|error| interruption(self.errors.count(error)))
    }
}

/// Whether a probe has to wait for another program: pcscd answers, and either gave it a connection and
/// no transaction, or has somebody else connected.
fn waits_for_others(reader: &ReaderName, turn: &Turn) -> bool {
    let seen = Link::establish().and_then(|link| wait::look_at(&link, reader));
    match turn.stand() {
        Stand::Connecting => seen.is_ok_and(|seen| seen.in_use),
        Stand::Beginning => seen.is_ok(),
        Stand::Free | Stand::GivenUp | Stand::Over => false,
    }
}

fn tell(observations: &UnboundedSender<Observation>, observation: Observation) {
    if observations.send(observation).is_err() {
        debug!("Nobody listens to the readers");
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
                "card lost its state again and again: another program resets it, or the contact \
                 is bad"
                    .to_owned(),
            );
        }
        TransmitError::TimedOut => NotIdentifiedReason::Timeout,
        TransmitError::PcscdLost | TransmitError::Failed { .. } => NotIdentifiedReason::ReadError,
    };
    not_identified(reason, why.to_string())
}

fn removed() -> NotIdentified {
    let detail = "card was taken out before it was read";
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
