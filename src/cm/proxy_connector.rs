//! The handshakes of one connection, counted: with a proxy that speaks TLS the first is the proxy's, and
//! nothing of the station's is shown there.
//!
//! The HTTP client makes both handshakes from one configuration, and TLS does not say for whom a
//! certificate is wanted. Each connection is made within a count of its own, and every handshake asks
//! for a session to take up before anything is sent.

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

/// Whether the handshake that goes on is that of the proxy, on a connection that is counted.
pub(super) fn is_the_proxys() -> bool {
    HANDSHAKES.try_with(|count| count.get() < 2).unwrap_or(false)
}

/// Counts the handshakes of each connection of a client.
#[derive(Clone, Copy)]
pub(super) struct CountedConnector;

/// A service that makes connections, each within a count of its own.
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

/// Keeps no session, and hears of each handshake that begins.
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
        // Outside of a counted connection there is nothing to count.
        HANDSHAKES.try_with(|count| count.set(count.get() + 1)).unwrap_or_default();
        None
    }
}
