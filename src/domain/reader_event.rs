//! What the reader threads report.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Atr, CardIdentity, InsertionId, NotIdentified, ReaderAttributes, ReaderName, Removal};

/// One run of pcscd, in one boot of the machine, with the same USB devices attached.
///
/// Within one instance pcscd counts every insertion and removal in a reader. So a card whose reader
/// has the same count as before was not moved, even if the daemon did not run meanwhile. Across two
/// instances the count proves nothing. The text is opaque: compare it, never interpret it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PcscdInstance(String);

impl PcscdInstance {
    /// An instance, by everything that identifies it.
    pub const fn new(evidence: String) -> Self {
        Self(evidence)
    }
}

/// A card that a reader reports.
#[derive(Debug, Clone)]
pub struct InsertedCard {
    /// The reader.
    pub reader: ReaderName,
    /// The insertion.
    pub insertion: InsertionId,
    /// The card's ATR.
    pub atr: Atr,
    /// pcscd's count of insertions and removals in this reader, modulo 65536.
    pub event_count: u32,
    /// The card was there at the first poll after the reader or pcscd came.
    pub at_start: bool,
}

/// One command to a card and the response to it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApduExchange {
    /// The command's bytes.
    pub command: Vec<u8>,
    /// The response's bytes; none where the exchange failed.
    pub response: Vec<u8>,
    /// How long it took.
    pub duration: Duration,
}

impl fmt::Debug for ApduExchange {
    /// Prints lengths, not bytes: those belong in no log above TRACE.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("command", &self.command.len())
            .field("response", &self.response.len())
            .field("took", &self.duration)
            .finish()
    }
}

/// Something that happened at the readers.
///
/// For each reader, `CardInserted` or `CardMute` alternates strictly with `CardRemoved`. Whatever
/// changes in a reader ends its insertion: a card swapped between two polls, a mute card that
/// another program got to answer, and a card whose ATR became another one are each a `CardRemoved`
/// followed by a new insertion.
#[derive(Debug, Clone)]
pub enum ReaderEvent {
    /// Readers can be watched.
    PcscdConnected,
    /// Readers cannot be watched: every reader is gone, and every card with it. Repeated when the
    /// reason changes, which is text with a remedy.
    PcscdUnavailable { reason: String },
    /// Everything that was there when pcscd came up was reported.
    InitialScanDone,
    /// `instance` is absent where it is not certain.
    ReaderAttached { reader: ReaderName, instance: Option<PcscdInstance> },
    /// What a reader's driver reports; empty where it cannot be asked.
    AttributesRead { reader: ReaderName, attributes: ReaderAttributes },
    /// A reader is gone; its card went before it.
    ReaderDetached { reader: ReaderName },
    /// A card is in a reader and has answered.
    CardInserted(InsertedCard),
    /// A card is in a reader and does not answer.
    CardMute { reader: ReaderName, insertion: InsertionId },
    /// A card, mute or not, is out of its reader.
    CardRemoved { reader: ReaderName, insertion: InsertionId, removal: Removal },
    /// The probe has read the identity, or a part of it, without the inventory. `ProbeFinished`
    /// follows, unless the card leaves or hangs.
    Identified { reader: ReaderName, insertion: InsertionId, identity: CardIdentity },
    /// No other program uses the card in a reader in which a probe found one.
    CardReleased { reader: ReaderName },
    /// A probe ended. Each probe is answered once, unless it was abandoned or a later probe in the
    /// same reader took its place.
    ProbeFinished {
        reader: ReaderName,
        insertion: InsertionId,
        result: Result<CardIdentity, NotIdentified>,
        exchanges: Vec<ApduExchange>,
    },
}
