//! PC/SC's error codes: what they mean, and what the operator can do. On pcsc-lite some mean other things
//! than their texts say; only this file knows which.

use pcsc::Error;

use crate::card::TransmitError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorClass {
    /// Card or reader is gone. A removal stays with the handle even when another card is inserted.
    Gone,
    /// The probe has to start again: another program reset the card, or one exchange failed below.
    Reset,
    Lost,
    Other,
}

use ErrorClass::{Gone, Lost, Other, Reset};

/// The code of a connection out of sync with pcscd: libpcsclite 2.5.0 and 2.5.1 take an event for the
/// response to their request if it comes just before it.
const OUT_OF_SYNC: Error = Error::UnsupportedFeature;

/// Each code with its class, its text on a card and its text on a context. Without a text, the library's
/// text says enough.
const ERRORS: [(Error, ErrorClass, &str, &str); 17] = [
    (Error::RemovedCard, Gone, "", ""),
    (Error::NoSmartcard, Gone, "", ""),
    (Error::UnknownReader, Gone, "", ""),
    (Error::InvalidValue, Gone, "", ""),
    (Error::InvalidHandle, Gone, "", ""),
    (Error::ResetCard, Reset, "", ""),
    (Error::NotTransacted, Reset, "", ""),
    (Error::NoService, Lost, "", NOT_RUNNING),
    (Error::CommError, Lost, "", "connection to pcscd was lost"),
    (Error::ServiceStopped, Lost, "", PROTOCOL_MISMATCH),
    (Error::SecurityViolation, Lost, CARD_DENIED, PCSCD_DENIED),
    (Error::InternalError, Lost, "", ""),
    (OUT_OF_SYNC, Lost, "", "libpcsclite1 lost sync with pcscd: restart cardbridge"),
    (Error::ProtoMismatch, Other, NO_PROTOCOL, ""),
    (Error::ReaderUnavailable, Other, READER_ERROR, ""),
    (Error::UnpoweredCard, Other, NOT_RESPONDING, ""),
    (Error::UnresponsiveCard, Other, NOT_RESPONDING, ""),
];

const NOT_RUNNING: &str = "pcscd is not running: start it with `systemctl start pcscd.socket`";
// The libraries have this code only from pcscd's response to their protocol version.
const PROTOCOL_MISMATCH: &str = "protocol does not fit, pcscd is of another version than \
    libpcsclite1: restart pcscd and cardbridge after an upgrade; in a container install the version \
    that pcscd has";
const CARD_DENIED: &str =
    "pcscd denied card access: allow org.debian.pcsc-lite.access_card in a polkit rule";
const PCSCD_DENIED: &str = "pcscd refused the connection: allow \
    org.debian.pcsc-lite.access_pcsc in a polkit rule, or close other clients (limit 200)";
const NO_PROTOCOL: &str =
    "no common protocol (T=0 or T=1) or corrupt ATR: clean the card, or try another reader";
const READER_ERROR: &str = "the reader reports an error: disconnect and reconnect it";
const NOT_RESPONDING: &str = "the card stopped responding: remove and insert it again";
// What the library reports for every socket that it does not get, whatever the cause.
const NO_SECOND_CONNECTION: &str = "cannot open a second connection to pcscd: raise LimitNOFILE, \
    or close other pcscd clients";

/// Why a pcscd is unusable that ends each connection before its first poll is done.
pub(super) const CUT_AT_FIRST: &str = "pcscd ends each connection at its first requests: either its \
    protocol does not fit and it is of another version than libpcsclite1, so install one version of \
    both and restart pcscd and cardbridge; or it crashes, see `journalctl -u pcscd`";

fn class(error: Error) -> ErrorClass {
    ERRORS.iter().find(|(code, ..)| *code == error).map_or(Other, |(_, class, ..)| *class)
}

pub(super) fn is_gone(error: Error) -> bool {
    class(error) == Gone
}

pub(super) fn is_lost(error: Error) -> bool {
    class(error) == Lost
}

/// Whether the connection is unusable while pcscd runs on.
pub(super) fn is_out_of_sync(error: Error) -> bool {
    error == OUT_OF_SYNC
}

