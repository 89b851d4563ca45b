//! Which rule acts on which open request.

use std::cmp::Reverse;

use super::{Rule, RuleInput, RuleSet, links};
use crate::domain::{CardRecord, CmRequest, LookupResult};

/// Which request counts, where several open ones that a rule is about name the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pick {
    /// The one that was submitted first.
    #[default]
    Oldest,
    /// The one that was submitted last.
    Newest,
    /// None: a person has to look, parked as `ambiguous`.
    Refuse,
}

impl Pick {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::Newest => "newest",
            Self::Refuse => "refuse",
        }
    }
}

/// What is done with a record.
#[derive(Debug, Clone)]
pub(super) enum RuleMatch<'r, 'f> {
    /// This rule carries out this request.
    This(&'r Rule, &'f CmRequest),
    /// This rule is about several requests, and picks none; in words.
    Several(&'r Rule, String),
    /// No rule is about any open request of the record.
    None,
}

/// The oldest open request that a rule is about, and the first rule that is, which then picks
/// among all the requests that it is about.
///
/// A request that is carried out stays open until somebody completes it: it hides no other one that
/// is not.
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
    } else if !links::calls_for(rule, request, record.id, &rules.numbers) {
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
        return links::mismatch(request, record.id, &rules.numbers);
    }
    let types: Vec<_> =
        requests.iter().map(|r| rules.numbers.request_type_text(r.request_type)).collect();
    format!("no rule matches the open request ({})", types.join(", "))
}
