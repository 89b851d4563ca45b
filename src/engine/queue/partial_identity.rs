//! Entries of cards of which a part of the ids is known: another program uses the card, or it left
//! or hung before it was read in full.
//!
//! Such an entry acts where CM has a record under an id that proves by itself that it is this card's.
//! Nothing else is final while the card may still be read in full: another id of it may be the one that
//! CM knows. Once it cannot be any more, the card counts as not identified.

use std::time::Instant;

use super::{EntryStep, ParkedEntry};
use crate::domain::{CardEvent, EntryId, Outcome};
use crate::engine::{Effect, Engine, Now};
use crate::rules::Evaluation;

impl Engine {
    /// What a verdict on a card that is known in part comes to, if it is not carried out.
    pub(super) fn wait_for_rest(&mut self, id: EntryId, verdict: &Evaluation, now: Now) {
        let why = why(verdict);
        if !self.tracker.completes(id) {
            let detail = format!("the card was read in part only; by that part: {why}");
            self.forget_stay(id);
            self.finish_with(id, Outcome::NotIdentified, detail, now);
            return;
        }
        let Some(entry) = self.queue.waiting.get_mut(&id) else { return };
        entry.step = EntryStep::Idle;
        entry.last_error =
            Some(format!("another program uses the card, which is read in full after that; {why}"));
        self.queue.in_progress.retain(|_, busy| *busy != id);
        self.queue.incomplete.insert(id);
        self.queue.note(id);
    }

    /// A card that still lies in its reader, unseen by now, is not taken for one that was worked on.
    fn forget_stay(&mut self, id: EntryId) {
        if let Some(reader) = self.tracker.reader_of(id) {
            self.tracker.forget_stay(&reader);
            self.effects.push_back(Effect::ClearLastSeen { reader });
        }
    }

    /// Entries whose cards cannot be read in full any more are looked at by what is known.
    pub(in crate::engine) fn start_incomplete(&mut self, now: Now) {
        let Self { queue, tracker: desk, .. } = self;
        let mut released = Vec::new();
        queue.incomplete.retain(|id| {
            let Some(entry) = queue.waiting.get_mut(id) else { return false };
            let waits = desk.completes(*id) || entry.superseded_by.is_some();
            if !waits {
                entry.not_before = now.mono;
                released.push(*id);
            }
            waits
        });
        for id in released {
            self.queue.note(id);
        }
    }
}

impl super::Queue {
    /// What a whole identity goes into, and since when it waits, unless CM was asked for something. An entry
    /// that is parked by the part that it has, or about to be, is no more than that part either.
    pub(in crate::engine) fn to_renew(
        &self,
        id: EntryId,
        now: Now,
    ) -> Option<(CardEvent, Instant)> {
        let (draft, seen, is_undecided) = if let Some(entry) = self.waiting.get(&id) {
            let is_undecided = match &entry.step {
                EntryStep::Idle | EntryStep::LookingUp => entry.superseded_by.is_none(),
                EntryStep::Settling { end } => end.outcome.park_reason().is_some(),
                EntryStep::ReadingRecord { .. }
                | EntryStep::Saving { .. }
                | EntryStep::SettingStatus { .. }
                | EntryStep::ReadingRequest { .. }
                | EntryStep::CompletingRequest { .. } => false,
            };
            (&entry.draft, entry.seen, is_undecided && entry.stage.sent().is_none())
        } else {
            let ParkedEntry { entry, takeover: claim } = self.parked.get(&id)?;
            (&entry.card_event, now.mono, claim.is_none() && entry.stage.sent().is_none())
        };
        (is_undecided && draft.identity.partial).then(|| (draft.clone(), seen))
    }
}

fn why(verdict: &Evaluation) -> String {
    match verdict {
        Evaluation::Set { decision, .. } | Evaluation::AlreadySet { decision } => format!(
            "CM has a record under the id {} ({}), which alone does not prove that it is this card's",
            decision.candidate.card_id, decision.candidate.rule
        ),
        Evaluation::NothingToDo { why }
        | Evaluation::UnknownCard { why }
        | Evaluation::Park { why, .. } => why.clone(),
    }
}
