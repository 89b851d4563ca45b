//! From an identity to an entry on disk.
//!
//! A card that the disk does not take is kept in memory and offered again, so that a full disk
//! that gets room again loses nothing; the number kept so is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Effect, Engine, NewEntry, Notice, Now, OutboxFailure};
use crate::domain::{
    AuditLine, CardEvent, CardIdentity, EntryId, InsertionId, PcscdInstance, ReaderName, Trigger,
};

/// Identified cards that the disk has not taken yet. More than a day's work of a desk is not
/// kept in memory: what does not fit is told as lost, loudly.
const MAX_PENDING: usize = 256;

/// A stay, by its beginning or by its end.
pub(super) type CardEventKey = (InsertionId, Trigger);

/// Identified cards on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct AppendQueue {
    pending: BTreeMap<CardEventKey, PendingAppend>,
    last_error: Option<String>,
}

#[derive(Debug)]
struct PendingAppend {
    draft: CardEvent,
    /// What the reader was watched through when the card was read.
    instance: Option<PcscdInstance>,
    /// The moment at which it came or went, on the clock that never jumps.
    seen_at: Instant,
    /// Whether the card is out of the reader: its stay is over before it is on disk.
    card_removed: bool,
    state: AppendState,
    failures: u32,
    /// The entry of the same stay that it takes the place of, since the card is known in full.
    replaces_partial: Option<EntryId>,
    /// What is known of the card in full, since the disk was offered what was known in part.
    whole: Option<CardIdentity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AppendState {
    /// To be offered to the disk from this moment on.
    Due(Instant),
    /// Offered; no answer yet.
    InFlight,
}

impl AppendQueue {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due_appends().map(|(_, at)| at).min()
    }

    /// How many cards are on their way to the disk.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.clone()
    }

    /// What is to be offered to the disk, and when: of each card the oldest, and not while that
    /// is being offered. One card's entries never overtake each other.
    fn due_appends(&self) -> impl Iterator<Item = (CardEventKey, Instant)> {
        let mut cards = BTreeSet::new();
        self.pending.iter().filter_map(move |(of, pending)| {
            let oldest = cards.insert(pending.draft.card_key());
            match pending.state {
                AppendState::Due(at) if oldest => Some((*of, at)),
                AppendState::Due(_) | AppendState::InFlight => None,
            }
        })
    }

    fn next_due(&self, now: Instant) -> Option<CardEventKey> {
        self.due_appends().find(|(_, at)| *at <= now).map(|(of, _)| of)
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = &ReaderName> {
        self.pending.values().map(|pending| &pending.draft.reader)
    }

    /// It is known in full who the card of an insertion is that is on its way to the disk.
    pub(super) fn complete(&mut self, insertion: InsertionId, whole: &CardIdentity) {
        let Some(pending) = self.pending.get_mut(&(insertion, Trigger::Inserted)) else { return };
        match pending.state {
            AppendState::Due(_) => pending.draft.identity = whole.clone(),
            AppendState::InFlight => pending.whole = Some(whole.clone()),
        }
    }

    /// Whatever card is on its way to the disk from this reader is not in it any more. Tells
    /// whether the disk is being offered one just now, and its stay with it.
    pub(super) fn mark_removed(&mut self, reader: &ReaderName) -> bool {
        let mut offered = false;
        for pending in self.pending.values_mut() {
            if pending.draft.reader == *reader && !pending.card_removed {
                pending.card_removed = true;
                offered |= pending.state == AppendState::InFlight;
            }
        }
        offered
    }
}

impl Engine {
    pub(super) fn enqueue_append(
        &mut self,
        insertion: InsertionId,
        (draft, instance): (CardEvent, Option<PcscdInstance>),
        seen: Instant,
        now: Now,
    ) {
        if self.append_queue.pending.len() >= MAX_PENDING {
            self.report(Notice::CardDropped(Box::new(draft)));
            return;
        }
        let (state, trigger) = (AppendState::Due(now.mono), draft.trigger);
        let left = trigger == Trigger::Removed;
        let pending = PendingAppend {
            draft,
            instance,
            seen_at: seen,
            card_removed: left,
            state,
            failures: 0,
            replaces_partial: None,
            whole: None,
        };
        self.append_queue.pending.insert((insertion, trigger), pending);
    }

