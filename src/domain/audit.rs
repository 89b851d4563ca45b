//! The audit trail: its lines say who did what to which card, when, and on what grounds; its chain
//! shows whether they are what was written.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Atr, Candidate, CardEvent, CardId, CardStatus, Entry, EntryId, Family, IdRule, Inventory,
    NotIdentified, Outcome, ParkReason, ReaderName, RecordId, RequestId, Serial, Settlement,
    Strength, Trigger,
};

/// What an audit line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditKind {
    /// An entry was settled.
    Outcome,
    /// A card was not identified.
    NotIdentified,
    /// An operator did something to an entry.
    #[serde(alias = "act")]
    OperatorAction,
    /// The outbox was damaged, and the trail goes on in a new file.
    #[serde(alias = "break")]
    ChainBreak,
    /// The trail has no room for lines that end no entry, or has it again.
    Notes,
}

/// One line of the audit trail. Its JSON is the public form; times are RFC 3339 in UTC. Why it is
/// a struct: `docs/decisions/0037-audit-line.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When it was settled, seen or done.
    pub at: Timestamp,
    pub station: String,
    pub kind: AuditKind,
    /// The outcome, `not-identified`, or the action.
    pub outcome: String,
    /// The reason's name, where the outcome alone does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    pub reader: ReaderName,
    pub label: String,
    /// Whether the card came or went; absent: it came.
    #[serde(default, skip_serializing_if = "Trigger::is_insertion")]
    pub trigger: Trigger,
    /// When the card came or went.
    pub seen_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atr: Option<Atr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
    /// The id that CM knew, or else the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card_id: Option<CardId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_rule: Option<IdRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_strength: Option<Strength>,
    /// Whether the site pinned the rule for this card; absent: it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub id_pinned: bool,
    /// The rule of the configuration that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_status: Option<CardStatus>,
    /// The status that the rule sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_status: Option<CardStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_status_name: Option<String>,
    /// The HTTP status that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// CM's id for its own log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// How often CM was called.
    pub attempts: u32,
    /// Milliseconds from the insertion to the end.
    pub duration_ms: u64,
    /// The operator, for an action and for an outcome that an operator chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How many equal failures the line counts; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// A line at its place in the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    #[serde(flatten)]
    pub line: AuditLine,
    /// Its number; numbers have no gaps.
    pub seq: i64,
    /// The chain's hash at this line, in hex.
    pub chain: String,
}

impl AuditLine {
    /// The outcome, where the line is about one.
    pub fn outcome(&self) -> Option<Outcome> {
        let reason = |outcome: Outcome| outcome.park_reason().map(ParkReason::as_str);
        let is = |outcome: &Outcome| {
            outcome.as_str() == self.outcome && reason(*outcome) == self.reason.as_deref()
        };
        Outcome::ALL.into_iter().find(|outcome| self.kind == AuditKind::Outcome && is(outcome))
    }

