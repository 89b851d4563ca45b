//! Mute cards, each watched by a thread.
//!
//! Each poll of a mute card, and each start of a wait for one, takes the library 400 ms, and delays every
//! other reader in the same call; from 2.0.3 on under a lock that every thread of the process needs. So
//! the monitor leaves such a reader to a thread with a context of its own. That waits with pcscd's table
//! of readers, which comes at once, polls where the table changed, and cancels the monitor's wait.
//!
//! The table is read without the library: requests and structures are those of pcsc-lite's
//! `src/winscard_msg.h` and `src/eventhandler.h`, in the machine's byte order, the same in versions 4:4 and
//! 4:5 of the protocol. A pcscd of 4:6 accepts a client of 4:5.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcsc::Error;
use tracing::debug;

use crate::domain::ReaderName;

use super::context::PcscContext;
use super::pcscd_process::socket_path;
use super::shared_state::SharedState;
use super::status_change::{PolledReader, pcsc_name, poll_one, wait};
use super::thread::{CancelToken, ReaderThread};

/// How long one wait may take. pcscd reports insertions and removals, unless the card's count is 0, as for
/// one that was there before pcscd; it does not report another program that gets the card to answer.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// After this time the monitor itself polls a reader that no thread can watch.
const FALLBACK_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the monitor's wait is cancelled until it took the report.
const WAKE_INTERVAL: Duration = Duration::from_millis(20);

/// After this time pcscd hangs; its responses take less than a millisecond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The readers that the monitor need not poll.
pub(super) struct MuteWatchers {
    shared: Arc<SharedState>,
    watched: BTreeMap<ReaderName, (ReaderThread, WatcherMailbox)>,
}

/// The report of a watcher. Clones are the same.
#[derive(Clone, Default)]
struct WatcherMailbox(Arc<Mutex<WatcherReport>>);

#[derive(Default)]
enum WatcherReport {
    #[default]
    Nothing,
    Polled(PolledReader),
    CannotWatch,
}

impl MuteWatchers {
    pub(super) const fn new(shared: Arc<SharedState>) -> Self {
        Self { shared, watched: BTreeMap::new() }
    }

    pub(super) fn is_watched(&self, reader: &ReaderName) -> bool {
        self.watched.contains_key(reader)
    }

