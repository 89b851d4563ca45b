//! PKCS#15 (ISO 7816-15): cards with a file system that describes itself. `docs/cards.md` has the
//! sources.
//!
//! The id is the serial number in EF.TokenInfo. EF.DIR says where that file is; without one it is in one
//! of a few usual places. What Windows calls such a card depends on the minidriver; known is what
//! OpenSC's makes of it.

use super::apdu::{CommandApdu, SelectBy};
use super::exchange::{exchange, optional};
use super::family_result::{CardReading, IdWorth, NoReading, le, opensc_cardid};
use super::files::CardFiles;
use super::tlv::{self, Tlv};
use super::{Transmit, TransmitError};
use crate::domain::{IdRule, Serial};

/// Files (ISO 7816-15 section 7.5): EF.DIR, the usual DF, and EF.TokenInfo in it.
const EF_DIR: [u8; 2] = [0x2F, 0x00];
const USUAL_DF: [u8; 2] = [0x50, 0x15];
const TOKEN_INFO: [u8; 2] = [0x50, 0x32];

/// EF.TokenInfo and its fields (ISO 7816-15 section 8.10): SEQUENCE, version, serial number.
const SEQUENCE: u32 = 0x30;
const INTEGER: u32 = 0x02;
const OCTET_STRING: u32 = 0x04;

/// IsoApplet: an application with a file system of its own, which has to be selected first.
const ISO_APPLET: [u8; 12] =
    [0xF2, 0x76, 0xA2, 0x88, 0xBC, 0xFB, 0xA6, 0x9D, 0x34, 0xF3, 0x10, 0x01];

/// Applications that are PKCS#15's by another name (OpenSC `src/libopensc/dir.c`).
const KNOWN: [&[u8]; 8] = [
    b"\xA0\x00\x00\x00\x63PKCS-15",
    // The Belgian and the Portuguese identity card.
    b"\xA0\x00\x00\x01\x77PKCS-15",
    b"DF issuer",
    // ESIGN.
    b"\xE8\x28\xBD\x08\x0F\xA0\x00\x00\x01\x67ESIGN",
    // CPx IAS, with contacts and without.
    b"\xE8\x28\xBD\x08\x0F\x80\x25\x00\x00\x01\xFF\x00\x10",
    b"\xE8\x28\xBD\x08\x0F\x80\x25\x00\x00\x01\xFF\x00\x20",
    // ECC: eID, and generic PKI.
    b"\xE8\x28\xBD\x08\x0F\xD2PECC-eID",
    b"\xE8\x28\xBD\x08\x0F\xD2PGeneric",
];

/// Those that are also tried where no EF.DIR names them: PKCS#15's own, and ESIGN.
const WITHOUT_EF_DIR: [&[u8]; 2] = [KNOWN[0], KNOWN[3]];

/// How many records of EF.DIR are read, as in OpenSC.
const MAX_RECORDS: u8 = 15;

const MAX_APPLICATIONS: usize = 4;

/// In EF.DIR (ISO 7816-4 section 8.2.1.1): an application template, and in it name, path and
/// discretionary data objects.
const TEMPLATE: u32 = 0x61;
const NAME: u32 = 0x4F;
const PATH: u32 = 0x51;
const DISCRETIONARY: u32 = 0x73;

/// In the discretionary data objects (ISO 7816-15 section 8.4): the path of EF.TokenInfo, an
/// `OCTET_STRING` in it.
const TOKEN_INFO_PATH: u32 = 0xA0;

struct TokenInfoFile {
    content: Vec<u8>,
    reselect: Option<CommandApdu>,
}

/// Finds EF.TokenInfo, by EF.DIR or in the usual places, and reads the serial number.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let mut files = CardFiles::new(transport);
    let mut found = in_file_system(&mut files)?;
    let is_closed = files.is_closed;
    if found.is_none() {
        found = in_usual_applications(transport)?;
    }
    let (serial, number) = match &found {
        Some(found) if let Some(number) = serial_number(&found.content) => {
            (Serial::from_bytes(number), number.to_vec())
        }
        Some(_) => opensc_serial(transport)?.ok_or_else(|| {
            NoReading::NoId("EF.TokenInfo has no serial number, nor has the card".into())
        })?,
        None => (if is_closed { opensc_serial_of_closed(transport)? } else { None })
            .ok_or_else(|| NoReading::OtherFamily("card has no EF.TokenInfo".into()))?,
    };
    let cardid = opensc_cardid(&serial.to_string());
    let ids = [le(IdRule::Pkcs15Opensc, cardid, id_worth(&number))];
    Ok(CardReading::new(serial, ids, found.and_then(|found| found.reselect)))
}

/// A serial number as OpenSC prints it, and as the card returns it.
type OpenscSerial = Option<(Serial, Vec<u8>)>;

