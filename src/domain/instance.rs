//! What a reader was watched through, for as long as nobody can have touched a card unseen.

use serde::{Deserialize, Serialize};

/// One run of pcscd, in one boot of the machine, with the same USB devices attached.
///
/// Within one instance pcscd counts every insertion and removal in a reader. So a card whose reader
/// has the same count as before was not moved, even if the agent did not run meanwhile. Across two
/// instances the count proves nothing. The text is opaque: it is compared, never interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PcscdInstance(String);

impl PcscdInstance {
    /// An instance, by everything that identifies it.
    #[must_use]
    pub const fn new(evidence: String) -> Self {
        Self(evidence)
    }
}
