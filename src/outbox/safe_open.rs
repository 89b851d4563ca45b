//! The outbox's files by their names: no link is followed, nothing but a regular file is opened,
//! and no opening waits.
//!
//! Closing any descriptor of a file drops all locks that the process has on it (`fcntl(2)`,
//! "record locks"): SQLite's too, although SQLite still counts on them. So nothing here may be
//! called for `outbox.db`, its `-wal` or its `-shm` while a connection to it is open, and this is
//! the only module of the outbox that opens files (`tests/opening.rs`).

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread;

use super::error::OpenError;

/// What may stand beside the outbox and is opened by its name, by this program or by SQLite.
const SIBLINGS: [&str; 5] = ["-wal", "-shm", "-journal", ".lock", ".ready"];

/// What is at the outbox's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKind {
    /// A regular file.
    File,
    /// Nothing.
    Missing,
    /// A symbolic link to what is not there.
    DeadLink,
}

/// Looks at the outbox's path and at all that stands beside it: [`OpenError::Unsuitable`] where
/// something is no regular file.
pub(super) fn survey(path: &Path) -> Result<PathKind, OpenError> {
    for suffix in SIBLINGS {
        let path = sibling_path(path, suffix);
        if inspect(&path)? == PathKind::DeadLink {
            return Err(OpenError::Unsuitable { path, what: LINK });
        }
    }
    inspect(path)
}

const LINK: &str = "a symbolic link";

fn inspect(path: &Path) -> Result<PathKind, OpenError> {
    let inaccessible = |source| OpenError::Inaccessible { path: path.to_owned(), source };
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PathKind::Missing),
        Err(error) => return Err(inaccessible(error)),
    };
    let kind = found.file_type();
    let unsuitable = |what| Err(OpenError::Unsuitable { path: path.to_owned(), what });
    if kind.is_file() {
        return if may_be_planted(path, &found) {
            unsuitable("a file that has another name besides")
        } else {
            Ok(PathKind::File)
        };
    }
    if kind.is_symlink() {
        return match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PathKind::DeadLink),
            Ok(_) | Err(_) => unsuitable(LINK),
        };
    }
    unsuitable(name(&found))
}

/// Whether somebody who is not root could have root change another file through this name: SQLite
/// gives what it opens as root to the owner of the database.
fn may_be_planted(path: &Path, found: &Metadata) -> bool {
    let of_another = || {
        let directory = path.parent().and_then(|directory| directory.metadata().ok());
        directory.is_none_or(|directory| directory.uid() != Uid::ROOT.as_raw())
    };
    geteuid().is_root() && found.nlink() > 1 && of_another()
}

/// The kind of what is no regular file.
fn name(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_symlink() {
        LINK
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// A regular file that is there, for reading. Not for what SQLite has open: see above.
pub(super) fn open(path: &Path) -> io::Result<File> {
    regular(options().read(true).open(path)?)
}

/// The same, for reading and writing.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    regular(options().read(true).write(true).open(path)?)
}

/// Makes a file for its owner alone, mode 0600; nothing may be there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Both flags are positive and small.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    options.custom_flags(i32::try_from(flags).unwrap_or_default());
    options
}

fn regular(file: File) -> io::Result<File> {
    let found = file.metadata()?;
    if found.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("it is {}", name(&found))))
    }
}

/// Makes the directory, mode 0700, where it is missing.
pub(super) fn make_directory(path: &Path) -> Result<(), OpenError> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let missing: Vec<&Path> = directory.ancestors().take_while(|dir| !dir.exists()).collect();
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        missing.iter().filter_map(|made| made.parent()).try_for_each(sync_directory)
    };
    make().map_err(|source| OpenError::Inaccessible { path: directory.to_owned(), source })
}

/// A new name is on disk only once its directory is.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The path with something after its name.
pub(super) fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Has this thread, and those that it starts, go on with the rights of the outbox's owner where it
/// has root's: the owner may put anything into the directory, and gains nothing by it.
pub(super) fn act_as_owner(path: &Path) -> Result<(), OpenError> {
    if !geteuid().is_root() || survey(path)? != PathKind::File {
        return Ok(());
    }
    let step_down = || {
        let owner = path.symlink_metadata()?;
        if owner.uid() != Uid::ROOT.as_raw() {
            let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            thread::set_thread_groups(&[])?;
            thread::set_thread_res_gid(gid, gid, gid)?;
            thread::set_thread_res_uid(uid, uid, uid)?;
        }
        Ok(())
    };
    step_down().map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })
}
