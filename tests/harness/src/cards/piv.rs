//! A PIV applet (NIST SP 800-73), as far as an identification without a PIN
//! sees one.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::apdu::{
    Answer, Command, NO_SUCH_CLASS, NO_SUCH_COMMAND, NOT_FOUND, WRONG_DATA, WRONG_PARAMETERS,
    object,
};
use super::applet::{Applet, is_part_of};
use super::hex_text::{Exactly, Hex, Word};

const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00, 0x01, 0x00];
const PROVIDER: [u8; 5] = [0xA0, 0x00, 0x00, 0x03, 0x08];
const CHUID: [u8; 3] = [0x5F, 0xC1, 0x02];
const CCC: [u8; 3] = [0x5F, 0xC1, 0x07];
const DISCOVERY: [u8; 1] = [0x7E];

/// The table `[piv]` of a personalisation file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personal {
    /// What 4F holds in the answer to SELECT.
    #[serde(default)]
    select_aid: SelectAid,
    /// Of the CHUID; without any of these three there is none.
    fascn: Option<Exactly<25>>,
    guid: Option<Exactly<16>>,
    /// Bytes of the CHUID's issuer signature.
    signature: Option<usize>,
    /// The CHUID's content as a whole, instead.
    chuid: Option<Hex>,
    /// The card identifier (F0) of the CCC; without it there is no CCC.
    card_identifier: Option<Exactly<21>>,
    #[serde(default)]
    discovery: bool,
    /// Answers to instruction F8, as a `YubiKey` does.
    serial: Option<Exactly<4>>,
    /// Answers to instruction FD, likewise.
    version: Option<Exactly<3>>,
    /// Objects whose reading is refused, by tag.
    #[serde(default)]
    refused: BTreeMap<String, Word>,
    pub(super) pin: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SelectAid {
    /// The proprietary extension alone: `00 00 10 00 01 00`.
    #[default]
    Pix,
    /// As on early cards.
    Full,
}

impl Personal {
    /// The applet as personalised.
    pub(super) fn applet(self) -> Result<Piv> {
        let has_parts = self.fascn.is_some() || self.guid.is_some() || self.signature.is_some();
        ensure!(
            self.chuid.is_none() || !has_parts,
            "piv.chuid is the whole: fascn, guid and signature do not go with it"
        );
        let mut contents = BTreeMap::new();
        if has_parts {
            contents.insert(CHUID.to_vec(), object(0x53, &self.chuid_parts()));
        }
        if let Some(Hex(whole)) = &self.chuid {
            contents.insert(CHUID.to_vec(), object(0x53, whole));
        }
        if let Some(Exactly(identifier)) = self.card_identifier {
            contents.insert(CCC.to_vec(), object(0x53, &capabilities(&identifier)));
        }
        if self.discovery {
            contents.insert(DISCOVERY.to_vec(), discovery());
        }
        let mut refused = BTreeMap::new();
        for (tag, Word(status)) in &self.refused {
            refused.insert(hex::decode(tag)?, *status);
        }
        let (serial, version) = (self.serial, self.version);
        let full = self.select_aid == SelectAid::Full;
        Ok(Piv { full, contents, refused, serial, version })
    }

    fn chuid_parts(&self) -> Vec<u8> {
        let mut content = Vec::new();
        if let Some(Exactly(fascn)) = &self.fascn {
            content.extend(object(0x30, fascn));
        }
        if let Some(Exactly(guid)) = &self.guid {
            content.extend(object(0x34, guid));
        }
        content.extend(object(0x35, b"20301231"));
        content.extend(object(0x3E, &vec![0x5A; self.signature.unwrap_or(0)]));
        content.extend(object(0xFE, &[]));
        content
    }
}

/// The parts of a CCC as a `YubiKey` has them, around the card identifier.
fn capabilities(identifier: &[u8]) -> Vec<u8> {
    let mut content = object(0xF0, identifier);
    for (tag, value) in [(0xF1, &[0x21][..]), (0xF2, &[0x21]), (0xF3, &[]), (0xF4, &[0x00])] {
        content.extend(object(tag, value));
    }
    content.extend(object(0xF5, &[0x10]));
    for tag in [0xF6, 0xF7, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE] {
        content.extend(object(tag, &[]));
    }
    content
}

/// The AID, and a policy that knows the applet's own PIN only.
fn discovery() -> Vec<u8> {
    let content = [object(0x4F, &AID), object(0x5F2F, &[0x40, 0x00])].concat();
    object(0x7E, &content)
}

/// A PIV applet.
#[derive(Clone, Debug)]
pub(super) struct Piv {
    full: bool,
    /// By tag, with the tag they are wrapped in.
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
    refused: BTreeMap<Vec<u8>, u16>,
    serial: Option<Exactly<4>>,
    version: Option<Exactly<3>>,
}

impl Piv {
    fn get_data(&self, command: &Command<'_>) -> Answer {
        if command.p1_p2() != 0x3FFF {
            return Answer::status(WRONG_PARAMETERS);
        }
        let tag = match command.data {
            [0x5C, count, tag @ ..] if tag.len() == usize::from(*count) => tag,
            _ => return Answer::status(WRONG_DATA),
        };
        if let Some(status) = self.refused.get(tag) {
            return Answer::status(*status);
        }
        match self.contents.get(tag) {
            Some(content) => Answer::data(content.clone()),
            None => Answer::status(NOT_FOUND),
        }
    }
}

fn number<const N: usize>(value: Option<&Exactly<N>>) -> Answer {
    match value {
        Some(Exactly(bytes)) => Answer::data(*bytes),
        None => Answer::status(NO_SUCH_COMMAND),
    }
}

impl Applet for Piv {
    fn name(&self) -> &'static str {
        "piv"
    }

    fn answers_to(&self, aid: &[u8]) -> bool {
        is_part_of(aid, &AID)
    }

    fn select(&mut self, _aid: &[u8]) -> Answer {
        let [_, _, _, _, _, pix @ ..] = AID;
        let own = if self.full { AID.to_vec() } else { pix.to_vec() };
        let authority = object(0x79, &object(0x4F, &PROVIDER));
        Answer::data(object(0x61, &[object(0x4F, &own), authority].concat()))
    }

    fn command(&mut self, command: &Command<'_>) -> Answer {
        match (command.class, command.instruction) {
            (0x00, 0xCB) => self.get_data(command),
            (0x00, 0xF8) => number(self.serial.as_ref()),
            (0x00, 0xFD) => number(self.version.as_ref()),
            (0x00, 0xA4) => Answer::status(WRONG_PARAMETERS),
            (0x00, _) => Answer::status(NO_SUCH_COMMAND),
            _ => Answer::status(NO_SUCH_CLASS),
        }
    }
}

#[cfg(test)]
mod tests;
