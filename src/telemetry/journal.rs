//! The journal's native protocol: the whole line in MESSAGE, and each value in a field.
//!
//! `tracing-journald` does not fit: its MESSAGE lacks the values, so `journalctl` would not show
//! reader or card; it does not escape hostile names, and blocks on a journal that hangs.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::escape_control_chars;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A journal that takes longer hangs. Lines are then dropped without a wait, until it accepts one.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// Longer values are cut, so that a line fits into one datagram.
const MAX_VALUE_BYTES: usize = 32 * 1024;

const PREFIX: &str = "CARDBRIDGE_";

#[derive(Debug)]
pub(super) struct Journal {
    blocking: UnixDatagram,
    nonblocking: UnixDatagram,
    /// Lines that were dropped since the journal last accepted one.
    dropped: AtomicU64,
}

impl Journal {
    pub(super) fn connect() -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(SOCKET)?;
        let (blocking, nonblocking) = (UnixDatagram::unbound()?, UnixDatagram::unbound()?);
        blocking.set_write_timeout(Some(SEND_TIMEOUT))?;
        nonblocking.set_nonblocking(true)?;
        Ok(Self { blocking, nonblocking, dropped: AtomicU64::new(0) })
    }

    /// Without a connection: the journal may be restarted.
    fn send(&self, line: &JournalEntry) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let socket = if dropped == 0 { &self.blocking } else { &self.nonblocking };
        match socket.send_to(line.datagram(dropped).as_bytes(), SOCKET) {
            Ok(_) => {
                self.dropped.fetch_sub(dropped, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            // There is no journal any more.
            Err(_) => drop(writeln!(io::stderr(), "{} {}", line.level, line.message(0))),
        }
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = JournalEntry::new(event.metadata());
        event.record(&mut line);
        self.send(&line);
    }
}

/// Whether standard error is the journal's stream, by `JOURNAL_STREAM` (systemd.exec(5)).
pub(super) fn is_on_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let is = file.and_then(|file| file.metadata());
    is.is_ok_and(|is| stream == format!("{}:{}", is.dev(), is.ino()))
}

#[derive(Debug)]
struct JournalEntry {
    level: Level,
    target: &'static str,
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl JournalEntry {
    fn new(metadata: &'static Metadata<'static>) -> Self {
        Self {
            level: *metadata.level(),
            target: metadata.target(),
            message: String::new(),
            fields: Vec::new(),
        }
    }

    fn add(&mut self, field: &Field, value: &str) {
        let cut = value.floor_char_boundary(MAX_VALUE_BYTES);
        let (shown, rest) = value.split_at(cut);
        let mut shown = escape_control_chars(shown).into_owned();
        if !rest.is_empty() {
            shown.push('…');
        }
        match field.name() {
            "message" => self.message = shown,
            name => self.fields.push((name, shown)),
        }
    }

    /// The line as text.
    fn message(&self, dropped: u64) -> String {
        let mut message = self.message.clone();
        if dropped > 0 {
            let _infallible = write!(message, " (after {dropped} lines that the journal dropped)");
        }
        for (name, value) in &self.fields {
            let _infallible = write!(message, " {name}={value}");
        }
        message.truncate(message.floor_char_boundary(MAX_VALUE_BYTES));
        message
    }

    /// The line in the protocol. No value has a line break: [`escape_control_chars`] escapes them.
    fn datagram(&self, dropped: u64) -> String {
        let mut datagram = format!(
            "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=cardbridge\n{PREFIX}TARGET={}\n",
            self.message(dropped),
            priority(self.level),
            self.target,
        );
        for (name, value) in &self.fields {
            let _infallible = writeln!(datagram, "{PREFIX}{}={value}", field_name(name));
        }
        if dropped > 0 {
            let _infallible = writeln!(datagram, "{PREFIX}DROPPED_LINES={dropped}");
        }
        datagram
    }
}

impl Visit for JournalEntry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// The syslog priority.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The journal accepts capitals, digits and underscores, and drops other fields.
fn field_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).take(64 - PREFIX.len()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn line() -> JournalEntry {
        JournalEntry {
            level: Level::WARN,
            target: "cardbridge::app",
            message: "Card inserted".into(),
            fields: vec![("reader", "A 00".into()), ("at.x", "1".into())],
        }
    }

    #[test]
    fn line_has_message_and_fields() {
        assert_eq!(
            line().datagram(0),
            "MESSAGE=Card inserted reader=A 00 at.x=1\nPRIORITY=4\nSYSLOG_IDENTIFIER=cardbridge\n\
             CARDBRIDGE_TARGET=cardbridge::app\nCARDBRIDGE_READER=A 00\nCARDBRIDGE_AT_X=1\n"
        );
        let after = line().datagram(7);
        assert!(after.starts_with("MESSAGE=Card inserted (after 7 lines that"), "{after}");
        assert!(after.ends_with("CARDBRIDGE_DROPPED_LINES=7\n"), "{after}");
    }

    /// Keeps the datagrams instead of sending them.
    struct Catch(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Catch {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = JournalEntry::new(event.metadata());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.datagram(0));
        }
    }

    #[test]
    fn hostile_name_adds_no_field_and_line_fits_a_datagram() {
        let caught = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Catch(Arc::clone(&caught)));
        let long = "€".repeat(100_000);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(reader = %"A\nPRIORITY=0", absent = None::<u8>, long, "Card inserted");
        });
        let datagram = caught.lock().unwrap().pop().unwrap();
        assert_eq!(datagram.matches("\nPRIORITY=").count(), 1, "{datagram:.200}");
        assert!(datagram.contains("\nCARDBRIDGE_READER=A\\u{a}PRIORITY=0\n"), "{datagram:.200}");
        assert!(!datagram.contains("ABSENT"), "{datagram:.200}");
        assert!(datagram.len() < 3 * MAX_VALUE_BYTES, "{}", datagram.len());
    }

    #[test]
    fn level_is_the_syslog_priority() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }

    #[test]
    fn field_names_are_accepted_by_the_journal() {
        assert_eq!(field_name("http.status-code"), "HTTP_STATUS_CODE");
        assert_eq!(PREFIX.len() + field_name(&"x".repeat(100)).len(), 64);
    }
}
