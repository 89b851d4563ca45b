//! The other end of a connection: its host and port, and its certificate.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::redact::Redactor;

/// cardbridge warns of a client certificate that expires within this time.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Where a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl HostPort {
    pub(super) fn of(url: &Url) -> Self {
        Self {
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    /// The host without the brackets of an IPv6 address.
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One certificate of a server's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerCertificate {
    /// As RFC 4514 writes it, like `issuer`.
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertValidity {
    NotYetValid,
    Valid,
    ExpiresSoon,
    Expired,
}

impl PeerCertificate {
    pub(super) fn validity(&self, now: Timestamp) -> CertValidity {
        let left = self.not_after.duration_since(now);
        if left.is_negative() {
            CertValidity::Expired
        } else if now < self.not_before {
            CertValidity::NotYetValid
        } else if left < EXPIRY_WARNING {
            CertValidity::ExpiresSoon
        } else {
            CertValidity::Valid
        }
    }

    /// `None` for an unreadable certificate: the TLS library reports it.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let validity = certificate.validity();
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: Timestamp::try_from(validity.not_before.to_system_time()).ok()?,
            not_after: Timestamp::try_from(validity.not_after.to_system_time()).ok()?,
        })
    }

    pub(super) fn redacted(self, redactor: &Redactor) -> Self {
        let [subject, issuer] = [&self.subject, &self.issuer].map(|name| redactor.redact(name));
        Self { subject, issuer, ..self }
    }
}
