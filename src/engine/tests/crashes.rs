//! Killed at every effect, with it done and not done: the next life goes on from the disk.

use super::world::cm::{DISABLE, DISABLED, Mood, RETIRE, RETIRED};
use super::world::disk::Verb;
use super::world::{Crash, HOUR, SECOND, World, completing, removing};
use crate::domain::CmOperation;

/// Plays a scenario once whole and then with a crash at each of its effects, lifts every fault,
/// lets time pass, and looks at what became of it.
fn killed_everywhere(scenario: impl Fn(&mut World), look: impl Fn(&World)) {
    killed_everywhere_in(World::new, scenario, look);
}

fn killed_everywhere_in(
    make: impl Fn() -> World,
    scenario: impl Fn(&mut World),
    look: impl Fn(&World),
) {
    let play = |crash| {
        let mut world = make();
        world.crash = crash;
        scenario(&mut world);
        world.cm.mood = Mood::Fine;
        world.cm.script.clear();
        world.disk.refuses.clear();
        world.run(2 * HOUR);
        world
    };
    let whole = play(None);
    look(&whole);
    assert!(whole.effects >= 4, "{}", whole.effects);
    for at in 1..=whole.effects {
        for applied in [false, true] {
            let world = play(Some(Crash { at, applied }));
            for id in world.disk.ever() {
                assert_ne!(world.outcome(id.number()), "none", "{at} {applied} {}", world.story());
            }
            assert_eq!(world.engine.outbox_view().waiting, 0);
            look(&world);
        }
    }
}

fn retired_once(world: &World) {
    assert_eq!(world.cm.status(1), RETIRED, "{}", world.story());
    assert_eq!(world.asked(CmOperation::SetStatus), 1, "{}", world.story());
}

#[test]
fn an_update_killed_anywhere_is_made_exactly_once() {
    killed_everywhere(
        |world| {
            world.cm.request(1, RETIRE);
            world.insert("Left", 1);
            world.run(SECOND);
        },
        |world| {
            // Killed before the call was made, the second life has to read back and make it.
            assert_eq!(world.cm.status(1), RETIRED);
            assert_eq!(world.asked(CmOperation::SetStatus), 1, "{}", world.story());
            assert!(["updated", "already-set"].contains(&world.outcome(world.entries()).as_str()));
        },
    );
}

#[test]
fn a_lost_answer_killed_anywhere_is_read_back() {
    killed_everywhere(
        |world| {
            world.cm.request(1, RETIRE);
            world.cm.script.extend([Mood::Fine, Mood::AnswerLost, Mood::Away, Mood::Away]);
            world.insert("Left", 1);
            world.run(HOUR);
        },
        |world| assert_eq!(world.cm.status(1), RETIRED),
    );
}

#[test]
fn a_yes_without_a_status_killed_anywhere_is_made_once() {
    killed_everywhere(
        |world| {
            world.cm.request(1, RETIRE);
            world.cm.mood = Mood::NoContent;
            world.insert("Left", 1);
            world.run(SECOND);
        },
        retired_once,
    );
}

#[test]
fn a_card_put_in_again_killed_anywhere_ends_each_entry_once() {
    for moment in [CmOperation::Lookup, CmOperation::SetStatus] {
        killed_everywhere(
            |world| {
                world.cm.request(1, RETIRE);
                world.cm.latency = 2 * SECOND;
                world.insert("Left", 1);
                world.run_until(|world| world.asked(moment) > 0);
                world.insert("Left", 1);
                world.run(10 * SECOND);
                world.insert("Left", 1);
                world.run(HOUR);
            },
            retired_once,
        );
    }
}

#[test]
fn a_disk_that_refuses_killed_anywhere_loses_nothing_that_was_on_it() {
    killed_everywhere(
        |world| {
            world.cm.request(1, RETIRE);
            for verb in Verb::ALL {
                world.disk.refuses.insert(verb);
                world.insert("Left", 1);
                world.run(20 * SECOND);
                world.disk.refuses.clear();
                world.run(60 * SECOND);
            }
        },
        retired_once,
    );
}

