//! The server: the socket file, the metrics port, their connections and the limits on these.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::ControlRequest;
use super::access::{Access, SocketPeer};
use super::routes::{self, DaemonHandle, HttpError};

/// Requests that wait for the daemon's loop.
const QUEUE: usize = 32;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// How long to wait while the system has no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves the socket, and the metrics port, until it is dropped.
#[derive(Debug)]
pub(crate) struct ControlServer {
    path: PathBuf,
    daemon: DaemonHandle,
    limits: ConnectionLimits,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    #[error("cannot create socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    #[error("cannot listen on {0}")]
    Port(SocketAddr, #[source] io::Error),
}

impl ControlServer {
    /// Creates the socket and serves it. Every user may connect (mode 0666); [`Access`] decides
    /// what they may do. The receiver gets the requests.
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
        let (daemon, limits) = (DaemonHandle::new(requests), ConnectionLimits::default());
        let task = tokio::spawn(serve_socket(listener, daemon.clone(), access, limits.clone()));
        Ok((Self { path: path.to_owned(), daemon, limits, tasks: vec![task] }, receiver))
    }

    /// Serves metrics, and nothing else, on a port; returns its address.
    pub(crate) async fn listen_metrics(
        &mut self,
        address: SocketAddr,
    ) -> Result<SocketAddr, BindError> {
        let failed = |error| BindError::Port(address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let (daemon, limits) = (self.daemon.clone(), self.limits.clone());
        self.tasks.push(tokio::spawn(serve_metrics(listener, bound.ip(), daemon, limits)));
        Ok(bound)
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "Control socket file could not be removed");
        }
    }
}

/// Creates the socket with mode 0666, by the umask: chmod by name could hit another file, if the
/// name was replaced by a link meanwhile.
fn bind_for_all(path: &Path) -> io::Result<UnixListener> {
    let mask = umask(Mode::from_raw_mode(0o111));
    let listener = UnixListener::bind(path);
    umask(mask);
    listener
}

/// Removes the socket of a killed daemon, but none that a process listens on, and no other file.
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
    limits: ConnectionLimits,
) {
    let routes = routes::all(daemon, access.clone());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
        let Ok(peer) = SocketPeer::of(&stream, &access) else { continue };
        let class = match peer.role {
            _ if access.is_trusted(peer.uid) => ClientClass::Trusted,
            Some(_) => ClientClass::Member,
            None => ClientClass::Stranger,
        };
        if let Some(permit) = limits.admit(class, peer.uid) {
            connections.spawn(serve(stream, permit, routes.clone(), move |request| {
                request.extensions_mut().insert(peer.clone());
                true
            }));
        }
        // Lets the loop run in a flood of connections.
        tokio::task::yield_now().await;
    }
}

async fn serve_metrics(
    listener: TcpListener,
    own: IpAddr,
    daemon: DaemonHandle,
    limits: ConnectionLimits,
) {
    let routes = routes::metrics_only(daemon);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
        if let Some(permit) = limits.admit(ClientClass::Port, 0) {
            let is_admitted = move |request: &mut _| is_for(request, own);
            connections.spawn(serve(stream, permit, routes.clone(), is_admitted));
        }
        tokio::task::yield_now().await;
    }
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!(%error, "Connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves the one request of a connection, if it is admitted.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    permit: ConnectionPermit,
    routes: Router,
    is_admitted: impl Fn(&mut hyper::Request<Incoming>) -> bool,
) {
    let service = TowerToHyperService::new(routes);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        permit.on_request();
        let response = is_admitted(&mut request).then(|| service.call(request));
        async {
            match response {
                Some(response) => response.await,
                None => Ok(misdirected().into_response()),
            }
        }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).half_close(true).max_buf_size(MAX_HEAD);
    tokio::select! {
        result = http.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = result {
                tracing::debug!(%error, "Connection to the control interface ended early");
            }
        }
        () = permit.ended() => {}
    }
}

fn misdirected() -> HttpError {
    let text = "the host name of this request is not this machine's: use localhost";
    HttpError(StatusCode::MISDIRECTED_REQUEST, text.to_owned())
}

/// Whether the request names this machine, by its one Host header and, if its target has a host,
/// by that too (RFC 9112, 3.2). DNS rebinding names another site.
fn is_for(request: &hyper::Request<Incoming>, own: IpAddr) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let target = request.uri().authority().map(Authority::as_str);
    std::iter::once(host.to_str().ok())
        .chain(target.map(Some))
        .all(|host| host.is_some_and(|host| is_own_name(host, own)))
}

fn is_own_name(host: &str, own: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback() || address == own)
}

/// Who connects. Each class, and each user in it, has a limit of connections, and each connection
/// a lifetime: no client can use up the daemon's descriptors, or block others. Above the limit,
/// the newest connection replaces the oldest that has not sent a request yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ClientClass {
    /// Root, or the daemon's own user.
    Trusted,
    /// A user with a role.
    Member,
    /// A user without a role.
    Stranger,
    /// The metrics port.
    Port,
}

struct ClassLimits {
    connections: usize,
    per_user: usize,
    lifetime: Duration,
}

impl ClientClass {
    const fn limits(self) -> ClassLimits {
        let (connections, per_user, lifetime) = match self {
            Self::Trusted => (32, 16, LIFETIME),
            Self::Member => (48, 8, LIFETIME),
            Self::Stranger => (16, 4, Duration::from_secs(1)),
            Self::Port => (32, 32, LIFETIME),
        };
        ClassLimits { connections, per_user, lifetime }
    }
}

/// Longer than the longest response takes.
const LIFETIME: Duration = Duration::from_secs(4);

