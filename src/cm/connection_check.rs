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

use super::client_cert::ClientCertResolver;
use super::proxy::ProxyRoute;
use super::proxy_tunnel::{self, Stream};
use super::redact::Redactor;
use super::setup::SetupError;
use super::tls::TlsConfig;
use super::transport_error::HttpPeer;
use super::{CallError, CmOptions, UnavailableReason, away};
use crate::domain::ProxyFault;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The way, as the options have it.
pub struct ConnectionCheck {
    server: HostPort,
    proxy: Option<ProxyRoute>,
    tls: TlsConfig,
    peer: HttpPeer,
    options: CmOptions,
    redactor: Arc<Redactor>,
}

/// A connection that leads to CM's server, perhaps through a proxy.
pub struct ServerStream(Box<dyn Stream>);

/// One certificate of a server's chain, as it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
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
pub struct TlsHandshake {
    /// The chain, the server's own certificate first; also where it is not believed.
    pub chain: Vec<PeerCertificate>,
    /// The version that both sides speak, or why there is no TLS.
    pub version: Result<&'static str, CallError>,
}

impl ConnectionCheck {
    pub(super) fn new(
        options: CmOptions,
        base: &Url,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, SetupError> {
        let identity = Arc::new(ClientCertResolver::new(&options)?);
        let tls = TlsConfig::of(base, options.ca_file.as_deref(), &identity)?;
        let proxy = ProxyRoute::to(base, &options.proxy, redactor)?;
        let peer = HttpPeer::new(base, options.connect_timeout)
            .through(proxy.as_ref().map(ProxyRoute::name))
            .showing(identity);
        let redactor = Arc::clone(redactor);
        Ok(Self { server: HostPort::of(base), proxy, tls, peer, options, redactor })
    }

    /// Where the first connection goes: to the proxy, where there is one, else to CM's server.
    #[must_use]
    pub fn first_hop(&self) -> HostPort {
        self.proxy().unwrap_or_else(|| self.server.clone())
    }

    /// The proxy on the way, where there is one.
    #[must_use]
    pub fn proxy(&self) -> Option<HostPort> {
        self.proxy.as_ref().map(|proxy| HostPort::of(proxy.url()))
    }

    /// Whether TLS is spoken with CM's server.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls.witness.is_some()
    }

    /// The addresses of a host.
    pub async fn resolve(&self, hop: &HostPort) -> Result<Vec<SocketAddr>, CallError> {
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
    pub async fn open_tunnel(&self, stream: TcpStream) -> Result<ServerStream, CallError> {
        let Some(proxy) = &self.proxy else { return Ok(ServerStream(Box::new(stream))) };
        let server = self.server.to_string();
        let way = proxy_tunnel::connect(proxy, &server, &self.tls.for_proxy, stream);
        let late = |_| proxy_tunnel::connect_rejected(proxy, "no answer in time");
        timeout_at(self.deadline(), way).await.map_err(late)?.map(ServerStream)
    }

    /// TLS with CM's server over a connection that leads there.
    pub async fn handshake(&self, line: ServerStream) -> TlsHandshake {
        let version = self.tls_connect(line).await;
        let witness = self.tls.witness.as_ref();
        let chain = witness.map(|witness| witness.chain()).unwrap_or_default();
        let chain = chain.iter().filter_map(PeerCertificate::read);
        let chain = chain.map(|shown| shown.without_secrets(&self.redactor)).collect();
        TlsHandshake { chain, version: version.map_err(|error| self.redactor.redact_in(error)) }
    }

    async fn tls_connect(
        &self,
        ServerStream(stream): ServerStream,
    ) -> Result<&'static str, CallError> {
        let name = ServerName::try_from(self.server.bare_host().to_owned());
        let name = name.map_err(|error| away(UnavailableReason::Unreachable, error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(self.tls.config.clone()));
        match timeout_at(self.deadline(), connector.connect(name, stream)).await {
            Ok(Ok(tls)) => Ok(version(&tls)),
            Ok(Err(error)) => Err(self.peer.handshake_error(&error)),
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

impl HostPort {
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

impl fmt::Display for HostPort {
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

impl PeerCertificate {
    fn without_secrets(self, redactor: &Redactor) -> Self {
        let [subject, issuer] = [&self.subject, &self.issuer].map(|name| redactor.redact(name));
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