/// The serial number that OpenSC's drivers read where EF.TokenInfo has none. OpenSC chooses the driver by
/// the ATR; here the length of the response decides.
///
/// Sources: OpenSC `src/libopensc/card-myeid.c`, `myeid_get_serialnr`, bytes 8 to 17 of 20 ("applet
/// information"); `card-cardos.c`, `cardos_get_serialnr`, 8 bytes, or bytes 10 to 15 of 32.
fn opensc_serial(transport: &mut dyn Transmit) -> Result<OpenscSerial, TransmitError> {
    let information = object(transport, &CommandApdu::get_data_current(0x01A0))?;
    if information.len() == 20 {
        return Ok(information.get(8..18).map(from_opensc_driver));
    }
    let product = object(transport, &CommandApdu::get_data_current(0x0181))?;
    let serial = match product.len() {
        8 => Some(product.as_slice()),
        32 => product.get(10..16),
        _ => None,
    };
    Ok(serial.map(from_opensc_driver))
}

/// The serial number of a card that does not allow SELECT of its files: an ePass2003 returns 8 bytes for
/// an Le of 8 (OpenSC `src/libopensc/card-epass2003.c`, `epass2003_get_serialnr`).
fn opensc_serial_of_closed(transport: &mut dyn Transmit) -> Result<OpenscSerial, TransmitError> {
    let serial = object(transport, &CommandApdu::get_data_current(0x0180).with_le(8))?;
    Ok((serial.len() == 8).then(|| from_opensc_driver(&serial)))
}

fn object(transport: &mut dyn Transmit, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
    Ok(optional(exchange(transport, command))?.unwrap_or_default())
}

fn from_opensc_driver(number: &[u8]) -> (Serial, Vec<u8>) {
    (Serial::from_opensc_driver(number), number.to_vec())
}

/// Lengths of a serial number that the minidriver neither cuts nor repeats.
const WHOLE: std::ops::RangeInclusive<usize> = 8..=16;

/// How many bytes a serial number must have without its filling.
const MIN_SIGNIFICANT: usize = 6;

/// As many bytes are repeated by chance in one of 16 million serial numbers.
const MIN_REPEATED: usize = 3;

/// What a serial number is worth, by what the minidriver makes of it: the same 16 bytes for two serial
/// numbers prove neither.
fn id_worth(number: &[u8]) -> IdWorth {
    let is_filling = |byte: &&u8| matches!(**byte, 0x00 | 0xFF | b' ' | b'0');
    let before = number.iter().take_while(is_filling).count();
    let behind = number.iter().rev().take_while(is_filling).count();
    let significant = number.len().saturating_sub(before + behind);
    let is_one_byte = number.len() > 1 && number.iter().all(|byte| Some(byte) == number.first());
    if significant == 0 || is_one_byte {
        IdWorth::Placeholder
    } else if WHOLE.contains(&number.len())
        && significant >= MIN_SIGNIFICANT
        && !(1..number.len()).any(|length| is_repeated(number, length))
    {
        IdWorth::Serial
    } else {
        IdWorth::Shared
    }
}

/// Whether a serial number may be its first `length` bytes, repeated by its issuer, or the minidriver
/// makes the same of both.
fn is_repeated(number: &[u8], length: usize) -> bool {
    let cardid = |number: &[u8]| opensc_cardid(&hex::encode(number));
    let (part, rest) = number.split_at_checked(length).unwrap_or((number, &[]));
    (rest.len() >= MIN_REPEATED && number.starts_with(rest)) || cardid(part) == cardid(number)
}

/// Looks where EF.DIR says, and else in the usual DF and in the MF.
fn in_file_system(files: &mut CardFiles<'_>) -> Result<Option<TokenInfoFile>, TransmitError> {
    let applications = read_directory(files)?;
    for application in &applications {
        let select = application.select_by_name();
        let content = match (application.token_info_path(), &select) {
            (Some(path), _) => token_info_at(files, &path)?,
            (None, Some(select)) if files.select_application(select)? => token_info_here(files)?,
            (None, _) => None,
        };
        if let Some(content) = content {
            return Ok(Some(TokenInfoFile { content, reselect: select }));
        }
    }
    let mut content = token_info_at(files, &[USUAL_DF, TOKEN_INFO].concat())?;
    if content.is_none() && applications.is_empty() {
        content = token_info_at(files, &TOKEN_INFO)?;
    }
    Ok(content.map(|content| TokenInfoFile { content, reselect: None }))
}

