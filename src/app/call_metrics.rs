//! Calls to CM, counted when they come back.

use std::time::Duration;

use crate::domain::{CallError, CallMetrics, CmOperation};
use crate::engine::Event;

/// What came of an effect.
#[derive(Debug)]
pub(super) struct CompletedEffect {
    pub(super) event: Event,
    /// How long it took; for calls to CM only.
    pub(super) duration: Option<Duration>,
}

/// Counts it, if it is a call.
pub(super) fn count(calls: &mut CallMetrics, done: &CompletedEffect) {
    if let (Some(took), Some((call, error))) = (done.duration, call(&done.event)) {
        calls.count(call, error, took);
    }
}

/// What was asked for, and why it was not had.
fn call(event: &Event) -> Option<(CmOperation, Option<&CallError>)> {
    match event {
        Event::LookedUp { result, .. } => Some((CmOperation::Lookup, result.as_ref().err())),
        Event::RecordRead { result, .. } => Some((CmOperation::ReadRecord, result.as_ref().err())),
        Event::StatusSet { result, .. } => Some((CmOperation::SetStatus, result.as_ref().err())),
        Event::RequestRead { result, .. } => {
            Some((CmOperation::ReadRequest, result.as_ref().err()))
        }
        Event::RequestCompleted { result, .. } => {
            Some((CmOperation::CompleteRequest, result.as_ref().err()))
        }
        Event::Reader(_)
        | Event::EntryAppended { .. }
        | Event::StageSaved { .. }
        | Event::EntrySettled { .. }
        | Event::EntryUnparked { .. }
        | Event::AuditAppended(_)
        | Event::Reconfigured(_) => None,
    }
}
