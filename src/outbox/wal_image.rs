//! The copy of a damaged file that SQLite reads in its stead, page by page:
//!
//! ```text
//! page 1          of a file with the tables `leaf` (rows with a number) and `knot` (rows without)
//! page 2 to N     as they are in the file, or in its -wal where that has an image that is intact
//! page N + 1      the root of `leaf`: a copy of each leaf in turn
//! page N + 2      the root of `knot`, likewise
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::error::OpenError;
use super::file::PAGE;
use super::safe_open;
use super::wal::Wal;

const TABLES: &str = "CREATE TABLE leaf (c0, c1, c2, c3, c4, c5, c6, c7); \
     CREATE TABLE knot (c0 PRIMARY KEY, c1, c2, c3, c4) WITHOUT ROWID; \
     PRAGMA writable_schema = ON";

/// The copy that is read.
#[derive(Debug)]
pub(super) struct WalImage {
    file: File,
    /// How many pages there are of the outbox.
    pub(super) pages: u32,
}

impl WalImage {
    /// Makes the copy of the file at `path`, and of its log.
    pub(super) fn make(path: &Path, copy: &Path, log: &Wal) -> Result<Self, OpenError> {
        let inaccessible = |source| OpenError::Inaccessible { path: copy.to_owned(), source };
        let (file, pages) = copy_pages(path, copy, log).map_err(inaccessible)?;
        let mut first = first_page(pages)?;
        // No page, so that SQLite asks the file's size.
        first.get_mut(28..32).unwrap_or_default().fill(0);
        file.write_all_at(&first, 0).map_err(inaccessible)?;
        let image = Self { file, pages };
        image.show(&[0; PAGE]).map_err(inaccessible)?;
        Ok(image)
    }

    /// The page with this number.
    pub(super) fn read(&self, number: u32, page: &mut [u8; PAGE]) -> io::Result<()> {
        self.file.read_exact_at(page, offset(number))
    }

    /// Puts a page in the place of both roots.
    pub(super) fn show(&self, page: &[u8; PAGE]) -> io::Result<()> {
        self.file.write_all_at(page, offset(self.pages + 1))?;
        self.file.write_all_at(page, offset(self.pages + 2))?;
        // The change counter: SQLite forgets the pages that it has read.
        let mut counter = [0; 4];
        self.file.read_exact_at(&mut counter, 24)?;
        let counter = u32::from_be_bytes(counter).wrapping_add(1);
        self.file.write_all_at(&counter.to_be_bytes(), 24)
    }
}

const fn offset(number: u32) -> u64 {
    (number as u64 - 1) * PAGE as u64
}

/// Copies the file, and the newest intact image of each page from its log; tells how many pages
/// there are.
fn copy_pages(path: &Path, copy: &Path, log: &Wal) -> io::Result<(File, u32)> {
    let mut to = safe_open::create(copy)?;
    if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        io::copy(&mut safe_open::open(path)?, &mut to)?;
    }
    let count = |bytes: u64| u32::try_from(bytes.div_ceil(PAGE as u64)).unwrap_or(u32::MAX - 2);
    let (mut page, most) = ([0; PAGE], log.frames().count());
    let mut pages = count(to.metadata()?.len()).max(1);
    // A number that no page of this file can have is damage.
    let most = pages.saturating_add(u32::try_from(most).unwrap_or(u32::MAX)).min(u32::MAX - 2);
    for (number, frame) in log.frames() {
        if frame.intact && (1..=most).contains(&frame.page) {
            log.image(number, &mut page)?;
            to.write_all_at(&page, offset(frame.page))?;
            pages = pages.max(frame.page);
        }
    }
    to.set_len(u64::from(pages + 2) * PAGE as u64)?;
    Ok((to, pages))
}

/// The first page of a file whose tables have their roots behind this many pages.
fn first_page(pages: u32) -> Result<Vec<u8>, OpenError> {
    let mut empty = Connection::open_in_memory()?;
    empty.execute_batch(TABLES)?;
    for (table, root) in [("leaf", pages + 1), ("knot", pages + 2)] {
        let sql = "UPDATE sqlite_schema SET rootpage = ? WHERE name = ?";
        empty.execute(sql, (root, table))?;
    }
    let bytes = empty.serialize("main")?;
    Ok(bytes.get(..PAGE).unwrap_or_default().to_vec())
}
