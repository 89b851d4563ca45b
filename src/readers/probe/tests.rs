//! What a probe does before it has a connection; the rest needs a pcscd.

use super::*;
use crate::domain::{InsertedCard, ProbeSettings};

const LONG: Duration = Duration::from_mins(1);

/// A probe of a card that the monitor sees.
fn probe(deadline: Duration) -> Probe {
    let (reader, insertion): (ReaderName, _) = ("Reader".into(), InsertionId::ZERO);
    let atr: Atr = "3b00".parse().unwrap();
    let (shared, _receiver) = SharedState::new();
    shared.emit(ReaderEvent::CardInserted(InsertedCard {
        reader: reader.clone(),
        insertion,
        atr: atr.clone(),
        event_count: 1,
        at_start: false,
    }));
    Probe {
        reader,
        insertion,
        plan: ProbeSettings::default().plan(&atr),
        atr,
        event_count: 1,
        deadline: Instant::now() + deadline,
        only_free: false,
        progress: ProbeProgress::default(),
        shared,
        halt: CancelToken::default(),
    }
}

#[test]
fn a_connection_that_fails_once_is_tried_again() {
    let mut answers = [Err(Error::NoService), Ok(())].into_iter();
    let result = probe(LONG).establish_context(|| answers.next().unwrap());
    assert_eq!(result, Ok(()));
}

#[test]
fn a_connection_that_keeps_failing_ends_the_probe_without_blaming_pcscd() {
    let mut tries = 0;
    let result = probe(LONG).establish_context::<()>(|| {
        tries += 1;
        Err(Error::NoService)
    });
    let error = result.unwrap_err();
    assert_eq!((error.reason, tries), (NotIdentifiedReason::ReadError, 1 + RECONNECT_PAUSES.len()));
    assert!(!error.detail.contains("not running"), "{}", error.detail);
}

#[test]
fn no_connection_is_waited_for_beyond_the_deadline() {
    let mut tries = 0;
    let result = probe(Duration::ZERO).establish_context::<()>(|| {
        tries += 1;
        Err(Error::NoService)
    });
    assert_eq!((result.unwrap_err().reason, tries), (NotIdentifiedReason::ReadError, 1));
}

#[test]
fn no_connection_is_tried_for_once_the_monitor_has_lost_its_own() {
    let probe = probe(LONG);
    let result = probe.establish_context::<()>(|| {
        probe.shared.emit(ReaderEvent::PcscdUnavailable { reason: String::new() });
        Err(Error::NoService)
    });
    assert_eq!(result.unwrap_err().reason, NotIdentifiedReason::Removed);
}
