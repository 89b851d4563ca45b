//! NIST SP 800-73-4: PIV cards and similar ones. `docs/cards.md` has the sources.
//!
//! The CHUID identifies the card: by a FASC-N, by a GUID, or by both. How Windows derives an id from it is
//! not published, so there are several candidates; a site finds out which one its minidriver uses, and
//! pins it.

use super::apdu::CommandApdu;
use super::exchange::{self, exchange, optional, send};
use super::family_result::{CardReading, IdWorth, NoReading, ReadId, be, le};
use super::tlv::{self, Tlv};
use super::{Transmit, TransmitError};
use crate::domain::{IdRule, Serial};

use fascn::Fascn;

mod fascn;

/// The application, without its version (SP 800-73-4 part 1, section 2.2).
const AID: [u8; 9] = [0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00];

/// The part of the AID that is NIST's.
const RID: [u8; 5] = [0xA0, 0x00, 0x00, 0x03, 0x08];

/// The application's name in the response to SELECT: the AID, or what follows NIST's part; G&D's cards
/// have a byte elsewhere.
const NAMES: [&[u8]; 3] = [&RID, &[0x00, 0x00, 0x10, 0x00], &[0x00, 0x10, 0x00, 0x01]];

/// The application template in the response to SELECT, and the name in it.
const APPLICATION: u32 = 0x61;
const APPLICATION_ID: u32 = 0x4F;

/// SP 800-73-4 part 2, section 3.1.2.
const CURRENT_DF: u16 = 0x3FFF;

/// Data objects (SP 800-73-4 part 1, table 3), and what wraps all but the discovery object.
const DISCOVERY: u32 = 0x7E;
const CHUID: u32 = 0x5F_C102;
const CCC: u32 = 0x5F_C107;
const DATA: u32 = 0x53;

/// In the CHUID (part 1, table 9), and in the CCC (table 8).
const FASCN: u32 = 0x30;
const GUID: u32 = 0x34;
const CARD_IDENTIFIER: u32 = 0xF0;

pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let selected =
        exchange::select(transport, &CommandApdu::select(&AID)).map_err(NoReading::other_family)?;
    let chuid = if is_piv(&selected) || has_discovery_object(transport)? {
        read_chuid(transport)?
    } else {
        read_chuid(transport).map_err(|no_reading| match no_reading {
            NoReading::NoId(_) | NoReading::OtherFamily(_) => {
                NoReading::OtherFamily("card accepts SELECT, but as another application".into())
            }
            interrupted @ NoReading::Interrupted(_) => interrupted,
        })?
    };
    reading(chuid)
}

/// Reads the CHUID without a SELECT: only the discovery object proves that the application is selected.
pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    if has_discovery_object(transport)? {
        reading(read_chuid(transport)?)
    } else {
        Err(NoReading::OtherFamily("no discovery object where PIV has one".into()))
    }
}

pub(super) fn select(transport: &mut dyn Transmit) -> Result<(), TransmitError> {
    optional(send(transport, &CommandApdu::select(&AID))).map(drop)
}

pub(super) fn ccc(transport: &mut dyn Transmit) -> Result<Option<String>, TransmitError> {
    let response = optional(exchange(transport, &CommandApdu::get_data(CURRENT_DF, CCC)))?;
    Ok(response.as_deref().and_then(card_identifier))
}

fn card_identifier(response: &[u8]) -> Option<String> {
    let objects = tlv::before_padding(first(response, DATA)?);
    let identifier = tlv::only(&objects, CARD_IDENTIFIER)?;
    (!identifier.is_empty()).then(|| hex::encode(identifier))
}

/// Whether the response to SELECT names the application: some cards accept any SELECT.
fn is_piv(response: &[u8]) -> bool {
    let objects = tlv::value(response, APPLICATION).map(tlv::before_padding).unwrap_or_default();
    objects.iter().any(|Tlv { tag, value }| {
        *tag == APPLICATION_ID && NAMES.iter().any(|name| value.starts_with(name))
    })
}

