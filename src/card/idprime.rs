//! Thales (Gemalto) IDPrime: a file system of a minidriver's, not of GIDS'. `docs/cards.md` has the
//! sources.
//!
//! The id is the file `cardid`, 16 bytes, that Windows wrote when it initialised the card. Where that
//! file lies stands in the index file; no PIN is needed for either.

use super::Transmit;
use super::apdu::{By, Command};
use super::exchange::{NoAnswer, ask, read_file};
use super::reading::{Miss, Reading, be, le};
use crate::domain::{IdRule, Serial};

/// The application.
const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x00, 0x18, 0x80, 0x00, 0x00, 0x00, 0x06, 0x62];

/// The index file.
const INDEX: [u8; 2] = [0x01, 0x01];

/// Where the file `cardid` is on every card known.
const USUAL_CARDID: [u8; 2] = [0x02, 0x01];

/// A file in the index, 21 bytes: file id and size, each 16 bits big-endian; name and directory,
/// NUL-padded.
#[derive(Debug)]
struct Row {
    file: [u8; 2],
    name: [u8; 8],
    directory: [u8; 9],
}

impl Row {
    const LENGTH: usize = 21;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (file, rest) = bytes.split_first_chunk()?;
        let (_size, rest) = rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_first_chunk()?;
        let directory = rest.try_into().ok()?;
        Some(Self { file: *file, name: *name, directory })
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

/// Selects the application and reads the card id.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<Reading, Miss> {
    ask(transport, &Command::select(&AID)).map_err(Miss::other_family)?;
    let index = read_index(transport).map_err(Miss::other_family)?;
    let Some(rows) = rows(&index) else {
        return Err(Miss::OtherFamily("no index file where IDPrime has one".into()));
    };
    let listed = rows.iter().find(|row| row.is_cardid()).map(|row| row.file);
    let content = read_cardid(transport, listed.unwrap_or(USUAL_CARDID))
        .map_err(|why| Miss::no_id("cardid", why))?;
    let Ok(raw) = <[u8; 16]>::try_from(content.as_slice()) else {
        return Err(Miss::NoId(format!("cardid: {} bytes where 16 belong", content.len())));
    };
    let candidates = [le(IdRule::IdprimeCardid, raw), be(IdRule::IdprimeCardidBe, raw)];
    Ok(Reading {
        serial: Serial::from_bytes(&raw),
        candidates: candidates.into_iter().flatten().collect(),
        home: Some(Command::select(&AID)),
    })
}

fn read_index(transport: &mut dyn Transmit) -> Result<Vec<u8>, NoAnswer> {
    select(transport, INDEX)?;
    read_file(transport, |read| read.first() == Some(&0) || rows(read).is_some())
}

fn read_cardid(transport: &mut dyn Transmit, file: [u8; 2]) -> Result<Vec<u8>, NoAnswer> {
    select(transport, file)?;
    read_file(transport, |read| read.len() >= 16)
}

/// Selects a file as OpenSC does, by its path, or else by its identifier.
fn select(transport: &mut dyn Transmit, file: [u8; 2]) -> Result<(), NoAnswer> {
    match ask(transport, &Command::select_file(By::PathFromMf, file)) {
        Err(NoAnswer::Refused(_)) => {
            ask(transport, &Command::select_file(By::Identifier, file)).map(drop)
        }
        answer => answer.map(drop),
    }
}

/// The rows of an index that is complete: a count, and as many rows.
fn rows(index: &[u8]) -> Option<Vec<Row>> {
    let (&count, rest) = index.split_first()?;
    if count == 0 {
        return None;
    }
    let rows = rest.get(..usize::from(count) * Row::LENGTH)?;
    rows.chunks_exact(Row::LENGTH).map(Row::parse).collect()
}

#[cfg(test)]
mod tests;
