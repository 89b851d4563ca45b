//! What a family's probe brings home, and why it may bring nothing.

use uuid::Uuid;

use super::Interrupted;
use super::apdu::Command;
use super::exchange::NoAnswer;
use crate::domain::{Candidate, CardId, IdRule, Serial};

/// What a card of a family said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The serial for people.
    pub(super) serial: Serial,
    /// The ids that can be made of it, the likeliest first; none that no particular card has.
    pub(super) candidates: Vec<Candidate>,
    /// What selects the application that was read.
    pub(super) home: Option<Command>,
}

/// Why one family's probe brought no reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Not a card of this family: ask the next one.
    OtherFamily(String),
    /// A card of this family, without a usable id.
    NoId(String),
    /// The probe could not be finished.
    Interrupted(Interrupted),
}

impl Miss {
    /// A refusal that means that the card is of another family.
    pub(super) fn other_family(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Interrupted(why) => Self::Interrupted(why),
            NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless => {
                Self::OtherFamily(why.to_string())
            }
        }
    }

    /// A refusal of `what` by a card of the family.
    pub(super) fn no_id(what: &str, why: NoAnswer) -> Self {
        match why {
            NoAnswer::Interrupted(why) => Self::Interrupted(why),
            NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless => {
                Self::NoId(format!("{what}: {why}"))
            }
        }
    }
}

/// The answer, where the card gave one.
pub(super) fn where_given<T>(answer: Result<T, NoAnswer>) -> Result<Option<T>, Interrupted> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(NoAnswer::Interrupted(why)) => Err(why),
        Err(NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless) => Ok(None),
    }
}

impl From<Interrupted> for Miss {
    fn from(why: Interrupted) -> Self {
        Self::Interrupted(why)
    }
}

/// The id that 16 bytes are as a Windows GUID in memory order: the first three fields little-endian.
pub(super) fn le(rule: IdRule, bytes: [u8; 16]) -> Option<Candidate> {
    candidate(rule, Uuid::from_bytes_le(bytes))
}

/// The id that 16 bytes are in reading order.
pub(super) fn be(rule: IdRule, bytes: [u8; 16]) -> Option<Candidate> {
    candidate(rule, Uuid::from_bytes(bytes))
}

/// No candidate where no particular card has such an id.
fn candidate(rule: IdRule, uuid: Uuid) -> Option<Candidate> {
    CardId::try_from(uuid).ok().map(|card_id| Candidate { card_id, rule })
}
