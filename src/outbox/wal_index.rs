//! SQLite's index of the write-ahead log (`-shm`) as it lies on disk, and the checksum and the integers
//! that it has in common with the log. The layout is in `log.rs`.

use std::io;
use std::path::Path;

use super::error::OpenError;
use super::safe_open;

/// Two headers, and how much was brought into the database.
const SIZE: usize = 100;

pub(super) type Salt = [u8; 8];
pub(super) type Sums = (u32, u32);

/// What a `-shm` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalIndex {
    /// There is none.
    Absent,
    /// It says nothing.
    Unreadable,
    /// It belongs to a log.
    Set {
        /// Frames that belong to transactions that ended.
        committed: usize,
        /// Frames that were brought into the database.
        restored: usize,
        /// The generation's salt.
        salt: Salt,
    },
}

impl WalIndex {
    /// Reads that of the outbox at this path.
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        let path = safe_open::sibling_path(path, "-shm");
        let mut index = [0; SIZE];
        match safe_open::open(&path).and_then(|mut file| fill(&mut file, &mut index)) {
            Ok(true) => {}
            Ok(false) => return Ok(Self::Unreadable),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(source) => return Err(OpenError::Inaccessible { path, source }),
        }
        let copies = [part(&index, 0, 48), part(&index, 48, 48)];
        let native = |bytes: &[u8], at| u32::from_ne_bytes(array(bytes, at)) as usize;
        let set = copies.into_iter().filter(|copy| {
            let sum = ByteOrder::NATIVE.sum((0, 0), part(copy, 0, 40));
            let stored = (native(copy, 40), native(copy, 44));
            part(copy, 12, 1) == [1] && stored == (sum.0 as usize, sum.1 as usize)
        });
        // A kill between the two leaves one that counts more.
        let least = set.min_by_key(|copy| native(copy, 16));
        Ok(least.map_or(Self::Unreadable, |copy| Self::Set {
            committed: native(copy, 16),
            restored: native(&index, 96),
            salt: salt(copy, 32),
        }))
    }

    /// The salt of the log that it belongs to.
    pub(super) const fn salt(&self) -> Option<Salt> {
        match self {
            Self::Set { salt, .. } => Some(*salt),
            Self::Absent | Self::Unreadable => None,
        }
    }

    /// How many frames were brought into the database.
    pub(super) const fn restored(&self) -> usize {
        match self {
            Self::Set { restored, .. } => *restored,
            Self::Absent | Self::Unreadable => 0,
        }
    }

    /// How many frames it counts.
    pub(super) const fn committed(&self) -> usize {
        match self {
            Self::Set { committed, .. } => *committed,
            Self::Absent | Self::Unreadable => 0,
        }
    }
}

/// The byte order of the words that checksums are made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByteOrder {
    Big,
    Little,
}

impl ByteOrder {
    const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    pub(super) fn of(header: &[u8]) -> Self {
        match part(header, 0, 4) {
            [0x37, 0x7f, 6, 0x82] => Self::Little,
            [0x37, 0x7f, 6, 0x83] => Self::Big,
            _ => Self::NATIVE,
        }
    }

    /// SQLite's checksum over pairs of words, from where it was.
    pub(super) fn sum(self, (mut first, mut second): Sums, bytes: &[u8]) -> Sums {
        let word = |bytes, at| match self {
            Self::Big => u32::from_be_bytes(array(bytes, at)),
            Self::Little => u32::from_le_bytes(array(bytes, at)),
        };
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(pair, 0)).wrapping_add(second);
            second = second.wrapping_add(word(pair, 4)).wrapping_add(first);
        }
        (first, second)
    }
}

/// Whether there were as many bytes.
pub(super) fn fill(file: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn part(bytes: &[u8], at: usize, length: usize) -> &[u8] {
    bytes.get(at..at + length).unwrap_or_default()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    part(bytes, at, N).try_into().unwrap_or([0; N])
}

pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(super) fn sums(bytes: &[u8], at: usize) -> Sums {
    (number(bytes, at), number(bytes, at + 4))
}

pub(super) fn salt(bytes: &[u8], at: usize) -> Salt {
    array(bytes, at)
}
