//! A reader, and the cards that were put into it.

use std::time::{Duration, SystemTime};

use cardbridge_harness::cards::{Faults, GidsCard, InsertedCard};
use cardbridge_harness::cm::{Record, Request, Store};
use cardbridge_harness::outcome_checker::insertions::{Insertion, Quirk};
use cardbridge_harness::world::World;
use fastrand::Rng;
use uuid::Uuid;

const RETIRE: u32 = 7;

/// Of the first cards, one in so many is known to CM: each card that is looked up costs CM a list
/// of all that it is asked for.
const KNOWN: usize = 6;
const FIRST: usize = 600;

/// What is known of a reader.
#[derive(Default)]
pub(super) struct Place {
    pub(super) unplugged: bool,
    pub(super) broken: bool,
    /// Since when pcscd does not have it.
    pub(super) lost: Option<SystemTime>,
    pub(super) inside: Option<(InsertedCard, Insertion)>,
}

/// What CM knows of the cards.
pub(super) fn store() -> Store {
    let mut store = Store::default();
    for card in (0..FIRST).step_by(KNOWN) {
        let record = Record::of_card(id(card));
        store.requests.push(Request::approved(RETIRE, &record));
        store.records.push(record);
    }
    store
}

impl Place {
    /// Puts the card of this number in, with whatever is wrong with it.
    pub(super) fn put(&mut self, world: &World, reader: usize, number: usize, faults: Faults) {
        let quirk = quirk(&faults);
        let mut card = GidsCard::new(id(number).to_bytes_le());
        if quirk == Quirk::Hindered {
            card = card.with_atr(own_atr(number));
        }
        let atr = hex::encode(cardbridge_harness::cards::Card::atr(&card));
        let from = SystemTime::now();
        let card = world.insert_with(reader, card, faults).unwrap();
        let name = format!("(R{reader:02})");
        let inserted = Insertion {
            reader: name,
            quirk,
            card: id(number),
            atr,
            span: (from, from),
            lost: Vec::new(),
        };
        self.inside = Some((card, inserted));
    }

    /// Takes the card out.
    pub(super) fn take(&mut self) -> Option<Insertion> {
        let (mut card, mut inserted) = self.inside.take()?;
        inserted.span.1 = SystemTime::now();
        inserted.lost.extend(self.lost.map(|since| (since, inserted.span.1)));
        card.eject();
        Some(inserted)
    }

    /// pcscd does not have the reader, or has it again.
    pub(super) fn note(&mut self) {
        let now = SystemTime::now();
        if self.unplugged || self.broken {
            self.lost.get_or_insert(now);
        } else if let Some(since) = self.lost.take()
            && let Some((_, inserted)) = &mut self.inside
        {
            inserted.lost.push((since, now));
        }
    }
}

/// What is wrong with most cards is nothing.
pub(super) fn faults(random: &mut Rng) -> Faults {
    let mut faults = Faults::default();
    match random.u8(..20) {
        0 => faults.mute = true,
        1 => faults.remove_at = Some(random.u32(1..12)),
        2 => faults.hang_at = Some(random.u32(1..8)),
        3 => faults.slow = Duration::from_millis(random.u64(1..25)),
        4 => faults.slow_power_up = Duration::from_millis(random.u64(1..150)),
        _ => {}
    }
    faults
}

fn quirk(faults: &Faults) -> Quirk {
    if faults.mute {
        Quirk::Mute
    } else if faults.remove_at.is_some() || faults.hang_at.is_some() {
        Quirk::Hindered
    } else {
        Quirk::Healthy
    }
}

fn id(card: usize) -> Uuid {
    Uuid::from_u128(0x5709_0000_0000_4000_8000_0000_0000_0000 + card as u128)
}

/// An ATR for T=1 with the card's number in its historical bytes.
fn own_atr(number: usize) -> Vec<u8> {
    let mut atr = vec![0x3B, 0x88, 0x80, 0x01];
    atr.extend((number as u64).to_be_bytes());
    atr.push(atr[1..].iter().fold(0, |check, byte| check ^ byte));
    atr
}
