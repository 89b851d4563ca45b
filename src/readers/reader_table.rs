//! What changed between two looks at the readers: a function of plain data, ignorant of PC/SC.
//!
//! One rule decides: a stay goes on only while occupant and event count are both what they were.
//! Whatever else happened, the stay that was there ended, and another began if there is a card.

use std::collections::BTreeMap;

use tracing::debug;

use crate::domain::{Atr, InsertedCard, InsertionId, ReaderEvent, ReaderName, Removal};

/// What a reader looks like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReaderSnapshot {
    /// The reader.
    pub(super) reader: ReaderName,
    /// What is in it.
    pub(super) occupant: CardPresence,
    /// pcscd's count of insertions and removals, modulo 65536. It stays 0 for a card that was in
    /// the reader before pcscd looked.
    pub(super) event_count: u32,
}

/// What is in a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CardPresence {
    /// Nothing.
    Empty,
    /// A card that does not answer.
    Mute,
    /// A card with this ATR.
    Present(Atr),
    /// Nobody can tell: the driver reports an error for the reader.
    Unknown,
}

/// Every reader as it was last looked at.
#[derive(Debug)]
pub(super) struct ReaderTable {
    readers: BTreeMap<ReaderName, KnownReader>,
    last_insertion: InsertionId,
}

/// One reader as it was last looked at.
#[derive(Debug)]
struct KnownReader {
    occupant: CardPresence,
    event_count: u32,
    /// The stay of the mute or answering card that is in it.
    insertion: Option<InsertionId>,
    /// Whether the reader may have been pulled and put back since, which no look shows.
    is_doubtful: bool,
}

impl ReaderTable {
    /// No reader, and no insertion yet.
    pub(super) const fn new() -> Self {
        Self { readers: BTreeMap::new(), last_insertion: InsertionId::ZERO }
    }

    /// Forgets every reader; insertions go on being numbered from where they are.
    pub(super) fn clear(&mut self) {
        self.readers.clear();
    }

    /// Whether something can happen that pcscd will not ring for: it compares no event count that
    /// is 0, and a driver in trouble promises nothing. Mute cards are watched by others.
    pub(super) fn needs_polling(&self) -> bool {
        self.readers.values().any(|known| match known.occupant {
            CardPresence::Unknown => true,
            CardPresence::Present(_) => known.event_count == 0,
            CardPresence::Empty | CardPresence::Mute => false,
        })
    }

    /// How many readers came or went, by this list.
    pub(super) fn moved(&self, there: &[ReaderName]) -> usize {
        let came = there.iter().filter(|reader| !self.readers.contains_key(*reader)).count();
        let went = self.readers.keys().filter(|reader| !there.contains(reader)).count();
        came + went
    }

    /// Some reader was pulled and put back. Its count began at 0 again, so that cards at another count
    /// are not in doubt.
    pub(super) fn doubt(&mut self) {
        for known in self.readers.values_mut() {
            known.is_doubtful |= known.event_count == 0 && known.insertion.is_some();
        }
    }

    /// Takes in the readers that are there and a look at some of them, and tells what changed.
    ///
    /// A reader that is new has to be among the looks.
    pub(super) fn update(
        &mut self,
        there: &[ReaderName],
        looks: Vec<ReaderSnapshot>,
    ) -> Vec<ReaderEvent> {
        let mut changes = Vec::new();
        self.drop_absent(there, &mut changes);
        for look in looks {
            match self.readers.remove(&look.reader) {
                None => self.attach(look, &mut changes),
                Some(known) => self.compare(&known, look, &mut changes),
            }
        }
        changes
    }

    fn drop_absent(&mut self, there: &[ReaderName], changes: &mut Vec<ReaderEvent>) {
        self.readers.retain(|reader, known| {
            let stays = there.contains(reader);
            if !stays {
                changes.extend(known.end(reader, Removal::Inferred));
                changes.push(ReaderEvent::ReaderDetached { reader: reader.clone() });
            }
            stays
        });
    }

    fn attach(&mut self, look: ReaderSnapshot, changes: &mut Vec<ReaderEvent>) {
        // Only who is connected to pcscd knows which one it is.
        changes.push(ReaderEvent::ReaderAttached { reader: look.reader.clone(), instance: None });
        self.begin(look, true, changes);
    }

    fn compare(
        &mut self,
        known: &KnownReader,
        look: ReaderSnapshot,
        changes: &mut Vec<ReaderEvent>,
    ) {
        let events = look.event_count.wrapping_sub(known.event_count) & 0xFFFF;
        let same = known.occupant == look.occupant && !known.is_doubtful;
        if same && (events == 0 || known.insertion.is_none()) {
            if events > 1 && known.occupant == CardPresence::Empty {
                debug!(reader = %look.reader, events, "Card inserted and removed between two polls");
            }
            let ReaderSnapshot { reader, occupant, event_count } = look;
            self.readers.insert(
                reader,
                KnownReader {
                    insertion: known.insertion,
                    ..KnownReader::new(occupant, event_count)
                },
            );
        } else {
            changes.extend(known.end(&look.reader, removal_kind(&look, events)));
            self.begin(look, known.is_doubtful, changes);
        }
    }

    /// Begins whatever there is to begin in a reader that nothing is known of any more.
    fn begin(&mut self, look: ReaderSnapshot, at_start: bool, changes: &mut Vec<ReaderEvent>) {
        let ReaderSnapshot { reader, occupant, event_count } = look;
        let stay = match &occupant {
            CardPresence::Empty | CardPresence::Unknown => None,
            CardPresence::Mute => {
                let insertion = self.number();
                changes.push(ReaderEvent::CardMute { reader: reader.clone(), insertion });
                Some(insertion)
            }
            CardPresence::Present(atr) => {
                let (insertion, atr) = (self.number(), atr.clone());
                let reader = reader.clone();
                let inserted = ReaderEvent::CardInserted(InsertedCard {
                    reader,
                    insertion,
                    atr,
                    event_count,
                    at_start,
                });
                changes.push(inserted);
                Some(insertion)
            }
        };
        self.readers.insert(
            reader,
            KnownReader { insertion: stay, ..KnownReader::new(occupant, event_count) },
        );
    }

    const fn number(&mut self) -> InsertionId {
        self.last_insertion = self.last_insertion.next();
        self.last_insertion
    }
}

impl KnownReader {
    const fn new(occupant: CardPresence, event_count: u32) -> Self {
        Self { occupant, event_count, insertion: None, is_doubtful: false }
    }

    /// The end of the stay, if there is one.
    fn end(&self, reader: &ReaderName, how: Removal) -> Option<ReaderEvent> {
        self.insertion.map(|insertion| ReaderEvent::CardRemoved {
            reader: reader.clone(),
            insertion,
            removal: how,
        })
    }
}

/// How the card left that was there before this look, with so many events in between. pcscd
/// counts each insertion and removal: without one, the card is still where it was and only answers
/// otherwise, or not any more.
/// A count of 0 began anew with the card in the reader.
const fn removal_kind(look: &ReaderSnapshot, events: u32) -> Removal {
    let counted = events > 0 && look.event_count > 0;
    match look.occupant {
        CardPresence::Empty => Removal::Observed,
        CardPresence::Mute | CardPresence::Present(_) if counted => Removal::Observed,
        CardPresence::Mute | CardPresence::Present(_) | CardPresence::Unknown => Removal::Inferred,
    }
}

#[cfg(test)]
mod tests;
