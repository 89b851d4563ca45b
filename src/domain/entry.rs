//! Entries: what the outbox keeps of an insertion or a removal until it is settled.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{
    Atr, Candidate, CardIdentity, CardKey, CardStatus, PcscdInstance, ReaderName, RecordId,
    RequestId,
};

/// An entry's number in the outbox; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(i64);

impl EntryId {
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

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
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Trigger {
    /// A card was inserted. What was stored before there were others has no trigger, and means this.
    #[default]
    Inserted,
    /// An identified card was removed from a reader that is still there.
    Removed,
}

impl Trigger {
    pub const fn is_insertion(&self) -> bool {
        matches!(self, Self::Inserted)
    }
}

/// How an entry ended: exactly one of these, and one audit line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
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
    /// A newer insertion of the same card replaced it.
    Superseded,
    /// It needs an operator.
    Parked(ParkReason),
    /// An operator removed it.
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

    pub const fn park_reason(self) -> Option<ParkReason> {
        if let Self::Parked(reason) = self { Some(reason) } else { None }
    }
}

/// Why an entry needs an operator.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum ParkReason {
    /// CM refused: 403 and the like.
    Refused,
    /// More than one record or request could be meant.
    Ambiguous,
    /// CM's ATR is not the card's, and the configuration says to refuse then; or the id alone does
    /// not prove that the record is this card's, and no ATR does.
    AtrMismatch,
    /// CM has a record under an id that more than one card can carry.
    SharedId,
    /// CM fails on this card again and again while others succeed.
    #[serde(alias = "rejected")]
    RepeatedFailure,
    /// CM's response is about something else than what was asked.
    #[serde(alias = "wrong-answer")]
    UnexpectedResponse,
    /// It waited longer than `outbox.max_age`.
    Expired,
}

enum_names!(Trigger, Outcome, ParkReason);

/// An identified card that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardEvent {
    #[serde(default, skip_serializing_if = "Trigger::is_insertion")]
    pub trigger: Trigger,
    pub seen_at: Timestamp,
    pub reader: ReaderName,
    pub label: String,
    pub role: String,
    /// The reader's PC/SC event counter at that moment.
    pub event_count: u32,
    pub atr: Atr,
    pub identity: CardIdentity,
    /// When it was seen, counted from the machine's start: for how long it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_moment: Option<BootMoment>,
}

impl CardEvent {
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
    /// Settled as parked: it waits for an operator. `sent` was decided and may have been sent.
    Parked {
        reason: ParkReason,
        detail: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Decision>,
    },
}

impl Stage {
    /// What was decided and may have been sent.
    pub const fn sent(&self) -> Option<&Decision> {
        match self {
            Self::Queued => None,
            Self::Sent(decision) | Self::Completing(decision) => Some(decision),
            Self::Parked { sent, .. } => sent.as_ref(),
        }
    }

    /// The stage of an entry that waits for CM, when this may have been sent.
    pub fn waiting(sent: Option<Decision>) -> Self {
        sent.map_or(Self::Queued, Self::Sent)
    }

    /// The stage in which the entry waits for CM; that of a parked one once an operator retries it.
    pub fn resumed(&self) -> Self {
        match self {
            Self::Queued | Self::Sent(_) | Self::Completing(_) => self.clone(),
            Self::Parked { sent, .. } => Self::waiting(sent.clone()),
        }
    }

    /// The stage of an entry that ends as parked.
    pub fn parked(end: &Settlement) -> Option<Self> {
        let reason = end.outcome.park_reason()?;
        Some(Self::Parked { reason, detail: end.detail.clone(), sent: end.decision.clone() })
    }
}

/// An entry of the outbox that waits for CM or for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub id: EntryId,
    pub card_event: CardEvent,
    pub stage: Stage,
}

/// What the rules decided to set in CM, and on what grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The name of the rule.
    pub rule: String,
    /// The candidate that CM has the record under.
    pub candidate: Candidate,
    pub record: RecordId,
    pub request: RequestId,
    #[serde(alias = "from")]
    pub old_status: CardStatus,
    #[serde(alias = "to")]
    pub new_status: CardStatus,
    #[serde(alias = "to_name")]
    pub new_status_name: String,
    /// Whether the request is completed once the record has the status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete_request: bool,
}

impl Decision {
    /// The outcome once CM did all of it.
    pub fn outcome(&self) -> Outcome {
        if self.old_status == self.new_status { Outcome::AlreadySet } else { Outcome::Updated }
    }
}

/// The end of an entry, as it is audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub outcome: Outcome,
    pub at: Timestamp,
    pub decision: Option<Decision>,
    /// The id under which CM had a record.
    pub known_by: Option<Candidate>,
    pub detail: String,
    /// The HTTP status that ended it.
    pub http_status: Option<u16>,
    /// CM's id for its own log.
    pub correlation_id: Option<String>,
    /// How often CM was called.
    pub attempts: u32,
    /// From the insertion to the end.
    pub duration: Duration,
    /// The operator who ended it.
    pub by: Option<String>,
}

/// The card that was last seen in a reader, as the outbox remembers it over a restart. It
/// distinguishes a card that never left from one that was inserted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeenCard {
    pub reader: ReaderName,
    /// The reader's PC/SC event counter when the card was seen.
    pub event_count: u32,
    pub atr: Atr,
    pub card: CardKey,
    /// The entry that the insertion made.
    pub entry: EntryId,
    /// What the reader was watched through. Without it the counter proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<PcscdInstance>,
}

