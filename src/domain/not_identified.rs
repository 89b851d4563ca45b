//! Cards whose identity is not known, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Atr, AtrPattern, Inventory, ReaderSettings};

/// A card that was seen but whose identity is not known, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotIdentified {
    /// The kind of reason.
    pub reason: NotIdentifiedReason,
    /// What happened, for people.
    pub detail: String,
    /// What the card says of itself all the same.
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
}

impl NotIdentified {
    /// A card that said nothing of itself.
    #[must_use]
    pub fn new(reason: NotIdentifiedReason, detail: String) -> Self {
        Self { reason, detail, inventory: Inventory::default() }
    }

    /// Why a card is not to be touched, if the configuration says so.
    #[must_use]
    pub fn skipped_by_config(
        place: &ReaderSettings,
        skip_atr: &[AtrPattern],
        atr: &Atr,
    ) -> Option<Self> {
        let detail = if skip_atr.iter().any(|pattern| pattern.matches(atr)) {
            "cards.skip_atr names its ATR"
        } else if place.enabled {
            return None;
        } else {
            "the reader is switched off"
        };
        Some(Self::new(NotIdentifiedReason::Skipped, detail.to_owned()))
    }
}

/// Why a card's identity is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotIdentifiedReason {
    /// No family that is switched on recognised it.
    UnknownFamily,
    /// The family is known, but the card holds no usable id.
    #[serde(alias = "no-id")]
    NoCardId,
    /// It did not answer at power-up: upside down, dirty or dead.
    Mute,
    /// Another program has it for itself, or uses it in a way that we would disturb.
    #[serde(alias = "busy")]
    InUse,
    /// It was taken out before it was read.
    Removed,
    /// It did not answer within the deadline.
    Timeout,
    /// The configuration says to leave it alone (`cards.skip_atr`).
    Skipped,
    /// Reader or card failed on the way.
    #[serde(alias = "failed")]
    ReadError,
}

impl NotIdentifiedReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownFamily,
        Self::NoCardId,
        Self::Mute,
        Self::InUse,
        Self::Removed,
        Self::Timeout,
        Self::Skipped,
        Self::ReadError,
    ];

    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFamily => "unknown-family",
            Self::NoCardId => "no-card-id",
            Self::Mute => "mute",
            Self::InUse => "in-use",
            Self::Removed => "removed",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
            Self::ReadError => "read-error",
        }
    }
}

impl fmt::Display for NotIdentifiedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
