//! The HTTP client: what it trusts, how long it waits, what it must not do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Url, redirect, retry};
use rustls::server::VerifierBuilderError;

use super::CmOptions;
use super::client_cert::{ClientCertError, ClientCertResolver};
use super::file_contents::FileContents;
use super::http_transport::HttpTransport;
use super::proxy::ProxyRoute;
use super::redact::Redactor;
use super::tls::TlsConfig;

/// How long a connection is kept for the next call: enough for a burst of cards. The client's own
/// 90 s would wake an idle process for nothing.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The most header fields of an answer: a server may set many cookies. The client's own 100 are few.
const MAX_HEADERS: usize = 500;

/// Why there is no client: all of it in the configuration or on this machine.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `cm.url` with `cm.api_path` leads nowhere.
    #[error("cm.url {url:?} is not usable: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// `cm.auth.token_url` leads nowhere, or where others can read along.
    #[error("cm.auth.token_url {url:?} is not usable: {why}")]
    TokenUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// `cm.ca_file` cannot be read.
    #[error("cannot read cm.ca_file {}", path.display())]
    CaFileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `cm.ca_file` holds no certificate in PEM form.
    #[error("cm.ca_file {} has no PEM certificate: {holds}", path.display())]
    CaFileNotPem {
        /// The file.
        path: PathBuf,
        /// What it holds.
        holds: FileContents,
    },
    /// `cm.ca_file` holds a certificate that nothing can be checked against.
    #[error("a certificate in cm.ca_file {} is not usable", path.display())]
    CaFileNotUsable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Neither the system nor `cm.ca_file` says whom to trust.
    #[error("no trusted CA: the system store is empty and cm.ca_file is not set")]
    NoRoots,
    /// Those who are to be trusted cannot be.
    #[error("cannot set up the TLS trust store")]
    Trust(#[source] VerifierBuilderError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The client certificate cannot be shown.
    #[error(transparent)]
    ClientCertificate(#[from] ClientCertError),
    /// What is said about a proxy leads nowhere.
    #[error("invalid proxy in {place}: {why}")]
    Proxy {
        /// The key or the variable that names it. Its value is not told: it may hold a password.
        place: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The client cannot be made.
    #[error("cannot set up the HTTPS client")]
    Client(#[source] reqwest::Error),
}

impl SetupError {
    /// What somebody can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Url { .. } => "write cm.url as https://HOST or https://HOST:PORT",
            Self::TokenUrl { .. } => "write cm.auth.token_url like https://HOST/adfs/oauth2/token",
            Self::CaFileUnreadable { .. } => {
                "check that the file is there and that the user cardbridge may read it"
            }
            Self::CaFileNotPem { holds, .. } => match holds.remedy() {
                Some(remedy) => remedy,
                None => "convert it to PEM: openssl x509 -inform der -in CA.cer -out CA.pem",
            },
            Self::CaFileNotUsable { .. } => "export the CA's certificate again",
            Self::NoRoots => "install ca-certificates, or set cm.ca_file to CM's CA certificate",
            Self::Trust(_) => "check cm.ca_file, and reinstall ca-certificates",
            Self::ClientCertificate(error) => error.remedy(),
            Self::Proxy { .. } => {
                "write it like http://proxy.example.com:3128, or cm.proxy = \"none\""
            }
            Self::Tls(_) | Self::Client(_) => "this is a bug in cardbridge; report it",
        }
    }
}

/// The URL under which the routes are.
pub(super) fn base_url(options: &CmOptions) -> Result<Url, SetupError> {
    let unusable = |why: &str| SetupError::Url { url: options.url.clone(), why: why.to_owned() };
    let mut url: Url = options.url.parse().map_err(|error| unusable(&format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(unusable("it is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not told: it would show the password.
        let url = "(with a user name)".to_owned();
        return Err(SetupError::Url { url, why: "credentials belong to [cm.auth]".to_owned() });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(unusable("it has a query or a fragment"));
    }
    let path = [url.path(), &options.api_path].map(|part| part.trim_matches('/')).join("/");
    url.set_path(&path);
    Ok(url)
}

/// Makes clients for the servers that are talked to: CM, and whoever issues tokens for it.
pub(super) struct TransportBuilder<'a> {
    options: &'a CmOptions,
    base: &'a Url,
    redactor: Arc<Redactor>,
}

impl<'a> TransportBuilder<'a> {
    pub(super) const fn new(
        options: &'a CmOptions,
        base: &'a Url,
        redactor: Arc<Redactor>,
    ) -> Self {
        Self { options, base, redactor }
    }

    /// Knows the secrets of all of them.
    pub(super) const fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// A client of the server at this URL.
    pub(super) fn client(&self, url: &Url) -> Result<HttpTransport, SetupError> {
        let identity = Arc::new(ClientCertResolver::new(self.options)?);
        let tls = TlsConfig::of(url, self.options.ca_file.as_deref(), &identity)?;
        let proxy = ProxyRoute::to(url, &self.options.proxy, &self.redactor)?;
        let (config, connect_timeout) = (tls.config.clone(), self.options.connect_timeout);
        let builder = move || builder(connect_timeout).tls_backend_preconfigured(config.clone());
        HttpTransport::new(builder, proxy, identity, tls)
    }

    /// The URL under which CM's routes are.
    pub(super) const fn base(&self) -> &Url {
        self.base
    }
}

/// A client that neither follows, nor repeats, nor lets the environment choose a proxy.
fn builder(connect_timeout: Duration) -> ClientBuilder {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // Without it, a proxy may choose any coding (RFC 9110 section 12.5.3).
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Client::builder()
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
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
}
