//! Cards that are to be retired, one at a time in a reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use cardbridge_harness::cards::{Card, GidsCard, InsertedCard};
use cardbridge_harness::cm::{Cm, Record, Request};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::world::World;
use uuid::Uuid;

use super::LIMIT;

const RETIRED: u32 = 6;
const RETIRE: u32 = 7;

/// A new card, with its record and an approved request
/// to retire it.
pub(crate) struct Badge {
    card: Uuid,
    record: Uuid,
    request: Uuid,
    answers: Arc<Mutex<Vec<SystemTime>>>,
}

impl Badge {
    /// Makes a card known to CM.
    pub(crate) fn issue(cm: &Cm) -> Self {
        let card = Uuid::new_v4();
        let record = Record::of_card(card);
        let request = Request::approved(RETIRE, &record);
        let badge =
            Self { card, record: record.uuid, request: request.uuid, answers: Arc::default() };
        cm.add_record(record);
        cm.add_request(request);
        badge
    }

    /// Puts the card into a reader and leaves it there until its record is
    /// retired.
    pub(crate) fn retire(&self, world: &World, reader: usize) -> Result<InsertedCard> {
        let card = GidsCard::new(self.card.to_bytes_le());
        let answers = Arc::clone(&self.answers);
        let inserted = world.insert(reader, Timed { card, answers })?;
        let retired = || world.cm.record(self.record).is_some_and(|r| r.status == RETIRED);
        wait_until("the card's record is retired", LIMIT, retired).with_context(|| {
            let (log, calls) = (world.daemon_log(), world.cm.story());
            format!("card {}, the agent's log:\n{log}the calls to CM:\n{calls}", self.card)
        })?;
        Ok(inserted)
    }

    /// Has CM forget the card. Else its lists of requests would be longer for
    /// each card than for the one before.
    pub(crate) fn forget(&self, cm: &Cm) {
        cm.change_state(|store| {
            store.records.retain(|record| record.uuid != self.record);
            store.requests.retain(|request| request.uuid != self.request);
        });
    }

    /// When the card gave each of its answers.
    pub(crate) fn answers(&self) -> Vec<SystemTime> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a call's path names this card's request.
    pub(crate) fn is_meant_by(&self, target: &str) -> bool {
        target.to_lowercase().contains(&self.request.to_string())
    }
}

/// Inserts `each` cards into each reader, in all readers at the same time.
pub(crate) fn many(world: &World, readers: usize, each: usize) -> Result<()> {
    let one = |reader| {
        let badge = Badge::issue(&world.cm);
        badge.retire(world, reader)?.eject();
        badge.forget(&world.cm);
        Ok(())
    };
    let one = &one;
    thread::scope(|scope| {
        let work = |reader| scope.spawn(move || (0..each).try_for_each(|_| one(reader)));
        let threads: Vec<_> = (0..readers).map(work).collect();
        let ended = |thread: ScopedJoinHandle<'_, Result<()>>| thread.join().ok();
        threads.into_iter().try_for_each(|thread| ended(thread).context("a thread panicked")?)
    })
}

/// A card that notes the time.
struct Timed {
    card: GidsCard,
    answers: Arc<Mutex<Vec<SystemTime>>>,
}

impl Card for Timed {
    fn atr(&self) -> Vec<u8> {
        self.card.atr()
    }

    fn power(&mut self) {
        self.card.power();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        let answer = self.card.command(apdu);
        let now = SystemTime::now();
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        answer
    }
}
