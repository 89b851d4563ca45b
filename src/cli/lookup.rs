//! `lookup`: what CM knows about a card, what the rules would do, and what that does at CM.

use std::path::Path;

use serde_json::{Value, json};

use super::cards::{Field, identity_field, read_card, reader_settings};
use super::config_loader::load;
use super::output::{CommandError, Exit, Output, block_on};
use super::render::{card_ids, row, table};
use crate::app::cm_client;
use crate::config::Settings;
use crate::domain::{
    Atr, Candidate, CardId, CardIdentity, CmEnums, Decision, Family, IdRule, LookupResult,
    ReaderRules, RecordId, Serial, Trigger,
};
use crate::rules::{Evaluation, Explanation, RuleExplanation, RuleInput, explain};

/// The card that is looked up.
struct LookupTarget {
    json: Vec<Field>,
    identity: CardIdentity,
    /// The ATR of a card in a reader.
    atr: Option<Atr>,
    /// The role of its reader.
    role: String,
}

/// CM's answer, and what the rules would do.
struct LookupPreview<'a> {
    found: LookupResult,
    on_insertion: Explanation,
    /// If any rule applies on removal.
    on_removal: Option<Explanation>,
    /// Whether the daemon would wait until the card is read in full.
    is_held_back: bool,
    numbers: &'a CmEnums,
}

pub(super) fn lookup(
    config: Option<&Path>,
    reader: Option<&str>,
    card_id: Option<CardId>,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = load(config)?.settings;
    let (target, found) = block_on(async {
        let cm = cm_client(&settings)?;
        let target = match card_id {
            Some(card_id) => by_id(card_id),
            None => in_reader(&settings, reader).await?,
        };
        let mut found = cm.lookup(&target.identity).await?;
        // The output shows records as CM sent them, and a server may echo a secret.
        for record in found.records.iter_mut().flat_map(|(_, records)| records) {
            record.raw = cm.redact(&record.raw).into();
        }
        Ok((target, found))
    })?;
    let LookupTarget { identity, atr, role, .. } = &target;
    let explain = |trigger| {
        let input = RuleInput { trigger, role, atr: atr.as_ref(), identity, found: &found };
        explain(&settings.rules, &input)
    };
    let on_insertion = explain(Trigger::Inserted);
    let has_removal_rules = settings.rules.has_rules_for(Trigger::Removed);
    let on_removal = has_removal_rules.then(|| explain(Trigger::Removed));
    let is_held_back = identity.partial && !on_insertion.verdict.is_conclusive();
    let numbers = &settings.rules.numbers;
    let preview = LookupPreview { found, on_insertion, on_removal, is_held_back, numbers };
    out.value(&preview.as_json(target.json), || preview.as_text(&target.identity))?;
    Ok(Exit::Success)
}

/// A card by its id alone, taken as one that a card has; its ATR is unknown.
fn by_id(card_id: CardId) -> LookupTarget {
    let candidate = Candidate::by_rule(card_id, IdRule::GidsCardid);
    let serial = Serial::from_bytes(&card_id.uuid().to_bytes_le());
    LookupTarget {
        json: vec![("card_id", json!(card_id))],
        identity: CardIdentity::new(Family::Gids, serial, candidate, Vec::new()),
        atr: None,
        role: ReaderRules::DEFAULT_ROLE.to_owned(),
    }
}

async fn in_reader(
    settings: &Settings,
    reader: Option<&str>,
) -> Result<LookupTarget, CommandError> {
    let card = read_card(settings, reader).await?;
    let role = reader_settings(settings, &card.reader).role;
    let (reader, atr) = (json!(card.reader), json!(card.atr));
    let json = vec![("reader", reader), ("atr", atr), identity_field(&card.result)];
    let identity = card.result.map_err(|error| {
        CommandError::new(Exit::Failure, format!("the card is not identified: {}", error.detail))
    })?;
    Ok(LookupTarget { json, identity, atr: card.atr, role })
}

