//! The rules: what an inserted or removed card sets in CM, or why it sets nothing.
//!
//! An evaluation is a function of what the card, CM and the configuration say. Where two things could
//! be meant, nothing is set: a wrong update revokes a badge.

#![expect(
    clippy::result_large_err,
    reason = "an evaluation that ends early is no error of a hot path"
)]

use crate::domain::{
    Atr, Candidate, CardIdentity, CardRecord, CardStatus, CmEnums, Decision, IdTrust, LookupResult,
    ParkReason, RequestType, Trigger,
};

mod explain;
mod selection;

use selection::{RuleMatch, choose, explain_no_match};

pub use explain::{Explanation, RuleExplanation, explain};
pub use selection::Pick;

/// One `[[rule]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub on: Trigger,
    pub request_types: Vec<RequestType>,
    /// CM's name of the status, and its number.
    pub set_status: (String, CardStatus),
    /// Only records with one of these; empty: any.
    pub card_status: Vec<CardStatus>,
    /// Only readers with one of these roles; empty: any.
    pub reader_role: Vec<String>,
    /// Whether the request is completed once the record has the status.
    pub complete_request: bool,
    pub pick: Pick,
}

/// What to do when CM's ATR is not the card's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtrMismatch {
    /// Go on, with a warning.
    #[default]
    Warn,
    /// Park as `atr-mismatch`.
    Refuse,
}

/// The rules of a station. The first that matches wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// In file order.
    pub rules: Vec<Rule>,
    pub atr_mismatch: AtrMismatch,
    pub numbers: CmEnums,
}

impl RuleSet {
    pub fn has_rules_for(&self, trigger: Trigger) -> bool {
        self.rules.iter().any(|rule| rule.on == trigger)
    }
}

/// What is known of a card when the rules are evaluated.
#[derive(Debug, Clone, Copy)]
pub struct RuleInput<'a> {
    pub trigger: Trigger,
    pub role: &'a str,
    /// Absent where the card is not at hand.
    pub atr: Option<&'a Atr>,
    pub identity: &'a CardIdentity,
    pub found: &'a LookupResult,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluation {
    /// Set this. The warning stops nothing.
    Set { decision: Decision, warning: Option<String> },
    /// The record has the status that the rule sets.
    AlreadySet { decision: Decision },
    /// No open request names the card, or no rule matches it.
    NothingToDo { detail: String },
    /// CM has no record for any candidate.
    UnknownCard { detail: String },
    /// An operator has to decide.
    Park { reason: ParkReason, detail: String },
}

impl Evaluation {
    /// Whether it applies to a card that is known in part: the id alone proves the record.
    pub fn is_conclusive(&self) -> bool {
        let (Self::Set { decision, .. } | Self::AlreadySet { decision }) = self else {
            return false;
        };
        decision.candidate.trust() == IdTrust::Id
    }

    /// Why nothing is set; empty where something is, or would be.
    pub fn detail(&self) -> &str {
        match self {
            Self::NothingToDo { detail }
            | Self::UnknownCard { detail }
            | Self::Park { detail, .. } => detail,
            Self::Set { .. } | Self::AlreadySet { .. } => "",
        }
    }
}

pub fn evaluate(rules: &RuleSet, facts: &RuleInput<'_>) -> Evaluation {
    match matched_record(rules, facts) {
        Ok((candidate, record)) => decide_on(rules, facts, candidate, record),
        Err(evaluation) => evaluation,
    }
}

/// The record that is meant, and the id by which CM knows it; or why there is none.
fn matched_record<'f>(
    rules: &RuleSet,
    facts: &RuleInput<'f>,
) -> Result<(&'f Candidate, &'f CardRecord), Evaluation> {
    let Some((candidate, records)) = &facts.found.records else {
        return Err(Evaluation::UnknownCard { detail: "CM has no record of this card".to_owned() });
    };
    let records = trusted_records(facts, candidate, records)?;
    let ambiguous = |detail| Evaluation::Park { reason: ParkReason::Ambiguous, detail };
    let record = select_record(rules, &records, facts.found).map_err(ambiguous)?;
    Ok((candidate, record))
}

fn decide_on(
    rules: &RuleSet,
    facts: &RuleInput<'_>,
    candidate: &Candidate,
    record: &CardRecord,
) -> Evaluation {
    let (rule, request) = match choose(rules, facts, record) {
        RuleMatch::This(rule, request) => (rule, request),
        RuleMatch::Several(_, detail) => {
            return Evaluation::Park { reason: ParkReason::Ambiguous, detail };
        }
        RuleMatch::None => {
            return Evaluation::NothingToDo { detail: explain_no_match(rules, facts, record) };
        }
    };
    let warning = match atr_agreement(facts.atr, record) {
        AtrComparison::Differs(detail) if rules.atr_mismatch == AtrMismatch::Refuse => {
            return Evaluation::Park { reason: ParkReason::AtrMismatch, detail };
        }
        AtrComparison::Differs(detail) => Some(detail),
        AtrComparison::Agrees | AtrComparison::Unknown => None,
    };
    let decision = Decision {
        rule: rule.name.clone(),
        candidate: candidate.clone(),
        record: record.id,
        request: request.id,
        old_status: record.status,
        new_status: rule.set_status.1,
        new_status_name: rule.set_status.0.clone(),
        complete_request: rule.complete_request,
    };
    if decision.old_status == decision.new_status {
        Evaluation::AlreadySet { decision }
    } else {
        Evaluation::Set { decision, warning }
    }
}

