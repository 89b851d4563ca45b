//! The HTTP client: what it trusts, how long it waits, what it must not do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect, retry};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Options;

/// How long a connection is kept for the next call: enough for a burst of cards. The client's own
/// 90 s would wake an idle process for nothing.
const POOL_IDLE: Duration = Duration::from_secs(20);

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
    /// `cm.ca_file` cannot be read.
    #[error("cannot read cm.ca_file {}", path.display())]
    CaFileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `cm.ca_file` holds no certificate in PEM form.
    #[error("no certificate in PEM form in cm.ca_file {}", path.display())]
    CaFileNotPem {
        /// The file.
        path: PathBuf,
    },
    /// `cm.ca_file` holds a certificate that nothing can be checked against.
    #[error("a certificate in cm.ca_file {} is not usable", path.display())]
    CaFileNotUsable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The client cannot be made; with https and no `cm.ca_file`, because the system trusts nobody.
    #[error("cannot set up the HTTPS client")]
    Client(#[source] reqwest::Error),
}

impl SetupError {
    /// What somebody can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Url { .. } => "write cm.url as https://HOST or https://HOST:PORT",
            Self::CaFileUnreadable { .. } => {
                "check that the file is there and that the user cardbridge may read it"
            }
            Self::CaFileNotPem { .. } => {
                "convert it: openssl x509 -inform der -in CA.cer -out CA.pem"
            }
            Self::CaFileNotUsable { .. } => "export the CA's certificate again",
            Self::Client(_) => "install ca-certificates, or name CM's CA in cm.ca_file",
        }
    }
}

/// The URL under which the routes are.
pub(super) fn base_url(options: &Options) -> Result<Url, SetupError> {
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
pub(super) struct Clients<'a> {
    options: &'a Options,
    base: &'a Url,
}

impl<'a> Clients<'a> {
    pub(super) const fn new(options: &'a Options, base: &'a Url) -> Self {
        Self { options, base }
    }

    /// A client of the server at this URL.
    pub(super) fn client(&self, url: &Url) -> Result<Client, SetupError> {
        client(self.options, url)
    }

    /// The URL under which CM's routes are.
    pub(super) const fn base(&self) -> &Url {
        self.base
    }
}

/// A client that neither follows, nor repeats, nor lets the environment choose a proxy.
fn client(options: &Options, base: &Url) -> Result<Client, SetupError> {
    if CryptoProvider::get_default().is_none() {
        // An error is somebody else's provider in the same moment: as good.
        ring::default_provider().install_default().ok();
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let builder = Client::builder()
        .user_agent(concat!("cardbridge/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .tls_info(true)
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(POOL_IDLE);
    let certificates = match &options.ca_file {
        Some(path) => certificates(path)?,
        None => Vec::new(),
    };
    let builder = if base.scheme() == "http" {
        // The system's roots would be loaded for nothing, and missed on a machine without any.
        builder.tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    };
    builder.build().map_err(SetupError::Client)
}

/// The certificates of a PEM file, each one fit to be a root.
fn certificates(path: &Path) -> Result<Vec<Certificate>, SetupError> {
    let path = || path.to_owned();
    let pem = read_file(&path())
        .map_err(|source| SetupError::CaFileUnreadable { path: path(), source })?;
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for der in CertificateDer::pem_slice_iter(&pem) {
        let der = der.map_err(|_| SetupError::CaFileNotPem { path: path() })?;
        certificates.push(Certificate::from_der(&der).map_err(SetupError::Client)?);
        roots.add(der).map_err(|source| SetupError::CaFileNotUsable { path: path(), source })?;
    }
    if certificates.is_empty() {
        return Err(SetupError::CaFileNotPem { path: path() });
    }
    Ok(certificates)
}

/// A regular file's content: a pipe would wait for its writer, a device may never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    fs::read(path)
}
