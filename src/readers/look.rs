//! One look at pcscd for a person who wants to know whether this user can work with it.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pcsc::{Error, Protocols, ShareMode};

use super::diff::Occupant;
use super::link::Link;
use super::wait::Doorbell;
use super::{trouble, wait};
use crate::domain::ReaderName;

/// How many readers pcsc-lite before 2.5 takes in one call.
const AT_ONCE: usize = 16;

/// What can be seen of pcscd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It answers.
    Answers {
        /// The readers, each with what is in it.
        readers: Vec<(ReaderName, Holds)>,
        /// Whether cards are for this user.
        cards: Cards,
    },
    /// It is there, and turns this user away; or every client, where it has too many.
    Refused,
    /// It cannot be reached.
    Away {
        /// Why, in words.
        why: String,
    },
    /// It takes connections, and says nothing.
    Silent,
}

/// Whether this user may have cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cards {
    /// One was had.
    Allowed,
    /// They are refused.
    Refused,
    /// No card was there to try with, or somebody else holds it.
    Untried,
}

/// What a reader holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// No card.
    Nothing,
    /// A card that answered at power-up.
    Card,
    /// A card that did not.
    MuteCard,
}

/// Looks once, on a thread of its own: one that pcscd holds is left behind.
#[must_use]
pub fn look(patience: Duration) -> Look {
    within("pcsc-look", patience, once).unwrap_or(Look::Silent)
}

/// What comes of some work that pcscd may hold, if it comes in time. Its thread is not waited for.
pub(super) fn within<T: Send + 'static>(
    thread: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answers) = channel();
    // Nobody listens any more where it took too long.
    let started =
        thread::Builder::new().name(thread.to_owned()).spawn(move || answer.send(work()).ok());
    started.ok().and_then(|_| answers.recv_timeout(patience).ok())
}

fn once() -> Look {
    match Link::establish() {
        Ok(link) => over(&link).unwrap_or_else(sort_later),
        Err(error) => sort(error),
    }
}

fn over(link: &Link) -> Result<Look, Error> {
    let names = wait::list(link)?;
    let (mut doorbell, mut readers) = (Doorbell::new(), Vec::new());
    if names.is_empty() {
        doorbell.first_look(link, &names)?;
    }
    for some in names.chunks(AT_ONCE) {
        let seen = doorbell.first_look(link, some)?;
        readers
            .extend(some.iter().cloned().zip(seen.iter().map(|seen| holds(&seen.look.occupant))));
    }
    let with_card = readers.iter().find(|(_, holds)| *holds == Holds::Card);
    let cards = with_card.map_or(Cards::Untried, |(reader, _)| try_card(link, reader));
    Ok(Look::Answers { readers, cards })
}

const fn holds(occupant: &Occupant) -> Holds {
    match occupant {
        Occupant::Mute => Holds::MuteCard,
        Occupant::Card(_) => Holds::Card,
        Occupant::Nothing | Occupant::Unknown => Holds::Nothing,
    }
}

/// Connects to a card and leaves it as it is; it is asked nothing.
fn try_card(link: &Link, reader: &ReaderName) -> Cards {
    match link.connect(reader, ShareMode::Shared, Protocols::ANY) {
        Ok(_connection) => Cards::Allowed,
        Err(Error::SecurityViolation) => Cards::Refused,
        Err(_) => Cards::Untried,
    }
}

/// Whoever may not come in has no connection: on one, the code for that says that it was cut.
fn sort_later(error: Error) -> Look {
    if trouble::is_lost(error) && !trouble::is_out_of_step(error) {
        Look::Away { why: trouble::CUT_AT_FIRST.to_owned() }
    } else {
        sort(error)
    }
}

fn sort(error: Error) -> Look {
    if error == Error::NoReadersAvailable {
        Look::Answers { readers: Vec::new(), cards: Cards::Untried }
    } else if error == Error::SecurityViolation {
        Look::Refused
    } else {
        Look::Away { why: trouble::on_service(error) }
    }
}
