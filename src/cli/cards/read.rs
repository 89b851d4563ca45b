//! `read`: who the card in the reader is, byte by byte if need be, and by which of its ids CM knows it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::atr;
use super::super::config_loader::{CardCommandSettings, settings_without_cm};
use super::super::exit::{CommandError, Exit};
use super::super::output::Output;
use super::super::text::table;
use super::{ProbedCard, block_on, merge, read_card};
use crate::app::remote;
use crate::config::Settings;
use crate::domain::{Atr, Candidate, CardId, CardIdentity, CardRecord, Strength};
use crate::telemetry::ErrorChain;

pub(in crate::cli) fn read(
    config: Option<&Path>,
    reader: Option<&str>,
    trace: bool,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = settings_without_cm(config)?;
    let desk = CardCommandSettings::from(settings.clone());
    let (card, known) = block_on(async {
        let card = read_card(&desk, reader).await?;
        let known = match &card.result {
            Ok(identity) if !settings.cm.url.is_empty() => Some(ask_cm(&settings, identity).await),
            Ok(_) | Err(_) => None,
        };
        Ok((card, known))
    })?;
    let exit = if card.result.is_ok() { Exit::Done } else { Exit::Failed };
    if out.is_json() {
        out.value(&as_json(&card, known.as_ref(), trace))?;
        return Ok(exit);
    }
    for line in as_text(&card, known.as_ref(), trace) {
        out.line(&line)?;
    }
    Ok(exit)
}

/// What CM says to each of a card's ids, or why it says nothing.
type CmAnswer = Result<Vec<(CardId, Vec<CardRecord>)>, String>;

/// Asks CM for every id, each once: a site learns here which rule its minidriver goes by.
async fn ask_cm(settings: &Settings, identity: &CardIdentity) -> CmAnswer {
    let remote = remote(settings).map_err(|error| ErrorChain(&error).to_string())?;
    let mut asked = BTreeSet::new();
    let mut answers = Vec::new();
    for Candidate { card_id, .. } in identity.candidates() {
        if asked.insert(*card_id) {
            let records = remote.records(*card_id).await;
            answers.push((*card_id, records.map_err(|error| ErrorChain(&error).to_string())?));
        }
    }
    Ok(answers)
}

fn records_of(known: &[(CardId, Vec<CardRecord>)], candidate: &Candidate) -> Vec<CardRecord> {
    let answers = known.iter().filter(|(card_id, _)| *card_id == candidate.card_id);
    answers.flat_map(|(_, records)| records.clone()).collect()
}

/// The first id by which CM has a record.
fn matched<'i>(
    known: &[(CardId, Vec<CardRecord>)],
    identity: &'i CardIdentity,
) -> Option<&'i Candidate> {
    identity.candidates().find(|candidate| !records_of(known, candidate).is_empty())
}

fn as_json(card: &ProbedCard, known: Option<&CmAnswer>, trace: bool) -> Value {
    let facts = card.atr.as_ref().map(|atr| atr::as_json(atr, &atr::list_names(atr)));
    let mut object = json!({ "reader": card.reader, "atr": card.atr, "atr_decoded": facts });
    merge(&mut object, &card.result);
    let Some(fields) = object.as_object_mut() else { return object };
    if let (Some(known), Ok(identity)) = (known, &card.result) {
        fields.insert("cm".to_owned(), known_as_json(known, identity));
    }
    if trace {
        let exchanges = card.exchanges.iter().map(|exchange| {
            json!({
                "command": hex::encode(&exchange.command),
                "response": hex::encode(&exchange.response),
                "duration_us": exchange.duration.as_micros(),
            })
        });
        fields.insert("trace".to_owned(), exchanges.collect());
    }
    object
}

