//! A pcscd of the test's own, with readers of its own and a socket of its own.
//!
//! Clients find it through `PCSCLITE_CSOCK_NAME` set to
//! [`Pcscd::socket_path`]; the machine's own pcscd, its USB readers and
//! `/run/pcscd` are never touched. [`Double`] says what is real about it.

mod bus;
mod private;
mod relay;
mod vpcd;

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::cards::{Card, Faults, InsertedCard};
use crate::netns::Namespace;
use crate::process::{hold_pid, wait_until};

use bus::Bus;
use private::Private;
pub use private::{available, has_polkit};
pub use relay::{Counts, Relay, Request, Trouble, code};
pub use vpcd::FIRST_PORT;
use vpcd::Vpcd;

/// pcscd drops what goes beyond 16 readers silently.
const MOST_READERS: usize = 16;

/// pcscd answers at once; this is for busy machines.
const LIMIT: Duration = Duration::from_secs(10);

/// What stands in for readers, and for pcscd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Double {
    /// The real pcscd with vsmartcard's driver, which polls for cards every
    /// 400 ms. Readers can do nothing but take cards.
    #[default]
    Vpcd,
    /// The real pcscd with a driver and a USB bus of our own: events in less
    /// than a millisecond; readers are plugged and unplugged, and break down.
    Ifd,
    /// The same, behind a relay that can do what no pcscd does when it is asked to.
    Relay,
}

/// How a pcscd is set up.
#[derive(Clone, Copy, Debug)]
pub struct PcscdOptions {
    /// Number of readers, at most 16; with vpcd rounded up to an even number,
    /// because every virtual device has two slots.
    pub readers: usize,
    /// What is real.
    pub double: Double,
    /// Whether a pcscd that was built with polkit asks it who may come in. It does not where the
    /// harness can keep it from that.
    pub polkit: bool,
}

impl Default for PcscdOptions {
    fn default() -> Self {
        Self { readers: 2, double: Double::default(), polkit: false }
    }
}

/// Readers, of whatever kind.
trait Readers: fmt::Debug + Send + Sync {
    /// Their PC/SC names, by index.
    fn names(&self) -> Vec<String>;

    /// Whether the pcscd with this process id has all that are there.
    fn are_ready(&self, pid: u32) -> bool;

    /// Inserts a card into a reader that exists.
    fn insert(&self, reader: usize, card: Box<dyn Card>, faults: Faults) -> Result<InsertedCard>;

    /// What can be done to a reader besides.
    fn treat(&self, reader: usize, treatment: Treatment) -> Result<()>;
}

/// What can be done to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Unplug,
    Plug,
    Dropped,
    BreakDown,
    Repair,
}

/// A running pcscd; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Pcscd {
    // Ended in this order: the readers are still there when pcscd goes.
    daemon: Private,
    relay: Option<Relay>,
    readers: Box<dyn Readers>,
    dir: TempDir,
}

impl Pcscd {
    /// Starts a pcscd and waits until it takes clients and cards.
    pub fn start(options: PcscdOptions) -> Result<Self> {
        ensure!(options.readers <= MOST_READERS, "pcscd has room for 16 readers");
        let dir = tempfile::Builder::new().prefix("cb-").tempdir()?;
        // An agent that runs as another user passes through it to the socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        let mut daemon = Private::prepare(dir.path(), options.polkit)?;
        let relay = (options.double == Double::Relay)
            .then(|| Relay::prepare(dir.path(), private::socket(dir.path())))
            .transpose()?;
        let readers: Box<dyn Readers> = match options.double {
            Double::Vpcd => {
                Box::new(Vpcd::prepare(dir.path(), options.readers, daemon.namespace())?)
            }
            Double::Ifd | Double::Relay => {
                let readers = Bus::prepare(dir.path(), options.readers)?;
                daemon.preload(readers.driver(), readers.environment());
                Box::new(readers)
            }
        };
        let mut pcscd = Self { daemon, relay, readers, dir };
        // libpcsclite cuts a longer path silently and then finds nothing.
        let length = pcscd.socket_path().as_os_str().len();
        ensure!(length < 108, "the socket's path is too long; set TMPDIR");
        pcscd.restart()?;
        Ok(pcscd)
    }

