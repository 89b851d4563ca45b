//! NIST SP 800-73-4: PIV cards, and what is like them. `docs/cards.md` has the sources.
//!
//! The card says who it is in its CHUID: by a FASC-N, by a GUID, or by both. Nobody has published
//! what Windows makes of that, so there are several candidates; a site learns which one its
//! minidriver takes, and pins it.

use super::apdu::CommandApdu;
use super::exchange::{self, exchange, send};
use super::family_result::{CardReading, IdWorth, NoReading, ReadId, be, le, where_given};
use super::opensc_minidriver;
use super::tlv::{self, Tlv};
use super::{Transmit, TransmitError};
use crate::domain::{IdRule, Serial};

mod fascn;

/// The application, without its version (SP 800-73-4 part 1, section 2.2).
const AID: [u8; 9] = [0xA0, 0x00, 0x00, 0x03, 0x08, 0x00, 0x00, 0x10, 0x00];

/// The part of the AID that is NIST's.
const RID: [u8; 5] = [0xA0, 0x00, 0x00, 0x03, 0x08];

/// How the answer to SELECT may name the application: all of the AID, or what comes after NIST's
/// part; G&D's cards put a byte elsewhere.
const NAMES: [&[u8]; 3] = [&RID, &[0x00, 0x00, 0x10, 0x00], &[0x00, 0x10, 0x00, 0x01]];

/// The application template in the answer to SELECT, and the name in it.
const APPLICATION: u32 = 0x61;
const APPLICATION_ID: u32 = 0x4F;

/// "The current DF" (SP 800-73-4 part 2, section 3.1.2).
const CURRENT_DF: u16 = 0x3FFF;

/// Data objects (SP 800-73-4 part 1, table 3).
const DISCOVERY: u32 = 0x7E;
const CHUID: u32 = 0x5F_C102;
const CCC: u32 = 0x5F_C107;

/// What wraps every data object but the discovery object.
const DATA: u32 = 0x53;

/// In the CHUID (part 1, table 9).
const FASCN: u32 = 0x30;
const GUID: u32 = 0x34;

/// Selects the application again.
pub(super) fn select(transport: &mut dyn Transmit) -> Result<(), TransmitError> {
    where_given(send(transport, &CommandApdu::select(&AID))).map(drop)
}

/// The card identifier in the CCC (part 1, table 8).
const CARD_IDENTIFIER: u32 = 0xF0;

/// Selects the application and reads who the card is.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let selected =
        exchange::select(transport, &CommandApdu::select(&AID)).map_err(NoReading::other_family)?;
    if is_piv(&selected) || has_discovery_object(transport)? {
        return read(transport);
    }
    match read_chuid(transport) {
        Ok(_) => read(transport),
        Err(NoReading::Interrupted(why)) => Err(why.into()),
        Err(NoReading::NoId(_) | NoReading::OtherFamily(_)) => {
            Err(NoReading::OtherFamily("card accepts SELECT, but as another application".into()))
        }
    }
}

/// Reads who the card is without a SELECT: only the discovery object proves that the application
/// is there.
pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    if has_discovery_object(transport)? {
        read(transport)
    } else {
        Err(NoReading::OtherFamily("no discovery object where PIV has one".into()))
    }
}

/// Whether the answer to SELECT names the application; cards exist that accept any SELECT.
fn is_piv(answer: &[u8]) -> bool {
    let objects = tlv::value(answer, APPLICATION).map(tlv::before_padding).unwrap_or_default();
    objects.iter().any(|Tlv { tag, value }| {
        *tag == APPLICATION_ID && NAMES.iter().any(|name| value.starts_with(name))
    })
}

fn has_discovery_object(transport: &mut dyn Transmit) -> Result<bool, TransmitError> {
    let answer = where_given(exchange(transport, &CommandApdu::get_data(CURRENT_DF, DISCOVERY)))?;
    let names_piv = |answer: &Vec<u8>| {
        let objects = first(answer, DISCOVERY).map(tlv::before_padding).unwrap_or_default();
        tlv::only(&objects, APPLICATION_ID).is_some_and(|name| name.starts_with(&RID))
    };
    Ok(answer.as_ref().is_some_and(names_piv))
}

fn read(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let chuid = read_chuid(transport)?;
    let Some(serial) = chuid.serial() else {
        return Err(NoReading::NoId("CHUID has neither a FASC-N nor a GUID".into()));
    };
    Ok(CardReading::new(Serial::from_bytes(serial), chuid.ids(), Some(CommandApdu::select(&AID))))
}

