//! SQLite's write-ahead log as it lies on disk, read before SQLite has it open.
//!
//! SQLite's recovery ends at the first frame whose checksum does not fit, forgets all that follows,
//! and says nothing: right for the torn end that a power cut leaves, and wrong where a bit flipped in
//! the middle. This tells the two apart ([`Wal::damage`]), and where each page's newest image is.
//!
//! Layout (SQLite, "Database File Format", 4 "The Write-Ahead Log"; "WAL-mode File Format", 2.1 "The
//! WAL-Index Header"). Integers of the `-wal` are big-endian, those of the `-shm` are the machine's:
//!
//! ```text
//! -wal  0  magic, whose last bit is the byte order of checksums   frame  0  page number
//!      16  salt, 8 bytes, another for each generation                    4  pages of the file, if it commits
//!      24  checksum of the 24 bytes before                               8  salt
//!      32  frames of 24 bytes and one page each                         16  checksum, of all up to here
//!
//! -shm  0, 48  twice: 12 whether it is set, 16 frames committed, 32 salt, 40 checksum of the 40 before
//!      96  frames that were brought into the database
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
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::OpenError;
use super::file::PAGE;
use super::safe_open;
use super::wal_index::{ByteOrder, Salt, Sums, WalIndex, fill, number, part, salt, sums};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE;
/// How often a log is looked at that changes meanwhile.
const MAX_READS: usize = 4;

/// One page's image in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalFrame {
    /// The page's number.
    pub(super) page: u32,
    /// Whether it is what was written.
    pub(super) intact: bool,
    /// Whether it has this generation's salt, or has had.
    ours: bool,
    commits: bool,
}

/// What a `-wal` holds.
#[derive(Debug)]
pub(super) struct Wal {
    file: Option<File>,
    frames: Vec<WalFrame>,
    index: WalIndex,
    /// Whether SQLite believes the log's header.
    headed: bool,
    salt: Option<Salt>,
}

/// [`OpenError::Lost`] where the log has lost something; may be asked while a daemon writes to it.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    for _ in 0..MAX_READS {
        let log = Wal::read(path)?;
        let Some(cause) = log.damage() else { return Ok(()) };
        if WalIndex::read(path)? == log.index {
            return Err(OpenError::Lost(cause.into()));
        }
    }
    Ok(())
}

impl Wal {
    /// A log without frames.
    pub(super) const fn none() -> Self {
        Self { file: None, frames: Vec::new(), index: WalIndex::Absent, headed: false, salt: None }
    }

    pub(super) fn read(outbox: &Path) -> Result<Self, OpenError> {
        let index = WalIndex::read(outbox)?;
        let path = safe_open::sibling_path(outbox, "-wal");
        let inaccessible = |source| OpenError::Inaccessible { path: path.clone(), source };
        let mut log = Self { index, ..Self::none() };
        match safe_open::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(inaccessible(error)),
            Ok(file) => {
                log.walk(&file).map_err(inaccessible)?;
                log.file = Some(file);
            }
        }
        Ok(log)
    }

    fn walk(&mut self, mut file: &File) -> io::Result<()> {
        let mut header = [0; HEADER];
        if !fill(&mut file, &mut header)? {
            return Ok(());
        }
        let order = ByteOrder::of(&header);
        let computed = order.sum((0, 0), part(&header, 0, 24));
        let mut states = vec![sums(&header, 24), computed];
        self.headed = header.starts_with(&[0x37, 0x7f, 6]) && sums(&header, 24) == computed;
        self.salt = self.headed.then(|| salt(&header, 16)).or(self.index.salt());
        let mut frame = [0; FRAME];
        while fill(&mut file, &mut frame)? {
            let found = salt(&frame, 8);
            let due = *self.salt.get_or_insert(found);
            let sums_of = |before: &Sums| {
                let sums = order.sum(*before, part(&frame, 0, 8));
                order.sum(sums, part(&frame, FRAME_HEADER, PAGE))
            };
            let stored = sums(&frame, 16);
            let computed: Vec<_> = states.iter().map(sums_of).collect();
            let intact = found == due && computed.contains(&stored);
            // The next frame follows what is stored here, or what should be.
            states = if intact { vec![stored] } else { [&[stored], &computed[..]].concat() };
            states.truncate(2);
            self.frames.push(WalFrame {
                page: number(&frame, 0),
                intact,
                ours: is_near(found, due),
                commits: number(&frame, 4) != 0,
            });
        }
        Ok(())
    }

    /// What of this log SQLite would drop although it was acknowledged, in words.
    pub(super) fn damage(&self) -> Option<String> {
        let good = if self.headed {
            self.frames.iter().take_while(|frame| frame.intact).count()
        } else {
            0
        };
        let recovered = self.committed(good);
        let ours = |frame: &&WalFrame| frame.ours;
        let behind = || self.frames.iter().skip(good).filter(ours);
        let commits = behind().filter(|frame| frame.commits).count();
        let lost = match self.index {
            // All of it is in the database, and nothing older of it in the way.
            WalIndex::Set { committed, restored, .. }
                if recovered == 0 && restored >= committed =>
            {
                false
            }
            WalIndex::Set { committed, salt, .. } if self.salt.is_none_or(|due| due == salt) => {
                recovered < committed || commits > 1
            }
            WalIndex::Absent => behind().next().is_some(),
            WalIndex::Set { .. } | WalIndex::Unreadable => {
                commits > 1 || !self.headed && behind().next().is_some()
            }
        };
        let whole = self.frames.iter().filter(ours).count();
        lost.then(|| {
            format!(
                "its log is damaged: SQLite would take {recovered} of {} page images",
                whole.max(self.index.committed())
            )
        })
    }

    /// The frames up to the last that ends a transaction, the oldest first. Where the newest image of a
    /// page is damaged and was brought into the database, that has it: none of the page's frames is here.
    pub(super) fn frames(&self) -> impl DoubleEndedIterator<Item = (usize, WalFrame)> {
        let end = self.committed(self.frames.len());
        let frames = self.frames.iter().copied().enumerate().take(end);
        let frames: Vec<_> = frames.filter(|(_, frame)| frame.ours).collect();
        let newest: BTreeMap<_, _> =
            frames.iter().map(|(number, frame)| (frame.page, (*number, frame.intact))).collect();
        let restored = if self.index.salt() == self.salt { self.index.restored() } else { 0 };
        let is_in_database = move |page: u32| {
            newest.get(&page).is_some_and(|(number, intact)| !intact && *number < restored)
        };
        frames.into_iter().filter(move |(_, frame)| !is_in_database(frame.page))
    }

    /// How many of the first frames end with one that commits.
    fn committed(&self, first: usize) -> usize {
        let last = self.frames.iter().take(first).rposition(|frame| frame.ours && frame.commits);
        last.map_or(0, |last| last + 1)
    }

    /// The page's image in a frame.
    pub(super) fn image(&self, frame: usize, page: &mut [u8; PAGE]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let offset = HEADER + frame * FRAME + FRAME_HEADER;
        file.read_exact_at(page, offset as u64)
    }
}

/// The same salt, or the same but for one damaged byte: another generation's has more that differ.
fn is_near(found: Salt, due: Salt) -> bool {
    found.into_iter().zip(due).filter(|(found, due)| found != due).count() <= 1
}
