//! Performs the engine's effects at the readers, at CM and in the outbox.

use std::future::Future;
use std::time::{Duration, Instant};

use super::{App, event_log};
use crate::domain::EntryId;
use crate::engine::{
    CmCall, CmEvent, CmResponse, Effect, Event, NewEntry, OutboxEffect, OutboxEvent, OutboxFailure,
    ReaderEffect,
};
use crate::outbox::{AppendRequest, FullReason, StoreError};
use crate::telemetry::ErrorChain;

/// The result of an effect.
#[derive(Debug)]
pub(super) struct CompletedEffect {
    pub(super) event: Event,
    /// Of a call to CM.
    pub(super) duration: Option<Duration>,
}

impl App {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Reader(ReaderEffect::ReadAttributes { reader }) => {
                self.readers.read_attributes(&reader);
            }
            Effect::Reader(ReaderEffect::StartProbe { reader, insertion, atr, only_free }) => {
                self.readers.probe(&reader, insertion, &atr, only_free);
            }
            Effect::Reader(ReaderEffect::AbandonProbe { reader }) => {
                drop(self.readers.abandon(&reader));
            }
            Effect::Cm { entry, call } => self.call_cm(entry, call),
            Effect::Outbox(effect) => self.store(effect),
            Effect::Report(notice) => event_log::notice(&notice, self.ids),
        }
    }

    /// The command is given now, so that commands keep the engine's order; its result comes later.
    fn store(&self, effect: OutboxEffect) {
        match effect {
            OutboxEffect::AppendEntry { insertion, entry } => {
                let NewEntry { card_event, stage, instance, supersedes } = entry;
                let trigger = card_event.trigger;
                let request = AppendRequest { card_event, stage, instance, supersedes };
                let done = self.outbox.append(request);
                self.spawn_store(async move {
                    let result = done.await.map(|done| (done.entry, done.lines)).map_err(failure);
                    Some(OutboxEvent::EntryAppended { insertion, trigger, result })
                });
            }
            OutboxEffect::SaveStage { entry, stage } => {
                let done = self.outbox.save(entry, stage);
                self.spawn_store(async move {
                    Some(OutboxEvent::StageSaved { entry, result: done.await.map_err(failure) })
                });
            }
            OutboxEffect::SettleEntry { entry, end } => {
                let done = self.outbox.settle(entry, end);
                self.spawn_store(async move {
                    Some(OutboxEvent::EntrySettled { entry, result: done.await.map_err(failure) })
                });
            }
            OutboxEffect::UnparkEntry { entry, act } => {
                let done = self.outbox.unpark(entry, act.clone());
                self.spawn_store(async move {
                    let result = done.await.map(|()| act).map_err(failure);
                    Some(OutboxEvent::EntryUnparked { entry, result })
                });
            }
            OutboxEffect::AppendAudit(line) => {
                let done = self.outbox.append_audit(line.clone());
                self.spawn_store(async move {
                    log_failure(&done.await).then_some(OutboxEvent::AuditAppended(line))
                });
            }
            OutboxEffect::ClearLastSeen { reader } => {
                let done = self.outbox.clear_last_seen(reader);
                self.spawn_store(async move {
                    log_failure(&done.await);
                    None
                });
            }
        }
    }

    fn call_cm(&self, entry: EntryId, call: CmCall) {
        let (cm, started) = (self.cm.clone(), Instant::now());
        self.spawn(async move {
            let result = match &call {
                CmCall::Lookup(identity) => cm.lookup(identity).await.map(CmResponse::Lookup),
                CmCall::ReadRecord(decision) => {
                    cm.record(decision.record).await.map(CmResponse::Record)
                }
                CmCall::SetStatus(decision) => {
                    cm.set_status(decision).await.map(CmResponse::SetStatus)
                }
                CmCall::ReadRequest(decision) => {
                    cm.request_status(decision.request).await.map(CmResponse::Request)
                }
                CmCall::CompleteRequest(decision) => {
                    cm.complete(decision.request).await.map(CmResponse::CompleteRequest)
                }
            };
            let event = Event::Cm(CmEvent { entry, operation: call.operation(), result });
            Some(CompletedEffect { event, duration: Some(started.elapsed()) })
        });
    }

    fn spawn_store(&self, work: impl Future<Output = Option<OutboxEvent>> + Send + 'static) {
        self.spawn(async move {
            let event = Event::Outbox(work.await?);
            Some(CompletedEffect { event, duration: None })
        });
    }

    /// Runs beside the loop; the result comes back as an event.
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

/// Logs that something is not on disk that nothing else waits for, and returns whether it is. That
/// there is no room for notes the outbox logs itself, once.
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
