//! What it means when there is no whole response.
//!
//! The HTTP client's own error only says that sending failed; the cause is at the end of its chain.

use std::error::Error;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::client_cert::{ClientCertResolver, ClientCertStatus};
use super::peer::HostPort;
use crate::domain::{CallError, ClientCertFault, ProxyFault, TlsFault, UnavailableReason};
use crate::wire::cm;

/// The other end, for errors.
pub(super) struct HttpPeer {
    /// Host and port.
    name: String,
    /// Those of the proxy.
    proxy: Option<String>,
    client_cert: Arc<ClientCertResolver>,
    connect_timeout: Duration,
}

/// The part of the response that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Head,
    Body,
}

/// The HTTP client's error for a failed CONNECT: its type is private, its text is not.
const TUNNEL: &str = "tunnel error: ";

impl HttpPeer {
    pub(super) fn new(
        server: &Url,
        proxy: Option<String>,
        client_cert: Arc<ClientCertResolver>,
        connect_timeout: Duration,
    ) -> Self {
        Self { name: HostPort::of(server).to_string(), proxy, client_cert, connect_timeout }
    }

    /// Host and port.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Classifies an error of the HTTP client.
    pub(super) fn http_error(&self, error: &reqwest::Error, phase: Phase) -> CallError {
        let (reason, what) = self.classify(error, phase);
        with_cause(reason, &what, error)
    }

    /// Classifies an error of a handshake without the HTTP client.
    pub(super) fn handshake_error(&self, error: &io::Error) -> CallError {
        let (reason, what) = match find::<rustls::Error>(error) {
            Some(tls) => self.tls_error(tls, true),
            None => {
                (UnavailableReason::Unreachable, format!("the connection to {} broke", self.name))
            }
        };
        with_cause(reason, &what, error)
    }

    fn classify(&self, error: &reqwest::Error, phase: Phase) -> (UnavailableReason, String) {
        let name = &self.name;
        let tls = find::<rustls::Error>(error);
        if let Some(reason) = self.proxy.as_ref().and_then(|proxy| tunnel(error, proxy, tls)) {
            return reason;
        }
        if let Some(tls) = tls {
            return self.tls_error(tls, error.is_connect());
        }
        let through = self.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}"));
        let through = through.unwrap_or_default();
        // The client's only timeout is the one for the connection.
        if error.is_timeout() {
            let within = self.connect_timeout;
            let what = format!("no connection to {name}{through} within {within:?}");
            return (UnavailableReason::Unreachable, what);
        }
        let cut = matches!(find::<io::Error>(error), Some(io) if io.kind() == io::ErrorKind::UnexpectedEof)
            || find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message);
        match phase {
            Phase::Body if cut => (UnavailableReason::NotCm, "the answer was cut short".to_owned()),
            Phase::Head if error.is_connect() => {
                (UnavailableReason::Unreachable, format!("no connection to {name}{through}"))
            }
            _ if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) => {
                (UnavailableReason::NotCm, format!("{name} does not speak HTTP"))
            }
            Phase::Head | Phase::Body => {
                (UnavailableReason::Unreachable, format!("the connection to {name}{through} broke"))
            }
        }
    }

    fn tls_error(&self, error: &rustls::Error, in_handshake: bool) -> (UnavailableReason, String) {
        let name = &self.name;
        let status = self.client_cert.status();
        match classify_tls(error, in_handshake, self.client_cert.was_requested(), status) {
            TlsFailure::Tls(fault) => {
                (UnavailableReason::Tls(fault), format!("no TLS with {name}"))
            }
            TlsFailure::Certificate(fault) => {
                let what = match fault {
                    ClientCertFault::Required => "wants a client certificate, and there is none",
                    ClientCertFault::RequestedLate => {
                        "asks for the client certificate only after the request, which is not answered"
                    }
                    ClientCertFault::Rejected => "does not accept the client certificate",
                };
                (UnavailableReason::ClientCertificate(fault), format!("{name} {what}"))
            }
        }
    }
}

