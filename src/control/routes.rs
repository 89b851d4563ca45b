//! The routes of the control socket, the role that each needs, and their responses.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path as Segment, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot};

use super::access::{Access, AccountNames, Role, SocketPeer};
use super::{AuditError, ControlRequest, EntryAction, EntryActionError, prometheus};
use crate::domain::{ChainBatch, ChainPosition, EntryId, EntryView, StatusView};
use crate::wire::control::{
    ActionResult, AuditPage, AuditQuery, ErrorBody, MarkQuery, VerifyQuery,
};

/// All routes of the control socket. Each request carries its [`SocketPeer`].
pub(super) fn all(daemon: DaemonHandle, access: Access) -> Router {
    let retry = |daemon, id, peer| act(EntryAction::Retry, daemon, id, peer);
    let discard = |daemon, id, peer| act(EntryAction::Discard, daemon, id, peer);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/outbox", get(outbox))
        .route("/v1/outbox/{id}", get(entry))
        .route("/v1/outbox/{id}/retry", post(retry))
        .route("/v1/outbox/{id}/discard", post(discard))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/mark", get(mark))
        .route("/v1/audit/verify", get(verify))
        .fallback(async || HttpError::not_found("no such route"))
        .method_not_allowed_fallback(async || {
            HttpError(StatusCode::METHOD_NOT_ALLOWED, "no such method for this route".to_owned())
        })
        .layer(from_fn_with_state(access, check_role))
        .with_state(daemon)
}

/// The routes of the metrics port.
pub(super) fn metrics_only(daemon: DaemonHandle) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || HttpError::not_found("only /metrics is here"))
        .with_state(daemon)
}

/// Every request needs the role to view, also one for a route that does not exist; one that may
/// change something needs the role to operate too.
async fn check_role(
    State(access): State<Access>,
    Extension(peer): Extension<SocketPeer>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let changes = !request.method().is_safe();
    let mut wanted = [Some(Role::View), changes.then_some(Role::Operate)].into_iter().flatten();
    match wanted.find(|role| peer.role < Some(*role)) {
        None => next.run(request).await,
        Some(role) => {
            tracing::debug!(uid = peer.uid, ?role, "Request on the control socket refused");
            HttpError(StatusCode::FORBIDDEN, access.refusal(peer.uid, role)).into_response()
        }
    }
}

/// The channel to the daemon's loop.
#[derive(Debug, Clone)]
pub(super) struct DaemonHandle {
    requests: mpsc::Sender<ControlRequest>,
    names: AccountNames,
}

impl DaemonHandle {
    pub(super) fn new(requests: mpsc::Sender<ControlRequest>) -> Self {
        Self { requests, names: AccountNames::default() }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> ControlRequest,
    ) -> Result<T, HttpError> {
        let (reply, response) = oneshot::channel();
        let stopping =
            || HttpError(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".into());
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        response.await.map_err(|_| stopping())
    }
}

async fn status(State(daemon): State<DaemonHandle>) -> Result<Json<StatusView>, HttpError> {
    Ok(Json(daemon.ask(ControlRequest::Snapshot).await?))
}

async fn metrics(State(daemon): State<DaemonHandle>) -> Result<impl IntoResponse, HttpError> {
    let metrics = daemon.ask(ControlRequest::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], prometheus::text(&metrics)))
}

async fn outbox(State(daemon): State<DaemonHandle>) -> Result<Json<Vec<EntryView>>, HttpError> {
    Ok(Json(daemon.ask(ControlRequest::Entries).await?))
}

async fn entry(
    State(daemon): State<DaemonHandle>,
    Segment(id): Segment<String>,
) -> Result<Json<EntryView>, HttpError> {
    let mut entries = daemon.ask(ControlRequest::Entries).await?.into_iter();
    let entry = entries.find(|view| view.entry.id.to_string() == id);
    entry.map(Json).ok_or_else(|| HttpError::not_found("no such entry"))
}

async fn act(
    action: EntryAction,
    State(daemon): State<DaemonHandle>,
    Segment(id): Segment<String>,
    Extension(peer): Extension<SocketPeer>,
) -> Result<Json<ActionResult>, HttpError> {
    let entry: EntryId = id.parse().map_err(|_| HttpError::not_found("no such entry"))?;
    let by = daemon.names.describe(peer.uid, peer.login_uid).await;
    daemon.ask(|reply| ControlRequest::Act { entry, act: action, by, reply }).await??;
    Ok(Json(ActionResult { result: action.past_participle().to_owned() }))
}

async fn audit(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, HttpError> {
    let Query(query) = query?;
    let (lines, next) = daemon.ask(|reply| ControlRequest::Audit(query, reply)).await??;
    Ok(Json(AuditPage { lines, next }))
}

async fn mark(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<MarkQuery>, QueryRejection>,
) -> Result<Json<ChainPosition>, HttpError> {
    let Query(query) = query?;
    let position = daemon.ask(|reply| ControlRequest::Mark(query.seq, reply)).await??;
    position.map(Json).ok_or_else(|| HttpError::not_found("no such line in the audit trail"))
}

async fn verify(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<ChainBatch>, HttpError> {
    let Query(query) = query?;
    Ok(Json(daemon.ask(|reply| ControlRequest::Verify(query, reply)).await??))
}

/// A response that is not a success.
pub(super) struct HttpError(pub(super) StatusCode, pub(super) String);

impl HttpError {
    fn not_found(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, what.to_owned())
    }
}

impl From<QueryRejection> for HttpError {
    fn from(error: QueryRejection) -> Self {
        Self(error.status(), error.body_text())
    }
}

impl From<EntryActionError> for HttpError {
    fn from(error: EntryActionError) -> Self {
        let status = match error {
            EntryActionError::NoSuchEntry => StatusCode::NOT_FOUND,
            EntryActionError::InProgress => StatusCode::CONFLICT,
            EntryActionError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<AuditError> for HttpError {
    fn from(error: AuditError) -> Self {
        let status = match error {
            AuditError::BadCursor(_) => StatusCode::BAD_REQUEST,
            AuditError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}
