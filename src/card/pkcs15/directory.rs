//! EF.DIR (ISO 7816-4 section 8.2.1.1): which applications a card has, and where.

use super::{EF_DIR, TOKEN_INFO};
use crate::card::TransmitError;
use crate::card::apdu::{CommandApdu, SelectBy};
use crate::card::files::CardFiles;
use crate::card::tlv::{self, Tlv};

/// Applications that are PKCS#15's, whatever they are called (OpenSC `src/libopensc/dir.c`).
const KNOWN: [&[u8]; 8] = [
    b"\xA0\x00\x00\x00\x63PKCS-15",
    // The Belgian and the Portuguese identity card.
    b"\xA0\x00\x00\x01\x77PKCS-15",
    b"DF issuer",
    // ESIGN.
    b"\xE8\x28\xBD\x08\x0F\xA0\x00\x00\x01\x67ESIGN",
    // CPx IAS, by contact and without.
    b"\xE8\x28\xBD\x08\x0F\x80\x25\x00\x00\x01\xFF\x00\x10",
    b"\xE8\x28\xBD\x08\x0F\x80\x25\x00\x00\x01\xFF\x00\x20",
    // ECC: eID, and generic PKI.
    b"\xE8\x28\xBD\x08\x0F\xD2PECC-eID",
    b"\xE8\x28\xBD\x08\x0F\xD2PGeneric",
];

/// Those that are looked for on cards without an EF.DIR as well: PKCS#15's own, and ESIGN.
pub(super) const WITHOUT_EF_DIR: [&[u8]; 2] = [KNOWN[0], KNOWN[3]];

/// How many records of an EF.DIR are read; OpenSC reads as many.
const MAX_RECORDS: u8 = 15;

/// How many applications are looked into.
const MAX_APPLICATIONS: usize = 4;

/// An application template, and in it name, path and discretionary data objects.
const TEMPLATE: u32 = 0x61;
const NAME: u32 = 0x4F;
const PATH: u32 = 0x51;
const DISCRETIONARY: u32 = 0x73;

/// In the discretionary data objects (ISO 7816-15 section 8.4): the path of EF.TokenInfo, and the
/// path as an OCTET STRING in it.
const TOKEN_INFO_PATH: u32 = 0xA0;
const OCTET_STRING: u32 = 0x04;

/// An application, as EF.DIR tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Application {
    name: Vec<u8>,
    path: Option<Vec<u8>>,
    token_info: Option<Vec<u8>>,
}

impl Application {
    fn parse(template: &[u8]) -> Option<Self> {
        let objects = tlv::before_padding(template);
        let more = tlv::only(&objects, DISCRETIONARY).map(tlv::before_padding).unwrap_or_default();
        let path = |objects: &[Tlv<'_>], tag| tlv::only(objects, tag).map(<[u8]>::to_vec);
        let token_info = tlv::only(&more, TOKEN_INFO_PATH)
            .and_then(|path| tlv::only(&tlv::before_padding(path), OCTET_STRING))
            .map(<[u8]>::to_vec);
        Some(Self {
            name: tlv::only(&objects, NAME)?.to_vec(),
            path: path(&objects, PATH).filter(|path| !path.is_empty()),
            token_info,
        })
    }

    fn is_known(&self) -> bool {
        KNOWN.contains(&self.name.as_slice())
    }

    /// Where its EF.TokenInfo is, where it is told as a path from the MF. One file alone is in the
    /// application's own DF.
    pub(super) fn token_info_path(&self) -> Option<Vec<u8>> {
        match self.token_info.as_deref() {
            Some(file @ [_, _]) => Some([self.path.as_deref()?, file].concat()),
            Some(path) => Some(path.to_vec()),
            None => Some([self.path.as_deref()?, &TOKEN_INFO].concat()),
        }
    }

    /// What selects it by its name.
    pub(super) fn select_by_name(&self) -> Option<CommandApdu> {
        CommandApdu::select_by(SelectBy::Name, &self.name)
    }
}

/// The applications of a card that could be PKCS#15's, those known to be first; none where there
/// is no EF.DIR.
pub(super) fn read(files: &mut CardFiles<'_>) -> Result<Vec<Application>, TransmitError> {
    if !files.select(&EF_DIR)? {
        return Ok(Vec::new());
    }
    let mut applications = match files.read(is_enough)? {
        Some(content) => parse(&content),
        // A file of records says no to READ BINARY.
        None => read_records(files)?,
    };
    applications.sort_by_key(|application| !application.is_known());
    applications.truncate(MAX_APPLICATIONS);
    Ok(applications)
}

fn read_records(files: &mut CardFiles<'_>) -> Result<Vec<Application>, TransmitError> {
    let mut applications = Vec::new();
    for number in 1..=MAX_RECORDS {
        let Some(record) = files.record(number)? else { break };
        applications.extend(parse(&record));
        if applications.last().is_some_and(Application::is_known) {
            break;
        }
    }
    Ok(applications)
}

/// Whether no more needs to be read: a known application is there, or what follows is no
/// application. That the last one ends where the reading does says nothing: a card may answer with
/// less than it was asked for.
fn is_enough(read: &[u8]) -> bool {
    if parse(read).iter().any(Application::is_known) {
        return true;
    }
    let mut rest = read;
    while let Ok((Tlv { tag: TEMPLATE, .. }, after)) = tlv::split(rest) {
        rest = after;
    }
    rest.first().is_some_and(|tag| u32::from(*tag) != TEMPLATE)
}

fn parse(content: &[u8]) -> Vec<Application> {
    let templates = tlv::before_padding(content);
    let templates = templates.iter().filter(|object| object.tag == TEMPLATE);
    templates.filter_map(|object| Application::parse(object.value)).collect()
}
