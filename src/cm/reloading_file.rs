//! Files that others may write or replace at any time: what they hold is kept until they change.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize as _, Zeroizing};

use super::file_contents::{self, FileContents};
use super::secret::Secret;

/// A file, and what was made of what it last held.
pub(super) struct ReloadingFile<T> {
    path: PathBuf,
    last: Mutex<Option<(FileVersion, T)>>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileVersion {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Clone> ReloadingFile<T> {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is made of the file; it is looked at each time, and read when it changed.
    pub(super) fn get(&self, read: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let stamp = FileVersion::of(&self.path)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = last.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(made.clone());
        }
        let made = read(&self.path)?;
        *last = Some((stamp, made.clone()));
        Ok(made)
    }
}

impl FileVersion {
    /// How a regular file looks now. A pipe would keep a reader waiting, a device may never end.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        regular(path).map(|metadata| Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The text of a file that holds a secret; a longer one is refused, and not cut.
///
/// It goes from the system to where it is cleared at last: the library's own way of reading puts
/// short files on the stack first, and leaves them there.
pub(super) fn secret(path: &Path, limit: u64) -> io::Result<Secret> {
    let announced = regular(path)?.len();
    if announced > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    let room = usize::try_from(announced).map_err(io::Error::other)? + 1;
    let mut bytes = Zeroizing::new(vec![0; room]);
    let (mut file, mut length) = (File::open(path)?, 0);
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length == room {
        return Err(io::Error::other("it grew while it was read"));
    }
    bytes.truncate(length);
    if let Some(holds) = FileContents::binary(&bytes) {
        return Err(io::Error::other(holds));
    }
    // Some editors begin a file with a byte order mark; it is no part of the secret.
    let mark = bytes.len() - file_contents::without_bom(&bytes).len();
    bytes.drain(..mark);
    String::from_utf8(std::mem::take(&mut *bytes)).map(Secret::new).map_err(|error| {
        error.into_bytes().zeroize();
        io::Error::other(FileContents::NoText)
    })
}

/// The text of a file that holds a secret and nothing else.
pub(super) fn bare_secret(path: &Path, limit: u64) -> io::Result<Secret> {
    let text = secret(path, limit).map_err(|error| match holds(&error) {
        Some(holds) => io::Error::other(holds.description()),
        None => error,
    })?;
    match FileContents::instead_of_secret(text.expose()) {
        Some(holds) => Err(io::Error::other(holds.description())),
        None => Ok(text),
    }
}

/// What the file holds, where that is why it cannot be read.
pub(super) fn holds(error: &io::Error) -> Option<FileContents> {
    error.get_ref()?.downcast_ref::<FileContents>().copied()
}

/// The bytes of a regular file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    regular(path)?;
    std::fs::read(path)
}

fn regular(path: &Path) -> io::Result<Metadata> {
    let metadata = path.metadata()?;
    if metadata.is_file() { Ok(metadata) } else { Err(io::Error::other("it is not a file")) }
}
