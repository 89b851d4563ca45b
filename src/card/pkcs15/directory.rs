//! EF.DIR (ISO 7816-4 section 8.2.1.1): which applications a card has, and where.

use super::{EF_DIR, TOKEN_INFO, select_path};
use crate::card::apdu::{By, Command};
use crate::card::exchange::{NoAnswer, ask, read_file};
use crate::card::tlv::{self, Tlv};
use crate::card::{Interrupted, Transmit};

/// Applications that are PKCS#15's, whatever they are called (OpenSC `src/libopensc/dir.c`): its
/// own, and ESIGN.
pub(super) const KNOWN: [&[u8]; 2] = [
    &[0xA0, 0x00, 0x00, 0x00, 0x63, 0x50, 0x4B, 0x43, 0x53, 0x2D, 0x31, 0x35],
    &[0xE8, 0x28, 0xBD, 0x08, 0x0F, 0xA0, 0x00, 0x00, 0x01, 0x67, 0x45, 0x53, 0x49, 0x47, 0x4E],
];

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

    /// Where its EF.TokenInfo is, where it is told as a path from the MF.
    pub(super) fn token_info_path(&self) -> Option<Vec<u8>> {
        let usual = || Some([self.path.as_deref()?, &TOKEN_INFO].concat());
        self.token_info.clone().or_else(usual)
    }

    /// What selects it by its name.
    pub(super) fn select_by_name(&self) -> Option<Command> {
        Command::select_by(By::Name, &self.name)
    }
}

/// The applications of a card that could be PKCS#15's, those known to be first; none where there
/// is no EF.DIR.
pub(super) fn read(transport: &mut dyn Transmit) -> Result<Vec<Application>, Interrupted> {
    if !select_path(transport, &EF_DIR)? {
        return Ok(Vec::new());
    }
    let mut applications = match read_file(transport, is_whole) {
        Ok(content) => parse(&content),
        Err(NoAnswer::Interrupted(why)) => return Err(why),
        // A file of records says no to READ BINARY.
        Err(NoAnswer::Refused(_)) => read_records(transport)?,
        Err(NoAnswer::Truncated(_) | NoAnswer::Endless) => Vec::new(),
    };
    applications.sort_by_key(|application| !KNOWN.contains(&application.name.as_slice()));
    applications.truncate(MAX_APPLICATIONS);
    Ok(applications)
}

fn read_records(transport: &mut dyn Transmit) -> Result<Vec<Application>, Interrupted> {
    let mut applications = Vec::new();
    for number in 1..=MAX_RECORDS {
        match ask(transport, &Command::read_record(number)) {
            Ok(record) => applications.extend(parse(&record)),
            Err(NoAnswer::Interrupted(why)) => return Err(why),
            Err(NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless) => break,
        }
    }
    Ok(applications)
}

/// Whether what was read ends with an application, or goes on with something else.
fn is_whole(mut read: &[u8]) -> bool {
    while let Ok((_, rest)) = tlv::split(read) {
        read = rest;
    }
    read.first().is_none_or(|tag| u32::from(*tag) != TEMPLATE)
}

fn parse(content: &[u8]) -> Vec<Application> {
    let templates = tlv::before_padding(content);
    let templates = templates.iter().filter(|object| object.tag == TEMPLATE);
    templates.filter_map(|object| Application::parse(object.value)).collect()
}