    /// A line with nothing but what every line has.
    fn new(station: &str, at: Timestamp, kind: AuditKind, outcome: &str, detail: String) -> Self {
        Self {
            at,
            station: station.to_owned(),
            kind,
            outcome: outcome.to_owned(),
            reason: None,
            detail,
            entry: None,
            reader: "".into(),
            label: String::new(),
            trigger: Trigger::Inserted,
            seen_at: at,
            atr: None,
            family: None,
            serial: None,
            inventory: Inventory::default(),
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

    /// With the card of an entry, by the id under which CM knows it.
    fn with_card(self, entry: EntryId, card_event: &CardEvent, candidate: &Candidate) -> Self {
        let CardEvent { identity, .. } = card_event;
        Self {
            entry: Some(entry),
            reader: card_event.reader.clone(),
            label: card_event.label.clone(),
            trigger: card_event.trigger,
            seen_at: card_event.seen_at,
            atr: Some(card_event.atr.clone()),
            family: Some(identity.family),
            serial: Some(identity.serial.clone()),
            inventory: identity.inventory.clone(),
            card_id: Some(candidate.card_id),
            id_rule: Some(candidate.rule),
            id_strength: Some(candidate.strength),
            id_pinned: candidate.pinned,
            ..self
        }
    }

    /// An entry was settled.
    pub fn settled(
        station: &str,
        entry: EntryId,
        card_event: &CardEvent,
        end: &Settlement,
    ) -> Self {
        let decision = end.decision.as_ref();
        let known_by = decision.map(|decision| &decision.candidate).or(end.known_by.as_ref());
        let candidate = known_by.unwrap_or_else(|| card_event.identity.primary());
        let (kind, outcome) = (AuditKind::Outcome, end.outcome.as_str());
        let line = Self::new(station, end.at, kind, outcome, end.detail.clone());
        Self {
            reason: end.outcome.park_reason().map(|reason| reason.to_string()),
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
            ..line.with_card(entry, card_event, candidate)
        }
    }

    /// A card was not identified.
    pub fn not_identified(
        station: &str,
        (reader, label): (&ReaderName, &str),
        atr: Option<Atr>,
        at: Timestamp,
        error: &NotIdentified,
    ) -> Self {
        let (kind, detail) = (AuditKind::NotIdentified, error.detail.clone());
        Self {
            reason: Some(error.reason.to_string()),
            reader: reader.clone(),
            label: label.to_owned(),
            atr,
            inventory: error.inventory.clone(),
            ..Self::new(station, at, kind, "not-identified", detail)
        }
    }

    /// More failures equal to this one, all of which the line counts.
    pub fn repeated(
        self,
        at: Timestamp,
        count: u64,
        (first, last): (Timestamp, Timestamp),
    ) -> Self {
        let times = if count == 1 { "time" } else { "times" };
        let detail = format!("{count} more {times}: {}", self.detail);
        Self { at, seen_at: last, detail, ..self }.counting(count, first, last)
    }

    fn counting(self, count: u64, first: Timestamp, last: Timestamp) -> Self {
        let (first_seen_at, last_seen_at) = (Some(first), Some(last));
        Self { count: Some(count), first_seen_at, last_seen_at, ..self }
    }

    /// The outbox was damaged: what is before this line was carried over from the damaged file.
    pub fn chain_break(station: &str, at: Timestamp, detail: String) -> Self {
        Self::new(station, at, AuditKind::ChainBreak, "outbox-damaged", detail)
    }

    /// No line that ends no entry is written after this one, until some were pruned.
    pub fn notes_stopped(station: &str, at: Timestamp) -> Self {
        let detail = "the audit trail has no room for more notes: cards that cannot be identified \
                      are not audited until old lines were pruned; entries are";
        Self::new(station, at, AuditKind::Notes, "notes-stopped", detail.to_owned())
    }

    /// So many lines had no room, due between these moments.
    pub fn notes_resumed(
        station: &str,
        at: Timestamp,
        refused: u64,
        (first, last): (Timestamp, Timestamp),
    ) -> Self {
        let detail = format!("{refused} notes had no room in the audit trail");
        let line = Self::new(station, at, AuditKind::Notes, "notes-resumed", detail);
        line.counting(refused, first, last)
    }

    /// An operator acted on an entry, which does not end it.
    pub fn operator_action(
        station: &str,
        entry: &Entry,
        action: &str,
        by: &str,
        at: Timestamp,
    ) -> Self {
        let (kind, detail) = (AuditKind::OperatorAction, format!("{action} by {by}"));
        let (card_event, candidate) = (&entry.card_event, entry.card_event.identity.primary());
        let line = Self::new(station, at, kind, action, detail);
        let line = line.with_card(entry.id, card_event, candidate);
        Self { by: Some(by.to_owned()), ..line }
    }
}

/// A place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPosition {
    /// The line's number; 0 where there is none.
    pub seq: i64,
    pub at: Option<Timestamp>,
    /// The chain's hash at this line, in hex.
    pub hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainFaultKind {
    /// The line is not what was written there, or was written elsewhere.
    Changed,
    /// Lines are gone.
    Missing,
    /// A line is where none should be.
    Extra,
    /// The file was damaged, and the daemon began a new one with what was readable.
    Restarted,
    /// What says where the chain begins or ends is not what was written.
    Boundary,
}

/// Something that is wrong with the audit trail, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFault {
    pub kind: ChainFaultKind,
    /// From this line to `last`.
    pub seq: i64,
    pub last: i64,
    /// That line's time; for missing lines, the time of the last one before them.
    pub at: Option<Timestamp>,
    pub detail: String,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seq, self.last) {
            (first, last) if first == last => write!(f, "line {first}")?,
            (first, last) => write!(f, "lines {first} to {last}")?,
        }
        let time = if self.kind == ChainFaultKind::Missing { "after " } else { "" };
        if let Some(at) = self.at {
            write!(f, " ({time}{at})")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// One verified batch of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainBatch {
    pub lines: u64,
    pub faults: Vec<ChainFault>,
    /// The last line that was pruned.
    pub anchor: Option<ChainPosition>,
    pub head: Option<ChainPosition>,
    /// Where the next batch begins; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
