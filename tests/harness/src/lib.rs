//! The judge of cardbridge: hermetic PC/SC, virtual cards, a CM simulator and
//! worlds that run the real binary.
//!
//! Nothing here depends on the cardbridge crate: harness and daemon share the
//! protocols, never the code that speaks them.

pub mod acceptor;
pub mod apache;
pub mod cards;
pub mod cm;
pub mod kdc;
pub mod netns;
pub mod outcome_checker;
pub mod pcscd;
pub mod pki;
mod ports;
pub mod process;
pub mod proxy;
pub mod require;
mod server;
pub mod systemd;
pub mod world;

use std::io::Write as _;

/// Prints, past the capture of the test runner, that a double was tested in place of the real thing.
pub fn replaced(reason: &str) {
    print("REPLACED", reason);
}

fn print(what: &str, reason: &str) {
    drop(std::io::stderr().write_all(format!("{what}: {reason}\n").as_bytes()));
}
