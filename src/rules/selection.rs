//! Which rule acts on which open request, and which of a request's two links to a card counts.
//!
//! A request links the card that is there before it (`OldSmartcardUuid`) and the card that is there
//! after it (`NewSmartcardUuid`). To retire or disable the card after it would end a card that was just
//! issued; to activate the card before it would bring back one that was replaced.
//!
//! The request's type and the status that a rule sets both decide, and where either speaks against a
//! link, nothing is set. CM's reference gives the properties and the types, not which type fills
//! which property: what is unclear counts as "not this card".

use std::cmp::Reverse;

use strum::IntoStaticStr;

use super::{Rule, RuleInput, RuleSet};
use crate::domain::{CardRecord, CmEnums, CmRequest, LookupResult, RecordId};

/// Which request counts, where several open ones that a rule matches name the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Pick {
    /// The one that was submitted first.
    #[default]
    Oldest,
    /// The one that was submitted last.
    Newest,
    /// None: parked as `ambiguous`.
    Refuse,
}

impl Pick {
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// What is done with a record.
#[derive(Debug, Clone)]
pub(super) enum RuleMatch<'r, 'f> {
    /// This rule carries out this request.
    This(&'r Rule, &'f CmRequest),
    /// This rule matches several requests and picks none; with the reason.
    Several(&'r Rule, String),
    /// No rule is about any open request of the record.
    None,
}

/// The oldest open request that a rule is about, and the first rule that is, which then picks
/// among all the requests that it is about.
///
/// A request that is carried out stays open until it is completed: it hides no other one that is not.
pub(super) fn choose<'r, 'f>(
    rules: &'r RuleSet,
    facts: &RuleInput<'f>,
    record: &CardRecord,
) -> RuleMatch<'r, 'f> {
    let first = |request: &CmRequest| {
        rules
            .rules
            .iter()
            .find(|rule| first_mismatch(rules, rule, facts, record, request).is_none())
    };
    let requests = requests_of(facts.found, record);
    let ruled: Vec<_> = requests.iter().filter_map(|request| first(request)).collect();
    let has_work = |rule: &&&Rule| rule.complete_request || rule.set_status.1 != record.status;
    let Some(&rule) = ruled.iter().find(has_work).or(ruled.first()) else {
        return RuleMatch::None;
    };
    let about = matching_requests(rules, rule, facts, record);
    match (rule.pick, about.as_slice()) {
        (Pick::Refuse, [_, _, ..]) => RuleMatch::Several(rule, several(rule, &about)),
        _ => {
            pick(rule.pick, about).map_or(RuleMatch::None, |request| RuleMatch::This(rule, request))
        }
    }
}

/// The open requests of a record that a rule is about, the oldest first.
pub(super) fn matching_requests<'f>(
    rules: &RuleSet,
    rule: &Rule,
    facts: &RuleInput<'f>,
    record: &CardRecord,
) -> Vec<&'f CmRequest> {
    let mut requests = requests_of(facts.found, record);
    requests.retain(|request| first_mismatch(rules, rule, facts, record, request).is_none());
    requests
}

fn pick(pick: Pick, requests: Vec<&CmRequest>) -> Option<&CmRequest> {
    match pick {
        Pick::Oldest | Pick::Refuse => requests.into_iter().next(),
        Pick::Newest => requests.into_iter().min_by_key(|request| {
            (request.submitted.is_none(), Reverse(request.submitted), request.id)
        }),
    }
}

fn several(rule: &Rule, requests: &[&CmRequest]) -> String {
    let ids: Vec<_> = requests.iter().map(|request| request.id.to_string()).collect();
    format!(
        "rule {} matches {} open requests and pick = \"refuse\": {}",
        rule.name,
        ids.len(),
        ids.join(", ")
    )
}

/// The open requests that name a record, the oldest first; those without a time last, and where
/// even that says nothing, in the order of their ids.
pub(super) fn requests_of<'f>(found: &'f LookupResult, record: &CardRecord) -> Vec<&'f CmRequest> {
    let mut requests: Vec<_> =
        found.requests.iter().filter(|request| request.names(record.id)).collect();
    requests.sort_by_key(|request| (request.submitted.is_none(), request.submitted, request.id));
    requests
}

/// Why a rule is not about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    Trigger,
    RequestType,
    /// The request names the record, but as the card that it does not set the status of.
    Link,
    CardStatus,
    ReaderRole,
}

