//! What the engine counts, for monitoring. Nothing is decided by it.

use super::{Engine, Event};
use crate::domain::{AuditLine, CardIdentity, NotIdentified, PcscdView, ProbeResult, ReaderEvent};

impl Engine {
    /// Counts what happened, before it is taken in.
    pub(super) fn count(&mut self, event: &Event) {
        let tally = &mut self.counters;
        match event {
            Event::Reader(ReaderEvent::CardInserted(_)) => tally.insertions += 1,
            Event::Reader(ReaderEvent::CardMute { .. }) => tally.mute_cards += 1,
            Event::Reader(ReaderEvent::CardRemoved { .. }) => tally.removals += 1,
            Event::Reader(ReaderEvent::PcscdUnavailable { .. }) => {
                let lost = matches!(self.tracker.service_view(), PcscdView::Connected { .. });
                tally.pcscd_losses += u64::from(lost);
            }
            Event::EntryAppended { result: Err(_), .. }
            | Event::StageSaved { result: Err(_), .. }
            | Event::EntrySettled { result: Err(_), .. }
            | Event::EntryUnparked { result: Err(_), .. } => tally.outbox_errors += 1,
            Event::Reader(_)
            | Event::EntryAppended { .. }
            | Event::LookedUp { .. }
            | Event::RecordRead { .. }
            | Event::StageSaved { .. }
            | Event::StatusSet { .. }
            | Event::RequestRead { .. }
            | Event::RequestCompleted { .. }
            | Event::EntrySettled { .. }
            | Event::EntryUnparked { .. }
            | Event::AuditAppended(_)
            | Event::Reconfigured(_) => {}
        }
    }

    /// Counts an answer about a card that is still in its reader.
    pub(super) fn count_probe(&mut self, result: &Result<CardIdentity, NotIdentified>) {
        let probed = match result {
            Ok(identity) => ProbeResult::Identified(identity.family),
            Err(why) => ProbeResult::NotIdentified(why.reason),
        };
        *self.counters.probes.entry(probed).or_default() += 1;
    }

    /// Counts an outcome that is on disk.
    pub(super) fn count_outcome(&mut self, line: &AuditLine) {
        if let Some(outcome) = line.outcome() {
            *self.counters.outcomes.entry(outcome).or_default() += 1;
        }
    }
}
