//! Polls of the readers, and the wait for a change: `SCardGetStatusChange`.
//!
//! A poll reads the state afresh. A wait only says when to poll: what it returns is of its start and
//! incomplete, except for mute cards.

use std::ffi::{CStr, CString};
use std::time::Duration;
use std::{mem, ptr};

use pcsc::ffi::{DWORD, SCARD_READERSTATE};
use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, State};

use crate::domain::{Atr, ReaderName};

use super::reader_table::{CardPresence, ReaderSnapshot};

/// Space for the names of some hundred readers; doubled up to the maximum where it is too small.
const NAMES_SPACE: usize = 8 * 1024;
const MAX_NAMES_SPACE: usize = 1024 * 1024;

/// Precedes the two digits of a name's byte that cannot be shown.
const ESCAPE: &str = r"\x";

/// Never part of the expected state: other programs' use of a card is no change, and our own probes would
/// end each wait. See [`PolledReader::is_release_watched`].
const IGNORED_FLAGS: State = State::INUSE.union(State::EXCLUSIVE).union(State::CHANGED);

/// pcscd counts its readers from 1 to here, and again from 1.
const MAX_READER_COUNT: u32 = 0x7FFF;

pub(super) fn list(context: &Context) -> Result<Vec<ReaderName>, Error> {
    let mut space = NAMES_SPACE;
    loop {
        let mut buffer = vec![0; space];
        match context.list_readers(&mut buffer) {
            Ok(names) => return Ok(names.map(shown_name).collect()),
            Err(Error::InsufficientBuffer) if space < MAX_NAMES_SPACE => space *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// A reader's state, and the state word that the next wait starts from.
#[derive(Debug, Clone)]
pub(super) struct PolledReader {
    pub(super) snapshot: ReaderSnapshot,
    /// Whether a program has a connection to the card.
    pub(super) in_use: bool,
    /// Whether a wait ends when no program has one any more.
    pub(super) is_release_watched: bool,
    current_state: State,
    used: State,
}

/// Polls readers, without a wait. Takes 400 ms if one of them holds a mute card: the library gives it that
/// time to answer.
pub(super) fn poll(context: &Context, readers: &[ReaderName]) -> Result<Vec<PolledReader>, Error> {
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let mut states = unaware(readers);
    wait(context, &mut states, Duration::ZERO)?;
    Ok(polled(readers, &states))
}

pub(super) fn poll_one(context: &Context, reader: &ReaderName) -> Result<PolledReader, Error> {
    let mut states = [ReaderState::new(pcsc_name(reader), State::UNAWARE)];
    wait(context, &mut states, Duration::ZERO)?;
    Ok(PolledReader::new(reader, &states[0]))
}

fn unaware(readers: &[ReaderName]) -> Vec<ReaderState> {
    readers.iter().map(|reader| ReaderState::new(pcsc_name(reader), State::UNAWARE)).collect()
}

fn polled(readers: &[ReaderName], states: &[ReaderState]) -> Vec<PolledReader> {
    let both = readers.iter().zip(states);
    both.map(|(reader, state)| PolledReader::new(reader, state)).collect()
}

impl PolledReader {
    fn new(reader: &ReaderName, state: &ReaderState) -> Self {
        let (event_count, flags) = (state.event_count(), state.event_state());
        let occupant = occupant(flags, atr(state));
        let used = flags.intersection(State::INUSE | State::EXCLUSIVE);
        Self {
            snapshot: ReaderSnapshot { reader: reader.clone(), occupant, event_count },
            in_use: !used.is_empty(),
            is_release_watched: false,
            current_state: with_count(flags.difference(IGNORED_FLAGS), event_count),
            used,
        }
    }

    pub(super) fn expected(&self) -> ReaderState {
        let used = if self.is_release_watched { self.used } else { State::empty() };
        ReaderState::new(pcsc_name(&self.snapshot.reader), self.current_state | used)
    }

    pub(super) fn is_mute(&self) -> bool {
        self.snapshot.occupant == CardPresence::Mute
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

/// The ATR, or nothing where its length is beyond the buffer. pcscd gives a length of 34 for a reader of
/// which it knows nothing, and before 2.0.3 the library may take that for the length of a former card.
/// `ReaderState::atr` panics then.
#[expect(unsafe_code, reason = "the crate `pcsc` panics: docs/decisions/0002-thread-model.md")]
fn atr(state: &ReaderState) -> &[u8] {
    // SAFETY: `ReaderState` is `repr(C)` with a `SCARD_READERSTATE` as its only field, which it has to
    // be directly transmutable to; the reference lives as long as the one that it comes from.
    let raw = unsafe { &*ptr::from_ref(state).cast::<SCARD_READERSTATE>() };
    usize::try_from(raw.cbAtr).ok().and_then(|length| raw.rgbAtr.get(..length)).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitResult {
    Changed,
    TimedOut,
    NothingToWaitFor,
}

pub(super) fn wait(
    context: &Context,
    states: &mut [ReaderState],
    timeout: Duration,
) -> Result<WaitResult, Error> {
    match context.get_status_change(timeout, states) {
        Ok(()) => Ok(WaitResult::Changed),
        Err(Error::Timeout) => Ok(WaitResult::TimedOut),
        Err(error) => Err(error),
    }
}

/// The pseudo-reader whose state changes when a reader comes or goes.
#[derive(Debug)]
pub(super) struct HotplugWatch {
    /// pcscd's count of such events, from pcsc-lite 2.3 on; else 0.
    event_count: u32,
    /// How far that count is ahead of the lists. A reader that was disconnected and connected again between
    /// two lists is in both, and its own count starts at 0 again.
    ahead: i64,
    /// Before 2.5 a wait takes 16 entries with this one. With 16 readers there is no room for it, and no
    /// need: another reader would not fit either.
    has_room: bool,
    /// Mute cards that came during the last wait. A wait is believed only these, since to poll them takes
    /// its time and each later change is counted.
    mute_cards: Vec<PolledReader>,
}

impl HotplugWatch {
    pub(super) fn new() -> Self {
        Self { event_count: 0, ahead: 0, has_room: true, mute_cards: Vec::new() }
    }

    pub(super) fn take_mute_cards(&mut self) -> Vec<PolledReader> {
        mem::take(&mut self.mute_cards)
    }

    /// Polls readers for the first time on a connection, and the pseudo-reader too: so the library makes
    /// every request that polls and waits consist of. A pcscd that does not know one of them ends the
    /// connection.
    pub(super) fn first_poll(
        &mut self,
        context: &Context,
        readers: &[ReaderName],
    ) -> Result<Vec<PolledReader>, Error> {
        let mut states = unaware(readers);
        states.push(ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE));
        match wait(context, &mut states, Duration::ZERO) {
            Err(Error::InvalidParameter) => return poll(context, readers),
            other => other?,
        };
        // The library does not report a connection that broke at the end of a poll; the next request does.
        list(context)?;
        self.event_count = states.last().map_or(0, ReaderState::event_count);
        Ok(polled(readers, &states))
    }

    /// The minor version of the library's protocol, as far as known: events are counted from 4:5 on.
    pub(super) const fn protocol(&self) -> u32 {
        if self.event_count == 0 { 4 } else { 5 }
    }

    /// Tries again whether the pseudo-reader fits, after a reader came or went.
    pub(super) const fn on_readers_changed(&mut self) {
        self.has_room = true;
    }

    /// Whether a reader was disconnected and connected again, by a list in which so many readers came or
    /// went.
    pub(super) fn hides_plug_event(&mut self, moved: usize) -> bool {
        self.ahead -= i64::try_from(moved).unwrap_or(i64::MAX);
        let were_more = self.ahead > 0;
        self.ahead = self.ahead.min(0);
        were_more
    }

    /// Notes that pcscd's count changed. A count of 0 is none.
    fn on_count(&mut self, before: u32, now: u32) {
        if before != 0 && now != 0 {
            self.ahead += i64::from((now + MAX_READER_COUNT - before) % MAX_READER_COUNT);
        }
    }

    /// After a quiet time, what is listed and not counted never will be, as with one device that is two
    /// readers.
    fn settle(&mut self) {
        self.ahead = self.ahead.max(0);
    }

    pub(super) fn wait(
        &mut self,
        context: &Context,
        polled: &[PolledReader],
        timeout: Duration,
    ) -> Result<WaitResult, Error> {
        let mut states: Vec<_> = polled.iter().map(PolledReader::expected).collect();
        self.mute_cards.clear();
        if self.has_room {
            let expected = with_count(State::UNAWARE, self.event_count);
            states.push(ReaderState::new(PNP_NOTIFICATION(), expected));
        }
        if states.is_empty() {
            return Ok(WaitResult::NothingToWaitFor);
        }
        let result = match wait(context, &mut states, timeout) {
            Err(Error::InvalidParameter) if self.has_room => {
                self.has_room = false;
                return Ok(WaitResult::Changed);
            }
            other => other?,
        };
        let now = polled.iter().zip(&states);
        let now = now.map(|(reader, state)| PolledReader::new(&reader.snapshot.reader, state));
        self.mute_cards = now.filter(PolledReader::is_mute).collect();
        if let Some(own) = states.last().filter(|_| self.has_room) {
            let before = mem::replace(&mut self.event_count, own.event_count());
            self.on_count(before, self.event_count);
        }
        if result == WaitResult::TimedOut {
            self.settle();
        }
        Ok(result)
    }
}

/// A reader's name as shown. PC/SC's is bytes: those that are not UTF-8 are shown as `\xE4`, and so is a
/// backslash that would look like one of them. No two names are shown alike.
fn shown_name(name: &CStr) -> ReaderName {
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

/// A reader's name for the library, the reverse of [`shown_name`].
pub(super) fn pcsc_name(reader: &ReaderName) -> CString {
    let mut pieces = reader.as_str().split(ESCAPE);
    let mut name = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match piece.split_at_checked(2).map(|(digits, rest)| (hex::decode(digits), rest)) {
            Some((Ok(byte), rest)) => name.extend([byte.as_slice(), rest.as_bytes()].concat()),
            _ => name.extend([ESCAPE.as_bytes(), piece.as_bytes()].concat()),
        }
    }
    CString::new(name).unwrap_or_default()
}

/// The event count is the upper 16 bits of a state word.
fn with_count(flags: State, event_count: u32) -> State {
    State::from_bits_retain(flags.bits() | DWORD::from(event_count) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATR: [u8; 3] = [0x3B, 0x81, 0x00];

    #[test]
    fn answering_card_is_present() {
        let card = CardPresence::Present(Atr::try_from(ATR.as_slice()).unwrap());
        assert_eq!(occupant(State::PRESENT, &ATR), card);
        assert_eq!(occupant(State::PRESENT | State::INUSE | State::CHANGED, &ATR), card);
    }

    #[test]
    fn card_without_atr_is_mute() {
        assert_eq!(occupant(State::PRESENT | State::MUTE, &[]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT, &[]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT, &[0x3B]), CardPresence::Mute);
        assert_eq!(occupant(State::PRESENT | State::MUTE, &ATR), CardPresence::Mute);
    }

    #[test]
    fn reader_error_makes_occupant_unknown() {
        assert_eq!(occupant(State::UNAVAILABLE, &[]), CardPresence::Unknown);
        assert_eq!(occupant(State::UNKNOWN | State::UNAVAILABLE, &[]), CardPresence::Unknown);
        assert_eq!(occupant(State::PRESENT | State::UNAVAILABLE, &ATR), CardPresence::Unknown);
        assert_eq!(occupant(State::CHANGED, &[]), CardPresence::Unknown);
    }

    #[test]
    fn empty_reader_ignores_old_atr() {
        assert_eq!(occupant(State::EMPTY, &ATR), CardPresence::Empty);
    }

    #[test]
    fn utf8_reader_name_is_shown_unchanged() {
        for plain in ["HID Omnikey 3121 [CCID Interface] (AB12) 00 00", "Lesegerät 00", r"a\b"] {
            assert_eq!(shown_name(&CString::new(plain).unwrap()).as_str(), plain);
        }
    }

    #[test]
    fn invalid_utf8_in_reader_name_is_escaped() {
        assert_eq!(shown_name(c"Leseger\xE4t 00").as_str(), r"Leseger\xE4t 00");
        assert_eq!(shown_name(c"\xFF\xFE").as_str(), r"\xFF\xFE");
    }

    #[test]
    fn shown_names_are_unique_and_reversible() {
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
            let reader = shown_name(given);
            assert_eq!(pcsc_name(&reader).as_c_str(), given, "{reader}");
            assert!(all.insert(reader));
        }
    }

    #[test]
    fn unknown_reader_name_is_converted() {
        for odd in [r"\x", r"\x4", r"\xZZ", r"\xä", r"a\x00b"] {
            pcsc_name(&odd.into());
        }
    }

    #[test]
    fn event_count_is_upper_half_of_state() {
        assert_eq!(with_count(State::PRESENT, 0xFFFF).bits(), 0xFFFF_0020);
    }

    #[expect(unsafe_code, reason = "a length that no driver should give")]
    fn state(length: u64) -> ReaderState {
        let mut state = ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE);
        // SAFETY: as above.
        let raw = unsafe { &mut *ptr::from_mut(&mut state).cast::<SCARD_READERSTATE>() };
        raw.cbAtr = length;
        raw.rgbAtr[0] = 0x3B;
        state
    }

    #[test]
    fn atr_has_reported_length() {
        assert!(atr(&state(0)).is_empty());
        assert_eq!(atr(&state(2)), [0x3B, 0]);
        assert_eq!(atr(&state(33)).len(), 33);
    }

    #[test]
    fn atr_beyond_buffer_is_empty() {
        assert!(atr(&state(34)).is_empty() && atr(&state(u64::MAX)).is_empty());
    }

    #[test]
    fn reconnected_reader_in_both_lists_is_noticed() {
        let mut hotplug = HotplugWatch::new();
        hotplug.on_count(3, 5);
        assert!(hotplug.hides_plug_event(0));
        assert!(!hotplug.hides_plug_event(0), "once");
        hotplug.on_count(5, 6);
        assert!(!hotplug.hides_plug_event(1), "it came");
        hotplug.on_count(6, 9);
        assert!(hotplug.hides_plug_event(1), "one came, another was away");
    }

    #[test]
    fn list_may_be_ahead_of_count() {
        let mut hotplug = HotplugWatch::new();
        assert!(!hotplug.hides_plug_event(1));
        hotplug.on_count(1, 2);
        assert!(!hotplug.hides_plug_event(0));
        hotplug.on_count(2, 4);
        assert!(hotplug.hides_plug_event(0));
    }

    #[test]
    fn uncounted_plug_event_hides_no_later_one() {
        let mut hotplug = HotplugWatch::new();
        assert!(!hotplug.hides_plug_event(2));
        hotplug.settle();
        hotplug.on_count(2, 4);
        assert!(hotplug.hides_plug_event(0));
    }

    #[test]
    fn reader_count_wraps_and_zero_is_none() {
        let mut hotplug = HotplugWatch::new();
        hotplug.on_count(MAX_READER_COUNT, 1);
        assert!(hotplug.hides_plug_event(0));
        hotplug.on_count(MAX_READER_COUNT - 1, 2);
        assert!(!hotplug.hides_plug_event(3));
        hotplug.on_count(0, 7);
        hotplug.on_count(7, 0);
        assert!(!hotplug.hides_plug_event(0));
    }
}
