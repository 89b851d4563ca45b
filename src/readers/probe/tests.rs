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
fn failed_connection_is_retried() {
    let mut answers = [Err(Error::NoService), Ok(())].into_iter();
    let result = probe(LONG).establish_context(|| answers.next().unwrap());
    assert_eq!(result, Ok(()));
}

#[test]
fn repeated_connect_failure_reports_second_connection() {
    let mut tries = 0;
    let result = probe(LONG).establish_context::<()>(|| {
        tries += 1;
        Err(Error::NoService)
    });
    let error = result.unwrap_err();
    assert_eq!(
        (error.reason, tries),
        (NotIdentifiedReason::ReadError, 1 + RECONNECT_PAUSES_MS.len())
    );
    assert!(!error.detail.contains("not running"), "{}", error.detail);
}

#[test]
fn connection_retry_stops_at_deadline() {
    let mut tries = 0;
    let result = probe(Duration::ZERO).establish_context::<()>(|| {
        tries += 1;
        Err(Error::NoService)
    });
    assert_eq!((result.unwrap_err().reason, tries), (NotIdentifiedReason::ReadError, 1));
}

#[test]
fn connection_retry_stops_when_pcscd_is_lost() {
    let probe = probe(LONG);
    let result = probe.establish_context::<()>(|| {
        probe.shared.emit(ReaderEvent::PcscdUnavailable { reason: String::new() });
        Err(Error::NoService)
    });
    assert_eq!(result.unwrap_err().reason, NotIdentifiedReason::Removed);
}
