//! The OpenPGP application ("Functional Specification of the OpenPGP application on ISO Smart Card
//! Operating Systems", version 3.4). `docs/cards.md` has the sources.
//!
//! The id is in the application identifier (section 4.2.1): manufacturer and serial number. What Windows
//! calls such a card depends on the minidriver; known is what OpenSC's makes of it.

use super::Transmit;
use super::apdu::{CommandApdu, StatusWord};
use super::exchange::{ExchangeError, exchange, select};
use super::family_result::{CardReading, IdWorth, NoReading, le, opensc_cardid};
use super::tlv;
use crate::domain::{IdRule, Serial};

/// RID and application. Exactly these six bytes: some cards know no longer SELECT.
const AID: [u8; 6] = [0xD2, 0x76, 0x00, 0x01, 0x24, 0x01];

const APPLICATION_ID: u16 = 0x004F;

/// File control information, and the application's name in it (ISO 7816-4 section 5.3.3).
const FCI: u32 = 0x6F;
const DF_NAME: u32 = 0x84;

/// The registered manufacturers, who assign serial numbers (`GnuPG`'s `scd/app-openpgp.c`,
/// `get_manufacturer`). FF00 to FFFE are for serial numbers that anyone generates; an unregistered number
/// proves no more.
const MANUFACTURERS: [u16; 30] = [
    0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006, 0x0007, 0x0008, 0x0009, 0x000A, 0x000B, 0x000D,
    0x000E, 0x000F, 0x0010, 0x0011, 0x002A, 0x0042, 0x1337, 0x2342, 0x4354, 0x5343, 0x5443, 0x63AF,
    0xBA53, 0xBD0E, 0xCA05, 0xF1D0, 0xF517, 0xF5EC,
];

/// The numbers of test cards, which all count from 1.
const TEST_MANUFACTURERS: [u16; 2] = [0x0000, 0xFFFF];

pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    let selected = select(transport, &CommandApdu::select(&AID)).map_err(no_reading)?;
    read(transport, &selected)
}

pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    read(transport, &[])
}

fn no_reading(error: ExchangeError) -> NoReading {
    if let ExchangeError::Refused(status @ StatusWord::Terminated(_)) = error {
        return NoReading::NoId(format!("card is terminated: {status}"));
    }
    NoReading::other_family(error)
}

fn read(transport: &mut dyn Transmit, selected: &[u8]) -> Result<CardReading, NoReading> {
    let aid = match exchange(transport, &CommandApdu::get_data_current(APPLICATION_ID)) {
        Ok(response) => Aid::parse(&response),
        Err(ExchangeError::Refused(status)) if !matches!(status, StatusWord::Terminated(_)) => None,
        Err(error) => return Err(no_reading(error)),
    };
    let Some(aid) = aid.or_else(|| Aid::parse(name_in(selected)?)) else {
        return Err(NoReading::OtherFamily("card has no OpenPGP application identifier".into()));
    };
    let serial = Serial::from_bytes(&[aid.manufacturer.as_slice(), &aid.serial].concat());
    let cardid = opensc_cardid(&serial.to_string());
    let ids = [le(IdRule::OpenpgpOpensc, cardid, aid.id_worth())];
    Ok(CardReading::new(serial, ids, Some(CommandApdu::select(&AID))))
}

fn name_in(selected: &[u8]) -> Option<&[u8]> {
    tlv::only(&tlv::all(tlv::value(selected, FCI).ok()?).ok()?, DF_NAME)
}

/// The application identifier (section 4.2.1): RID and application (6 bytes), version (2), manufacturer
/// (2), serial number (4), reserved (2).
#[derive(Debug, PartialEq, Eq)]
struct Aid {
    manufacturer: [u8; 2],
    serial: [u8; 4],
}

impl Aid {
    /// An identifier of 16 bytes, with or without its tag.
    fn parse(response: &[u8]) -> Option<Self> {
        let untagged = tlv::value(response, u32::from(APPLICATION_ID)).unwrap_or(response);
        let [_, _, m0, m1, s0, s1, s2, s3, _, _] = *untagged.strip_prefix(&AID)? else {
            return None;
        };
        Some(Self { manufacturer: [m0, m1], serial: [s0, s1, s2, s3] })
    }

    /// What the serial number is worth: its manufacturer assigns it once. An applet that was installed
    /// under a name without a serial number returns zeros.
    fn id_worth(&self) -> IdWorth {
        let manufacturer = u16::from_be_bytes(self.manufacturer);
        let [a, b, c, d] = self.serial;
        let is_repeated = a == b && b == c && c == d;
        if is_repeated || TEST_MANUFACTURERS.contains(&manufacturer) {
            IdWorth::Placeholder
        } else if MANUFACTURERS.contains(&manufacturer) {
            IdWorth::Serial
        } else {
            IdWorth::Shared
        }
    }
}

#[cfg(test)]
mod tests;
