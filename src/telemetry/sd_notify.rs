//! Word to the service manager, as `sd_notify(3)` has it: one datagram for each piece of news.
//!
//! Without `NOTIFY_SOCKET` nobody listens, and nothing is sent. News that the manager does not
//! take within [`PATIENCE`] are dropped: a manager that hangs must not hold up a card.
//!
//! Our own and no crate's: the socket is a parameter, so that tests need not write to the
//! environment, which in a program with threads nothing makes safe.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::escape_control_chars;

/// How long the manager may take to take a datagram.
const PATIENCE: Duration = Duration::from_millis(250);

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotifyState<'a> {
    /// The daemon works, also: it has read its configuration again.
    Ready,
    /// The daemon reads its configuration again.
    Reloading,
    /// The daemon ends.
    Stopping,
    /// How it is, in words, on one line.
    Status(&'a str),
    /// The loop turns.
    Watchdog,
}

/// Where the service manager listens, if it does.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that started this process, as the environment tells.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let usec = number("WATCHDOG_USEC");
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = usec.filter(|usec| for_us && *usec > 0).map(Duration::from_micros);
        Self::new(&socket, watchdog).unwrap_or_else(|error| {
            tracing::warn!(%error, "sd_notify socket unavailable");
            Self::default()
        })
    }

    /// A manager that listens at this socket, as `NOTIFY_SOCKET` would name it.
    pub(crate) fn new(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        // An @ stands for the zero byte of an abstract name.
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    /// Whether somebody listens.
    #[must_use]
    pub(crate) const fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Within which time the manager wants to hear [`NotifyState::Watchdog`], if it does.
    #[must_use]
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells the news, all in one datagram.
    pub(crate) fn notify(&self, news: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else { return };
        let lines: Vec<_> = news.iter().map(ToString::to_string).collect();
        if let Err(error) = socket.send_to_addr(lines.join("\n").as_bytes(), address) {
            tracing::warn!(%error, "sd_notify message not delivered");
        }
    }
}

impl fmt::Display for NotifyState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Reloading => {
                write!(f, "RELOADING=1\nMONOTONIC_USEC={}", monotonic().as_micros())
            }
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::Status(words) => write!(f, "STATUS={}", escape_control_chars(words)),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
        }
    }
}

/// The clock that the manager goes by.
fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn news_go_out_in_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.as_os_str(), None).unwrap();
        notifier.notify(&[
            NotifyState::Ready,
            NotifyState::Status("2 readers\nREADY=1"),
            NotifyState::Watchdog,
        ]);
        assert_eq!(received(&manager), "READY=1\nSTATUS=2 readers\\u{a}READY=1\nWATCHDOG=1");
    }

    #[test]
    fn a_manager_with_an_abstract_socket_is_told_too() {
        let name = format!("cardbridge-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.notify(&[NotifyState::Stopping]);
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn a_reload_carries_the_managers_clock() {
        let told = NotifyState::Reloading.to_string();
        let usec: u128 =
            told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(usec > 0 && usec <= monotonic().as_micros());
    }

    #[test]
    fn a_manager_that_hangs_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.as_os_str(), None).unwrap();
        let began = std::time::Instant::now();
        let full = (0..100_000).any(|_| {
            let before = began.elapsed();
            notifier.notify(&[NotifyState::Watchdog]);
            began.elapsed().saturating_sub(before) >= PATIENCE
        });
        assert!(full, "the queue never filled");
        assert!(began.elapsed() < 20 * PATIENCE, "{:?}", began.elapsed());
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        let nobody = Notifier::default();
        assert!(!nobody.is_connected());
        nobody.notify(&[NotifyState::Ready]);
    }
}
