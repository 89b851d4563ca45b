//! How an attempt ends: with a wait, an outcome on disk, or an operator's action.

use super::Queue;
use super::entry::{EntryStep, ParkedEntry, PendingEntry, Takeover};
use crate::domain::{AuditLine, CallError, Entry, EntryId, Outcome, ParkReason, Settlement, Stage};
use crate::engine::context::Context;
use crate::engine::interface::{ActionError, Notice, OutboxEffect, OutboxFailure, RetryAccepted};

/// How often CM may fail on one entry while others succeed, before it is parked.
const MAX_ENTRY_FAILURES: u32 = 10;

impl Queue {
    /// A call failed: the entry waits, or is parked.
    pub(super) fn on_call_error(&mut self, cx: &mut Context, id: EntryId, error: CallError) {
        let Some(entry) = self.waiting.get(&id) else { return };
        let is_exhausted = entry.entry_failures >= MAX_ENTRY_FAILURES;
        let (reason, detail, http_status, correlation_id) = match error {
            CallError::Refused { http_status, detail, correlation_id } => {
                (ParkReason::Refused, detail, Some(http_status), correlation_id)
            }
            CallError::UnexpectedResponse { detail } => {
                (ParkReason::UnexpectedResponse, detail, None, None)
            }
            CallError::Failed { http_status, detail, correlation_id, .. } if is_exhausted => {
                (ParkReason::RepeatedFailure, detail, Some(http_status), correlation_id)
            }
            CallError::Unavailable { .. } | CallError::Failed { .. } => {
                return self.back_off(cx, id, &error.to_string());
            }
        };
        let end = entry.settlement(Outcome::Parked(reason), detail, cx.time);
        self.settle(cx, id, Settlement { http_status, correlation_id, ..end });
    }

