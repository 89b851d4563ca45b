//! What came of asking CM, in the few kinds that the engine can do something about.

use std::time::Duration;

use super::{Candidate, CardRecord, CardStatus, CmRequest, UnavailableReason};

/// What CM knows about a card.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupResult {
    /// The first candidate that CM has records for, and those records.
    /// `None`: CM has no record for any candidate.
    pub records: Option<(Candidate, Vec<CardRecord>)>,
    /// The open requests (Approved or Executing) that name one of those records.
    pub requests: Vec<CmRequest>,
}

/// How CM took a status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetStatusResult {
    /// It answered with the record, and the record has the new status.
    Confirmed(CardStatus),
    /// It said yes, but not what the status is: the record has to be read.
    Unconfirmed,
}

/// How CM took it that a request is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteRequestResult {
    /// It answered with the request, and the request is completed.
    Confirmed,
    /// It said yes, but not where the request stands: the request has to be read.
    Unconfirmed,
}

/// Why a call did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// CM is not there, or not yet ready to talk: wait, nothing is decided.
    #[error("CM is unavailable: {detail}")]
    Unavailable {
        /// What kind of away.
        reason: UnavailableReason,
        /// What happened, for people.
        detail: String,
        /// How long CM asked to wait.
        retry_after: Option<Duration>,
    },
    /// CM failed on this very call. Whether CM is away or this card is the trouble shows
    /// when others are tried.
    #[error("CM failed to process the call: {detail}")]
    Failed {
        /// The HTTP status.
        http_status: u16,
        /// CM's own words.
        detail: String,
        /// The id that finds the entry in the server's event log.
        correlation_id: Option<String>,
        /// How long CM asked to wait.
        retry_after: Option<Duration>,
    },
    /// CM understood and said no.
    #[error("CM refused the call: {detail}")]
    Refused {
        /// The HTTP status.
        http_status: u16,
        /// CM's own words.
        detail: String,
        /// The id that finds the entry in the server's event log.
        correlation_id: Option<String>,
    },
    /// CM answered about something else than what was asked.
    #[error("unexpected response from CM: {detail}")]
    UnexpectedResponse {
        /// What is wrong with it.
        detail: String,
    },
}

impl CallError {
    /// CM is unavailable, and did not say for how long.
    #[must_use]
    pub const fn unavailable(reason: UnavailableReason, detail: String) -> Self {
        Self::Unavailable { reason, detail, retry_after: None }
    }

    /// What happened, without the kind in front.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Unavailable { detail, .. }
            | Self::Failed { detail, .. }
            | Self::Refused { detail, .. }
            | Self::UnexpectedResponse { detail } => detail,
        }
    }

    /// The kind as one word: `refused`, `failed`, `unexpected-response`, or how CM is away.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { reason, .. } => reason.as_str(),
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::UnexpectedResponse { .. } => "unexpected-response",
        }
    }

    /// Which kind of away it is, where it is one.
    #[must_use]
    pub const fn unavailable_reason(&self) -> Option<UnavailableReason> {
        match self {
            Self::Unavailable { reason, .. } => Some(*reason),
            Self::Failed { .. } | Self::Refused { .. } | Self::UnexpectedResponse { .. } => None,
        }
    }
}