#[test]
fn operator_action_killed_anywhere_is_atomic() {
    killed_everywhere(
        |world| {
            world.cm.request(1, RETIRE);
            world.cm.mood = Mood::Refusing;
            world.insert("Left", 1);
            world.insert("Right", 2);
            world.run(SECOND);
            world.cm.mood = Mood::Fine;
            for entry in 1..=world.entries() {
                // Which entries there are depends on when it was killed.
                let _refused_if_gone = if world.card_of_entry(entry) == Some(1) {
                    world.retry(entry).map(|_| ())
                } else {
                    world.discard(entry)
                };
            }
            world.run(SECOND);
        },
        |_| (),
    );
}

#[test]
fn an_outage_killed_anywhere_ends_with_every_card_done() {
    killed_everywhere(
        |world| {
            for card in 1..=3 {
                world.cm.request(card, RETIRE);
            }
            world.cm.mood = Mood::Away;
            for (reader, card) in super::world::READERS.into_iter().zip(1..) {
                world.insert(reader, card);
                world.run(SECOND);
            }
            world.run(60 * SECOND);
        },
        |world| {
            for card in 1..=3 {
                assert_eq!(world.cm.status(card), RETIRED, "{}", world.story());
            }
        },
    );
}

/// The status is set once, the request completed once, in whichever life.
fn retired_and_completed_once(world: &World) {
    retired_once(world);
    assert_eq!(world.cm.open(1), 0, "{}", world.story());
    assert_eq!(world.asked(CmOperation::CompleteRequest), 1, "{}", world.story());
}

#[test]
fn a_completion_killed_anywhere_is_made_exactly_once() {
    killed_everywhere_in(
        || World::with(completing()),
        |world| {
            world.cm.request(1, RETIRE);
            world.insert("Left", 1);
            world.run(SECOND);
        },
        |world| {
            retired_and_completed_once(world);
            let last = world.outcome(world.entries());
            assert!(["updated", "nothing-to-do"].contains(&last.as_str()), "{}", world.story());
        },
    );
}

#[test]
fn a_completion_whose_answers_are_lost_killed_anywhere_is_made_exactly_once() {
    for lost in [[Mood::Fine, Mood::AnswerLost], [Mood::AnswerLost, Mood::Fine]] {
        killed_everywhere_in(
            || World::with(completing()),
            |world| {
                world.cm.request(1, RETIRE);
                world.cm.script.push_back(Mood::Fine);
                world.cm.script.extend(lost);
                world.insert("Left", 1);
                world.run(HOUR);
            },
            retired_and_completed_once,
        );
    }
}

#[test]
fn a_card_put_in_again_while_its_request_is_completed_killed_anywhere_ends_once() {
    killed_everywhere_in(
        || World::with(completing()),
        |world| {
            world.cm.request(1, RETIRE);
            world.cm.latency = 2 * SECOND;
            world.insert("Left", 1);
            world.run_until(|world| world.asked(CmOperation::CompleteRequest) > 0);
            world.insert("Left", 1);
            world.run(HOUR);
        },
        retired_and_completed_once,
    );
}

#[test]
fn a_removal_killed_anywhere_is_seen_whole_or_not_at_all() {
    killed_everywhere_in(
        || World::with(removing()),
        |world| {
            world.cm.request(1, DISABLE);
            world.insert("Left", 1);
            world.run(SECOND);
            world.remove("Left");
            world.run(SECOND);
        },
        |world| {
            let removal =
                world.disk.appended.iter().find(|(_, draft)| !draft.trigger.is_insertion());
            let Some((entry, _)) = removal else {
                // It was killed before the removal was on disk: nothing may claim it.
                assert_eq!(world.asked(CmOperation::SetStatus), 0);
                return;
            };
            assert_eq!(world.disk.trail(*entry), ["updated"], "{}", world.story());
            assert_eq!((world.cm.status(1), world.asked(CmOperation::SetStatus)), (DISABLED, 1));
        },
    );
}