/// A moment, counted from a start of the machine: no setting of a clock changes that.
///
/// The wall clock may be wrong by years: a station without a battery for its clock starts in 1970,
/// and an operator may set a wrong year. Nothing is forgotten or given up because of that clock
/// alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMoment {
    /// The kernel's id of the boot.
    pub boot: String,
    /// Seconds since then, those of sleep included.
    pub seconds: u64,
}

impl BootMoment {
    pub fn later(&self, by: Duration) -> Self {
        Self { boot: self.boot.clone(), seconds: self.seconds.saturating_add(by.as_secs()) }
    }

    /// Never before the boot.
    pub fn earlier(&self, by: Duration) -> Self {
        Self { boot: self.boot.clone(), seconds: self.seconds.saturating_sub(by.as_secs()) }
    }

    /// How much time surely passed since an `earlier` moment. One in another boot was before this
    /// one began, by an unknown time.
    pub fn surely_since(&self, earlier: &Self) -> Duration {
        let before = if self.boot == earlier.boot { earlier.seconds } else { 0 };
        Duration::from_secs(self.seconds.saturating_sub(before))
    }
}

/// What proves that a date was reached, other than this machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct ClockWitness {
    built: Timestamp,
    started: Instant,
    /// The last `Date` of CM's, and when that came.
    latest: Option<(Timestamp, Instant)>,
}

impl ClockWitness {
    /// Knows the date of the build only.
    pub const fn new(built: Timestamp, started: Instant) -> Self {
        Self { built, started, latest: None }
    }

    /// Takes CM's date, in place of an older one: its clock may have been set as well.
    pub const fn observe(&mut self, date: Timestamp, at: Instant) {
        self.latest = Some((date, at));
    }

    /// The date that has been reached: by the wall clock, and by a witness besides.
    pub fn reached(&self, wall: Timestamp, now: Instant) -> Timestamp {
        let after = |date: Timestamp, at: Instant| {
            date.checked_add(now.saturating_duration_since(at)).unwrap_or(date)
        };
        let built = after(self.built, self.started);
        let of_cm = self.latest.map(|(date, at)| after(date, at));
        wall.min(of_cm.map_or(built, |of_cm| of_cm.max(built)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Family, IdRule, Serial};

    #[test]
    fn names_that_version_0_1_stored_are_read() {
        use crate::domain::{AuditKind, NotIdentifiedReason};

        fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
            serde_json::from_value(name.into()).unwrap()
        }
        assert_eq!(read::<ParkReason>("rejected"), ParkReason::RepeatedFailure);
        assert_eq!(read::<ParkReason>("wrong-answer"), ParkReason::UnexpectedResponse);
        assert_eq!(read::<AuditKind>("act"), AuditKind::OperatorAction);
        assert_eq!(read::<AuditKind>("break"), AuditKind::ChainBreak);
        assert_eq!(read::<NotIdentifiedReason>("no-id"), NotIdentifiedReason::NoCardId);
        assert_eq!(read::<NotIdentifiedReason>("busy"), NotIdentifiedReason::InUse);
        assert_eq!(read::<NotIdentifiedReason>("failed"), NotIdentifiedReason::ReadError);
    }

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
    fn stored_event_without_trigger_is_insertion() {
        let stored = serde_json::to_string(&draft(Trigger::Inserted)).unwrap();
        assert!(!stored.contains("trigger"), "insertions are stored as they always were: {stored}");
        assert_eq!(serde_json::from_str::<CardEvent>(&stored).unwrap(), draft(Trigger::Inserted));
        let removed = serde_json::to_string(&draft(Trigger::Removed)).unwrap();
        assert!(removed.starts_with(r#"{"trigger":"removed","#), "{removed}");
        assert_eq!(serde_json::from_str::<CardEvent>(&removed).unwrap(), draft(Trigger::Removed));
    }

    #[test]
    fn stored_decision_without_complete_request_completes_none() {
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

    const DAY: Duration = Duration::from_hours(24);

    fn date(text: &str) -> Timestamp {
        format!("{text}T00:00:00Z").parse().unwrap()
    }

    fn moment(boot: &str, seconds: u64) -> BootMoment {
        BootMoment { boot: boot.to_owned(), seconds }
    }

    #[test]
    fn elapsed_time_across_boots_counts_only_current_boot() {
        let then = moment("a", 100);
        assert_eq!(moment("a", 350).surely_since(&then), Duration::from_secs(250));
        assert_eq!(moment("a", 50).surely_since(&then), Duration::ZERO);
        assert_eq!(moment("b", 30).surely_since(&then), Duration::from_secs(30));
        assert_eq!(then.earlier(DAY), moment("a", 0));
        assert_eq!(then.later(Duration::from_secs(5)), moment("a", 105));
    }

    #[test]
    fn clock_ahead_is_limited_by_witnesses() {
        let started = Instant::now();
        let mut witness = ClockWitness::new(date("2026-01-01"), started);
        let ahead = date("2027-06-01");
        assert_eq!(witness.reached(ahead, started), date("2026-01-01"));
        assert_eq!(witness.reached(ahead, started + 3 * DAY), date("2026-01-04"));
        witness.observe(date("2026-02-01"), started + DAY);
        assert_eq!(witness.reached(ahead, started + 2 * DAY), date("2026-02-02"));
        witness.observe(date("1999-01-01"), started + 2 * DAY);
        assert_eq!(
            witness.reached(ahead, started + 2 * DAY),
            date("2026-01-03"),
            "not before it ran"
        );
    }

    #[test]
    fn clock_behind_is_taken_as_it_is() {
        let started = Instant::now();
        let mut witness = ClockWitness::new(date("2026-01-01"), started);
        witness.observe(date("2026-02-01"), started);
        assert_eq!(witness.reached(date("1970-01-01"), started), date("1970-01-01"));
    }
}