/// How long a connection with a request cannot be replaced.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct HeldConnection {
    uid: u32,
    since: Instant,
    has_requested: bool,
    end: Arc<Notify>,
}

#[derive(Debug, Default)]
struct ConnectionPools {
    last: u64,
    /// By class, the oldest first.
    held: BTreeMap<(ClientClass, u64), HeldConnection>,
}

/// All connections.
#[derive(Debug, Clone, Default)]
struct ConnectionLimits {
    pools: Arc<Mutex<ConnectionPools>>,
}

/// The permit of one connection, returned when it is dropped.
#[derive(Debug)]
struct ConnectionPermit {
    limits: ConnectionLimits,
    key: (ClientClass, u64),
    end: Arc<Notify>,
}

impl ConnectionLimits {
    /// A permit for a new connection of this user; `None` if the connection has to be closed.
    fn admit(&self, class: ClientClass, uid: u32) -> Option<ConnectionPermit> {
        let limits = class.limits();
        let now = Instant::now();
        let mut pools = self.lock();
        let of_class: Vec<_> = pools.of(class).map(|(_, held)| held.uid).collect();
        let of_user = of_class.iter().filter(|held| **held == uid).count();
        if of_user >= limits.per_user {
            pools.end_oldest(class, uid, now)?;
        } else if of_class.len() >= limits.connections {
            pools.end_oldest(class, most_frequent(&of_class)?, now)?;
        }
        pools.last += 1;
        let key = (class, pools.last);
        let end = Arc::new(Notify::new());
        let held = HeldConnection { uid, since: now, has_requested: false, end: Arc::clone(&end) };
        pools.held.insert(key, held);
        Some(ConnectionPermit { limits: self.clone(), key, end })
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionPools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPools {
    fn of(
        &self,
        class: ClientClass,
    ) -> impl Iterator<Item = (&(ClientClass, u64), &HeldConnection)> {
        self.held.range((class, 0)..=(class, u64::MAX))
    }

    /// Ends the user's oldest connection that can be replaced.
    fn end_oldest(&mut self, class: ClientClass, uid: u32, now: Instant) -> Option<()> {
        let is_replaceable = |held: &HeldConnection| {
            held.uid == uid && (!held.has_requested || now.duration_since(held.since) >= GRACE)
        };
        let (key, _) = self.of(class).find(|(_, held)| is_replaceable(held))?;
        let key = *key;
        self.held.remove(&key)?.end.notify_one();
        Some(())
    }
}

fn most_frequent(users: &[u32]) -> Option<u32> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for uid in users {
        *counts.entry(*uid).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
}

impl ConnectionPermit {
    /// From now on, the connection cannot be replaced for some time.
    fn on_request(&self) {
        if let Some(held) = self.limits.lock().held.get_mut(&self.key) {
            held.has_requested = true;
        }
    }

    /// Returns when the connection has to end.
    async fn ended(&self) {
        let lifetime = self.key.0.limits().lifetime;
        drop(tokio::time::timeout(lifetime, self.end.notified()).await);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.lock().held.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_loopback_and_the_bound_address() {
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

    const CLASSES: [ClientClass; 4] =
        [ClientClass::Trusted, ClientClass::Member, ClientClass::Stranger, ClientClass::Port];

    async fn is_over(permit: &ConnectionPermit) -> bool {
        tokio::time::timeout(Duration::ZERO, permit.ended()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn newest_replaces_the_oldest_idle_connection() {
        for class in CLASSES {
            let pool = ConnectionLimits::default();
            let limits = class.limits();
            let mut permits = Vec::new();
            for _ in 0..1000 {
                permits.push(pool.admit(class, 7).unwrap());
            }
            let over = permits.len() - limits.per_user;
            assert!(
                is_over(&permits[over - 1]).await && !is_over(&permits[over]).await,
                "{class:?}"
            );
            let newest = permits.pop().unwrap();
            newest.on_request();
            for _ in 0..1000 {
                permits.push(pool.admit(class, 7).unwrap());
                assert!(pool.lock().held.len() <= limits.per_user, "{class:?}");
            }
            assert!(!is_over(&newest).await, "a request is served: {class:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn users_and_classes_do_not_block_each_other() {
        let pool = ConnectionLimits::default();
        let mut permits = Vec::new();
        for class in [ClientClass::Member, ClientClass::Stranger] {
            for uid in 0..1000 {
                permits.push(pool.admit(class, uid).unwrap());
                permits.push(pool.admit(class, 5000).unwrap());
            }
        }
        let newest = pool.admit(ClientClass::Member, 9).unwrap();
        assert!(!is_over(&newest).await);
        let most = |class: ClientClass| class.limits().connections;
        assert!(pool.lock().held.len() <= most(ClientClass::Member) + most(ClientClass::Stranger));
        let total: usize = CLASSES.map(most).iter().sum();
        assert!(total <= 128, "{total} descriptors");
    }

    #[tokio::test(start_paused = true)]
    async fn permit_ends_after_its_lifetime_or_grace() {
        let pool = ConnectionLimits::default();
        let slow: Vec<_> = (0..8).map(|_| pool.admit(ClientClass::Member, 7).unwrap()).collect();
        slow.iter().for_each(ConnectionPermit::on_request);
        assert!(pool.admit(ClientClass::Member, 7).is_none(), "all are being served");
        tokio::time::advance(GRACE).await;
        let newest = pool.admit(ClientClass::Member, 7).unwrap();
        assert!(is_over(&slow[0]).await && !is_over(&slow[1]).await);
        tokio::time::timeout(LIFETIME * 2, newest.ended()).await.unwrap();
        drop((slow, newest));
        assert!(pool.lock().held.is_empty());
    }
}
