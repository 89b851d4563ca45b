//! What changed between two polls of the readers: a function of plain data, without PC/SC.
//!
//! An insertion goes on only while occupant and event count are unchanged. Otherwise it ended, and another
//! one began if there is a card.

use std::collections::BTreeMap;

use tracing::debug;

use crate::domain::{Atr, InsertedCard, InsertionId, ReaderEvent, ReaderName, Removal};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReaderSnapshot {
    pub(super) reader: ReaderName,
    pub(super) occupant: CardPresence,
    /// pcscd's count of insertions and removals, modulo 65536. It is 0 for a card that was in the reader
    /// before pcscd polled it.
    pub(super) event_count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CardPresence {
    Empty,
    /// A card that does not answer.
    Mute,
    Present(Atr),
    /// The driver reports an error for the reader.
    Unknown,
}

#[derive(Debug)]
pub(super) struct ReaderTable {
    readers: BTreeMap<ReaderName, KnownReader>,
    last_insertion: InsertionId,
}

#[derive(Debug)]
struct KnownReader {
    snapshot: ReaderSnapshot,
    /// That of the mute or answering card in it.
    insertion: Option<InsertionId>,
    /// Whether the reader may have been disconnected and connected again since, which no poll shows.
    is_doubtful: bool,
}

impl ReaderTable {
    pub(super) const fn new() -> Self {
        Self { readers: BTreeMap::new(), last_insertion: InsertionId::ZERO }
    }

    /// Forgets every reader; the numbers of insertions go on.
    pub(super) fn clear(&mut self) {
        self.readers.clear();
    }

    /// Whether something can happen that ends no wait: pcscd compares no event count of 0, and a driver
    /// with an error promises nothing. Mute cards have their own watchers.
    pub(super) fn needs_polling(&self) -> bool {
        self.readers.values().any(|known| match known.snapshot.occupant {
            CardPresence::Unknown => true,
            CardPresence::Present(_) => known.snapshot.event_count == 0,
            CardPresence::Empty | CardPresence::Mute => false,
        })
    }

    /// How many readers came or went, by this list.
    pub(super) fn moved(&self, present: &[ReaderName]) -> usize {
        let came = present.iter().filter(|reader| !self.readers.contains_key(*reader)).count();
        let went = self.readers.keys().filter(|reader| !present.contains(reader)).count();
        came + went
    }

    /// Some reader was disconnected and connected again. Its count started at 0 again, so cards at
    /// another count are not in doubt.
    pub(super) fn doubt(&mut self) {
        for known in self.readers.values_mut() {
            known.is_doubtful |= known.snapshot.event_count == 0 && known.insertion.is_some();
        }
    }

    /// The changes by the list of readers and the polls of some of them. A new reader must be polled.
    pub(super) fn update(
        &mut self,
        present: &[ReaderName],
        snapshots: Vec<ReaderSnapshot>,
    ) -> Vec<ReaderEvent> {
        let mut events = Vec::new();
        self.readers.retain(|reader, known| {
            let is_present = present.contains(reader);
            if !is_present {
                events.extend(known.removed(Removal::Inferred));
                events.push(ReaderEvent::ReaderDetached { reader: reader.clone() });
            }
            is_present
        });
        for snapshot in snapshots {
            let reader = &snapshot.reader;
            if let Some(known) = self.readers.remove(reader) {
                self.compare(&known, snapshot, &mut events);
            } else {
                // Only the owner of the connection to pcscd knows the instance.
                let (reader, instance) = (reader.clone(), None);
                events.push(ReaderEvent::ReaderAttached { reader, instance });
                self.begin(snapshot, true, &mut events);
            }
        }
        events
    }

    fn compare(
        &mut self,
        known: &KnownReader,
        snapshot: ReaderSnapshot,
        events: &mut Vec<ReaderEvent>,
    ) {
        let counted = snapshot.event_count.wrapping_sub(known.snapshot.event_count) & 0xFFFF;
        let is_same = known.snapshot.occupant == snapshot.occupant && !known.is_doubtful;
        if is_same && (counted == 0 || known.insertion.is_none()) {
            if counted > 1 && snapshot.occupant == CardPresence::Empty {
                let reader = &snapshot.reader;
                debug!(%reader, events = counted, "Card inserted and removed between two polls");
            }
            self.readers.insert(
                snapshot.reader.clone(),
                KnownReader { snapshot, insertion: known.insertion, is_doubtful: false },
            );
        } else {
            events.extend(known.removed(removal_kind(&snapshot, counted)));
            self.begin(snapshot, known.is_doubtful, events);
        }
    }

    fn begin(&mut self, snapshot: ReaderSnapshot, at_start: bool, events: &mut Vec<ReaderEvent>) {
        let ReaderSnapshot { reader, occupant, event_count } = snapshot.clone();
        let mut insertion = None;
        if let CardPresence::Mute | CardPresence::Present(_) = occupant {
            self.last_insertion = self.last_insertion.next();
            insertion = Some(self.last_insertion);
        }
        let key = reader.clone();
        match (occupant, insertion) {
            (CardPresence::Present(atr), Some(insertion)) => {
                let card = InsertedCard { reader, insertion, atr, event_count, at_start };
                events.push(ReaderEvent::CardInserted(card));
            }
            (_, Some(insertion)) => events.push(ReaderEvent::CardMute { reader, insertion }),
            (_, None) => {}
        }
        self.readers.insert(key, KnownReader { snapshot, insertion, is_doubtful: false });
    }
}

impl KnownReader {
    /// The end of the insertion, if there is one.
    fn removed(&self, removal: Removal) -> Option<ReaderEvent> {
        let reader = self.snapshot.reader.clone();
        self.insertion.map(|insertion| ReaderEvent::CardRemoved { reader, insertion, removal })
    }
}

/// How the former card left, with so many events before this poll. pcscd counts each insertion and
/// removal: without one, the card is still there and answers otherwise, or not any more. A count of 0
/// started again with the card in the reader.
const fn removal_kind(snapshot: &ReaderSnapshot, counted: u32) -> Removal {
    match snapshot.occupant {
        CardPresence::Empty => Removal::Observed,
        CardPresence::Mute | CardPresence::Present(_)
            if counted > 0 && snapshot.event_count > 0 =>
        {
            Removal::Observed
        }
        CardPresence::Mute | CardPresence::Present(_) | CardPresence::Unknown => Removal::Inferred,
    }
}

#[cfg(test)]
mod tests;
