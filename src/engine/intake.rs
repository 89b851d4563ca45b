//! From an identity to an entry on disk.
//!
//! A card that the disk does not take is kept in memory and offered again, so that a full disk
//! that gets room again loses nothing; the number kept so is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Effect, Engine, NewEntry, Notice, Now, StoreFailure};
use crate::domain::{
    AuditLine, CardEvent, CardIdentity, EntryId, InsertionId, PcscdInstance, ReaderName, Trigger,
};

/// Identified cards that the disk has not taken yet. More than a day's work of a desk is not
/// kept in memory: what does not fit is told as lost, loudly.
const MAX_PENDING: usize = 256;

/// A stay, by its beginning or by its end.
pub(super) type Move = (InsertionId, Trigger);

/// Identified cards on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pending: BTreeMap<Move, Pending>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Pending {
    draft: CardEvent,
    /// What the reader was watched through when the card was read.
    instance: Option<PcscdInstance>,
    /// The moment at which it came or went, on the clock that never jumps.
    seen: Instant,
    /// Whether the card is out of the reader: its stay is over before it is on disk.
    left: bool,
    state: State,
    failures: u32,
    /// The entry of the same stay that it takes the place of, since the card is known in full.
    renews: Option<EntryId>,
    /// What is known of the card in full, since the disk was offered what was known in part.
    whole: Option<CardIdentity>,
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
        self.to_offer().map(|(_, at)| at).min()
    }

    /// How many cards are on their way to the disk.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// What is to be offered to the disk, and when: of each card the oldest, and not while that
    /// is being offered. One card's entries never overtake each other.
    fn to_offer(&self) -> impl Iterator<Item = (Move, Instant)> {
        let mut cards = BTreeSet::new();
        self.pending.iter().filter_map(move |(of, pending)| {
            let oldest = cards.insert(pending.draft.card_key());
            match pending.state {
                State::Due(at) if oldest => Some((*of, at)),
                State::Due(_) | State::Offered => None,
            }
        })
    }

    fn next_due(&self, now: Instant) -> Option<Move> {
        self.to_offer().find(|(_, at)| *at <= now).map(|(of, _)| of)
    }

    pub(super) fn readers(&self) -> impl Iterator<Item = &ReaderName> {
        self.pending.values().map(|pending| &pending.draft.reader)
    }

    /// It is known in full who the card of an insertion is that is on its way to the disk.
    pub(super) fn complete(&mut self, insertion: InsertionId, whole: &CardIdentity) {
        let Some(pending) = self.pending.get_mut(&(insertion, Trigger::Inserted)) else { return };
        match pending.state {
            State::Due(_) => pending.draft.identity = whole.clone(),
            State::Offered => pending.whole = Some(whole.clone()),
        }
    }

    /// Whatever card is on its way to the disk from this reader is not in it any more. Tells
    /// whether the disk is being offered one just now, and its stay with it.
    pub(super) fn leave(&mut self, reader: &ReaderName) -> bool {
        let mut offered = false;
        for pending in self.pending.values_mut() {
            if pending.draft.reader == *reader && !pending.left {
                pending.left = true;
                offered |= pending.state == State::Offered;
            }
        }
        offered
    }
}

impl Engine {
    pub(super) fn take_in(
        &mut self,
        insertion: InsertionId,
        (draft, instance): (CardEvent, Option<PcscdInstance>),
        seen: Instant,
        now: Now,
    ) {
        if self.intake.pending.len() >= MAX_PENDING {
            self.tell(Notice::Lost(Box::new(draft)));
            return;
        }
        let (state, trigger) = (State::Due(now.mono), draft.trigger);
        let left = trigger == Trigger::Removed;
        let pending =
            Pending { draft, instance, seen, left, state, failures: 0, renews: None, whole: None };
        self.intake.pending.insert((insertion, trigger), pending);
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
        let instance = self.desk.instance_of(&draft.reader);
        self.take_in(insertion, (draft, instance), seen, now);
        if let Some(pending) = self.intake.pending.get_mut(&(insertion, Trigger::Inserted)) {
            pending.renews = Some(entry);
        }
    }

    pub(super) fn start_appends(&mut self, now: Now) {
        while let Some(of) = self.intake.next_due(now.mono) {
            let Some(pending) = self.intake.pending.get_mut(&of) else { return };
            pending.state = State::Offered;
            let (draft, instance) = (pending.draft.clone(), pending.instance.clone());
            let (insertion, trigger) = of;
            // The disk begins a stay with each insertion, though this one is over already.
            let over = pending.left && trigger == Trigger::Inserted;
            let over = over.then(|| Effect::EndStay { reader: draft.reader.clone() });
            let renews = pending.renews;
            let (stage, supersedes) = self.queue.supersede(&draft, (insertion, renews), now);
            let entry = NewEntry { draft, stage, instance, supersedes };
            self.effects.push_back(Effect::Append { insertion, entry });
            self.effects.extend(over);
        }
    }

    pub(super) fn appended(
        &mut self,
        of: Move,
        result: Result<(EntryId, Vec<AuditLine>), StoreFailure>,
        now: Now,
    ) {
        match result {
            Ok((entry, lines)) => {
                let Some(pending) = self.intake.pending.remove(&of) else { return };
                let (insertion, trigger) = of;
                for line in lines {
                    self.publish(line);
                }
                self.store_works();
                if !pending.left {
                    self.desk.entered(insertion, (&pending.draft, pending.instance), entry);
                }
                self.queue.superseded(insertion, entry, (pending.draft, pending.seen), now);
                if let Some(whole) = pending.whole {
                    self.renew(insertion, entry, &whole, now);
                }
                if trigger == Trigger::Inserted {
                    self.link.knock_soon(now);
                }
            }
            Err(failure) => self.not_appended(of, &failure, now),
        }
    }

    fn not_appended(&mut self, of: Move, failure: &StoreFailure, now: Now) {
        if of.1 == Trigger::Inserted {
            self.queue.not_superseded(of.0);
        }
        if let Some(pending) = self.intake.pending.get_mut(&of) {
            let delay = self.policy.retry.delay(pending.failures, &mut self.random);
            pending.failures += 1;
            pending.state = State::Due(now.mono + delay);
        }
        self.store_fails(failure);
    }

    pub(super) fn store_fails(&mut self, failure: &StoreFailure) {
        let detail = failure.detail();
        if self.intake.trouble.as_deref() != Some(detail) {
            self.intake.trouble = Some(detail.to_owned());
            self.tell(Notice::StoreTrouble(detail.to_owned()));
        }
    }

    pub(super) fn store_works(&mut self) {
        if self.intake.trouble.take().is_some() {
            self.tell(Notice::StoreBack);
        }
    }
}
