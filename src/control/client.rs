//! The client's half, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::EntryAction;
use crate::domain::{ChainBatch, ChainPosition, EntryId, EntryView, StatusView};
use crate::wire::control::{
    ActionResult, AuditPage, AuditQuery, ErrorBody, MarkQuery, VerifyQuery,
};

/// The daemon answers from memory or from its disk: longer than this it does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait where so many connect that the socket's queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// No answer is larger: 100,000 entries of half a KiB each.
const MAX_BODY: usize = 64 << 20;

/// A way to ask the running daemon.
#[derive(Debug, Clone)]
pub(crate) struct ControlClient {
    socket: PathBuf,
}

/// Why the daemon did not answer as wished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// No daemon runs, as far as this socket tells.
    #[error("cannot connect to the daemon at {}", .0.display())]
    NotRunning(PathBuf, #[source] io::Error),
    /// The socket is there, but not for this user.
    #[error("permission denied on {}: run as root, or let this user enter its directory", .0.display())]
    NotAllowed(PathBuf),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// This user may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// The daemon answered in a way that this program does not understand.
    #[error(
        "cannot parse the daemon's response; check that daemon and command have the same version"
    )]
    Protocol(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended first. What was asked for may have been done, or not.
    #[error(
        "the daemon closed the connection before it answered: see with outbox list whether it was \
         done, and try again"
    )]
    Cut,
    /// It took too long.
    #[error("the daemon did not respond within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl ControlClient {
    /// A client of the daemon that answers on this socket.
    #[must_use]
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether a daemon accepts connections.
    pub(crate) async fn check_running(&self) -> Result<(), ControlError> {
        self.connect().await.map(drop)
    }

    /// The state of the daemon.
    pub(crate) async fn status(&self) -> Result<StatusView, ControlError> {
        self.call(Method::GET, "/v1/status").await
    }

    /// Every entry that waits, the oldest first.
    pub(crate) async fn entries(&self) -> Result<Vec<EntryView>, ControlError> {
        self.call(Method::GET, "/v1/outbox").await
    }

    /// One entry.
    pub(crate) async fn entry(&self, id: EntryId) -> Result<EntryView, ControlError> {
        self.call(Method::GET, &format!("/v1/outbox/{id}")).await
    }

    /// Has something done to an entry.
    pub(crate) async fn act(
        &self,
        id: EntryId,
        act: EntryAction,
    ) -> Result<ActionResult, ControlError> {
        let verb = match act {
            EntryAction::Retry => "retry",
            EntryAction::Discard => "discard",
        };
        self.call(Method::POST, &format!("/v1/outbox/{id}/{verb}")).await
    }

    /// Some audit lines.
    pub(crate) async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ControlError> {
        let mut pairs = Vec::new();
        pairs.extend(query.since.map(|at| format!("since={at}")));
        pairs.extend(query.until.map(|at| format!("until={at}")));
        pairs.extend(query.card.map(|card| format!("card={card}")));
        pairs.extend(query.after.as_ref().map(|cursor| format!("after={cursor}")));
        pairs.extend(query.limit.map(|limit| format!("limit={limit}")));
        self.call(Method::GET, &format!("/v1/audit?{}", pairs.join("&"))).await
    }

    /// The place in the chain of the line with this number, if there is one.
    pub(crate) async fn mark(
        &self,
        query: &MarkQuery,
    ) -> Result<Option<ChainPosition>, ControlError> {
        match self.call(Method::GET, &format!("/v1/audit/mark?seq={}", query.seq)).await {
            Err(ControlError::NotFound(_)) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// A piece of the audit trail's chain, looked along.
    pub(crate) async fn verify(&self, query: &VerifyQuery) -> Result<ChainBatch, ControlError> {
        let after = query.after.as_ref().map(|cursor| format!("after={cursor}"));
        self.call(Method::GET, &format!("/v1/audit/verify?{}", after.unwrap_or_default())).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, ControlError> {
        let (status, body) = tokio::time::timeout(TIMEOUT, self.answered(&method, path))
            .await
            .map_err(|_| ControlError::Timeout)??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(protocol);
        }
        let problem: ErrorBody = serde_json::from_slice(&body).map_err(protocol)?;
        Err(match status {
            StatusCode::NOT_FOUND => ControlError::NotFound(problem.error),
            StatusCode::FORBIDDEN => ControlError::Forbidden(problem.error),
            _ => ControlError::Refused(problem.error),
        })
    }

    /// The answer. Where the daemon gave the connection's place to a newer one before it was asked,
    /// a question is asked again; an act is not.
    async fn answered(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<(StatusCode, Bytes), ControlError> {
        loop {
            match self.exchange(method.clone(), path).await {
                Err(ControlError::Protocol(error)) if is_cut(&*error) => {
                    if *method != Method::GET {
                        return Err(ControlError::Cut);
                    }
                    tokio::time::sleep(FULL_QUEUE_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// A connection, which other users may be about to take the daemon's attention from for a moment.
    async fn connect(&self) -> Result<UnixStream, ControlError> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                // So many connect that the socket's queue is full (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(FULL_QUEUE_PAUSE).await;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ControlError::NotAllowed(self.socket.clone()));
                }
                Err(error) => return Err(ControlError::NotRunning(self.socket.clone(), error)),
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Bytes), ControlError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "cardbridge")
            .body(Empty::<Bytes>::new())
            .map_err(protocol)?;
        let response = sender.send_request(request).await.map_err(protocol)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        connection.abort();
        body.map(|body| (status, body.to_bytes())).map_err(ControlError::Protocol)
    }
}

/// Whether the connection ended before its answer.
fn is_cut(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(|error| {
        error.is_canceled()
            || error.is_closed()
            || error.is_incomplete_message()
            || matches!(std::error::Error::source(error), Some(cause) if cause.is::<io::Error>())
    })
}

fn protocol(error: impl std::error::Error + Send + Sync + 'static) -> ControlError {
    ControlError::Protocol(Box::new(error))
}
