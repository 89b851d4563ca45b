//! What people ask on the control socket.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{App, event_log, now};
use crate::control::{AuditError, AuditPageReply, ControlRequest, EntryAction, EntryActionError};
use crate::domain::{
    ChainBatch, ChainPosition, EntryId, Metrics, OutboxView, PcscdView, StatusView,
};
use crate::engine::{ActionError, Event, OutboxEvent, RetryAccepted};
use crate::outbox::{AuditFilter, ChainCursor, InvalidCursor, MAX_PAGE_LINES, OutboxContents};
use crate::telemetry::ErrorChain;
use crate::wire::control::{AuditQuery, VerifyQuery};

impl App {
    pub(super) fn answer(&mut self, request: ControlRequest) {
        match request {
            ControlRequest::Snapshot(reply) => send(reply, self.snapshot()),
            ControlRequest::Metrics(reply) => send(reply, self.metrics()),
            ControlRequest::Entries(reply) => send(reply, self.engine.entry_views(now())),
            ControlRequest::Act { entry, act, by, reply } => self.act(entry, act, &by, reply),
            ControlRequest::Audit(query, reply) => self.audit(&query, reply),
            ControlRequest::Mark(seq, reply) => self.mark(seq, reply),
            ControlRequest::Verify(query, reply) => self.verify(&query, reply),
        }
    }

    pub(super) fn snapshot(&self) -> StatusView {
        StatusView {
            station: self.settings.station.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            pcscd: self.pcscd_view(),
            readers: self.engine.reader_views(),
            cm: self.engine.cm_view(now()),
            credentials: self.cm.authenticator(),
            outbox: self.outbox_view(),
            recent_audit: self.engine.latest(),
            data_loss: self.data_loss.clone(),
        }
    }

    /// A pcscd that hangs says nothing, to the engine either.
    fn pcscd_view(&self) -> PcscdView {
        match (self.engine.pcscd_view(), self.readers.pcscd_hang_duration()) {
            (PcscdView::Connected { .. } | PcscdView::Connecting, Some(silence)) => {
                PcscdView::Unavailable {
                    since: Timestamp::now() - silence,
                    reason:
                        "pcscd hangs: restart it with `systemctl restart pcscd`; a reader or a \
                             card may hold it"
                            .to_owned(),
                }
            }
            (view, _) => view,
        }
    }

    fn metrics(&self) -> Metrics {
        Metrics {
            at: Timestamp::now(),
            state: self.snapshot(),
            counters: self.engine.counters().clone(),
            calls: self.calls.clone(),
            pcsc_errors: self.readers.errors(),
            stuck_threads: self.readers.abandoned(),
        }
    }

    /// The engine knows of trouble once a card has met it; the outbox from the start on.
    fn outbox_view(&self) -> OutboxView {
        let view = self.engine.outbox_view();
        let trouble = self.outbox.write_error();
        OutboxView { write_error: view.write_error.clone().or(trouble), ..view }
    }

    /// A wish is answered once it is fulfilled, which may take the disk.
    fn act(
        &mut self,
        entry: EntryId,
        act: EntryAction,
        by: &str,
        reply: oneshot::Sender<Result<(), EntryActionError>>,
    ) {
        tracing::info!(%entry, action = act.past_participle(), by, "Operator action received");
        let taken = match act {
            EntryAction::Retry => {
                self.cm.expedite();
                self.engine.retry(entry, by, now())
            }
            EntryAction::Discard => {
                self.engine.discard(entry, by, now()).map(|()| RetryAccepted::OnceStored)
            }
        };
        match taken {
            Err(refusal) => send(reply, Err(action_error(refusal))),
            Ok(RetryAccepted::Now) => send(reply, Ok(())),
            Ok(RetryAccepted::OnceStored) => {
                self.pending_actions.insert(entry, reply);
            }
        }
    }

    /// Tells whoever wished it that it is done, or why not.
    pub(super) fn complete_action(&mut self, event: &Event) {
        let Event::Outbox(
            OutboxEvent::EntrySettled { entry, result }
            | OutboxEvent::EntryUnparked { entry, result },
        ) = event
        else {
            return;
        };
        if let Some(reply) = self.pending_actions.remove(entry) {
            let result = result.as_ref().map(|_| ());
            send(
                reply,
                result.map_err(|failure| EntryActionError::Store(failure.detail().to_owned())),
            );
        }
    }

    fn audit(
        &self,
        query: &AuditQuery,
        reply: oneshot::Sender<Result<AuditPageReply, AuditError>>,
    ) {
        let page = match audit_filter(query) {
            Ok(filter) => self.outbox.audit(filter),
            Err(error) => return send(reply, Err(AuditError::BadCursor(error.to_string()))),
        };
        tokio::spawn(async move {
            let page = page.await.map(|page| {
                event_log::damaged(&page.damaged);
                (page.lines, page.next.map(|cursor| cursor.to_string()))
            });
            send(reply, page.map_err(|error| AuditError::Store(ErrorChain(&error).to_string())));
        });
    }

    fn mark(&self, seq: i64, reply: oneshot::Sender<Result<Option<ChainPosition>, AuditError>>) {
        let mark = self.outbox.mark(seq);
        tokio::spawn(async move {
            let mark = mark.await;
            send(reply, mark.map_err(|error| AuditError::Store(ErrorChain(&error).to_string())));
        });
    }

    fn verify(&self, query: &VerifyQuery, reply: oneshot::Sender<Result<ChainBatch, AuditError>>) {
        let piece = match chain_cursor(query) {
            Ok(after) => self.outbox.verify(after),
            Err(error) => return send(reply, Err(AuditError::BadCursor(error.to_string()))),
        };
        tokio::spawn(async move {
            let piece = piece.await;
            send(reply, piece.map_err(|error| AuditError::Store(ErrorChain(&error).to_string())));
        });
    }
}

/// What the outbox lost, in words.
pub(super) fn damage(restored: &OutboxContents) -> Option<String> {
    let rows = restored.damaged.len();
    let left = (rows > 0).then(|| format!("{rows} damaged rows are left alone; see the log"));
    let parts: Vec<_> =
        restored.repaired.as_ref().map(ToString::to_string).into_iter().chain(left).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Where the outbox is to go on along the chain.
pub(crate) fn chain_cursor(query: &VerifyQuery) -> Result<Option<ChainCursor>, InvalidCursor> {
    query.after.as_deref().map(str::parse).transpose()
}

/// The outbox's form of a query.
pub(crate) fn audit_filter(query: &AuditQuery) -> Result<AuditFilter, InvalidCursor> {
    Ok(AuditFilter {
        since: query.since,
        until: query.until,
        card: query.card,
        after: query.after.as_deref().map(str::parse).transpose()?,
        limit: query.limit.unwrap_or(MAX_PAGE_LINES),
    })
}

const fn action_error(refusal: ActionError) -> EntryActionError {
    match refusal {
        ActionError::NoSuchEntry => EntryActionError::NoSuchEntry,
        ActionError::InProgress => EntryActionError::InProgress,
    }
}

/// Answers somebody, who may have gone meanwhile.
fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::debug!("Control client disconnected before the reply");
    }
}
