//! pcscd rejects the daemon: commands show why, and a remedy.

use cardbridge_harness::pcscd::{Trouble, code, has_polkit};

use super::*;

/// Why the readers cannot be watched.
fn reason(world: &World) -> String {
    wait_service(world, "unavailable");
    daemon_status(world)["pcscd"]["reason"].as_str().unwrap().to_owned()
}

/// Says that the versions do not fit, and what to do about it.
fn assert_names_version(text: &str) {
    assert!(text.contains("another version than libpcsclite1"), "{text}");
    assert!(text.contains("restart pcscd and cardbridge") && !text.contains("broke"), "{text}");
}

#[test]
fn access_denied_by_pcscd_is_reported_with_remedy() {
    for trouble in [
        Trouble::answer(code::SECURITY_VIOLATION).on(Request::Establish),
        Trouble::cut_unread().on(Request::Version),
    ] {
        let mut world = require!(relayed()).without_daemon().start().unwrap();
        world.pcscd.relay().unwrap().make(trouble);
        world.start_daemon().unwrap();
        let reason = reason(&world);
        assert!(reason.contains("access_pcsc") && reason.contains("200"), "{reason}");
        let text = world.cli(&["status"]).unwrap().stdout;
        assert!(text.contains("access_pcsc"), "{text}");
        let check = world.cli(&["check"]).unwrap().stdout;
        assert!(check.contains("FAILED  pcsc-access") && check.contains("polkit rule"), "{check}");
        world.pcscd.relay().unwrap().clear_troubles();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn card_access_denied_is_reported_with_remedy() {
    for trouble in [
        // As from 2.0.1 on, and as before.
        Trouble::answer(code::SECURITY_VIOLATION).on(Request::Connect),
        Trouble::cut_unread().on(Request::Connect),
    ] {
        let world = require!(relayed()).start().unwrap();
        world.pcscd.relay().unwrap().make(trouble);
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        let view = wait_card(&world, 0, "not-identified");
        assert_eq!(view["error"]["reason"], "read-error", "{view}");
        let detail = view["error"]["detail"].as_str().unwrap();
        assert!(detail.contains("access_card"), "{view}");
        assert!(world.cli(&["status"]).unwrap().stdout.contains("access_card"));
        let check = world.cli(&["check"]).unwrap().stdout;
        assert!(check.contains("FAILED  pcsc-access") && check.contains("polkit rule"), "{check}");
        wait_service(&world, "connected");
        world.pcscd.relay().unwrap().clear_troubles();
        card.eject();
        wait_card(&world, 0, "empty");
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn pcscd_of_other_version_is_reported() {
    // An older one and a newer one, which say so; and an answer that only a code is left of.
    for trouble in [
        Trouble::speak(4, 3),
        Trouble::speak(5, 0),
        Trouble::answer(code::SERVICE_STOPPED).on(Request::Version),
    ] {
        let mut world = require!(relayed()).without_daemon().start().unwrap();
        world.pcscd.relay().unwrap().make(trouble);
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        world.start_daemon().unwrap();
        assert_names_version(&reason(&world));
        assert_names_version(&world.cli(&["status"]).unwrap().stdout);
        assert_names_version(&world.cli(&["check"]).unwrap().stdout);
        world.pcscd.relay().unwrap().clear_troubles();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn unknown_requests_are_reported_as_version_mismatch() {
    // A request that is not understood ends the connection, with or without a rest of it unread.
    for trouble in [Trouble::cut(), Trouble::cut_unread()] {
        for request in [Request::States, Request::Wait, Request::Unwait] {
            let mut world = require!(relayed()).without_daemon().start().unwrap();
            world.pcscd.relay().unwrap().make(trouble.clone().on(request));
            let _card = world.insert(0, GidsCard::seed()).unwrap();
            world.start_daemon().unwrap();
            let is_reported = || {
                let reason = daemon_status(&world)["pcscd"]["reason"].as_str().map(str::to_owned);
                reason.is_some_and(|reason| reason.contains("another version than libpcsclite1"))
            };
            world
                .wait_until(&format!("{request:?} to be reported as that"), LONG, is_reported)
                .unwrap();
            assert_names_version(&world.cli(&["status"]).unwrap().stdout);
            // Nothing was said of readers or cards meanwhile, and no attempt follows the other at once.
            assert!(!world.daemon_log().contains("Connected to pcscd"), "{request:?}");
            let relay = world.pcscd.relay().unwrap();
            assert!(asked(relay, Request::Version) < 12, "{:?}", relay.requests());
            relay.clear_troubles();
            assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
            world.finish().unwrap();
        }
    }
}

#[test]
fn restarted_pcscd_is_no_version_mismatch() {
    let mut world = require!(ifd()).start().unwrap();
    wait_service(&world, "connected");
    for _ in 0..4 {
        world.pcscd.kill9().unwrap();
        wait_service(&world, "unavailable");
        world.pcscd.restart().unwrap();
        wait_service(&world, "connected");
    }
    assert!(!world.daemon_log().contains("another version"), "{}", world.daemon_log());
    world.finish().unwrap();
}

#[test]
fn polkit_rejection_is_reported_with_remedy() {
    let real = has_polkit();
    let builder = if real { require!(world()).with_polkit() } else { require!(relayed()) };
    let mut world = builder.without_daemon().start().unwrap();
    if !real {
        cardbridge_harness::replaced("pcscd is built without polkit: the relay rejects for it");
        // As pcscd does it: it closes the connection and has read nothing.
        world.pcscd.relay().unwrap().make(Trouble::cut_unread().on(Request::Version));
    }
    world.start_daemon().unwrap();
    // A library that still writes when pcscd closes takes it for one that does not run.
    let is_reported = || {
        let reason = daemon_status(&world)["pcscd"]["reason"].as_str().map(str::to_owned);
        reason.is_some_and(|reason| reason.contains("org.debian.pcsc-lite.access_pcsc"))
    };
    world.wait_until("the remedy", LONG, is_reported).unwrap();
    world.finish().unwrap();
}

#[test]
fn refused_protocol_is_retried_once_then_reported() {
    let world = require!(relayed()).start().unwrap();
    let relay = world.pcscd.relay().unwrap();
    relay.make(Trouble::answer(code::PROTO_MISMATCH).on(Request::Connect).times(1));
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    card.eject();
    wait_card(&world, 0, "empty");
    relay.make(Trouble::answer(code::PROTO_MISMATCH).on(Request::Connect));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "not-identified"]);
    let view = wait_card(&world, 0, "not-identified");
    assert!(view["error"]["detail"].as_str().unwrap().contains("no common protocol"), "{view}");
    world.finish().unwrap();
}
