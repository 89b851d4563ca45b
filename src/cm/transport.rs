//! The HTTP client for one server, with its TLS, proxy and client certificate.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::tls::TlsInfo;
use reqwest::{Client, Request, Response, Url, redirect, retry};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::client_cert::{ClientCertResolver, ClientCertStatus};
use super::peer::HostPort;
use super::proxy::ProxyRoute;
use super::proxy_connector::CountedConnector;
use super::redact::Redactor;
use super::tls::TlsConfig;
use super::transport_error::{HttpPeer, Phase};
use crate::config::CmSettings;
use crate::domain::{CallError, Problem, ProxyFault, UnavailableReason};

/// How long an idle connection is kept: long enough for a burst of cards. The client's default of 90 s
/// would wake an idle process.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// A server may set many cookies: the client's default of 100 header fields is too low.
const MAX_HEADERS: usize = 500;

/// The client for one server, built again when the proxy's credentials change.
pub(super) struct HttpTransport {
    pub(super) proxy: Option<ProxyRoute>,
    pub(super) tls: TlsConfig,
    pub(super) peer: HttpPeer,
    pub(super) server: Url,
    client_cert: Arc<ClientCertResolver>,
    connect_timeout: Duration,
    timeout: Duration,
    last: Mutex<Option<(Option<HeaderValue>, Client)>>,
}

impl HttpTransport {
    /// Nothing is sent. Reads `ca_file`, the system's roots and the client certificate.
    pub(super) fn new(
        server: &Url,
        settings: &CmSettings,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, Problem> {
        let client_cert = Arc::new(ClientCertResolver::new(settings)?);
        let tls = TlsConfig::new(server, settings.ca_file.as_deref(), &client_cert)?;
        let proxy = ProxyRoute::to(server, &settings.proxy, redactor)?;
        let (name, connect_timeout) =
            (proxy.as_ref().map(ProxyRoute::name), settings.connect_timeout);
        let transport = Self {
            proxy,
            tls,
            peer: HttpPeer::new(server, name, Arc::clone(&client_cert), connect_timeout),
            server: server.clone(),
            client_cert,
            connect_timeout,
            timeout: settings.timeout,
            last: Mutex::default(),
        };
        // A bad setting is a problem at the start, and not at the first call.
        let client = transport.build(None).map_err(|error| {
            Problem::new(
                format!("cannot set up the HTTPS client: {error}"),
                "this is a bug in cardbridge; report it",
            )
        })?;
        *transport.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((None, client));
        Ok(transport)
    }

    /// Sends a request, and reads the head of the response.
    pub(super) async fn execute(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, CallError> {
        let client = self.client()?;
        match timeout_at(deadline, run_on_http_thread(client.execute(request))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let error = self.peer.http_error(&error, Phase::Head);
                Err(self.with_proxy_detail(error, deadline).await)
            }
            Err(_) => Err(self.timeout_error()),
        }
    }

    pub(super) fn timeout_error(&self) -> CallError {
        CallError::unavailable(
            UnavailableReason::Timeout,
            format!("no whole response within {:?}", self.timeout),
        )
    }

    /// The server's certificate, as DER; `None` without TLS.
    pub(super) fn certificate_of(&self, response: &Response) -> Option<Vec<u8>> {
        let certificate =
            response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        // Through a proxy the client does not expose it.
        certificate.map(<[u8]>::to_vec).or_else(|| self.trusted_certificate())
    }

    fn trusted_certificate(&self) -> Option<Vec<u8>> {
        self.tls.verifier.as_ref().and_then(|verifier| verifier.trusted_certificate())
    }

    pub(super) fn client_cert_status(&self) -> ClientCertStatus {
        self.client_cert.status()
    }

    /// The client with the present login; clones share its connections.
    fn client(&self) -> Result<Client, CallError> {
        let login = self.proxy.as_ref().map_or(Ok(None), ProxyRoute::login)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = last.as_ref().filter(|(known, _)| *known == login) {
            return Ok(client.clone());
        }
        let client = self.build(login.as_ref()).map_err(|error| {
            CallError::unavailable(
                UnavailableReason::Unreachable,
                format!("cannot set up the HTTPS client: {error}"),
            )
        })?;
        *last = Some((login, client.clone()));
        Ok(client)
    }

    /// An error with the proxy's own message if it rejected CONNECT: it is asked once more, because
    /// the HTTP client does not expose its response.
    async fn with_proxy_detail(&self, error: CallError, deadline: Instant) -> CallError {
        let rejected = UnavailableReason::Proxy(ProxyFault::ConnectRejected);
        let Some(proxy) =
            self.proxy.as_ref().filter(|_| error.unavailable_reason() == Some(rejected))
        else {
            return error;
        };
        let ask = async {
            let (hop, server) = (HostPort::of(proxy.url()), HostPort::of(&self.server).to_string());
            let stream = TcpStream::connect((hop.bare_host(), hop.port)).await.ok()?;
            proxy.open_tunnel(&server, &self.tls.for_proxy, stream).await.err()
        };
        timeout_at(deadline, ask).await.ok().flatten().unwrap_or(error)
    }

    /// A client that follows no redirect, repeats no call, and ignores the environment's proxy.
    fn build(&self, login: Option<&HeaderValue>) -> reqwest::Result<Client> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Without it, a proxy may choose any coding (RFC 9110 section 12.5.3).
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut builder = Client::builder()
            .user_agent(concat!("cardbridge/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .http1_only()
            .http1_max_headers(MAX_HEADERS)
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .tls_info(true)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .tls_backend_preconfigured(self.tls.config.clone());
        if let Some(route) = &self.proxy {
            let mut proxy = reqwest::Proxy::all(route.url().clone())?;
            if let Some(login) = login {
                proxy = proxy.custom_http_auth(login.clone());
            }
            builder = builder.proxy(proxy);
            let two_handshakes = route.url().scheme() == "https";
            if two_handshakes {
                builder = builder.connector_layer(CountedConnector);
            }
        }
        builder.build()
    }
}

static HTTP_THREAD: OnceLock<Option<Handle>> = OnceLock::new();

/// Aborts its task when it is dropped.
struct HttpTask<T>(JoinHandle<T>);

impl<T> Drop for HttpTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a call on a thread for HTTP, one per process; without that thread it runs here.
///
/// The HTTP client skips 1xx responses (RFC 9110 section 15.2) without a bound, and reads them without
/// a pause. The call's deadline ends that; until then only this thread is busy, and not the daemon's
/// loop.
async fn run_on_http_thread<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
) -> T {
    let Some(runtime) = HTTP_THREAD.get_or_init(start_http_thread) else { return call.await };
    let mut task = HttpTask(runtime.spawn(call));
    match (&mut task.0).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Aborted, which happens only when this future is dropped as well.
            Err(_) => std::future::pending().await,
        },
    }
}

fn start_http_thread() -> Option<Handle> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build();
    let started = runtime.and_then(|runtime| {
        let handle = runtime.handle().clone();
        let forever = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("http".to_owned()).spawn(forever)?;
        Ok(handle)
    });
    started.inspect_err(|error| tracing::warn!(%error, "HTTP has no thread of its own")).ok()
}
