//! What a family's probe brings home, and why it may bring nothing.

use uuid::Uuid;

use super::TransmitError;
use super::apdu::CommandApdu;
use super::exchange::ExchangeError;
use crate::domain::{Candidate, CardId, IdRule, Serial, Strength, is_placeholder};

/// What a card of a family said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CardReading {
    /// The serial for people.
    pub(super) serial: Serial,
    /// The ids that can be made of it, the likeliest first.
    pub(super) candidates: Vec<Candidate>,
    /// The rules whose ids are known to belong to no card: a site cannot pin them.
    pub(super) placeholders: Vec<IdRule>,
    /// What selects the application that was read.
    pub(super) reselect: Option<CommandApdu>,
}

impl CardReading {
    /// What a card said, with the ids that were made of it.
    pub(super) fn new(
        serial: Serial,
        ids: impl IntoIterator<Item = Option<ReadId>>,
        home: Option<CommandApdu>,
    ) -> Self {
        let ids: Vec<_> = ids.into_iter().flatten().collect();
        let placeholders = ids.iter().filter(|id| id.worth == IdWorth::Placeholder);
        Self {
            serial,
            placeholders: placeholders.map(|id| id.candidate.rule).collect(),
            candidates: ids.into_iter().map(|id| id.candidate).collect(),
            reselect: home,
        }
    }
}

/// What an id is worth, by the value that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdWorth {
    /// Drawn for this card.
    Unique,
    /// A serial number that its issuer gives out once.
    Serial,
    /// More than one card can carry it.
    Shared,
    /// It is known to belong to no card.
    Placeholder,
}

impl IdWorth {
    /// What 16 bytes are worth that a card has as its id.
    pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
        if is_placeholder(bytes) { Self::Placeholder } else { Self::Unique }
    }

    const fn strength(self) -> Strength {
        match self {
            Self::Unique => Strength::Unique,
            Self::Serial => Strength::Serial,
            Self::Shared | Self::Placeholder => Strength::Shared,
        }
    }
}

/// An id, and what it is worth.
pub(super) struct ReadId {
    candidate: Candidate,
    worth: IdWorth,
}

/// Why one family's probe brought no reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoReading {
    /// Not a card of this family: ask the next one.
    OtherFamily(String),
    /// A card of this family, without a usable id.
    NoId(String),
    /// The probe could not be finished.
    Interrupted(TransmitError),
}

impl NoReading {
    /// A refusal that means that the card is of another family.
    pub(super) fn other_family(why: ExchangeError) -> Self {
        match why {
            ExchangeError::Interrupted(why) => Self::Interrupted(why),
            ExchangeError::Refused(_) | ExchangeError::Truncated(_) | ExchangeError::TooLong => {
                Self::OtherFamily(why.to_string())
            }
        }
    }

    /// A refusal of `what` by a card of the family.
    pub(super) fn no_id(what: &str, why: ExchangeError) -> Self {
        match why {
            ExchangeError::Interrupted(why) => Self::Interrupted(why),
            ExchangeError::Refused(_) | ExchangeError::Truncated(_) | ExchangeError::TooLong => {
                Self::NoId(format!("{what}: {why}"))
            }
        }
    }
}

/// The answer, where the card gave one.
pub(super) fn where_given<T>(answer: Result<T, ExchangeError>) -> Result<Option<T>, TransmitError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ExchangeError::Interrupted(why)) => Err(why),
        Err(ExchangeError::Refused(_) | ExchangeError::Truncated(_) | ExchangeError::TooLong) => {
            Ok(None)
        }
    }
}

impl From<TransmitError> for NoReading {
    fn from(why: TransmitError) -> Self {
        Self::Interrupted(why)
    }
}

/// The id that 16 bytes are as a Windows GUID in memory order: the first three fields little-endian.
pub(super) fn le(rule: IdRule, bytes: [u8; 16], worth: IdWorth) -> Option<ReadId> {
    id(rule, Uuid::from_bytes_le(bytes), worth)
}

/// The id that 16 bytes are in reading order.
pub(super) fn be(rule: IdRule, bytes: [u8; 16], worth: IdWorth) -> Option<ReadId> {
    id(rule, Uuid::from_bytes(bytes), worth)
}

/// No id where CM would have none: all zeros, or all ones.
fn id(rule: IdRule, uuid: Uuid, worth: IdWorth) -> Option<ReadId> {
    let card_id = CardId::try_from(uuid).ok()?;
    let candidate = Candidate { card_id, rule, strength: worth.strength(), pinned: false };
    Some(ReadId { candidate, worth })
}
