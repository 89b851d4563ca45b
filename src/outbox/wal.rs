//! SQLite's write-ahead log, checked before SQLite opens it.
//!
//! SQLite's recovery ends at the first frame whose checksum is wrong, drops all that follows, and
//! reports nothing: right for the torn end that a power cut leaves, and wrong where a bit flipped in
//! the middle. [`Wal::damage`] distinguishes the two. And SQLite applies any log whose checksums are
//! right, that of another outbox or of an older copy too: [`DatabaseWithoutWal`] finds that.
//!
//! Layout (SQLite, "Database File Format", 4 "The Write-Ahead Log"; "WAL-mode File Format", 2.1 "The
//! WAL-Index Header"). Integers of the `-wal` are big-endian, those of the `-shm` and the words that
//! checksums are made of are the machine's:
//!
//! ```text
//! -wal  0  magic                                          frame  0  page number
//!      16  salt, 8 bytes, another for each generation            4  pages of the file, if it commits
//!      24  checksum of the 24 bytes before                       8  salt
//!      32  frames of 24 bytes and one page each                 16  checksum, of all up to here
//!
//! -shm  0, 48  twice: 12 whether it is set, 16 frames committed, 32 salt, 40 checksum of the 40 before
//!      96  frames that were moved into the database
//! ```
//!
//! The `-shm` is never synced, but a kill does not harm it, and SQLite counts a frame in it only after
//! the frame is synced. So, where it belongs to the log, fewer good frames than it counts are damage.
//! Where it does not, after a power cut, only what a later transaction follows is known to have been
//! acknowledged: a broken last transaction is then taken for one that never was. Where there is no
//! `-shm` at all, the files were copied or moved, and a broken last transaction is damage. One life of
//! the daemon is one generation at least (`Store::open` empties the log), so frames of an earlier life
//! never have this one's salt.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::database::{self, PAGE};
use super::error::{OpenError, StoreError};
use super::files::{self, sibling_path};
use super::hash_chain::{self, ANCHOR, HEAD};
use super::row;
use crate::domain::{AuditLine, Entry};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE;
/// One of the two headers of the `-shm`.
const INDEX_HEADER: usize = 48;
const MAGIC: [u8; 3] = [0x37, 0x7f, 6];
/// How often a log is read that changes meanwhile.
const MAX_READS: usize = 4;

/// One page's image in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalFrame {
    pub(super) page: u32,
    /// Whether it is what was written.
    pub(super) intact: bool,
    /// Whether it is of this generation, perhaps with one damaged byte in its salt.
    is_current: bool,
    commits: bool,
}

/// What a `-wal` holds.
#[derive(Debug, Default)]
pub(super) struct Wal {
    file: Option<File>,
    frames: Vec<WalFrame>,
    index: WalIndex,
    /// Whether SQLite accepts the log's header.
    has_header: bool,
    salt: Option<u64>,
}

/// What a `-shm` says of the log.
#[derive(Debug, Default, PartialEq, Eq)]
struct WalIndex {
    exists: bool,
    /// The salt of the log that it belongs to, where it is set.
    salt: Option<u64>,
    /// Frames of transactions that ended.
    committed: usize,
    /// Frames that were moved into the database.
    moved: usize,
}

/// [`OpenError::Lost`] where SQLite would drop what was acknowledged. A daemon may write meanwhile.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    for _ in 0..MAX_READS {
        let wal = Wal::read(path)?;
        let Some(cause) = wal.damage() else { return Ok(()) };
        if WalIndex::read(path)? == wal.index {
            return Err(OpenError::Lost(cause.into()));
        }
    }
    Ok(())
}

impl Wal {
    pub(super) fn read(outbox: &Path) -> Result<Self, OpenError> {
        let path = sibling_path(outbox, "-wal");
        let mut wal = Self { index: WalIndex::read(outbox)?, ..Self::default() };
        if let Some(file) = files::open_if_there(&path)? {
            wal.read_frames(&file).map_err(OpenError::at(&path))?;
            wal.file = Some(file);
        }
        Ok(wal)
    }

