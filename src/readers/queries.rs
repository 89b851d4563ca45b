//! Single questions: whether this user can use pcscd, and what a reader's driver reports.

use std::ffi::CStr;
use std::time::Duration;

use pcsc::{Attribute, Card, Error, Protocols, ShareMode};
use tracing::debug;

use crate::domain::{ReaderAttributes, ReaderName};

use super::context::PcscContext;
use super::pcsc_errors::{CUT_AT_FIRST, is_gone, is_lost, is_out_of_sync, pcscd_error_text};
use super::reader_table::CardPresence;
use super::status_change::{HotplugWatch, list, poll_one};
use super::thread::{CancelToken, within};

/// How many readers pcsc-lite before 2.5 takes in one call.
const MAX_AT_ONCE: usize = 16;

/// How long to wait, each time, for another program to release the card.
const BUSY_PAUSES_MS: [u64; 4] = [50, 100, 250, 500];

/// How long to wait, each time, before another connection: a broken one proves nothing about the reader,
/// and a rule may need its serial number.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// How long to wait after that, each time, for a program that holds the reader.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PcscdCheck {
    Available {
        readers: Vec<(ReaderName, ReaderContent)>,
        cards: CardAccess,
    },
    /// pcscd refuses this user; or every client, where it has too many.
    AccessDenied,
    Unreachable {
        detail: String,
    },
    /// pcscd accepts connections, and does not answer.
    NotResponding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardAccess {
    Allowed,
    Denied,
    /// No card was inserted, or another program holds it.
    Untested,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderContent {
    Empty,
    /// A card that answered at power-up.
    Card,
    /// A card that did not.
    MuteCard,
}

#[must_use]
pub fn check_pcscd(timeout: Duration) -> PcscdCheck {
    let check = || match PcscContext::establish() {
        // pcscd refuses before there is a connection: on one, that code means that it was cut.
        Ok(context) => poll_all(&context).unwrap_or_else(|error| {
            if is_lost(error) && !is_out_of_sync(error) {
                PcscdCheck::Unreachable { detail: CUT_AT_FIRST.to_owned() }
            } else {
                classify(error)
            }
        }),
        Err(error) => classify(error),
    };
    within("pcsc-check", timeout, check).unwrap_or(PcscdCheck::NotResponding)
}

fn poll_all(context: &PcscContext) -> Result<PcscdCheck, Error> {
    let names = list(context)?;
    let (mut hotplug, mut readers) = (HotplugWatch::new(), Vec::new());
    if names.is_empty() {
        hotplug.first_poll(context, &names)?;
    }
    for names in names.chunks(MAX_AT_ONCE) {
        for polled in hotplug.first_poll(context, names)? {
            let content = match polled.snapshot.occupant {
                CardPresence::Mute => ReaderContent::MuteCard,
                CardPresence::Present(_) => ReaderContent::Card,
                CardPresence::Empty | CardPresence::Unknown => ReaderContent::Empty,
            };
            readers.push((polled.snapshot.reader, content));
        }
    }
    let with_card = readers.iter().find(|(_, content)| *content == ReaderContent::Card);
    let cards = with_card.map_or(CardAccess::Untested, |(reader, _)| {
        // The connection leaves the card as it is.
        match context.connect(reader, ShareMode::Shared, Protocols::ANY) {
            Ok(_connection) => CardAccess::Allowed,
            Err(Error::SecurityViolation) => CardAccess::Denied,
            Err(_) => CardAccess::Untested,
        }
    });
    Ok(PcscdCheck::Available { readers, cards })
}

fn classify(error: Error) -> PcscdCheck {
    if error == Error::NoReadersAvailable {
        PcscdCheck::Available { readers: Vec::new(), cards: CardAccess::Untested }
    } else if error == Error::SecurityViolation {
        PcscdCheck::AccessDenied
    } else {
        PcscdCheck::Unreachable { detail: pcscd_error_text(error) }
    }
}

/// What a reader's driver reports, within a timeout: a thread that the driver blocks is abandoned.
#[must_use]
pub fn attributes(reader: &ReaderName, timeout: Duration) -> ReaderAttributes {
    let reader = reader.clone();
    let read = move || read_with_retries(&reader, &RETRIES, &CancelToken::default());
    within("reader-about", timeout, read).flatten().unwrap_or_default()
}

/// What a reader's driver reports. Repeated until it does, for as long as `is_present`. `tried` is set
/// after the first series.
pub(super) fn poll_attributes(
    reader: &ReaderName,
    tried: &CancelToken,
    halt: &CancelToken,
    is_present: impl Fn() -> bool,
) -> Option<ReaderAttributes> {
    let mut attributes = read_with_retries(reader, &RETRIES, halt);
    tried.cancel();
    while attributes.is_none() && !halt.wait_timeout(RETRY_INTERVAL) && is_present() {
        attributes = read_with_retries(reader, &[], halt);
    }
    attributes
}

fn read_with_retries(
    reader: &ReaderName,
    pauses: &[Duration],
    halt: &CancelToken,
) -> Option<ReaderAttributes> {
    let mut pauses = pauses.iter();
    loop {
        match read_attributes(reader, halt) {
            Ok(attributes) => return Some(attributes),
            Err(error) => debug!(%reader, %error, "Reading reader attributes failed"),
        }
        if halt.wait_timeout(*pauses.next()?) {
            return None;
        }
    }
}

/// A connection to the reader itself (direct) makes pcscd report mismatched protocols to programs that
/// connect to a card in it. So it is for a reader without a card. No command goes to a card.
fn read_attributes(reader: &ReaderName, halt: &CancelToken) -> Result<ReaderAttributes, Error> {
    let context = PcscContext::establish()?;
    let polled = poll_one(&context, reader)?;
    let (mode, protocols) = if let CardPresence::Present(_) = polled.snapshot.occupant {
        (ShareMode::Shared, Protocols::T0 | Protocols::T1)
    } else {
        (ShareMode::Direct, Protocols::UNDEFINED)
    };
    let connection = context.connect(reader, mode, protocols)?;
    Ok(ReaderAttributes {
        vendor: read_attribute(&connection, Attribute::VendorName, halt)?,
        serial: read_attribute(&connection, Attribute::VendorIfdSerialNo, halt)?,
    })
}

/// One attribute. pcscd returns none while another program works with the card: wait for its release.
fn read_attribute(
    connection: &Card,
    attribute: Attribute,
    halt: &CancelToken,
) -> Result<Option<String>, Error> {
    for pause in BUSY_PAUSES_MS.map(Duration::from_millis) {
        match connection.get_attribute_owned(attribute) {
            Ok(bytes) => return Ok(text(&bytes)),
            Err(Error::SharingViolation) if !halt.wait_timeout(pause) => {}
            Err(Error::SharingViolation) => break,
            // What pcscd returns for a driver that does not know the attribute.
            Err(Error::UnsupportedFeature | Error::NotTransacted) => return Ok(None),
            Err(error) if is_gone(error) || is_lost(error) || error == Error::ResetCard => {
                return Err(error);
            }
            Err(_) => return Ok(None),
        }
    }
    Err(Error::SharingViolation)
}

/// A driver's text, with or without its final NUL.
fn text(bytes: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_text_ends_at_nul() {
        assert_eq!(text(b"ACS\0"), Some("ACS".to_owned()));
        assert_eq!(text(b"ACS\0garbage"), Some("ACS".to_owned()));
        assert_eq!(text(b" R-17 "), Some("R-17".to_owned()));
        assert_eq!((text(b""), text(b"\0"), text(b"  \0")), (None, None, None));
    }
}
