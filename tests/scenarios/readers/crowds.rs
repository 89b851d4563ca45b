//! Many threads of one process at pcscd. What they share is libpcsclite, which lets them down.

use std::env;
use std::thread;

use cardbridge::readers::{PcscdCheck, attributes, check_pcscd};

use super::*;

/// Set where this test runs once more, as a process of its own that may die.
const INSIDE: &str = "CARDBRIDGE_TEST_INSIDE";

#[test]
fn concurrent_pcscd_connections_do_not_crash() {
    if env::var_os(INSIDE).is_some() {
        return crowd();
    }
    let world = require!(ifd()).readers(16).without_daemon().start().unwrap();
    let _cards: Vec<_> =
        (0..16).map(|reader| world.insert(reader, GidsCard::seed()).unwrap()).collect();
    wait_pcscd(&world, 15, true);
    for _ in 0..10 {
        let mut inside = Command::new(env::current_exe().unwrap());
        inside.arg("connections_that_many_threads_make_and_end").arg("--nocapture");
        inside.env(INSIDE, "").env("PCSCLITE_CSOCK_NAME", world.pcscd.socket_path());
        let output = inside.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    world.finish().unwrap();
}

/// Each reader is described again and again, by a thread for each.
fn crowd() {
    let PcscdCheck::Available { readers, .. } = check_pcscd(LONG) else {
        panic!("pcscd does not answer")
    };
    assert_eq!(readers.len(), 16);
    thread::scope(|scope| {
        for (reader, _) in &readers {
            scope.spawn(move || {
                for _ in 0..200 {
                    assert!(attributes(reader, LONG).vendor.is_some(), "{reader}");
                }
            });
        }
    });
}
