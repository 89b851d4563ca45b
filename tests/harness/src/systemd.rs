//! systemd's ends of what a service says: the service manager's socket, and the journal's.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Longer than any datagram that a service sends.
const LARGEST: usize = 1 << 20;

/// How often a listener checks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

type Received = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// A Unix datagram socket that keeps what it is sent, with the moment.
#[derive(Debug)]
struct Listener {
    path: PathBuf,
    received: Received,
    over: Arc<AtomicBool>,
}

impl Listener {
    fn bind(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        // Whatever user the service runs as.
        fs::set_permissions(path, Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(LOOK))?;
        let listener =
            Self { path: path.to_owned(), received: Received::default(), over: Arc::default() };
        let (received, over) = (Arc::clone(&listener.received), Arc::clone(&listener.over));
        thread::spawn(move || {
            let mut buffer = vec![0; LARGEST];
            while !over.load(Ordering::SeqCst) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
                received.push((Instant::now(), datagram));
            }
        });
        Ok(listener)
    }

    fn received(&self) -> Vec<(Instant, Vec<u8>)> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// The service manager's socket, for `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct NotifySocket(Listener);

impl NotifySocket {
    /// Listens at this path.
    pub fn bind(path: &Path) -> Result<Self> {
        Listener::bind(path).map(Self)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Every line of every datagram so far, with the moment it came.
    #[must_use]
    pub fn news(&self) -> Vec<(Instant, String)> {
        let lines = |(at, datagram): (Instant, Vec<u8>)| {
            let text = String::from_utf8_lossy(&datagram).into_owned();
            text.lines().map(|line| (at, line.to_owned())).collect::<Vec<_>>()
        };
        self.0.received().into_iter().flat_map(lines).collect()
    }

    /// When lines like this came.
    #[must_use]
    pub fn moments(&self, line: &str) -> Vec<Instant> {
        self.news().into_iter().filter(|(_, own)| own == line).map(|(at, _)| at).collect()
    }

    /// What the service last said of itself.
    #[must_use]
    pub fn status(&self) -> String {
        let status = |(_, line): (Instant, String)| Some(line.strip_prefix("STATUS=")?.to_owned());
        self.news().into_iter().rev().find_map(status).unwrap_or_default()
    }
}

/// One entry of the journal, a value a field.
pub type JournalEntry = BTreeMap<String, String>;

/// The journal's native socket.
#[derive(Debug)]
pub struct JournalSocket(Listener);

impl JournalSocket {
    /// Listens at this path.
    pub fn bind(path: &Path) -> Result<Self> {
        Listener::bind(path).map(Self)
    }

    /// Every entry so far; one that breaks the protocol is an error.
    pub fn entries(&self) -> Result<Vec<JournalEntry>> {
        self.0.received().iter().map(|(_, datagram)| parse(datagram)).collect()
    }
}

/// An entry is a row of fields: `NAME=value\n`, or `NAME\n`, the length in 64 bits, the value and
/// `\n`.
fn parse(mut bytes: &[u8]) -> Result<JournalEntry> {
    let mut entry = JournalEntry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("a field without an end")?;
        let (line, rest) = bytes.split_at(end);
        let rest = rest.get(1..).unwrap_or_default();
        let (name, value) = if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            let (name, value) = line.split_at(equals);
            bytes = rest;
            (name, value.get(1..).unwrap_or_default())
        } else {
            let (length, rest) = rest.split_first_chunk::<8>().context("a field without length")?;
            let length = usize::try_from(u64::from_le_bytes(*length))?;
            let (value, rest) = rest.split_at_checked(length).context("a field that is cut off")?;
            bytes = rest.strip_prefix(b"\n").context("a field without an end")?;
            (line, value)
        };
        let name = String::from_utf8(name.to_vec())?;
        let fine = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let starts = name.starts_with(|c: char| c.is_ascii_uppercase());
        // journald drops fields with other names silently.
        anyhow::ensure!(starts && name.chars().all(fine) && name.len() <= 64, "{name:?}");
        entry.insert(name, String::from_utf8(value.to_vec())?);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_fields_parse_in_both_forms() {
        let entry = parse(b"A=1=2\nB_C\n\x03\0\0\0\0\0\0\0x\ny\nD=\n").unwrap();
        let fields: Vec<_> = entry.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(fields, ["A:1=2", "B_C:x\ny", "D:"]);
        for broken in [&b"A=1"[..], b"a=1\n", b"A\n\x09\0\0\0\0\0\0\0x\n", b"_A=1\n"] {
            assert!(parse(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
