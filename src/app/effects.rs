//! Effects: what the engine wants done, done by the edges.
//!
//! Orders to the outbox are given here and now, so that they are carried out in the engine's
//! order; only their answers, and the calls to CM, come later.

use std::future::Future;
use std::time::Instant;

use super::call_metrics::CompletedEffect;
use super::{App, event_log};
use crate::domain::{
    AuditLine, CardIdentity, Decision, EntryId, InsertionId, ReaderName, RecordId, RequestId,
    Settlement, Stage,
};
use crate::engine::{Effect, Event, NewEntry, OutboxFailure};
use crate::outbox::{AppendRequest, FullReason, StoreError};
use crate::telemetry::ErrorChain;

impl App {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::ReadAttributes { reader } => self.readers.read_attributes(&reader),
            Effect::StartProbe { reader, insertion, atr, only_free } => {
                self.readers.probe(&reader, insertion, &atr, only_free);
            }
            Effect::AbandonProbe { reader } => drop(self.readers.abandon(&reader)),
            Effect::AppendEntry { insertion, entry } => self.append(insertion, entry),
            Effect::SaveStage { entry, stage } => self.save(entry, stage),
            Effect::SettleEntry { entry, end } => self.settle(entry, end),
            Effect::UnparkEntry { entry, act } => self.unpark(entry, act),
            Effect::AppendAudit(line) => self.note(line),
            Effect::ClearLastSeen { reader } => self.end_stay(reader),
            Effect::Lookup { entry, identity } => self.look_up(entry, identity),
            Effect::ReadRecord { entry, record } => self.read_back(entry, record),
            Effect::SetStatus { entry, decision } => self.push(entry, decision),
            Effect::ReadRequest { entry, request } => self.read_request(entry, request),
            Effect::CompleteRequest { entry, decision } => self.complete(entry, decision.request),
            Effect::Report(notice) => event_log::notice(&notice, self.ids),
        }
    }

    fn append(&self, insertion: InsertionId, entry: NewEntry) {
        let NewEntry { card_event: draft, stage, instance, supersedes } = entry;
        let trigger = draft.trigger;
        let done =
            self.outbox.append(AppendRequest { card_event: draft, stage, instance, supersedes });
        self.spawn_effect(async move {
            let result = done.await.map(|done| (done.entry, done.lines));
            Some(Event::EntryAppended { insertion, trigger, result: result.map_err(failure) })
        });
    }

    fn save(&self, entry: EntryId, stage: Stage) {
        let done = self.outbox.save(entry, stage);
        self.spawn_effect(async move {
            Some(Event::StageSaved { entry, result: done.await.map_err(failure) })
        });
    }

    fn settle(&self, entry: EntryId, end: Settlement) {
        let done = self.outbox.settle(entry, end);
        self.spawn_effect(async move {
            Some(Event::EntrySettled { entry, result: done.await.map_err(failure) })
        });
    }

    fn unpark(&self, entry: EntryId, act: AuditLine) {
        let done = self.outbox.unpark(entry, act.clone());
        self.spawn_effect(async move {
            let result = done.await.map(|()| act).map_err(failure);
            Some(Event::EntryUnparked { entry, result })
        });
    }

    fn note(&self, line: AuditLine) {
        let done = self.outbox.append_audit(line.clone());
        self.spawn_effect(
            async move { log_failure(&done.await).then_some(Event::AuditAppended(line)) },
        );
    }

    fn end_stay(&self, reader: ReaderName) {
        let done = self.outbox.clear_last_seen(reader);
        self.spawn_effect(async move {
            log_failure(&done.await);
            None
        });
    }

    fn look_up(&self, entry: EntryId, identity: CardIdentity) {
        let remote = self.cm.clone();
        self.spawn_cm_call(async move {
            Event::LookedUp { entry, result: remote.lookup(&identity).await }
        });
    }

    fn read_back(&self, entry: EntryId, record: RecordId) {
        let remote = self.cm.clone();
        self.spawn_cm_call(async move {
            Event::RecordRead { entry, result: remote.record(record).await }
        });
    }

    fn push(&self, entry: EntryId, decision: Decision) {
        let remote = self.cm.clone();
        self.spawn_cm_call(async move {
            Event::StatusSet { entry, result: remote.set_status(&decision).await }
        });
    }

    fn read_request(&self, entry: EntryId, request: RequestId) {
        let remote = self.cm.clone();
        self.spawn_cm_call(async move {
            Event::RequestRead { entry, result: remote.request_status(request).await }
        });
    }

    fn complete(&self, entry: EntryId, request: RequestId) {
        let remote = self.cm.clone();
        self.spawn_cm_call(async move {
            Event::RequestCompleted { entry, result: remote.complete(request).await }
        });
    }

    /// Runs beside the loop; what comes of it comes back as an event.
    fn spawn_effect(&self, work: impl Future<Output = Option<Event>> + Send + 'static) {
        self.spawn(
            async move { work.await.map(|event| CompletedEffect { event, duration: None }) },
        );
    }

    /// The same, for a call to CM: how long it took comes back too.
    fn spawn_cm_call(&self, work: impl Future<Output = Event> + Send + 'static) {
        let asked = Instant::now();
        self.spawn(async move {
            let event = work.await;
            Some(CompletedEffect { event, duration: Some(asked.elapsed()) })
        });
    }

    fn spawn(&self, work: impl Future<Output = Option<CompletedEffect>> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(done) = work.await
                && events.send(done).is_err()
            {
                tracing::debug!("Main loop stopped; result dropped");
            }
        });
    }
}

/// Whether something that nothing else waits for is on disk; told where it is not. That there is no
/// room for notes the outbox logs itself, not for each.
fn log_failure(result: &Result<(), StoreError>) -> bool {
    if let Err(error) = result
        && !matches!(error, StoreError::Full(FullReason::Notes))
    {
        tracing::error!(error = %ErrorChain(error), "Audit line could not be stored");
    }
    result.is_ok()
}

/// What a failure of the outbox means for the entry it is about.
#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn failure(error: StoreError) -> OutboxFailure {
    let detail = ErrorChain(&error).to_string();
    match error {
        StoreError::NoSuchEntry(_) | StoreError::Conflict(_) | StoreError::Damaged(..) => {
            OutboxFailure::EntryLost(detail)
        }
        StoreError::Full(_)
        | StoreError::Busy
        | StoreError::Io(_)
        | StoreError::Lost(_)
        | StoreError::Closed => OutboxFailure::Retryable(detail),
    }
}
