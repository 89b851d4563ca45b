//! The serial number of a card whose EF.TokenInfo has none: what OpenSC's drivers ask instead.
//!
//! Sources: OpenSC `src/libopensc/card-myeid.c`, `myeid_get_serialnr`, and `card-cardos.c`,
//! `cardos_get_serialnr`.

use crate::card::apdu::Command;
use crate::card::atr::AtrFacts;
use crate::card::exchange::ask;
use crate::card::reading::where_given;
use crate::card::{Interrupted, Transmit};
use crate::domain::Atr;

/// MyEID's "applet information", 20 bytes, and where the serial number is in it.
const MYEID_INFORMATION: u16 = 0x01A0;
const MYEID_LENGTH: usize = 20;
const MYEID_SERIAL: std::ops::Range<usize> = 8..18;

/// CardOS's "product and serial data": the serial number alone, or in a block of 32 bytes.
const CARDOS_SERIAL: u16 = 0x0181;
const CARDOS_LENGTH: usize = 8;
const CARDOS_BLOCK: usize = 32;
const CARDOS_IN_BLOCK: std::ops::Range<usize> = 10..16;

/// What the historical bytes of CardOS' ATRs begin with: two of them, of which the second is the
/// version (M4 and 5).
const CARDOS: [u8; 2] = [0xC8, 0xC9];

/// The number that OpenSC takes for the card's serial.
pub(super) fn serial_number(
    transport: &mut dyn Transmit,
    atr: &Atr,
) -> Result<Option<Vec<u8>>, Interrupted> {
    let historical = AtrFacts::of(atr).historical.bytes;
    let is_myeid = historical.ends_with(b"MyEID") || historical.ends_with(b"OsEID");
    let is_cardos = matches!(*historical, [maker, _] if CARDOS.contains(&maker));
    let object = match (is_myeid, is_cardos) {
        (true, _) => MYEID_INFORMATION,
        (_, true) => CARDOS_SERIAL,
        (false, false) => return Ok(None),
    };
    let answer = where_given(ask(transport, &Command::get_data_here(object)))?.unwrap_or_default();
    let number = match answer.len() {
        MYEID_LENGTH if is_myeid => answer.get(MYEID_SERIAL),
        CARDOS_LENGTH if is_cardos => Some(answer.as_slice()),
        CARDOS_BLOCK if is_cardos => answer.get(CARDOS_IN_BLOCK),
        _ => None,
    };
    Ok(number.map(<[u8]>::to_vec))
}
