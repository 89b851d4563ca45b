//! Waiting is not an outcome: CM away, back, slow, and failing on one card.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::world::cm::{Mood, RETIRE, RETIRED};
use super::world::{DAY, HOUR, SECOND, World, policy};
use crate::domain::{CmOperation, CmView};
use crate::engine::Notice;

/// Within this time everybody who waited for CM has had a turn when it is back.
pub(super) const RETURN: Duration = Duration::from_mins(15);

/// A world in which CM is away and nine cards wait.
pub(super) fn nine_wait(mood: Mood) -> World {
    let mut world = World::new();
    world.cm.mood = mood;
    for card in 1..=9 {
        world.cm.request(card, RETIRE);
        world.insert("Left", card);
        world.run(SECOND / 2);
    }
    world.run(HOUR);
    world
}

pub(super) fn asked_since(world: &World, since: Instant) -> Vec<Instant> {
    world.calls.iter().map(|call| call.at).filter(|at| *at > since).collect()
}

#[test]
fn an_outage_keeps_every_card_waiting_and_loses_none() {
    for mood in [Mood::Away, Mood::Busy(30), Mood::Failing, Mood::AnswerLost, Mood::PutTaken] {
        let mut world = nine_wait(mood);
        for entry in 1..=9 {
            assert_eq!(world.outcome(entry), "none", "{mood:?}");
        }
        world.cm.mood = Mood::Fine;
        world.run(HOUR);
        for entry in 1..=9 {
            assert_eq!(world.trail(entry), ["updated"], "{mood:?}");
        }
        assert!(!world.is_away());
    }
}

#[test]
fn the_others_follow_within_a_quarter_of_an_hour_when_cm_is_back() {
    for mood in [Mood::Away, Mood::Failing] {
        let mut world = nine_wait(mood);
        world.cm.mood = Mood::Fine;
        world.run_until(|world| !world.is_away());
        world.run(RETURN);
        for card in 1..=9 {
            assert_eq!(world.cm.status(card), RETIRED, "{mood:?}");
        }
    }
}

#[test]
fn entry_of_failed_trial_is_released_on_recovery() {
    for wait in 0..10 {
        let mut world = World::new();
        world.cm.request(1, RETIRE);
        world.cm.mood = Mood::Away;
        world.insert("Left", 1);
        world.run(6 * HOUR + wait * 60 * SECOND);
        let before = world.calls.len();
        world.run_until(|world| world.calls.len() > before && world.is_quiet());
        world.cm.mood = Mood::Fine;
        world.insert("Right", 2);
        world.run(2 * SECOND);
        assert_eq!(world.trail(2), ["nothing-to-do"], "{}", world.story());
        world.run(RETURN);
        assert_eq!(world.trail(1), ["updated"], "{}", world.story());
    }
}

#[test]
fn many_cards_do_not_all_go_at_the_moment_when_cm_is_back() {
    let mut world = nine_wait(Mood::Away);
    world.cm.mood = Mood::Fine;
    world.run_until(|world| !world.is_away());
    let back = world.now.mono;
    world.run(RETURN);
    let mut minutes: Vec<_> =
        asked_since(&world, back).iter().map(|at| (*at - back).as_secs() / 60).collect();
    minutes.dedup();
    assert!(minutes.len() >= 5, "{minutes:?}");
}

#[test]
fn entries_wait_no_longer_than_short_outage() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    for (reader, card) in super::world::READERS.into_iter().zip(1..) {
        world.cm.request(card, RETIRE);
        world.insert(reader, card);
    }
    world.run(4 * SECOND);
    world.cm.mood = Mood::Fine;
    world.run_until(|world| !world.is_away());
    let waited = world.now.mono - world.started.mono;
    world.run(waited + SECOND);
    for card in 1..=3 {
        assert_eq!(world.cm.status(card), RETIRED, "{}", world.story());
    }
}

#[test]
fn a_card_that_comes_while_the_others_return_goes_at_once() {
    let mut world = nine_wait(Mood::Away);
    world.cm.mood = Mood::Fine;
    world.run_until(|world| !world.is_away());
    world.insert("Right", 12);
    world.run(SECOND);
    assert_eq!(world.trail(world.entries()).len(), 1, "{}", world.story());
}

#[test]
fn outage_and_its_end_are_logged_once() {
    let mut world = nine_wait(Mood::Away);
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert!(matches!(world.notices.as_slice(), [Notice::CmUnavailable(_), Notice::CmAvailable]));
}

