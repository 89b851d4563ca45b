//! Which stay is in which reader, as the monitor saw it last: what a probe is held against, so that
//! a card that came in meanwhile is never taken for the one that was asked about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{InsertionId, ReaderName};

use super::Observation;

/// The table that the monitor writes and the probes read: readers, each with the card in it that
/// answered. Clones are the same table.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<ReaderName, Slot>>>);

/// What is in a reader, and whether its release by others is waited for.
#[derive(Debug, Default)]
struct Slot {
    present: Option<Present>,
    release: Release,
}

/// Whether it is waited for that other programs let go of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Release {
    #[default]
    Unasked,
    Asked,
    /// The monitor's wait ends when it happens.
    Watched,
}

/// A card that answered, and pcscd's event count as of then.
#[derive(Debug, Clone, Copy)]
struct Present {
    insertion: InsertionId,
    event_count: u32,
}

impl Board {
    /// Follows an observation that is about to be told.
    pub(super) fn follow(&self, observation: &Observation) {
        match observation {
            Observation::Inserted { reader, insertion, event_count, .. } => {
                let present = Present { insertion: *insertion, event_count: *event_count };
                let slot = Slot { present: Some(present), ..Slot::default() };
                self.table().insert(reader.clone(), slot);
            }
            Observation::Attached { reader, .. } | Observation::Removed { reader, .. } => {
                self.table().insert(reader.clone(), Slot::default());
            }
            Observation::Detached { reader } => {
                self.table().remove(reader);
            }
            Observation::ServiceDown { .. } => self.table().clear(),
            Observation::ServiceUp
            | Observation::Described { .. }
            | Observation::Mute { .. }
            | Observation::Settled
            | Observation::LetGo { .. }
            | Observation::Identified { .. }
            | Observation::Probed { .. } => {}
        }
    }

    /// The event count with which an insertion began, if it is still the reader's.
    pub(super) fn event_count(&self, reader: &ReaderName, insertion: InsertionId) -> Option<u32> {
        let present = self.table().get(reader)?.present?;
        (present.insertion == insertion).then_some(present.event_count)
    }

    /// Whether the reader is there.
    pub(super) fn has(&self, reader: &ReaderName) -> bool {
        self.table().contains_key(reader)
    }

    /// Has the monitor tell when no other program uses this reader any more.
    pub(super) fn await_release(&self, reader: &ReaderName) {
        if let Some(slot) = self.table().get_mut(reader) {
            slot.release = Release::Asked;
        }
    }

    /// Whether the monitor watches for that, or has told it.
    pub(super) fn is_release_watched(&self, reader: &ReaderName) -> bool {
        self.table().get(reader).is_none_or(|slot| slot.release != Release::Asked)
    }

    /// The monitor's look at a reader: whether its release is to be watched for, and whether it is to be
    /// told now.
    pub(super) fn see_use(&self, reader: &ReaderName, in_use: bool) -> (bool, bool) {
        let mut table = self.table();
        let Some(slot) = table.get_mut(reader).filter(|slot| slot.release != Release::Unasked)
        else {
            return (false, false);
        };
        slot.release = if in_use { Release::Watched } else { Release::Unasked };
        (in_use, !in_use)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ReaderName, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(reader: &str, insertion: InsertionId, event_count: u32) -> Observation {
        Observation::Inserted {
            reader: reader.into(),
            insertion,
            atr: "3b00".parse().unwrap(),
            event_count,
            at_start: false,
        }
    }

    #[test]
    fn only_the_insertion_that_is_there_has_a_count() {
        let board = Board::default();
        let (first, second) = (InsertionId::ZERO, InsertionId::ZERO.next());
        board.follow(&inserted("A", first, 7));
        assert_eq!(board.event_count(&"A".into(), first), Some(7));
        assert_eq!(board.event_count(&"A".into(), second), None);
        assert_eq!(board.event_count(&"B".into(), first), None);
    }

    #[test]
    fn removal_detachment_and_the_end_of_the_service_end_every_stay() {
        let first = InsertionId::ZERO;
        let endings = [
            Observation::Removed {
                reader: "A".into(),
                insertion: first,
                how: crate::domain::Removal::Observed,
            },
            Observation::Detached { reader: "A".into() },
            Observation::ServiceDown { reason: String::new() },
        ];
        for ending in endings {
            let board = Board::default();
            board.follow(&inserted("A", first, 1));
            board.follow(&ending);
            assert_eq!(board.event_count(&"A".into(), first), None, "{ending:?}");
        }
    }
}