/// The card identifier in the CCC of the application, which is selected.
pub(super) fn ccc(transport: &mut dyn Transmit) -> Result<Option<String>, TransmitError> {
    let answer = where_given(exchange(transport, &CommandApdu::get_data(CURRENT_DF, CCC)))?;
    Ok(answer.as_deref().and_then(card_identifier))
}

/// The CHUID, or what the card has in place of one.
fn read_chuid(transport: &mut dyn Transmit) -> Result<Chuid, NoReading> {
    let answer = exchange(transport, &CommandApdu::get_data(CURRENT_DF, CHUID))
        .map_err(|why| NoReading::no_id("CHUID", why))?;
    let content = first(&answer, DATA)
        .ok_or_else(|| NoReading::NoId("CHUID: the answer is no data object of PIV's".into()))?;
    Chuid::parse(content).ok_or_else(|| NoReading::NoId("CHUID: nothing is written in it".into()))
}

/// The value of the object with this tag at the front of an answer; some cards fill up behind it.
fn first(answer: &[u8], wanted: u32) -> Option<&[u8]> {
    let (object, _filling) = tlv::split(answer).ok()?;
    (object.tag == wanted).then_some(object.value)
}

fn card_identifier(answer: &[u8]) -> Option<String> {
    let objects = tlv::before_padding(first(answer, DATA)?);
    let identifier = tlv::only(&objects, CARD_IDENTIFIER)?;
    (!identifier.is_empty()).then(|| hex::encode(identifier))
}

/// What a card says of itself; only values that could be somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chuid {
    fascn: Option<[u8; 25]>,
    guid: Option<[u8; 16]>,
}

impl Chuid {
    /// The fields, in whatever order. What a card has two of is none.
    fn parse(content: &[u8]) -> Option<Self> {
        let objects = tlv::before_padding(content);
        if objects.is_empty() {
            return None;
        }
        Some(Self { fascn: field(&objects, FASCN), guid: field(&objects, GUID) })
    }

    /// What OpenSC calls the card's serial (`piv_get_serial_nr_from_CHUI`): the FASC-N, unless it
    /// is that of an issuer outside the government and there is a GUID.
    fn serial(&self) -> Option<&[u8]> {
        match (&self.fascn, &self.guid) {
            (Some(fascn), Some(guid)) if is_outside_government(fascn) => Some(guid.as_slice()),
            (Some(fascn), _) => Some(fascn.as_slice()),
            (None, Some(guid)) => Some(guid.as_slice()),
            (None, None) => None,
        }
    }

    fn ids(&self) -> [Option<ReadId>; 4] {
        let of_guid = self.guid.map(|guid| (guid, IdWorth::of_bytes(guid)));
        let of_fascn = self.fascn.and_then(|fascn| {
            let front = fascn.first_chunk::<16>()?;
            Some((*front, fascn::id_worth(&fascn)))
        });
        // OpenSC's serial is one or the other: its minidriver takes the first 16 bytes.
        let of_serial = match self.serial() {
            Some(serial) if serial.len() == 16 => of_guid,
            Some(_) | None => of_fascn,
        };
        [
            of_guid.and_then(|(guid, worth)| le(IdRule::PivGuidLe, guid, worth)),
            of_guid.and_then(|(guid, worth)| be(IdRule::PivGuidBe, guid, worth)),
            of_fascn.and_then(|(fascn, worth)| le(IdRule::PivFascn, fascn, worth)),
            of_serial.and_then(|(serial, worth)| {
                le(IdRule::PivOpensc, opensc_minidriver::cardid(&hex::encode(serial)), worth)
            }),
        ]
    }
}

/// A field of just this length in which something is written.
fn field<const N: usize>(objects: &[Tlv<'_>], tag: u32) -> Option<[u8; N]> {
    let value: [u8; N] = tlv::only(objects, tag)?.try_into().ok()?;
    (value != [0x00; N] && value != [0xFF; N]).then_some(value)
}

/// Whether a FASC-N begins with the agency code 9999: start sentinel and four nines, five bits
/// each, least significant first, with odd parity (PACS 2.3).
const fn is_outside_government(fascn: &[u8; 25]) -> bool {
    matches!(fascn, [0xD4, 0xE7, 0x39, 0x80..=0xFF, ..])
}

#[cfg(test)]
mod tests;
