//! The harness at the other end of the socket. All that is safe about this library is here.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The variable that names the harness' socket.
pub(crate) const SOCKET: &str = "CARDBRIDGE_IFD_SOCKET";

/// Longer than any answer of a card.
const LONGEST: usize = 1 << 17;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Bus = b'U' as isize,
    Calls = b'C' as isize,
    Events = b'E' as isize,
    Wake = b'W' as isize,
}

/// What is wanted of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    Presence = b'P' as isize,
    PowerUp = b'U' as isize,
    PowerDown = b'D' as isize,
    Reset = b'R' as isize,
    Transmit = b'T' as isize,
    Protocol = b'N' as isize,
}

/// Connects to the harness; the connections of one opened reader have one number of their own.
pub(crate) fn connect(role: Role, reader: u8, lun: u32, opening: u32) -> io::Result<UnixStream> {
    let path = env::var_os(SOCKET).ok_or(ErrorKind::NotFound)?;
    let mut stream = UnixStream::connect(path)?;
    let mut hello = vec![role as u8, reader];
    hello.extend(lun.to_le_bytes());
    hello.extend(opening.to_le_bytes());
    stream.write_all(&hello)?;
    Ok(stream)
}

/// A number that no other opening has, in this process and in those before it.
fn next_opening() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    process::id().wrapping_shl(12) | (COUNT.fetch_add(1, Ordering::SeqCst) & 0xFFF)
}

/// A reader that pcscd has opened.
#[derive(Debug)]
pub(crate) struct Channel {
    reader: u8,
    calls: Mutex<UnixStream>,
    events: UnixStream,
    opening: u32,
    atr: Mutex<Vec<u8>>,
}

static CHANNELS: Mutex<BTreeMap<u64, Arc<Channel>>> = Mutex::new(BTreeMap::new());

impl Channel {
    /// Opens a reader under this LUN.
    pub(crate) fn open(lun: u64, reader: u8) -> io::Result<()> {
        let (short, opening) = (u32::try_from(lun).map_err(io::Error::other)?, next_opening());
        let channel = Self {
            reader,
            calls: Mutex::new(connect(Role::Calls, reader, short, opening)?),
            events: connect(Role::Events, reader, short, opening)?,
            opening,
            atr: Mutex::default(),
        };
        lock(&CHANNELS).insert(lun, Arc::new(channel));
        Ok(())
    }

    /// The reader that was opened under this LUN.
    pub(crate) fn find(lun: u64) -> Option<Arc<Self>> {
        lock(&CHANNELS).get(&lun).cloned()
    }

    /// Closes a reader.
    pub(crate) fn close(lun: u64) {
        drop(lock(&CHANNELS).remove(&lun));
    }

    /// The reader's number.
    pub(crate) const fn reader(&self) -> u8 {
        self.reader
    }

    /// The ATR of the last power-up.
    pub(crate) fn atr(&self) -> Vec<u8> {
        lock(&self.atr).clone()
    }

    /// Keeps the ATR of a power-up.
    pub(crate) fn keep_atr(&self, atr: &[u8]) {
        *lock(&self.atr) = atr.to_vec();
    }

    /// Asks the harness, for as long as it takes to answer.
    pub(crate) fn call(&self, want: Want, data: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut stream = lock(&self.calls);
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let mut request = vec![want as u8];
        request.extend(length.to_le_bytes());
        request.extend(data);
        stream.write_all(&request)?;
        let code = number(&mut stream)?;
        let length = usize::try_from(number(&mut stream)?).map_err(io::Error::other)?;
        if length > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok((code, answer))
    }

    /// Waits for a change in the reader, or for the time to be over.
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<()> {
        self.events.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match (&self.events).read(&mut [0; 64]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends one [`Self::wait`], the next one if there is none: pcscd does this whenever a program
    /// lets go of a card, and when it closes the reader. The harness sends what wakes it.
    pub(crate) fn stop_waiting(&self) {
        if connect(Role::Wake, self.reader, 0, self.opening).is_err() {
            // Nothing will wake it any more.
            drop(self.events.shutdown(Shutdown::Both));
        }
    }
}

fn number(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
