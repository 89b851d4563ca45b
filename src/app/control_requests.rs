//! Replies to the requests on the control socket.

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{App, event_log, now};
use crate::control::{AuditError, AuditPageReply, ControlRequest, EntryAction, EntryActionError};
use crate::domain::{EntryId, Metrics, OutboxView, PcscdView, StatusView};
use crate::engine::{ActionError, Event, OutboxEvent, RetryAccepted};
use crate::outbox::{
    AuditFilter, ChainCursor, InvalidCursor, MAX_PAGE_LINES, OutboxContents, StoreError,
};
use crate::telemetry::ErrorChain;
use crate::wire::control::{AuditQuery, VerifyQuery};

impl App {
    pub(super) fn answer(&mut self, request: ControlRequest) {
        match request {
            ControlRequest::Snapshot(reply) => send(reply, self.snapshot()),
            ControlRequest::Metrics(reply) => send(reply, self.metrics()),
            ControlRequest::Entries(reply) => send(reply, self.engine.entry_views(now())),
            ControlRequest::Act { entry, act, by, reply } => self.act(entry, act, &by, reply),
            ControlRequest::Audit(query, reply) => match audit_filter(&query) {
                Ok(filter) => self.audit(filter, reply),
                Err(error) => send(reply, Err(AuditError::BadCursor(error.to_string()))),
            },
            ControlRequest::Mark(seq, reply) => send_later(reply, self.outbox.mark(seq)),
            ControlRequest::Verify(query, reply) => match chain_cursor(&query) {
                Ok(after) => send_later(reply, self.outbox.verify(after)),
                Err(error) => send(reply, Err(AuditError::BadCursor(error.to_string()))),
            },
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

    /// A pcscd that hangs emits no event, so the engine does not know.
    fn pcscd_view(&self) -> PcscdView {
        match (self.engine.pcscd_view(), self.readers.pcscd_hang_duration()) {
            (PcscdView::Connected { .. } | PcscdView::Connecting, Some(duration)) => {
                let reason =
                    "pcscd hangs: run `systemctl restart pcscd`; a reader or card blocks it";
                let since = Timestamp::now() - duration;
                PcscdView::Unavailable { since, reason: reason.to_owned() }
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

    /// The engine knows of a write error after the first card; the outbox from the start on.
    fn outbox_view(&self) -> OutboxView {
        let mut view = self.engine.outbox_view();
        view.write_error = view.write_error.or_else(|| self.outbox.write_error());
        view
    }

    /// The reply follows once the action is on disk.
    fn act(
        &mut self,
        entry: EntryId,
        act: EntryAction,
        by: &str,
        reply: oneshot::Sender<Result<(), EntryActionError>>,
    ) {
        tracing::info!(%entry, action = act.past_participle(), by, "Operator action received");
        let accepted = match act {
            EntryAction::Retry => {
                self.cm.expedite();
                self.engine.retry(entry, by, now())
            }
            EntryAction::Discard => {
                self.engine.discard(entry, by, now()).map(|()| RetryAccepted::OnceStored)
            }
        };
        match accepted {
            Err(ActionError::NoSuchEntry) => send(reply, Err(EntryActionError::NoSuchEntry)),
            Err(ActionError::InProgress) => send(reply, Err(EntryActionError::InProgress)),
            Ok(RetryAccepted::Now) => send(reply, Ok(())),
            Ok(RetryAccepted::OnceStored) => {
                self.pending_actions.insert(entry, reply);
            }
        }
    }

    /// Replies to the client that waits for this action.
    pub(super) fn complete_action(&mut self, event: &Event) {
        let Event::Outbox(
            OutboxEvent::EntrySettled { entry, result }
            | OutboxEvent::EntryUnparked { entry, result },
        ) = event
        else {
            return;
        };
        if let Some(reply) = self.pending_actions.remove(entry) {
            let result = result.as_ref().map(drop);
            send(reply, result.map_err(|error| EntryActionError::Store(error.detail().to_owned())));
        }
    }

    fn audit(
        &self,
        filter: AuditFilter,
        reply: oneshot::Sender<Result<AuditPageReply, AuditError>>,
    ) {
        let page = self.outbox.audit(filter);
        send_later(reply, async {
            let page = page.await?;
            event_log::damaged(&page.damaged);
            Ok((page.lines, page.next.map(|cursor| cursor.to_string())))
        });
    }
}

/// What the outbox lost before this start.
pub(super) fn data_loss(contents: &OutboxContents) -> Option<String> {
    let rows = contents.damaged.len();
    let skipped = (rows > 0).then(|| format!("{rows} damaged rows skipped; see the log"));
    let repair = contents.repaired.as_ref().map(ToString::to_string);
    let parts: Vec<_> = repair.into_iter().chain(skipped).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

pub(crate) fn chain_cursor(query: &VerifyQuery) -> Result<Option<ChainCursor>, InvalidCursor> {
    query.after.as_deref().map(str::parse).transpose()
}

pub(crate) fn audit_filter(query: &AuditQuery) -> Result<AuditFilter, InvalidCursor> {
    Ok(AuditFilter {
        since: query.since,
        until: query.until,
        card: query.card,
        after: query.after.as_deref().map(str::parse).transpose()?,
        limit: query.limit.unwrap_or(MAX_PAGE_LINES),
    })
}

fn send<T>(reply: oneshot::Sender<T>, result: T) {
    if reply.send(result).is_err() {
        tracing::debug!("Control client disconnected before the reply");
    }
}

/// Sends the reply once the outbox has the result.
fn send_later<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, AuditError>>,
    result: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) {
    tokio::spawn(async move {
        let result = result.await;
        send(reply, result.map_err(|error| AuditError::Store(ErrorChain(&error).to_string())));
    });
}
