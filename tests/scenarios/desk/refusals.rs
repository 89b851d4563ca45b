//! pcscd says no: whoever looks is told why, and what to do about it.

use cardbridge_harness::pcscd::{Trouble, code};

use super::*;

/// Why the readers cannot be watched.
fn reason(world: &World) -> String {
    wait_service(world, "down");
    told(world)["pcscd"]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_pcscd_that_lets_nobody_in_is_told_with_the_remedy_and_waited_for() {
    for trouble in [
        Trouble::answer(code::SECURITY_VIOLATION).on(Request::Establish),
        Trouble::cut_unread().on(Request::Version),
    ] {
        let mut world = fake().without_daemon().start().unwrap();
        world.pcscd.fake().unwrap().make(trouble);
        world.start_daemon().unwrap();
        let reason = reason(&world);
        assert!(reason.contains("access_pcsc") && reason.contains("200"), "{reason}");
        let text = world.cli(&["status"]).unwrap().stdout;
        assert!(text.contains("access_pcsc"), "{text}");
        let check = world.cli(&["check"]).unwrap().stdout;
        assert!(check.contains("FAILED  permission") && check.contains("polkit rule"), "{check}");
        world.pcscd.fake().unwrap().clear_troubles();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn a_card_that_pcscd_does_not_let_us_use_is_told_with_the_remedy() {
    for trouble in [
        // As from 2.0.1 on, and as before.
        Trouble::answer(code::SECURITY_VIOLATION).on(Request::Connect),
        Trouble::cut_unread().on(Request::Connect),
    ] {
        let world = fake().start().unwrap();
        world.pcscd.fake().unwrap().make(trouble);
        let mut card = world.insert(0, GidsCard::seed()).unwrap();
        let told = wait_card(&world, 0, "not-identified");
        assert_eq!(told["why"]["reason"], "failed", "{told}");
        let detail = told["why"]["detail"].as_str().unwrap();
        assert!(detail.contains("access_card"), "{told}");
        assert!(world.cli(&["status"]).unwrap().stdout.contains("access_card"));
        let check = world.cli(&["check"]).unwrap().stdout;
        assert!(check.contains("FAILED  permission") && check.contains("polkit rule"), "{check}");
        wait_service(&world, "up");
        world.pcscd.fake().unwrap().clear_troubles();
        card.eject();
        wait_card(&world, 0, "empty");
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
        world.finish().unwrap();
    }
}

#[test]
fn a_pcscd_of_another_version_is_told_so() {
    let mut world = fake().without_daemon().start().unwrap();
    let trouble = Trouble::answer(code::SERVICE_STOPPED).on(Request::Version);
    world.pcscd.fake().unwrap().make(trouble);
    world.start_daemon().unwrap();
    let reason = reason(&world);
    assert!(reason.contains("another version than libpcsclite1"), "{reason}");
    world.pcscd.fake().unwrap().clear_troubles();
    wait_service(&world, "up");
    world.finish().unwrap();
}

#[test]
fn a_protocol_that_is_refused_once_is_asked_for_again_and_one_that_always_is_is_told() {
    let world = fake().start().unwrap();
    let fake = world.pcscd.fake().unwrap();
    fake.make(Trouble::answer(code::PROTO_MISMATCH).on(Request::Connect).times(1));
    let mut card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    card.eject();
    wait_card(&world, 0, "empty");
    fake.make(Trouble::answer(code::PROTO_MISMATCH).on(Request::Connect));
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "not-identified"]);
    let told = wait_card(&world, 0, "not-identified");
    assert!(told["why"]["detail"].as_str().unwrap().contains("T=0 nor T=1"), "{told}");
    world.finish().unwrap();
}
