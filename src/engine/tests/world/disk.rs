//! An outbox in memory, as strict as the real one: what does not fit its rows is a conflict.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    AuditKind, AuditLine, CardEvent, Entry, EntryId, LastSeenCard, Outcome, ReaderName, Settlement,
    Stage, Trigger,
};
use crate::engine::{
    Effect, Event, NewEntry, OutboxEffect, OutboxEvent, OutboxFailure, RestoredState,
};

/// What the disk can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Verb {
    Append,
    Save,
    Settle,
    Unpark,
}

impl Verb {
    pub(in crate::engine) const ALL: [Self; 4] =
        [Self::Append, Self::Save, Self::Settle, Self::Unpark];
}

/// Survives a crash of the engine.
#[derive(Debug, Default)]
pub(in crate::engine) struct Disk {
    pub(in crate::engine) entries: BTreeMap<EntryId, Entry>,
    pub(in crate::engine) stays: BTreeMap<ReaderName, LastSeenCard>,
    pub(in crate::engine) audit: Vec<AuditLine>,
    /// What is refused at the moment.
    pub(in crate::engine) refuses: BTreeSet<Verb>,
    /// Commands that fit no row: the engine believed something that is not so.
    pub(in crate::engine) conflicts: Vec<String>,
    /// How often each thing was asked for, refused or not.
    pub(in crate::engine) asked: BTreeMap<Verb, usize>,
    /// Parked entries that gave way to a newer one.
    pub(in crate::engine) gave_way: BTreeSet<EntryId>,
    /// Parked entries that a person took up again: those are out of turn.
    taken_up: BTreeSet<EntryId>,
    /// Every entry that was ever on disk.
    pub(in crate::engine) appended: BTreeMap<EntryId, CardEvent>,
    pub(in crate::engine) last: i64,
}

impl Disk {
    pub(in crate::engine) fn restored(&self) -> RestoredState {
        RestoredState {
            entries: self.entries.values().cloned().collect(),
            last_seen: self.stays.values().cloned().collect(),
            latest: self.audit.iter().rev().take(20).cloned().collect(),
            moment: None,
        }
    }

    /// How many cards that were taken out were ever on disk.
    pub(in crate::engine) fn removals(&self) -> usize {
        self.appended.values().filter(|draft| draft.trigger == Trigger::Removed).count()
    }

    /// Whether an older entry of the same card waits, but for one that a person took up again.
    fn older_waits(&self, id: EntryId) -> bool {
        let card = self.appended[&id].card_key();
        self.entries.range(..id).any(|(older, row)| {
            row.card_event.card_key() == card
                && !is_parked(&row.stage)
                && !self.taken_up.contains(older)
        })
    }

    /// Every entry that was ever on disk.
    pub(in crate::engine) fn ever(&self) -> impl Iterator<Item = EntryId> + use<> {
        (1..=self.last).map(EntryId::new)
    }

    /// What the audit trail says of an entry, in order: outcomes and acts.
    pub(in crate::engine) fn trail(&self, entry: EntryId) -> Vec<String> {
        let of_entry = self.audit.iter().filter(|line| line.entry == Some(entry));
        of_entry
            .map(|line| match &line.reason {
                Some(reason) => format!("{}: {reason}", line.outcome),
                None => line.outcome.clone(),
            })
            .collect()
    }

    /// Does what an effect asks for; `None` if that is not the disk's work.
    pub(in crate::engine) fn perform(&mut self, effect: &Effect) -> Option<Vec<Event>> {
        let Effect::Outbox(effect) = effect else { return None };
        let answer = match effect {
            OutboxEffect::AppendEntry { insertion, entry } => {
                let result = self.allow(Verb::Append).map(|()| self.append(entry));
                let trigger = entry.card_event.trigger;
                OutboxEvent::EntryAppended { insertion: *insertion, trigger, result }
            }
            OutboxEffect::SaveStage { entry, stage } => {
                let result = self.allow(Verb::Save).and_then(|()| self.save(*entry, stage));
                OutboxEvent::StageSaved { entry: *entry, result }
            }
            OutboxEffect::SettleEntry { entry, end } => {
                let result = self.allow(Verb::Settle).and_then(|()| self.settle(*entry, end));
                OutboxEvent::EntrySettled { entry: *entry, result }
            }
            OutboxEffect::UnparkEntry { entry, act } => {
                let result = self.allow(Verb::Unpark).and_then(|()| self.unpark(*entry, act));
                OutboxEvent::EntryUnparked { entry: *entry, result }
            }
            OutboxEffect::AppendAudit(line) => {
                self.audit.push(line.clone());
                OutboxEvent::AuditAppended(line.clone())
            }
            OutboxEffect::ClearLastSeen { reader } => {
                self.stays.remove(reader);
                return Some(Vec::new());
            }
        };
        Some(vec![Event::Outbox(answer)])
    }

    fn allow(&mut self, verb: Verb) -> Result<(), OutboxFailure> {
        *self.asked.entry(verb).or_default() += 1;
        if self.refuses.contains(&verb) {
            return Err(OutboxFailure::Retryable("the disk is full".to_owned()));
        }
        Ok(())
    }

