//! An entry in the queue, and the step that it is in.

use std::time::{Duration, Instant};

use crate::domain::{
    BootMoment, Candidate, CardEvent, Decision, Entry, EntryId, InsertionId, Outcome, Settlement,
    Stage,
};
use crate::engine::interface::{CmCall, Now};

/// An entry that has no outcome on disk yet.
#[derive(Debug)]
pub(super) struct PendingEntry {
    pub(super) card_event: CardEvent,
    /// What has been decided and may have been sent: as on disk, or about to be.
    pub(super) stage: Stage,
    /// CM accepted what was sent last, but did not say what is so now.
    pub(super) accepted_unverified: bool,
    pub(super) step: EntryStep,
    /// The older entry of the card, which has to end first.
    pub(super) blocked_by: Option<EntryId>,
    /// The newer insertion that is about to replace it.
    pub(super) superseded_by: Option<InsertionId>,
    /// The moment of the insertion, on the monotonic clock.
    pub(super) seen: Instant,
    /// Since when it waits: the insertion, or the moment at which an operator requeued it.
    pub(super) since: Instant,
    pub(super) not_before: Instant,
    pub(super) failures: u32,
    pub(super) attempts: u32,
    /// Failures of CM on this entry while others succeeded.
    pub(super) entry_failures: u32,
    /// How many others had succeeded when CM last failed on this entry.
    pub(super) successes_at_failure: u64,
    /// Whether CM answered anything since the entry was last started.
    pub(super) answered: bool,
    /// Whether it goes before those that wait: a new insertion, or one that an operator retries,
    /// until it has started.
    pub(super) is_first: bool,
    pub(super) last_error: Option<String>,
    /// The id under which CM had a record in the last lookup.
    pub(super) known_by: Option<Candidate>,
}

/// An entry that waits for an operator.
#[derive(Debug)]
pub(super) struct ParkedEntry {
    pub(super) entry: Entry,
    /// What is about to take it away, once that is on disk.
    pub(super) takeover: Option<Takeover>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takeover {
    /// A newer insertion of the card.
    Insertion(InsertionId),
    Operator,
}

/// What an entry is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EntryStep {
    Idle,
    Calling(CmCall),
    Saving {
        decision: Decision,
        then: AfterSave,
    },
    /// The outcome is decided and on its way to the disk.
    Settling(Settlement),
}

/// What follows once a decision is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterSave {
    SetStatus,
    /// The status is set already.
    CompleteRequest,
    /// The same, but the request has to be read first.
    ReadRequest,
}

impl AfterSave {
    pub(super) const fn stage(self, decision: Decision) -> Stage {
        match self {
            Self::SetStatus => Stage::Sent(decision),
            Self::CompleteRequest | Self::ReadRequest => Stage::Completing(decision),
        }
    }

    pub(super) const fn call(self, decision: Decision) -> CmCall {
        match self {
            Self::SetStatus => CmCall::SetStatus(decision),
            Self::CompleteRequest => CmCall::CompleteRequest(decision),
            Self::ReadRequest => CmCall::ReadRequest(decision),
        }
    }
}

impl PendingEntry {
    pub(super) fn new(card_event: CardEvent, stage: Stage, seen: Instant, now: Instant) -> Self {
        Self {
            card_event,
            stage,
            accepted_unverified: false,
            step: EntryStep::Idle,
            blocked_by: None,
            superseded_by: None,
            seen,
            since: seen,
            not_before: now,
            failures: 0,
            attempts: 0,
            entry_failures: 0,
            successes_at_failure: 0,
            answered: false,
            is_first: false,
            last_error: None,
            known_by: None,
        }
    }

    /// An entry that is known from the disk only. The wall clock says how old it is; it has waited for
    /// as long as surely passed.
    pub(super) fn from_disk(entry: Entry, moment: Option<&BootMoment>, now: Now) -> Self {
        let (card_event, stage) = (entry.card_event, entry.stage.resumed());
        let age =
            Duration::try_from(now.wall.duration_since(card_event.seen_at)).unwrap_or_default();
        let waited = moment
            .zip(card_event.boot_moment.as_ref())
            .map_or(Duration::ZERO, |(moment, seen)| moment.surely_since(seen));
        let before = |by| now.mono.checked_sub(by).unwrap_or(now.mono);
        Self { since: before(waited), ..Self::new(card_event, stage, before(age), now.mono) }
    }

    pub(super) fn settlement(&self, outcome: Outcome, detail: String, now: Now) -> Settlement {
        Settlement {
            outcome,
            at: now.wall,
            decision: self.stage.sent().cloned(),
            known_by: self.known_by.clone(),
            detail: self.settlement_detail(outcome, detail),
            http_status: None,
            correlation_id: None,
            attempts: self.attempts,
            duration: now.mono.saturating_duration_since(self.seen),
            by: None,
        }
    }

    /// What an operator must know where it ends halfway: the status is set.
    fn settlement_detail(&self, outcome: Outcome, detail: String) -> String {
        let Stage::Completing(decision) = &self.stage else { return detail };
        if outcome.park_reason().is_none() && outcome != Outcome::Discarded {
            return detail;
        }
        let status = &decision.new_status_name;
        let done = if decision.outcome() == Outcome::AlreadySet {
            format!("the record has status {status} already")
        } else {
            format!("the status WAS set to {status}")
        };
        format!("{done}, but the request is not completed: {detail}")
    }

    /// Whether a newer insertion of the card can still replace it: not once the outcome is decided.
    pub(super) const fn can_be_superseded(&self) -> bool {
        !matches!(self.step, EntryStep::Settling(_))
    }

    /// Whether a call to change something in CM is in flight.
    pub(super) const fn is_updating(&self) -> bool {
        matches!(self.step, EntryStep::Calling(CmCall::SetStatus(_) | CmCall::CompleteRequest(_)))
    }
}
