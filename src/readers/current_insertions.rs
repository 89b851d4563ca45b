//! Which stay is in which reader, as the monitor saw it last: what a probe is held against, so that
//! a card that came in meanwhile is never taken for the one that was asked about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{InsertedCard, InsertionId, ReaderEvent, ReaderName};

/// The table that the monitor writes and the probes read: readers, each with the card in it that
/// answered. Clones are the same table.
#[derive(Debug, Clone, Default)]
pub(super) struct CurrentInsertions(Arc<Mutex<BTreeMap<ReaderName, ReaderEntry>>>);

/// What is in a reader, and whether its release by others is waited for.
#[derive(Debug, Default)]
struct ReaderEntry {
    present: Option<CurrentCard>,
    release: ReleaseWatch,
}

/// Whether it is waited for that other programs let go of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ReleaseWatch {
    #[default]
    Unwatched,
    Requested,
    /// The monitor's wait ends when it happens.
    Watched,
}

/// A card that answered, and pcscd's event count as of then.
#[derive(Debug, Clone, Copy)]
struct CurrentCard {
    insertion: InsertionId,
    event_count: u32,
}

impl CurrentInsertions {
    /// Follows an observation that is about to be told.
    pub(super) fn apply(&self, observation: &ReaderEvent) {
        match observation {
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, event_count, .. }) => {
                let present = CurrentCard { insertion: *insertion, event_count: *event_count };
                let slot = ReaderEntry { present: Some(present), ..ReaderEntry::default() };
                self.table().insert(reader.clone(), slot);
            }
            ReaderEvent::ReaderAttached { reader, .. }
            | ReaderEvent::CardRemoved { reader, .. } => {
                self.table().insert(reader.clone(), ReaderEntry::default());
            }
            ReaderEvent::ReaderDetached { reader } => {
                self.table().remove(reader);
            }
            ReaderEvent::PcscdUnavailable { .. } => self.table().clear(),
            ReaderEvent::PcscdConnected
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::CardMute { .. }
            | ReaderEvent::InitialScanDone
            | ReaderEvent::CardReleased { .. }
            | ReaderEvent::Identified { .. }
            | ReaderEvent::ProbeFinished { .. } => {}
        }
    }

    /// The event count with which an insertion began, if it is still the reader's.
    pub(super) fn event_count(&self, reader: &ReaderName, insertion: InsertionId) -> Option<u32> {
        let present = self.table().get(reader)?.present?;
        (present.insertion == insertion).then_some(present.event_count)
    }

    /// Whether the reader is there.
    pub(super) fn contains(&self, reader: &ReaderName) -> bool {
        self.table().contains_key(reader)
    }

    /// Has the monitor tell when no other program uses this reader any more.
    pub(super) fn await_release(&self, reader: &ReaderName) {
        if let Some(slot) = self.table().get_mut(reader) {
            slot.release = ReleaseWatch::Requested;
        }
    }

    /// Whether the monitor watches for that, or has told it.
    pub(super) fn is_release_watched(&self, reader: &ReaderName) -> bool {
        self.table().get(reader).is_none_or(|slot| slot.release != ReleaseWatch::Requested)
    }

    /// The monitor's look at a reader: whether its release is to be watched for, and whether it is to be
    /// told now.
    pub(super) fn set_in_use(&self, reader: &ReaderName, in_use: bool) -> (bool, bool) {
        let mut table = self.table();
        let Some(slot) =
            table.get_mut(reader).filter(|slot| slot.release != ReleaseWatch::Unwatched)
        else {
            return (false, false);
        };
        slot.release = if in_use { ReleaseWatch::Watched } else { ReleaseWatch::Unwatched };
        (in_use, !in_use)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ReaderName, ReaderEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(reader: &str, insertion: InsertionId, event_count: u32) -> ReaderEvent {
        ReaderEvent::CardInserted(InsertedCard {
            reader: reader.into(),
            insertion,
            atr: "3b00".parse().unwrap(),
            event_count,
            at_start: false,
        })
    }

    #[test]
    fn only_the_insertion_that_is_there_has_a_count() {
        let board = CurrentInsertions::default();
        let (first, second) = (InsertionId::ZERO, InsertionId::ZERO.next());
        board.apply(&inserted("A", first, 7));
        assert_eq!(board.event_count(&"A".into(), first), Some(7));
        assert_eq!(board.event_count(&"A".into(), second), None);
        assert_eq!(board.event_count(&"B".into(), first), None);
    }

    #[test]
    fn removal_detachment_and_the_end_of_the_service_end_every_stay() {
        let first = InsertionId::ZERO;
        let endings = [
            ReaderEvent::CardRemoved {
                reader: "A".into(),
                insertion: first,
                removal: crate::domain::Removal::Observed,
            },
            ReaderEvent::ReaderDetached { reader: "A".into() },
            ReaderEvent::PcscdUnavailable { reason: String::new() },
        ];
        for ending in endings {
            let board = CurrentInsertions::default();
            board.apply(&inserted("A", first, 1));
            board.apply(&ending);
            assert_eq!(board.event_count(&"A".into(), first), None, "{ending:?}");
        }
    }
}
