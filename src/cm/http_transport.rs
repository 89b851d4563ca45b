//! The client for one server, with the proxy on the way and the certificate that is shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, ClientBuilder, Url};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::client_cert::{ClientCertResolver, ClientCertStatus};
use super::connection_check::HostPort;
use super::proxy::ProxyRoute;
use super::proxy_connector;
use super::proxy_tunnel;
use super::setup::SetupError;
use super::tls::TlsConfig;
use super::transport_error::HttpPeer;
use super::{CallError, UnavailableReason, away};
use crate::domain::ProxyFault;

/// A client for one server. It is made anew when the proxy's credentials have changed.
pub(super) struct HttpTransport {
    builder: Box<dyn Fn() -> ClientBuilder + Send + Sync>,
    proxy: Option<ProxyRoute>,
    identity: Arc<ClientCertResolver>,
    tls: TlsConfig,
    last: Mutex<Option<(Option<HeaderValue>, Client)>>,
}

impl HttpTransport {
    /// Makes the first client already: what is wrong with it is wrong at the start.
    pub(super) fn new(
        builder: impl Fn() -> ClientBuilder + Send + Sync + 'static,
        proxy: Option<ProxyRoute>,
        identity: Arc<ClientCertResolver>,
        tls: TlsConfig,
    ) -> Result<Self, SetupError> {
        let last = Mutex::new(None);
        let mut outbound = Self { builder: Box::new(builder), proxy, identity, tls, last };
        let client = outbound.made(None).map_err(SetupError::Client)?;
        outbound.last = Mutex::new(Some((None, client)));
        Ok(outbound)
    }

    /// The client as it is to be now; clones share its connections.
    pub(super) fn client(&self) -> Result<Client, CallError> {
        let login = self.proxy.as_ref().map_or(Ok(None), ProxyRoute::login)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = last.as_ref().filter(|(known, _)| *known == login) {
            return Ok(client.clone());
        }
        let client = self.made(login.as_ref()).map_err(|error| {
            away(UnavailableReason::Unreachable, format!("no client can be made: {error}"))
        })?;
        *last = Some((login, client.clone()));
        Ok(client)
    }

    /// The other end, for messages.
    pub(super) fn peer(&self, server: &Url, connect_timeout: Duration) -> HttpPeer {
        let proxy = self.proxy.as_ref().map(ProxyRoute::name);
        HttpPeer::new(server, connect_timeout).through(proxy).showing(Arc::clone(&self.identity))
    }

    /// What became of the client certificate so far.
    pub(super) fn shown(&self) -> ClientCertStatus {
        self.identity.shown()
    }

    /// The server's certificate when it was last believed, as DER.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        self.tls.witness.as_ref().and_then(|witness| witness.is_trusted())
    }

    /// Why there is no answer, in the proxy's own words where it gives no way: it is asked once more,
    /// for the HTTP client does not hand them on.
    pub(super) async fn with_proxy_detail(
        &self,
        error: CallError,
        server: &Url,
        deadline: Instant,
    ) -> CallError {
        let refuses = UnavailableReason::Proxy(ProxyFault::ConnectRejected);
        let Some(proxy) =
            self.proxy.as_ref().filter(|_| error.unavailable_reason() == Some(refuses))
        else {
            return error;
        };
        let ask = async {
            let (way, server) = (HostPort::of(proxy.url()), HostPort::of(server).to_string());
            let stream = TcpStream::connect((way.bare_host(), way.port)).await.ok()?;
            proxy_tunnel::connect(proxy, &server, &self.tls.for_proxy, stream).await.err()
        };
        timeout_at(deadline, ask).await.ok().flatten().unwrap_or(error)
    }

    fn made(&self, login: Option<&HeaderValue>) -> reqwest::Result<Client> {
        let builder = (self.builder)();
        let Some(proxy) = &self.proxy else { return builder.build() };
        let mut on_the_way = reqwest::Proxy::all(proxy.url().clone())?;
        if let Some(login) = login {
            on_the_way = on_the_way.custom_http_auth(login.clone());
        }
        let builder = builder.proxy(on_the_way);
        let two_handshakes = proxy.url().scheme() == "https";
        if two_handshakes {
            builder.connector_layer(proxy_connector::CountedConnector).build()
        } else {
            builder.build()
        }
    }
}