    /// Lets an entry wait until it is retried.
    pub(super) fn back_off(&mut self, cx: &mut Context, id: EntryId, error: &str) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        entry.step = EntryStep::Idle;
        entry.not_before = cx.next_try(entry.failures);
        entry.failures = entry.failures.saturating_add(1);
        entry.last_error = Some(error.to_owned());
        self.free_card(id);
        self.note_idle(id);
    }

    pub(in crate::engine) fn finish(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        outcome: Outcome,
        detail: String,
    ) {
        let Some(entry) = self.waiting.get(&id) else { return };
        let end = entry.settlement(outcome, detail, cx.time);
        self.finish_with(cx, id, end);
    }

    /// CM did, or knew, all that was asked, unless the entry is parked.
    pub(super) fn finish_with(&mut self, cx: &mut Context, id: EntryId, end: Settlement) {
        if end.outcome.park_reason().is_none() {
            self.success_count += 1;
            let is_unconfirmed = |(other, entry): (&EntryId, &PendingEntry)| {
                *other != id && entry.stage.sent().is_some()
            };
            if end.outcome == Outcome::Updated
                || (self.breaker.is_recovering() && !self.waiting.iter().any(is_unconfirmed))
            {
                self.breaker.on_write_succeeded(cx);
            }
        }
        self.settle(cx, id, end);
    }

    /// The outcome is decided: store it.
    fn settle(&mut self, cx: &mut Context, id: EntryId, end: Settlement) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        self.in_progress.insert(entry.card_event.card_key(), id);
        entry.step = EntryStep::Settling(end.clone());
        cx.store(OutboxEffect::SettleEntry { entry: id, end });
    }

    pub(in crate::engine) fn on_settled(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    ) {
        if self.parked.contains_key(&id) {
            return self.on_parked_discarded(cx, id, result);
        }
        let Some(entry) = self.waiting.get_mut(&id) else {
            return cx.report_unexpected(&id, "entry settled");
        };
        let EntryStep::Settling(end) = &entry.step else {
            return cx.report_unexpected(&id, "entry settled");
        };
        match result {
            Ok(line) => {
                if let Some(stage) = Stage::parked(end) {
                    let entry = Entry { id, card_event: entry.card_event.clone(), stage };
                    self.parked.insert(id, ParkedEntry { entry, takeover: None });
                }
                self.waiting.remove(&id);
                self.free_card(id);
                cx.publish(line);
                cx.on_outbox_recovered();
            }
            Err(OutboxFailure::EntryLost(detail)) => self.drop_lost_entry(cx, id, detail),
            // The operator sees the error and can repeat the action: the entry goes on.
            Err(failure) if end.outcome == Outcome::Discarded => {
                entry.step = EntryStep::Idle;
                self.free_card(id);
                self.note_idle(id);
                cx.on_outbox_error(&failure);
            }
            Err(failure) => {
                self.unsaved_outcomes.insert(id);
                entry.not_before = cx.next_try(entry.failures);
                entry.failures = entry.failures.saturating_add(1);
                cx.on_outbox_error(&failure);
            }
        }
    }

    /// Gives up an entry that the outbox lost: only CM's record says what is so now.
    pub(super) fn drop_lost_entry(&mut self, cx: &mut Context, id: EntryId, detail: String) {
        self.waiting.remove(&id);
        self.parked.remove(&id);
        self.free_card(id);
        cx.counters.outbox_errors += 1;
        cx.report(Notice::EntryLost { entry: id, detail });
    }

    /// Offers outcomes again that the disk refused.
    pub(super) fn retry_unsaved_outcomes(&mut self, cx: &mut Context) {
        self.unsaved_outcomes.retain(|id| {
            let Some(entry) = self.waiting.get(id) else { return false };
            let EntryStep::Settling(end) = &entry.step else { return false };
            let is_due = entry.not_before <= cx.time.mono;
            if is_due {
                cx.store(OutboxEffect::SettleEntry { entry: *id, end: end.clone() });
            }
            !is_due
        });
    }

    /// Retries an entry at once; a parked one is requeued on disk first.
    pub(in crate::engine) fn retry(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        by: &str,
    ) -> Result<RetryAccepted, ActionError> {
        if let Some(entry) = self.take_over(id)? {
            let station = &cx.settings.station;
            let act = AuditLine::operator_action(station, entry, "retried", by, cx.time.wall);
            cx.store(OutboxEffect::UnparkEntry { entry: id, act });
            return Ok(RetryAccepted::OnceStored);
        }
        let entry = self.waiting.get_mut(&id).ok_or(ActionError::NoSuchEntry)?;
        entry.not_before = cx.time.mono;
        entry.is_first = true;
        self.incomplete.remove(&id);
        self.note_idle(id);
        self.breaker.force_trial(cx.time);
        Ok(RetryAccepted::Now)
    }

    /// Removes an entry for good.
    pub(in crate::engine) fn discard(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        by: &str,
    ) -> Result<(), ActionError> {
        let detail = format!("discarded by {by}");
        let by = Some(by.to_owned());
        if let Some(entry) = self.take_over(id)? {
            let entry = PendingEntry::from_disk(entry.clone(), None, cx.time);
            let end = entry.settlement(Outcome::Discarded, detail, cx.time);
            cx.store(OutboxEffect::SettleEntry { entry: id, end: Settlement { by, ..end } });
            return Ok(());
        }
        let entry = self.waiting.get(&id).ok_or(ActionError::NoSuchEntry)?;
        if entry.step != EntryStep::Idle
            || entry.superseded_by.is_some()
            || self.in_progress.contains_key(&entry.card_event.card_key())
        {
            return Err(ActionError::InProgress);
        }
        let end = entry.settlement(Outcome::Discarded, detail, cx.time);
        self.settle(cx, id, Settlement { by, ..end });
        Ok(())
    }

    /// An operator takes a parked entry, unless something else is about to.
    fn take_over(&mut self, id: EntryId) -> Result<Option<&Entry>, ActionError> {
        let Some(parked) = self.parked.get_mut(&id) else { return Ok(None) };
        if parked.takeover.is_some() {
            return Err(ActionError::InProgress);
        }
        parked.takeover = Some(Takeover::Operator);
        Ok(Some(&parked.entry))
    }

    fn on_parked_discarded(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    ) {
        match result {
            Ok(line) => {
                self.parked.remove(&id);
                cx.publish(line);
                cx.on_outbox_recovered();
            }
            Err(failure) => self.keep_parked(cx, id, failure),
        }
    }

    /// A parked entry that an operator retries is requeued on disk, or not.
    pub(in crate::engine) fn on_unparked(
        &mut self,
        cx: &mut Context,
        id: EntryId,
        result: Result<AuditLine, OutboxFailure>,
    ) {
        match result {
            Ok(line) => {
                let Some(parked) = self.parked.remove(&id) else {
                    return cx.report_unexpected(&id, "entry unparked");
                };
                let mut entry = PendingEntry::from_disk(parked.entry, None, cx.time);
                entry.since = cx.time.mono;
                entry.successes_at_failure = self.success_count;
                self.add(id, entry);
                cx.publish(line);
                cx.on_outbox_recovered();
                self.breaker.force_trial(cx.time);
            }
            Err(failure) => self.keep_parked(cx, id, failure),
        }
    }

    fn keep_parked(&mut self, cx: &mut Context, id: EntryId, failure: OutboxFailure) {
        if let OutboxFailure::EntryLost(detail) = failure {
            return self.drop_lost_entry(cx, id, detail);
        }
        if let Some(parked) = self.parked.get_mut(&id) {
            parked.takeover = None;
        }
        cx.on_outbox_error(&failure);
    }
}
