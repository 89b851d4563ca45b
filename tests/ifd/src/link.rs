//! The harness at the other end of the socket. All that is safe about this library is here.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Connects to the harness.
pub(crate) fn connect(role: Role, reader: u8, lun: u32) -> io::Result<UnixStream> {
    let path = env::var_os(SOCKET).ok_or(ErrorKind::NotFound)?;
    let mut stream = UnixStream::connect(path)?;
    let [a, b, c, d] = lun.to_le_bytes();
    stream.write_all(&[role as u8, reader, a, b, c, d])?;
    Ok(stream)
}

/// A reader that pcscd has opened.
#[derive(Debug)]
pub(crate) struct Channel {
    reader: u8,
    calls: Mutex<UnixStream>,
    events: UnixStream,
    closing: AtomicBool,
    atr: Mutex<Vec<u8>>,
}

static CHANNELS: Mutex<BTreeMap<u64, Arc<Channel>>> = Mutex::new(BTreeMap::new());

impl Channel {
    /// Opens a reader under this LUN.
    pub(crate) fn open(lun: u64, reader: u8) -> io::Result<()> {
        let short = u32::try_from(lun).map_err(io::Error::other)?;
        let channel = Self {
            reader,
            calls: Mutex::new(connect(Role::Calls, reader, short)?),
            events: connect(Role::Events, reader, short)?,
            closing: AtomicBool::new(false),
            atr: Mutex::default(),
        };
        lock(&CHANNELS).insert(lun, Arc::new(channel));
        Ok(())
    }

    /// The reader that was opened under this LUN.
    pub(crate) fn find(lun: u64) -> Option<Arc<Self>> {
        lock(&CHANNELS).get(&lun).cloned()
    }

    /// Closes a reader; a call that hangs in it ends.
    pub(crate) fn close(lun: u64) {
        if let Some(channel) = lock(&CHANNELS).remove(&lun) {
            channel.stop_waiting();
        }
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
            Ok(0) if !self.closing.load(Ordering::SeqCst) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends [`Self::wait`], for good.
    pub(crate) fn stop_waiting(&self) {
        self.closing.store(true, Ordering::SeqCst);
        drop(self.events.shutdown(Shutdown::Both));
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