/// Looks in usual applications that no EF.DIR names.
fn in_usual_applications(
    transport: &mut dyn Transmit,
) -> Result<Option<TokenInfoFile>, TransmitError> {
    let mut files = CardFiles::new(transport);
    for name in WITHOUT_EF_DIR {
        let Some(select) = CommandApdu::select_by(SelectBy::Name, name) else { continue };
        if files.select_application(&select)?
            && let Some(content) = token_info_here(&mut files)?
        {
            return Ok(Some(TokenInfoFile { content, reselect: Some(select) }));
        }
    }
    let iso_applet = CommandApdu::select(&ISO_APPLET);
    if files.select_application(&iso_applet)?
        && let Some(found) = in_file_system(&mut CardFiles::new(transport))?
    {
        return Ok(Some(TokenInfoFile { reselect: Some(iso_applet), ..found }));
    }
    Ok(None)
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
    let is_enough = |read: &[u8]| !is_sequence(read) || tlv::split(read).is_ok();
    let is_token_info =
        |content: &Vec<u8>| fields(content).first().is_some_and(|version| version.tag == INTEGER);
    Ok(files.read(is_enough)?.filter(is_token_info))
}

/// The serial number in EF.TokenInfo; it is optional, and follows the version.
fn serial_number(content: &[u8]) -> Option<&[u8]> {
    let fields = fields(content);
    let number = fields.get(1).filter(|field| field.tag == OCTET_STRING)?;
    (!number.value.is_empty()).then_some(number.value)
}

/// The fields of the sequence at the front; none where there is no sequence.
fn fields(content: &[u8]) -> Vec<Tlv<'_>> {
    let sequence = tlv::split(content).ok().filter(|(object, _)| object.tag == SEQUENCE);
    sequence.and_then(|(sequence, _padding)| tlv::all(sequence.value).ok()).unwrap_or_default()
}

#[derive(Debug, PartialEq, Eq)]
struct Application {
    name: Vec<u8>,
    path: Option<Vec<u8>>,
    token_info: Option<Vec<u8>>,
}

impl Application {
    fn parse(template: &[u8]) -> Option<Self> {
        let objects = tlv::before_padding(template);
        let more = tlv::only(&objects, DISCRETIONARY).map(tlv::before_padding).unwrap_or_default();
        let token_info =
            tlv::only(&more, TOKEN_INFO_PATH).map(tlv::before_padding).unwrap_or_default();
        let path = tlv::only(&objects, PATH).filter(|path| !path.is_empty());
        Some(Self {
            name: tlv::only(&objects, NAME)?.to_vec(),
            path: path.map(<[u8]>::to_vec),
            token_info: tlv::only(&token_info, OCTET_STRING).map(<[u8]>::to_vec),
        })
    }

    fn is_known(&self) -> bool {
        KNOWN.contains(&self.name.as_slice())
    }

    /// The path of EF.TokenInfo from the MF, if EF.DIR has one. A single file is in the application's DF.
    fn token_info_path(&self) -> Option<Vec<u8>> {
        match self.token_info.as_deref() {
            Some(file @ [_, _]) => Some([self.path.as_deref()?, file].concat()),
            Some(path) => Some(path.to_vec()),
            None => Some([self.path.as_deref()?, &TOKEN_INFO].concat()),
        }
    }

    fn select_by_name(&self) -> Option<CommandApdu> {
        CommandApdu::select_by(SelectBy::Name, &self.name)
    }
}

/// The applications in EF.DIR that may be PKCS#15's, known ones first; none without EF.DIR.
fn read_directory(files: &mut CardFiles<'_>) -> Result<Vec<Application>, TransmitError> {
    if !files.select(&EF_DIR)? {
        return Ok(Vec::new());
    }
    let mut applications = match files.read(is_directory_enough)? {
        Some(content) => applications(&content),
        // A file of records refuses READ BINARY.
        None => read_records(files)?,
    };
    applications.sort_by_key(|application| !application.is_known());
    applications.truncate(MAX_APPLICATIONS);
    Ok(applications)
}

fn read_records(files: &mut CardFiles<'_>) -> Result<Vec<Application>, TransmitError> {
    let mut found = Vec::new();
    for number in 1..=MAX_RECORDS {
        let Some(record) = files.record(number)? else { break };
        found.extend(applications(&record));
        if found.last().is_some_and(Application::is_known) {
            break;
        }
    }
    Ok(found)
}

/// Whether a known application was read, or what follows is no application. The end of the content is
/// not the end of the file: a card may return less than Le.
fn is_directory_enough(content: &[u8]) -> bool {
    if applications(content).iter().any(Application::is_known) {
        return true;
    }
    let mut rest = content;
    while let Ok((Tlv { tag: TEMPLATE, .. }, after)) = tlv::split(rest) {
        rest = after;
    }
    rest.first().is_some_and(|tag| u32::from(*tag) != TEMPLATE)
}

fn applications(content: &[u8]) -> Vec<Application> {
    let templates = tlv::before_padding(content);
    let templates = templates.iter().filter(|object| object.tag == TEMPLATE);
    templates.filter_map(|object| Application::parse(object.value)).collect()
}

#[cfg(test)]
mod tests;
