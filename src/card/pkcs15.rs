//! PKCS#15 (ISO 7816-15): cards with a file system that describes itself. `docs/cards.md` has the
//! sources.
//!
//! The id is the serial number in EF.TokenInfo. Where that file lies stands in EF.DIR; where a card
//! has none, it is in one of a few usual places. What Windows calls such a card depends on the
//! minidriver; known is what OpenSC's makes of it.

use super::apdu::{CommandApdu, SelectBy};
use super::family_result::{CardReading, IdWorth, NoReading, le};
use super::files::CardFiles;
use super::opensc_minidriver;
use super::tlv;
use super::{Transmit, TransmitError};
use crate::domain::{IdRule, Serial};

mod directory;
mod opensc_serial;

use directory::Application;

/// Files (ISO 7816-15 section 7.5): EF.DIR, the usual DF, and EF.TokenInfo in it.
const EF_DIR: [u8; 2] = [0x2F, 0x00];
const USUAL_DF: [u8; 2] = [0x50, 0x15];
const TOKEN_INFO: [u8; 2] = [0x50, 0x32];

/// An application that holds a file system of its own, and has to be selected first: IsoApplet.
const ISO_APPLET: [u8; 12] =
    [0xF2, 0x76, 0xA2, 0x88, 0xBC, 0xFB, 0xA6, 0x9D, 0x34, 0xF3, 0x10, 0x01];

/// EF.TokenInfo and its fields (ISO 7816-15 section 8.10): SEQUENCE, version, serial number.
const SEQUENCE: u32 = 0x30;
const INTEGER: u32 = 0x02;
const OCTET_STRING: u32 = 0x04;

/// Where an EF.TokenInfo was found: its content, and what selects its application.
struct TokenInfoFile {
    content: Vec<u8>,
    home: Option<CommandApdu>,
}

/// Finds the application, by EF.DIR or in the usual places, and reads its serial number.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let mut files = CardFiles::new(transport);
    let found = in_file_system(&mut files)?;
    let is_closed = files.is_closed();
    let found = match found {
        Some(found) => Some(found),
        None => in_usual_applications(transport)?,
    };
    let Some((serial, number)) = serial_of(found.as_ref(), is_closed, transport)? else {
        return Err(match found {
            Some(_) => {
                NoReading::NoId("EF.TokenInfo has no serial number, nor has the card".into())
            }
            None => NoReading::OtherFamily("card has no EF.TokenInfo".into()),
        });
    };
    let home = found.and_then(|found| found.home);
    let ids = [le(
        IdRule::Pkcs15Opensc,
        opensc_minidriver::cardid(&serial.to_string()),
        id_worth(&number),
    )];
    Ok(CardReading::new(serial, ids, home))
}

/// The serial number in EF.TokenInfo, or the card's own; as text, and as it is.
fn serial_of(
    found: Option<&TokenInfoFile>,
    is_closed: bool,
    transport: &mut dyn Transmit,
) -> Result<Option<(Serial, Vec<u8>)>, TransmitError> {
    if let Some(number) = found.and_then(|found| serial_number(&found.content)) {
        return Ok(Some((Serial::from_bytes(number), number.to_vec())));
    }
    let number = if found.is_some() {
        opensc_serial::serial_number(transport)?
    } else if is_closed {
        opensc_serial::serial_of_closed(transport)?
    } else {
        None
    };
    Ok(number.map(|number| (Serial::from_opensc_driver(&number), number)))
}

/// The lengths of a serial number that the minidriver neither cuts nor repeats beyond doubt.
const WHOLE: std::ops::RangeInclusive<usize> = 8..=16;

/// How much of a serial number has to be left without what fills it up.
const MIN_SIGNIFICANT: usize = 6;

/// As many bytes as are the same by chance in one of 16 million serial numbers.
const MIN_REPEATED: usize = 3;

/// What a serial number is worth, by what the minidriver makes of it: the same 16 bytes of two
/// serial numbers prove neither.
fn id_worth(number: &[u8]) -> IdWorth {
    let filling = |byte: &&u8| matches!(**byte, 0x00 | 0xFF | b' ' | b'0');
    let before = number.iter().take_while(filling).count();
    let behind = number.iter().rev().take_while(filling).count();
    let significant = number.len().saturating_sub(before + behind);
    let repeats_a_byte = number.len() > 1 && number.iter().all(|byte| Some(byte) == number.first());
    if significant == 0 || repeats_a_byte {
        return IdWorth::Placeholder;
    }
    let is_serial = WHOLE.contains(&number.len())
        && significant >= MIN_SIGNIFICANT
        && !(1..number.len()).any(|length| is_repeated(number, length));
    if is_serial { IdWorth::Serial } else { IdWorth::Shared }
}

