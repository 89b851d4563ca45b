//! The address of CM: an origin and a path, with nothing in them that could lead elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::Value;

use super::problem::Fault;
use super::value::{quote, text};

/// `https://host` or `https://host:port`; plain HTTP to loopback only.
pub(super) fn origin(value: &Value) -> Result<String, Fault> {
    let url = text(value)?;
    let (scheme, rest) = url.split_once("://").ok_or_else(|| not_a_url(url))?;
    let scheme = scheme.to_ascii_lowercase();
    if rest.contains('@') {
        // What is in front of it may be a password: it is not told.
        return Err(Fault::new(
            "has a user name or a password in it",
            "remove everything up to the @, and see [cm.auth]",
        ));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        let what = format!("{} goes on after the host", quote(url));
        return Err(Fault::new(what, "end it there, and put the path into cm.api_path"));
    }
    let host = host(authority).ok_or_else(|| not_a_url(url))?;
    match scheme.as_str() {
        "https" => Ok(format!("https://{authority}")),
        "http" if host.is_loopback() => Ok(format!("http://{authority}")),
        "http" => {
            let what = format!("{} is not encrypted and leads to another machine", quote(url));
            Err(Fault::new(what, "write https://"))
        }
        _ => Err(not_a_url(url)),
    }
}

fn not_a_url(url: &str) -> Fault {
    let remedy = r#"write it like "https://cm.example.com" or "https://cm.example.com:8443""#;
    // Without a scheme, a password may still stand in front of an @.
    let shown = if url.contains('@') { "it".to_owned() } else { quote(url) };
    Fault::new(format!("{shown} is not the address of a web server"), remedy)
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
    // Whatever ends in a number is an address to a URL parser, and 127.1 would be one of ours
    // (WHATWG URL, "ends in a number").
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return name.parse::<Ipv4Addr>().ok().map(|address| Host::Address(address.into()));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    name.split('.').all(label).then_some(Host::Name(name))
}

/// The path under which CM's API is: a slash in front, none at the end.
pub(super) fn api_path(value: &Value) -> Result<String, Fault> {
    let path = text(value)?;
    let stem = path.strip_suffix('/').unwrap_or(path);
    let remedy = r#"write it like "/CertificateManagement/api/v1.0""#;
    if !path.starts_with('/') {
        return Err(Fault::new(format!("{} does not begin with /", quote(path)), remedy));
    }
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c))
    };
    if stem.split('/').skip(1).all(segment) {
        Ok(stem.to_owned())
    } else {
        Err(Fault::new(format!("{} is not a plain path", quote(path)), remedy))
    }
}
