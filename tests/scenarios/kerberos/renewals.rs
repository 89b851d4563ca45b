//! Tickets that end, and KDCs that are away, while cards go on.

use std::time::Instant;

use cardbridge_harness::cards::InsertedCard;
use uuid::Uuid;

use super::*;

const SHORT: KdcOptions = KdcOptions {
    realm: String::new(),
    ticket_life: Duration::from_secs(6),
    clock_skew: Duration::from_secs(2),
    timesync: true,
};

fn short() -> KdcOptions {
    KdcOptions { realm: KdcOptions::default().realm, ..SHORT }
}

/// A card that CM does not know: three calls, and an outcome.
fn unknown_card(world: &World, reader: usize) -> InsertedCard {
    let id = Uuid::new_v4();
    world.insert(reader, GidsCard::new(id.to_bytes_le())).unwrap()
}

/// Puts a card in and waits until CM was asked about it.
fn ask(world: &World, count: usize) {
    let card = unknown_card(world, 0);
    let outcomes = world.wait_for_outcomes(count, LONG).unwrap();
    assert_eq!(outcomes.len(), count);
    assert!(outcomes.iter().all(|outcome| outcome == "unknown-card"), "{outcomes:?}");
    drop(card);
    // A reader that is looked at now and then takes two cards for one.
    let removed = || world.daemon_log().matches("Card removed").count() == count;
    world.wait_until("the card's removal", LONG, removed).unwrap();
}

fn is_away(world: &World) -> bool {
    world.daemon_log().contains("CM unavailable")
}

fn log_says(world: &World, message: &str) {
    world.wait_until(message, LONG, || world.daemon_log().contains(message)).unwrap();
}

#[test]
fn tickets_are_renewed_before_they_end_without_a_gap() {
    let builder = require!(world());
    let kdc = require!(realm(short()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    let mut count = 0;
    // Four logins are three renewals.
    while kdc.requests().as_issued < 4 {
        count += 1;
        ask(&world, count);
    }
    assert!(!apache.log().contains(" 401 "), "{}", apache.log());
    assert!(!is_away(&world));
    // Each ticket was used for most of its life.
    let requests = kdc.requests();
    assert!(requests.tgs_issued <= requests.as_issued, "{requests:?}");
    world.finish().unwrap();
}

#[test]
fn ticket_is_renewed_while_idle() {
    let builder = require!(world());
    let kdc = require!(realm(short()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    ask(&world, 1);
    let end = |view: &serde_json::Value| -> jiff::Timestamp {
        view["valid_until"].as_str().unwrap().parse().unwrap()
    };
    let first = end(&credentials(&world));
    let renewed = || kdc.requests().as_issued == 2;
    world.wait_until("the next login", LONG, renewed).unwrap();
    let now = jiff::Timestamp::now();
    assert!(now < first, "{now} is after {first}");
    world.wait_until("the next ticket", LONG, || end(&credentials(&world)) > first).unwrap();
    world.finish().unwrap();
}

#[test]
fn lost_kdc_is_logged_and_used_when_back() {
    let builder = require!(world());
    let mut kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    kdc.stop().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    log_says(&world, "Cannot contact any KDC for realm");
    let trouble = credentials(&world)["renewal_error"].to_string();
    assert!(trouble.contains("check the network and the KDC"), "{trouble}");
    let output = world.cli(&["status"]).unwrap().stdout;
    assert!(output.contains("(credentials)"), "{output}");
    kdc.start_again().unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert!(credentials(&world)["renewal_error"].is_null());
    world.finish().unwrap();
}

#[test]
fn silent_kdc_with_valid_ticket_delays_no_card() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    ask(&world, 1);
    kdc.swallow().unwrap();
    // The keytab is another file, so that a new ticket is asked for, which takes half a minute.
    kdc.keytab(STATION).unwrap();
    let started = Instant::now();
    let card = unknown_card(&world, 1);
    world.wait_for_outcomes(2, LONG).unwrap();
    drop(card);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let outcomes = world.wait_for_outcomes(3, LONG).unwrap();
    assert_eq!(outcomes.last().map(String::as_str), Some("updated"), "{outcomes:?}");
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}: the KDC held up the calls");
    assert_eq!(kdc.requests().as_issued, 1);
    kdc.answer_again().unwrap();
    let renewed = || kdc.requests().as_issued == 2;
    world.wait_until("the new ticket", Duration::from_mins(1), renewed).unwrap();
    world.finish().unwrap();
}

#[test]
fn silent_kdc_without_ticket_delays_only_calls() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let builder = station(builder, &kdc, cm, &apache.url());
    let mut world = builder.config_set("cm.timeout", "\"2s\"").start().unwrap();
    kdc.swallow().unwrap();
    let started = Instant::now();
    let first = world.insert(0, GidsCard::seed()).unwrap();
    log_says(&world, "Entry queued");
    log_says(&world, "the KDC has been silent for");
    // The thread is still there, and so are cards.
    let card = unknown_card(&world, 1);
    let queued = || world.daemon_log().matches("Entry queued").count() == 2;
    world.wait_until("the second entry", LONG, queued).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // A reload leaves the thread alone, and starts another; the daemon ends with both.
    world.reload_daemon().unwrap();
    log_says(&world, "Configuration reloaded");
    world.stop_daemon().unwrap();
    drop((first, card));
    world.finish().unwrap();
}

/// How many threads of this name the daemon has.
fn threads(world: &World, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", world.daemon_pid().unwrap())).unwrap();
    let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    names.flatten().filter(|known| known.trim() == name).count()
}

#[test]
fn reload_logs_in_again_and_leaves_no_thread() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    assert_eq!((threads(&world, "kerberos"), threads(&world, "gssapi")), (0, 0));
    for count in 1..=3 {
        ask(&world, count);
        assert_eq!(kdc.requests().as_issued, count);
        let one = || (threads(&world, "kerberos"), threads(&world, "gssapi")) == (1, 1);
        world.wait_until("one thread of each kind", LONG, one).unwrap();
        world.reload_daemon().unwrap();
        let none = || (threads(&world, "kerberos"), threads(&world, "gssapi")) == (0, 0);
        world.wait_until("no thread of the old client", LONG, none).unwrap();
    }
    world.finish().unwrap();
}

