//! The audit trail's line: who did what to which card, when, and on what grounds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Atr, CardEvent, CardId, CardStatus, Entry, EntryId, Family, IdRule, Inventory, NotIdentified,
    NotIdentifiedReason, Outcome, ParkReason, ReaderName, RecordId, RequestId, Serial, Settlement,
    Strength, Trigger,
};

/// What an audit line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditKind {
    /// An entry was settled.
    Outcome,
    /// A card was seen that could not be identified.
    NotIdentified,
    /// A person did something to an entry.
    #[serde(alias = "act")]
    OperatorAction,
    /// The outbox was damaged, and the trail goes on in a new file.
    #[serde(alias = "break")]
    ChainBreak,
    /// The trail has no room for lines that end no entry, or has it again.
    Notes,
}

/// One line of the audit trail. Its JSON is the public form; times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When it was settled, seen or done.
    pub at: Timestamp,
    /// The station's id.
    pub station: String,
    /// What the line is about.
    pub kind: AuditKind,
    /// The outcome, `not-identified`, or the act.
    pub outcome: String,
    /// Why, as one word, where the outcome alone does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in words.
    pub detail: String,
    /// The entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    /// The reader.
    pub reader: ReaderName,
    /// What people call the reader.
    pub label: String,
    /// Whether the card came or went; absent: it came.
    #[serde(default, skip_serializing_if = "Trigger::is_insertion")]
    pub trigger: Trigger,
    /// When the card was seen to come, or to go.
    pub seen_at: Timestamp,
    /// The card's ATR, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atr: Option<Atr>,
    /// The card's family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The card's serial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// What else the card said of itself.
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
    /// The id that CM knew, or else the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card_id: Option<CardId>,
    /// The rule that made that id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_rule: Option<IdRule>,
    /// How much that id proves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_strength: Option<Strength>,
    /// Whether the site pinned the rule for this card; absent: it did not.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub id_pinned: bool,
    /// The rule of the configuration that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// CM's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
    /// CM's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The record's status before, as number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_status: Option<CardStatus>,
    /// The status that the rule asks for, as number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_status: Option<CardStatus>,
    /// The same, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_status_name: Option<String>,
    /// The HTTP status that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// CM's id for its own log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// How often CM was asked.
    pub attempts: u32,
    /// Milliseconds from the insertion to the end.
    pub duration_ms: u64,
    /// The person, for an act and for an outcome that a person chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How many failures alike the line counts that have no line of their own; absent: it is about
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the first of them was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<Timestamp>,
    /// When the last of them was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// A line at its place in the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The line.
    #[serde(flatten)]
    pub line: AuditLine,
    /// Its number; numbers have no gaps.
    pub seq: i64,
    /// The chain's hash at this line, in hex.
    pub chain: String,
}

