//! A GIDS card (Microsoft's Generic Identity Device Specification), as far as
//! an identification without a PIN sees one.

mod applet;

pub(super) use applet::Personal;

use std::collections::BTreeMap;

use super::Card;
use super::apdu::{
    DATA_NOT_FOUND, NO_SUCH_CLASS, NO_SUCH_COMMAND, NOT_ALLOWED, NOT_FOUND, OK, WRONG_DATA,
    WRONG_LENGTH, object,
};
use super::applet::is_part_of;
use super::faults::le;

/// The sixteen bytes of the seed's cardid file.
pub const SEED_CARDID: [u8; 16] = [
    0x3F, 0xF1, 0x88, 0xBC, 0xBA, 0x83, 0x37, 0x40, 0x82, 0x62, 0x46, 0xEB, 0xA1, 0x29, 0x1C, 0x6E,
];

/// The ATR of the seed's card.
pub const SEED_ATR: [u8; 17] = [
    0x3B, 0x8D, 0x01, 0x80, 0xFB, 0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59, 0x03, 0x01,
    0xC8,
];

const AID: [u8; 11] = [0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59, 0x02, 0x01];
const MASTER_FILE: (u16, u16) = (0xA000, 0xDF1F);
const CARDID_FILE: (u16, u16) = (0xA012, 0xDF20);
const PIN_STATE: (u16, u16) = (0x3FFF, 0x7F71);
const PROTECTED_EF: u16 = 0xA013;

/// A row of the master file table.
#[derive(Clone, Copy, Debug)]
pub struct TableRow<'a> {
    /// Directory, empty for the root.
    pub directory: &'a str,
    /// File name, empty where the row describes a directory.
    pub name: &'a str,
    /// Data object that holds the content.
    pub object: u32,
    /// Elementary file that holds the object.
    pub file: u32,
}

const FACTORY_TABLE: [TableRow<'static>; 5] = [
    row("mscp", "", 0, 0xA000),
    row("", "cardid", 0xDF20, 0xA012),
    row("", "cardapps", 0xDF21, 0xA010),
    row("", "cardcf", 0xDF22, 0xA010),
    row("mscp", "cmapfile", 0xDF23, 0xA010),
];

/// A GIDS card made from personalisation data.
#[derive(Clone, Debug)]
pub struct GidsCard {
    atr: Vec<u8>,
    /// (elementary file, data object) to content.
    objects: BTreeMap<(u16, u16), Vec<u8>>,
    default_selected: bool,
    selected: bool,
    pending: Vec<u8>,
}

impl GidsCard {
    /// An initialised card with this cardid and the factory's file table.
    #[must_use]
    pub fn new(cardid: [u8; 16]) -> Self {
        let card = Self {
            atr: SEED_ATR.to_vec(),
            objects: BTreeMap::new(),
            default_selected: false,
            selected: false,
            pending: Vec::new(),
        };
        card.with_object(PIN_STATE, [0x97, 0x01, 0x03, 0x93, 0x01, 0x03])
            .with_rows(&FACTORY_TABLE)
            .with_object(CARDID_FILE, cardid)
            .with_object((0xA010, 0xDF21), *b"mscp\0\0\0\0")
            .with_object((0xA010, 0xDF22), [0; 6])
            .with_object((0xA010, 0xDF23), [])
    }

    /// The seed's card.
    #[must_use]
    pub fn seed() -> Self {
        Self::new(SEED_CARDID)
    }

    /// An initialised applet whose table has no cardid, nor the card an object
    /// for it.
    #[must_use]
    pub fn without_cardid() -> Self {
        let [directory, _, others @ ..] = FACTORY_TABLE;
        let rows: Vec<_> = [directory].into_iter().chain(others).collect();
        let mut card = Self::seed().with_rows(&rows);
        card.objects.remove(&CARDID_FILE);
        card
    }

    /// An applet that was installed and never initialised.
    #[must_use]
    pub fn uninitialised() -> Self {
        let mut card = Self::seed();
        card.objects.clear();
        card
    }

    /// A card with another ATR.
    #[must_use]
    pub fn with_atr(mut self, atr: impl Into<Vec<u8>>) -> Self {
        self.atr = atr.into();
        self
    }

