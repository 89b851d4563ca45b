//! The lock: one process has the outbox open.
//!
//! `outbox.db.lock` has the pid of the process that has, or had, the outbox open, and on a second line
//! the kernel's id of the boot in which it was opened last: in that boot, no power cut made the `-shm`
//! older than the `-wal` (`log.rs`). Until an outbox was made the second line is `new`, so that a missing
//! outbox is told from one that was never made.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::disk;
use super::error::OpenError;
use super::presence::Identity;

/// The second line, for as long as there is no outbox.
const NEW: &str = "new";

/// How much of the file is read: a pid and a boot's id.
const TEXT: u64 = 64;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The same, from the service manager and without dashes: the unit's `ProcSubset=pid` hides the file.
const BOOT_ID_VARIABLE: &str = "BOOT_ID";

/// Holds every other process off for as long as it lives. The kernel ends it with the process,
/// so a file left behind by a crash locks nobody out.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    identity: Identity,
    /// The second line; `None` in an empty file.
    state: Option<String>,
}

impl Lock {
    /// The lock of the outbox at this path.
    pub(super) fn take(outbox: &Path) -> Result<Self, OpenError> {
        let path = disk::beside(outbox, ".lock");
        let inaccessible = |source| OpenError::Inaccessible { path: path.clone(), source };
        let mut file = open_or_create(outbox, &path).map_err(inaccessible)?;
        let locked = file.try_lock();
        let text = read(&mut file).map_err(inaccessible)?;
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = text.lines().next().and_then(|pid| pid.trim().parse().ok());
                return Err(OpenError::InUse { pid });
            }
            Err(TryLockError::Error(source)) => return Err(inaccessible(source)),
        }
        let state = (!text.trim().is_empty()).then(|| second_line(&text).to_owned());
        let identity = file.metadata().map_err(inaccessible)?.into();
        Ok(Self { file, path, identity, state })
    }

    /// Whether there was an outbox, as far as the lock's file knows.
    pub(super) fn had_outbox(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state != NEW)
    }

    /// The file, which has to stay where it is.
    pub(super) fn file(&self) -> (PathBuf, Identity) {
        (self.path.clone(), self.identity)
    }

    /// Writes down who holds the lock. There is no outbox yet.
    pub(super) fn sign_new(&mut self) {
        self.sign(NEW.to_owned());
    }

    /// Writes down who holds the lock. There is an outbox; which boot it is from is not known yet.
    pub(super) fn sign_found(&mut self) {
        let boot = self.state.take().filter(|state| state != NEW).unwrap_or_default();
        self.sign(boot);
    }

    /// Writes down who holds the lock. The outbox was opened in this boot.
    pub(super) fn sign_opened(&mut self) {
        self.sign(this_boot().unwrap_or_default());
    }

    fn sign(&mut self, state: String) {
        if let Err(error) = self.write(&state) {
            tracing::warn!(%error, "Lock does not tell the pid");
        }
        self.state = Some(state);
    }

    fn write(&mut self, state: &str) -> io::Result<()> {
        // Under another name it may be another's file.
        if self.file.metadata()?.nlink() != 1 {
            return Err(io::Error::other("it has more than one name, or none"));
        }
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}\n{state}", std::process::id())?;
        if self.state.as_deref() == Some(state) { Ok(()) } else { self.file.sync_all() }
    }
}

/// Whether the outbox at this path was opened last in this boot.
pub(super) fn is_of_this_boot(outbox: &Path) -> bool {
    let lock = disk::beside(outbox, ".lock");
    let text = disk::open(&lock).and_then(|mut file| read(&mut file)).unwrap_or_default();
    this_boot().is_some_and(|boot| boot == second_line(&text))
}

fn this_boot() -> Option<String> {
    let from_kernel = disk::open(Path::new(BOOT_ID)).and_then(|mut file| read(&mut file)).ok();
    let id = from_kernel.or_else(|| std::env::var(BOOT_ID_VARIABLE).ok())?;
    Some(id.trim().replace('-', "")).filter(|id| !id.is_empty())
}

fn second_line(text: &str) -> &str {
    text.lines().nth(1).unwrap_or_default()
}

/// The lock's file. One that root makes belongs to whom the outbox does; one that was there stays
/// whose it is.
fn open_or_create(outbox: &Path, path: &Path) -> io::Result<File> {
    match disk::open_to_write(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let made = match disk::create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return disk::open_to_write(path);
        }
        made => made?,
    };
    if let (Ok(outbox), Ok(lock)) = (outbox.symlink_metadata(), made.metadata())
        && outbox.is_file()
        && (outbox.uid(), outbox.gid()) != (lock.uid(), lock.gid())
    {
        fchown(&made, Some(outbox.uid()), Some(outbox.gid()))?;
    }
    Ok(made)
}

fn read(file: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    file.take(TEXT).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