#[test]
fn a_new_keytab_is_taken_up_by_the_running_daemon() {
    let builder = require!(world());
    let kdc = require!(realm(short()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    ask(&world, 1);
    kdc.rekey(STATION).unwrap();
    // The keytab is stale: the next renewal fails.
    log_says(&world, "Kerberos ticket request failed");
    let trouble = credentials(&world)["renewal_error"].to_string();
    assert!(trouble.contains("changed after the keytab was created"), "{trouble}");
    let refused = kdc.requests().as_refused;
    assert!((1..=2).contains(&refused), "the account is not locked: {}", kdc.log());
    kdc.keytab(STATION).unwrap();
    ask(&world, 2);
    log_says(&world, "Kerberos ticket obtained after earlier failures");
    assert_eq!(kdc.requests().as_refused, refused);
    assert!(credentials(&world)["renewal_error"].is_null());
    world.finish().unwrap();
}

#[test]
fn new_server_key_gets_new_ticket() {
    let builder = require!(world());
    let kdc = require!(realm(KdcOptions::default()));
    let (cm, apache) = apache(&kdc, |_| ());
    let world = station(builder, &kdc, cm, &apache.url()).start().unwrap();
    ask(&world, 1);
    kdc.rekey(kdc::WEB_SERVICE).unwrap();
    // Only the new key: what the station has is of no use any more.
    fs::remove_file(kdc.keytab(kdc::WEB_SERVICE).unwrap()).unwrap();
    apache.set_keytab(&kdc.keytab(kdc::WEB_SERVICE).unwrap()).unwrap();
    ask(&world, 2);
    assert!(apache.log().contains(" 401 "), "{}", apache.log());
    assert!(!is_away(&world));
    assert_eq!(kdc.requests().as_issued, 2);
    world.finish().unwrap();
}
