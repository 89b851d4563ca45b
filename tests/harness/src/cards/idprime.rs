//! An IDPrime applet: the file system of its vendor's minidriver, as far as
//! OpenSC and an identification see it.

use serde::Deserialize;

use super::apdu::{Answer, Command};
use super::applet::{Applet, is_part_of};
use super::files::{FileQuirks, Files, Node};
use super::hex_text::{Exactly, Hex};

const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x00, 0x18, 0x80, 0x00, 0x00, 0x00, 0x06, 0x62];
const INDEX: u16 = 0x0101;
const CARDID: u16 = 0x0201;

/// The map of containers, and of keys: OpenSC 0.26 takes no card without them, the second on a 940
/// alone. The index leaves them out, since nothing is found by it here.
const MAPS: [(u16, usize); 2] = [(0x0204, 86), (0x0005, 16)];

/// The table `[idprime]` of a personalisation file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personal {
    /// The content of `cardid`; without it there is no such file.
    cardid: Option<Exactly<16>>,
    /// The content of `cardid` where it is not sixteen bytes.
    odd_cardid: Option<Hex>,
    /// There is no index file.
    #[serde(default)]
    without_index: bool,
    #[serde(default)]
    files: FileQuirks,
    pub(super) pin: Option<String>,
}

impl Personal {
    /// The applet as personalised.
    pub(super) fn applet(self) -> IdPrime {
        let cardid = self.cardid.map(|it| it.0.to_vec());
        let cardid = cardid.or(self.odd_cardid.map(|it| it.0));
        let others =
            [(0x0202, "cardcf", vec![0; 6]), (0x0203, "cardapps", b"mscp\0\0\0\0".to_vec())];
        let all = cardid.map(|content| (CARDID, "cardid", content)).into_iter().chain(others);
        let mut files = Files::new(self.files);
        let mut index = vec![0];
        for (id, name, content) in all {
            index.extend(row(id, name, content.len()));
            files.add([id], Node::Transparent(content));
        }
        if let [count, rows @ ..] = index.as_mut_slice() {
            *count = u8::try_from(rows.len() / 21).unwrap_or(u8::MAX);
        }
        if !self.without_index {
            files.add([INDEX], Node::Transparent(index));
        }
        for (id, size) in MAPS {
            files.add([id], Node::Transparent(vec![0; size]));
        }
        IdPrime { files }
    }
}

/// An entry of the index file: identifier, size, name and (here no) directory.
fn row(id: u16, name: &str, size: usize) -> Vec<u8> {
    let mut row = id.to_be_bytes().to_vec();
    row.extend(u16::try_from(size).unwrap_or(u16::MAX).to_be_bytes());
    row.extend(name.bytes().chain(std::iter::repeat(0)).take(8));
    row.extend([0; 9]);
    row
}

/// An IDPrime applet.
#[derive(Clone, Debug)]
pub(super) struct IdPrime {
    files: Files,
}

impl Applet for IdPrime {
    fn name(&self) -> &'static str {
        "idprime"
    }

    fn answers_to(&self, aid: &[u8]) -> bool {
        is_part_of(aid, &AID)
    }

    fn select(&mut self, _aid: &[u8]) -> Answer {
        self.files.reset();
        Answer::data(super::apdu::object(0x6F, &super::apdu::object(0x84, &AID)))
    }

    fn power(&mut self) {
        self.files.reset();
    }

    fn command(&mut self, command: &Command<'_>) -> Answer {
        self.files.command(command)
    }

    fn shows_cplc(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
