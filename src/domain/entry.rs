//! Entries: what the outbox keeps of an insertion until it is settled.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Atr, BootMoment, Candidate, CardIdentity, CardKey, CardStatus, Outcome, ParkReason,
    PcscdInstance, ReaderName, RecordId, RequestId,
};

/// An entry's number in the outbox; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(i64);

impl EntryId {
    /// The number that the outbox gave.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, std::num::ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A card was put in. What was stored before there were others has no trigger, and means this.
    #[default]
    Inserted,
    /// An identified card was taken out of a reader that stayed.
    Removed,
}

impl Trigger {
    /// The name in output and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Removed => "removed",
        }
    }

    /// Whether a card was put in.
    #[must_use]
    pub const fn is_insertion(&self) -> bool {
        matches!(self, Self::Inserted)
    }
}

/// An identified card that came or went, on its way into the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardEvent {
    /// Whether it came or went.
    #[serde(default, skip_serializing_if = "Trigger::is_insertion")]
    pub trigger: Trigger,
    /// When the card was seen to come, or to go.
    pub seen_at: Timestamp,
    /// Where.
    pub reader: ReaderName,
    /// What people call the reader.
    pub label: String,
    /// The reader's role, for the rules.
    pub role: String,
    /// The reader's PC/SC event counter at that moment.
    pub event_count: u32,
    /// The card's ATR.
    pub atr: Atr,
    /// Who the card is.
    pub identity: CardIdentity,
    /// When it was seen, counted from the machine's start: for how long it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_moment: Option<BootMoment>,
}

impl CardEvent {
    /// What makes two insertions the same card.
    #[must_use]
    pub fn card_key(&self) -> CardKey {
        self.identity.key(&self.atr)
    }
}

/// How far an entry has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub enum Stage {
    /// On disk; CM was not asked to change anything.
    Queued,
    /// A status update was decided and may have been sent: read the record before sending again.
    Sent(Decision),
    /// CM said that the record has the status; that the request is completed may have been sent:
    /// read record and request before sending again.
    Completing(Decision),
    /// Settled as parked: it waits for a person.
    Parked {
        /// Why.
        reason: ParkReason,
        /// In words.
        detail: String,
        /// What was decided and may have been sent: read the record before sending again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Decision>,
    },
}

impl Stage {
    /// What was decided and may have been sent.
    #[must_use]
    pub const fn sent(&self) -> Option<&Decision> {
        match self {
            Self::Queued => None,
            Self::Sent(decision) | Self::Completing(decision) => Some(decision),
            Self::Parked { sent, .. } => sent.as_ref(),
        }
    }

    /// The stage of an entry that waits for CM, when this may have been sent.
    #[must_use]
    pub fn waiting(sent: Option<Decision>) -> Self {
        sent.map_or(Self::Queued, Self::Sent)
    }

    /// The stage in which an entry that is in this one waits for CM: that of a parked one too, once
    /// a person took it up again.
    #[must_use]
    pub fn resumed(&self) -> Self {
        match self {
            Self::Queued | Self::Sent(_) | Self::Completing(_) => self.clone(),
            Self::Parked { sent, .. } => Self::waiting(sent.clone()),
        }
    }

    /// The stage of an entry whose end is to wait for a person.
    #[must_use]
    pub fn parked(end: &Settlement) -> Option<Self> {
        let reason = end.outcome.park_reason()?;
        Some(Self::Parked { reason, detail: end.detail.clone(), sent: end.decision.clone() })
    }
}

/// An entry of the outbox that waits, for CM or for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: EntryId,
    /// The insertion.
    pub card_event: CardEvent,
    /// How far it has come.
    pub stage: Stage,
}

/// What the rules decided to have CM set, and on what grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The name of the rule.
    pub rule: String,
    /// The candidate that CM knew.
    pub candidate: Candidate,
    /// The record to change.
    pub record: RecordId,
    /// The request that asks for it.
    pub request: RequestId,
    /// The record's status before.
    #[serde(alias = "from")]
    pub old_status: CardStatus,
    /// The status to set, as number.
    #[serde(alias = "to")]
    pub new_status: CardStatus,
    /// The status to set, by the name that CM is told.
    #[serde(alias = "to_name")]
    pub new_status_name: String,
    /// Whether the request is completed once the record has the status.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub complete_request: bool,
}

