//! Whether the files at the path are still those that were opened.
//!
//! Linux lets an open file go on without a name: SQLite writes to it, syncs it and says that all
//! is well, and nobody ever finds it again. This asks by name and changes nothing. A file that
//! goes right after it was asked for is noticed by the next command.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{OpenError, StoreError};

/// A file, whatever its name: it stays the same for as long as somebody has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl From<Metadata> for FileId {
    fn from(metadata: Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The files that were opened, and where each has to be.
#[derive(Debug, Default)]
pub(super) struct FileGuard {
    files: Vec<(PathBuf, FileId)>,
}

/// What is missing, or is there and is something else.
#[derive(Debug, thiserror::Error)]
#[error("{path} was removed or replaced while it was open", path = .0.display())]
struct FileReplaced(PathBuf);

impl FileGuard {
    /// Counts on a file being where it was opened.
    pub(super) fn expect(&mut self, path: PathBuf, opened: FileId) {
        self.files.push((path, opened));
    }

    /// Counts on the file that is at the path now, where SQLite has just opened it.
    pub(super) fn expect_what_is_at(&mut self, path: PathBuf) -> Result<(), OpenError> {
        match identity(&path) {
            Ok(found) => self.expect(path, found),
            Err(source) => return Err(OpenError::Inaccessible { path, source }),
        }
        Ok(())
    }

    /// [`StoreError::Lost`] where one of them is not.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.files.iter().try_for_each(|(path, opened)| match identity(path) {
            Ok(found) if found == *opened => Ok(()),
            Ok(_) => Err(displaced(path)),
            Err(error) if is_missing(&error) => Err(displaced(path)),
            // Nobody can tell, so nothing is promised; it may pass.
            Err(error) => Err(StoreError::Io(Box::new(error))),
        })
    }
}

fn identity(path: &Path) -> io::Result<FileId> {
    std::fs::metadata(path).map(FileId::from)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn displaced(path: &Path) -> StoreError {
    StoreError::Lost(Box::new(FileReplaced(path.to_owned())))
}