    /// Puts an entry with all ids in the place of one that has a part of them, unless CM was asked for
    /// something by that one.
    pub(super) fn renew(
        &mut self,
        insertion: InsertionId,
        entry: EntryId,
        whole: &CardIdentity,
        now: Now,
    ) {
        let Some((draft, seen)) = self.queue.to_renew(entry, now) else { return };
        let draft = CardEvent { identity: whole.clone(), ..draft };
        let instance = self.tracker.instance_of(&draft.reader);
        self.enqueue_append(insertion, (draft, instance), seen, now);
        if let Some(pending) = self.append_queue.pending.get_mut(&(insertion, Trigger::Inserted)) {
            pending.replaces_partial = Some(entry);
        }
    }

    pub(super) fn start_appends(&mut self, now: Now) {
        while let Some(of) = self.append_queue.next_due(now.mono) {
            let Some(pending) = self.append_queue.pending.get_mut(&of) else { return };
            pending.state = AppendState::InFlight;
            let (draft, instance) = (pending.draft.clone(), pending.instance.clone());
            let (insertion, trigger) = of;
            // The disk begins a stay with each insertion, though this one is over already.
            let over = pending.card_removed && trigger == Trigger::Inserted;
            let over = over.then(|| Effect::ClearLastSeen { reader: draft.reader.clone() });
            let renews = pending.replaces_partial;
            let (stage, supersedes) = self.queue.supersede(&draft, (insertion, renews), now);
            let entry = NewEntry { card_event: draft, stage, instance, supersedes };
            self.effects.push_back(Effect::AppendEntry { insertion, entry });
            self.effects.extend(over);
        }
    }

    pub(super) fn appended(
        &mut self,
        of: CardEventKey,
        result: Result<(EntryId, Vec<AuditLine>), OutboxFailure>,
        now: Now,
    ) {
        match result {
            Ok((entry, lines)) => {
                let Some(pending) = self.append_queue.pending.remove(&of) else { return };
                let (insertion, trigger) = of;
                for line in lines {
                    self.publish(line);
                }
                self.on_outbox_recovered();
                if !pending.card_removed {
                    self.tracker.on_entry_appended(
                        insertion,
                        (&pending.draft, pending.instance),
                        entry,
                    );
                }
                self.queue.superseded(insertion, entry, (pending.draft, pending.seen_at), now);
                if let Some(whole) = pending.whole {
                    self.renew(insertion, entry, &whole, now);
                }
                if trigger == Trigger::Inserted {
                    self.breaker.expedite_trial(now);
                }
            }
            Err(failure) => self.append_failed(of, &failure, now),
        }
    }

    fn append_failed(&mut self, of: CardEventKey, failure: &OutboxFailure, now: Now) {
        if of.1 == Trigger::Inserted {
            self.queue.not_superseded(of.0);
        }
        if let Some(pending) = self.append_queue.pending.get_mut(&of) {
            let delay = self.policy.retry.delay(pending.failures, &mut self.random);
            pending.failures += 1;
            pending.state = AppendState::Due(now.mono + delay);
        }
        self.on_outbox_error(failure);
    }

    pub(super) fn on_outbox_error(&mut self, failure: &OutboxFailure) {
        let detail = failure.detail();
        if self.append_queue.last_error.as_deref() != Some(detail) {
            self.append_queue.last_error = Some(detail.to_owned());
            self.report(Notice::OutboxError(detail.to_owned()));
        }
    }

    pub(super) fn on_outbox_recovered(&mut self) {
        if self.append_queue.last_error.take().is_some() {
            self.report(Notice::OutboxRecovered);
        }
    }
}
