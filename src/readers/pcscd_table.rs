//! pcscd's own table of the readers, asked for without the library.
//!
//! libpcsclite takes 400 ms for each look at a mute card and for each event while it waits beside one,
//! from 2.0.3 on under a lock that every thread of the process needs. pcscd's table comes at once. It
//! is only asked whether a look is due: what a reader holds is said by the library.
//!
//! Requests and structures are those of pcsc-lite's `src/winscard_msg.h` and `src/eventhandler.h`,
//! in the byte order of the machine, the same in versions 4:4 and 4:5 of the protocol. A pcscd of 4:6
//! takes a client of 4:5.

use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::pcscd_socket;

/// After this long pcscd hangs; its answers take less than a millisecond.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

// Commands.
const VERSION: u32 = 0x11;
const WAIT: u32 = 0x13;
const STOP_WAITING: u32 = 0x14;

const MAJOR: u32 = 4;

/// The versions that are spoken.
const MINORS: std::ops::RangeInclusive<u32> = 4..=5;

/// The table has so many readers, there or not, and each so many bytes.
const READERS: usize = 16;
const READER: usize = 184;

// Where things are in a reader's bytes. Its name comes first, ended by a NUL.
const EVENT_COUNT: usize = 128;
const STATE: usize = 132;
const ATR_LENGTH: usize = 176;

/// The flag of a state that says that a card is present.
const PRESENT: u32 = 4;

/// A connection of the daemon's own to pcscd.
#[derive(Debug)]
pub(super) struct PcscdConnection(UnixStream);

/// A reader in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReaderStateRow {
    /// Whether it holds a card of which pcscd has no ATR.
    pub(super) is_mute: bool,
    /// The count of insertions and removals, modulo 65536.
    pub(super) event_count: u32,
}

impl PcscdConnection {
    /// Connects, and asks for a version first. Fails where pcscd speaks none of [`MINORS`].
    pub(super) fn open(minor: u32) -> io::Result<Self> {
        let stream = UnixStream::connect(pcscd_socket::path())?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut connection = Self(stream);
        // pcscd answers with its own version, and notes in its log that another one was asked for.
        match connection.agree(minor)? {
            (true, _) => Ok(connection),
            (false, minor) if MINORS.contains(&minor) && connection.agree(minor)?.0 => {
                Ok(connection)
            }
            (false, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Asks whether pcscd takes a client of this version, and for its own.
    fn agree(&mut self, minor: u32) -> io::Result<(bool, u32)> {
        let numbers = [12, VERSION, MAJOR, minor, 0];
        self.0.write_all(&numbers.map(u32::to_ne_bytes).concat())?;
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer)?;
        let major = number(&answer, 0);
        let own = if major == Some(MAJOR) { number(&answer, 4) } else { None };
        Ok((number(&answer, 8) == Some(0), own.unwrap_or(0)))
    }

    /// A reader as it is now. From here on pcscd notes each event at any reader, for [`Self::wait`] or
    /// [`Self::stop_waiting`], one of which has to follow.
    pub(super) fn row(&mut self, reader: &CStr) -> io::Result<Option<ReaderStateRow>> {
        self.request(WAIT)?;
        let mut table = vec![0; READERS * READER];
        self.0.read_exact(&mut table)?;
        Ok(table.chunks_exact(READER).find_map(|bytes| ReaderStateRow::of(reader, bytes)))
    }

    /// Waits for the next event since [`Self::row`].
    pub(super) fn wait(&mut self, patience: Duration) -> io::Result<()> {
        let mut event = [0; 8];
        self.0.set_read_timeout(Some(patience))?;
        let waited = self.0.read_exact(&mut event);
        self.0.set_read_timeout(Some(ANSWER_WITHIN))?;
        match waited {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stop_waiting(),
            other => other,
        }
    }

    /// Waits for no event any more.
    pub(super) fn stop_waiting(&mut self) -> io::Result<()> {
        // Either this is answered, or an event came just before it; not both.
        self.request(STOP_WAITING)?;
        self.0.read_exact(&mut [0; 8])
    }

    /// A request without a body.
    fn request(&mut self, command: u32) -> io::Result<()> {
        self.0.write_all(&[0, command].map(u32::to_ne_bytes).concat())
    }
}

impl ReaderStateRow {
    fn of(reader: &CStr, bytes: &[u8]) -> Option<Self> {
        let name = CStr::from_bytes_until_nul(bytes.get(..EVENT_COUNT)?).ok()?;
        if name != reader {
            return None;
        }
        let is_present = number(bytes, STATE)? & PRESENT != 0;
        let is_mute = is_present && number(bytes, ATR_LENGTH)? == 0;
        Some(Self { is_mute, event_count: number(bytes, EVENT_COUNT)? & 0xFFFF })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = READER;

    fn reader(name: &str, state: u32, event_count: u32, atr_length: u32) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(ROOM, 0);
        for (at, value) in [(EVENT_COUNT, event_count), (STATE, state), (ATR_LENGTH, atr_length)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_reader_is_found_by_its_whole_name() {
        let bytes = reader("Reader 00", PRESENT, 7, 0);
        assert_eq!(
            ReaderStateRow::of(c"Reader 00", &bytes),
            Some(ReaderStateRow { is_mute: true, event_count: 7 })
        );
        assert_eq!(ReaderStateRow::of(c"Reader 0", &bytes), None);
        assert_eq!(ReaderStateRow::of(c"Reader 001", &bytes), None);
        assert_eq!(ReaderStateRow::of(c"Reader 00", &[]), None);
    }

    #[test]
    fn a_card_is_mute_without_an_atr() {
        for (state, atr_length, is_mute) in
            [(PRESENT, 0, true), (PRESENT | 8, 0, true), (PRESENT, 17, false), (2, 0, false)]
        {
            let row = ReaderStateRow::of(c"R", &reader("R", state, 0, atr_length)).unwrap();
            assert_eq!(row.is_mute, is_mute, "{state} {atr_length}");
        }
    }

    #[test]
    fn a_connection_agrees_on_a_version_looks_waits_and_stops_waiting() {
        let (own, pcscd) = UnixStream::pair().unwrap();
        let mut connection = PcscdConnection(own);
        let mut pcscd = pcscd;
        let answers = [
            [4, 4, 0x8010_001E].map(u32::to_ne_bytes).concat(),
            [4, 4, 0].map(u32::to_ne_bytes).concat(),
            [reader("R", PRESENT, 3, 0), vec![0; 15 * READER]].concat(),
            [0_u32, 0].map(u32::to_ne_bytes).concat(),
        ];
        for answer in answers {
            pcscd.write_all(&answer).unwrap();
        }
        assert_eq!(connection.agree(5).unwrap(), (false, 4));
        assert_eq!(connection.agree(4).unwrap(), (true, 4));
        assert_eq!(connection.row(c"R").unwrap().unwrap().event_count, 3);
        connection.wait(Duration::from_secs(5)).unwrap();
        // Nothing rings: it stops waiting, and is answered that.
        let answering = std::thread::spawn(move || {
            let mut asked = vec![0; 20 + 20 + 8 + 8];
            pcscd.read_exact(&mut asked).unwrap();
            pcscd.write_all(&[0_u32, 0].map(u32::to_ne_bytes).concat()).unwrap();
            asked
        });
        connection.wait(Duration::from_millis(1)).unwrap();
        assert!(answering.join().unwrap().ends_with(&STOP_WAITING.to_ne_bytes()));
    }
}
