//! CM's objects, as far as the agent reads them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Atr;

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id, unless it is all zeros: CM's way to say "none".
            #[must_use]
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
            /// CM's number, known to us or not.
            #[must_use]
            pub const fn new(number: i64) -> Self {
                Self(number)
            }

            /// CM's number.
            #[must_use]
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
    /// CM's id of the record.
    pub id: RecordId,
    /// Its status.
    pub status: CardStatus,
    /// `SerialNumber`, as CM wrote it: `{guid}` for Base CSP cards.
    pub serial_number: String,
    /// `Middleware`, as CM wrote it.
    pub middleware: String,
    /// `Atr`, where CM has one that can be read.
    pub atr: Option<Atr>,
    /// The object as it was received: JSON, at most as long as an answer may be.
    pub raw: Box<str>,
}

/// A request in CM that is open: Approved or Executing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmRequest {
    /// CM's id of the request.
    pub id: RequestId,
    /// What is asked for.
    pub request_type: RequestType,
    /// Where it stands.
    pub status: RequestStatus,
    /// `OldSmartcardUuid`, unless empty.
    pub old_card: Option<RecordId>,
    /// `NewSmartcardUuid`, unless empty.
    pub new_card: Option<RecordId>,
    /// When it was submitted, where CM says so.
    pub submitted: Option<Timestamp>,
}

impl CmRequest {
    /// Whether the request is about this record.
    #[must_use]
    pub fn names(&self, record: RecordId) -> bool {
        self.old_card == Some(record) || self.new_card == Some(record)
    }
}
