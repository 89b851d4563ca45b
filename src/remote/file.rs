//! Files that others may write or replace at any time: what they hold is kept until they change.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

/// A file, and what was made of what it last held.
pub(super) struct Watched<T> {
    path: PathBuf,
    last: Mutex<Option<(Stamp, T)>>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Clone> Watched<T> {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is made of the file; it is looked at each time, and read when it changed.
    pub(super) fn get(&self, read: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let stamp = Stamp::of(&self.path)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = last.as_ref().filter(|(known, _)| *known == stamp) {
            return Ok(made.clone());
        }
        let made = read(&self.path)?;
        *last = Some((stamp, made.clone()));
        Ok(made)
    }
}

impl Stamp {
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
pub(super) fn secret(path: &Path, limit: u64) -> io::Result<Zeroizing<String>> {
    let length = regular(path)?.len();
    // One byte more than allowed, so that a longer file is seen to be longer; and room for all of
    // it at once, so that no piece of it is left behind where it grew.
    let room = usize::try_from(length.min(limit) + 1).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(room));
    File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(text)
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