/// Whether a connect failed because the card does not answer at power-up.
pub(super) fn is_mute(error: Error) -> bool {
    error == Error::UnpoweredCard
}

/// Whether a connect failed because reader and card agree on no protocol. The card answered at power-up,
/// or pcscd would report that it has no power.
pub(super) fn is_without_protocol(error: Error) -> bool {
    error == Error::UnresponsiveCard
}

pub(super) fn to_transmit_error(error: Error) -> TransmitError {
    match class(error) {
        Gone => TransmitError::Removed,
        Reset => TransmitError::Reset,
        Lost => TransmitError::PcscdLost,
        Other => TransmitError::Failed { detail: card_error_text(error) },
    }
}

/// An error on a card, with its remedy if there is one.
pub(super) fn card_error_text(error: Error) -> String {
    let text = ERRORS.iter().find(|(code, ..)| *code == error).map_or("", |(_, _, text, _)| text);
    if text.is_empty() { library_text(error) } else { text.to_owned() }
}

/// Why pcscd is unusable, with the remedy if there is one.
pub(super) fn pcscd_error_text(error: Error) -> String {
    let text = ERRORS.iter().find(|(code, ..)| *code == error).map_or("", |(.., text)| text);
    if text.is_empty() { library_text(error) } else { text.to_owned() }
}

/// Why pcscd is unreachable for a second connection, while the first one works.
pub(super) fn second_connection_error_text(error: Error) -> String {
    if error == Error::NoService {
        return NO_SECOND_CONNECTION.to_owned();
    }
    pcscd_error_text(error)
}

/// Why reader and card agree on no protocol, by the protocols that the card offers.
pub(super) fn no_protocol_text(offered: &[u8]) -> String {
    if !offered.iter().any(|protocol| matches!(protocol, 0 | 1)) {
        return card_error_text(Error::ProtoMismatch);
    }
    let names: Vec<_> = offered.iter().map(|protocol| format!("T={protocol}")).collect();
    format!(
        "reader and card agree on no protocol: the card answers and offers {}, the reader does not \
         take that: try another reader, or clean the card",
        names.join(" and ")
    )
}

fn library_text(error: Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(class: ErrorClass) -> Vec<Error> {
        let of_class = ERRORS.iter().filter(|(_, it, ..)| *it == class);
        of_class.map(|(code, ..)| *code).collect()
    }

    #[test]
    fn removed_card_error_ends_probe() {
        for error in codes(Gone) {
            assert_eq!(to_transmit_error(error), TransmitError::Removed);
        }
    }

    #[test]
    fn reset_by_another_program_restarts_probe() {
        assert_eq!(to_transmit_error(Error::ResetCard), TransmitError::Reset);
        assert_eq!(to_transmit_error(Error::NotTransacted), TransmitError::Reset);
    }

    #[test]
    fn lost_connection_codes_report_pcscd_lost() {
        for error in codes(Lost) {
            assert_eq!(to_transmit_error(error), TransmitError::PcscdLost);
        }
    }

    #[test]
    fn second_connection_error_does_not_report_stopped_pcscd() {
        assert!(pcscd_error_text(Error::NoService).contains("not running"));
        let text = second_connection_error_text(Error::NoService);
        assert!(text.contains("LimitNOFILE") && !text.contains("not running"), "{text}");
        assert_eq!(
            second_connection_error_text(Error::CommError),
            pcscd_error_text(Error::CommError)
        );
    }

    #[test]
    fn no_protocol_text_lists_offered_protocols() {
        for (offered, says) in [([1].as_slice(), "offers T=1,"), (&[0, 1], "offers T=0 and T=1,")] {
            let text = no_protocol_text(offered);
            assert!(text.contains(says) && text.contains("another reader"), "{text}");
        }
        assert_eq!(no_protocol_text(&[14]), card_error_text(Error::ProtoMismatch));
        assert!(is_without_protocol(Error::UnresponsiveCard) && !is_mute(Error::UnresponsiveCard));
    }

    #[test]
    fn other_pcsc_errors_use_library_text() {
        let TransmitError::Failed { detail: what } = to_transmit_error(Error::CommDataLost) else {
            panic!()
        };
        assert!(what.starts_with("a communications error"), "{what}");
    }
}
