//! SIGKILL at every boundary between an insertion and its outcome.
//!
//! Held calls make the boundaries that CM sees; strace makes the others: it kills the daemon at
//! the entry of its n-th sync or write to disk, message to pcscd, request to CM or read from either,
//! for every n that there is. After each kill the daemon is started again with the card still in the reader.

use cardbridge_harness::cards::GidsCard;
use cardbridge_harness::cm::Fault;

use super::*;

/// After a kill: exactly one outcome, CM's record right, and no PUT repeated.
fn ends_well(world: &mut World, what: &str) {
    world.start_daemon().unwrap();
    let outcomes = world.wait_for_outcomes(1, LONG).unwrap();
    settled(world);
    assert_eq!(world.outcomes().unwrap(), outcomes, "{what}");
    assert_eq!(outcomes, ["updated"], "{what}");
    assert_eq!(status(world), RETIRED, "{what}");
    let applied = world.cm.puts().iter().filter(|put| put.applied).count();
    assert_eq!(applied, 1, "{what}:\n{}", world.cm.story());
}

/// Waits until the daemon has read the card that is in the reader and has nothing left to do.
fn settled(world: &World) {
    let quiet = || {
        let status = world.cli(&["status", "--json"]).unwrap().json().unwrap();
        status["readers"][0]["card"]["entry"].is_number() && status["outbox"]["waiting"] == 0
    };
    world.wait_until("the card to be done with", LONG, quiet).unwrap();
}

#[test]
fn killed_while_cm_is_asked_about_the_card() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::HoldBefore.times(1).method("GET").path("cardid"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    held.release();
    ends_well(&mut world, "asked");
    world.finish().unwrap();
}

#[test]
fn killed_before_cm_applies_the_put() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::Reset.times(1).method("PUT"));
    world.cm.set_fault(Fault::HoldBefore.times(1).method("GET").path("/smartcards/"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    // The PUT was cut off; the daemon is about to read the record back.
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    held.release();
    ends_well(&mut world, "the PUT was cut off");
    world.finish().unwrap();
}

#[test]
fn killed_after_cm_applied_the_put_and_before_it_answered() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::HoldAfter.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    held.release();
    ends_well(&mut world, "applied, not answered");
    assert_eq!(world.cm.puts().len(), 1, "an applied PUT is not repeated");
    world.finish().unwrap();
}

/// Kills the daemon at the entry of its n-th call of `syscall` with a card in the reader, for
/// every n until it is through before the n-th.
fn killed_at_every(syscall: &str) {
    require!(require::strace());
    let mut kills = 0;
    for n in 1.. {
        let mut world = require!(world()).without_daemon().start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        let inject = format!("inject={syscall}:signal=SIGKILL:when={n}");
        let trace = world.dir().join("trace").display().to_string();
        let strace =
            ["strace", "-f", "-qq", "-o", &trace, "-e", &format!("trace={syscall}"), "-e", &inject];
        // It may be killed before it answers on its socket: that is one of the moments.
        let through = world.start_daemon_under(&strace).is_ok() && survived(&mut world);
        if !through {
            kills += 1;
        }
        if world.daemon_running() {
            world.kill9_daemon().unwrap();
        }
        ends_well(&mut world, &format!("at {syscall} {n}"));
        world.finish().unwrap();
        if through {
            break;
        }
    }
    assert!(kills >= 3, "{syscall} killed only {kills} times");
}

/// Whether the daemon comes to the outcome before it is killed.
fn survived(world: &mut World) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < LONG {
        if !world.daemon_running() {
            return false;
        }
        if world.daemon_log().contains("Entry settled") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("neither killed nor through:\n{}", world.daemon_log());
}

#[test]
fn killed_at_every_sync_to_disk() {
    killed_at_every("fsync");
}

#[test]
fn killed_at_every_write_to_disk() {
    killed_at_every("pwrite64");
}

#[test]
fn killed_at_every_message_to_pcscd() {
    killed_at_every("sendto");
}

#[test]
fn killed_at_every_request_to_cm() {
    killed_at_every("writev");
}

#[test]
fn killed_at_every_answer() {
    killed_at_every("recvfrom");
}

#[test]
fn killed_while_the_put_is_on_its_way() {
    let mut world = require!(world()).start().unwrap();
    world.cm.set_fault(Fault::HoldBefore.times(1).method("PUT"));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let held = world.cm.wait_held(LONG).unwrap();
    world.kill9_daemon().unwrap();
    // CM drops it with the connection; whether it does is CM's business, once is what counts.
    held.release();
    ends_well(&mut world, "sent, not applied");
    world.finish().unwrap();
}
