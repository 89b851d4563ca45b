//! CM's objects and enumerations, and the results of calls to CM.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Atr, Candidate, UnavailableReason};

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// `None` for all zeros: CM's form of "none".
            pub fn new(uuid: Uuid) -> Option<Self> {
                (!uuid.is_nil()).then_some(Self(uuid))
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

guid! {
    /// `Uuid` of a smart card's record in CM: the `scid` of its URLs.
    RecordId
}
guid! {
    /// `Uuid` of a request in CM: the `reqid` of its URLs.
    RequestId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// A number of CM's, known to cardbridge or not.
            pub const fn new(number: i64) -> Self {
                Self(number)
            }

            pub const fn number(self) -> i64 {
                self.0
            }
        }
    };
}

number! {
    /// `Status` of a smart card's record.
    CardStatus
}
number! {
    /// `RequestType` of a request.
    RequestType
}
number! {
    /// `Status` of a request.
    RequestStatus
}

/// A smart card's record in CM. A card that was assigned again has more than one.
#[derive(Debug, Clone, PartialEq)]
pub struct CardRecord {
    pub id: RecordId,
    pub status: CardStatus,
    /// As CM wrote it: `{guid}` for Base CSP cards.
    pub serial_number: String,
    pub middleware: String,
    /// Where CM has one that can be parsed.
    pub atr: Option<Atr>,
    /// The object as it was received: JSON, at most as long as a response may be.
    pub raw: Box<str>,
}

/// A request in CM that is open: Approved or Executing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmRequest {
    pub id: RequestId,
    pub request_type: RequestType,
    pub status: RequestStatus,
    /// `OldSmartcardUuid`, unless empty.
    pub old_card: Option<RecordId>,
    /// `NewSmartcardUuid`, unless empty.
    pub new_card: Option<RecordId>,
    pub submitted: Option<Timestamp>,
}

impl CmRequest {
    /// Whether either link of the request is this record.
    pub fn names(&self, record: RecordId) -> bool {
        self.old_card == Some(record) || self.new_card == Some(record)
    }
}

/// Names of one enumeration of CM's. A number without a name stays a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumMap(Vec<(String, i64)>);

impl EnumMap {
    fn of(pairs: &[(&str, i64)]) -> Self {
        Self(pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect())
    }

    /// The number of a name, whatever its case.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
    }

    /// The name of a number, in CM's spelling.
    pub fn name(&self, number: i64) -> Option<&str> {
        self.0.iter().find(|(_, known)| *known == number).map(|(name, _)| name.as_str())
    }

    fn describe(&self, number: i64) -> String {
        self.name(number).map_or_else(|| format!("{number} (unknown)"), str::to_owned)
    }

    /// Gives `name` this number, in place of whatever either was before.
    pub fn set(&mut self, name: &str, number: i64) {
        self.0.retain(|(known, taken)| !known.eq_ignore_ascii_case(name) && *taken != number);
        self.0.push((name.to_owned(), number));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, number)| (name.as_str(), *number))
    }
}

/// CM's enumerations. A site may extend or correct each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmEnums {
    /// `SmartcardStatus`.
    pub card_status: EnumMap,
    pub request_type: EnumMap,
    pub request_status: EnumMap,
}

impl Default for CmEnums {
    /// What is known of CM's numbers; `docs/cm-protocol.md` says how sure each is.
    fn default() -> Self {
        Self {
            card_status: EnumMap::of(&[
                ("New", 0),
                ("Assigned", 1),
                ("Active", 2),
                ("Disabled", 3),
                ("Retired", 6),
            ]),
            request_type: EnumMap::of(&[
                ("Enroll", 1),
                ("Recover", 2),
                ("Renew", 3),
                ("Disable", 4),
                ("Unblock", 5),
                ("Duplicate", 6),
                ("Retire", 7),
                ("RecoverOnBehalf", 8),
                ("SuspendOrReinstate", 9),
                ("OnlineUpdate", 10),
                ("TemporaryCardEnroll", 11),
            ]),
            request_status: EnumMap::of(&[
                ("None", 0),
                ("Approved", 3),
                ("Denied", 4),
                ("Completed", 8),
                ("Failed", 9),
                ("Pending", 16),
                ("Canceled", 17),
                ("Executing", 18),
            ]),
        }
    }
}