    fn read_frames(&mut self, file: &File) -> io::Result<()> {
        let mut header = [0; HEADER];
        if !fill(file, &mut header)? {
            return Ok(());
        }
        let [.., salt, stored] = pairs::<4>(&header, u32::from_be_bytes);
        let computed = checksum([0, 0], header.get(..24).unwrap_or_default());
        self.has_header = header.starts_with(&MAGIC) && stored == computed;
        self.salt = if self.has_header { Some(join(salt)) } else { self.index.salt };
        // What a frame's checksum may continue: what is stored before it, or what should be.
        let mut before = vec![stored, computed];
        let mut frame = [0; FRAME];
        while fill(file, &mut frame)? {
            let [[page, pages], salt, stored] = pairs::<3>(&frame, u32::from_be_bytes);
            let salt = join(salt);
            let due = *self.salt.get_or_insert(salt);
            let (head, image) = frame.split_at(FRAME_HEADER);
            let head = head.get(..8).unwrap_or_default();
            let computed: Vec<_> =
                before.iter().map(|sum| checksum(checksum(*sum, head), image)).collect();
            let intact = salt == due && computed.contains(&stored);
            before = vec![stored];
            before.extend(computed.first().filter(|_| !intact));
            let is_current = (salt ^ due).to_ne_bytes().iter().filter(|b| **b != 0).count() <= 1;
            self.frames.push(WalFrame { page, intact, is_current, commits: pages != 0 });
        }
        Ok(())
    }

    /// What of this log SQLite would drop although it was acknowledged.
    fn damage(&self) -> Option<String> {
        let intact = self.frames.iter().take_while(|frame| frame.intact).count();
        let good = if self.has_header { intact } else { 0 };
        let recovered = self.committed(good);
        let current = |frame: &&WalFrame| frame.is_current;
        let mut rest = self.frames.iter().skip(good).filter(current);
        let commits = rest.clone().filter(|frame| frame.commits).count();
        let has_rest = rest.next().is_some();
        let WalIndex { exists, salt, committed, moved } = self.index;
        let is_lost = match salt {
            // All of it is in the database, and no older frame hides it.
            Some(_) if recovered == 0 && moved >= committed => false,
            Some(salt) if self.salt.is_none_or(|due| due == salt) => {
                recovered < committed || commits > 1
            }
            None if !exists => has_rest,
            Some(_) | None => commits > 1 || !self.has_header && has_rest,
        };
        let frames = self.frames.iter().filter(current).count().max(committed);
        is_lost.then(|| {
            format!("its log is damaged: SQLite would take {recovered} of {frames} page images")
        })
    }

    /// The frames up to the last that ends a transaction, the oldest first. Where the newest image of
    /// a page is damaged and was moved into the database, none of the page's frames is here.
    pub(super) fn frames(&self) -> impl DoubleEndedIterator<Item = (usize, WalFrame)> {
        let frames = self.frames.iter().copied().enumerate();
        let frames = frames.take(self.committed(self.frames.len()));
        let frames: Vec<_> = frames.filter(|(_, frame)| frame.is_current).collect();
        let newest: BTreeMap<_, _> =
            frames.iter().map(|(number, frame)| (frame.page, (*number, frame.intact))).collect();
        let moved = if self.index.salt == self.salt { self.index.moved } else { 0 };
        let is_in_database = move |page: u32| {
            newest.get(&page).is_some_and(|(number, intact)| !intact && *number < moved)
        };
        frames.into_iter().filter(move |(_, frame)| !is_in_database(frame.page))
    }

    /// How many of the first frames end with one that commits.
    fn committed(&self, first: usize) -> usize {
        let mut frames = self.frames.iter().take(first);
        frames.rposition(|frame| frame.is_current && frame.commits).map_or(0, |last| last + 1)
    }

    /// The page's image in a frame.
    pub(super) fn image(&self, frame: usize) -> io::Result<Vec<u8>> {
        let mut page = vec![0; PAGE];
        let file = self.file.as_ref().ok_or(ErrorKind::NotFound)?;
        file.read_exact_at(&mut page, (HEADER + frame * FRAME + FRAME_HEADER) as u64)?;
        Ok(page)
    }
}

impl WalIndex {
    fn read(outbox: &Path) -> Result<Self, OpenError> {
        let path = sibling_path(outbox, "-shm");
        let Some(file) = files::open_if_there(&path)? else { return Ok(Self::default()) };
        let unset = Self { exists: true, ..Self::default() };
        let mut bytes = [0; 2 * INDEX_HEADER + 4];
        if !fill(&file, &mut bytes).map_err(OpenError::at(&path))? {
            return Ok(unset);
        }
        let (headers, moved) = bytes.as_chunks::<INDEX_HEADER>();
        let moved = moved.first_chunk().map_or(0, |moved| u32::from_ne_bytes(*moved)) as usize;
        let headers = headers.iter().filter_map(|header| {
            let [_, [_, _], [committed, _], _, salt, stored] =
                pairs::<6>(header, u32::from_ne_bytes);
            let is_set = header.get(12) == Some(&1);
            let computed = checksum([0, 0], header.get(..40).unwrap_or_default());
            let salt = Some(join(salt.map(u32::from_be)));
            (is_set && stored == computed).then_some((committed as usize, salt))
        });
        // A kill between writing the two leaves one that counts more.
        let least = headers.min_by_key(|(committed, _)| *committed);
        Ok(least.map_or(unset, |(committed, salt)| Self { exists: true, salt, committed, moved }))
    }
}

