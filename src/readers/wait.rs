//! Looking at the readers and waiting for the doorbell: `SCardGetStatusChange`, tamed.
//!
//! A look is the truth, taken afresh each time. The wait is only the doorbell: what it brings back
//! is never believed, because it is as of its start and leaves things out.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pcsc::ffi::DWORD;
use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, State};

use crate::domain::{Atr, ReaderName};

use super::diff::{Look, Occupant};

/// Room for the names of some hundred readers; doubled where it does not do.
const NAMES_SPACE: usize = 8 * 1024;

/// Beyond this, a list of readers is no list of readers.
const MAX_NAMES_SPACE: usize = 1024 * 1024;

/// What is never fed back: who else uses the card is no news, and would ring for our own probes.
const NO_NEWS: State = State::INUSE.union(State::EXCLUSIVE).union(State::CHANGED);

/// The readers that pcscd has. Names that are not UTF-8 are left out: nobody could name them.
pub(super) fn list(context: &Context) -> Result<Vec<ReaderName>, Error> {
    let mut space = NAMES_SPACE;
    loop {
        let mut buffer = vec![0; space];
        match context.list_readers(&mut buffer) {
            Ok(names) => {
                return Ok(names.filter_map(|name| name.to_str().ok()).map(Into::into).collect());
            }
            Err(Error::InsufficientBuffer) if space < MAX_NAMES_SPACE => space *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// A look at a reader, together with the state word that the next wait starts from.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) look: Look,
    feed: State,
}

/// Looks at some readers, at once.
///
/// Takes 400 ms where one of them holds a mute card: the library gives it that time to answer.
pub(super) fn look(context: &Context, readers: &[ReaderName]) -> Result<Vec<Seen>, Error> {
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let mut states: Vec<ReaderState> =
        readers.iter().map(|reader| entry(&name(reader), State::UNAWARE)).collect();
    match context.get_status_change(Duration::ZERO, &mut states) {
        Ok(()) | Err(Error::Timeout) => {}
        Err(error) => return Err(error),
    }
    Ok(readers.iter().zip(&states).map(|(reader, state)| Seen::new(reader, state)).collect())
}

impl Seen {
    fn new(reader: &ReaderName, state: &ReaderState) -> Self {
        let event_count = state.event_count();
        let flags = state.event_state();
        let occupant = occupant(flags, state.atr());
        let feed = with_count(flags.difference(NO_NEWS), event_count);
        Self { look: Look { reader: reader.clone(), occupant, event_count }, feed }
    }
}

fn occupant(flags: State, atr: &[u8]) -> Occupant {
    if flags.intersects(State::UNAVAILABLE | State::UNKNOWN) {
        Occupant::Unknown
    } else if flags.contains(State::PRESENT) {
        match Atr::try_from(atr) {
            Ok(atr) if !flags.contains(State::MUTE) => Occupant::Card(atr),
            Ok(_) | Err(_) => Occupant::Mute,
        }
    } else if flags.contains(State::EMPTY) {
        Occupant::Nothing
    } else {
        Occupant::Unknown
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    /// Something happened, or somebody cancelled the wait.
    Rang,
    /// Nothing happened for as long as the wait could take.
    Quiet,
    /// There is nothing that could ring, so nothing was waited for.
    Unwired,
}

/// The doorbell: the pseudo-reader that rings when a reader comes or goes.
#[derive(Debug)]
pub(super) struct Doorbell {
    /// The number of such events so far, from pcsc-lite 2.3 on.
    event_count: u32,
    /// Below 2.5 a wait takes 16 entries, this one included; with 16 readers it has no room, and
    /// needs none, because another reader would have none either.
    has_room: bool,
}

impl Doorbell {
    /// A doorbell on a new connection.
    pub(super) const fn new() -> Self {
        Self { event_count: 0, has_room: true }
    }

    /// Tries for room again, after a reader came or went.
    pub(super) const fn readers_changed(&mut self) {
        self.has_room = true;
    }

    /// Waits until something may have changed since these looks.
    pub(super) fn wait<'a>(
        &mut self,
        context: &Context,
        seen: impl Iterator<Item = &'a Seen>,
        patience: Duration,
    ) -> Result<Ring, Error> {
        let mut states: Vec<ReaderState> =
            seen.map(|seen| entry(&name(&seen.look.reader), seen.feed)).collect();
        if self.has_room {
            states.push(entry(PNP_NOTIFICATION(), with_count(State::UNAWARE, self.event_count)));
        }
        if states.is_empty() {
            return Ok(Ring::Unwired);
        }
        let ring = match context.get_status_change(patience, &mut states) {
            Ok(()) => Ring::Rang,
            Err(Error::Timeout) => Ring::Quiet,
            Err(Error::InvalidParameter) if self.has_room => {
                self.has_room = false;
                return Ok(Ring::Rang);
            }
            Err(error) => return Err(error),
        };
        if let Some(own) = states.last().filter(|_| self.has_room) {
            self.event_count = own.event_count();
        }
        Ok(ring)
    }
}

fn entry(name: &CStr, state: State) -> ReaderState {
    ReaderState::new(name, state)
}

/// A reader's name for the library. What came from it has no NUL inside.
fn name(reader: &ReaderName) -> CString {
    CString::new(reader.as_str()).unwrap_or_default()
}

/// The upper 16 bits of a state word are the event count.
fn with_count(flags: State, event_count: u32) -> State {
    State::from_bits_retain(flags.bits() | DWORD::from(event_count) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATR: [u8; 3] = [0x3B, 0x81, 0x00];

    #[test]
    fn a_card_is_there_when_it_answered() {
        let card = Occupant::Card(Atr::try_from(ATR.as_slice()).unwrap());
        assert_eq!(occupant(State::PRESENT, &ATR), card);
        assert_eq!(occupant(State::PRESENT | State::INUSE | State::CHANGED, &ATR), card);
    }

    #[test]
    fn a_card_without_an_atr_is_mute() {
        assert_eq!(occupant(State::PRESENT | State::MUTE, &[]), Occupant::Mute);
        assert_eq!(occupant(State::PRESENT, &[]), Occupant::Mute);
        assert_eq!(occupant(State::PRESENT, &[0x3B]), Occupant::Mute);
        assert_eq!(occupant(State::PRESENT | State::MUTE, &ATR), Occupant::Mute);
    }

    #[test]
    fn a_reader_in_trouble_holds_nobody_knows_what() {
        assert_eq!(occupant(State::UNAVAILABLE, &[]), Occupant::Unknown);
        assert_eq!(occupant(State::UNKNOWN | State::UNAVAILABLE, &[]), Occupant::Unknown);
        assert_eq!(occupant(State::PRESENT | State::UNAVAILABLE, &ATR), Occupant::Unknown);
        assert_eq!(occupant(State::CHANGED, &[]), Occupant::Unknown);
    }

    #[test]
    fn an_empty_reader_keeps_no_card_from_an_old_atr() {
        assert_eq!(occupant(State::EMPTY, &ATR), Occupant::Nothing);
    }

    #[test]
    fn the_count_goes_back_in_the_upper_half_of_the_state() {
        assert_eq!(with_count(State::PRESENT, 0xFFFF).bits(), 0xFFFF_0020);
    }
}
