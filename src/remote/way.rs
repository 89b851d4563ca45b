//! The way to CM, step by step, for a person who wants to know how far it leads.
//!
//! Calls go the same way in one; here each step can be seen by itself. Nothing is asked of CM.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::identity::Identity;
use super::proxy::OnTheWay;
use super::redact::Redactor;
use super::setup::SetupError;
use super::tls::Tls;
use super::transport::Peer;
use super::tunnel::{self, Stream};
use super::{CallError, Options, UnavailableReason, away};
use crate::domain::ProxyFault;

/// Where a connection goes.
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
    proxy: Option<OnTheWay>,
    tls: Tls,
    peer: Peer,
    options: Options,
    redactor: Arc<Redactor>,
}

/// A connection that leads to CM's server, perhaps through a proxy.
pub struct Line(Box<dyn Stream>);

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
    pub(super) fn new(
        options: Options,
        base: &Url,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, SetupError> {
        let identity = Arc::new(Identity::new(&options)?);
        let tls = Tls::of(base, options.ca_file.as_deref(), &identity)?;
        let proxy = OnTheWay::to(base, &options.proxy, redactor)?;
        let peer = Peer::new(base, options.connect_timeout)
            .through(proxy.as_ref().map(OnTheWay::name))
            .showing(identity);
        let redactor = Arc::clone(redactor);
        Ok(Self { server: Hop::of(base), proxy, tls, peer, options, redactor })
    }

    /// Where the first connection goes: to the proxy, where there is one, else to CM's server.
    #[must_use]
    pub fn first(&self) -> Hop {
        self.proxy().unwrap_or_else(|| self.server.clone())
    }

    /// The proxy on the way, where there is one.
    #[must_use]
    pub fn proxy(&self) -> Option<Hop> {
        self.proxy.as_ref().map(|proxy| Hop::of(proxy.url()))
    }

    /// Whether TLS is spoken with CM's server.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls.witness.is_some()
    }

    /// The addresses of a host.
    pub async fn resolve(&self, hop: &Hop) -> Result<Vec<SocketAddr>, CallError> {
        let name = (hop.bare_host(), hop.port);
        let nowhere = |why: &dyn fmt::Display| {
            let detail = format!("the name {} leads to no address: {why}", hop.host);
            away(self.unreachable(), detail)
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
        Err(away(self.unreachable(), format!("no connection: {}", refusals.join(", "))))
    }

    /// What it means that the first hop is not reached: where that is a proxy, `cm.url` is not at fault.
    const fn unreachable(&self) -> UnavailableReason {
        match self.proxy {
            Some(_) => UnavailableReason::Proxy(ProxyFault::Unreachable),
            None => UnavailableReason::Unreachable,
        }
    }

    /// The way from the first connection to CM's server.
    pub async fn go_on(&self, stream: TcpStream) -> Result<Line, CallError> {
        let Some(proxy) = &self.proxy else { return Ok(Line(Box::new(stream))) };
        let server = self.server.to_string();
        let way = tunnel::through(proxy, &server, &self.tls.for_proxy, stream);
        let late = |_| tunnel::no_way(proxy, "no answer in time");
        timeout_at(self.deadline(), way).await.map_err(late)?.map(Line)
    }

    /// TLS with CM's server over a connection that leads there.
    pub async fn handshake(&self, line: Line) -> Handshake {
        let version = self.shake(line).await;
        let witness = self.tls.witness.as_ref();
        let chain = witness.map(|witness| witness.chain()).unwrap_or_default();
        let chain = chain.iter().filter_map(ShownCertificate::read);
        let chain = chain.map(|shown| shown.without_secrets(&self.redactor)).collect();
        Handshake { chain, version: version.map_err(|error| self.redactor.hide_in(error)) }
    }

    async fn shake(&self, Line(stream): Line) -> Result<&'static str, CallError> {
        let name = ServerName::try_from(self.server.bare_host().to_owned());
        let name = name.map_err(|error| away(UnavailableReason::Unreachable, error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(self.tls.config.clone()));
        match timeout_at(self.deadline(), connector.connect(name, stream)).await {
            Ok(Ok(tls)) => Ok(version(&tls)),
            Ok(Err(error)) => Err(self.peer.no_handshake(&error)),
            Err(_) => {
                let within = self.options.connect_timeout;
                let detail = format!("no TLS with {} within {within:?}", self.server);
                Err(away(UnavailableReason::Unreachable, detail))
            }
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
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn version<S>(tls: &tokio_rustls::client::TlsStream<S>) -> &'static str {
    match tls.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS",
    }
}

impl ShownCertificate {
    fn without_secrets(self, redactor: &Redactor) -> Self {
        let [subject, issuer] = [&self.subject, &self.issuer].map(|name| redactor.hide(name));
        Self { subject, issuer, ..self }
    }

    /// None where it is no certificate; whoever judges it says so.
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
}
