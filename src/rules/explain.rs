//! The same decision rule by rule, for `cardbridge lookup`.

use super::selection::{
    Mismatch, RuleMatch, choose, first_mismatch, link_mismatch, matching_requests, requests_of,
};
use super::{Evaluation, Rule, RuleInput, RuleSet, decide_on, matched_record};
use crate::domain::{CardRecord, CmRequest, Decision, RecordId, RequestId, Trigger};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The record that is meant, where that is clear.
    pub record: Option<RecordId>,
    pub verdict: Evaluation,
    /// By each rule for that trigger, in the order of the file.
    pub findings: Vec<RuleExplanation>,
}

/// What one rule makes of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleExplanation {
    pub rule: String,
    pub on: Trigger,
    /// Whether it is the one that acts.
    pub applies: bool,
    pub request: Option<RequestId>,
    pub explanation: String,
}

/// What the rules would do, and what each of them that is for such a moment makes of the card.
pub fn explain(rules: &RuleSet, facts: &RuleInput<'_>) -> Explanation {
    let (record, verdict, choice) = match matched_record(rules, facts) {
        Ok((candidate, record)) => {
            let verdict = decide_on(rules, facts, candidate, record);
            (Some(record), verdict, choose(rules, facts, record))
        }
        Err(verdict) => (None, verdict, RuleMatch::None),
    };
    let of_moment = rules.rules.iter().filter(|rule| rule.on == facts.trigger);
    let findings = of_moment.map(|rule| {
        let (acts, request, words) = match record {
            Some(record) => finding(rules, facts, (rule, record), (&choice, &verdict)),
            None => (false, None, format!("not applied: {}", verdict.detail())),
        };
        RuleExplanation {
            rule: rule.name.clone(),
            on: rule.on,
            applies: acts,
            request,
            explanation: words,
        }
    });
    let findings = findings.collect();
    Explanation { record: record.map(|record| record.id), verdict, findings }
}

fn finding(
    rules: &RuleSet,
    facts: &RuleInput<'_>,
    (rule, record): (&Rule, &CardRecord),
    (choice, verdict): (&RuleMatch<'_, '_>, &Evaluation),
) -> (bool, Option<RequestId>, String) {
    match choice {
        RuleMatch::This(chosen, request) if chosen.name == rule.name => {
            let words = acting(rules, rule, verdict, request.id);
            let picked = picked(rule, matching_requests(rules, rule, facts, record).len());
            let acts = !matches!(verdict, Evaluation::Park { .. });
            (acts, Some(request.id), format!("{words}{picked}"))
        }
        RuleMatch::Several(chosen, why) if chosen.name == rule.name => {
            (false, None, format!("parks the entry: {why} (pick = refuse)"))
        }
        RuleMatch::This(first, _) | RuleMatch::Several(first, _) => {
            let why = common_mismatch(rules, facts, rule, record).unwrap_or_else(|| {
                format!(
                    "rule {} takes precedence: older request, or earlier in the file",
                    first.name
                )
            });
            (false, None, format!("not applied: {why}"))
        }
        RuleMatch::None => {
            let why = common_mismatch(rules, facts, rule, record).unwrap_or_default();
            (false, None, format!("not applied: {why}"))
        }
    }
}

/// What the rule that acts does.
fn acting(rules: &RuleSet, rule: &Rule, verdict: &Evaluation, request: RequestId) -> String {
    let from = |decision: &Decision| rules.numbers.card_status_text(decision.old_status);
    let rest = |set: &str| {
        if rule.complete_request {
            format!("{set}, and completes the request")
        } else {
            format!("{set}, and leaves the request open")
        }
    };
    match verdict {
        Evaluation::Set { decision, warning } => {
            let set = format!("sets {} instead of {}", decision.new_status_name, from(decision));
            let mind =
                warning.as_ref().map(|text| format!("; warning: {text}")).unwrap_or_default();
            format!("applies to request {request}: {}{mind}", rest(&set))
        }
        Evaluation::AlreadySet { decision } => {
            let set = format!("no change: the record is already {}", decision.new_status_name);
            format!("applies to request {request}: {}", rest(&set))
        }
        Evaluation::NothingToDo { .. }
        | Evaluation::UnknownCard { .. }
        | Evaluation::Park { .. } => {
            format!("parks the entry for request {request}: {}", verdict.detail())
        }
    }
}

fn picked(rule: &Rule, about: usize) -> String {
    if about < 2 {
        return String::new();
    }
    format!("; of {about} open requests that it is about, that is the {}", rule.pick.as_str())
}

/// Why a rule is about none of the open requests, or `None` where it is about one.
fn common_mismatch(
    rules: &RuleSet,
    facts: &RuleInput<'_>,
    rule: &Rule,
    record: &CardRecord,
) -> Option<String> {
    let requests = requests_of(facts.found, record);
    if requests.is_empty() {
        return Some(format!("no open request names record {}", record.id));
    }
    let objections: Vec<_> = requests
        .iter()
        .map(|request| first_mismatch(rules, rule, facts, record, request))
        .collect::<Option<_>>()?;
    // One that has the right type says more than those that have not.
    let closest = objections.iter().position(|why| *why != Mismatch::RequestType);
    let at = closest.unwrap_or_default();
    let (why, request) = (objections.get(at)?, requests.get(at)?);
    Some(explanation(rules, (rule, request), *why, (record, &requests), facts.role))
}

fn explanation(
    rules: &RuleSet,
    (rule, request): (&Rule, &CmRequest),
    why: Mismatch,
    (record, requests): (&CardRecord, &[&CmRequest]),
    role: &str,
) -> String {
    let numbers = &rules.numbers;
    match why {
        Mismatch::Trigger => format!("the rule applies to cards that are {}", rule.on.as_str()),
        Mismatch::Link => link_mismatch(request, record.id, numbers),
        Mismatch::RequestType => {
            let wanted = rule.request_types.iter().map(|kind| numbers.request_type_text(*kind));
            let open =
                requests.iter().map(|request| numbers.request_type_text(request.request_type));
            format!(
                "the rule matches request type {}, the open request is {}",
                wanted.collect::<Vec<_>>().join(" or "),
                open.collect::<Vec<_>>().join(", ")
            )
        }
        Mismatch::CardStatus => {
            let wanted: Vec<_> =
                rule.card_status.iter().map(|status| numbers.card_status_text(*status)).collect();
            format!(
                "the rule requires card status {}, the record is {}",
                wanted.join(" or "),
                numbers.card_status_text(record.status)
            )
        }
        Mismatch::ReaderRole => format!(
            "the rule requires reader role {}, this reader has {role}",
            rule.reader_role.join(" or ")
        ),
    }
}
