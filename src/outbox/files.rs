//! The outbox's files by their names: opened without following a link and without waiting, locked,
//! and checked to be where they were opened.
//!
//! Closing any descriptor of a file drops all locks that the process has on it (`fcntl(2)`,
//! "record locks"): SQLite's too, although SQLite still counts on them. So nothing here opens
//! `outbox.db`, its `-wal` or its `-shm` while a connection to it is open, and this is the only
//! module of the outbox that opens files (`tests/opening.rs`).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread;

use super::error::{OpenError, StoreError};

/// Suffixes of the files that this program or SQLite opens beside the outbox.
const SIBLINGS: [&str; 5] = ["-wal", "-shm", "-journal", ".lock", ".ready"];

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKind {
    /// A regular file.
    File,
    /// Nothing.
    Missing,
    /// A symbolic link whose target is missing.
    DeadLink,
}

/// The path with a suffix to its name.
pub(super) fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The absolute path, which does not begin with `file:`: SQLite would read that as a URI.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    std::path::absolute(path).map_err(OpenError::at(path))
}

/// Inspects the outbox's path and the files beside it: [`OpenError::Unsuitable`] where one is no
/// regular file.
pub(super) fn survey(path: &Path) -> Result<PathKind, OpenError> {
    for suffix in SIBLINGS {
        let path = sibling_path(path, suffix);
        if inspect(&path)? == PathKind::DeadLink {
            return Err(OpenError::Unsuitable(path, LINK));
        }
    }
    inspect(path)
}

const LINK: &str = "a symbolic link";

fn inspect(path: &Path) -> Result<PathKind, OpenError> {
    let is_missing = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let what = match path.symlink_metadata() {
        Err(error) if is_missing(&error) => return Ok(PathKind::Missing),
        Err(error) => return Err(OpenError::at(path)(error)),
        Ok(found) if found.is_file() && !may_be_planted(path, &found) => {
            return Ok(PathKind::File);
        }
        Ok(found) if found.is_file() => "a file that has a second name",
        Ok(found) if found.is_symlink() && path.metadata().is_err_and(|e| is_missing(&e)) => {
            return Ok(PathKind::DeadLink);
        }
        Ok(found) => kind_name(&found),
    };
    Err(OpenError::Unsuitable(path.to_owned(), what))
}

/// Whether a user who is not root could have root change another file through this name: SQLite
/// gives what it opens as root to the owner of the database.
fn may_be_planted(path: &Path, found: &Metadata) -> bool {
    let is_others_directory = || {
        let directory = path.parent().and_then(|directory| directory.metadata().ok());
        directory.is_none_or(|directory| directory.uid() != Uid::ROOT.as_raw())
    };
    geteuid().is_root() && found.nlink() > 1 && is_others_directory()
}

/// The kind of what is no regular file.
fn kind_name(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_symlink() => LINK,
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// Opens a regular file for reading. Not for a file that SQLite has open: see above.
pub(super) fn open(path: &Path) -> io::Result<File> {
    regular(options().read(true).open(path)?)
}

/// The same, where it is there.
pub(super) fn open_if_there(path: &Path) -> Result<Option<File>, OpenError> {
    match open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(OpenError::at(path)),
    }
}

/// The same, for reading and writing.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    regular(options().read(true).write(true).open(path)?)
}

/// Creates a file for its owner alone, mode 0600; nothing may be there.
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
        Err(io::Error::other(format!("it is {}", kind_name(&found))))
    }
}

/// Creates the directory, mode 0700, where it is missing.
pub(super) fn create_directory(path: &Path) -> Result<(), OpenError> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let missing: Vec<&Path> = directory.ancestors().take_while(|dir| !dir.exists()).collect();
    let create = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        missing.iter().try_for_each(|created| sync_parent(created))
    };
    create().map_err(OpenError::at(directory))
}

/// A new name is on disk only once its directory is.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Lets this thread, and those that it starts, continue with the rights of the outbox's owner where
/// it has root's: the owner may put anything into the directory, and gains nothing by it.
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
    step_down().map_err(OpenError::at(path))
}

