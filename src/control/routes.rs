//! What can be asked on the control socket, who may ask it, and what is answered.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path as Segment, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot};

use super::access::{Access, Role};
use super::account_names::AccountNames;
use super::peer::SocketPeer;
use super::{AuditError, ControlRequest, EntryAction, EntryActionError, prometheus};
use crate::domain::{ChainBatch, ChainPosition, EntryId, EntryView, StatusView};
use crate::wire::control::{
    ActionResult, AuditPage, AuditQuery, ErrorBody, MarkQuery, VerifyQuery,
};

/// What can be asked. One without a role or a handler does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Metrics,
    Status,
    Outbox,
    Entry,
    Retry,
    Discard,
    Audit,
    Mark,
    Verify,
}

impl Route {
    const ALL: [Self; 9] = [
        Self::Metrics,
        Self::Status,
        Self::Outbox,
        Self::Entry,
        Self::Retry,
        Self::Discard,
        Self::Audit,
        Self::Mark,
        Self::Verify,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Status => "/v1/status",
            Self::Outbox => "/v1/outbox",
            Self::Entry => "/v1/outbox/{id}",
            Self::Retry => "/v1/outbox/{id}/retry",
            Self::Discard => "/v1/outbox/{id}/discard",
            Self::Audit => "/v1/audit",
            Self::Mark => "/v1/audit/mark",
            Self::Verify => "/v1/audit/verify",
        }
    }

    /// What a user has to be allowed for it.
    const fn role(self) -> Role {
        match self {
            Self::Metrics
            | Self::Status
            | Self::Outbox
            | Self::Entry
            | Self::Audit
            | Self::Mark
            | Self::Verify => Role::View,
            Self::Retry | Self::Discard => Role::Operate,
        }
    }

    fn handler(self) -> MethodRouter<DaemonHandle> {
        match self {
            Self::Metrics => get(metrics),
            Self::Status => get(status),
            Self::Outbox => get(outbox),
            Self::Entry => get(entry),
            Self::Retry => post(retry),
            Self::Discard => post(discard),
            Self::Audit => get(audit),
            Self::Mark => get(mark),
            Self::Verify => get(verify),
        }
    }
}

/// All routes of the control socket. Each request has to carry its [`SocketPeer`].
pub(super) fn all(daemon: DaemonHandle, access: &Access) -> Router {
    let routes = Route::ALL.into_iter().fold(Router::new(), |router, route| {
        let guard = from_fn_with_state((access.clone(), route.role()), permit);
        router.route(route.path(), route.handler().layer(guard))
    });
    routes
        .fallback(async || HttpError::nothing("no such route"))
        .method_not_allowed_fallback(async || {
            HttpError(StatusCode::METHOD_NOT_ALLOWED, "no such method here".to_owned())
        })
        // What is not there is nobody's to know who may not look.
        .layer(from_fn_with_state((access.clone(), Role::View), permit))
        .with_state(daemon)
}

/// What the port for monitoring has.
pub(super) fn monitoring(daemon: DaemonHandle) -> Router {
    Router::new()
        .route(Route::Metrics.path(), get(metrics))
        .fallback(async || HttpError::nothing("only /metrics is here"))
        .with_state(daemon)
}

/// Lets a request pass whose user may do that.
async fn permit(
    State((access, wanted)): State<(Access, Role)>,
    Extension(peer): Extension<SocketPeer>,
    request: HttpRequest,
    next: Next,
) -> Response {
    if peer.role >= Some(wanted) {
        return next.run(request).await;
    }
    tracing::debug!(uid = peer.uid, ?wanted, "Request on the control socket is refused");
    HttpError(StatusCode::FORBIDDEN, access.refusal(peer.uid, wanted)).into_response()
}

/// The daemon's loop.
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
        let (reply, answer) = oneshot::channel();
        let stopping =
            || HttpError(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".into());
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    async fn entries(&self) -> Result<Vec<EntryView>, HttpError> {
        self.ask(ControlRequest::Entries).await
    }

    async fn act(
        self,
        entry: &str,
        act: EntryAction,
        peer: SocketPeer,
    ) -> Result<Json<ActionResult>, HttpError> {
        let entry: EntryId =
            entry.parse().map_err(|_| HttpError::nothing("no such entry waits"))?;
        let by = self.names.describe(peer.uid, peer.login_uid).await;
        self.ask(|reply| ControlRequest::Act { entry, act, by, reply }).await??;
        Ok(Json(ActionResult { result: act.past_participle().to_owned() }))
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
    Ok(Json(daemon.entries().await?))
}

async fn entry(
    State(daemon): State<DaemonHandle>,
    Segment(id): Segment<String>,
) -> Result<Json<EntryView>, HttpError> {
    let entries = daemon.entries().await?;
    let found = entries.into_iter().find(|view| view.entry.id.to_string() == id);
    found.map(Json).ok_or_else(|| HttpError::nothing("no such entry waits"))
}

async fn retry(
    State(daemon): State<DaemonHandle>,
    Segment(id): Segment<String>,
    Extension(peer): Extension<SocketPeer>,
) -> Result<Json<ActionResult>, HttpError> {
    daemon.act(&id, EntryAction::Retry, peer).await
}

async fn discard(
    State(daemon): State<DaemonHandle>,
    Segment(id): Segment<String>,
    Extension(peer): Extension<SocketPeer>,
) -> Result<Json<ActionResult>, HttpError> {
    daemon.act(&id, EntryAction::Discard, peer).await
}

async fn audit(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditPage>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError(error.status(), error.body_text()))?;
    let (lines, next) = daemon.ask(|reply| ControlRequest::Audit(query, reply)).await??;
    Ok(Json(AuditPage { lines, next }))
}

async fn mark(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<MarkQuery>, QueryRejection>,
) -> Result<Json<ChainPosition>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError(error.status(), error.body_text()))?;
    let found = daemon.ask(|reply| ControlRequest::Mark(query.seq, reply)).await??;
    found.map(Json).ok_or_else(|| HttpError::nothing("no such line in the audit trail"))
}

async fn verify(
    State(daemon): State<DaemonHandle>,
    query: Result<Query<VerifyQuery>, QueryRejection>,
) -> Result<Json<ChainBatch>, HttpError> {
    let Query(query) = query.map_err(|error| HttpError(error.status(), error.body_text()))?;
    Ok(Json(daemon.ask(|reply| ControlRequest::Verify(query, reply)).await??))
}

/// An answer that is not a success.
pub(super) struct HttpError(pub(super) StatusCode, pub(super) String);

impl HttpError {
    fn nothing(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, what.to_owned())
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
