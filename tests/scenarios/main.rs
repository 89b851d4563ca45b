//! The daemon as its users meet it: the real binary, a real pcscd with virtual readers, and a
//! simulated CM. `docs/testing.md` says how to write a scenario.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails where something is not as expected"
)]

mod access;
mod card_processing;
mod check;
mod clocks;
mod commands;
mod completing;
mod disks;
mod families;
mod files;
mod hardened;
mod journal;
mod kerberos;
mod kills;
mod links;
mod long_lists;
mod manager;
mod metrics;
mod network;
mod new_cards;
mod oauth2;
mod opensc;
mod outages;
mod readers;
mod removals;
mod strengths;

use std::time::Duration;

use cardbridge_harness::cm::{CmOptions, Record, Request, Store};
use cardbridge_harness::require;
use cardbridge_harness::world::{World, WorldBuilder};
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// The seed's card, record and request.
const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";
const REQUEST: &str = "b105403d-d021-41ea-9f11-be3d677d229e";

/// CM's numbers.
const ACTIVE: u32 = 2;
const RETIRED: u32 = 6;
const EXECUTING: u32 = 18;
const COMPLETED: u32 = 8;
const RETIRE: u32 = 7;
const DISABLE: u32 = 4;

/// A world, if this machine can have one.
fn world() -> Result<WorldBuilder, String> {
    cardbridge_harness::pcscd::available()?;
    Ok(World::builder(env!("CARGO_BIN_EXE_cardbridge")))
}

/// The status of the seed's record, as CM sees it.
fn status(world: &World) -> u32 {
    world.cm.record(RECORD.parse().unwrap()).unwrap().status
}

/// The bytes of the file `cardid` of a card whose id is this, as Windows stores it.
fn cardid(id: &str) -> [u8; 16] {
    id.parse::<Uuid>().unwrap().to_bytes_le()
}

/// The default rule for Retire, with these lines added.
fn retire_rule(lines: &str) -> String {
    format!(
        "[[rule]]\nname = \"retire\"\nrequest_type = [\"Retire\"]\nset_status = \"Retired\"\n{lines}"
    )
}

/// A CM that knows the seed's card and request, and these cards, each with an approved Retire
/// request.
fn cm_with(cards: &[&str]) -> CmOptions {
    let mut store = Store::seed();
    for card in cards {
        let record = Record::of_card(card.parse().unwrap());
        store.requests.push(Request::approved(RETIRE, &record));
        store.records.push(record);
    }
    CmOptions { store, ..CmOptions::default() }
}

/// An id: the same for the same number, and such as is drawn for a card: a number that was counted up proves
/// nothing.
fn drawn_id(number: u128) -> Uuid {
    const MIXER: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    let mixed = (number + 1).wrapping_mul(MIXER);
    uuid::Builder::from_random_bytes((mixed ^ mixed >> 61).to_be_bytes()).into_uuid()
}
