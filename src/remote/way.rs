//! The way to CM, step by step, for a person who wants to know how far it leads.
//!
//! Calls go the same way in one; here each step can be seen by itself. Nothing is asked of CM.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::wire::cm;

use super::{AwayReason, CallError, Options, away};

/// Where the first connection goes, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The way, as the options have it.
pub struct Way {
    server: Hop,
    tls: bool,
    options: Options,
}

/// One certificate of a server's chain, as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// Its first moment.
    pub not_before: Timestamp,
    /// Its last moment.
    pub not_after: Timestamp,
}

/// What came of a TLS handshake.
#[derive(Debug)]
pub struct Handshake {
    /// The chain, the server's own certificate first; also where it is not believed.
    pub chain: Vec<ShownCertificate>,
    /// The version that both sides speak, or why there is no TLS.
    pub version: Result<&'static str, CallError>,
}

impl Way {
    pub(super) fn new(options: Options, base: &Url) -> Self {
        Self { server: Hop::of(base), tls: base.scheme() == "https", options }
    }

    /// CM's server.
    #[must_use]
    pub const fn server(&self) -> &Hop {
        &self.server
    }

    /// Whether TLS is spoken with it.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls
    }

    /// The addresses of a host.
    pub async fn resolve(&self, hop: &Hop) -> Result<Vec<SocketAddr>, CallError> {
        let name = (hop.bare_host(), hop.port);
        let nowhere = |why: &dyn fmt::Display| {
            let detail = format!("the name {} leads to no address: {why}", hop.host);
            away(AwayReason::Unreachable, detail)
        };
        match timeout_at(self.deadline(), lookup_host(name)).await {
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(nowhere(&"none")) } else { Ok(found) }
            }
            Ok(Err(error)) => Err(nowhere(&error)),
            Err(_) => Err(nowhere(&format!("no answer within {:?}", self.options.connect_timeout))),
        }
    }

    /// A connection to the first address that takes one.
    pub async fn connect(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), CallError> {
        let mut refusals = Vec::new();
        for address in addresses {
            match timeout_at(self.deadline(), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, *address)),
                Ok(Err(error)) => refusals.push(format!("{address}: {error}")),
                Err(_) => {
                    let within = self.options.connect_timeout;
                    refusals.push(format!("{address}: no answer within {within:?}"));
                }
            }
        }
        Err(away(AwayReason::Unreachable, format!("no connection: {}", refusals.join(", "))))
    }

    /// TLS with CM's server over a connection that leads there.
    pub async fn handshake(&self, stream: TcpStream) -> Handshake {
        let witness = match Witness::new(&self.options) {
            Ok(witness) => Arc::new(witness),
            Err(error) => return Handshake { chain: Vec::new(), version: Err(no_tls(&error)) },
        };
        let version = self.shake(&witness, stream).await;
        Handshake { chain: witness.shown(), version }
    }

    async fn shake(
        &self,
        witness: &Arc<Witness>,
        stream: TcpStream,
    ) -> Result<&'static str, CallError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| no_tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Witness>::clone(witness))
            .with_no_client_auth();
        let name = ServerName::try_from(self.server.bare_host().to_owned());
        let name = name.map_err(|error| no_tls(&error))?;
        let connector = TlsConnector::from(Arc::new(config));
        match timeout_at(self.deadline(), connector.connect(name, stream)).await {
            Ok(Ok(tls)) => Ok(version(&tls)),
            Ok(Err(error)) => Err(no_tls(&error)),
            Err(_) => Err(no_tls(&"the handshake takes too long")),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.connect_timeout
    }
}

impl Hop {
    pub(super) fn of(url: &Url) -> Self {
        Self {
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    /// The host without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn no_tls(why: &dyn fmt::Display) -> CallError {
    away(AwayReason::Tls, cm::plain(&why.to_string()))
}

fn version<S>(tls: &tokio_rustls::client::TlsStream<S>) -> &'static str {
    match tls.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS",
    }
}

/// Believes what calls believe, and remembers what was shown.
#[derive(Debug)]
struct Witness {
    judge: Verifier,
    shown: Mutex<Vec<ShownCertificate>>,
}

impl Witness {
    fn new(options: &Options) -> Result<Self, rustls::Error> {
        let extra = options.ca_file.as_ref().map(CertificateDer::pem_file_iter);
        let extra = extra.and_then(Result::ok).into_iter().flatten().filter_map(Result::ok);
        let judge = Verifier::new_with_extra_roots(extra, provider())?;
        Ok(Self { judge, shown: Mutex::default() })
    }

    fn shown(&self) -> Vec<ShownCertificate> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let shown = chain.filter_map(ShownCertificate::read).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

impl ShownCertificate {
    /// None where it is no certificate; whoever judges it says so.
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
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
}
