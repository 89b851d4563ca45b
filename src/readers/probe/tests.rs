//! What a probe does before it has a connection; the rest needs a pcscd.

use super::*;
use crate::domain::{InsertedCard, ProbeSettings};

const LONG: Duration = Duration::from_mins(1);

/// A probe of a card that the monitor sees.
fn probe(deadline: Duration) -> Probe {
    let (reader, insertion): (ReaderName, _) = ("Reader".into(), InsertionId::ZERO);
    let atr: Atr = "3b00".parse().unwrap();
    let board = CurrentInsertions::default();
    board.apply(&ReaderEvent::CardInserted(InsertedCard {
        reader: reader.clone(),
        insertion,
        atr: atr.clone(),
        event_count: 1,
        at_start: false,
    }));
    let deadline = Instant::now() + deadline;
    let plan = ProbeSettings::default().plan(&atr);
    let (errors, trail) = (ErrorCounters::default(), ApduLog::default());
    let turn = ProbePermit::default();
    let (event_count, only_free) = (1, false);
    Probe {
        reader,
        insertion,
        atr,
        event_count,
        plan,
        deadline,
        insertions: board,
        errors,
        apdu_log: trail,
        permit: turn,
        only_free,
    }
}

#[test]
fn a_connection_that_fails_once_is_tried_again() {
    let mut answers = [Err(Error::NoService), Ok(())].into_iter();
    let reached =
        probe(LONG).establish_context(&CancelToken::default(), || answers.next().unwrap());
    assert_eq!(reached, Ok(()));
}

#[test]
fn a_connection_that_keeps_failing_ends_the_probe_without_blaming_pcscd() {
    let mut tries = 0;
    let reached = probe(LONG).establish_context::<()>(&CancelToken::default(), || {
        tries += 1;
        Err(Error::NoService)
    });
    let why = reached.unwrap_err();
    assert_eq!((why.reason, tries), (NotIdentifiedReason::ReadError, 1 + SERVICE_PAUSES.len()));
    assert!(!why.detail.contains("not running"), "{}", why.detail);
}

#[test]
fn no_connection_is_waited_for_beyond_the_deadline() {
    let mut tries = 0;
    let reached = probe(Duration::ZERO).establish_context::<()>(&CancelToken::default(), || {
        tries += 1;
        Err(Error::NoService)
    });
    assert_eq!((reached.unwrap_err().reason, tries), (NotIdentifiedReason::ReadError, 1));
}

#[test]
fn no_connection_is_tried_for_once_the_monitor_has_lost_its_own() {
    let probe = probe(LONG);
    let reached = probe.establish_context::<()>(&CancelToken::default(), || {
        probe.insertions.apply(&ReaderEvent::PcscdUnavailable { reason: String::new() });
        Err(Error::NoService)
    });
    assert_eq!(reached.unwrap_err().reason, NotIdentifiedReason::Removed);
}
