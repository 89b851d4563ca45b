//! Numbers for people: what a card says besides its identity. Nothing here finds a record.
//!
//! All of it is optional. A card that refuses is asked no more; what cannot be read is not told.

use super::apdu::CommandApdu;
use super::atr::DecodedAtr;
use super::exchange::{exchange, send};
use super::family_result::where_given;
use super::files::CardFiles;
use super::piv;
use super::tlv;
use super::{Transmit, TransmitError};
use crate::domain::{Atr, Family, Inventory, InventoryNumber};

/// EF.GDO (ISO 7816-4 section 8.2.1.3), and the ICCSN in it.
const EF_GDO: [u8; 2] = [0x2F, 0x02];
const ICCSN: u32 = 0x5A;

/// As much of EF.GDO as OpenSC reads where nobody says how long it is.
const LONGEST_GDO: usize = 64;

/// The card manager (GlobalPlatform Card Specification 2.1.1, appendix F).
const CARD_MANAGER: [u8; 8] = [0xA0, 0x00, 0x00, 0x01, 0x51, 0x00, 0x00, 0x00];

/// Card production life cycle data: its tag, and how long it is.
const CPLC: u32 = 0x9F7F;
const CPLC_LENGTH: usize = 42;

/// Yubico's management application, and the serial number in what it tells of the device.
const YUBIKEY_MANAGEMENT: [u8; 8] = [0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17];
const YUBIKEY_SERIAL: u32 = 0x02;

/// What a reader says of a contactless card, which needs no word with the card.
pub(super) fn read_from_reader(
    transport: &mut dyn Transmit,
    atr: &Atr,
    inventory: &mut Inventory,
) -> Result<(), TransmitError> {
    if DecodedAtr::of(atr).contactless.is_none() {
        return Ok(());
    }
    let uid = where_given(exchange(transport, &CommandApdu::get_contactless_uid()))?;
    let uid = uid.filter(|uid| !uid.is_empty()).map(hex::encode);
    inventory.note(InventoryNumber::ContactlessUid, uid);
    Ok(())
}

/// What the PIV application says, if the card has one: it is among those that were selected, one after
/// the other. Tells whether another application is selected now.
pub(super) fn of_piv(
    transport: &mut dyn Transmit,
    selected: &[Family],
    inventory: &mut Inventory,
) -> Result<bool, TransmitError> {
    if !selected.contains(&Family::Piv) {
        return Ok(false);
    }
    let elsewhere = selected.last() != Some(&Family::Piv);
    if elsewhere {
        piv::select(transport)?;
    }
    inventory.note(InventoryNumber::PivCcc, piv::ccc(transport)?);
    Ok(elsewhere)
}

/// What a card says. Tells whether another application is selected now.
pub(super) fn read_from_card(
    transport: &mut dyn Transmit,
    (atr, family): (&Atr, Option<Family>),
    inventory: &mut Inventory,
) -> Result<bool, TransmitError> {
    let mut moved = false;
    if is_yubikey(atr) {
        let (serial, elsewhere) = yubikey_serial(transport, family)?;
        moved |= elsewhere;
        inventory.note(InventoryNumber::YubikeySerial, serial.map(|serial| serial.to_string()));
    }
    if matches!(family, Some(Family::Pkcs15) | None) {
        inventory.note(InventoryNumber::Iccsn, iccsn(transport)?);
    }
    let manager = where_given(send(transport, &CommandApdu::select(&CARD_MANAGER)))?.is_some();
    if manager {
        inventory.note(InventoryNumber::Cplc, cplc(transport)?);
    }
    Ok(moved || manager)
}

/// Whether the historical bytes of the ATR say so.
fn is_yubikey(atr: &Atr) -> bool {
    let historical = DecodedAtr::of(atr).historical.bytes.to_ascii_lowercase();
    historical.windows(7).any(|bytes| bytes == b"yubikey")
}

/// From the PIV application, where that is the one that was read, or from the management one; and
/// whether that is selected now.
fn yubikey_serial(
    transport: &mut dyn Transmit,
    family: Option<Family>,
) -> Result<(Option<u32>, bool), TransmitError> {
    if family == Some(Family::Piv)
        && let Some(answer) = where_given(exchange(transport, &CommandApdu::yubikey_serial()))?
        && let Ok(serial) = answer.as_slice().try_into()
    {
        return Ok((shown(u32::from_be_bytes(serial)), false));
    }
    if where_given(send(transport, &CommandApdu::select(&YUBIKEY_MANAGEMENT)))?.is_none() {
        return Ok((None, false));
    }
    let answer = where_given(exchange(transport, &CommandApdu::yubikey_information()))?;
    Ok((answer.as_deref().and_then(serial_in).and_then(shown), true))
}

/// A key that is set up to hide its number says 0.
fn shown(serial: u32) -> Option<u32> {
    (serial != 0).then_some(serial)
}

/// The serial number in what a YubiKey tells of itself: a length of one byte, then data objects
/// whose tags and lengths have a byte each.
fn serial_in(information: &[u8]) -> Option<u32> {
    let (&length, rest) = information.split_first()?;
    let mut rest = rest.get(..usize::from(length))?;
    while let [tag, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        if u32::from(*tag) == YUBIKEY_SERIAL {
            return value.try_into().ok().map(u32::from_be_bytes);
        }
        rest = after;
    }
    None
}

fn iccsn(transport: &mut dyn Transmit) -> Result<Option<String>, TransmitError> {
    let mut files = CardFiles::new(transport);
    if !files.select(&EF_GDO)? {
        return Ok(None);
    }
    let is_gdo = |read: &[u8]| matches!(read, [0x5A | 0x5F, ..]);
    let number = |read: &[u8]| tlv::only(&tlv::before_padding(read), ICCSN).map(digits);
    let enough = |read: &[u8]| !is_gdo(read) || read.len() >= LONGEST_GDO || number(read).is_some();
    let content = files.read(enough)?.unwrap_or_default();
    Ok(number(&content).filter(|digits| !digits.is_empty()))
}

/// Packed digits without the F's that fill the last byte.
fn digits(packed: &[u8]) -> String {
    hex::encode(packed).trim_end_matches('f').to_owned()
}

/// Of the card manager, which is selected.
fn cplc(transport: &mut dyn Transmit) -> Result<Option<String>, TransmitError> {
    let answer = where_given(exchange(transport, &CommandApdu::get_cplc()))?.unwrap_or_default();
    let data = tlv::value(&answer, CPLC).unwrap_or(&answer);
    Ok((data.len() == CPLC_LENGTH).then(|| hex::encode(data)))
}

#[cfg(test)]
mod tests;