impl CmEnums {
    pub fn card_status_text(&self, status: CardStatus) -> String {
        self.card_status.describe(status.number())
    }

    pub fn request_type_text(&self, kind: RequestType) -> String {
        self.request_type.describe(kind.number())
    }

    pub fn request_status_text(&self, status: RequestStatus) -> String {
        self.request_status.describe(status.number())
    }
}

/// What CM knows about a card.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupResult {
    /// The first candidate that CM has records for, and those records.
    pub records: Option<(Candidate, Vec<CardRecord>)>,
    /// The open requests (Approved or Executing) that name one of those records.
    pub requests: Vec<CmRequest>,
}

/// What a status update led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetStatusResult {
    /// CM responded with the record, which has the new status.
    Confirmed(CardStatus),
    /// CM accepted it, but did not say what the status is: the record has to be read.
    Unconfirmed,
}

/// What completing a request led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompleteRequestResult {
    /// CM responded with the request, which is completed.
    Confirmed,
    /// CM accepted it, but did not say what the request's status is: the request has to be read.
    Unconfirmed,
}

/// Why a call did not give what was asked for, in the kinds that the engine can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// CM cannot be used: wait, nothing is decided.
    #[error("CM is unavailable: {detail}")]
    Unavailable {
        reason: UnavailableReason,
        detail: String,
        /// How long CM asked to wait.
        retry_after: Option<Duration>,
    },
    /// CM failed on this call. Whether CM is unavailable or this card makes it fail shows when others
    /// are tried.
    #[error("CM failed to process the call: {detail}")]
    Failed {
        http_status: u16,
        detail: String,
        /// The id that finds the entry in the server's event log.
        correlation_id: Option<String>,
        retry_after: Option<Duration>,
    },
    /// CM understood and refused.
    #[error("CM refused the call: {detail}")]
    Refused { http_status: u16, detail: String, correlation_id: Option<String> },
    /// CM responded about something else than what was asked.
    #[error("unexpected response from CM: {detail}")]
    UnexpectedResponse { detail: String },
}

impl CallError {
    /// CM is unavailable, and did not say for how long.
    pub const fn unavailable(reason: UnavailableReason, detail: String) -> Self {
        Self::Unavailable { reason, detail, retry_after: None }
    }

    /// What happened, without the kind in front.
    pub fn detail(&self) -> &str {
        match self {
            Self::Unavailable { detail, .. }
            | Self::Failed { detail, .. }
            | Self::Refused { detail, .. }
            | Self::UnexpectedResponse { detail } => detail,
        }
    }

    /// The kind in one term: `refused`, `failed`, `unexpected-response`, or why CM is unavailable.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { reason, .. } => reason.as_str(),
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::UnexpectedResponse { .. } => "unexpected-response",
        }
    }

    pub const fn unavailable_reason(&self) -> Option<UnavailableReason> {
        if let Self::Unavailable { reason, .. } = self { Some(*reason) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_corrects_and_extends_enum_map() {
        let mut numbers = CmEnums::default();
        numbers.card_status.set("Suspended", 5);
        numbers.request_type.set("retire", 17);
        assert_eq!(numbers.card_status.name(5), Some("Suspended"));
        assert_eq!(numbers.request_type.number("Retire"), Some(17));
        assert_eq!(numbers.request_type.name(7), None);
    }

    #[test]
    fn unknown_number_is_described() {
        assert_eq!(CmEnums::default().card_status_text(CardStatus::new(5)), "5 (unknown)");
    }
}