    /// Leaves a reader to a thread, which starts from the last poll and reads pcscd's table by this minor
    /// version of the protocol.
    pub(super) fn watch(&mut self, polled: PolledReader, minor: u32) -> io::Result<()> {
        let reader = polled.snapshot.reader.clone();
        let mailbox = WatcherMailbox::default();
        let worker = ReaderThread::spawn("pcsc-mute", {
            let (shared, reader, mailbox) =
                (Arc::clone(&self.shared), reader.clone(), mailbox.clone());
            move |halt| {
                let post = |report| mailbox.post(report, &shared, &halt);
                if let Err(error) = watch(polled, minor, &halt, &post) {
                    debug!(%reader, error = %shared.count(error), "Mute-card watcher failed");
                    // An unknown reader was disconnected, and may be back already.
                    if error != Error::UnknownReader {
                        halt.wait_timeout(FALLBACK_POLL_INTERVAL);
                    }
                    post(WatcherReport::CannotWatch);
                }
            }
        })?;
        if let Some((former, _)) = self.watched.insert(reader, (worker, mailbox)) {
            former.cancel();
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, present: &[ReaderName]) {
        self.retain(|reader, report| {
            present.contains(reader) && !matches!(report, WatcherReport::CannotWatch)
        });
    }

    /// What the threads polled. The monitor itself polls readers again that hold no mute card any more.
    pub(super) fn take(&mut self) -> Vec<PolledReader> {
        let mut all = Vec::new();
        self.retain(|_, report| match std::mem::take(report) {
            WatcherReport::Polled(polled) => {
                let is_mute = polled.is_mute();
                all.push(polled);
                is_mute
            }
            other @ (WatcherReport::Nothing | WatcherReport::CannotWatch) => {
                *report = other;
                true
            }
        });
        all
    }

    fn retain(&mut self, mut keep: impl FnMut(&ReaderName, &mut WatcherReport) -> bool) {
        self.watched.retain(|reader, (worker, mailbox)| {
            let is_kept = keep(reader, &mut mailbox.lock());
            if !is_kept {
                worker.cancel();
            }
            is_kept
        });
    }
}

impl Drop for MuteWatchers {
    fn drop(&mut self) {
        self.watched.values().for_each(|(worker, _)| worker.cancel());
    }
}

impl WatcherMailbox {
    /// Posts a report, and cancels the monitor's wait until it took the report.
    fn post(&self, report: WatcherReport, shared: &SharedState, halt: &CancelToken) {
        *self.lock() = report;
        while !halt.is_cancelled() && !matches!(*self.lock(), WatcherReport::Nothing) {
            shared.cancel_wait();
            halt.wait_timeout(WAKE_INTERVAL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, WatcherReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits, polls and posts what changed, until the card in the reader answers or is gone.
fn watch(
    mut known: PolledReader,
    minor: u32,
    halt: &CancelToken,
    post: &impl Fn(WatcherReport),
) -> Result<(), Error> {
    let context = PcscContext::establish()?;
    let mut table = PcscdConnection::open(minor).ok();
    let mut row = Some(ReaderStateRow { is_mute: true, event_count: known.snapshot.event_count });
    while !halt.is_cancelled() && known.is_mute() {
        let reader = &known.snapshot.reader;
        match table.as_mut().map(|table| table.wait_for_change(&pcsc_name(reader), &mut row)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => continue,
            Some(Err(error)) => {
                debug!(%reader, %error, "pcscd's table cannot be read");
                table = None;
                continue;
            }
            None => drop(wait(&context, &mut [known.expected()], WAIT_TIMEOUT)?),
        }
        let polled = poll_one(&context, reader)?;
        if polled.snapshot != known.snapshot {
            post(WatcherReport::Polled(polled.clone()));
        }
        known = polled;
    }
    Ok(())
}

const VERSION: u32 = 0x11;
const WAIT: u32 = 0x13;
const STOP_WAITING: u32 = 0x14;

const MAJOR: u32 = 4;
const MINORS: std::ops::RangeInclusive<u32> = 4..=5;

/// The number of rows in the table, used or not, and the bytes of each.
const ROWS: usize = 16;
const ROW: usize = 184;

/// Offsets in a row. The reader's name comes first, with a NUL at its end.
const EVENT_COUNT: usize = 128;
const STATE: usize = 132;
const ATR_LENGTH: usize = 176;

const PRESENT: u32 = 4;

/// A connection to pcscd without the library.
#[derive(Debug)]
struct PcscdConnection(UnixStream);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReaderStateRow {
    is_mute: bool,
    /// The count of insertions and removals, modulo 65536.
    event_count: u32,
}

impl PcscdConnection {
    /// Connects, and requests this version first. Fails where pcscd has none of [`MINORS`].
    fn open(minor: u32) -> io::Result<Self> {
        let stream = UnixStream::connect(socket_path())?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        let mut connection = Self(stream);
        // pcscd answers with its own version, and logs that another one was requested.
        let (is_accepted, own) = connection.request_version(minor)?;
        if is_accepted || MINORS.contains(&own) && connection.request_version(own)?.0 {
            return Ok(connection);
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether pcscd accepts a client of this version, and pcscd's own.
    fn request_version(&mut self, minor: u32) -> io::Result<(bool, u32)> {
        self.0.write_all(&[12, VERSION, MAJOR, minor, 0].map(u32::to_ne_bytes).concat())?;
        let mut response = [0; 12];
        self.0.read_exact(&mut response)?;
        let own = number(&response, 4).filter(|_| number(&response, 0) == Some(MAJOR));
        Ok((number(&response, 8) == Some(0), own.unwrap_or(0)))
    }

    /// Whether a reader's row is other than before, so that a poll is due; if not, waits for a change.
    fn wait_for_change(
        &mut self,
        reader: &CStr,
        before: &mut Option<ReaderStateRow>,
    ) -> io::Result<bool> {
        let row = self.row(reader)?;
        let is_due = row != *before;
        *before = row;
        if is_due {
            self.stop_waiting()?;
        } else {
            self.wait(WAIT_TIMEOUT)?;
        }
        Ok(is_due)
    }

    /// A reader's row. From here on pcscd notes each event, for [`Self::wait`] or
    /// [`Self::stop_waiting`], one of which must follow.
    fn row(&mut self, reader: &CStr) -> io::Result<Option<ReaderStateRow>> {
        self.request(WAIT)?;
        let mut table = vec![0; ROWS * ROW];
        self.0.read_exact(&mut table)?;
        Ok(table.chunks_exact(ROW).find_map(|bytes| ReaderStateRow::of(reader, bytes)))
    }

    /// Waits for the next event since [`Self::row`].
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(timeout))?;
        let waited = self.0.read_exact(&mut [0; 8]);
        self.0.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        match waited {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stop_waiting(),
            other => other,
        }
    }

    fn stop_waiting(&mut self) -> io::Result<()> {
        // Either this is answered, or an event came just before it; not both.
        self.request(STOP_WAITING)?;
        self.0.read_exact(&mut [0; 8])
    }

    fn request(&mut self, command: u32) -> io::Result<()> {
        self.0.write_all(&[0, command].map(u32::to_ne_bytes).concat())
    }
}

impl ReaderStateRow {
    fn of(reader: &CStr, bytes: &[u8]) -> Option<Self> {
        let name = CStr::from_bytes_until_nul(bytes.get(..EVENT_COUNT)?).ok()?;
        let is_present = number(bytes, STATE)? & PRESENT != 0;
        let is_mute = is_present && number(bytes, ATR_LENGTH)? == 0;
        let event_count = number(bytes, EVENT_COUNT)? & 0xFFFF;
        (name == reader).then_some(Self { is_mute, event_count })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = ROW;

    fn reader(name: &str, state: u32, event_count: u32, atr_length: u32) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(SIZE, 0);
        for (at, value) in [(EVENT_COUNT, event_count), (STATE, state), (ATR_LENGTH, atr_length)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn reader_row_matches_whole_name() {
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
    fn card_without_atr_is_mute() {
        for (state, atr_length, is_mute) in
            [(PRESENT, 0, true), (PRESENT | 8, 0, true), (PRESENT, 17, false), (2, 0, false)]
        {
            let row = ReaderStateRow::of(c"R", &reader("R", state, 0, atr_length)).unwrap();
            assert_eq!(row.is_mute, is_mute, "{state} {atr_length}");
        }
    }

    #[test]
    fn pcscd_connection_requests_version_row_and_wait() {
        let (own, pcscd) = UnixStream::pair().unwrap();
        let mut connection = PcscdConnection(own);
        let mut pcscd = pcscd;
        let answers = [
            [4, 4, 0x8010_001E].map(u32::to_ne_bytes).concat(),
            [4, 4, 0].map(u32::to_ne_bytes).concat(),
            [reader("R", PRESENT, 3, 0), vec![0; 15 * ROW]].concat(),
            [0_u32, 0].map(u32::to_ne_bytes).concat(),
        ];
        for answer in answers {
            pcscd.write_all(&answer).unwrap();
        }
        assert_eq!(connection.request_version(5).unwrap(), (false, 4));
        assert_eq!(connection.request_version(4).unwrap(), (true, 4));
        assert_eq!(connection.row(c"R").unwrap().unwrap().event_count, 3);
        connection.wait(Duration::from_secs(5)).unwrap();
        // Without an event it stops waiting.
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
