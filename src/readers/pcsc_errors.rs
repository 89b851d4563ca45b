//! PC/SC's error codes, by what they mean and what somebody can do about them.
//!
//! The codes mean other things on pcsc-lite than their texts say; this is the one place that knows.

use pcsc::Error;

use crate::card::TransmitError;

/// Codes of a call on a card that say that card or reader went away. Removal sticks to a handle
/// even when another card is in by then.
const REMOVED_ERRORS: [Error; 5] = [
    Error::RemovedCard,
    Error::NoSmartcard,
    Error::UnknownReader,
    Error::InvalidValue,
    Error::InvalidHandle,
];

/// Codes that say that the card has to be asked all over again: another program reset it, or one
/// exchange failed below.
const RESTART_ERRORS: [Error; 2] = [Error::ResetCard, Error::NotTransacted];

/// The code for a connection that fell out of step with pcscd: libpcsclite 2.5.0 and 2.5.1 take word
/// of an event for the answer to a question of theirs when it comes just before that.
const OUT_OF_SYNC_ERRORS: Error = Error::UnsupportedFeature;

/// Codes that say that the connection to pcscd was lost.
const LOST_ERRORS: [Error; 6] = [
    Error::NoService,
    Error::CommError,
    Error::ServiceStopped,
    Error::SecurityViolation,
    Error::InternalError,
    OUT_OF_SYNC_ERRORS,
];

/// Whether card or reader went away.
pub(super) fn is_gone(error: Error) -> bool {
    REMOVED_ERRORS.contains(&error)
}

/// Whether the connection to pcscd was lost.
pub(super) fn is_lost(error: Error) -> bool {
    LOST_ERRORS.contains(&error)
}

/// Whether the connection is of no use any more, while pcscd is there as before.
pub(super) fn is_out_of_sync(error: Error) -> bool {
    error == OUT_OF_SYNC_ERRORS
}

/// Whether a connect failed because the card does not answer at power-up.
pub(super) fn is_mute(error: Error) -> bool {
    error == Error::UnpoweredCard
}

/// Whether a connect failed because reader and card agree on no protocol. The card answered at power-up,
/// or pcscd would say that it has no power.
pub(super) fn is_without_protocol(error: Error) -> bool {
    error == Error::UnresponsiveCard
}

/// What an error on a connected card means for its probe.
pub(super) fn to_transmit_error(error: Error) -> TransmitError {
    if is_gone(error) {
        TransmitError::Removed
    } else if RESTART_ERRORS.contains(&error) {
        TransmitError::Reset
    } else if is_lost(error) {
        TransmitError::PcscdLost
    } else {
        TransmitError::Failed { detail: card_error_text(error) }
    }
}

/// Codes on a card that there is more to say about than the library does.
const ON_CARD: [(Error, &str); 5] = [
    (
        Error::ProtoMismatch,
        "no common protocol (T=0 or T=1) or corrupt ATR: clean the card, or try another reader",
    ),
    (
        Error::SecurityViolation,
        "pcscd denied card access: allow org.debian.pcsc-lite.access_card in a polkit rule",
    ),
    (Error::ReaderUnavailable, "the reader reports an error: disconnect and reconnect it"),
    (Error::UnpoweredCard, "the card stopped responding: remove and insert it again"),
    (Error::UnresponsiveCard, "the card stopped responding: remove and insert it again"),
];

/// Codes on a context that there is more to say about than the library does.
const ON_SERVICE: [(Error, &str); 5] = [
    (Error::NoService, "pcscd is not running: start it with `systemctl start pcscd.socket`"),
    (Error::CommError, "connection to pcscd was lost"),
    (OUT_OF_SYNC_ERRORS, "libpcsclite1 lost sync with pcscd: restart cardbridge"),
    // The libraries have it from nowhere but pcscd's answer to their version of the protocol.
    (
        Error::ServiceStopped,
        "protocol does not fit, pcscd is of another version than libpcsclite1: restart pcscd and \
         cardbridge after an upgrade; in a container install the version that pcscd has",
    ),
    (
        Error::SecurityViolation,
        "pcscd refused the connection: allow org.debian.pcsc-lite.access_pcsc in a polkit rule, or close other clients (limit 200)",
    ),
];

/// Why a pcscd cannot be used that takes each connection and ends it before it has answered much.
pub(super) const CUT_AT_FIRST: &str = "pcscd ends each connection at its first requests: either its \
     protocol does not fit and it is of another version than libpcsclite1, so install one version of \
     both and restart pcscd and cardbridge; or it crashes, see `journalctl -u pcscd`";

/// An error on a card in words, with what to do about it where there is something.
pub(super) fn card_error_text(error: Error) -> String {
    lookup_text(&ON_CARD, error)
}

/// Why pcscd cannot be used, in words, with what to do about it.
pub(super) fn pcscd_error_text(error: Error) -> String {
    lookup_text(&ON_SERVICE, error)
}

/// Why pcscd cannot be reached once more, while another connection to it works.
pub(super) fn second_connection_error_text(error: Error) -> String {
    // What the library says of every socket that it does not get, whatever the cause.
    if error == Error::NoService {
        return "cannot open a second connection to pcscd: raise LimitNOFILE, or close other pcscd clients"
            .to_owned();
    }
    pcscd_error_text(error)
}

/// Why reader and card agree on no protocol, by the protocols that the card offers.
pub(super) fn on_protocols(offered: &[u8]) -> String {
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

fn lookup_text(better: &[(Error, &str)], error: Error) -> String {
    match better.iter().find(|(code, _)| *code == error) {
        Some((_, words)) => (*words).to_owned(),
        None => library_text(error),
    }
}

/// The library's own text, as a fragment.
fn library_text(error: Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_a_card_that_is_gone_ends_the_probe_whatever_is_in_by_then() {
        for error in REMOVED_ERRORS {
            assert_eq!(to_transmit_error(error), TransmitError::Removed);
        }
    }

    #[test]
    fn a_reset_by_somebody_else_starts_the_probe_over() {
        assert_eq!(to_transmit_error(Error::ResetCard), TransmitError::Reset);
        assert_eq!(to_transmit_error(Error::NotTransacted), TransmitError::Reset);
    }

    #[test]
    fn a_broken_connection_is_a_class_of_codes() {
        for error in LOST_ERRORS {
            assert_eq!(to_transmit_error(error), TransmitError::PcscdLost);
        }
    }

    #[test]
    fn a_pcscd_that_another_connection_reaches_is_not_said_to_be_stopped() {
        assert!(pcscd_error_text(Error::NoService).contains("not running"));
        let words = second_connection_error_text(Error::NoService);
        assert!(words.contains("LimitNOFILE") && !words.contains("not running"), "{words}");
        assert_eq!(
            second_connection_error_text(Error::CommError),
            pcscd_error_text(Error::CommError)
        );
    }

    #[test]
    fn a_card_without_a_protocol_in_common_is_said_to_answer_and_what_it_offers() {
        for (offered, says) in [([1].as_slice(), "offers T=1,"), (&[0, 1], "offers T=0 and T=1,")] {
            let words = on_protocols(offered);
            assert!(words.contains(says) && words.contains("another reader"), "{words}");
        }
        assert_eq!(on_protocols(&[14]), card_error_text(Error::ProtoMismatch));
        assert!(is_without_protocol(Error::UnresponsiveCard) && !is_mute(Error::UnresponsiveCard));
    }

    #[test]
    fn everything_else_is_told_in_words() {
        let TransmitError::Failed { detail: what } = to_transmit_error(Error::CommDataLost) else {
            panic!()
        };
        assert!(what.starts_with("a communications error"), "{what}");
    }
}
