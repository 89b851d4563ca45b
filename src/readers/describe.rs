//! What a reader's driver tells of it, whether a card is in it or not.

use std::ffi::CStr;
use std::thread;
use std::time::Duration;

use pcsc::{Attribute, Card, Error, Protocols, ShareMode};
use tracing::debug;

use super::diff::Occupant;
use super::link::Link;
use super::look::within;
use super::wait;
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

/// Asks the driver, and gives up after a while: a thread that the driver holds is left behind.
#[must_use]
pub fn attributes(reader: &ReaderName, patience: Duration) -> ReaderAttributes {
    let asked = reader.clone();
    within("reader-about", patience, move || ask_driver(&asked)).unwrap_or_default()
}

/// Asks the driver, and again where that went wrong. No card is spoken to.
pub(super) fn ask_driver(reader: &ReaderName) -> ReaderAttributes {
    for pause in RETRIES {
        match ask(reader) {
            Ok(attributes) => return attributes,
            Err(error) => debug!(%reader, %error, "Reader could not be described"),
        }
        thread::sleep(pause);
    }
    ask(reader).unwrap_or_default()
}

/// A connection to the reader itself would be in the way of whoever connects to a card in it: to
/// them, pcscd says that the protocols do not match. So that is for a reader without a card.
fn ask(reader: &ReaderName) -> Result<ReaderAttributes, Error> {
    let link = Link::establish()?;
    let seen = wait::look(&link, std::slice::from_ref(reader))?;
    let has_card = seen.iter().any(|seen| matches!(seen.look.occupant, Occupant::Card(_)));
    let (mode, protocols) = if has_card {
        (ShareMode::Shared, Protocols::T0 | Protocols::T1)
    } else {
        (ShareMode::Direct, Protocols::UNDEFINED)
    };
    let connection = link.connect(reader, mode, protocols)?;
    Ok(ReaderAttributes {
        vendor: told(&connection, Attribute::VendorName),
        serial: told(&connection, Attribute::VendorIfdSerialNo),
    })
}

/// One attribute. While somebody works with the card, pcscd keeps it to itself: that is waited for.
fn told(connection: &Card, attribute: Attribute) -> Option<String> {
    for pause in BUSY_PAUSES {
        match connection.get_attribute_owned(attribute) {
            Ok(bytes) => return text(&bytes),
            Err(Error::SharingViolation) => thread::sleep(pause),
            Err(_) => return None,
        }
    }
    None
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
