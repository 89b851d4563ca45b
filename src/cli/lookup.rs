//! `lookup`: what CM knows of a card and what the rules would do.

use std::path::Path;

use serde_json::{Value, json};

use super::cards::{block_on, merge, read_card};
use super::config_loader::{CardCommandSettings, load};
use super::exit::{CommandError, Exit};
use super::output::Output;
use super::text::table;
use crate::app::remote;
use crate::config::Settings;
use crate::domain::{
    Atr, Candidate, CardId, CardIdentity, CmEnums, Decision, Family, IdRule, LookupResult,
    ReaderRules, RecordId, Serial, Trigger,
};
use crate::rules::{Evaluation, Explanation, RuleExplanation, RuleInput, explain};

/// The card that is asked about.
struct LookupTarget {
    /// What is told about it.
    about: Value,
    identity: CardIdentity,
    /// Its ATR, where it is in a reader.
    atr: Option<Atr>,
    /// The role of its reader.
    role: String,
}

pub(super) fn lookup(
    config: Option<&Path>,
    reader: Option<&str>,
    card_id: Option<CardId>,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = load(config)?.settings;
    let (subject, found) = block_on(async {
        let remote = remote(&settings)?;
        let subject = match card_id {
            Some(card_id) => by_id(card_id),
            None => in_reader(&settings, reader).await?,
        };
        let mut found = remote.lookup(&subject.identity).await?;
        // They are shown as they came, and a server may send back what it was sent.
        for record in found.records.iter_mut().flat_map(|(_, records)| records) {
            record.raw = remote.redact(&record.raw).into();
        }
        Ok((subject, found))
    })?;
    let facts = |trigger| RuleInput {
        trigger,
        role: &subject.role,
        atr: subject.atr.as_ref(),
        identity: &subject.identity,
        found: &found,
    };
    let rules = &settings.rules;
    let put_in = explain(rules, &facts(Trigger::Inserted));
    let taken_out =
        rules.has_rules_for(Trigger::Removed).then(|| explain(rules, &facts(Trigger::Removed)));
    let is_held_back = subject.identity.partial && !put_in.verdict.is_conclusive();
    let would = LookupPreview { on_insertion: put_in, on_removal: taken_out, is_held_back };
    if out.is_json() {
        return out.value(&as_json(subject.about, &found, &would));
    }
    for line in as_text(&subject, &found, &would, &settings.rules.numbers) {
        out.line(&line)?;
    }
    Ok(Exit::Done)
}

/// What would come of the card.
struct LookupPreview {
    on_insertion: Explanation,
    /// Where any rule is for that.
    on_removal: Option<Explanation>,
    /// Whether nothing comes of it until the card is read in full.
    is_held_back: bool,
}

impl LookupPreview {
    fn findings(&self) -> impl Iterator<Item = &RuleExplanation> {
        let taken_out = self.on_removal.iter().flat_map(|would| &would.findings);
        self.on_insertion.findings.iter().chain(taken_out)
    }
}

/// A card that is not here: its id is taken as one that a card gave, and its ATR is not known.
fn by_id(card_id: CardId) -> LookupTarget {
    let first = Candidate::by_rule(card_id, IdRule::GidsCardid);
    let serial = Serial::from_bytes(&card_id.uuid().to_bytes_le());
    LookupTarget {
        about: json!({ "card_id": card_id }),
        identity: CardIdentity::new(Family::Gids, serial, first, Vec::new()),
        atr: None,
        role: ReaderRules::DEFAULT_ROLE.to_owned(),
    }
}

async fn in_reader(
    settings: &Settings,
    reader: Option<&str>,
) -> Result<LookupTarget, CommandError> {
    let desk = CardCommandSettings::from(settings.clone());
    let card = read_card(&desk, reader).await?;
    let role = desk.place(&card.reader).role;
    let mut about = json!({ "reader": card.reader, "atr": card.atr });
    merge(&mut about, &card.result);
    match card.result {
        Ok(identity) => Ok(LookupTarget { about, identity, atr: card.atr, role }),
        Err(why) => Err(CommandError::message(
            Exit::Failed,
            format!("the card is not identified: {}", why.detail),
        )),
    }
}

