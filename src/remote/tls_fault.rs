//! What rustls says, as something that somebody can do something about.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::identity::Shown;
use crate::domain::{ClientCertFault, TlsFault};

/// Whose certificate it is about, if anybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server's, or none.
    Tls(TlsFault),
    /// Ours.
    Certificate(ClientCertFault),
}

/// Sorts an error, given whether the server has asked for a client certificate in a handshake, and
/// what it was shown.
#[expect(clippy::wildcard_enum_match_arm, reason = "of the many things that rustls may say")]
pub(super) fn sort(error: &Error, in_handshake: bool, asked: bool, shown: Shown) -> Fault {
    match error {
        Error::AlertReceived(alert) => alerted(*alert, in_handshake, asked, shown),
        Error::InvalidCertificate(error) => Fault::Tls(certificate(error)),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => Fault::Tls(TlsFault::ProtocolVersion),
        Error::PeerIncompatible(_) => Fault::Tls(TlsFault::NoCommonCipher),
        Error::InvalidMessage(_) if in_handshake => Fault::Tls(TlsFault::NotTls),
        _ => Fault::Tls(TlsFault::Other),
    }
}

/// What the server means by an alert (RFC 8446 section 6.2, RFC 5246 section 7.2.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "of the many things that rustls may say")]
fn alerted(alert: AlertDescription, in_handshake: bool, asked: bool, shown: Shown) -> Fault {
    use AlertDescription as Alert;
    let ours = match shown {
        Shown::None => ClientCertFault::Required,
        Shown::NotAsked | Shown::Spare | Shown::Asked => ClientCertFault::Rejected,
    };
    match alert {
        // We refuse to renegotiate (TLS 1.2), and that is how servers take it.
        Alert::HandshakeFailure | Alert::NoRenegotiation if !in_handshake => {
            Fault::Certificate(if asked { ours } else { late(shown) })
        }
        Alert::CertificateRequired => Fault::Certificate(ours),
        Alert::HandshakeFailure
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError
            if asked =>
        {
            Fault::Certificate(ours)
        }
        Alert::ProtocolVersion => Fault::Tls(TlsFault::ProtocolVersion),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            Fault::Tls(TlsFault::NoCommonCipher)
        }
        Alert::UnrecognisedName => Fault::Tls(TlsFault::UnrecognizedName),
        _ => Fault::Tls(TlsFault::Other),
    }
}

/// A server that asks late: first of all there has to be something to show it.
pub(super) const fn late(shown: Shown) -> ClientCertFault {
    match shown {
        Shown::None => ClientCertFault::Required,
        Shown::NotAsked | Shown::Spare | Shown::Asked => ClientCertFault::RequestedLate,
    }
}

/// What is wrong with the server's certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "of the many things that rustls may say")]
fn certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFault::NotYetValid
        }
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFault::NameMismatch
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsFault::WrongPurpose
        }
        CertificateError::BadSignature => TlsFault::BadSignature,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            TlsFault::WeakSignature
        }
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            TlsFault::WrongPurpose
        }
        _ => TlsFault::Other,
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};

    use super::*;

    const LATE: Fault = Fault::Certificate(ClientCertFault::RequestedLate);
    const WANTED: Fault = Fault::Certificate(ClientCertFault::Required);
    const REFUSED: Fault = Fault::Certificate(ClientCertFault::Rejected);

    #[test]
    fn an_alert_after_the_handshake_is_the_late_request_that_was_not_answered() {
        for alert in [AlertDescription::HandshakeFailure, AlertDescription::NoRenegotiation] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(sort(&alert, false, false, Shown::NotAsked), LATE);
            assert_eq!(sort(&alert, false, false, Shown::None), WANTED);
            assert_eq!(sort(&alert, false, true, Shown::Asked), REFUSED);
        }
    }

    #[test]
    fn the_same_alert_means_the_certificate_only_where_one_was_asked_for() {
        let alert = Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(sort(&alert, true, true, Shown::None), WANTED);
        assert_eq!(sort(&alert, true, true, Shown::Asked), REFUSED);
        let no_cipher = Fault::Tls(TlsFault::NoCommonCipher);
        assert_eq!(sort(&alert, true, false, Shown::NotAsked), no_cipher);
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(sort(&alert, false, true, Shown::Asked), REFUSED);
            assert_eq!(sort(&alert, false, false, Shown::None), Fault::Tls(TlsFault::Other));
        }
    }

    #[test]
    fn a_short_key_and_an_old_ca_make_a_bad_signature_and_a_stranger_none() {
        let tls = |error| sort(&Error::InvalidCertificate(error), true, false, Shown::None);
        assert_eq!(tls(BadSignature), Fault::Tls(TlsFault::BadSignature));
        assert_eq!(tls(UnknownIssuer), Fault::Tls(TlsFault::UnknownIssuer));
        let weak = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: Vec::new(),
            supported_algorithms: Vec::new(),
        };
        assert_eq!(tls(weak), Fault::Tls(TlsFault::WeakSignature));
    }
}
