//! What the reader threads share. Each counts its own errors, and the probes are checked against what the
//! monitor saw last: a card that was inserted meanwhile is never taken for the one to read.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pcsc::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::debug;

use crate::domain::{InsertedCard, InsertionId, ReaderEvent, ReaderName};

use super::context::PcscContext;

pub(super) struct SharedState {
    events: UnboundedSender<ReaderEvent>,
    readers: Mutex<BTreeMap<ReaderName, ReaderEntry>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// When the monitor last did something: shows a pcscd that hangs.
    heartbeat: Mutex<Instant>,
    /// The monitor's context, by which its wait is cancelled.
    monitor_context: Mutex<Option<Arc<PcscContext>>>,
}

#[derive(Debug, Default)]
struct ReaderEntry {
    /// The card that answered, with pcscd's event count as of then.
    card: Option<(InsertionId, u32)>,
    release: ReleaseWatch,
}

/// Whether other programs' use of a reader is watched for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ReleaseWatch {
    #[default]
    Unwatched,
    Requested,
    /// The monitor's wait ends when it happens.
    Watched,
}

impl SharedState {
    /// The channel is unbounded because the monitor must never wait for the receiver. People and cables
    /// cause a few events a second, and each probe at most three.
    pub(super) fn new() -> (Arc<Self>, UnboundedReceiver<ReaderEvent>) {
        let (events, receiver) = unbounded_channel();
        let state = Self {
            events,
            readers: Mutex::default(),
            errors: Mutex::default(),
            heartbeat: Mutex::new(Instant::now()),
            monitor_context: Mutex::default(),
        };
        (Arc::new(state), receiver)
    }

    /// Sends an event, after its insertion is noted.
    pub(super) fn emit(&self, event: ReaderEvent) {
        self.note(&event);
        if self.events.send(event).is_err() {
            debug!("Reader event receiver closed");
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    fn note(&self, event: &ReaderEvent) {
        let mut readers = lock(&self.readers);
        match event {
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, event_count, .. }) => {
                let card = Some((*insertion, *event_count));
                readers.insert(reader.clone(), ReaderEntry { card, ..ReaderEntry::default() });
            }
            ReaderEvent::ReaderAttached { reader, .. }
            | ReaderEvent::CardRemoved { reader, .. } => {
                readers.insert(reader.clone(), ReaderEntry::default());
            }
            ReaderEvent::ReaderDetached { reader } => drop(readers.remove(reader)),
            ReaderEvent::PcscdUnavailable { .. } => readers.clear(),
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
        let (current, event_count) = lock(&self.readers).get(reader)?.card?;
        (current == insertion).then_some(event_count)
    }

    pub(super) fn has_reader(&self, reader: &ReaderName) -> bool {
        lock(&self.readers).contains_key(reader)
    }

    /// Makes the monitor emit [`ReaderEvent::CardReleased`] when no other program uses the reader.
    pub(super) fn await_release(&self, reader: &ReaderName) {
        if let Some(entry) = lock(&self.readers).get_mut(reader) {
            entry.release = ReleaseWatch::Requested;
        }
    }

    /// Whether the monitor watches for the release, or has emitted it.
    pub(super) fn is_release_watched(&self, reader: &ReaderName) -> bool {
        lock(&self.readers).get(reader).is_none_or(|it| it.release != ReleaseWatch::Requested)
    }

    /// Notes whether a reader is in use. Returns whether its release is to be watched, and whether it
    /// is to be emitted now.
    pub(super) fn set_in_use(&self, reader: &ReaderName, in_use: bool) -> (bool, bool) {
        let mut readers = lock(&self.readers);
        let entry = readers.get_mut(reader).filter(|it| it.release != ReleaseWatch::Unwatched);
        let Some(entry) = entry else { return (false, false) };
        entry.release = if in_use { ReleaseWatch::Watched } else { ReleaseWatch::Unwatched };
        (in_use, !in_use)
    }

    pub(super) fn count(&self, error: Error) -> Error {
        *lock(&self.errors).entry(format!("{error:?}")).or_default() += 1;
        error
    }

    pub(super) fn error_counts(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    pub(super) fn beat(&self) {
        *lock(&self.heartbeat) = Instant::now();
    }

    pub(super) fn since_heartbeat(&self) -> Duration {
        lock(&self.heartbeat).elapsed()
    }

    pub(super) fn set_monitor_context(&self, context: Option<Arc<PcscContext>>) {
        // The former is dropped after the lock: dropping a context calls pcscd.
        let _former = mem::replace(&mut *lock(&self.monitor_context), context);
    }

    /// Cancels the monitor's wait. Hangs when pcscd does. A call just before the wait is lost.
    pub(super) fn cancel_wait(&self) {
        let context = lock(&self.monitor_context).clone();
        if let Some(Err(error)) = context.map(|context| context.cancel()) {
            debug!(error = %error, "SCardCancel failed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn event_count_is_none_for_past_insertions() {
        let (shared, _receiver) = SharedState::new();
        let (first, second) = (InsertionId::ZERO, InsertionId::ZERO.next());
        shared.note(&inserted("A", first, 7));
        assert_eq!(shared.event_count(&"A".into(), first), Some(7));
        assert_eq!(shared.event_count(&"A".into(), second), None);
        assert_eq!(shared.event_count(&"B".into(), first), None);
    }

    #[test]
    fn removal_detachment_and_lost_pcscd_end_insertions() {
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
            let (shared, _receiver) = SharedState::new();
            shared.note(&inserted("A", first, 1));
            shared.note(&ending);
            assert_eq!(shared.event_count(&"A".into(), first), None, "{ending:?}");
        }
    }

    #[test]
    fn errors_of_all_threads_are_counted_by_code() {
        let (errors, _receiver) = SharedState::new();
        let elsewhere = Arc::clone(&errors);
        std::thread::spawn(move || elsewhere.count(Error::NoService)).join().unwrap();
        assert_eq!(errors.count(Error::NoService), Error::NoService);
        errors.count(Error::ResetCard);
        let expected = [("NoService", 2), ("ResetCard", 1)];
        assert_eq!(errors.error_counts(), expected.map(|(code, n)| (code.to_owned(), n)).into());
    }
}
