//! Threads that hang, without a pcscd.

use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::domain::{InsertedCard, ProbeSettings};

/// Readers whose monitor has ended, and how to release the threads that hang.
fn readers() -> (Readers, UnboundedReceiver<ReaderEvent>) {
    let (shared, receiver) = SharedState::new();
    let monitor = ReaderThread::spawn("monitor", |_| {}).unwrap();
    let options = ReaderOptions {
        probing: ProbeSettings::default(),
        probe_deadline: Duration::from_secs(10),
    };
    (Readers::new(options, shared, monitor), receiver)
}

/// A thread that hangs until the sender is dropped.
fn hanging() -> (ReaderThread, Sender<()>) {
    let (release, held) = channel::<()>();
    let work = move |_| {
        held.recv().unwrap_err();
    };
    (ReaderThread::spawn("hangs", work).unwrap(), release)
}

fn running(worker: ReaderThread) -> RunningProbe {
    RunningProbe { worker, progress: ProbeProgress::default() }
}

/// A card in the reader `Reader`.
fn insert_card(
    readers: &Readers,
    events: &mut UnboundedReceiver<ReaderEvent>,
) -> (ReaderName, InsertionId, Atr) {
    let (reader, insertion): (ReaderName, _) = ("Reader".into(), InsertionId::ZERO);
    let atr: Atr = "3b00".parse().unwrap();
    readers.shared.emit(ReaderEvent::CardInserted(InsertedCard {
        reader: reader.clone(),
        insertion,
        atr: atr.clone(),
        event_count: 1,
        at_start: false,
    }));
    events.try_recv().unwrap();
    (reader, insertion, atr)
}

#[test]
fn card_in_foreign_transaction_has_one_probe_thread() {
    let (mut readers, mut events) = readers();
    let (name, insertion, atr) = insert_card(&readers, &mut events);
    let (worker, release) = hanging();
    let waits = running(worker);
    assert!(waits.progress.start(ProbePhase::Starting) && waits.progress.abandon());
    readers.probes.insert(name.clone(), waits);
    for _ in 0..3 {
        readers.probe(&name, insertion, &atr, false);
        let Ok(ReaderEvent::ProbeFinished { result: Err(error), .. }) = events.try_recv() else {
            panic!("the probe was not refused");
        };
        assert_eq!(error.reason, NotIdentifiedReason::InUse);
    }
    assert_eq!((readers.probes.len(), readers.abandoned()), (1, 0));
    drop(release);
    assert!(readers.probes[&name].worker.join_timeout(Duration::from_mins(1)));
    assert!(!readers.probes[&name].waits_for_others());
}

#[test]
fn abandoned_threads_are_limited() {
    let (mut readers, mut events) = readers();
    let (name, insertion, atr) = insert_card(&readers, &mut events);
    let mut releases = Vec::new();
    for _ in 0..MAX_ABANDONED {
        let (worker, release) = hanging();
        readers.probes.insert(name.clone(), running(worker));
        readers.abandon(&name);
        releases.push(release);
    }
    assert_eq!(readers.abandoned(), MAX_ABANDONED);
    readers.probe(&name, insertion, &atr, false);
    let Ok(ReaderEvent::ProbeFinished { result: Err(error), .. }) = events.try_recv() else {
        panic!("the probe was not refused");
    };
    assert_eq!(error.reason, NotIdentifiedReason::ReadError);
    assert!(error.detail.contains("hang already"), "{}", error.detail);
    assert!(readers.probes.is_empty());
}

#[test]
fn abandoned_probe_returns_its_exchanges() {
    let (mut readers, _events) = readers();
    let name: ReaderName = "Reader".into();
    let (worker, _release) = hanging();
    let probe = running(worker);
    probe.progress.begin_exchange(&[0x00, 0xA4]);
    readers.probes.insert(name.clone(), probe);
    let [exchange] = readers.abandon(&name).try_into().unwrap();
    assert_eq!(exchange.command, [0x00, 0xA4]);
    assert!(exchange.response.is_empty());
}

/// While another program holds a reader, the thread worker for its attributes again.
#[test]
fn stop_ends_attribute_threads() {
    let (mut readers, events) = readers();
    let reader: ReaderName = "Reader".into();
    let (ended, ends) = channel();
    let worker = ReaderThread::spawn("reader-about", move |halt| {
        halt.wait_timeout(Duration::from_mins(10));
        ended.send(()).unwrap();
    })
    .unwrap();
    readers.attribute_threads.insert(reader, (worker, CancelToken::default()));
    let began = Instant::now();
    readers.stop();
    assert!(began.elapsed() < STOP_TIMEOUT, "a thread that listens is not left behind");
    ends.try_recv().expect("the thread has ended before the stop");
    drop(events);
}

#[test]
fn dropped_readers_end_attribute_threads() {
    let (mut readers, _events) = readers();
    let (ended, ends) = channel();
    let worker = ReaderThread::spawn("reader-about", move |halt| {
        halt.wait_timeout(Duration::from_mins(10));
        ended.send(()).unwrap();
    })
    .unwrap();
    readers.attribute_threads.insert("Reader".into(), (worker, CancelToken::default()));
    drop(readers);
    ends.recv_timeout(Duration::from_mins(1)).expect("the thread ends");
}

#[test]
fn stop_does_not_wait_for_hanging_driver() {
    let (mut readers, _events) = readers();
    let (worker, _release) = hanging();
    readers.attribute_threads.insert("Reader".into(), (worker, CancelToken::default()));
    let began = Instant::now();
    readers.stop();
    assert!(began.elapsed() < Duration::from_secs(2));
}
