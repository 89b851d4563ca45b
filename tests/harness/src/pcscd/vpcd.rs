//! Readers of vsmartcard's driver, vpcd.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Readers, Treatment};
use crate::cards::{Card, Faults, InsertedCard};
use crate::netns::Namespace;
use crate::require;

/// vpcd's default port, of the first slot of the first reader.
pub const FIRST_PORT: u16 = 35963;

const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

/// The readers of a private pcscd.
#[derive(Debug)]
pub(super) struct Vpcd {
    readers: usize,
    namespace: Namespace,
}

/// Whether there can be such readers here.
pub(super) fn available() -> Result<(), String> {
    require::file(DRIVER, "vsmartcard-vpcd")
}

impl Vpcd {
    /// Writes the entries and the drivers for so many readers, rounded up.
    pub(super) fn prepare(dir: &Path, readers: usize, namespace: Namespace) -> Result<Self> {
        let readers = readers.next_multiple_of(2);
        for device in 0..readers / 2 {
            // One copy of the driver a device: two devices on one copy would
            // share its globals, and so each other's cards.
            let driver = dir.join(format!("vpcd{device}.so"));
            fs::copy(DRIVER, &driver).with_context(|| format!("no driver {DRIVER}"))?;
            fs::write(dir.join(format!("conf/device{device}")), entry(device, &driver)?)?;
        }
        Ok(Self { readers, namespace })
    }
}

impl Readers for Vpcd {
    fn names(&self) -> Vec<String> {
        (0..self.readers).map(name).collect()
    }

    fn are_ready(&self, pid: u32) -> bool {
        listening(pid) == self.readers
    }

    fn insert(&self, reader: usize, card: Box<dyn Card>, faults: Faults) -> Result<InsertedCard> {
        ensure!(reader < self.readers, "there is no reader {reader}");
        InsertedCard::insert(self.namespace.clone(), port(reader)?, card, faults)
    }

    fn treat(&self, _reader: usize, treatment: Treatment) -> Result<()> {
        bail!("a reader of vpcd cannot do this: {treatment:?}")
    }
}

fn port(reader: usize) -> Result<u16> {
    Ok(FIRST_PORT + u16::try_from(reader)?)
}

fn name(reader: usize) -> String {
    format!("Virtual PCD {} 00 {:02X}", reader / 2 + 1, reader % 2)
}

/// pcscd reads CHANNELID before LIBPATH or not at all.
fn entry(device: usize, driver: &Path) -> Result<String> {
    let port = port(2 * device)?;
    Ok(format!(
        "FRIENDLYNAME \"Virtual PCD {}\"\nCHANNELID 0x{port:X}\n\
         DEVICENAME /dev/null:0x{port:X}\nLIBPATH {}\n",
        device + 1,
        driver.display()
    ))
}

/// The number of listening TCP sockets in the network namespace of a process.
fn listening(pid: u32) -> usize {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let state = |line: &str| line.split_whitespace().nth(3) == Some("0A");
    table.lines().filter(|line| state(line)).count()
}
