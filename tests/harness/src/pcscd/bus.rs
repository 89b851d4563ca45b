//! Readers of our own driver on a USB bus of our own (`tests/ifd`): pcscd is
//! real, libpcsclite is real, and what the readers do is decided here.
//!
//! A reader keeps its number and its card over everything: unplugged, it waits
//! with its card for being plugged in; a pcscd that is started again finds all
//! as it was.

mod reader;
mod serve;

use std::fs;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Readers, Treatment};
use crate::cards::{Card, Contact, Faults, InsertedCard};

use reader::{InReader, Reader};

/// Where the driver finds our socket.
const SOCKET: &str = "CARDBRIDGE_IFD_SOCKET";

/// Where cargo puts the driver, beside the program that uses it.
const DRIVER: &str = "libcardbridge_ifd.so";

const BUNDLE: &str = "drivers/cardbridge.bundle/Contents";

/// pcscd answers at once; this is for busy machines.
const LIMIT: Duration = Duration::from_secs(5);

/// The readers of a private pcscd.
#[derive(Debug)]
pub(super) struct Bus {
    shared: Arc<Shared>,
    driver: PathBuf,
    socket: PathBuf,
}

/// What the connections of pcscd's know.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    readers: Vec<Reader>,
    /// Where insertions and removals are reported.
    bus: Option<UnixStream>,
    stopped: bool,
}

impl Bus {
    /// A bus with so many readers on it, and the driver for them.
    pub(super) fn prepare(dir: &Path, readers: usize) -> Result<Self> {
        let contents = dir.join(BUNDLE);
        fs::create_dir_all(contents.join("Linux"))?;
        fs::write(contents.join("Info.plist"), INFO)?;
        let driver = contents.join("Linux").join(DRIVER);
        fs::copy(built_driver()?, &driver)?;

        let socket = dir.join("bus.sock");
        let listener = UnixListener::bind(&socket)?;
        let shared = Arc::new(Shared::default());
        shared.lock().readers = (0..readers).map(|_| Reader::default()).collect();
        let server = Arc::clone(&shared);
        thread::Builder::new()
            .name("usb-bus".to_owned())
            .spawn(move || serve::accept(&listener, &server))?;
        Ok(Self { shared, driver, socket })
    }

    /// The library that is bus and driver.
    pub(super) fn driver(&self) -> &Path {
        &self.driver
    }

    /// What it has to find in its environment.
    pub(super) fn environment(&self) -> (&str, &Path) {
        (SOCKET, &self.socket)
    }
}

impl Readers for Bus {
    fn names(&self) -> Vec<String> {
        let state = self.shared.lock();
        state.readers.iter().enumerate().map(|(number, reader)| reader.name(number)).collect()
    }

    fn are_ready(&self, _pid: u32) -> bool {
        let state = self.shared.lock();
        state.readers.iter().all(|reader| !reader.plugged || reader.is_open())
    }

    fn insert(&self, reader: usize, card: Box<dyn Card>, faults: Faults) -> Result<InsertedCard> {
        let contact = Contact::new(card, faults);
        let control = contact.control();
        self.shared.change(reader, |reader| {
            ensure!(reader.card.is_none(), "there is a card in it already");
            reader.put(Some(contact));
            Ok(())
        })?;
        let shared = Arc::clone(&self.shared);
        Ok(InsertedCard::new(Arc::clone(&control), InReader { shared, reader, control }))
    }

    fn treat(&self, reader: usize, treatment: Treatment) -> Result<()> {
        match treatment {
            Treatment::Unplug => self.shared.plug(reader, false),
            Treatment::Plug => self.shared.plug(reader, true),
            Treatment::Dropped => self.shared.change(reader, |reader| {
                reader.due = 0;
                Ok(())
            }),
            Treatment::BreakDown => self.shared.set_broken(reader, true),
            Treatment::Repair => self.shared.set_broken(reader, false),
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        for reader in &mut state.readers {
            reader.cut();
        }
        drop(state);
        // Wakes the listener up, so that it sees that it is over.
        drop(UnixStream::connect(&self.socket));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, reader: usize, change: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let found = state.readers.get_mut(reader);
        let result = change(found.with_context(|| format!("there is no reader {reader}"))?);
        drop(state);
        self.changed.notify_all();
        result
    }

    fn set_broken(&self, reader: usize, broken: bool) -> Result<()> {
        self.change(reader, |reader| {
            reader.broken = broken;
            reader.ring();
            Ok(())
        })
    }

    /// Plugs a reader in, or pulls its plug, and does not wait for pcscd.
    fn plug(&self, number: usize, plugged: bool) -> Result<()> {
        self.change(number, |reader| {
            ensure!(reader.plugged != plugged, "reader {number} is so already");
            reader.plugged = plugged;
            if plugged {
                reader.due += 1;
            } else {
                reader.let_go();
            }
            Ok(())
        })?;
        let event = [if plugged { b'+' } else { b'-' }, u8::try_from(number)?];
        let mut state = self.lock();
        let bus = state.bus.as_mut().context("pcscd does not watch the bus")?;
        Ok(bus.write_all(&event)?)
    }

    /// Waits for a condition on a reader, for no longer than pcscd may take.
    fn wait(&self, number: usize, condition: impl Fn(&Reader) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.lock();
        while !state.readers.get(number).is_none_or(&condition) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// pcscd watches the bus from here on; it gets first what is on it.
    fn watch(&self, mut stream: UnixStream) -> Result<()> {
        let mut state = self.lock();
        let mut there = Vec::new();
        for (number, reader) in state.readers.iter_mut().enumerate() {
            reader.due = u32::from(reader.plugged);
            // What hung with the pcscd before.
            reader.let_go();
            if reader.plugged {
                there.push(u8::try_from(number)?);
            }
        }
        stream.write_all(&[u8::try_from(there.len())?])?;
        stream.write_all(&there)?;
        if let Some(before) = state.bus.replace(stream) {
            drop(before.shutdown(Shutdown::Both));
        }
        Ok(())
    }
}

fn built_driver() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("a program without a directory")?;
    // Tests are in `deps` themselves, programs above it. What is above may be of an older build.
    let places = [dir.join("deps").join(DRIVER), dir.join(DRIVER)];
    let found = places.into_iter().find(|place| place.exists());
    found.with_context(|| format!("cargo has not built {DRIVER} in {}", dir.display()))
}

/// What pcscd wants to know of a driver for USB readers.
const INFO: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<plist version="1.0">
<dict>
    <key>CFBundleExecutable</key>
    <string>libcardbridge_ifd.so</string>
    <key>ifdVendorID</key>
    <array>
    <string>0x1209</string>
    </array>
    <key>ifdProductID</key>
    <array>
    <string>0xcb1d</string>
    </array>
    <key>ifdFriendlyName</key>
    <array>
    <string>Cardbridge Double</string>
    </array>
</dict>
</plist>
"#;
