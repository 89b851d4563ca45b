//! Notifications for systemd: `sd_notify(3)`.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A datagram that systemd does not accept within
//! [`SEND_TIMEOUT`] is dropped: a manager that hangs must not delay a card.
//!
//! The crate `sd-notify` reads the socket from the environment, which tests cannot set safely in a
//! program with threads.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::escape_control_chars;

const SEND_TIMEOUT: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotifyState<'a> {
    /// The daemon runs, or has reloaded its configuration.
    Ready,
    Reloading,
    Stopping,
    /// The state on one line.
    Status(&'a str),
    Watchdog,
}

/// The socket of the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
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

    /// The socket is written as in `NOTIFY_SOCKET`.
    pub(crate) fn new(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        // An @ is the zero byte of an abstract name.
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// The interval in which the manager expects [`NotifyState::Watchdog`].
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends the states in one datagram.
    pub(crate) fn notify(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else { return };
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
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
            Self::Status(text) => write!(f, "STATUS={}", escape_control_chars(text)),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
        }
    }
}

/// systemd's clock.
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
    fn states_are_sent_in_one_datagram() {
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
    fn abstract_socket_is_supported() {
        let name = format!("cardbridge-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.notify(&[NotifyState::Stopping]);
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn reload_has_the_monotonic_time() {
        let state = NotifyState::Reloading.to_string();
        let usec: u128 =
            state.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(usec > 0 && usec <= monotonic().as_micros());
    }

    #[test]
    fn hanging_manager_delays_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.as_os_str(), None).unwrap();
        let began = std::time::Instant::now();
        let full = (0..100_000).any(|_| {
            let before = began.elapsed();
            notifier.notify(&[NotifyState::Watchdog]);
            began.elapsed().saturating_sub(before) >= SEND_TIMEOUT
        });
        assert!(full, "the queue never filled");
        assert!(began.elapsed() < 20 * SEND_TIMEOUT, "{:?}", began.elapsed());
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        let notifier = Notifier::default();
        assert!(!notifier.is_connected());
        notifier.notify(&[NotifyState::Ready]);
    }
}