/// The records that are proven to be this card's, by the strength of the id under which CM has them.
///
/// An id that proves the card by itself proves all of them where it is the first; any other that
/// proves anything proves those whose ATR is the card's.
fn trusted_records<'a>(
    facts: &RuleInput<'_>,
    candidate: &Candidate,
    records: &'a [CardRecord],
) -> Result<Vec<&'a CardRecord>, Evaluation> {
    let Candidate { card_id, rule, .. } = candidate;
    let agrees =
        |record: &&CardRecord| matches!(atr_agreement(facts.atr, record), AtrComparison::Agrees);
    match candidate.trust() {
        IdTrust::Nothing => Err(Evaluation::Park {
            reason: ParkReason::SharedId,
            detail: format!(
                "CM has a record under {card_id} ({rule}), an id that more than one card can carry"
            ),
        }),
        IdTrust::Id if candidate == facts.identity.primary() => Ok(records.iter().collect()),
        trust @ (IdTrust::Id | IdTrust::IdAndAtr) => {
            let agreeing: Vec<_> = records.iter().filter(agrees).collect();
            if agreeing.is_empty() {
                Err(weak_id(facts, candidate, trust, records))
            } else {
                Ok(agreeing)
            }
        }
    }
}

/// Why none of the records that CM has under an id is proven to be this card's.
fn weak_id(
    facts: &RuleInput<'_>,
    candidate: &Candidate,
    trust: IdTrust,
    records: &[CardRecord],
) -> Evaluation {
    let Candidate { card_id, rule, .. } = candidate;
    if trust == IdTrust::Id {
        return Evaluation::UnknownCard {
            detail: format!(
                "CM has a record only for the second-choice id {card_id} ({rule}), and its ATR is not \
             the card's"
            ),
        };
    }
    let atrs = records.iter().find_map(|record| match atr_agreement(facts.atr, record) {
        AtrComparison::Differs(detail) => Some(detail),
        AtrComparison::Agrees | AtrComparison::Unknown => None,
    });
    let atrs = atrs.unwrap_or_else(|| "CM's record has none".to_owned());
    Evaluation::Park {
        reason: ParkReason::AtrMismatch,
        detail: format!(
            "CM has a record under {card_id} ({rule}), a serial number, which proves the card only \
             together with the ATR: {atrs}"
        ),
    }
}

/// Of several records of one card, the one that is meant: the one that an open request names;
/// without one, not Retired before Retired.
fn select_record<'a>(
    rules: &RuleSet,
    records: &[&'a CardRecord],
    found: &LookupResult,
) -> Result<&'a CardRecord, String> {
    let named: Vec<_> = records
        .iter()
        .copied()
        .filter(|record| {
            let mut requests = found.requests.iter();
            requests.any(|request| selection::concerns(request, record.id, &rules.numbers))
        })
        .collect();
    match named.as_slice() {
        [record] => Ok(record),
        [] => select_without_request(rules, records),
        several => Err(format!(
            "open requests name {} records of this card: {}",
            several.len(),
            ids(several)
        )),
    }
}

/// The one record of several that no open request names. Nothing is changed without a request,
/// so this only chooses what is reported.
fn select_without_request<'a>(
    rules: &RuleSet,
    records: &[&'a CardRecord],
) -> Result<&'a CardRecord, String> {
    let retired = rules.numbers.card_status.number("Retired").map(CardStatus::new);
    let live: Vec<_> = records.iter().copied().filter(|r| Some(r.status) != retired).collect();
    match (live.as_slice(), records) {
        ([record], _) => Ok(record),
        ([], [first, ..]) => Ok(first),
        _ => Err(format!("CM has {} records of this card: {}", live.len(), ids(&live))),
    }
}

fn ids(records: &[&CardRecord]) -> String {
    records.iter().map(|record| record.id.to_string()).collect::<Vec<_>>().join(", ")
}

enum AtrComparison {
    Agrees,
    Differs(String),
    Unknown,
}

fn atr_agreement(atr: Option<&Atr>, record: &CardRecord) -> AtrComparison {
    match (&record.atr, atr) {
        (Some(known), Some(atr)) if known == atr => AtrComparison::Agrees,
        (Some(known), Some(atr)) => {
            AtrComparison::Differs(format!("CM has ATR {known}, the card has {atr}"))
        }
        (None, _) | (_, None) => AtrComparison::Unknown,
    }
}

#[cfg(test)]
mod tests;
