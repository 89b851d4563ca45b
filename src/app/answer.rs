//! What people ask on the control socket.

use tokio::sync::oneshot;

use super::{App, now, report};
use crate::control::{Act, ActError, AuditError, Page, Request};
use crate::domain::{EntryId, Snapshot};
use crate::engine::Refusal;
use crate::outbox::{AuditFilter, NoCursor, PAGE_LINES};
use crate::telemetry::Chain;
use crate::wire::control::AuditQuery;

impl App {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Snapshot(reply) => send(reply, self.snapshot()),
            Request::Entries(reply) => send(reply, self.engine.entry_views(now())),
            Request::Act { entry, act, by, reply } => self.act(entry, act, &by, reply),
            Request::Audit(query, reply) => self.audit(&query, reply),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            station: self.settings.station.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            pcscd: self.engine.service_view(),
            readers: self.engine.reader_views(),
            cm: self.engine.link_view(now()),
            outbox: self.engine.outbox_view(),
            latest: self.engine.latest(),
        }
    }

    /// A retry is done once the engine took it; a discard once it is on disk.
    fn act(
        &mut self,
        entry: EntryId,
        act: Act,
        by: &str,
        reply: oneshot::Sender<Result<(), ActError>>,
    ) {
        tracing::info!(%entry, act = act.done(), by, "Somebody acts on an entry");
        let taken = match act {
            Act::Retry => self.engine.retry(entry, by, now()).map(|_| ()),
            Act::Discard => self.engine.discard(entry, by, now()),
        };
        match (taken, act) {
            (Err(refusal), _) => send(reply, Err(refused(refusal))),
            (Ok(()), Act::Retry) => send(reply, Ok(())),
            (Ok(()), Act::Discard) => {
                self.discards.insert(entry, reply);
            }
        }
    }

    fn audit(&self, query: &AuditQuery, reply: oneshot::Sender<Result<Page, AuditError>>) {
        let page = match audit_filter(query) {
            Ok(filter) => self.outbox.audit(filter),
            Err(error) => return send(reply, Err(AuditError::BadCursor(error.to_string()))),
        };
        tokio::spawn(async move {
            let page = page.await.map(|page| {
                report::damaged(&page.damaged);
                (page.lines, page.next.map(|cursor| cursor.to_string()))
            });
            send(reply, page.map_err(|error| AuditError::Store(Chain(&error).to_string())));
        });
    }
}

/// The outbox's form of a query.
pub(crate) fn audit_filter(query: &AuditQuery) -> Result<AuditFilter, NoCursor> {
    Ok(AuditFilter {
        since: query.since,
        until: query.until,
        card: query.card,
        after: query.after.as_deref().map(str::parse).transpose()?,
        limit: query.limit.unwrap_or(PAGE_LINES),
    })
}

const fn refused(refusal: Refusal) -> ActError {
    match refusal {
        Refusal::NoSuchEntry => ActError::NoSuchEntry,
        Refusal::Busy => ActError::Busy,
    }
}

/// Answers somebody, who may have gone meanwhile.
pub(super) fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::debug!("Nobody waits for the answer any more");
    }
}
