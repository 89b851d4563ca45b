//! pcscd was away and comes back, and a card is in for a moment just then.

use super::*;

/// How long pcscd is away: the daemon's own tries lie ever further apart.
const AWAY: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(800),
    Duration::from_millis(2100),
    Duration::from_millis(3300),
];

/// How many times; `RETURNS=60` for a figure.
fn rounds() -> u128 {
    std::env::var("RETURNS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

/// Kills pcscd, starts it again, and has a card in its reader for a second each time, put in before it
/// starts or after. Gives how many were missed.
fn missed(mut world: World, ids: &[String], tidily: bool) -> usize {
    for (round, id) in ids.iter().enumerate() {
        if tidily {
            world.pcscd.stop().unwrap();
        } else {
            world.pcscd.kill9().unwrap();
        }
        std::thread::sleep(AWAY[round % AWAY.len()]);
        let mut card = None;
        let early = round % 2 == 0;
        if early {
            card = Some(world.insert(0, GidsCard::new(cardid(id))).unwrap());
        }
        world.pcscd.restart().unwrap();
        let mut card = card.unwrap_or_else(|| world.insert(0, GidsCard::new(cardid(id))).unwrap());
        wait_powered(&card);
        std::thread::sleep(Duration::from_secs(1));
        card.eject();
    }
    let updated = |outcomes: Vec<String>| outcomes.iter().filter(|one| *one == "updated").count();
    let all = || updated(world.outcomes().unwrap()) == ids.len();
    // The last one may still be on its way to CM.
    let _late = world.wait_until("all to be worked on", Duration::from_secs(5), all);
    let missed = ids.len() - updated(world.outcomes().unwrap());
    world.finish().unwrap();
    missed
}

#[test]
fn short_insertions_at_pcscd_return_are_processed() {
    let ids = ids(rounds());
    let world = require!(ifd()).cm(cm_of(&ids)).start().unwrap();
    assert_eq!(missed(world, &ids, false), 0, "of {}", ids.len());
}

#[test]
fn short_insertions_after_clean_pcscd_stop_are_processed() {
    let ids = ids(rounds());
    let world = require!(ifd()).cm(cm_of(&ids)).start().unwrap();
    assert_eq!(missed(world, &ids, true), 0, "of {}", ids.len());
}
