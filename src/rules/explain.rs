//! The same decision in words, for a person who asks `cardbridge lookup`.

use super::choice::{Objection, objection, requests_of};
use super::{Facts, Rule, RuleSet, Verdict, decide};
use crate::domain::{Record, Request};

/// What one rule makes of one open request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// The request.
    pub request: Request,
    /// Why the rule does not act on it; `None`: it does.
    pub objection: Option<String>,
}

/// What the rules would do, and what each of them makes of each open request of the card.
#[must_use]
pub fn explain(rules: &RuleSet, facts: &Facts<'_>) -> (Verdict, Vec<Finding>) {
    let records = facts.found.records.as_ref().map_or(&[][..], |(_, records)| records.as_slice());
    let mut findings = Vec::new();
    for record in records {
        for request in requests_of(facts.found, record) {
            findings.extend(rules.rules.iter().map(|rule| {
                Finding {
                    rule: rule.name.clone(),
                    request: request.clone(),
                    objection: objection(rule, facts, record, request)
                        .map(|why| words(rules, rule, why, (record, request), facts.role)),
                }
            }));
        }
    }
    (decide(rules, facts), findings)
}

fn words(
    rules: &RuleSet,
    rule: &Rule,
    why: Objection,
    (record, request): (&Record, &Request),
    role: &str,
) -> String {
    let numbers = &rules.numbers;
    match why {
        Objection::Trigger => format!("it is for cards that are {}", rule.on.as_str()),
        Objection::RequestType => {
            let wanted: Vec<_> =
                rule.request_types.iter().map(|kind| numbers.request_type_text(*kind)).collect();
            format!(
                "it is about {}, the request is {}",
                wanted.join(" or "),
                numbers.request_type_text(request.request_type)
            )
        }
        Objection::CardStatus => {
            let wanted: Vec<_> =
                rule.card_status.iter().map(|status| numbers.card_status_text(*status)).collect();
            format!(
                "it wants the record {}, it is {}",
                wanted.join(" or "),
                numbers.card_status_text(record.status)
            )
        }
        Objection::ReaderRole => format!(
            "it is for readers with the role {}, this one has {role}",
            rule.reader_role.join(" or ")
        ),
    }
}
