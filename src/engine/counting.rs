//! What the engine counts, for monitoring. Nothing is decided by it.

use super::{Engine, Event};
use crate::domain::{AuditLine, CardIdentity, NotIdentified, PcscdView, ProbeResult};

impl Engine {
    /// Counts what happened, before it is taken in.
    pub(super) fn count(&mut self, event: &Event) {
        let tally = &mut self.tally;
        match event {
            Event::CardPresent(_) => tally.insertions += 1,
            Event::CardMute { .. } => tally.mute_cards += 1,
            Event::CardRemoved { .. } => tally.removals += 1,
            Event::ServiceDown { .. } => {
                let lost = matches!(self.desk.service_view(), PcscdView::Connected { .. });
                tally.pcscd_losses += u64::from(lost);
            }
            Event::Appended { result: Err(_), .. }
            | Event::Saved { result: Err(_), .. }
            | Event::Settled { result: Err(_), .. }
            | Event::Unparked { result: Err(_), .. } => tally.outbox_errors += 1,
            Event::ServiceUp
            | Event::ServiceSettled
            | Event::Attached { .. }
            | Event::Detached { .. }
            | Event::Described { .. }
            | Event::Identified { .. }
            | Event::LetGo { .. }
            | Event::Probed { .. }
            | Event::Appended { .. }
            | Event::LookedUp { .. }
            | Event::ReadBack { .. }
            | Event::Saved { .. }
            | Event::Pushed { .. }
            | Event::RequestRead { .. }
            | Event::Completed { .. }
            | Event::Settled { .. }
            | Event::Unparked { .. }
            | Event::Noted(_)
            | Event::Reconfigured(_) => {}
        }
    }

    /// Counts an answer about a card that is still in its reader.
    pub(super) fn count_probe(&mut self, result: &Result<CardIdentity, NotIdentified>) {
        let probed = match result {
            Ok(identity) => ProbeResult::Identified(identity.family),
            Err(why) => ProbeResult::NotIdentified(why.reason),
        };
        *self.tally.probes.entry(probed).or_default() += 1;
    }

    /// Counts an outcome that is on disk.
    pub(super) fn count_outcome(&mut self, line: &AuditLine) {
        if let Some(outcome) = line.outcome() {
            *self.tally.outcomes.entry(outcome).or_default() += 1;
        }
    }
}
