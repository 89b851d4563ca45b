//! The server's half: routes, the socket file, and the port for monitoring.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Json;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as Segment, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

use super::guard::Guarded;
use super::{Act, ActError, AuditError, Request, exposition};
use crate::domain::{ChainPiece, EntryId, EntryView, Snapshot};
use crate::wire::control::{AuditPage, AuditQuery, Done, Problem, VerifyQuery};

/// Requests that wait for the daemon's loop: people and monitors ask a few times a second at most.
const QUEUE: usize = 32;

/// The socket; whoever holds it answers on it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    daemon: Loop,
    task: tokio::task::JoinHandle<()>,
    monitoring: Option<tokio::task::JoinHandle<()>>,
}

/// Why nobody can be answered on the socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers on it.
    #[error("another process answers on {}", .0.display())]
    InUse(PathBuf),
    /// The file cannot be made.
    #[error("cannot make the socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// The port cannot be had.
    #[error("cannot listen on {0}")]
    Port(SocketAddr, #[source] io::Error),
}

impl Server {
    /// Makes the socket, group-accessible (0660), and answers on it. What people ask comes out of
    /// the receiver.
    pub fn bind(path: &Path) -> Result<(Self, mpsc::Receiver<Request>), BindError> {
        let failed = |error| BindError::Socket(path.to_owned(), error);
        remove_stale(path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        let (requests, receiver) = mpsc::channel(QUEUE);
        let daemon = Loop(requests);
        let task = tokio::spawn(answer(listener, daemon.clone()));
        Ok((Self { path: path.to_owned(), daemon, task, monitoring: None }, receiver))
    }

    /// Answers on a port too, with what is counted and nothing else; tells the address.
    pub async fn monitor_on(&mut self, address: SocketAddr) -> Result<SocketAddr, BindError> {
        let failed = |error| BindError::Port(address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        self.monitoring = Some(tokio::spawn(monitoring(listener, self.daemon.clone())));
        Ok(bound)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(monitoring) = &self.monitoring {
            monitoring.abort();
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "Control socket was not removed");
        }
    }
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

async fn monitoring(listener: TcpListener, daemon: Loop) {
    let routes = axum::Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || Trouble::nothing("only /metrics is here"))
        .with_state(daemon);
    if let Err(error) = axum::serve(Guarded::new(listener), routes).await {
        tracing::error!(%error, "Port for monitoring is lost");
    }
}

async fn answer(listener: UnixListener, daemon: Loop) {
    let routes = axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/outbox", get(outbox))
        .route("/v1/outbox/{id}", get(entry))
        .route("/v1/outbox/{id}/retry", post(retry))
        .route("/v1/outbox/{id}/discard", post(discard))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/verify", get(verify))
        .fallback(async || Trouble::nothing("no such route"))
        .method_not_allowed_fallback(async || {
            Trouble(StatusCode::METHOD_NOT_ALLOWED, "no such method here".to_owned())
        })
        .with_state(daemon);
    let service = routes.into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(Guarded::new(listener), service).await {
        tracing::error!(%error, "Control socket is lost");
    }
}

/// Who is on the other end.
#[derive(Debug, Clone)]
struct Peer(String);

impl Connected<IncomingStream<'_, Guarded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded<UnixListener>>) -> Self {
        let peer = stream.io().peer_cred();
        Self(peer.map_or_else(|_| "unknown user".to_owned(), |peer| format!("uid {}", peer.uid())))
    }
}

/// The daemon's loop.
#[derive(Debug, Clone)]
struct Loop(mpsc::Sender<Request>);

impl Loop {
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Trouble> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Trouble(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".into());
        self.0.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    async fn entries(&self) -> Result<Vec<EntryView>, Trouble> {
        self.ask(Request::Entries).await
    }

    async fn act(self, entry: &str, act: Act, peer: Peer) -> Result<Json<Done>, Trouble> {
        let entry: EntryId = entry.parse().map_err(|_| Trouble::nothing("no such entry waits"))?;
        self.ask(|reply| Request::Act { entry, act, by: peer.0, reply }).await??;
        Ok(Json(Done { done: act.done().to_owned() }))
    }
}

async fn status(State(daemon): State<Loop>) -> Result<Json<Snapshot>, Trouble> {
    Ok(Json(daemon.ask(Request::Snapshot).await?))
}

async fn metrics(State(daemon): State<Loop>) -> Result<impl IntoResponse, Trouble> {
    let metrics = daemon.ask(Request::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], exposition::text(&metrics)))
}

async fn outbox(State(daemon): State<Loop>) -> Result<Json<Vec<EntryView>>, Trouble> {
    Ok(Json(daemon.entries().await?))
}

async fn entry(
    State(daemon): State<Loop>,
    Segment(id): Segment<String>,
) -> Result<Json<EntryView>, Trouble> {
    let entries = daemon.entries().await?;
    let found = entries.into_iter().find(|view| view.entry.id.to_string() == id);
    found.map(Json).ok_or_else(|| Trouble::nothing("no such entry waits"))
}

async fn retry(
    State(daemon): State<Loop>,
    Segment(id): Segment<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Done>, Trouble> {
    daemon.act(&id, Act::Retry, peer).await
}

async fn discard(
    State(daemon): State<Loop>,
    Segment(id): Segment<String>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Done>, Trouble> {
    daemon.act(&id, Act::Discard, peer).await
}

async fn audit(
    State(daemon): State<Loop>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, Trouble> {
    let Query(query) = query.map_err(|error| Trouble(error.status(), error.body_text()))?;
    let (lines, next) = daemon.ask(|reply| Request::Audit(query, reply)).await??;
    Ok(Json(AuditPage { lines, next }))
}

async fn verify(
    State(daemon): State<Loop>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<ChainPiece>, Trouble> {
    let Query(query) = query.map_err(|error| Trouble(error.status(), error.body_text()))?;
    Ok(Json(daemon.ask(|reply| Request::Verify(query, reply)).await??))
}

/// An answer that is not a success.
struct Trouble(StatusCode, String);

impl Trouble {
    fn nothing(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, what.to_owned())
    }
}

impl From<ActError> for Trouble {
    fn from(error: ActError) -> Self {
        let status = match error {
            ActError::NoSuchEntry => StatusCode::NOT_FOUND,
            ActError::Busy => StatusCode::CONFLICT,
            ActError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<AuditError> for Trouble {
    fn from(error: AuditError) -> Self {
        let status = match error {
            AuditError::BadCursor(_) => StatusCode::BAD_REQUEST,
            AuditError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}
