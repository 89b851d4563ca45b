//! Numbers that a card returns besides its identity, for operators. No record is found by them.
//!
//! All of them are optional: a refusal leaves a number out.

use super::apdu::CommandApdu;
use super::atr::DecodedAtr;
use super::exchange::{exchange, optional, send};
use super::files::CardFiles;
use super::piv;
use super::tlv;
use super::{Transmit, TransmitError};
use crate::domain::{Atr, Family, Inventory, InventoryNumber};

/// EF.GDO (ISO 7816-4 section 8.2.1.3), and the ICCSN in it.
const EF_GDO: [u8; 2] = [0x2F, 0x02];
const ICCSN: u32 = 0x5A;

/// As much of EF.GDO as OpenSC reads.
const LONGEST_GDO: usize = 64;

/// The card manager (GlobalPlatform Card Specification 2.1.1, appendix F).
const CARD_MANAGER: [u8; 8] = [0xA0, 0x00, 0x00, 0x01, 0x51, 0x00, 0x00, 0x00];

/// Card production life cycle data: its tag and length.
const CPLC: u32 = 0x9F7F;
const CPLC_LENGTH: usize = 42;

/// Yubico's management application, and the serial number in its device information.
const YUBIKEY_MANAGEMENT: [u8; 8] = [0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17];
const YUBIKEY_SERIAL: u8 = 0x02;

/// The UID of a contactless card, which the reader knows.
pub(super) fn read_from_reader(
    transport: &mut dyn Transmit,
    atr: &Atr,
    inventory: &mut Inventory,
) -> Result<(), TransmitError> {
    if DecodedAtr::of(atr).is_contactless {
        let uid = optional(exchange(transport, &CommandApdu::get_contactless_uid()))?;
        let uid = uid.filter(|uid| !uid.is_empty()).map(hex::encode);
        inventory.note(InventoryNumber::ContactlessUid, uid);
    }
    Ok(())
}

/// What the PIV application returns, if it is among those that were selected, one after the other.
/// Whether another application is selected now.
pub(super) fn of_piv(
    transport: &mut dyn Transmit,
    selected: &[Family],
    inventory: &mut Inventory,
) -> Result<bool, TransmitError> {
    if !selected.contains(&Family::Piv) {
        return Ok(false);
    }
    let is_elsewhere = selected.last() != Some(&Family::Piv);
    if is_elsewhere {
        piv::select(transport)?;
    }
    inventory.note(InventoryNumber::PivCcc, piv::ccc(transport)?);
    Ok(is_elsewhere)
}

/// What the card returns. Whether another application is selected now.
pub(super) fn read_from_card(
    transport: &mut dyn Transmit,
    (atr, family): (&Atr, Option<Family>),
    inventory: &mut Inventory,
) -> Result<bool, TransmitError> {
    let mut selection_changed = false;
    let historical = DecodedAtr::of(atr).historical.bytes.to_ascii_lowercase();
    if historical.windows(7).any(|bytes| bytes == b"yubikey") {
        let serial;
        (serial, selection_changed) = yubikey_serial(transport, family)?;
        // A key that is configured to hide its number returns 0.
        let serial = serial.filter(|serial| *serial != 0).map(|serial| serial.to_string());
        inventory.note(InventoryNumber::YubikeySerial, serial);
    }
    if matches!(family, Some(Family::Pkcs15) | None) {
        inventory.note(InventoryNumber::Iccsn, iccsn(transport)?);
    }
    if optional(send(transport, &CommandApdu::select(&CARD_MANAGER)))?.is_some() {
        selection_changed = true;
        let response = optional(exchange(transport, &CommandApdu::get_cplc()))?.unwrap_or_default();
        let data = tlv::value(&response, CPLC).unwrap_or(&response);
        let cplc = (data.len() == CPLC_LENGTH).then(|| hex::encode(data));
        inventory.note(InventoryNumber::Cplc, cplc);
    }
    Ok(selection_changed)
}

/// From the PIV application, if that was read, or else from the management application; and whether that
/// is selected now.
fn yubikey_serial(
    transport: &mut dyn Transmit,
    family: Option<Family>,
) -> Result<(Option<u32>, bool), TransmitError> {
    if family == Some(Family::Piv)
        && let Some(response) = optional(exchange(transport, &CommandApdu::yubikey_serial()))?
        && let Ok(serial) = response.as_slice().try_into()
    {
        return Ok((Some(u32::from_be_bytes(serial)), false));
    }
    if optional(send(transport, &CommandApdu::select(&YUBIKEY_MANAGEMENT)))?.is_none() {
        return Ok((None, false));
    }
    let response = optional(exchange(transport, &CommandApdu::yubikey_information()))?;
    Ok((response.as_deref().and_then(serial_in), true))
}

/// The serial number in a YubiKey's device information: a length of one byte, then data objects whose
/// tags and lengths have one byte each.
fn serial_in(information: &[u8]) -> Option<u32> {
    let (&length, rest) = information.split_first()?;
    let mut rest = rest.get(..usize::from(length))?;
    while let [tag, length, after @ ..] = rest {
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        if *tag == YUBIKEY_SERIAL {
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
    // Packed digits; F's fill the last byte.
    let number = |content: &[u8]| {
        let packed = tlv::only(&tlv::before_padding(content), ICCSN)?;
        Some(hex::encode(packed).trim_end_matches('f').to_owned())
    };
    let is_enough = |content: &[u8]| {
        let is_gdo = matches!(content, [0x5A | 0x5F, ..]);
        !is_gdo || content.len() >= LONGEST_GDO || number(content).is_some()
    };
    let content = files.read(is_enough)?.unwrap_or_default();
    Ok(number(&content).filter(|digits| !digits.is_empty()))
}

#[cfg(test)]
mod tests;