fn with_cause(reason: UnavailableReason, what: &str, error: &(dyn Error + 'static)) -> CallError {
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    CallError::unavailable(reason, cm::single_line(&format!("{what}: {cause}")))
}

/// The proxy's part in an error, if any.
fn tunnel(
    error: &reqwest::Error,
    proxy: &str,
    tls: Option<&rustls::Error>,
) -> Option<(UnavailableReason, String)> {
    let detail = causes(error)
        .find_map(|cause| cause.to_string().strip_prefix(TUNNEL).map(str::to_owned))?;
    let (fault, what) = match detail.as_str() {
        "proxy authorization required" => {
            (ProxyFault::AuthRequired, format!("the proxy {proxy} requires a login"))
        }
        "failed to create underlying connection" if tls.is_some() => {
            (ProxyFault::Unreachable, format!("no TLS with the proxy {proxy}"))
        }
        "failed to create underlying connection" => {
            (ProxyFault::Unreachable, format!("no connection to the proxy {proxy}"))
        }
        _ => (
            ProxyFault::ConnectRejected,
            format!("the proxy {proxy} rejected the connection to CM"),
        ),
    };
    Some((UnavailableReason::Proxy(fault), what))
}

/// An error and its causes, the deepest last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        // An I/O error made of another error does not name that one as its source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsFailure {
    Tls(TlsFault),
    /// The client certificate.
    Certificate(ClientCertFault),
}

/// Classifies a TLS error, given whether the server requested a client certificate in a handshake.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many errors")]
fn classify_tls(
    error: &rustls::Error,
    in_handshake: bool,
    requested: bool,
    status: ClientCertStatus,
) -> TlsFailure {
    match error {
        rustls::Error::AlertReceived(alert) => {
            alert_failure(*alert, in_handshake, requested, status)
        }
        rustls::Error::InvalidCertificate(error) => TlsFailure::Tls(certificate_fault(error)),
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsFailure::Tls(TlsFault::ProtocolVersion),
        rustls::Error::PeerIncompatible(_) => TlsFailure::Tls(TlsFault::NoCommonCipher),
        rustls::Error::InvalidMessage(_) if in_handshake => TlsFailure::Tls(TlsFault::NotTls),
        _ => TlsFailure::Tls(TlsFault::Other),
    }
}

/// RFC 8446 section 6.2, RFC 5246 section 7.2.2.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many errors")]
fn alert_failure(
    alert: AlertDescription,
    in_handshake: bool,
    requested: bool,
    status: ClientCertStatus,
) -> TlsFailure {
    use AlertDescription as Alert;
    let ours = match status {
        ClientCertStatus::NotConfigured => ClientCertFault::Required,
        ClientCertStatus::NotRequested
        | ClientCertStatus::SigningOnly
        | ClientCertStatus::Presented => ClientCertFault::Rejected,
    };
    match alert {
        // How servers respond when cardbridge refuses to renegotiate (TLS 1.2).
        Alert::HandshakeFailure | Alert::NoRenegotiation if !in_handshake => {
            TlsFailure::Certificate(if requested { ours } else { status.late_request() })
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
            if requested =>
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

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many errors")]
fn certificate_fault(error: &CertificateError) -> TlsFault {
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
    use rustls::Error;

    use super::*;

    const LATE: TlsFailure = TlsFailure::Certificate(ClientCertFault::RequestedLate);
    const WANTED: TlsFailure = TlsFailure::Certificate(ClientCertFault::Required);
    const REFUSED: TlsFailure = TlsFailure::Certificate(ClientCertFault::Rejected);

    #[test]
    fn an_alert_after_the_handshake_is_the_late_request_that_was_not_answered() {
        for alert in [AlertDescription::HandshakeFailure, AlertDescription::NoRenegotiation] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(classify_tls(&alert, false, false, ClientCertStatus::NotRequested), LATE);
            assert_eq!(classify_tls(&alert, false, false, ClientCertStatus::NotConfigured), WANTED);
            assert_eq!(classify_tls(&alert, false, true, ClientCertStatus::Presented), REFUSED);
        }
    }

    #[test]
    fn the_same_alert_means_the_certificate_only_where_one_was_asked_for() {
        let alert = Error::AlertReceived(AlertDescription::HandshakeFailure);
        assert_eq!(classify_tls(&alert, true, true, ClientCertStatus::NotConfigured), WANTED);
        assert_eq!(classify_tls(&alert, true, true, ClientCertStatus::Presented), REFUSED);
        let no_cipher = TlsFailure::Tls(TlsFault::NoCommonCipher);
        assert_eq!(classify_tls(&alert, true, false, ClientCertStatus::NotRequested), no_cipher);
        for alert in [AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            let alert = Error::AlertReceived(alert);
            assert_eq!(classify_tls(&alert, false, true, ClientCertStatus::Presented), REFUSED);
            assert_eq!(
                classify_tls(&alert, false, false, ClientCertStatus::NotConfigured),
                TlsFailure::Tls(TlsFault::Other)
            );
        }
    }

    #[test]
    fn a_short_key_and_an_old_ca_make_a_bad_signature_and_a_stranger_none() {
        let tls = |error| {
            classify_tls(
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
