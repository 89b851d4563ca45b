//! Threads that put cards in and take them out, one a reader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use cardbridge_harness::cards::{Faults, GidsCard, InsertedCard};
use cardbridge_harness::cm::{Record, Request, Store};
use cardbridge_harness::netns::Namespace;
use cardbridge_harness::pcscd::FIRST_PORT;
use fastrand::Rng;
use uuid::Uuid;

use super::{READERS, pause};

const RETIRE: u32 = 7;
const DISABLE: u32 = 4;

/// Cards for the storm, besides the last one for each reader.
const CARDS: usize = 120;

/// How often a mover takes a card that was in a reader before.
const AGAIN: u8 = 40;

/// The cards of a round. One card is never in two readers.
#[derive(Clone)]
pub(super) struct Deck {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    fresh: usize,
    used: Vec<usize>,
}

impl Deck {
    pub(super) fn new() -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { fresh: 0, used: Vec::new() })) }
    }

    /// What CM knows of the cards: most are to be retired, some disabled, of some nothing is wanted
    /// anything, and some CM does not know.
    pub(super) fn store() -> Store {
        let mut store = Store::default();
        for card in 0..CARDS + READERS {
            let record = Record::of_card(id(card));
            let kind = match card % 8 {
                0..=3 => Some(RETIRE),
                4 | 5 => Some(DISABLE),
                6 => None,
                _ => continue,
            };
            store.requests.extend(kind.map(|kind| Request::approved(kind, &record)));
            store.records.push(record);
        }
        store
    }

    fn take(&self, random: &mut Rng) -> Option<usize> {
        let mut inner = self.inner.lock().unwrap();
        let again = inner.fresh >= CARDS || random.u8(..100) < AGAIN;
        if again && !inner.used.is_empty() {
            let which = random.usize(..inner.used.len());
            return Some(inner.used.swap_remove(which));
        }
        (inner.fresh < CARDS).then(|| {
            inner.fresh += 1;
            inner.fresh - 1
        })
    }

    fn put_back(&self, card: usize) {
        self.inner.lock().unwrap().used.push(card);
    }

    /// The card that a reader has at the end, which was in none before.
    pub(super) fn last(reader: usize) -> GidsCard {
        card(CARDS + reader)
    }
}

/// Movers at work.
pub(super) struct CardMovers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl CardMovers {
    pub(super) fn start(namespace: &Namespace, deck: &Deck, random: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mover = |reader| {
            let (namespace, deck) = (namespace.clone(), deck.clone());
            let (stop, random) = (Arc::clone(&stop), random.fork());
            thread::spawn(move || work(reader, &namespace, &deck, random, &stop))
        };
        let threads = (0..READERS).map(mover).collect();
        Self { stop, threads }
    }

    /// Has every mover take its card out; returns how many cards were put in.
    pub(super) fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|mover| mover.join().unwrap()).sum()
    }
}

/// In and out, and sometimes out and in so fast that no program sees the reader empty.
fn work(
    reader: usize,
    namespace: &Namespace,
    deck: &Deck,
    mut random: Rng,
    stop: &AtomicBool,
) -> usize {
    let port = FIRST_PORT + u16::try_from(reader).unwrap();
    let mut inserted = 0;
    while !stop.load(Ordering::SeqCst) {
        if let Some(number) = deck.take(&mut random) {
            let card = Box::new(card(number));
            let faults = Faults::default();
            let mut there = InsertedCard::insert(namespace.clone(), port, card, faults).unwrap();
            inserted += 1;
            pause(&mut random, 1500);
            there.eject();
            deck.put_back(number);
        }
        if random.u8(..3) > 0 {
            pause(&mut random, 700);
        }
    }
    inserted
}

fn id(card: usize) -> Uuid {
    Uuid::from_u128(0x5709_0000_0000_4000_8000_0000_0000_0000 + card as u128)
}

fn card(number: usize) -> GidsCard {
    GidsCard::new(id(number).to_bytes_le())
}
