//! Thales (Gemalto) IDPrime: a file system of a minidriver's, not of GIDS'. `docs/cards.md` has the
//! sources.
//!
//! The id is the file `cardid`, 16 bytes, that Windows wrote when it initialised the card. Where that
//! file lies stands in the index file; no PIN is needed for either.

use super::Transmit;
use super::apdu::{CommandApdu, SelectBy};
use super::exchange::{ExchangeError, read_file, send};
use super::family_result::{CardReading, IdWorth, NoReading, be, le, where_given};
use crate::domain::{IdRule, Serial};

/// The application.
const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x00, 0x18, 0x80, 0x00, 0x00, 0x00, 0x06, 0x62];

/// The index file.
const INDEX: [u8; 2] = [0x01, 0x01];

/// Where the file `cardid` is on every card known.
const USUAL_CARDID: [u8; 2] = [0x02, 0x01];

/// Files that every minidriver has (WDD `file-system-requirements.md`).
const FILES: [&str; 4] = ["cardid", "cardcf", "cardapps", "cmapfile"];

/// A file in the index, 21 bytes: file id and size, each 16 bits big-endian; name and directory,
/// NUL-padded.
#[derive(Debug)]
struct IndexEntry {
    file: [u8; 2],
    name: [u8; 8],
    directory: [u8; 9],
}

impl IndexEntry {
    const LENGTH: usize = 21;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (file, rest) = bytes.split_first_chunk()?;
        let (_size, rest) = rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_first_chunk()?;
        let directory = rest.try_into().ok()?;
        Some(Self { file: *file, name: *name, directory })
    }

    /// Whether this can be a file: a name in ASCII.
    fn is_named(&self) -> bool {
        let name = text(&self.name);
        !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
    }

    /// Whether this is a file that every minidriver has.
    fn is_known(&self) -> bool {
        let name = text(&self.name);
        FILES.iter().any(|file| name.eq_ignore_ascii_case(file.as_bytes()))
    }

    /// Whether this is the file `cardid` in the root directory; names have no case.
    fn is_cardid(&self) -> bool {
        text(&self.directory).is_empty() && text(&self.name).eq_ignore_ascii_case(b"cardid")
    }
}

/// A NUL-padded name without its padding.
fn text(padded: &[u8]) -> &[u8] {
    padded.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An application that no card has: a proprietary name (ISO 7816-4 section 8.2.1.2, F0).
const NOBODYS: [u8; 11] = *b"\xF0cardbridge";

/// Selects the application and reads the card id.
///
/// A card that accepts any SELECT may have files of its own under these numbers: an index has to be
/// there, or the card has to refuse the SELECT of an application that no card has.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let select_application = CommandApdu::select(&AID);
    send(transport, &select_application).map_err(NoReading::other_family)?;
    let (file, is_proven) = match read_index(transport) {
        Ok(index) if is_empty(&index) => (USUAL_CARDID, false),
        Ok(index) => {
            let rows = rows(&index);
            if !rows.iter().any(IndexEntry::is_known) {
                return Err(NoReading::OtherFamily("no index file where IDPrime has one".into()));
            }
            let listed = rows.iter().find(|row| row.is_cardid()).map(|row| row.file);
            (listed.unwrap_or(USUAL_CARDID), true)
        }
        Err(ExchangeError::Interrupted(why)) => return Err(why.into()),
        Err(_) => (USUAL_CARDID, false),
    };
    if !is_proven {
        if where_given(send(transport, &CommandApdu::select(&NOBODYS)))?.is_some() {
            return Err(NoReading::OtherFamily("card accepts SELECT of any application".into()));
        }
        send(transport, &select_application).map_err(NoReading::other_family)?;
    }
    let content = match read_cardid(transport, file) {
        Ok(content) => content,
        Err(why) if is_proven => return Err(NoReading::no_id("cardid", why)),
        Err(why) => return Err(NoReading::other_family(why)),
    };
    let Ok(raw) = <[u8; 16]>::try_from(content.as_slice()) else {
        let what = format!("cardid: {} bytes where 16 belong", content.len());
        return Err(if is_proven { NoReading::NoId(what) } else { NoReading::OtherFamily(what) });
    };
    let worth = IdWorth::of_bytes(raw);
    let ids = [le(IdRule::IdprimeCardid, raw, worth), be(IdRule::IdprimeCardidBe, raw, worth)];
    Ok(CardReading::new(Serial::from_bytes(&raw), ids, Some(select_application)))
}

fn read_index(transport: &mut dyn Transmit) -> Result<Vec<u8>, ExchangeError> {
    select(transport, INDEX)?;
    read_file(transport, |read| rows(read).iter().any(IndexEntry::is_cardid) || is_whole(read))
}

fn read_cardid(transport: &mut dyn Transmit, file: [u8; 2]) -> Result<Vec<u8>, ExchangeError> {
    select(transport, file)?;
    read_file(transport, |read| read.len() >= 16)
}

/// Selects a file as OpenSC does, by its path, or else by its identifier.
fn select(transport: &mut dyn Transmit, file: [u8; 2]) -> Result<(), ExchangeError> {
    match send(transport, &CommandApdu::select_file(SelectBy::PathFromMf, file)) {
        Err(ExchangeError::Refused(_)) => {
            send(transport, &CommandApdu::select_file(SelectBy::Identifier, file))
        }
        answer => answer,
    }
}

/// Whether an index is there that lists nothing, or of which not even a row could be read.
fn is_empty(index: &[u8]) -> bool {
    index.first() == Some(&0) || index.len() <= IndexEntry::LENGTH
}

/// Whether an index is there as far as its count says, or can be no index.
fn is_whole(index: &[u8]) -> bool {
    let Some((&count, rest)) = index.split_first() else { return false };
    let first = rest.get(..IndexEntry::LENGTH).and_then(IndexEntry::parse);
    first.is_some_and(|row| !row.is_named())
        || rest.len() >= usize::from(count) * IndexEntry::LENGTH
}

/// The rows of an index that are there: a count, and at most as many rows.
fn rows(index: &[u8]) -> Vec<IndexEntry> {
    let Some((&count, rest)) = index.split_first() else { return Vec::new() };
    let rows =
        rest.chunks_exact(IndexEntry::LENGTH).take(usize::from(count)).map_while(IndexEntry::parse);
    rows.take_while(IndexEntry::is_named).collect()
}

#[cfg(test)]
mod tests;
