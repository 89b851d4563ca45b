//! The lock: one process has the outbox open.
//!
//! `outbox.db.lock` has the pid of the process that has, or had, the outbox open. Until an outbox
//! was made it says `new` on a second line, so that one that is gone is told from one that never
//! was.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::file_guard::FileId;
use super::safe_open;

/// The second line, for as long as there is no outbox.
const NEW: &str = "new";

/// How much of the file is read: a pid and a word.
const TEXT: u64 = 64;

/// Holds every other process off for as long as it lives. The kernel ends it with the process,
/// so a file left behind by a crash locks nobody out.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    identity: FileId,
    had_outbox: bool,
}

impl Lock {
    /// The lock of the outbox at this path.
    pub(super) fn take(outbox: &Path) -> Result<Self, OpenError> {
        let path = safe_open::sibling_path(outbox, ".lock");
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
        let had_outbox = !text.trim().is_empty() && text.lines().nth(1) != Some(NEW);
        let identity = file.metadata().map_err(inaccessible)?.into();
        Ok(Self { file, path, identity, had_outbox })
    }

    /// Whether there was an outbox, as far as the lock's file knows.
    pub(super) const fn had_outbox(&self) -> bool {
        self.had_outbox
    }

    /// The file, which has to stay where it is.
    pub(super) fn file(&self) -> (PathBuf, FileId) {
        (self.path.clone(), self.identity)
    }

    /// Writes down who holds the lock, and whether there is an outbox.
    pub(super) fn sign(&mut self, there_is_one: bool) {
        if let Err(error) = self.write(there_is_one) {
            tracing::warn!(%error, "Could not write the PID to the lock file");
        }
    }

    fn write(&mut self, there_is_one: bool) -> io::Result<()> {
        // Under another name it may be another's file.
        if self.file.metadata()?.nlink() != 1 {
            return Err(io::Error::other("it has more than one name, or none"));
        }
        let state = if there_is_one { "" } else { "new\n" };
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "{}\n{state}", std::process::id())?;
        if there_is_one == self.had_outbox { Ok(()) } else { self.file.sync_all() }
    }
}

/// The lock's file. One that root makes belongs to whom the outbox does; one that was there stays
/// whose it is.
fn open_or_create(outbox: &Path, path: &Path) -> io::Result<File> {
    match safe_open::open_to_write(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let made = match safe_open::create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return safe_open::open_to_write(path);
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
