//! What happens to readers and cards, one thing after the other, as the seed says.

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use cardbridge_harness::cards::{Faults, InsertedCard};
use cardbridge_harness::outcome_checker::insertions::{Insertion, Quirk, Span};
use cardbridge_harness::world::World;
use fastrand::Rng;

use super::READERS;
use super::places::{Place, faults};

/// Between two steps, at most.
const PAUSE: u64 = 80;

/// How long the daemon may take to connect to a pcscd that came back.
const CONNECTED_WITHIN: Duration = Duration::from_millis(100);

/// How pcscd is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    Down { since: SystemTime },
    Held { since: SystemTime },
}

/// Readers whose cards are moved.
pub(super) struct Script {
    random: Rng,
    places: Vec<Place>,
    pcscd: Health,
    cards: usize,
    insertions: Vec<Insertion>,
    away: Vec<Span>,
    restarts: Vec<Span>,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            places: (0..READERS).map(|_| Place::default()).collect(),
            pcscd: Health::Up,
            cards: 0,
            insertions: Vec::new(),
            away: Vec::new(),
            restarts: Vec::new(),
        }
    }

    /// The insertions that are over.
    pub(super) fn insertions(&self) -> &[Insertion] {
        &self.insertions
    }

    /// When pcscd was not there for the daemon.
    pub(super) fn away(&self) -> &[Span] {
        &self.away
    }

    pub(super) fn restarts(&self) -> &[Span] {
        &self.restarts
    }

    pub(super) fn play(&mut self, world: &mut World, steps: usize) {
        for _ in 0..steps {
            let reader = self.random.usize(..READERS);
            match self.random.u8(..100) {
                0..92 => self.move_card(world, reader),
                92..96 => self.plug(world, reader),
                96..99 => self.fault(world, reader),
                _ => self.service(world),
            }
            thread::sleep(Duration::from_millis(self.random.u64(..PAUSE)));
        }
    }

    /// A card comes or goes, or makes room for the next one at once.
    fn move_card(&mut self, world: &World, reader: usize) {
        let (swap, next) = (self.random.u8(..3) == 0, faults(&mut self.random));
        let leave = self.random.bool();
        let place = &mut self.places[reader];
        let was_mute = place.inside.is_some() && is_mute(place);
        if place.inside.is_none() {
            self.put(world, reader, next);
            return;
        }
        // To take a card out waits for pcscd to see it, and that is held.
        if leave || matches!(self.pcscd, Health::Held { .. }) {
            return;
        }
        self.insertions.extend(place.take());
        // Two mute cards at once look alike.
        if swap && !was_mute {
            self.put(world, reader, next);
        }
    }

    fn put(&mut self, world: &World, reader: usize, faults: Faults) {
        self.places[reader].put(world, reader, self.cards, faults);
        self.cards += 1;
    }

    /// Pulls a reader's plug, or puts it in.
    fn plug(&mut self, world: &World, reader: usize) {
        let place = &mut self.places[reader];
        place.unplugged = !place.unplugged;
        let done = if place.unplugged {
            place.note();
            world.pcscd.unplug(reader)
        } else {
            self.repair(world, reader);
            self.let_go();
            self.plug_in(world, reader)
        };
        self.places[reader].note();
        assert!(done.is_ok() || self.pcscd != Health::Up, "{done:?}");
    }

    /// Puts a plug in. pcscd drops a reader for good that it has not yet let go of in its place
    /// ("Duplicate reader found"): then it is pulled and put in once more.
    fn plug_in(&self, world: &World, reader: usize) -> Result<()> {
        world.pcscd.plug(reader)?;
        // No program sees it while there is no pcscd; the next one polls.
        if self.pcscd != Health::Up || world.pcscd.wait_ready().is_ok() {
            return Ok(());
        }
        world.pcscd.dropped(reader)?;
        world.pcscd.unplug(reader)?;
        world.pcscd.plug(reader)?;
        world.pcscd.wait_ready()
    }

    /// A reader's driver fails, or works again.
    fn fault(&mut self, world: &World, reader: usize) {
        let place = &mut self.places[reader];
        if place.broken || place.unplugged {
            return self.repair(world, reader);
        }
        // pcscd does not take a reader that is broken when it is found, and never polls it again.
        if self.pcscd == Health::Up {
            place.broken = true;
            place.note();
            world.pcscd.break_down(reader).unwrap();
        }
    }

    fn repair(&mut self, world: &World, reader: usize) {
        let place = &mut self.places[reader];
        if std::mem::take(&mut place.broken) {
            world.pcscd.repair(reader).unwrap();
            place.note();
        }
    }

    /// pcscd dies, is stopped, or is held; or whatever it was is over.
    fn service(&mut self, world: &mut World) {
        let since = SystemTime::now();
        let what = self.random.u8(..3);
        if self.pcscd != Health::Up {
            return self.heal_service(world);
        }
        self.pcscd = match what {
            0 => {
                world.pcscd.freeze().unwrap();
                Health::Held { since }
            }
            1 if !self.hangs() => {
                world.pcscd.stop().unwrap();
                Health::Down { since }
            }
            _ => {
                world.pcscd.kill9().unwrap();
                Health::Down { since }
            }
        };
        // Some are short, and some are over at once.
        for _ in 0..self.random.usize(..8) {
            let reader = self.random.usize(..READERS);
            match self.random.u8(..4) {
                0 => self.plug(world, reader),
                _ => self.move_card(world, reader),
            }
            thread::sleep(Duration::from_millis(self.random.u64(..PAUSE)));
        }
        self.heal_service(world);
    }

    /// Ends pcscd by force, and starts it again.
    pub(super) fn replace_service(&mut self, world: &mut World) {
        let since = SystemTime::now();
        world.pcscd.kill9().unwrap();
        self.pcscd = Health::Down { since };
        self.heal_service(world);
    }

    fn heal_service(&mut self, world: &mut World) {
        match self.pcscd {
            Health::Up => {}
            Health::Held { since } => {
                self.let_go();
                world.pcscd.thaw().unwrap();
                world.pcscd.wait_ready().unwrap();
                self.away.push((since, SystemTime::now()));
            }
            Health::Down { since } => {
                for reader in 0..READERS {
                    self.repair(world, reader);
                }
                self.let_go();
                let names = world.pcscd.reader_names();
                world.pcscd.restart().unwrap();
                let back = SystemTime::now();
                self.restarts.push((since, back));
                self.away.push((since, back + CONNECTED_WITHIN));
                // A card in a reader of another name is in another reader, for all that is known.
                for (place, (before, after)) in
                    self.places.iter_mut().zip(names.iter().zip(&world.pcscd.reader_names()))
                {
                    if let Some((_, inserted)) = place.inside.as_mut().filter(|_| before != after) {
                        inserted.lost.push((since, back));
                    }
                }
            }
        }
        self.pcscd = Health::Up;
    }

    /// From here on no card hangs: pcscd takes in no reader while one hangs in another of the same
    /// driver.
    fn let_go(&self) {
        let inside = self.places.iter().filter_map(|place| place.inside.as_ref());
        for (card, _) in inside.filter(|(_, inserted)| inserted.quirk == Quirk::Hindered) {
            card.heal();
        }
    }

    /// Whether a card holds pcscd up.
    fn hangs(&self) -> bool {
        let hangs = |inside: &(InsertedCard, Insertion)| inside.0.state().hanging;
        self.places.iter().filter_map(|place| place.inside.as_ref()).any(hangs)
    }

    /// Ends all that is wrong, and takes every card out.
    pub(super) fn heal(&mut self, world: &mut World) {
        self.heal_service(world);
        self.clear();
        for reader in 0..READERS {
            if self.places[reader].unplugged {
                self.plug(world, reader);
            }
            self.repair(world, reader);
        }
        world.pcscd.wait_ready().unwrap();
    }

    /// Puts a good card into each reader.
    pub(super) fn fill(&mut self, world: &World) {
        for reader in 0..READERS {
            self.put(world, reader, Faults::default());
        }
    }

    /// Takes every card out.
    pub(super) fn clear(&mut self) {
        self.insertions.extend(self.places.iter_mut().filter_map(Place::take));
    }
}

fn is_mute(place: &Place) -> bool {
    place.inside.as_ref().is_some_and(|(_, inserted)| inserted.quirk == Quirk::Mute)
}