    /// The socket for `PCSCLITE_CSOCK_NAME`.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.relay.as_ref().map_or_else(|| self.own_socket_path(), Relay::socket)
    }

    /// The socket of pcscd itself, where there is a relay before it.
    #[must_use]
    pub fn own_socket_path(&self) -> PathBuf {
        private::socket(self.dir.path())
    }

    /// The PC/SC names of the readers, by index. A reader that is plugged in
    /// again may get another one.
    #[must_use]
    pub fn reader_names(&self) -> Vec<String> {
        self.readers.names()
    }

    /// The process id, while there is a process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The network namespace of vpcd's readers.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.daemon.namespace()
    }

    /// The relay before pcscd.
    pub fn relay(&self) -> Result<&Relay> {
        self.relay.as_ref().context("there is no relay before this pcscd")
    }

    /// Inserts a card into a reader.
    pub fn insert(&self, reader: usize, card: impl Card + 'static) -> Result<InsertedCard> {
        self.insert_with(reader, card, Faults::default())
    }

    /// Inserts a card that has faults from the first moment on.
    pub fn insert_with(
        &self,
        reader: usize,
        card: impl Card + 'static,
        faults: Faults,
    ) -> Result<InsertedCard> {
        self.readers.insert(reader, Box::new(card), faults)
    }

    /// Pulls a reader's plug, with whatever is in it; not with vpcd.
    pub fn unplug(&self, reader: usize) -> Result<()> {
        self.readers.treat(reader, Treatment::Unplug)
    }

    /// Plugs a reader in again.
    pub fn plug(&self, reader: usize) -> Result<()> {
        self.readers.treat(reader, Treatment::Plug)
    }

    /// pcscd dropped the reader when it was plugged in, and will not take it any more.
    pub fn dropped(&self, reader: usize) -> Result<()> {
        self.readers.treat(reader, Treatment::Dropped)
    }

    /// Waits until pcscd has every reader that is plugged in.
    pub fn wait_ready(&self) -> Result<()> {
        let pid = self.pid().unwrap_or(0);
        wait_until("pcscd has its readers", LIMIT, || self.readers.are_ready(pid))
    }

    /// From here on the reader's driver reports an error; not with vpcd.
    pub fn break_down(&self, reader: usize) -> Result<()> {
        self.readers.treat(reader, Treatment::BreakDown)
    }

    /// Ends that.
    pub fn repair(&self, reader: usize) -> Result<()> {
        self.readers.treat(reader, Treatment::Repair)
    }

    /// Ends pcscd with SIGKILL: its socket file remains, as in a crash.
    pub fn kill9(&mut self) -> Result<()> {
        self.daemon.kill9()?;
        self.relay.iter().try_for_each(|relay| relay.die(false))
    }

    /// Ends pcscd with SIGTERM, so that it removes its socket file.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop()?;
        self.relay.iter().try_for_each(|relay| relay.die(true))
    }

    /// Starts pcscd again on the same socket, killing it first where it still
    /// runs; inserted cards come back in their readers by themselves.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        let readers = &self.readers;
        self.daemon.launch(|pid| readers.are_ready(pid))?;
        self.relay.iter().try_for_each(Relay::come_back)
    }

    /// Freezes pcscd (SIGSTOP): its clients hang.
    pub fn freeze(&self) -> Result<()> {
        hold_pid(self.daemon.pid().context("pcscd does not run")?)
    }

    /// Lets a frozen pcscd go on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        self.daemon.signal(Signal::CONT)
    }

    /// What pcscd has printed, or has been asked.
    #[must_use]
    pub fn log(&self) -> String {
        let requests = self.relay.as_ref().map(Relay::requests).unwrap_or_default();
        format!("{}{requests:?}", self.daemon.log())
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        drop(self.kill9());
    }
}
