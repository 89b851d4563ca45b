//! The client of the control socket, for the command line.

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

/// The daemon responds from memory or from its disk.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait while the socket's queue is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// The largest response: 100,000 entries of half a KiB each.
const MAX_BODY: usize = 64 << 20;

#[derive(Debug, Clone)]
pub(crate) struct ControlClient {
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("cannot connect to the daemon at {}", .0.display())]
    NotRunning(PathBuf, #[source] io::Error),
    #[error("permission denied on {}: run as root, or let this user enter its directory", .0.display())]
    NotAllowed(PathBuf),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "cannot parse the daemon's response; check that daemon and command have the same version"
    )]
    Protocol(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An action may have been done, or not.
    #[error(
        "the daemon closed the connection before it responded: check with `cardbridge outbox \
         list` whether the action was done"
    )]
    Cut,
    #[error("the daemon did not respond within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl ControlClient {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether a daemon accepts connections.
    pub(crate) async fn check_running(&self) -> Result<(), ControlError> {
        self.connect().await.map(drop)
    }

    pub(crate) async fn status(&self) -> Result<StatusView, ControlError> {
        self.call(Method::GET, "/v1/status").await
    }

    pub(crate) async fn entries(&self) -> Result<Vec<EntryView>, ControlError> {
        self.call(Method::GET, "/v1/outbox").await
    }

    pub(crate) async fn entry(&self, id: EntryId) -> Result<EntryView, ControlError> {
        self.call(Method::GET, &format!("/v1/outbox/{id}")).await
    }

    pub(crate) async fn act(
        &self,
        id: EntryId,
        action: EntryAction,
    ) -> Result<ActionResult, ControlError> {
        let action: &str = action.into();
        self.call(Method::POST, &format!("/v1/outbox/{id}/{action}")).await
    }

    pub(crate) async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ControlError> {
        let mut pairs = Vec::new();
        pairs.extend(query.since.map(|at| format!("since={at}")));
        pairs.extend(query.until.map(|at| format!("until={at}")));
        pairs.extend(query.card.map(|card| format!("card={card}")));
        pairs.extend(query.after.as_ref().map(|cursor| format!("after={cursor}")));
        pairs.extend(query.limit.map(|limit| format!("limit={limit}")));
        self.call(Method::GET, &format!("/v1/audit?{}", pairs.join("&"))).await
    }

    /// The position in the chain of the line with this number, if it exists.
    pub(crate) async fn mark(
        &self,
        query: &MarkQuery,
    ) -> Result<Option<ChainPosition>, ControlError> {
        match self.call(Method::GET, &format!("/v1/audit/mark?seq={}", query.seq)).await {
            Err(ControlError::NotFound(_)) => Ok(None),
            position => position.map(Some),
        }
    }

    pub(crate) async fn verify(&self, query: &VerifyQuery) -> Result<ChainBatch, ControlError> {
        let after = query.after.as_ref().map(|cursor| format!("after={cursor}"));
        self.call(Method::GET, &format!("/v1/audit/verify?{}", after.unwrap_or_default())).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, ControlError> {
        let response = tokio::time::timeout(TIMEOUT, self.exchange_until_complete(&method, path));
        let (status, body) = response.await.map_err(|_| ControlError::Timeout)??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(protocol);
        }
        let ErrorBody { error } = serde_json::from_slice(&body).map_err(protocol)?;
        Err(match status {
            StatusCode::NOT_FOUND => ControlError::NotFound(error),
            StatusCode::FORBIDDEN => ControlError::Forbidden(error),
            _ => ControlError::Refused(error),
        })
    }

    /// The daemon closes a connection if a newer one takes its place before the request arrives.
    /// Then a query is repeated; an action is not.
    async fn exchange_until_complete(
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
                response => return response,
            }
        }
    }

    async fn connect(&self) -> Result<UnixStream, ControlError> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                // The socket's queue is full (unix(7)).
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

/// Whether the connection ended before the response was complete.
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
