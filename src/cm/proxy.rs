//! Who stands between here and a server: named by the configuration, or by the environment as for
//! curl. Nobody does where a server on this machine is talked to without TLS.

mod no_proxy;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::options::ProxyOptions;
use super::redact::Redactor;
use super::reloading_file::{self, ReloadingFile};
use super::secret::Secret;
use super::setup::SetupError;
use super::{CallError, UnavailableReason, away};
use crate::wire::cm;

/// The longest file with a user and a password that is read.
const LIMIT: u64 = 4 << 10;

/// A proxy on the way to one server.
pub(super) struct ProxyRoute {
    url: Url,
    login: ProxyAuth,
    redactor: Arc<Redactor>,
}

/// What the proxy is told about who asks.
enum ProxyAuth {
    None,
    /// What the environment has in the proxy's address.
    FromUrl(HeaderValue),
    FromFile(ReloadingFile<HeaderValue>),
}

impl ProxyRoute {
    /// The proxy on the way to `server`, if one is.
    pub(super) fn to(
        server: &Url,
        proxy: &ProxyOptions,
        redactor: &Arc<Redactor>,
    ) -> Result<Option<Self>, SetupError> {
        let found = Self::find(server, proxy, |name| std::env::var_os(name))?;
        Ok(found.map(|found| Self { redactor: Arc::clone(redactor), ..found }))
    }

    fn find(
        server: &Url,
        proxy: &ProxyOptions,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, SetupError> {
        // Without TLS, only this machine is talked to.
        if server.scheme() != "https" {
            return Ok(None);
        }
        let (place, address, credentials) = match proxy {
            ProxyOptions::None => return Ok(None),
            ProxyOptions::Named { url, credentials_file } => {
                ("cm.proxy", url.clone(), credentials_file)
            }
            ProxyOptions::Environment { credentials_file } => {
                let host = server.host_str().unwrap_or_default();
                match environment(host, variable)? {
                    Some((name, address)) => (name, address, credentials_file),
                    None => return Ok(None),
                }
            }
        };
        let bad = |why: &'static str| SetupError::Proxy { place, why };
        if server.host_str().is_some_and(|host| host.starts_with('[')) {
            return Err(bad("it cannot be asked for an IPv6 address, write CM's name in cm.url"));
        }
        let mut url = address_of(&address).map_err(bad)?;
        let said = basic_of(&url).map_err(bad)?;
        url.set_username("").map_err(|()| bad("it has no host"))?;
        url.set_password(None).map_err(|()| bad("it has no host"))?;
        let login = match (credentials, said) {
            (Some(file), _) => ProxyAuth::FromFile(ReloadingFile::new(file.clone())),
            (None, Some(said)) => ProxyAuth::FromUrl(said),
            (None, None) => ProxyAuth::None,
        };
        Ok(Some(Self { url, login, redactor: Arc::default() }))
    }

    /// Its address, without who asks.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Its host and port, for messages.
    pub(super) fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        format!("{host}:{}", self.url.port_or_known_default().unwrap_or_default())
    }

    /// `Proxy-Authorization` for the next connection; a file is looked at each time.
    pub(super) fn login(&self) -> Result<Option<HeaderValue>, CallError> {
        let login = match &self.login {
            ProxyAuth::None => None,
            ProxyAuth::FromUrl(header) => Some(header.clone()),
            ProxyAuth::FromFile(file) => Some(file.get(credentials).map_err(|error| {
                let path = file.path().display();
                let detail = format!("no user and password for the proxy from {path}: {error}");
                away(UnavailableReason::Credentials, detail)
            })?),
        };
        if let Some(header) = &login {
            self.redactor.learn_basic(header);
        }
        Ok(login)
    }

    /// What the proxy says, without secrets, as one line.
    pub(super) fn proxy_text(&self, text: &str) -> String {
        cm::single_line(&self.redactor.redact(text))
    }
}

/// The variable that names a proxy for `host`, and what it says; an empty one says nothing.
fn environment(
    host: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(&'static str, String)>, SetupError> {
    let first = |names: [&'static str; 2]| {
        let set = names.into_iter().find_map(|name| {
            variable(name).filter(|value| !value.is_empty()).map(|value| (name, value))
        });
        set.map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(SetupError::Proxy { place: name, why: "it is not text" }),
        })
        .transpose()
    };
    // Lower case counts first, as for curl.
    let proxy = match first(["https_proxy", "HTTPS_PROXY"])? {
        Some(proxy) => Some(proxy),
        None => first(["all_proxy", "ALL_PROXY"])?,
    };
    let list = first(["no_proxy", "NO_PROXY"])?.map(|(_, list)| list).unwrap_or_default();
    Ok(proxy.filter(|_| !no_proxy::covers(&list, host)))
}

/// The address of a proxy; without a scheme it is one that speaks HTTP.
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
    basic(&Zeroizing::new(format!("{}:{}", *user, *password)))
        .map(Some)
        .map_err(|_| "its user and password cannot be sent")
}

/// Text without percent signs (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%');
        if let Some([code]) = code.and_then(|code| hex::decode(code).ok()).as_deref() {
            bytes.push(*code);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

/// The file's `user:password`.
pub(super) fn credentials(path: &Path) -> io::Result<HeaderValue> {
    let text = reloading_file::bare_secret(path, LIMIT)?;
    let line = text.expose().trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(io::Error::other("it is empty; write user:password into it"));
    }
    if line.contains(char::is_control) {
        return Err(io::Error::other("it holds more than one line; write user:password into it"));
    }
    match line.split_once(':') {
        Some((user, _)) if !user.is_empty() => basic(line),
        Some(_) | None => {
            Err(io::Error::other("it does not hold user:password; write both into it"))
        }
    }
}

/// RFC 7617.
fn basic(user_and_password: &str) -> io::Result<HeaderValue> {
    let mut text = Secret::with_room("Basic ".len() + 4 * user_and_password.len().div_ceil(3));
    text.expose_mut().push_str("Basic ");
    STANDARD.encode_string(user_and_password, text.expose_mut());
    let mut header = HeaderValue::from_maybe_shared(text.into_bytes()).map_err(io::Error::other)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests;
