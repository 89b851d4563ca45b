//! The proxy for a server: from the configuration, or from the environment by curl's rules. A plain
//! HTTP server is on this machine, and has none.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::peer::HostPort;
use super::redact::Redactor;
use super::secret::{self, ReloadingFile, Secret};
use crate::config::ProxySettings;
use crate::domain::{CallError, Problem, ProxyFault, UnavailableReason};
use crate::wire::cm;

/// The longest file with user and password.
const LIMIT: u64 = 4 << 10;

/// The longest head of a response to CONNECT.
const HEAD_LIMIT: usize = 8 << 10;

/// A proxy for one server.
pub(super) struct ProxyRoute {
    url: Url,
    login: ProxyAuth,
    redactor: Arc<Redactor>,
}

enum ProxyAuth {
    None,
    /// From the environment's address.
    FromUrl(HeaderValue),
    FromFile(ReloadingFile<HeaderValue>),
}

impl ProxyRoute {
    /// The proxy for `server`, if there is one.
    pub(super) fn to(
        server: &Url,
        proxy: &ProxySettings,
        redactor: &Arc<Redactor>,
    ) -> Result<Option<Self>, Problem> {
        let found = Self::find(server, proxy, |name| std::env::var_os(name))?;
        Ok(found.map(|found| Self { redactor: Arc::clone(redactor), ..found }))
    }

