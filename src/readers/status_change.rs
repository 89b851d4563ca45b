//! Looking at the readers and waiting for the doorbell: `SCardGetStatusChange`, tamed.
//!
//! A look is the truth, taken afresh each time. The wait is only the doorbell: what it brings back
//! is never believed, because it is as of its start and leaves things out.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pcsc::ffi::DWORD;
use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, State};

use crate::domain::{Atr, ReaderName};

use super::atr::atr;
use super::plug_events::PlugEvents;
use super::reader_table::{CardPresence, ReaderSnapshot};

/// Room for the names of some hundred readers; doubled where it does not do.
const NAMES_SPACE: usize = 8 * 1024;

/// Beyond this, a list of readers is no list of readers.
const MAX_NAMES_SPACE: usize = 1024 * 1024;

/// What two digits follow, for a byte of a name that cannot be shown.
const ESCAPE: &str = r"\x";

/// What is never fed back: who else uses the card is no news, and would ring for our own probes; but
/// see [`PolledReader::is_release_watched`].
const IGNORED_FLAGS: State = State::INUSE.union(State::EXCLUSIVE).union(State::CHANGED);

/// The readers that pcscd has.
pub(super) fn list(context: &Context) -> Result<Vec<ReaderName>, Error> {
    let mut space = NAMES_SPACE;
    loop {
        let mut buffer = vec![0; space];
        match context.list_readers(&mut buffer) {
            Ok(names) => {
                return Ok(names.map(shown).collect());
            }
            Err(Error::InsufficientBuffer) if space < MAX_NAMES_SPACE => space *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// A look at a reader, together with the state word that the next wait starts from.
#[derive(Debug, Clone)]
pub(super) struct PolledReader {
    pub(super) snapshot: ReaderSnapshot,
    /// Whether some program has a connection to the card.
    pub(super) in_use: bool,
    /// Whether a wait ends when nobody has any more.
    pub(super) is_release_watched: bool,
    current_state: State,
    used: State,
}

/// Looks at some readers, at once.
///
/// Takes 400 ms where one of them holds a mute card: the library gives it that time to answer.
pub(super) fn poll(context: &Context, readers: &[ReaderName]) -> Result<Vec<PolledReader>, Error> {
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let mut states: Vec<ReaderState> =
        readers.iter().map(|reader| entry(&name(reader), State::UNAWARE)).collect();
    wait(context, &mut states, Duration::ZERO)?;
    Ok(readers
        .iter()
        .zip(&states)
        .map(|(reader, state)| PolledReader::new(reader, state))
        .collect())
}

/// Looks at one reader, at once.
pub(super) fn poll_one(context: &Context, reader: &ReaderName) -> Result<PolledReader, Error> {
    let mut states = [entry(&name(reader), State::UNAWARE)];
    wait(context, &mut states, Duration::ZERO)?;
    let [state] = &states;
    Ok(PolledReader::new(reader, state))
}

impl PolledReader {
    fn new(reader: &ReaderName, state: &ReaderState) -> Self {
        let event_count = state.event_count();
        let flags = state.event_state();
        let occupant = occupant(flags, atr(state));
        let feed = with_count(flags.difference(IGNORED_FLAGS), event_count);
        let used = flags.intersection(State::INUSE | State::EXCLUSIVE);
        let look = ReaderSnapshot { reader: reader.clone(), occupant, event_count };
        Self {
            snapshot: look,
            in_use: !used.is_empty(),
            is_release_watched: false,
            current_state: feed,
            used,
        }
    }

    /// What a wait is to begin from.
    pub(super) fn expected(&self) -> ReaderState {
        let used = if self.is_release_watched { self.used } else { State::empty() };
        entry(&name(&self.snapshot.reader), self.current_state | used)
    }
}

fn occupant(flags: State, atr: &[u8]) -> CardPresence {
    if flags.intersects(State::UNAVAILABLE | State::UNKNOWN) {
        CardPresence::Unknown
    } else if flags.contains(State::PRESENT) {
        match Atr::try_from(atr) {
            Ok(atr) if !flags.contains(State::MUTE) => CardPresence::Present(atr),
            Ok(_) | Err(_) => CardPresence::Mute,
        }
    } else if flags.contains(State::EMPTY) {
        CardPresence::Empty
    } else {
        CardPresence::Unknown
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitResult {
    /// Something happened, or somebody cancelled the wait.
    Changed,
    /// Nothing happened for as long as the wait could take.
    TimedOut,
    /// There is nothing that could ring, so nothing was waited for.
    NothingToWaitFor,
}

/// The doorbell: the pseudo-reader that rings when a reader comes or goes.
#[derive(Debug)]
pub(super) struct HotplugWatch {
    /// The number of such events so far, from pcsc-lite 2.3 on.
    event_count: u32,
    plug_events: PlugEvents,
    /// Below 2.5 a wait takes 16 entries, this one included; with 16 readers it has no room, and
    /// needs none, because another reader would have none either.
    has_room: bool,
    /// Mute cards that came during the last wait.
    mutes: Vec<PolledReader>,
}

impl HotplugWatch {
    /// A doorbell on a new connection.
    pub(super) fn new() -> Self {
        Self {
            event_count: 0,
            plug_events: PlugEvents::default(),
            has_room: true,
            mutes: Vec::new(),
        }
    }

    /// The mute cards that came during the last wait. They are all that a wait is believed, because a
    /// look at them takes its time and each change after this one is counted.
    pub(super) fn take_mutes(&mut self) -> Vec<PolledReader> {
        std::mem::take(&mut self.mutes)
    }

    /// Looks at some readers for the first time on a connection, and at the doorbell as well: with that
    /// the library makes each request that looks and waits are made of. A pcscd that does not
    /// understand one of them ends the connection.
    pub(super) fn first_poll(
        &mut self,
        context: &Context,
        readers: &[ReaderName],
    ) -> Result<Vec<PolledReader>, Error> {
        let mut states: Vec<ReaderState> =
            readers.iter().map(|reader| entry(&name(reader), State::UNAWARE)).collect();
        states.push(entry(PNP_NOTIFICATION(), State::UNAWARE));
        match wait(context, &mut states, Duration::ZERO) {
            Err(Error::InvalidParameter) => return poll(context, readers),
            ring => ring?,
        };
        // The library says nothing of a connection that broke at the end of a look; the next request
        // does.
        list(context)?;
        self.event_count = states.last().map_or(0, ReaderState::event_count);
        Ok(readers
            .iter()
            .zip(&states)
            .map(|(reader, state)| PolledReader::new(reader, state))
            .collect())
    }

    /// The minor version of the protocol that this library speaks, as far as it can be known: the events
    /// are counted from 4:5 on.
    pub(super) const fn protocol(&self) -> u32 {
        if self.event_count == 0 { 4 } else { 5 }
    }

    /// Tries for room again, after a reader came or went.
    pub(super) const fn readers_changed(&mut self) {
        self.has_room = true;
    }

    /// Whether a reader was away since the last list and is in this one too, which shows so many readers
    /// that came or went.
    pub(super) fn hides_plug_event(&mut self, moved: usize) -> bool {
        self.plug_events.listed(moved)
    }

    /// Waits until something may have changed since these looks.
    pub(super) fn wait<'a>(
        &mut self,
        context: &Context,
        seen: impl Iterator<Item = &'a PolledReader> + Clone,
        patience: Duration,
    ) -> Result<WaitResult, Error> {
        let mut states: Vec<ReaderState> = seen.clone().map(PolledReader::expected).collect();
        self.mutes.clear();
        if self.has_room {
            states.push(entry(PNP_NOTIFICATION(), with_count(State::UNAWARE, self.event_count)));
        }
        if states.is_empty() {
            return Ok(WaitResult::NothingToWaitFor);
        }
        let ring = match wait(context, &mut states, patience) {
            Err(Error::InvalidParameter) if self.has_room => {
                self.has_room = false;
                return Ok(WaitResult::Changed);
            }
            other => other?,
        };
        let now =
            seen.zip(&states).map(|(seen, state)| PolledReader::new(&seen.snapshot.reader, state));
        self.mutes = now.filter(|seen| seen.snapshot.occupant == CardPresence::Mute).collect();
        if let Some(own) = states.last().filter(|_| self.has_room) {
            let before = std::mem::replace(&mut self.event_count, own.event_count());
            self.plug_events.counted(before, self.event_count);
        }
        if ring == WaitResult::TimedOut {
            self.plug_events.settle();
        }
        Ok(ring)
    }
}

/// Waits until something is otherwise than these entries say.
pub(super) fn wait(
    context: &Context,
    states: &mut [ReaderState],
    patience: Duration,
) -> Result<WaitResult, Error> {
    match context.get_status_change(patience, states) {
        Ok(()) => Ok(WaitResult::Changed),
        Err(Error::Timeout) => Ok(WaitResult::TimedOut),
        Err(error) => Err(error),
    }
}

fn entry(name: &CStr, state: State) -> ReaderState {
    ReaderState::new(name, state)
}

/// A reader's name as people see it. PC/SC's is bytes: those that are not UTF-8 are shown as `\xE4`,
/// and so is a backslash that would look like one of them. No two names are shown alike.
fn shown(name: &CStr) -> ReaderName {
    let mut shown = String::new();
    for chunk in name.to_bytes().utf8_chunks() {
        shown.push_str(&chunk.valid().replace(ESCAPE, r"\x5Cx"));
        for byte in chunk.invalid() {
            shown.push_str(ESCAPE);
            shown.push_str(&hex::encode_upper([*byte]));
        }
    }
    shown.into()
}

/// A reader's name for the library: what [`shown`] was given. That has no NUL inside.
pub(super) fn name(reader: &ReaderName) -> CString {
    let mut pieces = reader.as_str().split(ESCAPE);
    let mut name = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        match hex::decode(digits) {
            Ok(byte) if digits.len() == 2 => name.extend(byte),
            Ok(_) | Err(_) => {
                name.extend(ESCAPE.as_bytes());
                name.extend(digits.as_bytes());
            }
        }
        name.extend(rest.as_bytes());
    }
    CString::new(name).unwrap_or_default()
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
        let card = CardPresence::Present(Atr::try_from(ATR.as_slice()).unwrap());
        assert_eq!(occupant(State::PRESENT, &ATR), card);
        assert_eq!(occupant(State::PRESENT | State::INUSE | State::CHANGED, &ATR), card);
    }

    #[test]
    fn a_card_without_an_atr_is_mute() {
        assert_eq!(occupant(State::PRESENT | State::MUTE, &[]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT, &[]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT, &[0x3B]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT | State::MUTE, &ATR), CardPresence::Mute);
    }

    #[test]
    fn a_reader_in_trouble_holds_nobody_knows_what() {
        assert_eq!(occupant(State::UNAVAILABLE, &[]), CardPresence::Unknown);
        assert_eq!(occupant(State::UNKNOWN | State::UNAVAILABLE, &[]), CardPresence::Unknown);
        assert_eq!(occupant(State::PRESENT | State::UNAVAILABLE, &ATR), CardPresence::Unknown);
        assert_eq!(occupant(State::CHANGED, &[]), CardPresence::Unknown);
    }

    #[test]
    fn an_empty_reader_keeps_no_card_from_an_old_atr() {
        assert_eq!(occupant(State::EMPTY, &ATR), CardPresence::Empty);
    }

    #[test]
    fn a_name_that_is_utf8_is_shown_as_it_is() {
        for plain in ["HID Omnikey 3121 [CCID Interface] (AB12) 00 00", "Lesegerät 00", r"a\b"] {
            assert_eq!(shown(&CString::new(plain).unwrap()).as_str(), plain);
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_shown_with_its_bytes() {
        assert_eq!(shown(c"Leseger\xE4t 00").as_str(), r"Leseger\xE4t 00");
        assert_eq!(shown(c"\xFF\xFE").as_str(), r"\xFF\xFE");
    }

    #[test]
    fn the_library_gets_each_name_back_as_it_gave_it_and_no_two_are_shown_alike() {
        let names = [
            c"Leseger\xE4t 00",
            c"Leseger\\xE4t 00",
            c"Leseger\\x5CxE4t 00",
            c"Leseger\xC3\xA4t 00",
            c"\\x",
            c"\\\\x\xFF\\",
            c"\xE4\xF6\xFC",
            c"",
        ];
        let mut all = std::collections::BTreeSet::new();
        for given in names {
            let reader = shown(given);
            assert_eq!(name(&reader).as_c_str(), given, "{reader}");
            assert!(all.insert(reader));
        }
    }

    #[test]
    fn a_name_that_was_never_given_makes_no_trouble() {
        for odd in [r"\x", r"\x4", r"\xZZ", r"\xä", r"a\x00b"] {
            name(&odd.into());
        }
    }

    #[test]
    fn the_count_goes_back_in_the_upper_half_of_the_state() {
        assert_eq!(with_count(State::PRESENT, 0xFFFF).bits(), 0xFFFF_0020);
    }
}