    fn conflict<T>(&mut self, what: String) -> Result<T, OutboxFailure> {
        self.conflicts.push(what.clone());
        Err(OutboxFailure::EntryLost(what))
    }

    fn append(&mut self, new: &NewEntry) -> (EntryId, Vec<AuditLine>) {
        let mut lines = Vec::new();
        for (id, end) in &new.supersedes {
            let parked = self.entries.get(id).map(|row| is_parked(&row.stage));
            match (parked, end) {
                (Some(true), _) => {
                    self.entries.remove(id);
                    self.gave_way.insert(*id);
                }
                (Some(false), Some(end)) => {
                    assert_eq!(end.outcome, Outcome::Superseded);
                    lines.extend(self.settle(*id, end));
                }
                (Some(false), None) | (None, _) => {
                    self.conflicts.push(format!("append supersedes {id}, {end:?}"));
                }
            }
        }
        self.last += 1;
        let id = EntryId::new(self.last);
        let draft = new.card_event.clone();
        if draft.trigger == Trigger::Inserted {
            let stay = LastSeenCard {
                reader: draft.reader.clone(),
                event_count: draft.event_count,
                atr: draft.atr.clone(),
                card: draft.card_key(),
                entry: id,
                instance: new.instance.clone(),
            };
            self.stays.insert(draft.reader.clone(), stay);
        }
        self.appended.insert(id, draft.clone());
        self.entries.insert(id, Entry { id, card_event: draft, stage: new.stage.clone() });
        (id, lines)
    }

    fn save(&mut self, id: EntryId, stage: &Stage) -> Result<(), OutboxFailure> {
        match self.entries.get_mut(&id) {
            Some(row) if !is_parked(&row.stage) => {
                row.stage = stage.clone();
                Ok(())
            }
            row => {
                let what = format!("save of {id}, which is {row:?}");
                self.conflict(what)
            }
        }
    }

    fn settle(&mut self, id: EntryId, end: &Settlement) -> Result<AuditLine, OutboxFailure> {
        let in_turn = matches!(end.outcome, Outcome::Superseded | Outcome::Discarded)
            || !self.older_waits(id);
        assert!(in_turn, "{id} ends before an older entry of its card: {end:?}");
        let Some(row) = self.entries.get_mut(&id) else {
            return self.conflict(format!("settle of {id}, which is gone: {end:?}"));
        };
        if is_parked(&row.stage) && end.outcome != Outcome::Discarded {
            return self.conflict(format!("settle of {id}, which is parked: {end:?}"));
        }
        let line = AuditLine::settled("desk-3", id, &row.card_event, end);
        if let Some(stage) = Stage::parked(end) {
            row.stage = stage;
        } else {
            self.entries.remove(&id);
        }
        self.audit.push(line.clone());
        Ok(line)
    }

    fn unpark(&mut self, id: EntryId, act: &AuditLine) -> Result<AuditLine, OutboxFailure> {
        match self.entries.get_mut(&id) {
            Some(row) if is_parked(&row.stage) => {
                row.stage = row.stage.resumed();
                self.taken_up.insert(id);
                self.audit.push(act.clone());
                Ok(act.clone())
            }
            row => {
                let what = format!("unpark of {id}, which is {row:?}");
                self.conflict(what)
            }
        }
    }

    /// Every entry has one outcome at most, but for parked ones that a person took up again, and
    /// is on disk until it has one.
    pub(in crate::engine) fn check(&self) {
        assert!(self.conflicts.is_empty(), "{:#?}", self.conflicts);
        let mut state = BTreeMap::new();
        for line in self.audit.iter().filter(|line| line.entry.is_some()) {
            let id = line.entry.unwrap();
            let was = state.get(&id).copied().unwrap_or(Life::Waiting);
            let is = match (was, line.kind, line.outcome.as_str()) {
                (Life::Waiting, AuditKind::Outcome, "parked") => Life::Parked,
                (Life::Waiting, AuditKind::Outcome, _)
                | (Life::Parked, AuditKind::Outcome, "discarded") => Life::Over,
                (Life::Parked, AuditKind::OperatorAction, "retried") => Life::Waiting,
                other => panic!("entry {id}: {other:?} in {:?}", self.trail(id)),
            };
            state.insert(id, is);
        }
        for id in self.ever() {
            let on_disk = self.entries.get(&id).map(|row| is_parked(&row.stage));
            match state.get(&id).copied().unwrap_or(Life::Waiting) {
                Life::Waiting => assert_eq!(on_disk, Some(false), "{id}"),
                Life::Parked if self.gave_way.contains(&id) => assert_eq!(on_disk, None, "{id}"),
                Life::Parked => assert_eq!(on_disk, Some(true), "{id}"),
                Life::Over => assert_eq!(on_disk, None, "{id}"),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Life {
    Waiting,
    Parked,
    Over,
}

pub(in crate::engine) const fn is_parked(stage: &Stage) -> bool {
    matches!(stage, Stage::Parked { .. })
}
