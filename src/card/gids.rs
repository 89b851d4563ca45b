//! Microsoft's Generic Identity Device Specification: what TPM virtual smart cards and many cards
//! behind Windows' own minidriver speak. `docs/cards.md` has the sources.
//!
//! The id is the 16-byte file `cardid` that Windows wrote when it initialised the card. Where that
//! file lies stands in the master file table; no PIN is needed for either.

use super::Transmit;
use super::apdu::CommandApdu;
use super::exchange::{ExchangeError, exchange, select};
use super::family_result::{CardReading, IdWorth, NoReading, be, le};
use super::tlv::{self, Tlv, TlvError};
use crate::domain::{IdRule, Serial};

/// The application, without the two bytes for revision and variant that follow.
const AID: [u8; 9] = [0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59];

/// The application template in the answer to SELECT, and the AID in it.
const APPLICATION: u32 = 0x61;
const APPLICATION_ID: u32 = 0x4F;

/// Where a data object lies: the file that holds it, and its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ObjectLocation {
    file: u16,
    object: u32,
}

/// The master file table.
const TABLE: ObjectLocation = ObjectLocation { file: 0xA000, object: 0xDF1F };

/// Where the factory's table puts the card id.
const DEFAULT_CARDID: ObjectLocation = ObjectLocation { file: 0xA012, object: 0xDF20 };

/// Selects the application and reads the card id.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let selected =
        select(transport, &CommandApdu::select(&AID)).map_err(NoReading::other_family)?;
    if is_gids(&selected) {
        let table = exchange(transport, &TABLE.command());
        return read(transport, table);
    }
    // Cards exist that accept any SELECT, and others that say nothing, or say it in another way.
    probe_selected(transport)
}

/// Reads the card id without a SELECT: only a file table proves that the application is there.
pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let table = exchange(transport, &TABLE.command()).map_err(NoReading::other_family)?;
    if tlv::value(&table, TABLE.object).is_err() {
        return Err(NoReading::OtherFamily("no file table where GIDS has one".into()));
    }
    read(transport, Ok(table))
}

fn read(
    transport: &mut dyn Transmit,
    table: Result<Vec<u8>, ExchangeError>,
) -> Result<CardReading, NoReading> {
    let place = match table {
        Ok(answer) => {
            find_cardid(&answer).map_err(|why| NoReading::NoId(format!("file table: {why}")))?
        }
        // A table that is there and says something else is believed; one that cannot be read is not.
        Err(ExchangeError::Refused(_)) => DEFAULT_CARDID,
        Err(why) => return Err(NoReading::no_id("file table", why)),
    };
    let answer =
        exchange(transport, &place.command()).map_err(|why| NoReading::no_id("cardid", why))?;
    read_cardid(place, &answer).map_err(|why| NoReading::NoId(format!("cardid: {why}")))
}

impl ObjectLocation {
    fn command(self) -> CommandApdu {
        CommandApdu::get_data(self.file, self.object)
    }
}

/// Whether the answer to SELECT names the application.
fn is_gids(answer: &[u8]) -> bool {
    let objects = tlv::value(answer, APPLICATION).map(tlv::before_padding).unwrap_or_default();
    objects.iter().any(|Tlv { tag, value }| *tag == APPLICATION_ID && value.starts_with(&AID))
}

/// Why an answer holds no card id, or no place of one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum CardIdFileError {
    #[error(transparent)]
    Shape(#[from] TlvError),
    #[error("unsupported file table version {0:?}")]
    Version(Option<u8>),
    #[error("file table has no `cardid` file")]
    NotListed,
    #[error("file table points `cardid` to invalid object {object:X} in file {file:X}")]
    Place { file: u32, object: u32 },
    #[error("`cardid` has {0} bytes, expected 16")]
    Length(usize),
}

/// The first byte of a file table whose layout is known.
const TABLE_VERSION: u8 = 1;

/// One record of the file table, 28 bytes: directory and name, NUL-padded; two bytes of padding; tag and
/// file id, each 32 bits little-endian.
struct FileTableEntry {
    directory: [u8; 9],
    name: [u8; 9],
    object: u32,
    file: u32,
}

impl FileTableEntry {
    /// A record from the front of the input; `None` where too little is left for one.
    fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (directory, rest) = input.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (_padding, rest) = rest.split_first_chunk::<2>()?;
        let (object, rest) = rest.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let record = Self {
            directory: *directory,
            name: *name,
            object: u32::from_le_bytes(*object),
            file: u32::from_le_bytes(*file),
        };
        Some((record, rest))
    }

    /// Whether this is the file `cardid` in the root directory; names have no case.
    fn is_cardid(&self) -> bool {
        text(&self.directory).is_empty() && text(&self.name).eq_ignore_ascii_case(b"cardid")
    }

    fn place(&self) -> Result<ObjectLocation, CardIdFileError> {
        let Self { file, object, .. } = *self;
        match u16::try_from(file) {
            Ok(file) if object <= 0xFFFF => Ok(ObjectLocation { file, object }),
            _ => Err(CardIdFileError::Place { file, object }),
        }
    }
}

/// A NUL-padded name without its padding.
fn text(padded: &[u8]) -> &[u8] {
    padded.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Looks `cardid` up in the answer that holds the file table. A partial record at the end is
/// ignored.
fn find_cardid(answer: &[u8]) -> Result<ObjectLocation, CardIdFileError> {
    let table = tlv::value(answer, TABLE.object)?;
    let Some((&TABLE_VERSION, mut records)) = table.split_first() else {
        return Err(CardIdFileError::Version(table.first().copied()));
    };
    while let Some((record, rest)) = FileTableEntry::split(records) {
        if record.is_cardid() {
            return record.place();
        }
        records = rest;
    }
    Err(CardIdFileError::NotListed)
}

/// Makes the ids of the 16 bytes that the answer holds.
///
/// They are a Windows GUID in memory order; a card id that was typed in by hand may be in reading
/// order instead.
fn read_cardid(place: ObjectLocation, answer: &[u8]) -> Result<CardReading, CardIdFileError> {
    let value = tlv::value(answer, place.object)?;
    let raw: [u8; 16] = value.try_into().map_err(|_| CardIdFileError::Length(value.len()))?;
    let worth = IdWorth::of_bytes(raw);
    let ids = [le(IdRule::GidsCardid, raw, worth), be(IdRule::GidsCardidBe, raw, worth)];
    Ok(CardReading::new(Serial::from_bytes(&raw), ids, Some(CommandApdu::select(&AID))))
}

#[cfg(test)]
mod tests;
