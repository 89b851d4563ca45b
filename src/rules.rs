//! The rules: what a card that comes or goes sets in CM, or why it sets nothing.
//!
//! A verdict is a function of what the card said, what CM said and what the configuration says.
//! Whatever could be meant in two ways is left alone: a wrong update revokes a person's badge.

use crate::domain::{
    Atr, Candidate, CardIdentity, CardRecord, CardStatus, CmEnums, Decision, IdTrust, LookupResult,
    ParkReason, RequestType, Trigger,
};

mod explain;
mod links;
mod selection;

use selection::{RuleMatch, choose, explain_no_match};

pub use explain::{Explanation, RuleExplanation, explain};
pub use selection::Pick;

/// One `[[rule]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, for the audit trail.
    pub name: String,
    /// What sets it off.
    pub on: Trigger,
    /// The request types it acts on.
    pub request_types: Vec<RequestType>,
    /// The status to set: CM's name for it, and its number.
    pub set_status: (String, CardStatus),
    /// Only records with one of these; empty: any.
    pub card_status: Vec<CardStatus>,
    /// Only readers with one of these roles; empty: any.
    pub reader_role: Vec<String>,
    /// Whether the request is completed once the record has the status.
    pub complete_request: bool,
    /// Which request counts, where several open ones that it is about name the record.
    pub pick: Pick,
}

/// What to do when CM's ATR is not the card's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtrMismatch {
    /// Go on, and say so.
    #[default]
    Warn,
    /// Leave the card alone: parked as `atr-mismatch`.
    Refuse,
}

/// The rules of a station. The first that matches wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// In file order.
    pub rules: Vec<Rule>,
    /// What to do when CM's ATR is not the card's.
    pub atr_mismatch: AtrMismatch,
    /// CM's numbers, for words.
    pub numbers: CmEnums,
}

impl RuleSet {
    /// Whether anything at all can come of a card that came, or went.
    #[must_use]
    pub fn has_rules_for(&self, trigger: Trigger) -> bool {
        self.rules.iter().any(|rule| rule.on == trigger)
    }
}

/// What is known of a card when the rules are asked.
#[derive(Debug, Clone, Copy)]
pub struct RuleInput<'a> {
    /// Whether the card came or went.
    pub trigger: Trigger,
    /// The role of the reader.
    pub role: &'a str,
    /// What the card says, where it is here to say it.
    pub atr: Option<&'a Atr>,
    /// Who the card is.
    pub identity: &'a CardIdentity,
    /// What CM knows.
    pub found: &'a LookupResult,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluation {
    /// Have CM set this.
    Set {
        /// What, and on what grounds.
        decision: Decision,
        /// What a person should know, though it stops nothing.
        warning: Option<String>,
    },
    /// The record has the status that the rule asks for.
    AlreadySet {
        /// What would have been set.
        decision: Decision,
    },
    /// No open request names the card, or no rule is about it.
    NothingToDo {
        /// Why, in words.
        why: String,
    },
    /// CM has no record for any candidate.
    UnknownCard {
        /// Why, in words.
        why: String,
    },
    /// A person has to look.
    Park {
        /// Which kind of doubt.
        reason: ParkReason,
        /// In words.
        why: String,
    },
}

impl Evaluation {
    /// Whether it is carried out on a card that is known in part: the id alone proves the record.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        match self {
            Self::Set { decision, .. } | Self::AlreadySet { decision } => {
                decision.candidate.trust() == IdTrust::Id
            }
            Self::NothingToDo { .. } | Self::UnknownCard { .. } | Self::Park { .. } => false,
        }
    }
}

/// Decides what a card that came or went sets.
#[must_use]
pub fn evaluate(rules: &RuleSet, facts: &RuleInput<'_>) -> Evaluation {
    match matched_record(rules, facts) {
        Ok((candidate, record)) => decide_on(rules, facts, candidate, record),
        Err(doubt) => doubt.verdict(),
    }
}

/// Why no record is meant.
enum NoRecord {
    Unknown(String),
    Park(ParkReason, String),
}

impl NoRecord {
    fn verdict(self) -> Evaluation {
        match self {
            Self::Unknown(why) => Evaluation::UnknownCard { why },
            Self::Park(reason, why) => Evaluation::Park { reason, why },
        }
    }
}

/// The record that is meant, and the id by which CM knew it; or why there is none.
fn matched_record<'f>(
    rules: &RuleSet,
    facts: &RuleInput<'f>,
) -> Result<(&'f Candidate, &'f CardRecord), NoRecord> {
    let Some((candidate, records)) = &facts.found.records else {
        return Err(NoRecord::Unknown("CM has no record of this card".to_owned()));
    };
    let records = trusted_records(facts, candidate, records)?;
    let ambiguous = |why| NoRecord::Park(ParkReason::Ambiguous, why);
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
        RuleMatch::Several(_, why) => {
            return Evaluation::Park { reason: ParkReason::Ambiguous, why };
        }
        RuleMatch::None => {
            return Evaluation::NothingToDo { why: explain_no_match(rules, facts, record) };
        }
    };
    let warning = match atr_agreement(facts.atr, record) {
        AtrComparison::Differs(why) if rules.atr_mismatch == AtrMismatch::Refuse => {
            return Evaluation::Park { reason: ParkReason::AtrMismatch, why };
        }
        AtrComparison::Differs(why) => Some(why),
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
) -> Result<Vec<&'a CardRecord>, NoRecord> {
    let Candidate { card_id, rule, .. } = candidate;
    let agrees =
        |record: &&CardRecord| matches!(atr_agreement(facts.atr, record), AtrComparison::Agrees);
    match candidate.trust() {
        IdTrust::Nothing => Err(NoRecord::Park(
            ParkReason::SharedId,
            format!(
                "CM has a record under {card_id} ({rule}), an id that more than one card can carry"
            ),
        )),
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
) -> NoRecord {
    let Candidate { card_id, rule, .. } = candidate;
    if trust == IdTrust::Id {
        return NoRecord::Unknown(format!(
            "CM has a record only for the second-choice id {card_id} ({rule}), and its ATR is not \
             the card's"
        ));
    }
    let atrs = records.iter().find_map(|record| match atr_agreement(facts.atr, record) {
        AtrComparison::Differs(why) => Some(why),
        AtrComparison::Agrees | AtrComparison::Unknown => None,
    });
    let atrs = atrs.unwrap_or_else(|| "CM's record has none".to_owned());
    NoRecord::Park(
        ParkReason::AtrMismatch,
        format!(
            "CM has a record under {card_id} ({rule}), a serial number, which proves the card only \
             together with the ATR: {atrs}"
        ),
    )
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
            requests.any(|request| links::concerns(request, record.id, &rules.numbers))
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
/// so this only chooses what is told.
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
