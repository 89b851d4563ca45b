//! The server's half: the socket file, the port for monitoring, and their connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, uri::Authority};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::ControlRequest;
use super::access::Access;
use super::connection_limits::{ClientClass, ConnectionLimits, ConnectionPermit};
use super::peer::SocketPeer;
use super::routes::{self, DaemonHandle, HttpError};

/// Requests that wait for the daemon's loop: people and monitors ask a few times a second at most.
const QUEUE: usize = 32;

/// How much of a request's head is read.
const MAX_HEAD: usize = 16 << 10;

/// How long to wait where the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket; whoever holds it answers on it.
#[derive(Debug)]
pub(crate) struct ControlServer {
    path: PathBuf,
    daemon: DaemonHandle,
    gate: ConnectionLimits,
    task: tokio::task::JoinHandle<()>,
    monitoring: Option<tokio::task::JoinHandle<()>>,
}

/// Why nobody can be answered on the socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another process answers on it.
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    /// The file cannot be made.
    #[error("cannot create socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// The port cannot be had.
    #[error("cannot listen on {0}")]
    Port(SocketAddr, #[source] io::Error),
}

impl ControlServer {
    /// Makes the socket and answers on it. Every user may connect (0666): who may do what follows
    /// from what the kernel knows of the other end, see [`Access`]. What people ask comes out of
    /// the receiver.
    pub(crate) fn bind(
        path: &Path,
        access: Access,
    ) -> Result<(Self, mpsc::Receiver<ControlRequest>), BindError> {
        let failed = |error| BindError::Socket(path.to_owned(), error);
        remove_stale(path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let listener = bind_for_all(path).map_err(failed)?;
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (daemon, gate) = (DaemonHandle::new(requests), ConnectionLimits::default());
        let task = tokio::spawn(serve_socket(listener, daemon.clone(), access, gate.clone()));
        Ok((Self { path: path.to_owned(), daemon, gate, task, monitoring: None }, receiver))
    }

    /// Answers on a port too, with what is counted and nothing else; tells the address.
    pub(crate) async fn listen_metrics(
        &mut self,
        address: SocketAddr,
    ) -> Result<SocketAddr, BindError> {
        let failed = |error| BindError::Port(address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let task = serve_metrics(listener, bound.ip(), self.daemon.clone(), self.gate.clone());
        self.monitoring = Some(tokio::spawn(task));
        Ok(bound)
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(monitoring) = &self.monitoring {
            monitoring.abort();
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "Control socket file could not be removed");
        }
    }
}

/// Makes the socket, mode 0666. The mode comes from the mask and is not set by name: a daemon that
/// runs as root would set that of another file, where the name was made a link to it meanwhile.
fn bind_for_all(path: &Path) -> io::Result<UnixListener> {
    let mask = umask(Mode::from_raw_mode(0o111));
    let listener = UnixListener::bind(path);
    umask(mask);
    listener
}

/// Removes a socket that a killed daemon left, but never one that somebody answers on, nor
/// anything else that has the name.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| BindError::Socket(path.to_owned(), error))
        }
        Err(_) => Ok(()),
    }
}

async fn serve_socket(
    listener: UnixListener,
    daemon: DaemonHandle,
    access: Access,
    gate: ConnectionLimits,
) {
    let routes = routes::all(daemon, &access);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
        let Ok(peer) = SocketPeer::of(&stream, &access) else { continue };
        let class = match peer.role {
            _ if access.is_trusted(peer.uid) => ClientClass::Trusted,
            Some(_) => ClientClass::Member,
            None => ClientClass::Stranger,
        };
        if let Some(place) = gate.admit(class, peer.uid) {
            let routes = routes.clone();
            connections.spawn(serve(stream, place, routes, move |request| {
                request.extensions_mut().insert(peer.clone());
                true
            }));
        }
        // A flood of connections does not take the loop's turn.
        tokio::task::yield_now().await;
    }
}

async fn serve_metrics(
    listener: TcpListener,
    own: IpAddr,
    daemon: DaemonHandle,
    gate: ConnectionLimits,
) {
    let routes = routes::monitoring(daemon);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
        if let Some(place) = gate.admit(ClientClass::Port, 0) {
            let routes = routes.clone();
            connections.spawn(serve(stream, place, routes, move |request| is_for(request, own)));
        }
        tokio::task::yield_now().await;
    }
}

/// A connection that came, unless it is gone again.
async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!(%error, "Connection cannot be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Answers the one request of a connection, which `admits` looks at first.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    place: ConnectionPermit,
    routes: Router,
    admits: impl Fn(&mut hyper::Request<Incoming>) -> bool,
) {
    let place = Arc::new(place);
    let service = TowerToHyperService::new(routes);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        place.on_request();
        let answer = admits(&mut request).then(|| service.call(request));
        async {
            match answer {
                Some(answer) => answer.await,
                None => Ok(misdirected().into_response()),
            }
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).half_close(true).max_buf_size(MAX_HEAD);
    tokio::select! {
        ended = http.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "Connection to the control interface ended early");
            }
        }
        () = place.over() => {}
    }
}

fn misdirected() -> HttpError {
    let what = "the host name of this request is not this machine's: ask for localhost";
    HttpError(StatusCode::MISDIRECTED_REQUEST, what.to_owned())
}

/// Whether the request names this machine, by its one Host header and, where the request's target
/// has one, by that too (RFC 9112, 3.2). A page of another site that had its name point here (DNS
/// rebinding) names that site.
fn is_for(request: &hyper::Request<Incoming>, own: IpAddr) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let target = request.uri().authority().map(Authority::as_str);
    std::iter::once(host.to_str().ok())
        .chain(target.map(Some))
        .all(|named| named.is_some_and(|named| is_own_name(named, own)))
}

fn is_own_name(named: &str, own: IpAddr) -> bool {
    let Ok(authority) = named.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback() || address == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_loopback_and_the_address_that_is_listened_on() {
        let own = "127.0.0.9".parse().unwrap();
        for named in ["localhost", "LOCALHOST:9475", "127.0.0.1", "127.0.0.9:1", "[::1]:9475"] {
            assert!(is_own_name(named, own), "{named}");
        }
        for named in [
            "",
            "evil.example",
            "evil.example:9475",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "[2001:db8::1]",
            "0.0.0.0",
            "localhost, evil.example",
        ] {
            assert!(!is_own_name(named, own), "{named}");
        }
    }
}
