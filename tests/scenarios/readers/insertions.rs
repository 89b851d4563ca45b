//! One insertion is one entry: over restarts of the daemon, swaps, and whole desks at once.

use cardbridge_harness::cards::Faults;

use super::*;

#[test]
fn card_present_at_start_is_processed() {
    let mut world = require!(world()).without_daemon().start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    wait_powered(&card);
    assert!(card.apdus().is_empty(), "it has not been read yet");
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}

#[test]
fn restart_with_card_present_makes_no_second_entry() {
    let mut world = require!(world()).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    let calls = world.cm.log().len();
    for kill in [true, false, true] {
        if kill {
            world.kill9_daemon().unwrap();
        } else {
            world.stop_daemon().unwrap();
        }
        world.start_daemon().unwrap();
        wait_idle(&world, 0);
        assert_eq!(card_in(&world, 0)["entry"], 1, "killed: {kill}");
        assert_eq!(world.outcomes().unwrap(), ["updated"], "killed: {kill}");
    }
    assert_eq!(world.cm.log().len(), calls, "CM is not asked again");
    world.finish().unwrap();
}

#[test]
fn card_swapped_while_daemon_down_is_new_entry() {
    let mut world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.kill9_daemon().unwrap();
    card.eject();
    wait_pcscd(&world, 0, false);
    let swapped = world.insert(0, other()).unwrap();
    wait_powered(&swapped);
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(column(&world, "card_id"), [CARD, OTHER]);
    assert_eq!(entries(&world), [1, 2]);
    world.finish().unwrap();
}

#[test]
fn card_reinserted_while_daemon_down_is_new_entry() {
    let mut world = require!(world()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    card.eject();
    wait_pcscd(&world, 0, false);
    let back = world.insert(0, GidsCard::seed()).unwrap();
    wait_powered(&back);
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(entries(&world), [1, 2]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn card_removed_while_daemon_down_is_new_entry_later() {
    let mut world = require!(world()).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.stop_daemon().unwrap();
    card.eject();
    wait_pcscd(&world, 0, false);
    world.start_daemon().unwrap();
    wait_card(&world, 0, "empty");
    world.kill9_daemon().unwrap();
    let back = world.insert(0, GidsCard::seed()).unwrap();
    wait_powered(&back);
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    world.finish().unwrap();
}

#[test]
fn card_swapped_between_two_polls_is_new_entry() {
    let world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.freeze_daemon().unwrap();
    card.eject();
    wait_pcscd(&world, 0, false);
    let swapped = world.insert(0, other()).unwrap();
    wait_powered(&swapped);
    world.thaw_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(column(&world, "card_id"), [CARD, OTHER], "same reader, same ATR, another card");
    wait_idle(&world, 0);
    assert_eq!(entries(&world), [1, 2]);
    world.finish().unwrap();
}

#[test]
fn alternating_cards_make_one_entry_per_insertion() {
    let world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut expected = Vec::new();
    for insertion in 0..10 {
        let (id, card) =
            if insertion % 2 == 0 { (CARD, GidsCard::seed()) } else { (OTHER, other()) };
        let mut card = world.insert(0, card).unwrap();
        expected.push(id);
        world.wait_for_outcomes(expected.len(), LONG).unwrap();
        card.eject();
        wait_card(&world, 0, "empty");
    }
    assert_eq!(column(&world, "card_id"), expected);
    assert_eq!(entries(&world), (1..=10).collect::<Vec<_>>());
    let outcomes = world.outcomes().unwrap();
    assert_eq!(outcomes[..2], ["updated", "updated"]);
    assert!(outcomes[2..].iter().all(|outcome| outcome == "already-set"), "{outcomes:?}");
    assert_eq!(world.cm.puts().len(), 2);
    world.finish().unwrap();
}

#[test]
fn insertion_leaves_one_line_even_if_torn_out() {
    let world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut expected = Vec::new();
    // A fourth torn card would only be counted.
    for round in 0..3 {
        let torn = Faults { slow: Duration::from_millis(50), ..Faults::default() };
        let mut card = world.insert_with(0, GidsCard::seed(), torn).unwrap();
        card.wait_for("the first command", LONG, |state| !state.exchanges.is_empty()).unwrap();
        card.eject();
        // vpcd does not notice a card that is swapped in the middle of a command.
        wait_card(&world, 0, "empty");
        let mut read = world.insert(0, other()).unwrap();
        expected.extend(["not-identified", if round == 0 { "updated" } else { "already-set" }]);
        assert_eq!(world.wait_for_outcomes(expected.len(), LONG).unwrap(), expected);
        read.eject();
        wait_card(&world, 0, "empty");
    }
    for line in world.audit().unwrap().iter().step_by(2) {
        assert_eq!(line["reason"], "removed", "{line}");
    }
    assert_eq!(entries(&world), [1, 2, 3]);
    assert_eq!(status(&world), ACTIVE, "the torn card was never looked up");
    world.finish().unwrap();
}

#[test]
fn card_torn_out_at_any_command_is_reported() {
    let world = require!(world());
    // A reader for each three: further failures alike are only counted.
    let world = world.double(Double::Ifd).readers(16).start().unwrap();
    for (step, reader) in (1..).zip((0..16).flat_map(|reader| [reader; 3])) {
        let torn = Faults { remove_at: Some(step), ..Faults::default() };
        let done = world.outcomes().unwrap().len();
        let mut card = world.insert_with(reader, GidsCard::seed(), torn).unwrap();
        let outcome = world.wait_for_outcomes(done + 1, LONG).unwrap().remove(done);
        card.eject();
        wait_card(&world, reader, "empty");
        if outcome != "not-identified" {
            assert!(step > 3, "there are more commands than {step}");
            break;
        }
        assert_eq!(column(&world, "reason")[done], "removed", "at command {step}");
        assert_eq!(status(&world), ACTIVE, "the torn card was never looked up");
    }
    world.finish().unwrap();
}

#[test]
fn sixteen_readers_make_sixteen_updates() {
    let world = require!(world());
    let ids: Vec<String> = (1..=16_u128).map(|n| drawn_id(n).to_string()).collect();
    let known: Vec<&str> = ids.iter().map(String::as_str).collect();
    let world = world.readers(16).cm(cm_with(&known)).start().unwrap();
    let cards: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(reader, id)| world.insert(reader, GidsCard::new(cardid(id))).unwrap())
        .collect();
    assert_eq!(world.wait_for_outcomes(16, LONG).unwrap(), ["updated"; 16]);
    assert_eq!(world.cm.puts().iter().filter(|put| put.applied).count(), 16);

    let mut seen: Vec<_> =
        column(&world, "reader").into_iter().zip(column(&world, "card_id")).collect();
    seen.sort();
    let mut expected: Vec<_> = world.pcscd.reader_names().into_iter().zip(ids).collect();
    expected.sort();
    assert_eq!(seen, expected, "each card in its own reader");
    drop(cards);
    world.finish().unwrap();
}
