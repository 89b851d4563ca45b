//! How an entry ends: exactly one of these, and one audit line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// CM confirmed the new status.
    Updated,
    /// The record had that status already.
    AlreadySet,
    /// No open request names the card, or no rule matches.
    NothingToDo,
    /// CM has no record for any candidate.
    UnknownCard,
    /// The card was read in part only until it left or hung, and CM knows nothing to do by that part.
    NotIdentified,
    /// A newer insertion of the same card took over.
    Superseded,
    /// It needs a person.
    Parked(ParkReason),
    /// A person removed it.
    Discarded,
}

impl Outcome {
    /// Every outcome, with every reason to park.
    pub const ALL: [Self; 14] = [
        Self::Updated,
        Self::AlreadySet,
        Self::NothingToDo,
        Self::UnknownCard,
        Self::NotIdentified,
        Self::Superseded,
        Self::Parked(ParkReason::Refused),
        Self::Parked(ParkReason::Ambiguous),
        Self::Parked(ParkReason::AtrMismatch),
        Self::Parked(ParkReason::SharedId),
        Self::Parked(ParkReason::RepeatedFailure),
        Self::Parked(ParkReason::UnexpectedResponse),
        Self::Parked(ParkReason::Expired),
        Self::Discarded,
    ];

    /// The name in output; why an entry is parked is told beside it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::AlreadySet => "already-set",
            Self::NothingToDo => "nothing-to-do",
            Self::UnknownCard => "unknown-card",
            Self::NotIdentified => "not-identified",
            Self::Superseded => "superseded",
            Self::Parked(_) => "parked",
            Self::Discarded => "discarded",
        }
    }

    /// Why a person is needed, where one is.
    #[must_use]
    pub const fn park_reason(self) -> Option<ParkReason> {
        match self {
            Self::Parked(reason) => Some(reason),
            Self::Updated
            | Self::AlreadySet
            | Self::NothingToDo
            | Self::UnknownCard
            | Self::NotIdentified
            | Self::Superseded
            | Self::Discarded => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an entry needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParkReason {
    /// CM said no: 403 and the like.
    Refused,
    /// More than one record or request could be meant.
    Ambiguous,
    /// CM's ATR is not the card's, and the configuration says to refuse then; or the id alone does
    /// not prove that the record is this card's, and no ATR does.
    AtrMismatch,
    /// CM has a record under an id that more than one card can carry.
    SharedId,
    /// CM fails on this card again and again while others go through.
    #[serde(alias = "rejected")]
    RepeatedFailure,
    /// CM's answer is about something else than what was asked.
    #[serde(alias = "wrong-answer")]
    UnexpectedResponse,
    /// It waited longer than `outbox.max_age`.
    Expired,
}

impl ParkReason {
    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Ambiguous => "ambiguous",
            Self::AtrMismatch => "atr-mismatch",
            Self::SharedId => "shared-id",
            Self::RepeatedFailure => "repeated-failure",
            Self::UnexpectedResponse => "unexpected-response",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
