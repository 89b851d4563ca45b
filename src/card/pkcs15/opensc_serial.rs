//! The serial number of a card whose EF.TokenInfo has none, or is not readable: what OpenSC's drivers
//! ask instead. Which driver OpenSC takes depends on the ATR; here only what the card answers counts,
//! and its length says what it is.
//!
//! Sources: OpenSC `src/libopensc/card-myeid.c`, `myeid_get_serialnr`; `card-cardos.c`,
//! `cardos_get_serialnr`; `card-epass2003.c`, `epass2003_get_serialnr`.

use crate::card::apdu::CommandApdu;
use crate::card::exchange::exchange;
use crate::card::family_result::where_given;
use crate::card::{Transmit, TransmitError};

/// MyEID's "applet information", 20 bytes, and where the serial number is in it.
const MYEID_INFORMATION: u16 = 0x01A0;
const MYEID_LENGTH: usize = 20;
const MYEID_SERIAL: std::ops::Range<usize> = 8..18;

/// CardOS's "product and serial data": the serial number alone, or in a block of 32 bytes.
const CARDOS_SERIAL: u16 = 0x0181;
const CARDOS_LENGTH: usize = 8;
const CARDOS_BLOCK: usize = 32;
const CARDOS_IN_BLOCK: std::ops::Range<usize> = 10..16;

/// The serial number of an ePass2003, which wants to be asked for its 8 bytes.
const EPASS_SERIAL: u16 = 0x0180;
const EPASS_LENGTH: u8 = 8;

/// The number that a card with an EF.TokenInfo gives.
pub(super) fn serial_number(
    transport: &mut dyn Transmit,
) -> Result<Option<Vec<u8>>, TransmitError> {
    let information = object(transport, &CommandApdu::get_data_current(MYEID_INFORMATION))?;
    if information.len() == MYEID_LENGTH {
        return Ok(information.get(MYEID_SERIAL).map(<[u8]>::to_vec));
    }
    let product = object(transport, &CommandApdu::get_data_current(CARDOS_SERIAL))?;
    Ok(match product.len() {
        CARDOS_LENGTH => Some(product),
        CARDOS_BLOCK => product.get(CARDOS_IN_BLOCK).map(<[u8]>::to_vec),
        _ => None,
    })
}

/// The number that a card gives that does not allow its files to be selected.
pub(super) fn serial_of_closed(
    transport: &mut dyn Transmit,
) -> Result<Option<Vec<u8>>, TransmitError> {
    let command = CommandApdu::get_data_current(EPASS_SERIAL).with_le(EPASS_LENGTH);
    let serial = object(transport, &command)?;
    Ok((serial.len() == usize::from(EPASS_LENGTH)).then_some(serial))
}

fn object(transport: &mut dyn Transmit, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
    Ok(where_given(exchange(transport, command))?.unwrap_or_default())
}