/// Excludes every other process for as long as it lives. The kernel ends it with the process, so
/// that a file left behind by a crash blocks no start.
///
/// `outbox.db.lock` has the pid of the process that has, or had, the outbox open. Until an outbox
/// was created it has `new` on a second line: so an outbox that is gone is distinguished from one
/// that never was.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    id: FileId,
    /// Whether there was an outbox, according to the lock's file.
    pub(super) had_outbox: bool,
}

/// The second line, for as long as there is no outbox.
const NEW: &str = "new";

/// How much of the file is read: a pid and a word.
const LOCK_TEXT: u64 = 64;

impl Lock {
    pub(super) fn take(outbox: &Path) -> Result<Self, OpenError> {
        let path = sibling_path(outbox, ".lock");
        let file = open_or_create_lock(outbox, &path).map_err(OpenError::at(&path))?;
        let locked = file.try_lock();
        let mut text = Vec::new();
        let read = (&file).take(LOCK_TEXT).read_to_end(&mut text);
        let metadata = read.and_then(|_| file.metadata()).map_err(OpenError::at(&path))?;
        let text = String::from_utf8_lossy(&text);
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = text.lines().next().and_then(|pid| pid.trim().parse().ok());
                return Err(OpenError::InUse(pid));
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::at(&path)(source)),
        }
        let had_outbox = !text.trim().is_empty() && text.lines().nth(1) != Some(NEW);
        Ok(Self { file, id: file_id(&metadata), had_outbox })
    }

    /// Writes down which process holds the lock, and whether there is an outbox.
    pub(super) fn write(&mut self, has_outbox: bool) {
        if let Err(error) = self.try_write(has_outbox) {
            tracing::warn!(%error, "Could not write the PID to the lock file");
        }
    }

    fn try_write(&mut self, has_outbox: bool) -> io::Result<()> {
        // With a second name it may be another program's file.
        if self.file.metadata()?.nlink() != 1 {
            return Err(io::Error::other("it has more than one name, or none"));
        }
        let state = if has_outbox { "" } else { "new\n" };
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "{}\n{state}", std::process::id())?;
        if has_outbox == self.had_outbox { Ok(()) } else { self.file.sync_all() }
    }
}

/// The lock's file. One that root creates belongs to the outbox's owner; the owner of one that was
/// there is not changed.
fn open_or_create_lock(outbox: &Path, path: &Path) -> io::Result<File> {
    match open_to_write(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    let created = match create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return open_to_write(path),
        created => created?,
    };
    if let (Ok(outbox), Ok(lock)) = (outbox.symlink_metadata(), created.metadata())
        && outbox.is_file()
        && (outbox.uid(), outbox.gid()) != (lock.uid(), lock.gid())
    {
        fchown(&created, Some(outbox.uid()), Some(outbox.gid()))?;
    }
    Ok(created)
}

/// A file, whatever its name: device and inode, which no other file has while it is open.
type FileId = (u64, u64);

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Checks that the files at the path are those that were opened.
///
/// Linux keeps an open file without a name: SQLite writes to it, syncs it and reports success, and
/// no process can find it again. Without `outbox.db` or its `-wal` the next start lacks what was
/// acknowledged; without the `.lock` or the `-shm` a second process opens the outbox too.
#[derive(Debug)]
pub(super) struct FileGuard(Vec<(PathBuf, FileId)>);

impl FileGuard {
    /// Expects the files that are there now, where SQLite has just opened them.
    pub(super) fn new(outbox: &Path, lock: &Lock) -> Result<Self, OpenError> {
        let mut files = Vec::new();
        for suffix in ["", "-wal", "-shm"] {
            let path = sibling_path(outbox, suffix);
            let found = fs::metadata(&path).map_err(OpenError::at(&path))?;
            files.push((path, file_id(&found)));
        }
        files.push((sibling_path(outbox, ".lock"), lock.id));
        Ok(Self(files))
    }

    /// [`StoreError::Lost`] where one of them was removed or replaced.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in &self.0 {
            match fs::metadata(path) {
                Ok(found) if file_id(&found) == *opened => {}
                Err(error)
                    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                {
                    return Err(StoreError::Io(Box::new(error)));
                }
                Ok(_) | Err(_) => {
                    let name = path.display();
                    let cause = format!("{name} was removed or replaced while it was open");
                    return Err(StoreError::Lost(cause.into()));
                }
            }
        }
        Ok(())
    }
}
