//! What a reader's driver tells of it, whether a card is in it or not.

use std::ffi::CStr;
use std::thread;
use std::time::Duration;

use pcsc::{Attribute, Card, Error, Protocols, ShareMode};
use tracing::debug;

use super::cancel::CancelToken;
use super::context::PcscContext;
use super::pcsc_errors::{is_gone, is_lost};
use super::pcscd_check::within;
use super::reader_table::CardPresence;
use super::status_change;
use crate::domain::{ReaderAttributes, ReaderName};

/// How long to wait, each time, for whoever works with the card.
const BUSY_PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// How long to wait, each time, before a reader is asked once more on another connection: one that
/// broke says nothing about it, and a rule may need its serial number.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// How long to wait after that, again and again, for whoever keeps the reader to himself.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Asks the driver, and gives up after a while: a thread that the driver holds is left behind.
#[must_use]
pub fn attributes(reader: &ReaderName, patience: Duration) -> ReaderAttributes {
    let asked = reader.clone();
    let ask = move || {
        let goes_by = |pause| {
            thread::sleep(pause);
            true
        };
        read_with_retries(&asked, RETRIES, &goes_by)
    };
    within("reader-about", patience, ask).flatten().unwrap_or_default()
}

/// Asks the driver until it tells, for as long as `goes_on` says so. `tried` goes up as soon as it is
/// not asked all the time any more.
pub(super) fn poll_attributes(
    reader: &ReaderName,
    tried: &CancelToken,
    halt: &CancelToken,
    goes_on: impl Fn() -> bool,
) -> Option<ReaderAttributes> {
    let goes_by = |pause| !halt.wait_timeout(pause);
    let mut told = read_with_retries(reader, RETRIES, &goes_by);
    tried.cancel();
    while told.is_none() && !halt.wait_timeout(RETRY_INTERVAL) && goes_on() {
        told = read_with_retries(reader, [], &goes_by);
    }
    told
}

/// Asks the driver, and again after each pause that went by where that went wrong. No card is spoken
/// to.
fn read_with_retries(
    reader: &ReaderName,
    pauses: impl IntoIterator<Item = Duration>,
    goes_by: &impl Fn(Duration) -> bool,
) -> Option<ReaderAttributes> {
    let mut pauses = pauses.into_iter();
    loop {
        match ask(reader, goes_by) {
            Ok(attributes) => return Some(attributes),
            Err(error) => debug!(%reader, %error, "Reading reader attributes failed"),
        }
        if !goes_by(pauses.next()?) {
            return None;
        }
    }
}

/// A connection to the reader itself would be in the way of whoever connects to a card in it: to
/// them, pcscd says that the protocols do not match. So that is for a reader without a card.
fn ask(
    reader: &ReaderName,
    goes_by: &impl Fn(Duration) -> bool,
) -> Result<ReaderAttributes, Error> {
    let link = PcscContext::establish()?;
    let seen = status_change::poll_one(&link, reader)?;
    let has_card = matches!(seen.snapshot.occupant, CardPresence::Present(_));
    let (mode, protocols) = if has_card {
        (ShareMode::Shared, Protocols::T0 | Protocols::T1)
    } else {
        (ShareMode::Direct, Protocols::UNDEFINED)
    };
    let connection = link.connect(reader, mode, protocols)?;
    Ok(ReaderAttributes {
        vendor: read_attribute(&connection, Attribute::VendorName, goes_by)?,
        serial: read_attribute(&connection, Attribute::VendorIfdSerialNo, goes_by)?,
    })
}

/// One attribute. While somebody works with the card, pcscd keeps it to itself: that is waited for.
fn read_attribute(
    connection: &Card,
    attribute: Attribute,
    goes_by: &impl Fn(Duration) -> bool,
) -> Result<Option<String>, Error> {
    for pause in BUSY_PAUSES {
        match connection.get_attribute_owned(attribute) {
            Ok(bytes) => return Ok(text(&bytes)),
            Err(Error::SharingViolation) => {
                if !goes_by(pause) {
                    break;
                }
            }
            // What pcscd makes of a driver that does not know the attribute.
            Err(Error::UnsupportedFeature | Error::NotTransacted) => return Ok(None),
            Err(error) if is_gone(error) || is_lost(error) || error == Error::ResetCard => {
                return Err(error);
            }
            Err(_) => return Ok(None),
        }
    }
    Err(Error::SharingViolation)
}

/// A driver's text, with or without the zero that ends it in C.
fn text(bytes: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_text_may_end_in_a_zero_and_be_empty() {
        assert_eq!(text(b"ACS\0"), Some("ACS".to_owned()));
        assert_eq!(text(b"ACS\0garbage"), Some("ACS".to_owned()));
        assert_eq!(text(b" R-17 "), Some("R-17".to_owned()));
        assert_eq!((text(b""), text(b"\0"), text(b"  \0")), (None, None, None));
    }
}
