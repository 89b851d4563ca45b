//! The servers in front of the simulator, judged by curl.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

mod acceptor;
mod apache;
mod curl;
mod https;
mod proxy;
mod quirks;
mod survivors;
mod tokens;

use std::time::Duration;

use cardbridge_harness::kdc::{Kdc, KdcOptions};

use curl::Curl;

const LONG: Duration = Duration::from_secs(30);
const AGENT: &str = "desk-3";

/// A realm, the agent logged in.
fn realm() -> (Kdc, Curl) {
    let kdc = Kdc::start(KdcOptions::default()).expect("the KDC starts");
    kdc.add_principal(AGENT).expect("a principal");
    let mut curl = Curl::default();
    curl.kinit(&kdc, AGENT);
    (kdc, curl)
}
