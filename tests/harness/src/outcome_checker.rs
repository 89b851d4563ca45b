//! The checker of a run in which the agent was killed and CM misbehaved: what it
//! claims in its log and its audit trail, against what reached CM.
//!
//! The checker knows the contract and nothing of the agent's code. It takes no
//! side in what happened in which order inside the agent: it only asks what the
//! agent can have known when it asked CM for a change.

mod claims;
pub mod insertions;
mod puts;

use serde_json::Value;

use crate::cm::{LogEntry, Store};

/// What a run left behind.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What CM knew before; during the run only the agent changed it.
    pub before: &'a Store,
    /// What CM knows now.
    pub after: &'a Store,
    /// Every call that reached CM.
    pub calls: &'a [LogEntry],
    /// The audit trail, a value a line.
    pub audit: &'a [Value],
    /// The agent's log over all its lives, at level debug.
    pub log: &'a str,
}

/// Everything that must not have happened, as text; empty where all is well.
#[must_use]
pub fn complaints(evidence: &Evidence<'_>) -> Vec<String> {
    let mut found = claims::outcomes(evidence);
    found.extend(claims::cards(evidence));
    found.extend(puts::unjustified(evidence));
    found
}

/// The rules that the agent has without configuration: a request's type, and the
/// status that it asks for.
const RULES: [(u32, &str, u32); 2] = [(7, "Retired", 6), (4, "Disabled", 3)];