/// SQLite's checksum over pairs of words, continued.
fn checksum([mut first, mut second]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    for [a, b, c, d, e, f, g, h] in bytes.as_chunks().0 {
        first = first.wrapping_add(u32::from_ne_bytes([*a, *b, *c, *d])).wrapping_add(second);
        second = second.wrapping_add(u32::from_ne_bytes([*e, *f, *g, *h])).wrapping_add(first);
    }
    [first, second]
}

/// The first pairs of words.
fn pairs<const N: usize>(bytes: &[u8], word: fn([u8; 4]) -> u32) -> [[u32; 2]; N] {
    let mut words = bytes.as_chunks().0.iter().map(|bytes| word(*bytes));
    std::array::from_fn(|_| [0; 2].map(|none| words.next().unwrap_or(none)))
}

fn join([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Reads so many bytes; returns whether there were as many.
fn fill(mut file: &File, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// SQLite would apply the log of another file.
#[derive(Debug, thiserror::Error)]
#[error("its log is that of another file")]
pub(super) struct OtherHistory;

/// What a file that has a log holds without it.
///
/// The file has the state at the last time that its log was moved into it, and its log continues from
/// there. So the file's newest audit line is in both together, unless it was pruned, and its newest
/// entry that waits is there, or has a line. Only rows whose checksums are right are compared.
#[derive(Debug)]
pub(super) struct DatabaseWithoutWal {
    /// The newest line's number; 0 where there is none.
    head: i64,
    line: Option<AuditLine>,
    entry: Option<Entry>,
}

/// A parked entry has its line already, and may go without another.
const NEWEST_WAITING: &str =
    "WHERE stage NOT LIKE '%\"stage\":\"parked\"%' ORDER BY id DESC LIMIT 1";
/// A power cut while the log is moved may leave a head that is newer than the entries.
const LINE_OF_ENTRY: &str = "WHERE seq > ? - 100000 AND entry = ? ORDER BY seq DESC LIMIT 1";

impl DatabaseWithoutWal {
    /// Reads the file at this path; `None` where it has no log, or cannot be read without.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let wal = sibling_path(path, "-wal").symlink_metadata().ok()?;
        if wal.len() == 0 {
            return None;
        }
        let conn = database::connect_without_wal(path).ok()?;
        let head = hash_chain::sound_end(&conn, HEAD).ok()?.seq;
        let line = row::AUDIT.find_one(&conn, "WHERE seq = ?", [head]).ok()?;
        let entry = row::ENTRY.find_one(&conn, NEWEST_WAITING, []).ok()?;
        Some(Self { head, line: line.and_then(Result::ok), entry: entry.and_then(Result::ok) })
    }

    /// [`OtherHistory`] where the file with its log does not continue from this.
    pub(super) fn check(&self, conn: &Connection) -> Result<(), OpenError> {
        match self.continues(conn) {
            Ok(false) => Err(OpenError::Lost(Box::new(OtherHistory))),
            // What cannot be read is damage of another kind.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn continues(&self, conn: &Connection) -> Result<bool, StoreError> {
        if !database::has_table(conn, "chain")? {
            return Ok(false);
        }
        let pruned = hash_chain::end(conn, ANCHOR)?.map_or(i64::MAX, |anchor| anchor.seq);
        if pruned > self.head {
            return Ok(true);
        }
        if let Some(line) = self.line.as_ref().filter(|_| pruned < self.head) {
            let found = row::AUDIT.find_one(conn, "WHERE seq = ?", [self.head])?;
            if found.is_none_or(|found| found.is_ok_and(|found| found != *line)) {
                return Ok(false);
            }
        }
        let Some(Entry { id, card_event, .. }) = &self.entry else { return Ok(true) };
        if let Some(found) = row::ENTRY.find_one(conn, "WHERE id = ?", [id.number()])? {
            return Ok(found.map_or(true, |found| found.card_event == *card_event));
        }
        let line = row::AUDIT.find_one(conn, LINE_OF_ENTRY, [self.head, id.number()])?;
        Ok(line.is_some_and(|line| {
            line.map_or(true, |line| {
                line.seen_at == card_event.seen_at && line.reader == card_event.reader
            })
        }))
    }
}