impl AuditLine {
    /// The outcome, where the line is about one.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let reason = |outcome: Outcome| outcome.park_reason().map(ParkReason::as_str);
        let is = |outcome: &Outcome| {
            outcome.as_str() == self.outcome && reason(*outcome) == self.reason.as_deref()
        };
        Outcome::ALL.into_iter().find(|outcome| self.kind == AuditKind::Outcome && is(outcome))
    }

    /// The line of a settled entry.
    #[must_use]
    pub fn settled(station: &str, entry: EntryId, draft: &CardEvent, end: &Settlement) -> Self {
        let decision = end.decision.as_ref();
        let known_by = decision.map(|decision| &decision.candidate).or(end.known_by.as_ref());
        let candidate = known_by.unwrap_or_else(|| draft.identity.primary());
        Self {
            at: end.at,
            station: station.to_owned(),
            kind: AuditKind::Outcome,
            outcome: end.outcome.as_str().to_owned(),
            reason: end.outcome.park_reason().map(|reason| reason.as_str().to_owned()),
            detail: end.detail.clone(),
            entry: Some(entry),
            reader: draft.reader.clone(),
            label: draft.label.clone(),
            trigger: draft.trigger,
            seen_at: draft.seen_at,
            atr: Some(draft.atr.clone()),
            family: Some(draft.identity.family),
            serial: Some(draft.identity.serial.clone()),
            inventory: draft.identity.inventory.clone(),
            card_id: Some(candidate.card_id),
            id_rule: Some(candidate.rule),
            id_strength: Some(candidate.strength),
            id_pinned: candidate.pinned,
            rule: decision.map(|d| d.rule.clone()),
            record: decision.map(|d| d.record),
            request: decision.map(|d| d.request),
            old_status: decision.map(|d| d.old_status),
            new_status: decision.map(|d| d.new_status),
            new_status_name: decision.map(|d| d.new_status_name.clone()),
            http_status: end.http_status,
            correlation_id: end.correlation_id.clone(),
            attempts: end.attempts,
            duration_ms: u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
            by: end.by.clone(),
            count: None,
            first_seen_at: None,
            last_seen_at: None,
        }
    }

    /// The line of a card that could not be identified.
    #[must_use]
    pub fn not_identified(
        station: &str,
        (reader, label): (&ReaderName, &str),
        atr: Option<Atr>,
        at: Timestamp,
        why: &NotIdentified,
    ) -> Self {
        Self {
            at,
            station: station.to_owned(),
            kind: AuditKind::NotIdentified,
            outcome: "not-identified".to_owned(),
            reason: Some(why.reason.as_str().to_owned()),
            detail: why.detail.clone(),
            entry: None,
            reader: reader.clone(),
            label: label.to_owned(),
            trigger: Trigger::Inserted,
            seen_at: at,
            atr,
            family: None,
            serial: None,
            inventory: why.inventory.clone(),
            card_id: None,
            id_rule: None,
            id_strength: None,
            id_pinned: false,
            rule: None,
            record: None,
            request: None,
            old_status: None,
            new_status: None,
            new_status_name: None,
            http_status: None,
            correlation_id: None,
            attempts: 0,
            duration_ms: 0,
            by: None,
            count: None,
            first_seen_at: None,
            last_seen_at: None,
        }
    }

    /// The line for more failures like this one, all of which it counts.
    #[must_use]
    pub fn repeated(
        self,
        at: Timestamp,
        count: u64,
        (first, last): (Timestamp, Timestamp),
    ) -> Self {
        let times = if count == 1 { "time" } else { "times" };
        Self {
            at,
            seen_at: last,
            detail: format!("{count} more {times}: {}", self.detail),
            count: Some(count),
            first_seen_at: Some(first),
            last_seen_at: Some(last),
            ..self
        }
    }

    /// The line of a break in the trail: what is before it was carried over from a damaged file.
    #[must_use]
    pub fn chain_break(station: &str, at: Timestamp, detail: String) -> Self {
        let nowhere = NotIdentified::new(NotIdentifiedReason::ReadError, detail);
        Self {
            kind: AuditKind::ChainBreak,
            outcome: "outbox-damaged".to_owned(),
            reason: None,
            ..Self::not_identified(station, (&"".into(), ""), None, at, &nowhere)
        }
    }

    /// The line after which none is written that ends no entry, until some were pruned.
    #[must_use]
    pub fn notes_stopped(station: &str, at: Timestamp) -> Self {
        let detail = "the audit trail has no room for more notes: cards that cannot be identified \
                      are not audited until old lines were pruned; entries are";
        Self::of_notes("notes-stopped", station, at, detail.to_owned())
    }

    /// The line of so many lines that had no room, due between these moments.
    #[must_use]
    pub fn notes_resumed(
        station: &str,
        at: Timestamp,
        refused: u64,
        (first, last): (Timestamp, Timestamp),
    ) -> Self {
        let detail = format!("{refused} notes had no room in the audit trail");
        Self {
            count: Some(refused),
            first_seen_at: Some(first),
            last_seen_at: Some(last),
            ..Self::of_notes("notes-resumed", station, at, detail)
        }
    }

    fn of_notes(outcome: &str, station: &str, at: Timestamp, detail: String) -> Self {
        Self {
            kind: AuditKind::Notes,
            outcome: outcome.to_owned(),
            ..Self::chain_break(station, at, detail)
        }
    }

    /// The line of a person's act on an entry, which does not end it.
    #[must_use]
    pub fn operator_action(
        station: &str,
        entry: &Entry,
        act: &str,
        by: &str,
        at: Timestamp,
    ) -> Self {
        let end = Settlement {
            outcome: Outcome::Discarded,
            at,
            decision: None,
            known_by: None,
            detail: format!("{act} by {by}"),
            http_status: None,
            correlation_id: None,
            attempts: 0,
            duration: std::time::Duration::ZERO,
            by: Some(by.to_owned()),
        };
        Self {
            kind: AuditKind::OperatorAction,
            outcome: act.to_owned(),
            ..Self::settled(station, entry.id, &entry.card_event, &end)
        }
    }
}
