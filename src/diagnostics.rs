//! `check`: every step from the configuration to CM's answer, each a line with its remedy.
//!
//! The steps come in the order in which a card's entry takes them: this machine's readers and
//! outbox first, then the way of a packet. After a step that fails, those that need it are
//! skipped, and say so. Nothing is changed anywhere, at CM least of all.

mod check_result;
mod cm;
mod local;
mod network;

use std::path::Path;

use crate::cm::CmClient;
use crate::domain::ReaderRules;

pub use check_result::{CheckResult, CheckStatus, CheckStep, FailureClass};

/// Takes each finding when it is made: some steps take seconds.
pub type ResultSink<'a> = &'a mut dyn FnMut(CheckResult);

/// What is looked at on this machine.
#[derive(Debug, Clone, Copy)]
pub struct LocalInputs<'a> {
    /// The outbox's file.
    pub outbox: &'a Path,
    /// The daemon's socket.
    pub socket: &'a Path,
    /// Which readers count.
    pub readers: &'a ReaderRules,
}

/// Looks at readers and outbox.
pub async fn examine_station(station: LocalInputs<'_>, tell: ResultSink<'_>) {
    local::examine(station, tell).await;
}

/// Goes the way to CM.
pub async fn examine_cm(remote: &CmClient, tell: ResultSink<'_>) {
    if network::examine(remote, tell).await {
        cm::run(remote, tell).await;
    } else {
        skip(cm::STEPS, "CM was not reached", tell);
    }
}

/// Tells that steps were not taken, and why.
pub fn skip(steps: &[CheckStep], why: &str, tell: ResultSink<'_>) {
    for step in steps {
        tell(CheckResult::skipped(*step, why));
    }
}
