//! Addresses of CM, of a token endpoint, and of a proxy, without parts that could lead elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::Value;

use super::value::{quote, text};
use crate::domain::Problem;

/// `https://host` or `https://host:port`; plain HTTP to loopback only.
pub(super) fn origin(value: &Value) -> Result<String, Problem> {
    let url = text(value)?;
    let parts = parts(url, "see [cm.auth]", not_a_url)?;
    if !parts.rest.is_empty() {
        let what = format!("{} goes on after the host", quote(url));
        return Err(Problem::new(what, "remove the path; set it in cm.api_path"));
    }
    require_https(url, &parts)?;
    Ok(format!("{}://{}", parts.scheme, parts.authority))
}

/// `https://host/path`; plain HTTP to loopback only.
pub(super) fn endpoint(value: &Value) -> Result<String, Problem> {
    let url = text(value)?;
    let parts = parts(url, "see cm.auth.client_secret_file", not_an_endpoint)?;
    let plain = parts.rest.chars().all(|c| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c));
    if parts.rest.is_empty() || !plain {
        return Err(not_an_endpoint(url));
    }
    require_https(url, &parts)?;
    Ok(format!("{}://{}/{}", parts.scheme, parts.authority, parts.rest))
}

/// `http://host:port` or `https://host:port`.
pub(super) fn proxy(value: &Value) -> Result<String, Problem> {
    let url = text(value)?;
    let parts = parts(url, "see cm.proxy_credentials_file", not_a_proxy)?;
    match parts.scheme.as_str() {
        "http" | "https" if parts.rest.is_empty() => {
            Ok(format!("{}://{}", parts.scheme, parts.authority))
        }
        _ => Err(not_a_proxy(url)),
    }
}

/// The parts of a URL without a user name.
struct UrlParts<'a> {
    scheme: String,
    authority: &'a str,
    host: Host<'a>,
    /// After the slash that ends the authority.
    rest: &'a str,
}

fn parts<'a>(
    url: &'a str,
    see: &str,
    wrong: impl Fn(&str) -> Problem,
) -> Result<UrlParts<'a>, Problem> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong(url))?;
    if rest.contains('@') {
        // Not shown: the part before it may be a password.
        return Err(Problem::new(
            "has a user name or a password in it",
            format!("remove everything up to the @, and {see}"),
        ));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = host(authority).ok_or_else(|| wrong(url))?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    Ok(UrlParts { scheme: scheme.to_ascii_lowercase(), authority, host, rest })
}

fn require_https(url: &str, parts: &UrlParts<'_>) -> Result<(), Problem> {
    match parts.scheme.as_str() {
        "https" => Ok(()),
        "http" if parts.host.is_loopback() => Ok(()),
        "http" => {
            let what = format!("{} is not encrypted and leads to another machine", quote(url));
            Err(Problem::new(what, "write https://"))
        }
        _ => Err(not_a_url(url)),
    }
}

fn not_an_endpoint(url: &str) -> Problem {
    let remedy = r#"write it like "https://adfs.example.com/adfs/oauth2/token""#;
    Problem::new(format!("{} is not the address of a token endpoint", shown(url)), remedy)
}

fn not_a_proxy(url: &str) -> Problem {
    let remedy = r#"write it like "http://proxy.example.com:3128", or "none""#;
    Problem::new(format!("{} is not the address of a proxy", shown(url)), remedy)
}

/// A loopback address and port.
pub(super) fn loopback_address(value: &Value) -> Result<SocketAddr, Problem> {
    const LIKE: &str = r#"write it like "127.0.0.1:9475" or "[::1]:9475""#;
    let given = text(value)?;
    let address: SocketAddr = given
        .parse()
        .map_err(|_| Problem::new(format!("{} is no address and port", quote(given)), LIKE))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let what = format!("{} can be reached from other machines", quote(given));
    Err(Problem::new(what, format!("{LIKE}; use a proxy for access from other machines")))
}

fn not_a_url(url: &str) -> Problem {
    let remedy = r#"write it like "https://cm.example.com" or "https://cm.example.com:8443""#;
    Problem::new(format!("{} is not the address of a web server", shown(url)), remedy)
}

/// Without a scheme, a password may still precede an @.
fn shown(url: &str) -> String {
    if url.contains('@') { "it".to_owned() } else { quote(url) }
}

enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl Host<'_> {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Self::Address(address) => address.is_loopback(),
        }
    }
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`.
fn host(authority: &str) -> Option<Host<'_>> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
    } else {
        let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        (named(name)?, port)
    };
    let port_is_good = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.chars().all(|c| c.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|p| p > 0)
        });
    port_is_good.then_some(host)
}

fn named(name: &str) -> Option<Host<'_>> {
    let last = name.rsplit('.').next()?;
    // For a URL parser, a name that ends in a number is an address, and 127.1 is loopback (WHATWG URL).
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return name.parse::<Ipv4Addr>().ok().map(|address| Host::Address(address.into()));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    name.split('.').all(label).then_some(Host::Name(name))
}

/// The path of CM's API, with a leading slash and no trailing one.
pub(super) fn api_path(value: &Value) -> Result<String, Problem> {
    let path = text(value)?;
    let stem = path.strip_suffix('/').unwrap_or(path);
    let remedy = r#"write it like "/CertificateManagement/api/v1.0""#;
    if !path.starts_with('/') {
        return Err(Problem::new(format!("{} does not begin with /", quote(path)), remedy));
    }
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
    };
    if stem.split('/').skip(1).all(segment) {
        Ok(stem.to_owned())
    } else {
        Err(Problem::new(format!("{} is not a plain path", quote(path)), remedy))
    }
}
