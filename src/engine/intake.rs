//! From an identity to an entry on disk.
//!
//! A card that the disk does not take is kept in memory and offered again, so that a full disk
//! that gets room again loses nothing; the number kept so is bounded.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Effect, Engine, NewEntry, Notice, Now, StoreFailure};
use crate::domain::{AuditLine, CardKey, Draft, EntryId, InsertionId};

/// Identified cards that the disk has not taken yet. More than a day's work of a desk is not
/// kept in memory: what does not fit is told as lost, loudly.
const MAX_PENDING: usize = 256;

/// Identified cards on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pending: BTreeMap<InsertionId, Pending>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Pending {
    draft: Draft,
    state: State,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be offered to the disk from this moment on.
    Due(Instant),
    /// Offered; no answer yet.
    Offered,
}

impl Intake {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending
            .values()
            .filter(|pending| !self.is_offered(pending.draft.card()))
            .filter_map(|pending| match pending.state {
                State::Due(at) => Some(at),
                State::Offered => None,
            })
            .min()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    fn is_offered(&self, card: CardKey) -> bool {
        self.pending.values().any(|p| p.state == State::Offered && p.draft.card() == card)
    }

    /// The oldest card that may be offered now; one card's entries never overtake each other.
    fn next_due(&self, now: Instant) -> Option<InsertionId> {
        self.pending
            .iter()
            .find(|(_, pending)| {
                matches!(pending.state, State::Due(at) if at <= now)
                    && !self.is_offered(pending.draft.card())
            })
            .map(|(insertion, _)| *insertion)
    }
}

impl Engine {
    pub(super) fn take_in(&mut self, insertion: InsertionId, draft: Draft, now: Now) {
        if self.intake.pending.len() >= MAX_PENDING {
            self.tell(Notice::Lost(Box::new(draft)));
            return;
        }
        let pending = Pending { draft, state: State::Due(now.mono), failures: 0 };
        self.intake.pending.insert(insertion, pending);
    }

    pub(super) fn start_appends(&mut self, now: Now) {
        while let Some(insertion) = self.intake.next_due(now.mono) {
            let Some(pending) = self.intake.pending.get_mut(&insertion) else { return };
            pending.state = State::Offered;
            let draft = pending.draft.clone();
            let (stage, supersedes) = self.queue.supersede(&draft, insertion, now);
            let entry = NewEntry { draft, stage, supersedes };
            self.effects.push_back(Effect::Append { insertion, entry });
        }
    }

    pub(super) fn appended(
        &mut self,
        insertion: InsertionId,
        result: Result<(EntryId, Vec<AuditLine>), StoreFailure>,
        now: Now,
    ) {
        match result {
            Ok((entry, lines)) => {
                let Some(pending) = self.intake.pending.remove(&insertion) else { return };
                for line in lines {
                    self.publish(line);
                }
                self.store_works();
                self.desk.entered(insertion, &pending.draft, entry);
                let answers = self.link.answers();
                self.queue.superseded(insertion, entry, pending.draft, answers, now);
                self.link.knock_soon(now);
            }
            Err(failure) => self.not_appended(insertion, failure, now),
        }
    }

    fn not_appended(&mut self, insertion: InsertionId, failure: StoreFailure, now: Now) {
        self.queue.not_superseded(insertion);
        if let Some(pending) = self.intake.pending.get_mut(&insertion) {
            let delay = self.policy.retry.delay(pending.failures, &mut self.random);
            pending.failures += 1;
            pending.state = State::Due(now.mono + delay);
        }
        self.store_fails(failure);
    }

    pub(super) fn store_fails(&mut self, failure: StoreFailure) {
        if self.intake.trouble.as_ref() != Some(&failure.0) {
            self.intake.trouble = Some(failure.0.clone());
            self.tell(Notice::StoreTrouble(failure.0));
        }
    }

    pub(super) fn store_works(&mut self) {
        if self.intake.trouble.take().is_some() {
            self.tell(Notice::StoreBack);
        }
    }
}
