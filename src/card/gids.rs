//! Microsoft's Generic Identity Device Specification: TPM virtual smart cards, and many cards behind
//! Windows' own minidriver. `docs/cards.md` has the sources.
//!
//! The id is the 16-byte file `cardid` that Windows writes when it initialises the card. The master
//! file table says where that file is. Neither needs a PIN.

use super::Transmit;
use super::apdu::CommandApdu;
use super::exchange::{ExchangeError, exchange, select};
use super::family_result::{CardReading, IdWorth, NoReading, be, le};
use super::tlv;
use crate::domain::{IdRule, Serial};

/// The application, without the two bytes for revision and variant that follow.
const AID: [u8; 9] = [0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59];

/// The application template in the response to SELECT, and the AID in it.
const APPLICATION: u32 = 0x61;
const APPLICATION_ID: u32 = 0x4F;

/// Where a data object is: its file, and its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ObjectLocation {
    file: u16,
    object: u32,
}

impl ObjectLocation {
    fn command(self) -> CommandApdu {
        CommandApdu::get_data(self.file, self.object)
    }
}

const TABLE: ObjectLocation = ObjectLocation { file: 0xA000, object: 0xDF1F };

/// Where the factory's table puts `cardid`.
const DEFAULT_CARDID: ObjectLocation = ObjectLocation { file: 0xA012, object: 0xDF20 };

/// The first byte of a file table with the known layout.
const TABLE_VERSION: u8 = 1;

/// Bytes of a file table entry: directory (9) and name (9), NUL-padded; padding (2); tag and file id,
/// 32 bits little-endian each.
const ENTRY: usize = 28;

pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let selected =
        select(transport, &CommandApdu::select(&AID)).map_err(NoReading::other_family)?;
    let objects = tlv::value(&selected, APPLICATION).map(tlv::before_padding).unwrap_or_default();
    if objects.iter().any(|tlv| tlv.tag == APPLICATION_ID && tlv.value.starts_with(&AID)) {
        let table = exchange(transport, &TABLE.command());
        return read(transport, table);
    }
    // Some cards accept any SELECT; others return nothing, or another form of it.
    probe_selected(transport)
}

/// Reads `cardid` without a SELECT: only a file table proves that the application is selected.
pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let table = exchange(transport, &TABLE.command()).map_err(NoReading::other_family)?;
    if tlv::value(&table, TABLE.object).is_err() {
        return Err(NoReading::OtherFamily("no file table where GIDS has one".into()));
    }
    read(transport, Ok(table))
}

fn read(
    transport: &mut dyn Transmit,
    table: Result<Vec<u8>, ExchangeError>,
) -> Result<CardReading, NoReading> {
    let location = match table {
        Ok(response) => find_cardid(&response)
            .map_err(|error| NoReading::NoId(format!("file table: {error}")))?,
        // A table that can be read decides, whatever it lists.
        Err(ExchangeError::Refused(_)) => DEFAULT_CARDID,
        Err(error) => return Err(NoReading::no_id("file table", error)),
    };
    let response = exchange(transport, &location.command())
        .map_err(|error| NoReading::no_id("cardid", error))?;
    let cardid =
        cardid(location, &response).map_err(|error| NoReading::NoId(format!("cardid: {error}")))?;
    let rules = [IdRule::GidsCardid, IdRule::GidsCardidBe];
    Ok(cardid_reading(cardid, rules, CommandApdu::select(&AID)))
}

/// Where `cardid` is by the file table. A partial entry at the end is ignored.
fn find_cardid(response: &[u8]) -> Result<ObjectLocation, String> {
    let table = tlv::value(response, TABLE.object).map_err(|error| error.to_string())?;
    let Some((&TABLE_VERSION, entries)) = table.split_first() else {
        return Err(format!("unsupported file table version {:?}", table.first()));
    };
    let (entries, _partial) = entries.as_chunks::<ENTRY>();
    let entry = entries.iter().find(|entry| is_cardid(&entry[..9], &entry[9..18]));
    let entry = entry.ok_or("file table has no `cardid` file")?;
    let object = u32::from_le_bytes([entry[20], entry[21], entry[22], entry[23]]);
    let file = u32::from_le_bytes([entry[24], entry[25], entry[26], entry[27]]);
    match u16::try_from(file) {
        Ok(file) if object <= 0xFFFF => Ok(ObjectLocation { file, object }),
        _ => {
            Err(format!("file table points `cardid` to invalid object {object:X} in file {file:X}"))
        }
    }
}

fn cardid(location: ObjectLocation, response: &[u8]) -> Result<[u8; 16], String> {
    let value = tlv::value(response, location.object).map_err(|error| error.to_string())?;
    value.try_into().map_err(|_| format!("`cardid` has {} bytes, expected 16", value.len()))
}

/// Whether this is the file `cardid` in the root directory; names have no case and a NUL at their end.
pub(super) fn is_cardid(directory: &[u8], name: &[u8]) -> bool {
    nul_padded(directory).is_empty() && nul_padded(name).eq_ignore_ascii_case(b"cardid")
}

pub(super) fn nul_padded(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The ids of a file `cardid`, a Windows GUID in memory order. One that was entered by hand may be in
/// reading order instead.
pub(super) fn cardid_reading(
    cardid: [u8; 16],
    [le_rule, be_rule]: [IdRule; 2],
    reselect: CommandApdu,
) -> CardReading {
    let worth = IdWorth::of_bytes(cardid);
    let ids = [le(le_rule, cardid, worth), be(be_rule, cardid, worth)];
    CardReading::new(Serial::from_bytes(&cardid), ids, Some(reselect))
}

#[cfg(test)]
mod tests;