    fn find(
        server: &Url,
        proxy: &ProxySettings,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Problem> {
        if server.scheme() != "https" {
            return Ok(None);
        }
        let host = server.host_str().unwrap_or_default();
        let (place, address, credentials) = match proxy {
            ProxySettings::None => return Ok(None),
            ProxySettings::Named { url, credentials_file } => {
                ("cm.proxy", url.clone(), credentials_file)
            }
            ProxySettings::Environment { credentials_file } => match environment(host, variable)? {
                Some((name, address)) => (name, address, credentials_file),
                None => return Ok(None),
            },
        };
        let invalid = |reason| invalid(place, reason);
        if host.starts_with('[') {
            return Err(invalid(
                "it cannot be asked for an IPv6 address, write CM's name in cm.url",
            ));
        }
        let mut url = address_of(&address).map_err(invalid)?;
        let from_url = basic_of(&url).map_err(invalid)?;
        url.set_username("").map_err(|()| invalid("it has no host"))?;
        url.set_password(None).map_err(|()| invalid("it has no host"))?;
        let login = match (credentials, from_url) {
            (Some(file), _) => ProxyAuth::FromFile(ReloadingFile::new(file.clone())),
            (None, Some(header)) => ProxyAuth::FromUrl(header),
            (None, None) => ProxyAuth::None,
        };
        Ok(Some(Self { url, login, redactor: Arc::default() }))
    }

    /// Its address, without user and password.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Its host and port, for messages.
    pub(super) fn name(&self) -> String {
        HostPort::of(&self.url).to_string()
    }

    /// `Proxy-Authorization` for the next connection; a changed file is read again.
    pub(super) fn login(&self) -> Result<Option<HeaderValue>, CallError> {
        let login = match &self.login {
            ProxyAuth::None => return Ok(None),
            ProxyAuth::FromUrl(header) => header.clone(),
            ProxyAuth::FromFile(file) => file.get(credentials).map_err(|problem| {
                let path = file.path().display();
                let detail = format!("no user and password for the proxy from {path}: {problem}");
                CallError::unavailable(UnavailableReason::Credentials, detail)
            })?,
        };
        self.redactor.learn_basic(&login);
        Ok(Some(login))
    }

    /// Opens a tunnel to `server`, `host:port`, by CONNECT (RFC 9110 section 9.3.6). The HTTP client
    /// does the same, but does not expose the proxy's response.
    pub(super) async fn open_tunnel(
        &self,
        server: &str,
        tls: &ClientConfig,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, CallError> {
        let login = self.login()?;
        let mut stream = self.encrypt(tls, stream).await.map_err(|error| {
            let detail = format!("no TLS with the proxy {}: {error}", self.name());
            self.unavailable(ProxyFault::Unreachable, &detail)
        })?;
        let head = send_connect(&mut stream, server, login.as_ref()).await;
        let head = head.map_err(|error| self.connect_rejected(&error.to_string()))?;
        let first = head.lines().next().unwrap_or_default();
        match first.split_whitespace().nth(1) {
            Some("200") => Ok(stream),
            // tinyproxy answers 401 to a wrong login.
            Some("407" | "401") => {
                let detail = format!("the proxy {} requires a login: {first}", self.name());
                Err(self.unavailable(ProxyFault::AuthRequired, &detail))
            }
            Some(_) | None => Err(self.connect_rejected(first)),
        }
    }

    pub(super) fn connect_rejected(&self, reason: &str) -> CallError {
        let detail = format!("the proxy {} rejected the connection to CM: {reason}", self.name());
        self.unavailable(ProxyFault::ConnectRejected, &detail)
    }

    fn unavailable(&self, fault: ProxyFault, detail: &str) -> CallError {
        let detail = cm::single_line(&self.redactor.redact(detail));
        CallError::unavailable(UnavailableReason::Proxy(fault), detail)
    }

    async fn encrypt(&self, tls: &ClientConfig, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        if self.url.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let host = HostPort::of(&self.url).bare_host().to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(tls.clone()));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// Any connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The head of the proxy's response. Nothing follows it: the server waits for the client.
async fn send_connect(
    stream: &mut Box<dyn Stream>,
    server: &str,
    login: Option<&HeaderValue>,
) -> io::Result<String> {
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n").into_bytes();
    if let Some(login) = login {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        // Byte by byte, so that nothing behind the short head is taken.
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The value is not shown: it may hold a password.
fn invalid(place: &str, reason: &str) -> Problem {
    Problem::new(
        format!("invalid proxy in {place}: {reason}"),
        "write it like http://proxy.example.com:3128, or cm.proxy = \"none\"",
    )
}

/// The variable that names a proxy for `host`, and its value; an empty one counts as unset.
fn environment(
    host: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(&'static str, String)>, Problem> {
    let first = |names: [&'static str; 2]| {
        let set = names.into_iter().find_map(|name| {
            variable(name).filter(|value| !value.is_empty()).map(|value| (name, value))
        });
        set.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(invalid(name, "it is not text")),
        })
        .transpose()
    };
    // Lower case counts first, as for curl.
    let proxy = match first(["https_proxy", "HTTPS_PROXY"])? {
        Some(proxy) => Some(proxy),
        None => first(["all_proxy", "ALL_PROXY"])?,
    };
    let list = first(["no_proxy", "NO_PROXY"])?.map(|(_, list)| list).unwrap_or_default();
    Ok(proxy.filter(|_| !no_proxy_covers(&list, host)))
}

/// Whether `NO_PROXY` covers a host, by curl's rules.
///
/// The list is `*`, or has names, which cover their subdomains too, addresses and networks, separated
/// by commas or blanks.
fn no_proxy_covers(list: &str, host: &str) -> bool {
    if list.trim() == "*" {
        return true;
    }
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    let address: Option<IpAddr> = bare(host).parse().ok();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let covers_name = |entry: &str| {
        let entry = entry.trim_matches('.').to_ascii_lowercase();
        let above = host.strip_suffix(&entry).filter(|_| !entry.is_empty());
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    };
    let mut entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    entries.any(|entry| match address {
        Some(address) => {
            let entry = entry.replace(['[', ']'], "");
            let network = entry.parse().or_else(|_| entry.parse().map(|it: IpAddr| it.into()));
            network.is_ok_and(|network: IpNet| network.contains(&address))
        }
        None => covers_name(entry),
    })
}

/// The address of a proxy; the default scheme is HTTP.
fn address_of(text: &str) -> Result<Url, &'static str> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Url = whole.parse().map_err(|_| "it is no address")?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() && bare => Ok(url),
        "http" | "https" => Err("it is no address of a proxy, which is http://HOST:PORT"),
        "socks4" | "socks4a" | "socks5" | "socks5h" => Err("SOCKS is not supported"),
        _ => Err("it is neither http:// nor https://"),
    }
}

/// User and password of an address.
fn basic_of(url: &Url) -> Result<Option<HeaderValue>, &'static str> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let (user, password) = user.zip(password).ok_or("its user and password are not text")?;
    let login = Zeroizing::new(format!("{}:{}", *user, *password));
    basic(&login).map(Some).ok_or("its user and password cannot be sent")
}

/// Decodes percent-encoding, in memory that does not move.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Vec::with_capacity(text.len());
    bytes.extend(percent_decode_str(text));
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

/// The file's `user:password`.
pub(super) fn credentials(path: &Path) -> Result<HeaderValue, Problem> {
    let text = secret::bare_secret(path, LIMIT)?;
    let line = text.expose().trim_end_matches(['\n', '\r']);
    let has_both = line.split_once(':').is_some_and(|(user, _)| !user.is_empty());
    let what = if line.is_empty() {
        "it is empty"
    } else if line.contains(char::is_control) {
        "it holds more than one line"
    } else if let Some(header) = basic(line).filter(|_| has_both) {
        return Ok(header);
    } else {
        "it does not hold user:password"
    };
    Err(Problem::new(what, "write user:password into it"))
}

/// RFC 7617.
fn basic(user_and_password: &str) -> Option<HeaderValue> {
    let mut text = Secret::with_room("Basic ".len() + 4 * user_and_password.len().div_ceil(3));
    text.expose_mut().push_str("Basic ");
    STANDARD.encode_string(user_and_password, text.expose_mut());
    text.into_header()
}

#[cfg(test)]
mod tests;