    /// A card with other rows in its master file table.
    #[must_use]
    pub fn with_rows(self, rows: &[TableRow<'_>]) -> Self {
        let mut table = vec![1];
        for row in rows {
            table.extend(padded(row.directory));
            table.extend(padded(row.name));
            table.extend([0, 0]);
            table.extend(row.object.to_le_bytes());
            table.extend(row.file.to_le_bytes());
        }
        self.with_table(table)
    }

    /// A card with `count` files more, listed *before* the others: from ten
    /// rows on the table is longer than one answer.
    #[must_use]
    pub fn with_more_files(self, count: u8) -> Self {
        let names: Vec<String> = (0..count).map(|n| format!("kxc{n:02}")).collect();
        let more = names.iter().zip(0xDF40_u32..);
        let mut rows: Vec<_> =
            more.map(|(name, object)| row("mscp", name, object, 0xA010)).collect();
        rows.extend(FACTORY_TABLE);
        self.with_rows(&rows)
    }

    /// A card with these bytes as its master file table.
    #[must_use]
    pub fn with_table(self, table: impl Into<Vec<u8>>) -> Self {
        self.with_object(MASTER_FILE, table)
    }

    /// A card with this content in (elementary file, data object).
    #[must_use]
    pub fn with_object(mut self, place: (u16, u16), content: impl Into<Vec<u8>>) -> Self {
        self.objects.insert(place, content.into());
        self
    }

    /// A card on which GIDS needs no SELECT after a reset.
    #[must_use]
    pub fn selected_by_default(mut self) -> Self {
        self.default_selected = true;
        self.selected = true;
        self
    }

    fn select(&mut self, apdu: &[u8]) -> Result<Vec<u8>, u16> {
        let (0x04, Some(name)) = (apdu.get(2).copied().unwrap_or(0), data(apdu)) else {
            return Err(NOT_FOUND);
        };
        if !is_part_of(name, &AID) {
            return Err(NOT_FOUND);
        }
        self.selected = true;
        Ok(Self::template())
    }

    /// The answer to SELECT.
    fn template() -> Vec<u8> {
        let mut inner = object(0x4F, &AID);
        inner.extend(object(0x73, &[0x40, 0x01, 0xC0]));
        object(0x61, &inner)
    }

    fn get_data(&self, apdu: &[u8]) -> Result<Vec<u8>, u16> {
        let [_, _, high, low, ..] = apdu else {
            return Err(WRONG_LENGTH);
        };
        self.content(u16::from_be_bytes([*high, *low]), data(apdu).unwrap_or_default())
    }

    /// The object of a file that a tag list names.
    fn content(&self, file: u16, tags: &[u8]) -> Result<Vec<u8>, u16> {
        let [0x5C, 0x02, tag_high, tag_low] = tags else {
            return Err(WRONG_DATA);
        };
        let tag = u16::from_be_bytes([*tag_high, *tag_low]);
        if file == PROTECTED_EF {
            return Err(NOT_ALLOWED);
        }
        let Some(content) = self.objects.get(&(file, tag)) else {
            let file_exists = self.objects.keys().any(|(known, _)| *known == file);
            return Err(if file_exists { DATA_NOT_FOUND } else { NOT_FOUND });
        };
        Ok(object(tag.into(), content))
    }

    /// The next part of the pending answer: at most Le bytes, 61xx while more
    /// is left.
    fn next_part(&mut self, expected: Option<usize>) -> Vec<u8> {
        let count = expected.unwrap_or(256).min(self.pending.len());
        let rest = self.pending.split_off(count);
        let mut answer = std::mem::replace(&mut self.pending, rest);
        let status = match self.pending.len() {
            0 => OK,
            left => 0x6100 | u16::from(u8::try_from(left).unwrap_or(0)),
        };
        answer.extend(status.to_be_bytes());
        answer
    }
}

impl Card for GidsCard {
    fn atr(&self) -> Vec<u8> {
        self.atr.clone()
    }

    fn power(&mut self) {
        self.selected = self.default_selected;
        self.pending.clear();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        let [class, instruction, ..] = *apdu else {
            return WRONG_LENGTH.to_be_bytes().to_vec();
        };
        if instruction == 0xC0 && !self.pending.is_empty() {
            return self.next_part(le(apdu));
        }
        self.pending.clear();
        let answer = match (class, instruction) {
            (0x00, _) if is_extended(apdu) => Err(WRONG_LENGTH),
            (0x00, 0xA4) => self.select(apdu),
            (0x00, 0xCB) if self.selected => self.get_data(apdu),
            // How many tries the PIN has left, if the body is empty.
            (0x00, 0x20) if self.selected && apdu.len() <= 5 => Err(0x63C3),
            (0x00, _) => Err(NO_SUCH_COMMAND),
            _ => Err(NO_SUCH_CLASS),
        };
        match answer {
            Ok(data) => {
                self.pending = data;
                self.next_part(le(apdu))
            }
            Err(status) => status.to_be_bytes().to_vec(),
        }
    }
}

const fn row<'a>(directory: &'a str, name: &'a str, object: u32, file: u32) -> TableRow<'a> {
    TableRow { directory, name, object, file }
}

fn padded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().chain(std::iter::repeat(0)).take(9)
}

fn is_extended(apdu: &[u8]) -> bool {
    matches!(apdu, [_, _, _, _, 0, _, _, ..])
}

/// The data field of a short APDU.
fn data(apdu: &[u8]) -> Option<&[u8]> {
    let [_, _, _, _, count, rest @ ..] = apdu else {
        return None;
    };
    rest.get(..usize::from(*count))
}

#[cfg(test)]
mod tests;
