//! PKCS#15 (ISO 7816-15): cards with a file system that describes itself. `docs/cards.md` has the
//! sources.
//!
//! The id is the serial number in EF.TokenInfo. Where that file lies stands in EF.DIR; where a card
//! has none, it is in one of a few usual places. What Windows calls such a card depends on the
//! minidriver; known is what OpenSC's makes of it.

use super::apdu::{By, Command, StatusWord};
use super::exchange::{NoAnswer, ask, read_file};
use super::opensc;
use super::reading::{Miss, Reading, le};
use super::tlv;
use super::{Interrupted, Transmit};
use crate::domain::{Atr, IdRule, Serial};

mod directory;
mod driver;

use directory::Application;

/// Files (ISO 7816-15 section 7.5): the MF, EF.DIR, the usual DF, and EF.TokenInfo in it.
const MF: [u8; 2] = [0x3F, 0x00];
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
struct Found {
    content: Vec<u8>,
    home: Option<Command>,
}

/// Finds the application, by EF.DIR or in the usual places, and reads its serial number.
pub(super) fn probe(transport: &mut dyn Transmit, atr: &Atr) -> Result<Reading, Miss> {
    let found = match in_file_system(transport)? {
        Some(found) => Some(found),
        None => in_usual_applications(transport)?,
    };
    let Some(Found { content, home }) = found else {
        return Err(Miss::OtherFamily("card has no EF.TokenInfo".into()));
    };
    let number = match serial_number(&content) {
        Some(number) => Some(number.to_vec()),
        None => driver::serial_number(transport, atr)?,
    };
    let Some(number) = number else {
        return Err(Miss::NoId("EF.TokenInfo has no serial number, nor has the card".into()));
    };
    let serial = Serial::from_bytes(&number);
    let cardid = opensc::cardid(&serial.to_string());
    let candidates = le(IdRule::Pkcs15Opensc, cardid).into_iter().collect();
    Ok(Reading { serial, candidates, home })
}

/// Looks where EF.DIR says, and else in the usual DF.
fn in_file_system(transport: &mut dyn Transmit) -> Result<Option<Found>, Interrupted> {
    for application in directory::read(transport)? {
        if let Some(content) = in_application(transport, &application)? {
            return Ok(Some(Found { content, home: application.select_by_name() }));
        }
    }
    let usual = [USUAL_DF, TOKEN_INFO].concat();
    let content = token_info_at(transport, &usual)?;
    Ok(content.map(|content| Found { content, home: None }))
}

/// Looks in applications that are usual, and in none that EF.DIR knows of.
fn in_usual_applications(transport: &mut dyn Transmit) -> Result<Option<Found>, Interrupted> {
    let iso_applet = Command::select(&ISO_APPLET);
    if accepted(ask(transport, &iso_applet))?
        && let Some(found) = in_file_system(transport)?
    {
        return Ok(Some(Found { home: Some(iso_applet), ..found }));
    }
    for name in directory::KNOWN {
        let Some(select) = Command::select_by(By::Name, name) else { continue };
        if accepted(ask(transport, &select))?
            && let Some(content) = token_info_here(transport)?
        {
            return Ok(Some(Found { content, home: Some(select) }));
        }
    }
    Ok(None)
}

fn in_application(
    transport: &mut dyn Transmit,
    application: &Application,
) -> Result<Option<Vec<u8>>, Interrupted> {
    if let Some(path) = application.token_info_path() {
        return token_info_at(transport, &path);
    }
    match application.select_by_name() {
        Some(select) if accepted(ask(transport, &select))? => token_info_here(transport),
        _ => Ok(None),
    }
}

/// EF.TokenInfo at a path from the MF.
fn token_info_at(
    transport: &mut dyn Transmit,
    path: &[u8],
) -> Result<Option<Vec<u8>>, Interrupted> {
    if select_path(transport, path)? { read_token_info(transport) } else { Ok(None) }
}

/// EF.TokenInfo in the current DF.
fn token_info_here(transport: &mut dyn Transmit) -> Result<Option<Vec<u8>>, Interrupted> {
    for by in [By::ChildEf, By::Identifier] {
        if select(transport, &Command::select_file(by, TOKEN_INFO))? {
            return read_token_info(transport);
        }
    }
    Ok(None)
}

fn read_token_info(transport: &mut dyn Transmit) -> Result<Option<Vec<u8>>, Interrupted> {
    let is_sequence = |read: &[u8]| read.first().is_some_and(|tag| u32::from(*tag) == SEQUENCE);
    let enough = |read: &[u8]| !is_sequence(read) || tlv::split(read).is_ok();
    match read_file(transport, enough) {
        Ok(content) => Ok(is_token_info(&content).then_some(content)),
        Err(NoAnswer::Interrupted(why)) => Err(why),
        Err(NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless) => Ok(None),
    }
}

/// Selects a file by its path from the MF: in one step, or file by file where a card knows no paths.
fn select_path(transport: &mut dyn Transmit, path: &[u8]) -> Result<bool, Interrupted> {
    let path = path.strip_prefix(&MF).unwrap_or(path);
    let Some(in_one_step) = Command::select_by(By::PathFromMf, path) else { return Ok(false) };
    if select(transport, &in_one_step)? {
        return Ok(true);
    }
    if !select(transport, &Command::select_file(By::Identifier, MF))? {
        return Ok(false);
    }
    let (steps, _) = path.as_chunks::<2>();
    let Some((last, dfs)) = steps.split_last() else { return Ok(false) };
    for df in dfs {
        if !select(transport, &Command::select_file(By::Identifier, *df))? {
            return Ok(false);
        }
    }
    for by in [By::ChildEf, By::Identifier] {
        if select(transport, &Command::select_file(by, *last))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Selects; a card that does not know the wish for an answer is asked without.
fn select(transport: &mut dyn Transmit, command: &Command) -> Result<bool, Interrupted> {
    match ask(transport, command) {
        Err(NoAnswer::Refused(StatusWord::Absent(0x6A86))) => {
            accepted(ask(transport, &command.clone().without_answer()))
        }
        answer => accepted(answer),
    }
}

fn accepted(answer: Result<Vec<u8>, NoAnswer>) -> Result<bool, Interrupted> {
    match answer {
        Ok(_) => Ok(true),
        Err(NoAnswer::Interrupted(why)) => Err(why),
        Err(NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless) => Ok(false),
    }
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
