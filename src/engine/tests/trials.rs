//! Trials: which entry calls an unavailable CM, and when.

use super::outages::{RETURN, asked_since, nine_wait};
use super::world::cm::{Mood, RETIRE};
use super::world::{HOUR, SECOND, World};
use crate::engine::Notice;

#[test]
fn new_insertion_triggers_trial_immediately() {
    let mut world = nine_wait(Mood::Away);
    world.run_until(World::is_quiet);
    world.run(2 * SECOND);
    world.run_until(World::is_quiet);
    let since = world.now.mono;
    world.insert("Right", 20);
    world.run(SECOND + SECOND / 2);
    assert_eq!(asked_since(&world, since).len(), 1);
}

#[test]
fn new_insertions_make_at_most_one_trial_per_second() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    for card in (1..=9).cycle().take(200) {
        world.insert("Left", card);
        world.run(SECOND / 8);
    }
    for two in world.calls.windows(2) {
        assert!(two[1].at - two[0].at >= SECOND, "{}", world.story());
    }
    assert!(world.calls.len() > 20, "{}", world.calls.len());
}

#[test]
fn reinsertion_during_its_trial_keeps_the_interval() {
    let mut world = World::new();
    world.cm.mood = Mood::Failing;
    world.cm.latency = SECOND / 4;
    for _ in 0..40 {
        world.insert("Left", 1);
        world.run(SECOND / 5);
    }
    for two in world.calls.windows(2) {
        assert!(two[1].at - two[0].at >= SECOND, "{}", world.story());
    }
}

#[test]
fn insertion_during_trial_makes_the_next_trial() {
    let mut world = nine_wait(Mood::Away);
    world.cm.latency = 10 * SECOND;
    let before = world.calls.len();
    world.run_until(|world| world.calls.len() > before);
    world.insert("Right", 20);
    world.run(9 * SECOND);
    world.cm.mood = Mood::Fine;
    world.run(4 * SECOND);
    assert_eq!(world.calls.len(), before + 2, "{}", world.story());
}

#[test]
fn no_trial_before_retry_after() {
    for mood in [Mood::Busy(600), Mood::FailingFor(600)] {
        let mut world = World::new();
        world.cm.mood = mood;
        world.insert("Left", 1);
        world.run(SECOND);
        world.cm.mood = Mood::Fine;
        for card in 2..=9 {
            world.insert("Left", card);
            world.run(10 * SECOND);
        }
        assert_eq!(world.calls.len(), 1, "{mood:?}");
        world.run(530 * SECOND + RETURN);
        assert_eq!(world.outcome(9), "nothing-to-do", "{mood:?}");
    }
}

#[test]
fn operator_retry_makes_trial_before_retry_after() {
    let mut world = World::new();
    world.cm.mood = Mood::Busy(86_400);
    world.insert("Left", 1);
    world.insert("Right", 2);
    world.run(10 * SECOND);
    world.retry(1).unwrap();
    world.retry(2).unwrap();
    world.run(HOUR);
    assert_eq!(world.calls.len(), 2, "{}", world.story());
    world.cm.mood = Mood::Fine;
    world.retry(2).unwrap();
    world.run(SECOND);
    assert_eq!(world.outcome(2), "nothing-to-do");
    world.run(RETURN);
    assert_eq!(
        (world.outcome(1), world.outcome(2)),
        ("nothing-to-do".into(), "nothing-to-do".into())
    );
    assert!(!world.is_away());
}

#[test]
fn operator_retries_make_at_most_one_trial_per_second() {
    let mut world = World::new();
    world.cm.mood = Mood::Away;
    world.insert("Left", 1);
    world.run(SECOND);
    let since = world.now.mono;
    for _ in 0..50 {
        world.retry(1).unwrap();
        world.run(SECOND / 10);
    }
    let asked = asked_since(&world, since);
    assert!((4..=6).contains(&asked.len()), "{}", world.story());
    assert!(asked.windows(2).all(|two| two[1] - two[0] >= SECOND), "{}", world.story());
}

#[test]
fn a_reload_lifts_every_wait_for_one_first() {
    for mood in [Mood::Busy(86_400), Mood::Away, Mood::PutTaken] {
        let mut world = nine_wait(mood);
        world.run_until(World::is_quiet);
        let before = world.calls.len();
        world.reload();
        assert_eq!(world.calls.len(), before + 1, "{mood:?} {}", world.story());
        world.run_until(World::is_quiet);
        world.cm.mood = Mood::Fine;
        world.reload();
        world.run(2 * SECOND);
        for entry in 1..=9 {
            assert_eq!(world.outcome(entry), "updated", "{mood:?} {}", world.story());
        }
        assert!(matches!(world.notices.last(), Some(Notice::CmAvailable)), "{:?}", world.notices);
    }
}

#[test]
fn the_old_cms_answer_after_a_reload_says_nothing_about_the_new_one() {
    let mut world = World::new();
    world.cm.mood = Mood::Busy(86_400);
    world.cm.latency = 5 * SECOND;
    world.insert("Left", 1);
    world.run(SECOND);
    world.cm.mood = Mood::Fine;
    world.cm.latency = SECOND / 10;
    world.reload();
    world.run(20 * SECOND);
    assert_eq!(world.trail(1), ["nothing-to-do"]);
    assert_eq!(world.notices, []);
}

#[test]
fn an_answer_under_way_does_not_cut_short_the_time_that_cm_asked_for() {
    let mut world = World::new();
    world.cm.request(2, RETIRE);
    world.insert("Left", 9);
    world.run(SECOND);
    // One gets Retry-After while the call of another is in flight.
    world.cm.latency = 5 * SECOND;
    world.insert("Right", 2);
    world.run(SECOND);
    world.cm.latency = SECOND / 10;
    world.cm.script.extend([Mood::Busy(600)]);
    world.insert("Left", 1);
    world.run(5 * SECOND);
    let since = world.now.mono;
    world.insert("Third", 3);
    world.run(590 * SECOND);
    assert!(asked_since(&world, since).is_empty(), "{}", world.story());
    world.run(60 * SECOND + RETURN);
    assert_eq!(world.trail(2), ["updated"]);
    assert_eq!(world.trail(3), ["nothing-to-do"]);
    assert_eq!(world.trail(4), ["nothing-to-do"]);
}