#[test]
fn trials_back_off_within_bounds() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(DAY);
    let gaps: Vec<_> = world.calls.windows(2).map(|two| two[1].at - two[0].at).collect();
    assert!(gaps.iter().all(|gap| *gap >= SECOND && *gap <= 601 * SECOND), "{gaps:?}");
    assert!(gaps[0] < 3 * SECOND, "{gaps:?}");
    let late: Duration = gaps.iter().rev().take(50).sum();
    assert!(late > 50 * 100 * SECOND, "{late:?}");
}

#[test]
fn an_hour_of_outage_costs_few_calls_however_many_cards_wait() {
    for mood in [Mood::Away, Mood::Failing, Mood::AnswerLost] {
        let mut world = nine_wait(mood);
        let since = world.now.mono;
        world.run(HOUR);
        let asked = asked_since(&world, since).len();
        assert!(asked < 80, "{mood:?}: {asked}");
    }
}

#[test]
fn a_web_server_that_takes_every_put_is_not_worn_down() {
    let mut world = nine_wait(Mood::PutTaken);
    let since = world.now.mono;
    world.run(HOUR);
    let asked = asked_since(&world, since).len();
    // Nine cards, every five minutes at the latest and half of that on average, three calls each.
    assert!(asked < 9 * 3 * 60, "{asked}");
    assert_eq!(world.trail(1).len(), 0);
}

#[test]
fn cm_that_fails_on_every_call_is_away_and_wears_no_card_out() {
    let mut world = World::new();
    for card in 1..=9 {
        world.insert("Left", card);
        world.run(SECOND);
    }
    for _ in 0..5 {
        world.cm.mood = Mood::Failing;
        for card in 1..=9 {
            world.insert("Left", card);
            world.run(SECOND / 4);
        }
        let since = world.now.mono;
        world.run(60 * SECOND);
        let trials = asked_since(&world, since);
        for two in trials.windows(2) {
            assert!(two[1] - two[0] >= SECOND, "{}", world.story());
        }
        world.cm.mood = Mood::Fine;
        world.run(HOUR);
    }
    for entry in 1..=world.entries() {
        assert_ne!(world.outcome(entry), "parked: repeated-failure");
    }
}

#[test]
fn cm_that_takes_no_update_wears_no_card_out() {
    let mut world = nine_wait(Mood::PutFailing);
    world.run(6 * HOUR);
    for entry in 1..=9 {
        assert_eq!(world.outcome(entry), "none");
    }
    let since = world.now.mono;
    world.run(HOUR);
    let asked = asked_since(&world, since).len();
    assert!(asked < 9 * 3 * 60, "{asked}");
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    for entry in 1..=9 {
        assert_eq!(world.trail(entry), ["updated"]);
    }
}

#[test]
fn outage_of_updates_is_logged_once_and_blocks_no_reads() {
    let mut world = World::new();
    world.cm.mood = Mood::PutTaken;
    for card in 1..=3 {
        world.cm.request(card, RETIRE);
        world.insert("Left", card);
        world.run(SECOND);
    }
    let CmView::Unavailable { since, .. } = world.engine.cm_view(world.now) else { panic!() };
    for n in (0..5).cycle().take(100) {
        world.insert("Right", 4 + n);
        world.run(20 * SECOND);
        assert_eq!(world.outcome(world.entries()), "nothing-to-do");
        let view = world.engine.cm_view(world.now);
        assert!(matches!(view, CmView::Unavailable { since: is, .. } if is == since), "{view:?}");
    }
    assert!(matches!(world.notices.as_slice(), [Notice::CmUnavailable(_)]), "{:?}", world.notices);
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    assert!(matches!(world.notices.as_slice(), [Notice::CmUnavailable(_), Notice::CmAvailable]));
    assert!(matches!(world.engine.cm_view(world.now), CmView::Available { .. }));
}

#[test]
fn outage_of_updates_ends_when_no_update_waits() {
    let mut world = World::new();
    world.cm.mood = Mood::PutTaken;
    world.cm.request(1, RETIRE);
    world.insert("Left", 1);
    world.run(10 * SECOND);
    world.cm.requests.clear();
    world.run(HOUR);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
    assert!(matches!(world.notices.as_slice(), [Notice::CmUnavailable(_), Notice::CmAvailable]));
}

#[test]
fn one_cards_own_trouble_is_rejected_after_ten_tries_while_others_go_through() {
    for mood in [Mood::Failing, Mood::PutFailing] {
        let mut world = World::new();
        world.cm.request(1, RETIRE);
        world.cm.of_card.insert(1, mood);
        world.insert("Left", 1);
        for n in (0..7).cycle().take(400) {
            world.insert("Right", 2 + n);
            world.run(30 * SECOND);
        }
        assert_eq!(world.trail(1), ["parked: repeated-failure"], "{mood:?}");
        let line = world.disk.audit.iter().find(|line| line.outcome == "parked").unwrap();
        assert_eq!((line.http_status, line.correlation_id.as_deref()), (Some(500), Some("c0ffee")));
        assert!(line.attempts >= 10, "{line:?}");
        for entry in 2..=401 {
            assert_eq!(world.trail(entry), ["nothing-to-do"], "{mood:?}");
        }
    }
}