fn as_json(mut about: Value, found: &LookupResult, would: &LookupPreview) -> Value {
    let (candidate, records) = match &found.records {
        Some((candidate, records)) => {
            (Some(candidate), records.iter().map(|record| raw(&record.raw)).collect())
        }
        None => (None, Vec::new()),
    };
    let requests: Vec<_> = found
        .requests
        .iter()
        .map(|request| {
            json!({
                "request": request.id,
                "request_type": request.request_type,
                "status": request.status,
                "old_card": request.old_card,
                "new_card": request.new_card,
                "submitted": request.submitted,
            })
        })
        .collect();
    let rules: Vec<_> = would
        .findings()
        .map(|finding| {
            json!({
                "rule": finding.rule,
                "on": finding.on,
                "applies": finding.applies,
                "request": finding.request,
                "explanation": finding.explanation,
            })
        })
        .collect();
    if let Some(about) = about.as_object_mut() {
        about.insert("matched".to_owned(), json!(candidate));
        about.insert("records".to_owned(), json!(records));
        about.insert("requests".to_owned(), json!(requests));
        about.insert("rules".to_owned(), json!(rules));
        about.insert("record".to_owned(), json!(would.on_insertion.record));
        about.insert("on_insertion".to_owned(), verdict_json(&would.on_insertion.verdict));
        if would.is_held_back {
            about.insert("held_back".to_owned(), true.into());
        }
        if let Some(taken_out) = &would.on_removal {
            about.insert("on_removal".to_owned(), verdict_json(&taken_out.verdict));
        }
    }
    about
}

/// A record as CM sent it; as text if it is nested too deeply to be shown as JSON.
fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn verdict_json(verdict: &Evaluation) -> Value {
    match verdict {
        Evaluation::Set { decision, warning } => {
            json!({ "result": "set", "decision": decision, "warning": warning })
        }
        Evaluation::AlreadySet { decision } => {
            json!({ "result": "already-set", "decision": decision })
        }
        Evaluation::NothingToDo { why } => json!({ "result": "nothing-to-do", "detail": why }),
        Evaluation::UnknownCard { why } => json!({ "result": "unknown-card", "detail": why }),
        Evaluation::Park { reason, why } => {
            json!({ "result": "park", "reason": reason, "detail": why })
        }
    }
}

fn as_text(
    subject: &LookupTarget,
    found: &LookupResult,
    would: &LookupPreview,
    numbers: &CmEnums,
) -> Vec<String> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = Vec::new();
    for candidate in subject.identity.candidates() {
        rows.push(row("Card id", format!("{}  by {}", candidate.card_id, candidate.origin())));
    }
    if let Some((candidate, records)) = &found.records {
        rows.push(row("CM knows", format!("{}  by {}", candidate.card_id, candidate.origin())));
        for record in records {
            let status = numbers.card_status_text(record.status);
            rows.push(row("Record", format!("{}  {status}", record.id)));
        }
    }
    for request in &found.requests {
        let kind = numbers.request_type_text(request.request_type);
        let status = numbers.request_status_text(request.status);
        let link =
            |card: Option<RecordId>| card.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let (old, new) = (link(request.old_card), link(request.new_card));
        let cards = format!("old card {old}, new card {new}");
        rows.push(row("Request", format!("{}  {kind}, {status}, {cards}", request.id)));
    }
    for finding in would.findings() {
        let moment = match finding.on {
            Trigger::Inserted => "",
            Trigger::Removed => ", on removal",
        };
        rows.push(row("Rule", format!("{}{moment}: {}", finding.rule, finding.explanation)));
    }
    let so = verdict_text(&would.on_insertion.verdict, numbers);
    rows.push(row("So", if would.is_held_back { format!("{HELD_BACK}{so}") } else { so }));
    if let Some(taken_out) = &would.on_removal {
        let text = verdict_text(&taken_out.verdict, numbers);
        rows.push(row("On removal", text));
    }
    table(&rows)
}

/// What is said before a verdict that is not carried out.
const HELD_BACK: &str = "would wait until the card is read in full; by the part that was read it ";

const fn completion(decision: &Decision) -> &'static str {
    if decision.complete_request { " and complete the request" } else { "" }
}

fn verdict_text(verdict: &Evaluation, numbers: &CmEnums) -> String {
    match verdict {
        Evaluation::Set { decision, warning } => {
            let from = numbers.card_status_text(decision.old_status);
            let warning = warning
                .as_ref()
                .map(|warning| format!(" (warning: {warning})"))
                .unwrap_or_default();
            format!(
                "would set {} instead of {from}{}, by rule {}{warning}",
                decision.new_status_name,
                completion(decision),
                decision.rule
            )
        }
        Evaluation::AlreadySet { decision } if decision.complete_request => format!(
            "would only complete the request, by rule {}: the record is {} already",
            decision.rule, decision.new_status_name
        ),
        Evaluation::AlreadySet { decision } => {
            format!("would do nothing: the record is {} already", decision.new_status_name)
        }
        Evaluation::NothingToDo { why } | Evaluation::UnknownCard { why } => {
            format!("would do nothing: {why}")
        }
        Evaluation::Park { reason, why } => format!("would ask a person ({reason}): {why}"),
    }
}