fn known_as_json(known: &CmAnswer, identity: &CardIdentity) -> Value {
    let known = match known {
        Ok(known) => known,
        Err(error) => return json!({ "error": error }),
    };
    let record = |record: &CardRecord| {
        json!({
            "record": record.id,
            "serial_number": record.serial_number,
            "status": record.status,
            "atr": record.atr,
        })
    };
    let candidates: Vec<_> = identity
        .candidates()
        .map(|candidate| {
            let records: Vec<_> = records_of(known, candidate).iter().map(record).collect();
            json!({
                "card_id": candidate.card_id,
                "rule": candidate.rule,
                "strength": candidate.strength,
                "records": records,
            })
        })
        .collect();
    let matched = matched(known, identity);
    json!({
        "matched_rule": matched.map(|candidate| candidate.rule),
        "matched_strength": matched.map(|candidate| candidate.strength),
        "candidates": candidates,
    })
}

fn as_text(card: &ProbedCard, known: Option<&CmAnswer>, trace: bool) -> Vec<String> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("Reader", card.reader.to_string())];
    if let Some(atr) = &card.atr {
        rows.push(row("ATR", atr.to_string()));
        let about = atr::as_text(atr, &atr::list_names(atr));
        rows.extend(about.into_iter().map(|line| row("", line)));
    }
    let inventory = match &card.result {
        Ok(identity) => {
            rows.push(row("Family", identity.family.to_string()));
            rows.push(row("Serial", identity.serial.to_string()));
            if identity.partial {
                let text = "read in part: another program uses the card, or it stopped answering";
                rows.push(row("Identity", format!("{text}; it may have more ids")));
            }
            rows.extend(candidate_rows(identity, known));
            rows.extend(card.atr.as_ref().and_then(|atr| cm_row(atr, identity, known)));
            &identity.inventory
        }
        Err(why) => {
            rows.push(row("Not identified", format!("{}: {}", why.reason, why.detail)));
            &why.inventory
        }
    };
    rows.extend(inventory.iter().map(|(number, value)| row(number.name(), value.to_owned())));
    let mut lines = table(&rows);
    if trace {
        lines.push(String::new());
        for exchange in &card.exchanges {
            lines.push(format!("> {}", hex::encode(&exchange.command)));
            let (response, micros) =
                (hex::encode(&exchange.response), exchange.duration.as_micros());
            lines.push(match response.as_str() {
                "" => "< (no answer)".to_owned(),
                response => format!("< {response}  ({micros} µs)"),
            });
        }
    }
    lines
}

/// Every id with the rule that made it, next to what CM has under it.
fn candidate_rows(identity: &CardIdentity, known: Option<&CmAnswer>) -> Vec<Vec<String>> {
    let row = |(n, candidate): (usize, &Candidate)| {
        let name = if n == 0 { "Card id" } else { "  or" };
        let mut text = format!("{}  by {:17}", candidate.card_id, candidate.origin());
        if let Some(Ok(known)) = known {
            let records = records_of(known, candidate);
            let told = |record: &CardRecord| {
                format!("  CM: SerialNumber {}, record {}", record.serial_number, record.id)
            };
            text.extend(records.iter().map(told));
            if records.is_empty() {
                text.push_str("  CM: no record");
            }
        }
        vec![name.to_owned(), text.trim_end().to_owned()]
    };
    identity.candidates().enumerate().map(row).collect()
}

/// By which rule CM knows the card, and how the site pins that; or why nobody knows.
fn cm_row(atr: &Atr, identity: &CardIdentity, known: Option<&CmAnswer>) -> Option<Vec<String>> {
    let text = match known? {
        Err(error) => format!("was not asked: {error}"),
        Ok(known) => match matched(known, identity) {
            None => "has no record of this card".to_owned(),
            Some(Candidate { rule, pinned: true, .. }) => {
                format!("knows this card by {rule}, which is pinned")
            }
            Some(Candidate { rule, strength: Strength::Shared, .. }) => format!(
                "has a record by {rule}, an id that more than one card can carry: it is not updated"
            ),
            Some(Candidate { rule, .. }) => format!(
                "knows this card by {rule}; to pin that: [[card]] match = \"{atr}\", id_rule = \"{rule}\""
            ),
        },
    };
    Some(vec!["CM".to_owned(), text])
}