#[test]
fn ten_tries_count_after_the_one_that_could_be_an_outage() {
    let mut world = World::new();
    world.cm.of_card.insert(1, Mood::Failing);
    world.insert("Right", 2);
    world.run(SECOND);
    world.insert("Left", 1);
    for card in (2..9).cycle().take(1000) {
        world.insert("Right", card);
        world.run(SECOND / 2);
    }
    assert_eq!(world.trail(2), ["parked: repeated-failure"]);
    assert_eq!(world.asked_for(1), 1 + 10);
}

#[test]
fn a_card_expires_while_cm_wants_to_be_left_alone_for_longer() {
    let mut world = World::new();
    world.cm.mood = Mood::Busy(40 * 24 * 3600);
    world.insert("Left", 1);
    world.run(30 * DAY + SECOND);
    assert_eq!(world.trail(1), ["parked: expired"]);
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn one_cards_own_trouble_does_not_hold_up_a_new_card() {
    for wait in 0..30 {
        let mut world = World::new();
        world.cm.of_card.insert(1, Mood::Failing);
        world.insert("Left", 1);
        world.run(6 * HOUR + wait * 17 * SECOND);
        world.insert("Right", 2);
        world.run(3 * SECOND);
        assert_eq!(world.outcome(2), "nothing-to-do", "{}", world.story());
    }
}

#[test]
fn answered_entries_make_one_trial_at_a_time() {
    let mut world = nine_wait(Mood::PutTaken);
    world.insert("Right", 20);
    world.run(10 * SECOND);
    assert_eq!(world.trail(10), ["unknown-card"]);
    world.cm.mood = Mood::Failing;
    world.run_until(|world| world.engine.queue.breaker.is_open());
    let since = world.now.mono;
    world.run(6 * HOUR);
    for two in asked_since(&world, since).windows(2) {
        assert!(two[1] - two[0] >= SECOND, "{}", world.story());
    }
    world.cm.mood = Mood::Fine;
    world.run(HOUR);
    for entry in 1..=9 {
        assert_eq!(world.trail(entry), ["updated"]);
    }
}

#[test]
fn no_more_cards_are_worked_on_than_the_configuration_says_and_all_get_their_turn() {
    let mut world = World::with(crate::engine::EngineSettings {
        concurrency: std::num::NonZeroUsize::new(2).unwrap(),
        ..policy()
    });
    world.cm.latency = 5 * SECOND;
    for card in 1..=9 {
        world.insert("Left", card);
        world.run(SECOND / 2);
    }
    world.run(120 * SECOND);
    for entry in 1..=9 {
        assert_eq!(world.trail(entry), ["nothing-to-do"]);
    }
    assert_eq!(world.asked(CmOperation::Lookup), 9);
}

#[test]
fn stations_that_cm_asks_to_come_back_at_one_moment_come_back_at_many() {
    let back = |seed| {
        let mut world = World::seeded(policy(), seed);
        world.cm.mood = Mood::Busy(600);
        world.insert("Left", 1);
        world.run_until(|world| world.calls.len() == 2);
        world.calls[1].at - world.calls[0].at
    };
    let waits: Vec<_> = (1..=40).map(back).collect();
    assert!(waits.iter().all(|wait| *wait >= 600 * SECOND), "never before: {waits:?}");
    assert!(waits.iter().all(|wait| *wait < 640 * SECOND), "nor long after: {waits:?}");
    let apart: BTreeSet<_> = waits.iter().map(Duration::as_millis).collect();
    assert!(apart.len() > 30, "{waits:?}");
}

#[test]
fn an_api_that_is_switched_off_is_named_so_whatever_is_asked_first() {
    for script in [&[][..], &[Mood::Fine], &[Mood::Fine, Mood::AnswerLost]] {
        let mut world = World::new();
        world.cm.request(1, RETIRE);
        world.cm.script.extend(script.iter().copied());
        world.cm.mood = Mood::Off;
        world.insert("Left", 1);
        world.run(HOUR);
        let CmView::Unavailable { reason, .. } = world.engine.cm_view(world.now) else { panic!() };
        assert_eq!(reason, "api-disabled", "{script:?}");
        assert_eq!(world.trail(1).len(), 0, "no entry is parked for that");
        world.cm.mood = Mood::Fine;
        world.run(HOUR);
        assert_eq!(world.trail(1), ["updated"], "{script:?}");
    }
}