impl Decision {
    /// The outcome once CM did all of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.old_status == self.new_status { Outcome::AlreadySet } else { Outcome::Updated }
    }
}

/// The end of an entry, as it is audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The one outcome.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// What was decided, where it came so far.
    pub decision: Option<Decision>,
    /// The id under which CM had a record, where it was asked and had one.
    pub known_by: Option<Candidate>,
    /// Why, in words.
    pub detail: String,
    /// The HTTP status that ended it, where one did.
    pub http_status: Option<u16>,
    /// CM's id for its own log, where CM gave one.
    pub correlation_id: Option<String>,
    /// How often CM was asked.
    pub attempts: u32,
    /// From the insertion to the end.
    pub duration: Duration,
    /// The person who ended it, where one did.
    pub by: Option<String>,
}

/// The card that was last seen in a reader, as the outbox remembers it over a restart.
///
/// It tells a card that never left from one that was put in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeenCard {
    /// The reader.
    pub reader: ReaderName,
    /// The reader's PC/SC event counter when the card was seen.
    pub event_count: u32,
    /// The card's ATR.
    pub atr: Atr,
    /// The card.
    pub card: CardKey,
    /// The entry that the stay made.
    pub entry: EntryId,
    /// What the reader was watched through. Without it the counter proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<PcscdInstance>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Family, IdRule, Serial};

    fn draft(trigger: Trigger) -> CardEvent {
        let card_id = "bc88f13f-83ba-4037-8262-46eba1291c6e".parse().unwrap();
        let first = Candidate::by_rule(card_id, IdRule::GidsCardid);
        CardEvent {
            trigger,
            seen_at: Timestamp::UNIX_EPOCH,
            reader: "Left".into(),
            label: "Left".to_owned(),
            role: "desk".to_owned(),
            event_count: 1,
            atr: "3b00".parse().unwrap(),
            identity: CardIdentity::new(Family::Gids, Serial::from_bytes(&[1]), first, vec![]),
            boot_moment: None,
        }
    }

    #[test]
    fn what_was_stored_without_a_trigger_came() {
        let stored = serde_json::to_string(&draft(Trigger::Inserted)).unwrap();
        assert!(!stored.contains("trigger"), "insertions are stored as they always were: {stored}");
        assert_eq!(serde_json::from_str::<CardEvent>(&stored).unwrap(), draft(Trigger::Inserted));
        let removed = serde_json::to_string(&draft(Trigger::Removed)).unwrap();
        assert!(removed.starts_with(r#"{"trigger":"removed","#), "{removed}");
        assert_eq!(serde_json::from_str::<CardEvent>(&removed).unwrap(), draft(Trigger::Removed));
    }

    #[test]
    fn a_decision_that_was_stored_before_requests_were_completed_completes_none() {
        let decision = Decision {
            rule: "retire".to_owned(),
            candidate: draft(Trigger::Inserted).identity.primary().clone(),
            record: "17cf063d-e337-4aa9-a822-346554ddd3c9".parse().unwrap(),
            request: "b105403d-d021-41ea-9f11-be3d677d229e".parse().unwrap(),
            old_status: CardStatus::new(2),
            new_status: CardStatus::new(6),
            new_status_name: "Retired".to_owned(),
            complete_request: false,
        };
        let stored = serde_json::to_string(&Stage::Sent(decision.clone())).unwrap();
        assert!(!stored.contains("complete_request"), "{stored}");
        assert_eq!(serde_json::from_str::<Stage>(&stored).unwrap(), Stage::Sent(decision.clone()));
        let completing = Stage::Completing(Decision { complete_request: true, ..decision });
        let stored = serde_json::to_string(&completing).unwrap();
        assert!(stored.contains(r#""stage":"completing""#), "{stored}");
        assert_eq!(serde_json::from_str::<Stage>(&stored).unwrap(), completing);
        assert_eq!(completing.resumed(), completing);
    }
}
