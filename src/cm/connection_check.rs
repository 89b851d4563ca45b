//! The connection to CM step by step, for diagnostics. Nothing is asked of CM.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::peer::{HostPort, PeerCertificate};
use super::proxy::Stream;
use super::redact::Redactor;
use super::transport::HttpTransport;
use crate::config::CmSettings;
use crate::domain::{CallError, Problem, ProxyFault, UnavailableReason};

/// The steps of a connection, by the settings.
pub(crate) struct ConnectionCheck {
    server: HostPort,
    transport: HttpTransport,
    connect_timeout: Duration,
    redactor: Arc<Redactor>,
}

/// A connection to CM's server, perhaps through a proxy.
pub(crate) struct ServerStream(Box<dyn Stream>);

/// The result of a TLS handshake.
#[derive(Debug)]
pub(crate) struct TlsHandshake {
    /// The chain, the server's own certificate first; also an untrusted one.
    pub(crate) chain: Vec<PeerCertificate>,
    /// The negotiated version, or why there is no TLS.
    pub(crate) version: Result<&'static str, CallError>,
}

impl ConnectionCheck {
    pub(super) fn new(
        settings: &CmSettings,
        base: &Url,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            server: HostPort::of(base),
            transport: HttpTransport::new(base, settings, redactor)?,
            connect_timeout: settings.connect_timeout,
            redactor: Arc::clone(redactor),
        })
    }

    /// The proxy if there is one, else CM's server.
    pub(crate) fn first_hop(&self) -> HostPort {
        self.proxy().unwrap_or_else(|| self.server.clone())
    }

    /// The proxy, if there is one.
    pub(crate) fn proxy(&self) -> Option<HostPort> {
        self.transport.proxy.as_ref().map(|proxy| HostPort::of(proxy.url()))
    }

    /// Whether the connection to CM uses TLS.
    pub(crate) const fn is_encrypted(&self) -> bool {
        self.transport.tls.verifier.is_some()
    }

    /// The addresses of a host.
    pub(crate) async fn resolve(&self, hop: &HostPort) -> Result<Vec<SocketAddr>, CallError> {
        let name = (hop.bare_host(), hop.port);
        let no_address = |reason: &dyn fmt::Display| {
            let detail = format!("the name {} has no address: {reason}", hop.host);
            CallError::unavailable(self.unreachable(), detail)
        };
        match timeout_at(self.deadline(), lookup_host(name)).await {
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(no_address(&"none")) } else { Ok(found) }
            }
            Ok(Err(error)) => Err(no_address(&error)),
            Err(_) => Err(no_address(&format!("no answer within {:?}", self.connect_timeout))),
        }
    }

    /// A connection to the first address that accepts one.
    pub(crate) async fn connect(
        &self,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), CallError> {
        let mut refusals = Vec::new();
        for address in addresses {
            match timeout_at(self.deadline(), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, *address)),
                Ok(Err(error)) => refusals.push(format!("{address}: {error}")),
                Err(_) => {
                    let within = self.connect_timeout;
                    refusals.push(format!("{address}: no answer within {within:?}"));
                }
            }
        }
        let detail = format!("no connection: {}", refusals.join(", "));
        Err(CallError::unavailable(self.unreachable(), detail))
    }

    /// The reason if the first hop is unreachable: `cm.url` is not at fault where that is a proxy.
    const fn unreachable(&self) -> UnavailableReason {
        match self.transport.proxy {
            Some(_) => UnavailableReason::Proxy(ProxyFault::Unreachable),
            None => UnavailableReason::Unreachable,
        }
    }

    /// A connection to CM's server, over the one to the first hop.
    pub(crate) async fn open_tunnel(&self, stream: TcpStream) -> Result<ServerStream, CallError> {
        let Some(proxy) = &self.transport.proxy else { return Ok(ServerStream(Box::new(stream))) };
        let server = self.server.to_string();
        let tunnel = proxy.open_tunnel(&server, &self.transport.tls.for_proxy, stream);
        let late = |_| proxy.connect_rejected("no answer in time");
        timeout_at(self.deadline(), tunnel).await.map_err(late)?.map(ServerStream)
    }

    /// TLS with CM's server.
    pub(crate) async fn handshake(&self, stream: ServerStream) -> TlsHandshake {
        let version = self.tls_connect(stream).await;
        let verifier = self.transport.tls.verifier.as_ref();
        let chain = verifier.map(|verifier| verifier.chain()).unwrap_or_default();
        let chain = chain.iter().filter_map(PeerCertificate::read);
        let chain = chain.map(|certificate| certificate.redacted(&self.redactor)).collect();
        TlsHandshake { chain, version: version.map_err(|error| self.redactor.redact_in(error)) }
    }

    async fn tls_connect(
        &self,
        ServerStream(stream): ServerStream,
    ) -> Result<&'static str, CallError> {
        let unreachable = |detail| CallError::unavailable(UnavailableReason::Unreachable, detail);
        let name = ServerName::try_from(self.server.bare_host().to_owned());
        let name = name.map_err(|error| unreachable(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(self.transport.tls.config.clone()));
        match timeout_at(self.deadline(), connector.connect(name, stream)).await {
            Ok(Ok(tls)) => Ok(match tls.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
                Some(_) | None => "TLS",
            }),
            Ok(Err(error)) => Err(self.transport.peer.handshake_error(&error)),
            Err(_) => {
                let within = self.connect_timeout;
                Err(unreachable(format!("no TLS with {} within {within:?}", self.server)))
            }
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.connect_timeout
    }
}
