//! What changed between two looks at the readers: a function of plain data, ignorant of PC/SC.
//!
//! One rule decides: a stay goes on only while occupant and event count are both what they were.
//! Whatever else happened, the stay that was there ended, and another began if there is a card.

use std::collections::BTreeMap;

use tracing::debug;

use crate::domain::{Atr, InsertionId, ReaderName, Removal};

use super::Observation;

/// What a reader looks like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// The reader.
    pub(super) reader: ReaderName,
    /// What is in it.
    pub(super) occupant: Occupant,
    /// pcscd's count of insertions and removals, modulo 65536. It stays 0 for a card that was in
    /// the reader before pcscd looked.
    pub(super) event_count: u32,
}

/// What is in a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Occupant {
    /// Nothing.
    Nothing,
    /// A card that does not answer.
    Mute,
    /// A card with this ATR.
    Card(Atr),
    /// Nobody can tell: the driver reports an error for the reader.
    Unknown,
}

/// Every reader as it was last looked at.
#[derive(Debug)]
pub(super) struct Table {
    readers: BTreeMap<ReaderName, Known>,
    newest: InsertionId,
}

/// One reader as it was last looked at.
#[derive(Debug)]
struct Known {
    occupant: Occupant,
    event_count: u32,
    /// The stay of the mute or answering card that is in it.
    stay: Option<InsertionId>,
    /// Whether the reader may have been pulled and put back since, which no look shows.
    is_doubtful: bool,
}

impl Table {
    /// No reader, and no insertion yet.
    pub(super) const fn new() -> Self {
        Self { readers: BTreeMap::new(), newest: InsertionId::ZERO }
    }

    /// Forgets every reader; insertions go on being numbered from where they are.
    pub(super) fn clear(&mut self) {
        self.readers.clear();
    }

    /// Whether something can happen that pcscd will not ring for: it compares no event count that
    /// is 0, and a driver in trouble promises nothing. Mute cards are watched by others.
    pub(super) fn has_blind_spot(&self) -> bool {
        self.readers.values().any(|known| match known.occupant {
            Occupant::Unknown => true,
            Occupant::Card(_) => known.event_count == 0,
            Occupant::Nothing | Occupant::Mute => false,
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
            known.is_doubtful |= known.event_count == 0 && known.stay.is_some();
        }
    }

    /// Takes in the readers that are there and a look at some of them, and tells what changed.
    ///
    /// A reader that is new has to be among the looks.
    pub(super) fn update(&mut self, there: &[ReaderName], looks: Vec<Look>) -> Vec<Observation> {
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

    fn drop_absent(&mut self, there: &[ReaderName], changes: &mut Vec<Observation>) {
        self.readers.retain(|reader, known| {
            let stays = there.contains(reader);
            if !stays {
                changes.extend(known.end(reader, Removal::Inferred));
                changes.push(Observation::Detached { reader: reader.clone() });
            }
            stays
        });
    }

    fn attach(&mut self, look: Look, changes: &mut Vec<Observation>) {
        // Only who is connected to pcscd knows which one it is.
        changes.push(Observation::Attached { reader: look.reader.clone(), instance: None });
        self.begin(look, true, changes);
    }

    fn compare(&mut self, known: &Known, look: Look, changes: &mut Vec<Observation>) {
        let events = look.event_count.wrapping_sub(known.event_count) & 0xFFFF;
        let same = known.occupant == look.occupant && !known.is_doubtful;
        if same && (events == 0 || known.stay.is_none()) {
            if events > 1 && known.occupant == Occupant::Nothing {
                debug!(reader = %look.reader, events, "A card came and went between two looks");
            }
            let Look { reader, occupant, event_count } = look;
            self.readers
                .insert(reader, Known { stay: known.stay, ..Known::new(occupant, event_count) });
        } else {
            changes.extend(known.end(&look.reader, departure(&look, events)));
            self.begin(look, known.is_doubtful, changes);
        }
    }

    /// Begins whatever there is to begin in a reader that nothing is known of any more.
    fn begin(&mut self, look: Look, at_start: bool, changes: &mut Vec<Observation>) {
        let Look { reader, occupant, event_count } = look;
        let stay = match &occupant {
            Occupant::Nothing | Occupant::Unknown => None,
            Occupant::Mute => {
                let insertion = self.number();
                changes.push(Observation::Mute { reader: reader.clone(), insertion });
                Some(insertion)
            }
            Occupant::Card(atr) => {
                let (insertion, atr) = (self.number(), atr.clone());
                let reader = reader.clone();
                let inserted =
                    Observation::Inserted { reader, insertion, atr, event_count, at_start };
                changes.push(inserted);
                Some(insertion)
            }
        };
        self.readers.insert(reader, Known { stay, ..Known::new(occupant, event_count) });
    }

    const fn number(&mut self) -> InsertionId {
        self.newest = self.newest.next();
        self.newest
    }
}

impl Known {
    const fn new(occupant: Occupant, event_count: u32) -> Self {
        Self { occupant, event_count, stay: None, is_doubtful: false }
    }

    /// The end of the stay, if there is one.
    fn end(&self, reader: &ReaderName, how: Removal) -> Option<Observation> {
        self.stay.map(|insertion| Observation::Removed { reader: reader.clone(), insertion, how })
    }
}

/// How the card left that was there before this look, with so many events in between. pcscd
/// counts each insertion and removal: without one, the card is still where it was and only answers
/// otherwise, or not any more.
/// A count of 0 began anew with the card in the reader.
const fn departure(look: &Look, events: u32) -> Removal {
    let counted = events > 0 && look.event_count > 0;
    match look.occupant {
        Occupant::Nothing => Removal::Observed,
        Occupant::Mute | Occupant::Card(_) if counted => Removal::Observed,
        Occupant::Mute | Occupant::Card(_) | Occupant::Unknown => Removal::Inferred,
    }
}

#[cfg(test)]
mod tests;
