//! An OpenPGP card's applet (versions 2 and 3), as far as OpenSC and an
//! identification see one without a PIN.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::apdu::{
    Answer, Command, DATA_NOT_FOUND, NO_SUCH_CLASS, NO_SUCH_COMMAND, TERMINATED, WRONG_PARAMETERS,
    object,
};
use super::applet::{Applet, is_part_of};
use super::hex_text::{Exactly, Hex, Word};

const PREFIX: [u8; 6] = [0xD2, 0x76, 0x00, 0x01, 0x24, 0x01];

/// RSA with 2048 bits, exponents of 32.
const ALGORITHM: [u8; 6] = [0x01, 0x08, 0x00, 0x00, 0x20, 0x00];

/// The table `[openpgp]` of a personalisation file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personal {
    /// Version, in binary-coded decimals: 0304 is 3.4.
    version: Word,
    manufacturer: Word,
    serial: Exactly<4>,
    /// Whether SELECT answers with file control information.
    #[serde(default)]
    fci: bool,
    /// Selected by the six bytes of the prefix only, as `CanoKey` does.
    #[serde(default)]
    short_aid_only: bool,
    /// Terminated: SELECT says 6285 and nothing else works.
    #[serde(default)]
    terminated: bool,
    /// Historical bytes, object 5F52.
    history: Option<Hex>,
    pub(super) pin: Option<String>,
}

impl Personal {
    /// The applet as personalised.
    pub(super) fn applet(self) -> OpenPgp {
        let mut aid = PREFIX.to_vec();
        aid.extend(self.version.0.to_be_bytes());
        aid.extend(self.manufacturer.0.to_be_bytes());
        aid.extend(self.serial.0);
        aid.extend([0, 0]);
        let history = self.history.map(|it| it.0);
        let history =
            history.unwrap_or_else(|| b"\x00\x31\xC5\x73\xC0\x01\x40\x05\x90\x00".to_vec());
        OpenPgp {
            objects: objects(&aid, &history),
            aid,
            fci: self.fci,
            short_aid_only: self.short_aid_only,
            terminated: self.terminated,
        }
    }
}

/// Everything that GET DATA finds, by tag. No names, no keys.
fn objects(aid: &[u8], history: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    // Key import, changeable PIN status and private objects; no secure
    // messaging, challenges up to 254 bytes, certificates up to 2048.
    let capabilities = [0x38, 0x00, 0x00, 0xFE, 0x08, 0x00, 0x00, 0xFF, 0x00, 0x00];
    let pin_status = [0x00, 0x20, 0x20, 0x20, 0x03, 0x00, 0x03];
    let discretionary = [
        object(0xC0, &capabilities),
        object(0xC1, &ALGORITHM),
        object(0xC2, &ALGORITHM),
        object(0xC3, &ALGORITHM),
        object(0xC4, &pin_status),
        object(0xC5, &[0; 60]),
        object(0xC6, &[0; 60]),
        object(0xCD, &[0; 12]),
    ];
    let application =
        [object(0x4F, aid), object(0x5F52, history), object(0x73, &discretionary.concat())];
    let holder = [object(0x5B, b""), object(0x5F2D, b"en"), object(0x5F35, b"9")];
    BTreeMap::from([
        (0x004F, aid.to_vec()),
        (0x005E, Vec::new()),
        (0x0065, object(0x65, &holder.concat())),
        (0x006E, object(0x6E, &application.concat())),
        (0x007A, object(0x7A, &object(0x93, &[0; 3]))),
        (0x00C4, pin_status.to_vec()),
        (0x5F50, Vec::new()),
        (0x5F52, history.to_vec()),
        (0x7F21, Vec::new()),
    ])
}

/// An OpenPGP applet.
#[derive(Clone, Debug)]
pub(super) struct OpenPgp {
    aid: Vec<u8>,
    objects: BTreeMap<u16, Vec<u8>>,
    fci: bool,
    short_aid_only: bool,
    terminated: bool,
}

impl OpenPgp {
    fn get_data(&self, tag: u16) -> Answer {
        match self.objects.get(&tag) {
            Some(content) => Answer::data(content.clone()),
            None => Answer::status(DATA_NOT_FOUND),
        }
    }
}

impl Applet for OpenPgp {
    fn name(&self) -> &'static str {
        "openpgp"
    }

    fn answers_to(&self, aid: &[u8]) -> bool {
        if self.short_aid_only { aid == PREFIX } else { is_part_of(aid, &self.aid) }
    }

    fn select(&mut self, _aid: &[u8]) -> Answer {
        if self.terminated {
            return Answer::status(TERMINATED);
        }
        let control = object(0x6F, &object(0x84, &self.aid));
        Answer::data(if self.fci { control } else { Vec::new() })
    }

    fn command(&mut self, command: &Command<'_>) -> Answer {
        match (command.class, command.instruction) {
            (0x00, _) if self.terminated => Answer::status(TERMINATED),
            (0x00, 0xCA) => self.get_data(command.p1_p2()),
            // SELECT DATA: which of several certificates is meant. All are empty.
            (0x00, 0xA5) => Answer::data([]),
            (0x00, 0xA4) => Answer::status(WRONG_PARAMETERS),
            (0x00, _) => Answer::status(NO_SUCH_COMMAND),
            _ => Answer::status(NO_SUCH_CLASS),
        }
    }
}

#[cfg(test)]
mod tests;
