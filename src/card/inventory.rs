//! Numbers for people: what a card says besides its identity. Nothing here finds a record.
//!
//! All of it is optional. A card that refuses is asked no more; what cannot be read is not told.

use super::apdu::{By, Command};
use super::atr::AtrFacts;
use super::exchange::{ask, read_file};
use super::reading::where_given;
use super::tlv;
use super::{Interrupted, Transmit};
use crate::domain::{Atr, Family, Inventory, Number};

/// EF.GDO (ISO 7816-4 section 8.2.1.3), and the ICCSN in it.
const EF_GDO: [u8; 2] = [0x2F, 0x02];
const ICCSN: u32 = 0x5A;

/// The card manager (GlobalPlatform Card Specification 2.1.1, appendix F).
const CARD_MANAGER: [u8; 8] = [0xA0, 0x00, 0x00, 0x01, 0x51, 0x00, 0x00, 0x00];

/// Card production life cycle data: its tag, and how long it is.
const CPLC: u32 = 0x9F7F;
const CPLC_LENGTH: usize = 42;

/// Yubico's management application, and the serial number in what it tells of the device.
const YUBIKEY_MANAGEMENT: [u8; 8] = [0xA0, 0x00, 0x00, 0x05, 0x27, 0x47, 0x11, 0x17];
const YUBIKEY_SERIAL: u32 = 0x02;

/// What a reader says of a contactless card, which needs no word with the card.
pub(super) fn of_reader(
    transport: &mut dyn Transmit,
    atr: &Atr,
    inventory: &mut Inventory,
) -> Result<(), Interrupted> {
    if AtrFacts::of(atr).contactless.is_none() {
        return Ok(());
    }
    let uid = where_given(ask(transport, &Command::get_contactless_uid()))?;
    let uid = uid.filter(|uid| !uid.is_empty()).map(hex::encode);
    inventory.note(Number::ContactlessUid, uid);
    Ok(())
}

/// What a card says. Selects other applications than the one that was identified.
pub(super) fn of_card(
    transport: &mut dyn Transmit,
    (atr, family): (&Atr, Option<Family>),
    inventory: &mut Inventory,
) -> Result<(), Interrupted> {
    if is_yubikey(atr) {
        let serial = yubikey_serial(transport, family)?;
        inventory.note(Number::YubikeySerial, serial.map(|serial| serial.to_string()));
    }
    if matches!(family, Some(Family::Pkcs15) | None) {
        inventory.note(Number::Iccsn, iccsn(transport)?);
    }
    inventory.note(Number::Cplc, cplc(transport)?);
    Ok(())
}

/// Whether the historical bytes of the ATR say so.
fn is_yubikey(atr: &Atr) -> bool {
    let historical = AtrFacts::of(atr).historical.bytes.to_ascii_lowercase();
    historical.windows(7).any(|bytes| bytes == b"yubikey")
}

/// From the PIV application, where that is the one that was read, or from the management one.
fn yubikey_serial(
    transport: &mut dyn Transmit,
    family: Option<Family>,
) -> Result<Option<u32>, Interrupted> {
    if family == Some(Family::Piv)
        && let Some(answer) = where_given(ask(transport, &Command::yubikey_serial()))?
        && let Ok(serial) = answer.as_slice().try_into()
    {
        return Ok(Some(u32::from_be_bytes(serial)));
    }
    if where_given(ask(transport, &Command::select(&YUBIKEY_MANAGEMENT)))?.is_none() {
        return Ok(None);
    }
    let answer = where_given(ask(transport, &Command::yubikey_information()))?;
    Ok(answer.as_deref().and_then(serial_in))
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

fn iccsn(transport: &mut dyn Transmit) -> Result<Option<String>, Interrupted> {
    let select = Command::select_file(By::PathFromMf, EF_GDO);
    if where_given(ask(transport, &select))?.is_none() {
        return Ok(None);
    }
    // The ICCSN comes first, where there is one.
    let first = |read: &[u8]| read.first().is_some_and(|tag| u32::from(*tag) == ICCSN);
    let enough = |read: &[u8]| !first(read) || tlv::split(read).is_ok();
    let content = where_given(read_file(transport, enough))?.unwrap_or_default();
    let number = tlv::only(&tlv::before_padding(&content), ICCSN);
    Ok(number.map(digits).filter(|digits| !digits.is_empty()))
}

/// Packed digits without the F's that fill the last byte.
fn digits(packed: &[u8]) -> String {
    hex::encode(packed).trim_end_matches('f').to_owned()
}

fn cplc(transport: &mut dyn Transmit) -> Result<Option<String>, Interrupted> {
    if where_given(ask(transport, &Command::select(&CARD_MANAGER)))?.is_none() {
        return Ok(None);
    }
    let answer = where_given(ask(transport, &Command::get_cplc()))?.unwrap_or_default();
    let data = tlv::value(&answer, CPLC).unwrap_or(&answer);
    Ok((data.len() == CPLC_LENGTH).then(|| hex::encode(data)))
}

#[cfg(test)]
mod tests;
