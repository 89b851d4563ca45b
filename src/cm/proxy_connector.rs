//! Counts the handshakes of a connection: with an HTTPS proxy the first one is the proxy's, which must
//! not get the client certificate.
//!
//! The HTTP client makes both handshakes from one configuration, and TLS does not say who requests a
//! certificate. So each connection has a counter, and every handshake asks the session store first.

use std::cell::Cell;
use std::task::{Context, Poll};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use tokio::task::futures::TaskLocalFuture;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    static HANDSHAKES: Cell<u32>;
}

/// Whether the current handshake is the first one of a counted connection.
pub(super) fn is_proxys_handshake() -> bool {
    HANDSHAKES.try_with(|count| count.get() < 2).unwrap_or(false)
}

/// Counts the handshakes of each connection of a client.
#[derive(Clone, Copy)]
pub(super) struct CountedConnector;

/// A service that makes connections, each with a counter.
#[derive(Clone)]
pub(super) struct CountConnections<S>(S);

impl<S> Layer<S> for CountedConnector {
    type Service = CountConnections<S>;

    fn layer(&self, inner: S) -> CountConnections<S> {
        CountConnections(inner)
    }
}

impl<R, S: Service<R>> Service<R> for CountConnections<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Cell<u32>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        HANDSHAKES.scope(Cell::new(0), self.0.call(request))
    }
}

/// Keeps no session, and counts each handshake that begins.
#[derive(Debug)]
pub(super) struct NoSessions;

impl ClientSessionStore for NoSessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // Other connections have no counter.
        HANDSHAKES.try_with(|count| count.set(count.get() + 1)).unwrap_or_default();
        None
    }
}
