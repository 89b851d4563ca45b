//! Thales (Gemalto) IDPrime: a minidriver's file system, other than that of GIDS. `docs/cards.md` has the
//! sources.
//!
//! The id is the 16-byte file `cardid` that Windows writes when it initialises the card. The index file
//! says where that file is. Neither needs a PIN.

use super::Transmit;
use super::apdu::{CommandApdu, SelectBy};
use super::exchange::{ExchangeError, optional, read_file, send};
use super::family_result::{CardReading, NoReading};
use super::gids::{cardid_reading, is_cardid, nul_padded};
use crate::domain::IdRule;

const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x00, 0x18, 0x80, 0x00, 0x00, 0x00, 0x06, 0x62];

/// An application that no card has: a proprietary name (ISO 7816-4 section 8.2.1.2, F0).
const UNKNOWN_AID: [u8; 11] = *b"\xF0cardbridge";

const INDEX: [u8; 2] = [0x01, 0x01];

/// Where `cardid` is on every known card.
const USUAL_CARDID: [u8; 2] = [0x02, 0x01];

/// Files that every minidriver has (WDD `file-system-requirements.md`).
const FILES: [&str; 4] = ["cardid", "cardcf", "cardapps", "cmapfile"];

/// Bytes of an index entry: file id and size, 16 bits big-endian each; name (8) and directory (9),
/// NUL-padded.
const ENTRY: usize = 21;

/// Selects the application and reads `cardid`.
///
/// A card that accepts any SELECT may have other files under these numbers. So either the index must
/// exist, or the card must refuse an application that no card has.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let select_application = CommandApdu::select(&AID);
    send(transport, &select_application).map_err(NoReading::other_family)?;
    let (file, is_proven) = match read_index(transport) {
        Ok(index) if is_empty(&index) => (USUAL_CARDID, false),
        Ok(index) => (find_cardid(&index)?, true),
        Err(ExchangeError::Interrupted(error)) => return Err(error.into()),
        Err(_) => (USUAL_CARDID, false),
    };
    if !is_proven {
        if optional(send(transport, &CommandApdu::select(&UNKNOWN_AID)))?.is_some() {
            return Err(NoReading::OtherFamily("card accepts SELECT of any application".into()));
        }
        send(transport, &select_application).map_err(NoReading::other_family)?;
    }
    let content = match select(transport, file)
        .and_then(|()| read_file(transport, |content| content.len() >= 16))
    {
        Ok(content) => content,
        Err(error) if is_proven => return Err(NoReading::no_id("cardid", error)),
        Err(error) => return Err(NoReading::other_family(error)),
    };
    let Ok(cardid) = <[u8; 16]>::try_from(content.as_slice()) else {
        let detail = format!("cardid: {} bytes where 16 belong", content.len());
        let no_reading = if is_proven { NoReading::NoId } else { NoReading::OtherFamily };
        return Err(no_reading(detail));
    };
    let rules = [IdRule::IdprimeCardid, IdRule::IdprimeCardidBe];
    Ok(cardid_reading(cardid, rules, select_application))
}

fn read_index(transport: &mut dyn Transmit) -> Result<Vec<u8>, ExchangeError> {
    select(transport, INDEX)?;
    read_file(transport, |index| {
        entries(index).iter().any(|entry| is_entry_of_cardid(entry)) || is_complete(index)
    })
}

/// Selects a file by its path, as OpenSC does, or else by its identifier.
fn select(transport: &mut dyn Transmit, file: [u8; 2]) -> Result<(), ExchangeError> {
    match send(transport, &CommandApdu::select_file(SelectBy::PathFromMf, file)) {
        Err(ExchangeError::Refused(_)) => {
            send(transport, &CommandApdu::select_file(SelectBy::Identifier, file))
        }
        other => other,
    }
}

/// Whether the index lists nothing, or not even one entry could be read.
fn is_empty(index: &[u8]) -> bool {
    index.first() == Some(&0) || index.len() <= ENTRY
}

/// Whether the index has as many entries as its count says, or can be no index.
fn is_complete(index: &[u8]) -> bool {
    let Some((&count, rest)) = index.split_first() else { return false };
    rest.first_chunk::<ENTRY>().is_some_and(|entry| !is_named(entry))
        || rest.len() >= usize::from(count) * ENTRY
}

/// The entries of an index, after their count.
fn entries(index: &[u8]) -> Vec<&[u8; ENTRY]> {
    let Some((&count, rest)) = index.split_first() else { return Vec::new() };
    let (entries, _partial) = rest.as_chunks::<ENTRY>();
    entries.iter().take(usize::from(count)).take_while(|entry| is_named(entry)).collect()
}

fn find_cardid(index: &[u8]) -> Result<[u8; 2], NoReading> {
    let entries = entries(index);
    let is_known =
        |file: &&str| entries.iter().any(|entry| name(entry).eq_ignore_ascii_case(file.as_bytes()));
    if !FILES.iter().any(is_known) {
        return Err(NoReading::OtherFamily("no index file where IDPrime has one".into()));
    }
    let listed = entries.iter().find(|entry| is_entry_of_cardid(entry));
    Ok(listed.map_or(USUAL_CARDID, |entry| [entry[0], entry[1]]))
}

fn name(entry: &[u8; ENTRY]) -> &[u8] {
    nul_padded(&entry[4..12])
}

fn is_named(entry: &[u8; ENTRY]) -> bool {
    !name(entry).is_empty() && name(entry).iter().all(u8::is_ascii_graphic)
}

fn is_entry_of_cardid(entry: &[u8; ENTRY]) -> bool {
    is_cardid(&entry[12..], name(entry))
}

#[cfg(test)]
mod tests;