/// Why a rule is not about a request, or `None` if it is.
pub(super) fn first_mismatch(
    rules: &RuleSet,
    rule: &Rule,
    facts: &RuleInput<'_>,
    record: &CardRecord,
    request: &CmRequest,
) -> Option<Mismatch> {
    let roles = &rule.reader_role;
    if rule.on != facts.trigger {
        Some(Mismatch::Trigger)
    } else if !rule.request_types.contains(&request.request_type) {
        Some(Mismatch::RequestType)
    } else if !calls_for(rule, request, record.id, &rules.numbers) {
        Some(Mismatch::Link)
    } else if !rule.card_status.is_empty() && !rule.card_status.contains(&record.status) {
        Some(Mismatch::CardStatus)
    } else if !roles.is_empty() && !roles.iter().any(|word| word == facts.role) {
        Some(Mismatch::ReaderRole)
    } else {
        None
    }
}

pub(super) fn explain_no_match(
    rules: &RuleSet,
    facts: &RuleInput<'_>,
    record: &CardRecord,
) -> String {
    let requests = requests_of(facts.found, record);
    if requests.is_empty() {
        return format!("no open request names record {}", record.id);
    }
    let is_linked_otherwise = |request: &&&CmRequest| {
        rules
            .rules
            .iter()
            .any(|rule| first_mismatch(rules, rule, facts, record, request) == Some(Mismatch::Link))
    };
    if let Some(request) = requests.iter().find(is_linked_otherwise) {
        return link_mismatch(request, record.id, &rules.numbers);
    }
    let types: Vec<_> =
        requests.iter().map(|r| rules.numbers.request_type_text(r.request_type)).collect();
    format!("no rule matches the open request ({})", types.join(", "))
}

/// The types that act on a card that exists before the request, by CM's names.
const OF_THE_OLD_CARD: &[&str] = &[
    "Retire",
    "Disable",
    "Revoke",
    "SuspendOrReinstate",
    "Suspend",
    "Reinstate",
    "Unblock",
    "OfflineUnblock",
    "OnlineUpdate",
    "TemporaryCardDisable",
    "TemporaryCardRetire",
];

/// The types that give a user a card, by CM's names.
const OF_TWO_CARDS: &[&str] =
    &["Enroll", "Recover", "Renew", "Duplicate", "RecoverOnBehalf", "TemporaryCardEnroll"];

/// The statuses that a card has before and while it is used. Every other one ends or interrupts that.
const IN_USE: &[&str] = &["New", "Assigned", "Active"];

/// What a request's type says about its two links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkKind {
    OldCard,
    TwoCards,
    /// A type that has no name, or a name that only the site knows.
    Unknown,
}

impl LinkKind {
    fn of(request: &CmRequest, numbers: &CmEnums) -> Self {
        let name = numbers.request_type.name(request.request_type.number());
        let is_one_of = |names: &[&str]| {
            name.is_some_and(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        };
        if is_one_of(OF_THE_OLD_CARD) {
            Self::OldCard
        } else if is_one_of(OF_TWO_CARDS) {
            Self::TwoCards
        } else {
            Self::Unknown
        }
    }
}

/// Whether a request can be about a record at all, whatever a rule sets.
pub(super) fn concerns(request: &CmRequest, record: RecordId, numbers: &CmEnums) -> bool {
    match LinkKind::of(request, numbers) {
        LinkKind::OldCard => request.old_card == Some(record),
        LinkKind::TwoCards | LinkKind::Unknown => request.names(record),
    }
}

/// Whether a request asks for what the rule sets, of this record.
fn calls_for(rule: &Rule, request: &CmRequest, record: RecordId, numbers: &CmEnums) -> bool {
    let status = rule.set_status.0.as_str();
    let in_use = IN_USE.iter().any(|known| known.eq_ignore_ascii_case(status));
    let card = match LinkKind::of(request, numbers) {
        LinkKind::OldCard => request.old_card,
        LinkKind::TwoCards | LinkKind::Unknown if !in_use => request.old_card,
        LinkKind::TwoCards => request.new_card,
        LinkKind::Unknown => request.new_card.or(request.old_card),
    };
    card == Some(record)
}

/// Why a request that names the record does not ask for what the rule sets.
pub(super) fn link_mismatch(request: &CmRequest, record: RecordId, numbers: &CmEnums) -> String {
    let kind = numbers.request_type_text(request.request_type);
    let (link, other, counts) = if request.old_card == Some(record) {
        ("OldSmartcardUuid", request.new_card, "NewSmartcardUuid")
    } else {
        ("NewSmartcardUuid", request.old_card, "OldSmartcardUuid")
    };
    let other = other.map_or_else(|| "no card".to_owned(), |other| other.to_string());
    format!(
        "request {} ({kind}) names record {record} only as {link}; what counts is {counts}, \
         which names {other}",
        request.id
    )
}
