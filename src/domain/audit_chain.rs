//! What a look along the audit trail's chain finds.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPosition {
    /// The line's number; 0 where there is none.
    pub seq: i64,
    /// The line's time.
    pub at: Option<Timestamp>,
    /// The chain's hash at this line, in hex.
    pub hash: String,
}

/// What kind of trouble a place in the chain has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainFaultKind {
    /// The line is not what was written there, or was written elsewhere.
    Changed,
    /// Lines are gone.
    Missing,
    /// A line is where none should be.
    Extra,
    /// The file was damaged, and the daemon began a new one with what was readable.
    Restarted,
    /// What says where the chain begins or ends is not what was written.
    Boundary,
}

/// Something that is wrong with the audit trail, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFault {
    /// What kind of trouble.
    pub kind: ChainFaultKind,
    /// The first line that it is about.
    pub seq: i64,
    /// The last line that it is about.
    pub last: i64,
    /// That line's time; for missing lines, the time of the last one before them.
    pub at: Option<Timestamp>,
    /// What is wrong, in words.
    pub detail: String,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seq, self.last) {
            (first, last) if first == last => write!(f, "line {first}")?,
            (first, last) => write!(f, "lines {first} to {last}")?,
        }
        let time = match self.kind {
            ChainFaultKind::Missing => "after ",
            ChainFaultKind::Changed
            | ChainFaultKind::Extra
            | ChainFaultKind::Restarted
            | ChainFaultKind::Boundary => "",
        };
        if let Some(at) = self.at {
            write!(f, " ({time}{at})")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What was found along a piece of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainBatch {
    /// How many lines were looked at.
    pub lines: u64,
    /// What is wrong with them, in their order.
    pub faults: Vec<ChainFault>,
    /// The last line that was pruned.
    pub anchor: Option<ChainPosition>,
    /// The newest line.
    pub head: Option<ChainPosition>,
    /// Where the next piece begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
