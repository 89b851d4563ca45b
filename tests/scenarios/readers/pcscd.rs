//! pcscd comes, goes, and hangs; the daemon goes on.

use super::*;

/// How many descriptors and threads the daemon has.
fn holdings(world: &World) -> (usize, usize) {
    let pid = world.daemon_pid().unwrap();
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

#[test]
fn new_card_is_processed_after_each_pcscd_restart() {
    let mut world = require!(world()).start().unwrap();
    let mut outcomes = 0;
    let mut before = None;
    for round in 0..5 {
        let card = world.insert(1, GidsCard::seed()).unwrap();
        outcomes += 1;
        world.wait_for_outcomes(outcomes, LONG).unwrap();
        drop(card);
        wait_card(&world, 1, "empty");
        // What a first card loads for good is there by the second round.
        if round == 1 {
            let quiet = || holdings(&world).1 <= 4;
            world.wait_until("threads that only linger to end", LONG, quiet).unwrap();
            before = Some(holdings(&world));
        }
        world.pcscd.kill9().unwrap();
        wait_service(&world, "unavailable");
        assert_eq!(daemon_status(&world)["readers"].as_array().unwrap().len(), 0);
        world.pcscd.restart().unwrap();
        wait_service(&world, "connected");
        assert_eq!(daemon_status(&world)["readers"].as_array().unwrap().len(), 2);
    }
    let as_before = || Some(holdings(&world)) == before;
    let same = world.wait_until("descriptors and threads as before", LONG, as_before);
    same.unwrap_or_else(|error| panic!("{error}: {:?} after {before:?}", holdings(&world)));
    assert_eq!(world.outcomes().unwrap().len(), 5);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn card_present_over_pcscd_restart_is_set_once() {
    let mut world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    // vpcd finds a card only after its first poll, which a real reader's driver does not need. The
    // daemon is held until then, so that it meets what it would meet with a real one.
    world.freeze_daemon().unwrap();
    world.pcscd.restart().unwrap();
    wait_pcscd(&world, 0, true);
    let settled = world.daemon_log().matches("Initial reader scan finished").count();
    world.thaw_daemon().unwrap();
    let again = || world.daemon_log().matches("Initial reader scan finished").count() > settled;
    world.wait_until("the readers to be known again", LONG, again).unwrap();
    wait_idle(&world, 0);
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(card_in(&world, 0)["entry"], 2, "it is unknown whether it stayed");
    let _other = world.insert(1, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(3, LONG).unwrap()[2], "updated");
    assert_eq!(column(&world, "card_id"), [CARD, CARD, OTHER]);
    assert_eq!(world.cm.puts().len(), 2, "one for each card");
    world.finish().unwrap();
}

#[test]
fn card_inserted_while_all_was_down_is_processed() {
    // The counter of the new pcscd is 0 for a card that it found, as it was for the old pcscd.
    for found_by_both in [false, true] {
        let world = require!(ifd());
        let cm = CmOptions {
            store: Store { requests: Vec::new(), ..Store::seed() },
            ..CmOptions::default()
        };
        let mut world = world.cm(cm).without_daemon().start().unwrap();
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        if found_by_both {
            world.pcscd.restart().unwrap();
        }
        world.start_daemon().unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["nothing-to-do"]);
        world.stop_daemon().unwrap();
        card.eject();
        world.cm.add_request(cardbridge_harness::cm::Request::seed());
        let _again = world.insert(0, GidsCard::seed()).unwrap();
        world.pcscd.restart().unwrap();
        world.start_daemon().unwrap();
        let outcomes = world.wait_for_outcomes(2, LONG).unwrap();
        assert_eq!(outcomes, ["nothing-to-do", "updated"], "found by both: {found_by_both}");
        assert_eq!(status(&world), RETIRED);
        world.finish().unwrap();
    }
}

#[test]
fn unknown_pcscd_instance_means_new_insertion() {
    let mut world = require!(world()).start().unwrap();
    let pid_file = world.pcscd.socket_path().with_file_name("pcscd.pid");
    assert!(pid_file.exists(), "pcscd writes it");
    std::fs::remove_file(&pid_file).unwrap();
    world.stop_daemon().unwrap();
    world.start_daemon().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.stop_daemon().unwrap();
    world.start_daemon().unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "already-set"]);
    assert_eq!(world.cm.puts().len(), 1);
    world.finish().unwrap();
}

#[test]
fn card_swapped_while_pcscd_down_is_new_entry() {
    let mut world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    world.wait_for_outcomes(1, LONG).unwrap();
    world.pcscd.kill9().unwrap();
    card.eject();
    world.pcscd.restart().unwrap();
    let _other = world.insert(0, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "updated"]);
    assert_eq!(column(&world, "card_id"), [CARD, OTHER]);
    world.finish().unwrap();
}

#[test]
fn pcscd_may_die_while_a_card_is_read() {
    let mut world = require!(world()).start().unwrap();
    let card = world.insert(0, GidsCard::seed()).unwrap();
    card.hang_at(2);
    card.wait_for("the second command", LONG, |state| state.hanging).unwrap();
    world.pcscd.restart().unwrap();
    card.release();
    let updated = || world.outcomes().unwrap().iter().any(|outcome| outcome == "updated");
    world.wait_until("the card to be read after all", LONG, updated).unwrap();
    assert_eq!(world.outcomes().unwrap(), ["not-identified", "updated"]);
    assert_eq!(world.audit().unwrap()[0]["reason"], "read-error");
    world.finish().unwrap();
}

#[test]
fn daemon_started_before_pcscd_connects_later() {
    for crashed in [false, true] {
        let mut world = require!(world()).without_daemon().start().unwrap();
        if crashed {
            world.pcscd.kill9().unwrap();
        } else {
            world.pcscd.stop().unwrap();
        }
        world.start_daemon().unwrap();
        wait_service(&world, "unavailable");
        let reason = daemon_status(&world)["pcscd"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("pcscd is not running"), "{reason}");
        world.pcscd.restart().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn hung_pcscd_delays_neither_status_nor_stop() {
    let mut world = require!(world()).start().unwrap();
    wait_service(&world, "connected");
    world.pcscd.freeze().unwrap();
    let asked = Instant::now();
    daemon_status(&world);
    assert!(asked.elapsed() < Duration::from_secs(2), "status took {:?}", asked.elapsed());
    world.stop_daemon().unwrap();

    world.start_daemon().unwrap();
    world.stop_daemon().unwrap();
    world.start_daemon().unwrap();
    assert_eq!(daemon_status(&world)["pcscd"]["state"], "connecting");
    world.pcscd.thaw().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}
