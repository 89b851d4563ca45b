//! Secrets, and the files that hold them: not shown, and cleared from memory when they are dropped.
//!
//! A [`Secret`] has neither `Debug` nor `Display`. What the HTTP client gets of one shares its memory,
//! which is cleared with the last of them. Out of reach are the buffers of the client and of TLS.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hyper::body::Bytes;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize as _, Zeroizing};

use super::file_contents::{self, FileContents};
use crate::domain::Problem;

/// The remedy for a file that cannot be read.
pub(super) const READABLE: &str =
    "check that the file is there and that the user cardbridge may read it";

/// A secret, as text.
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// An empty one that grows to this length without a move, and so leaves no copy behind.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self::new(String::with_capacity(bytes))
    }

    /// The text: for what is sent, and for nothing else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn expose_mut(&mut self) -> &mut String {
        &mut self.0
    }

    /// The same memory, for the HTTP client.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self.0)
    }

    /// The same memory as a header that `Debug` does not show.
    pub(super) fn into_header(self) -> Option<HeaderValue> {
        let mut header = HeaderValue::from_maybe_shared(self.into_bytes()).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// `Bearer` and this token, as a header; `None` for text that is no token.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        const SCHEME: &str = "Bearer ";
        let token = self.expose();
        // A token has neither spaces nor line breaks inside (RFC 6750 section 2.1).
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut line = Self::with_room(SCHEME.len() + token.len());
        line.expose_mut().push_str(SCHEME);
        line.expose_mut().push_str(token);
        line.into_header()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A file that others may write or replace at any time, and what was read from it.
pub(super) struct ReloadingFile<T> {
    path: PathBuf,
    last: Mutex<Option<(FileVersion, T)>>,
}

/// Changes when a file is written or replaced.
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

    /// The value of the file, read again when the file has changed.
    pub(super) fn get(&self, read: impl FnOnce(&Path) -> Result<T, Problem>) -> Result<T, Problem> {
        let version =
            FileVersion::of(&self.path).map_err(|error| FileError::Io(error).problem())?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = last.as_ref().filter(|(known, _)| *known == version) {
            return Ok(value.clone());
        }
        let value = read(&self.path)?;
        *last = Some((version, value.clone()));
        Ok(value)
    }
}

impl FileVersion {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        regular(path).map(|metadata| Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Why a file gives no secret.
pub(super) enum FileError {
    Io(io::Error),
    Contents(FileContents),
}

impl FileError {
    pub(super) fn problem(self) -> Problem {
        match self {
            Self::Io(error) => Problem::new(error.to_string(), READABLE),
            Self::Contents(contents) => contents.problem(),
        }
    }
}

/// The content of a file; a longer one is an error, and not cut.
///
/// It goes from the system to memory that is cleared: the library's own function reads short files
/// into the stack first, and leaves them there.
pub(super) fn secret_bytes(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
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
    Ok(bytes)
}

/// The text of a file that holds a secret.
pub(super) fn secret(path: &Path, limit: u64) -> Result<Secret, FileError> {
    let mut bytes = secret_bytes(path, limit).map_err(FileError::Io)?;
    if let Some(contents) = FileContents::binary(&bytes) {
        return Err(FileError::Contents(contents));
    }
    // Some editors begin a file with a byte order mark; it is no part of the secret.
    let mark = bytes.len() - file_contents::without_bom(&bytes).len();
    bytes.drain(..mark);
    String::from_utf8(std::mem::take(&mut *bytes)).map(Secret::new).map_err(|error| {
        error.into_bytes().zeroize();
        FileError::Contents(FileContents::NOT_UTF8)
    })
}

/// The text of a file that holds a secret and nothing else.
pub(super) fn bare_secret(path: &Path, limit: u64) -> Result<Secret, Problem> {
    let text = secret(path, limit).map_err(FileError::problem)?;
    match FileContents::instead_of_secret(text.expose()) {
        Some(contents) => Err(contents.problem()),
        None => Ok(text),
    }
}

/// The bytes of a regular file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    regular(path)?;
    std::fs::read(path)
}

/// A pipe would block the reader, a device may never end.
fn regular(path: &Path) -> io::Result<Metadata> {
    let metadata = path.metadata()?;
    if metadata.is_file() { Ok(metadata) } else { Err(io::Error::other("it is not a file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_makes_a_header_that_does_not_show_it() {
        let header = Secret::new("s3cret".to_owned()).bearer().unwrap();
        assert_eq!(header, "Bearer s3cret");
        assert_eq!(format!("{header:?}"), "Sensitive");
        for none in ["", "two words", "line\nbreak", "ümlaut"] {
            assert!(Secret::new(none.to_owned()).bearer().is_none(), "{none:?}");
        }
    }

    #[test]
    fn what_the_client_is_given_shares_the_memory_that_is_cleared() {
        let secret = Secret::new("s3cret".to_owned());
        let at = secret.expose().as_ptr();
        let bytes = secret.into_bytes();
        assert_eq!((bytes.as_ptr(), bytes.clone().as_ptr()), (at, at));
    }
}