/// Whether a serial number may be its first `length` bytes, repeated by its issuer; or the minidriver
/// makes of it what it makes of those.
fn is_repeated(number: &[u8], length: usize) -> bool {
    let cardid = |number: &[u8]| opensc_minidriver::cardid(&hex::encode(number));
    let (part, rest) = number.split_at_checked(length).unwrap_or((number, &[]));
    let is_long_enough = rest.len() >= MIN_REPEATED;
    (is_long_enough && rest.iter().eq(number.iter().take(rest.len())))
        || cardid(part) == cardid(number)
}

/// Looks where EF.DIR says, and else in the usual DF and in the MF.
fn in_file_system(files: &mut CardFiles<'_>) -> Result<Option<TokenInfoFile>, TransmitError> {
    let applications = directory::read(files)?;
    for application in &applications {
        if let Some(content) = in_application(files, application)? {
            return Ok(Some(TokenInfoFile { content, home: application.select_by_name() }));
        }
    }
    let usual = [USUAL_DF, TOKEN_INFO].concat();
    let mut content = token_info_at(files, &usual)?;
    if content.is_none() && applications.is_empty() {
        content = token_info_at(files, &TOKEN_INFO)?;
    }
    Ok(content.map(|content| TokenInfoFile { content, home: None }))
}

/// Looks in applications that are usual, and in none that EF.DIR knows of.
fn in_usual_applications(
    transport: &mut dyn Transmit,
) -> Result<Option<TokenInfoFile>, TransmitError> {
    let mut files = CardFiles::new(transport);
    for name in directory::WITHOUT_EF_DIR {
        let Some(select) = CommandApdu::select_by(SelectBy::Name, name) else { continue };
        if files.select_application(&select)?
            && let Some(content) = token_info_here(&mut files)?
        {
            return Ok(Some(TokenInfoFile { content, home: Some(select) }));
        }
    }
    let iso_applet = CommandApdu::select(&ISO_APPLET);
    if files.select_application(&iso_applet)?
        && let Some(found) = in_file_system(&mut CardFiles::new(transport))?
    {
        return Ok(Some(TokenInfoFile { home: Some(iso_applet), ..found }));
    }
    Ok(None)
}

fn in_application(
    files: &mut CardFiles<'_>,
    application: &Application,
) -> Result<Option<Vec<u8>>, TransmitError> {
    if let Some(path) = application.token_info_path() {
        return token_info_at(files, &path);
    }
    match application.select_by_name() {
        Some(select) if files.select_application(&select)? => token_info_here(files),
        _ => Ok(None),
    }
}

/// EF.TokenInfo at a path from the MF.
fn token_info_at(files: &mut CardFiles<'_>, path: &[u8]) -> Result<Option<Vec<u8>>, TransmitError> {
    if files.select(path)? { read_token_info(files) } else { Ok(None) }
}

/// EF.TokenInfo in the current DF.
fn token_info_here(files: &mut CardFiles<'_>) -> Result<Option<Vec<u8>>, TransmitError> {
    if files.select_child(TOKEN_INFO)? { read_token_info(files) } else { Ok(None) }
}

fn read_token_info(files: &mut CardFiles<'_>) -> Result<Option<Vec<u8>>, TransmitError> {
    let is_sequence = |read: &[u8]| read.first().is_some_and(|tag| u32::from(*tag) == SEQUENCE);
    let enough = |read: &[u8]| !is_sequence(read) || tlv::split(read).is_ok();
    Ok(files.read(enough)?.filter(|content| is_token_info(content)))
}

/// Whether the content begins as an EF.TokenInfo does: a sequence whose first field is a version.
fn is_token_info(content: &[u8]) -> bool {
    fields(content).first().is_some_and(|version| version.tag == INTEGER)
}

/// The serial number; it is optional, and follows the version.
fn serial_number(content: &[u8]) -> Option<&[u8]> {
    let fields = fields(content);
    let number = fields.get(1).filter(|field| field.tag == OCTET_STRING)?;
    (!number.value.is_empty()).then_some(number.value)
}

fn fields(content: &[u8]) -> Vec<tlv::Tlv<'_>> {
    match tlv::split(content) {
        Ok((sequence, _padding)) if sequence.tag == SEQUENCE => {
            tlv::all(sequence.value).unwrap_or_default()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
