//! One look at pcscd for a person who wants to know whether this user can work with it.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pcsc::{Error, Protocols, ShareMode};

use super::context::PcscContext;
use super::reader_table::CardPresence;
use super::status_change::HotplugWatch;
use super::{pcsc_errors, status_change};
use crate::domain::ReaderName;

/// How many readers pcsc-lite before 2.5 takes in one call.
const AT_ONCE: usize = 16;

/// What can be seen of pcscd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PcscdCheck {
    /// It answers.
    Available {
        /// The readers, each with what is in it.
        readers: Vec<(ReaderName, ReaderContent)>,
        /// Whether cards are for this user.
        cards: CardAccess,
    },
    /// It is there, and turns this user away; or every client, where it has too many.
    AccessDenied,
    /// It cannot be reached.
    Unreachable {
        /// Why, in words.
        detail: String,
    },
    /// It takes connections, and says nothing.
    NotResponding,
}

/// Whether this user may have cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardAccess {
    /// One was had.
    Allowed,
    /// They are refused.
    Denied,
    /// No card was there to try with, or somebody else holds it.
    Untested,
}

/// What a reader holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderContent {
    /// No card.
    Empty,
    /// A card that answered at power-up.
    Card,
    /// A card that did not.
    MuteCard,
}

/// Looks once, on a thread of its own: one that pcscd holds is left behind.
#[must_use]
pub fn check_pcscd(patience: Duration) -> PcscdCheck {
    within("pcsc-look", patience, once).unwrap_or(PcscdCheck::NotResponding)
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

fn once() -> PcscdCheck {
    match PcscContext::establish() {
        Ok(link) => over(&link).unwrap_or_else(sort_later),
        Err(error) => classify(error),
    }
}

fn over(link: &PcscContext) -> Result<PcscdCheck, Error> {
    let names = status_change::list(link)?;
    let (mut doorbell, mut readers) = (HotplugWatch::new(), Vec::new());
    if names.is_empty() {
        doorbell.first_poll(link, &names)?;
    }
    for some in names.chunks(AT_ONCE) {
        let seen = doorbell.first_poll(link, some)?;
        readers.extend(
            some.iter().cloned().zip(seen.iter().map(|seen| holds(&seen.snapshot.occupant))),
        );
    }
    let with_card = readers.iter().find(|(_, holds)| *holds == ReaderContent::Card);
    let cards = with_card.map_or(CardAccess::Untested, |(reader, _)| try_card(link, reader));
    Ok(PcscdCheck::Available { readers, cards })
}

const fn holds(occupant: &CardPresence) -> ReaderContent {
    match occupant {
        CardPresence::Mute => ReaderContent::MuteCard,
        CardPresence::Present(_) => ReaderContent::Card,
        CardPresence::Empty | CardPresence::Unknown => ReaderContent::Empty,
    }
}

/// Connects to a card and leaves it as it is; it is asked nothing.
fn try_card(link: &PcscContext, reader: &ReaderName) -> CardAccess {
    match link.connect(reader, ShareMode::Shared, Protocols::ANY) {
        Ok(_connection) => CardAccess::Allowed,
        Err(Error::SecurityViolation) => CardAccess::Denied,
        Err(_) => CardAccess::Untested,
    }
}

/// Whoever may not come in has no connection: on one, the code for that says that it was cut.
fn sort_later(error: Error) -> PcscdCheck {
    if pcsc_errors::is_lost(error) && !pcsc_errors::is_out_of_sync(error) {
        PcscdCheck::Unreachable { detail: pcsc_errors::CUT_AT_FIRST.to_owned() }
    } else {
        classify(error)
    }
}

fn classify(error: Error) -> PcscdCheck {
    if error == Error::NoReadersAvailable {
        PcscdCheck::Available { readers: Vec::new(), cards: CardAccess::Untested }
    } else if error == Error::SecurityViolation {
        PcscdCheck::AccessDenied
    } else {
        PcscdCheck::Unreachable { detail: pcsc_errors::pcscd_error_text(error) }
    }
}