fn has_discovery_object(transport: &mut dyn Transmit) -> Result<bool, TransmitError> {
    let response = optional(exchange(transport, &CommandApdu::get_data(CURRENT_DF, DISCOVERY)))?;
    let value = response.as_deref().and_then(|response| first(response, DISCOVERY));
    let objects = value.map(tlv::before_padding).unwrap_or_default();
    Ok(tlv::only(&objects, APPLICATION_ID).is_some_and(|name| name.starts_with(&RID)))
}

fn read_chuid(transport: &mut dyn Transmit) -> Result<Chuid, NoReading> {
    let response = exchange(transport, &CommandApdu::get_data(CURRENT_DF, CHUID))
        .map_err(|error| NoReading::no_id("CHUID", error))?;
    let content = first(&response, DATA)
        .ok_or_else(|| NoReading::NoId("CHUID: the answer is no data object of PIV's".into()))?;
    Chuid::parse(content).ok_or_else(|| NoReading::NoId("CHUID: nothing is written in it".into()))
}

fn reading(chuid: Chuid) -> Result<CardReading, NoReading> {
    let serial = chuid
        .serial()
        .ok_or_else(|| NoReading::NoId("CHUID has neither a FASC-N nor a GUID".into()))?;
    Ok(CardReading::new(Serial::from_bytes(serial), chuid.ids(), Some(CommandApdu::select(&AID))))
}

/// The value of the object with this tag at the front of a response; some cards pad after it.
fn first(response: &[u8], wanted: u32) -> Option<&[u8]> {
    let (object, _padding) = tlv::split(response).ok()?;
    (object.tag == wanted).then_some(object.value)
}

/// The fields of a CHUID, without values of only zeros or ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chuid {
    fascn: Option<Fascn>,
    guid: Option<[u8; 16]>,
}

impl Chuid {
    /// Takes the fields in any order. A field that is there twice is none.
    fn parse(content: &[u8]) -> Option<Self> {
        let objects = tlv::before_padding(content);
        let fascn = field(&objects, FASCN).map(Fascn);
        (!objects.is_empty()).then(|| Self { fascn, guid: field(&objects, GUID) })
    }

    /// What OpenSC calls the card's serial (`piv_get_serial_nr_from_CHUI`): the FASC-N, unless its issuer
    /// is outside the government and there is a GUID.
    fn serial(&self) -> Option<&[u8]> {
        match (&self.fascn, &self.guid) {
            (Some(fascn), Some(guid)) if fascn.is_outside_government() => Some(guid),
            (Some(Fascn(fascn)), _) => Some(fascn),
            (None, guid) => guid.as_ref().map(<[u8; 16]>::as_slice),
        }
    }

    fn ids(&self) -> [Option<ReadId>; 4] {
        let guid = self.guid.map(|guid| (guid, IdWorth::of_bytes(guid)));
        let fascn = self.fascn.map(|fascn| (fascn.front(), fascn.id_worth()));
        let serial = self.serial().unwrap_or_default();
        // OpenSC's minidriver uses the first 16 bytes of its serial.
        let opensc = if serial.len() == 16 { guid } else { fascn };
        [
            guid.and_then(|(guid, worth)| le(IdRule::PivGuidLe, guid, worth)),
            guid.and_then(|(guid, worth)| be(IdRule::PivGuidBe, guid, worth)),
            fascn.and_then(|(front, worth)| le(IdRule::PivFascn, front, worth)),
            opensc.and_then(|(bytes, worth)| le(IdRule::PivOpensc, bytes, worth)),
        ]
    }
}

/// A field of this length that is neither all zeros nor all ones.
fn field<const N: usize>(objects: &[Tlv<'_>], tag: u32) -> Option<[u8; N]> {
    let value: [u8; N] = tlv::only(objects, tag)?.try_into().ok()?;
    (value != [0x00; N] && value != [0xFF; N]).then_some(value)
}

#[cfg(test)]
mod tests;
