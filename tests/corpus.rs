//! Replays the fuzzers' corpus without a fuzzer: what was once worth trying is tried with every
//! `cargo test`. Two targets need access to the crate that only a fuzzer's build has: `tlv` and
//! `exchange` are left to `make fuzz`.

#![expect(
    unreachable_pub,
    dead_code,
    reason = "the modules are public in the crate of the targets, which uses all of them"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a check fails by panicking, and a test says where it is"
)]

#[path = "fuzz/src/atr.rs"]
mod atr;
#[path = "fuzz/src/card.rs"]
mod card;
#[path = "fuzz/src/cm_json.rs"]
mod cm_json;
#[path = "fuzz/src/config.rs"]
mod config;
#[path = "fuzz/src/hostile.rs"]
mod hostile;

use std::fs;
use std::path::Path;

use cardbridge::card::{CommandApdu, Transmit};
use cardbridge::domain::Family;

/// Calls the check for every file of a target's corpus.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    let mut count = 0;
    for file in files {
        // A check that fails does not know which file it had.
        println!("{}", file.display());
        check(&fs::read(&file).unwrap());
        count += 1;
    }
    assert!(count >= 10, "only {count} files in the corpus of {target}");
}

#[test]
fn atrs() {
    replay("atr", atr::check);
}

#[test]
fn answers_of_cm() {
    replay("cm_json", cm_json::check);
}

#[test]
fn configurations() {
    replay("config", config::check);
}

#[test]
fn cards_of_every_family() {
    for family in Family::ALL {
        replay(family.as_str(), |data| card::check(family, data));
    }
}

#[test]
fn hostile_card_matches_its_description() {
    let answers = [vec![], vec![0x90, 0x00], vec![1; 0xFF], vec![2; 300]];
    let mut card = hostile::Hostile::new(&hostile::encode(hostile::TORN_OUT, &answers));
    let command = CommandApdu::get_data(0, 0);
    for answer in answers {
        assert_eq!(card.transmit(&command), Ok(answer));
    }
    assert!(card.transmit(&command).is_err() && card.gone);
}