impl LookupPreview<'_> {
    fn findings(&self) -> impl Iterator<Item = &RuleExplanation> {
        let on_removal = self.on_removal.iter().flat_map(|explanation| &explanation.findings);
        self.on_insertion.findings.iter().chain(on_removal)
    }

    fn as_json(&self, mut fields: Vec<Field>) -> Value {
        let records = self.found.records.iter();
        let matched = records.clone().map(|(candidate, _)| candidate).next();
        let records = records.flat_map(|(_, records)| records).map(|record| raw(&record.raw));
        let requests = self.found.requests.iter().map(|request| {
            json!({
                "request": request.id,
                "request_type": request.request_type,
                "status": request.status,
                "old_card": request.old_card,
                "new_card": request.new_card,
                "submitted": request.submitted,
            })
        });
        let rules = self.findings().map(|finding| {
            json!({
                "rule": finding.rule,
                "on": finding.on,
                "applies": finding.applies,
                "request": finding.request,
                "explanation": finding.explanation,
            })
        });
        fields.extend([
            ("matched", json!(matched)),
            ("records", records.collect()),
            ("requests", requests.collect()),
            ("rules", rules.collect()),
            ("record", json!(self.on_insertion.record)),
            ("on_insertion", self.evaluation_json(&self.on_insertion.verdict)),
        ]);
        fields.extend(self.is_held_back.then_some(("held_back", true.into())));
        let on_removal = self.on_removal.as_ref();
        fields.extend(on_removal.map(|it| ("on_removal", self.evaluation_json(&it.verdict))));
        fields.into_iter().collect()
    }

    fn evaluation_json(&self, evaluation: &Evaluation) -> Value {
        match evaluation {
            Evaluation::Set { decision, warning } => json!({
                "result": "set",
                "decision": decision,
                "effect": effect(decision, self.numbers),
                "warning": warning,
            }),
            Evaluation::AlreadySet { decision } => {
                json!({ "result": "already-set", "decision": decision })
            }
            Evaluation::NothingToDo { detail } => {
                json!({ "result": "nothing-to-do", "detail": detail })
            }
            Evaluation::UnknownCard { detail } => {
                json!({ "result": "unknown-card", "detail": detail })
            }
            Evaluation::Park { reason, detail } => {
                json!({ "result": "park", "reason": reason, "detail": detail })
            }
        }
    }

    fn as_text(&self, identity: &CardIdentity) -> Vec<String> {
        let numbers = self.numbers;
        let mut rows: Vec<_> = card_ids(identity).collect();
        if let Some((candidate, records)) = &self.found.records {
            let matched = format!("{}  by {}", candidate.card_id, candidate.origin());
            rows.push(row("CM knows", matched));
            rows.extend(records.iter().map(|record| {
                let status = numbers.card_status_text(record.status);
                row("Record", format!("{}  {status}", record.id))
            }));
        }
        let card = |id: Option<RecordId>| id.map_or("none".to_owned(), |id| id.to_string());
        rows.extend(self.found.requests.iter().map(|request| {
            let kind = numbers.request_type_text(request.request_type);
            let status = numbers.request_status_text(request.status);
            let (old, new) = (card(request.old_card), card(request.new_card));
            let text = format!("{}  {kind}, {status}, old card {old}, new card {new}", request.id);
            row("Request", text)
        }));
        rows.extend(self.findings().map(|finding| {
            let on = match finding.on {
                Trigger::Inserted => "",
                Trigger::Removed => ", on removal",
            };
            row("Rule", format!("{}{on}: {}", finding.rule, finding.explanation))
        }));
        let held_back = if self.is_held_back { HELD_BACK } else { "" };
        rows.extend(self.evaluation_rows("On insertion", held_back, &self.on_insertion));
        if let Some(on_removal) = &self.on_removal {
            rows.extend(self.evaluation_rows("On removal", "", on_removal));
        }
        table(&rows)
    }

    fn evaluation_rows(
        &self,
        name: &str,
        before: &str,
        explanation: &Explanation,
    ) -> Vec<Vec<String>> {
        let evaluation = &explanation.verdict;
        let mut rows = vec![row(name, format!("{before}{}", text(evaluation, self.numbers)))];
        if let Evaluation::Set { decision, .. } = evaluation {
            rows.extend(effect(decision, self.numbers).map(|effect| row("  at CM", effect)));
        }
        rows
    }
}

/// A record as CM sent it; as text if it is nested too deeply to be shown as JSON.
fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// What an update does at CM, as Microsoft documents it for the operation of the same name.
fn effect(decision: &Decision, numbers: &CmEnums) -> Option<&'static str> {
    let is = |name| numbers.card_status.number(name) == Some(decision.new_status.number());
    if is("Retired") {
        Some(
            "permanent: revokes the card's certificates (documented by Microsoft for CM's Retire \
             operation)",
        )
    } else if is("Disabled") {
        Some("disables the card; its certificates follow the CM profile template")
    } else {
        None
    }
}

/// What is shown before an evaluation that is not carried out.
const HELD_BACK: &str = "would wait until the card is read in full; by the part that was read it ";

fn text(evaluation: &Evaluation, numbers: &CmEnums) -> String {
    match evaluation {
        Evaluation::Set { decision, warning } => {
            let old = numbers.card_status_text(decision.old_status);
            let Decision { rule, new_status_name: new, .. } = decision;
            let complete = if decision.complete_request { " and complete the request" } else { "" };
            let warning = warning.as_ref().map(|warning| format!(" (warning: {warning})"));
            let warning = warning.unwrap_or_default();
            format!("would set {new} instead of {old}{complete}, by rule {rule}{warning}")
        }
        Evaluation::AlreadySet { decision } if decision.complete_request => format!(
            "would only complete the request, by rule {}: the record is already {}",
            decision.rule, decision.new_status_name
        ),
        Evaluation::AlreadySet { decision } => {
            format!("would do nothing: the record is already {}", decision.new_status_name)
        }
        Evaluation::NothingToDo { detail } | Evaluation::UnknownCard { detail } => {
            format!("would do nothing: {detail}")
        }
        Evaluation::Park { reason, detail } => format!("would park the entry ({reason}): {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CardStatus;

    fn effect_of(status: i64, numbers: &CmEnums) -> Option<&'static str> {
        let id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
        let decision = Decision {
            rule: "retire".to_owned(),
            candidate: Candidate::by_rule(id.parse().unwrap(), IdRule::GidsCardid),
            record: id.parse().unwrap(),
            request: id.parse().unwrap(),
            old_status: CardStatus::new(2),
            new_status: CardStatus::new(status),
            new_status_name: "?".to_owned(),
            complete_request: false,
        };
        effect(&decision, numbers)
    }

    #[test]
    fn effect_at_cm_follows_the_number_of_the_status() {
        let mut numbers = CmEnums::default();
        assert!(effect_of(6, &numbers).unwrap().starts_with("permanent: revokes"));
        assert!(effect_of(3, &numbers).unwrap().starts_with("disables the card"));
        assert_eq!(effect_of(2, &numbers), None);
        numbers.card_status.set("Retired", 60);
        assert!(effect_of(60, &numbers).unwrap().starts_with("permanent: revokes"));
        assert_eq!(effect_of(6, &numbers), None);
    }
}
