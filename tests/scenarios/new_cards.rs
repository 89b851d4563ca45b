//! A card that comes while many wait and CM is slow.

use std::io::Write as _;
use std::time::Instant;

use cardbridge::domain::{
    Candidate, CardEvent, CardIdentity, Family, IdRule, Serial, Stage, Trigger,
};
use cardbridge::outbox::{self, AppendRequest, OutboxOptions};
use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;
use cardbridge_harness::pcscd::Double;

use super::*;

/// How many wait, unless `FRESH_WAITING` says otherwise.
const WAITING: u128 = 100;

/// How long CM takes for each answer.
const SLOW: Duration = Duration::from_secs(1);

fn draft(number: u128) -> CardEvent {
    let id = drawn_id(number).to_string().parse().unwrap();
    let first = Candidate::by_rule(id, IdRule::GidsCardid);
    let serial = Serial::from_bytes(&number.to_be_bytes());
    CardEvent {
        seen_at: jiff::Timestamp::now(),
        reader: "Elsewhere".into(),
        label: "Elsewhere".to_owned(),
        role: "desk".to_owned(),
        trigger: Trigger::Inserted,
        boot_moment: None,
        event_count: 1,
        atr: "3b8d0180fba000000397425446590301c8".parse().unwrap(),
        identity: CardIdentity::new(Family::Gids, serial, first, Vec::new()),
    }
}

fn fill(world: &World, waiting: u128) {
    let (path, now) = (world.outbox_path(), jiff::Timestamp::now());
    let options = OutboxOptions { path, max_entries: 100_000, station: "desk-3".to_owned(), now };
    let (outbox, _) = outbox::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..waiting {
        let (draft, stage) = (draft(number), Stage::Queued);
        let append =
            AppendRequest { card_event: draft, stage, instance: None, supersedes: Vec::new() };
        runtime.block_on(outbox.append(append)).unwrap();
    }
    outbox.close();
}

#[test]
fn new_cards_are_not_delayed_by_waiting_entries() {
    let world = require!(world());
    let waiting = std::env::var("FRESH_WAITING").ok().and_then(|number| number.parse().ok());
    let waiting = waiting.unwrap_or(WAITING);
    let fresh: Vec<Uuid> = (1..=5).map(|n| drawn_id(u128::MAX / 2 + n)).collect();
    let mut store = Store::default();
    for card in &fresh {
        let record = Record::of_card(*card);
        store.requests.push(Request::approved(RETIRE, &record));
        store.records.push(record);
    }
    let world = world.double(Double::Ifd).cm(CmOptions { store, ..CmOptions::default() });
    let mut world = world.as_own_user().without_daemon().start().unwrap();
    fill(&world, waiting);
    world.cm.set_fault(Fault::Slow { ms: SLOW.as_millis().try_into().unwrap() });
    world.start_daemon().unwrap();
    let is_at_work = || waiting == 0 || world.cm.log().len() > 12;
    world.wait_until("CM to be asked", LONG, is_at_work).unwrap();
    let mut waits = Vec::new();
    for (at, card) in fresh.iter().enumerate() {
        let began = Instant::now();
        let mut inserted = world.insert(0, GidsCard::new(card.to_bytes_le())).unwrap();
        let is_sent = || world.cm.puts().len() == at + 1;
        world.wait_until("the card's PUT", LONG, is_sent).unwrap();
        waits.push(began.elapsed());
        inserted.eject();
    }
    let figure =
        format!("fresh: {waits:.1?} to the PUT among {waiting}, with a CM that takes {SLOW:?}");
    writeln!(std::io::stderr(), "{figure}").unwrap();
    // Its own look-up comes before the update; those that wait would take hours.
    assert!(waits.iter().all(|wait| *wait < 5 * SLOW), "{waits:?}");
    world.finish().unwrap();
}
