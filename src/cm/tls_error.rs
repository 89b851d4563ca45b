//! What rustls says, as something that somebody can do something about.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::client_cert::ClientCertStatus;
use crate::domain::{ClientCertFault, TlsFault};

/// Whose certificate it is about, if anybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsFailure {
    /// The server's, or none.
    Tls(TlsFault),
    /// Ours.
    Certificate(ClientCertFault),
}

/// Sorts an error, given whether the server has asked for a client certificate in a handshake, and
/// what it was shown.
#[expect(clippy::wildcard_enum_match_arm, reason = "of the many things that rustls may say")]
pub(super) fn classify(
    error: &Error,
    in_handshake: bool,
    asked: bool,
    shown: ClientCertStatus,
) -> TlsFailure {
    match error {
        Error::AlertReceived(alert) => alerted(*alert, in_handshake, asked, shown),
        Error::InvalidCertificate(error) => TlsFailure::Tls(certificate(error)),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsFailure::Tls(TlsFault::ProtocolVersion),
        Error::PeerIncompatible(_) => TlsFailure::Tls(TlsFault::NoCommonCipher),
        Error::InvalidMessage(_) if in_handshake => TlsFailure::Tls(TlsFault::NotTls),
        _ => TlsFailure::Tls(TlsFault::Other),
    }
}

/// What the server means by an alert (RFC 8446 section 6.2, RFC 5246 section 7.2.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "of the many things that rustls may say")]
fn alerted(
    alert: AlertDescription,
    in_handshake: bool,
    asked: bool,
    shown: ClientCertStatus,
) -> TlsFailure {
    use AlertDescription as Alert;
    let ours = match shown {
        ClientCertStatus::NotConfigured => ClientCertFault::Required,
        ClientCertStatus::NotRequested
        | ClientCertStatus::SigningOnly
        | ClientCertStatus::Presented => ClientCertFault::Rejected,
    };
    match alert {
        // We refuse to renegotiate (TLS 1.2), and that is how servers take it.
        Alert::HandshakeFailure | Alert::NoRenegotiation if !in_handshake => {
            TlsFailure::Certificate(if asked { ours } else { late(shown) })
        }
        Alert::CertificateRequired => TlsFailure::Certificate(ours),
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
            TlsFailure::Certificate(ours)
        }
        Alert::ProtocolVersion => TlsFailure::Tls(TlsFault::ProtocolVersion),
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            TlsFailure::Tls(TlsFault::NoCommonCipher)
        }
        Alert::UnrecognisedName => TlsFailure::Tls(TlsFault::UnrecognizedName),
        _ => TlsFailure::Tls(TlsFault::Other),
    }
}

/// A server that asks late: first of all there has to be something to show it.
pub(super) const fn late(shown: ClientCertStatus) -> ClientCertFault {
    match shown {
        ClientCertStatus::NotConfigured => ClientCertFault::Required,
        ClientCertStatus::NotRequested
        | ClientCertStatus::SigningOnly
        | ClientCertStatus::Presented => ClientCertFault::RequestedLate,
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

    const LATE: TlsFailure = TlsFailure::Certificate(ClientCertFault::RequestedLate);
    const WANTED: TlsFailure = TlsFailure::Certificate(ClientCertFault::Required);
    const REFUSED: TlsFailure = TlsFailure::Certificate(ClientCertFault::Rejected);

    #[test]
    fn an_alert_after_the_handshake_is_the_late_request_that_was_not_answered() {
        for alert in [AlertDescription::HandshakeFailure, AlertDescription::NoRenegotiation] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(classify(&alert, false, false, ClientCertStatus::NotRequested), LATE);
            assert_eq!(classify(&alert, false, false, ClientCertStatus::NotConfigured), WANTED);
            assert_eq!(classify(&alert, false, true, ClientCertStatus::Presented), REFUSED);
        }
    }

    #[test]
    fn the_same_alert_means_the_certificate_only_where_one_was_asked_for() {
        let alert = Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(classify(&alert, true, true, ClientCertStatus::NotConfigured), WANTED);
        assert_eq!(classify(&alert, true, true, ClientCertStatus::Presented), REFUSED);
        let no_cipher = TlsFailure::Tls(TlsFault::NoCommonCipher);
        assert_eq!(classify(&alert, true, false, ClientCertStatus::NotRequested), no_cipher);
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(classify(&alert, false, true, ClientCertStatus::Presented), REFUSED);
            assert_eq!(
                classify(&alert, false, false, ClientCertStatus::NotConfigured),
                TlsFailure::Tls(TlsFault::Other)
            );
        }
    }

    #[test]
    fn a_short_key_and_an_old_ca_make_a_bad_signature_and_a_stranger_none() {
        let tls = |error| {
            classify(
                &Error::InvalidCertificate(error),
                true,
                false,
                ClientCertStatus::NotConfigured,
            )
        };
        assert_eq!(tls(BadSignature), TlsFailure::Tls(TlsFault::BadSignature));
        assert_eq!(tls(UnknownIssuer), TlsFailure::Tls(TlsFault::UnknownIssuer));
        let weak = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: Vec::new(),
            supported_algorithms: Vec::new(),
        };
        assert_eq!(tls(weak), TlsFailure::Tls(TlsFault::WeakSignature));
    }
}
