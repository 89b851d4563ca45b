//! The OpenPGP application ("Functional Specification of the OpenPGP application on ISO Smart Card
//! Operating Systems", version 3.4). `docs/cards.md` has the sources.
//!
//! The id is in the application identifier itself (section 4.2.1): manufacturer and serial number.
//! What Windows calls such a card depends on the minidriver; known is what OpenSC's makes of it.

use super::Transmit;
use super::apdu::{CommandApdu, StatusWord};
use super::exchange::{ExchangeError, exchange, select};
use super::family_result::{CardReading, IdWorth, NoReading, le};
use super::opensc_minidriver;
use super::tlv;
use crate::domain::{IdRule, Serial};

mod manufacturers;

/// RID and application. Exactly these six bytes: there are cards that know no longer SELECT.
const AID: [u8; 6] = [0xD2, 0x76, 0x00, 0x01, 0x24, 0x01];

/// The data object that holds the whole application identifier.
const APPLICATION_ID: u16 = 0x004F;

/// File control information, and the name of the application in it (ISO 7816-4 section 5.3.3).
const FCI: u32 = 0x6F;
const DF_NAME: u32 = 0x84;

/// Selects the application and reads its identifier.
pub(super) fn probe(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    match select(transport, &CommandApdu::select(&AID)) {
        Ok(selected) => read(transport, &selected),
        Err(ExchangeError::Refused(status @ StatusWord::Terminated(_))) => {
            Err(NoReading::NoId(format!("card is terminated: {status}")))
        }
        Err(why) => Err(NoReading::other_family(why)),
    }
}

/// Reads the identifier without a SELECT.
pub(super) fn probe_selected(transport: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    read(transport, &[])
}

fn read(transport: &mut dyn Transmit, selected: &[u8]) -> Result<CardReading, NoReading> {
    let aid = match exchange(transport, &CommandApdu::get_data_current(APPLICATION_ID)) {
        Ok(answer) => Aid::parse(&answer),
        Err(ExchangeError::Refused(status @ StatusWord::Terminated(_))) => {
            return Err(NoReading::NoId(format!("card is terminated: {status}")));
        }
        Err(ExchangeError::Refused(_)) => None,
        Err(why) => return Err(NoReading::other_family(why)),
    };
    let aid = aid.or_else(|| Aid::parse(&name_in(selected)?));
    let Some(aid) = aid else {
        return Err(NoReading::OtherFamily("card has no OpenPGP application identifier".into()));
    };
    let serial = Serial::from_bytes(&[aid.manufacturer.as_slice(), &aid.serial].concat());
    let cardid = opensc_minidriver::cardid(&serial.to_string());
    let ids = [le(IdRule::OpenpgpOpensc, cardid, aid.id_worth())];
    Ok(CardReading::new(serial, ids, Some(CommandApdu::select(&AID))))
}

/// The application's name in the answer to SELECT.
fn name_in(selected: &[u8]) -> Option<Vec<u8>> {
    let inside = tlv::all(tlv::value(selected, FCI).ok()?).ok()?;
    tlv::only(&inside, DF_NAME).map(<[u8]>::to_vec)
}

/// What identifies a card in its application identifier (section 4.2.1): after RID and application
/// come version (2 bytes), manufacturer (2), serial number (4) and two bytes for future use.
#[derive(Debug, PartialEq, Eq)]
struct Aid {
    manufacturer: [u8; 2],
    serial: [u8; 4],
}

impl Aid {
    /// An identifier of 16 bytes, as it is or with its tag.
    fn parse(answer: &[u8]) -> Option<Self> {
        let untagged = tlv::value(answer, u32::from(APPLICATION_ID)).unwrap_or(answer);
        let rest = untagged.strip_prefix(&AID)?;
        let (_version, rest) = rest.split_first_chunk::<2>()?;
        let (manufacturer, rest) = rest.split_first_chunk()?;
        let (serial, rest) = rest.split_first_chunk()?;
        (rest.len() == 2).then_some(Self { manufacturer: *manufacturer, serial: *serial })
    }

    /// What the serial number is worth: it is its manufacturer who gives it out once.
    ///
    /// An applet that was installed under a name without a serial number shows zeros for one.
    fn id_worth(&self) -> IdWorth {
        let digits: Vec<_> = self.serial.iter().flat_map(|byte| [byte >> 4, byte & 0x0F]).collect();
        let repeated =
            |length: usize| digits.iter().skip(length).eq(digits.iter().take(8 - length));
        if repeated(1) || repeated(2) || manufacturers::is_for_tests(self.manufacturer) {
            IdWorth::Placeholder
        } else if manufacturers::is_registered(self.manufacturer) {
            IdWorth::Serial
        } else {
            IdWorth::Shared
        }
    }
}

#[cfg(test)]
mod tests;
