//! What it means when there is no whole answer at all.
//!
//! The client's own error says only that sending failed; the truth is at the end of the chain of
//! causes.

use std::error::Error;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::away;
use super::client_cert::{ClientCertResolver, ClientCertStatus};
use super::tls_error::{self, TlsFailure};
use crate::domain::{CallError, ClientCertFault, ProxyFault, UnavailableReason};
use crate::wire::cm;

/// The other end, for messages.
pub(super) struct HttpPeer {
    /// Host and port.
    name: String,
    /// Those of the proxy on the way.
    proxy: Option<String>,
    identity: Option<Arc<ClientCertResolver>>,
    connect_timeout: Duration,
}

/// How far the exchange was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of the answer was there.
    Head,
    /// Its status and headers were.
    Body,
}

/// What the client says of a proxy that gave no way to the server. Its type is not to be had from
/// outside, its words are.
const TUNNEL: &str = "tunnel error: ";

impl HttpPeer {
    pub(super) fn new(base: &Url, connect_timeout: Duration) -> Self {
        let host = base.host_str().unwrap_or_default();
        let port = base.port_or_known_default().unwrap_or_default();
        let name = format!("{host}:{port}");
        Self { name, proxy: None, identity: None, connect_timeout }
    }

    /// The same, by way of a proxy.
    pub(super) fn through(self, proxy: Option<String>) -> Self {
        Self { proxy, ..self }
    }

    /// The same, with a client certificate to show, or none.
    pub(super) fn showing(self, identity: Arc<ClientCertResolver>) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// Host and port.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sorts an error of the client's.
    pub(super) fn error(&self, error: &reqwest::Error, phase: Phase) -> CallError {
        let (reason, what) = self.sort(error, phase);
        let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
        away(reason, cm::single_line(&format!("{what}: {cause}")))
    }

    /// Sorts an error of a handshake that was made by hand.
    pub(super) fn handshake_error(&self, error: &io::Error) -> CallError {
        let (reason, what) = match find::<rustls::Error>(error) {
            Some(tls) => self.tls_error(tls, true),
            None => {
                (UnavailableReason::Unreachable, format!("the connection to {} broke", self.name))
            }
        };
        let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
        away(reason, cm::single_line(&format!("{what}: {cause}")))
    }

    fn sort(&self, error: &reqwest::Error, phase: Phase) -> (UnavailableReason, String) {
        let name = &self.name;
        let tls = find::<rustls::Error>(error);
        if let Some(reason) = self.proxy.as_ref().and_then(|proxy| tunnel(error, proxy, tls)) {
            return reason;
        }
        if let Some(tls) = tls {
            return self.tls_error(tls, error.is_connect());
        }
        let by_way = self.proxy.as_ref().map(|proxy| format!(" by way of the proxy {proxy}"));
        let by_way = by_way.unwrap_or_default();
        // Of the client's own timeouts only the one for the connection is set.
        if error.is_timeout() {
            let within = self.connect_timeout;
            let what = format!("no connection to {name}{by_way} within {within:?}");
            return (UnavailableReason::Unreachable, what);
        }
        let cut = matches!(find::<io::Error>(error), Some(io) if io.kind() == io::ErrorKind::UnexpectedEof)
            || find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message);
        match phase {
            Phase::Body if cut => (UnavailableReason::NotCm, "the answer was cut short".to_owned()),
            Phase::Head if error.is_connect() => {
                (UnavailableReason::Unreachable, format!("no connection to {name}{by_way}"))
            }
            _ if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) => {
                (UnavailableReason::NotCm, format!("{name} does not speak HTTP"))
            }
            Phase::Head | Phase::Body => {
                (UnavailableReason::Unreachable, format!("the connection to {name}{by_way} broke"))
            }
        }
    }

    /// TLS failed: in the handshake, or after it.
    fn tls_error(&self, error: &rustls::Error, in_handshake: bool) -> (UnavailableReason, String) {
        let name = &self.name;
        let identity = self.identity.as_ref();
        let asked = identity.is_some_and(|identity| identity.was_asked());
        let shown = identity.map_or(ClientCertStatus::NotConfigured, |identity| identity.shown());
        match tls_error::classify(error, in_handshake, asked, shown) {
            TlsFailure::Tls(fault) => {
                (UnavailableReason::Tls(fault), format!("no TLS with {name}"))
            }
            TlsFailure::Certificate(fault) => {
                let what = match fault {
                    ClientCertFault::Required => "wants a client certificate, and there is none",
                    ClientCertFault::RequestedLate => {
                        "asks for the client certificate only after the request, which is not answered"
                    }
                    ClientCertFault::Rejected => "does not accept the client certificate",
                };
                (UnavailableReason::ClientCertificate(fault), format!("{name} {what}"))
            }
        }
    }
}

/// What a proxy has to do with it, if anything.
fn tunnel(
    error: &reqwest::Error,
    proxy: &str,
    tls: Option<&rustls::Error>,
) -> Option<(UnavailableReason, String)> {
    let words = causes(error)
        .find_map(|cause| cause.to_string().strip_prefix(TUNNEL).map(str::to_owned))?;
    let (fault, what) = match words.as_str() {
        "proxy authorization required" => {
            (ProxyFault::AuthRequired, format!("the proxy {proxy} wants a login"))
        }
        "failed to create underlying connection" if tls.is_some() => {
            (ProxyFault::Unreachable, format!("no TLS with the proxy {proxy}"))
        }
        "failed to create underlying connection" => {
            (ProxyFault::Unreachable, format!("no connection to the proxy {proxy}"))
        }
        _ => (ProxyFault::ConnectRejected, format!("the proxy {proxy} gives no way to CM")),
    };
    Some((UnavailableReason::Proxy(fault), what))
}

/// An error and its causes, the deepest last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        // An I/O error made of another error does not name that one as its source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
