//! One look at pcscd for a person who wants to know whether this user can work with it.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use pcsc::{Context, Disposition, Error, Protocols, ReaderState, Scope, ShareMode, State};

use super::trouble;
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
    let (answer, answers) = channel();
    let looker = thread::Builder::new().name("pcsc-look".to_owned());
    let started = looker.spawn(move || {
        let seen = once().unwrap_or_else(sort);
        // Nobody listens any more: too late.
        answer.send(seen).ok();
    });
    if let Err(error) = started {
        return Look::Away { why: format!("no thread to look with: {error}") };
    }
    match answers.recv_timeout(patience) {
        Ok(look) => look,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Look::Silent,
    }
}

fn once() -> Result<Look, Error> {
    let context = Context::establish(Scope::User)?;
    let names = context.list_readers_owned()?;
    let mut states: Vec<_> =
        names.into_iter().map(|name| ReaderState::new(name, State::UNAWARE)).collect();
    for some in states.chunks_mut(AT_ONCE) {
        context.get_status_change(Duration::ZERO, some)?;
    }
    let with_card = states.iter().find(|state| holds(state) == Holds::Card);
    let cards = with_card.map_or(Cards::Untried, |state| try_card(&context, state));
    let name = |state: &ReaderState| ReaderName::from(&*state.name().to_string_lossy());
    let readers = states.iter().map(|state| (name(state), holds(state))).collect();
    Ok(Look::Answers { readers, cards })
}

fn holds(state: &ReaderState) -> Holds {
    let flags = state.event_state();
    if flags.contains(State::MUTE) {
        Holds::MuteCard
    } else if flags.contains(State::PRESENT) {
        Holds::Card
    } else {
        Holds::Nothing
    }
}

/// Connects to a card and leaves it as it is; it is asked nothing.
fn try_card(context: &Context, state: &ReaderState) -> Cards {
    match context.connect(state.name(), ShareMode::Shared, Protocols::ANY) {
        Ok(card) => {
            // Dropping it would reset the card.
            if let Err((card, _)) = card.disconnect(Disposition::LeaveCard) {
                std::mem::forget(card);
            }
            Cards::Allowed
        }
        Err(Error::SecurityViolation) => Cards::Refused,
        Err(_) => Cards::Untried,
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
