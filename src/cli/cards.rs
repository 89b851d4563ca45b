//! Cards in readers, with or without CM; and `read`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::atr;
use super::config_loader::settings_without_cm;
use super::output::{CommandError, Exit, Output, block_on};
use super::render::{row, table};
use crate::app::{PROBE_DEADLINE, cm_client, reader_options};
use crate::config::Settings;
use crate::domain::{
    ApduExchange, Atr, Candidate, CardId, CardIdentity, CardRecord, InsertedCard, InsertionId,
    NotIdentified, NotIdentifiedReason, ReaderEvent, ReaderName, ReaderSettings, Strength,
};
use crate::readers::{Readers, attributes};
use crate::telemetry::ErrorChain;

/// pcscd responds in milliseconds once it has powered up every reader, which takes seconds.
pub(super) const INITIAL_STATE_TIMEOUT: Duration = Duration::from_secs(10);

const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the configuration skips a card, if so.
pub(super) fn skip_reason(
    settings: &Settings,
    reader: &ReaderName,
    atr: &Atr,
) -> Option<NotIdentified> {
    let reader = reader_settings(settings, reader);
    NotIdentified::skipped_by_config(&reader, &settings.skip_atr, atr)
}

/// The settings of a reader. Its driver is asked only where a `[[reader]]` depends on it.
pub(super) fn reader_settings(settings: &Settings, reader: &ReaderName) -> ReaderSettings {
    let readers = &settings.readers;
    let attributes = readers.need_attributes().then(|| attributes(reader, ATTRIBUTES_TIMEOUT));
    readers.settings_for(reader, &attributes.unwrap_or_default())
}

/// Watches the readers until it is dropped.
pub(super) struct ReaderWatch {
    readers: Option<Readers>,
    events: UnboundedReceiver<ReaderEvent>,
}

impl ReaderWatch {
    pub(super) fn start(settings: &Settings) -> Result<Self, CommandError> {
        let (readers, events) = Readers::start(reader_options(settings))?;
        Ok(Self { readers: Some(readers), events })
    }

    pub(super) async fn next(&mut self) -> Result<ReaderEvent, CommandError> {
        let stopped =
            || CommandError::new(Exit::Failure, "the reader monitor stopped unexpectedly");
        self.events.recv().await.ok_or_else(stopped)
    }

    pub(super) fn probe(&mut self, reader: &ReaderName, insertion: InsertionId, atr: &Atr) {
        if let Some(readers) = &mut self.readers {
            readers.probe(reader, insertion, atr, false);
        }
    }

    pub(super) fn abandon(&mut self, reader: &ReaderName) -> Vec<ApduExchange> {
        self.readers.as_mut().map(|readers| readers.abandon(reader)).unwrap_or_default()
    }
}

impl Drop for ReaderWatch {
    fn drop(&mut self) {
        if let Some(readers) = self.readers.take() {
            readers.stop();
        }
    }
}

pub(super) fn unreachable(reason: &str) -> CommandError {
    let remedy = "check that pcscd runs and that this user has access";
    let text = format!("pcscd is unreachable: {reason}\n{remedy}");
    CommandError::new(Exit::Unreachable, text)
}

pub(super) fn too_slow() -> NotIdentified {
    let detail = format!("card was not read within {} s", PROBE_DEADLINE.as_secs());
    NotIdentified::new(NotIdentifiedReason::Timeout, detail)
}

/// A field of a JSON object.
pub(super) type Field = (&'static str, Value);

/// A card's identity, or why it has none.
pub(super) fn identity_field(result: &Result<CardIdentity, NotIdentified>) -> Field {
    match result {
        Ok(identity) => ("identity", json!(identity)),
        Err(error) => ("not_identified", json!(error)),
    }
}

/// A card that was read on demand.
pub(super) struct ProbedCard {
    pub(super) reader: ReaderName,
    /// None for a mute card.
    pub(super) atr: Option<Atr>,
    pub(super) result: Result<CardIdentity, NotIdentified>,
    exchanges: Vec<ApduExchange>,
}

/// Reads the card in the named reader, or in the only one with a card.
pub(super) async fn read_card(
    settings: &Settings,
    name: Option<&str>,
) -> Result<ProbedCard, CommandError> {
    let mut watch = ReaderWatch::start(settings)?;
    let cards = tokio::time::timeout(INITIAL_STATE_TIMEOUT, initial_state(&mut watch))
        .await
        .map_err(|_| unreachable("no response in time"))??;
    let (reader, card) = choose(cards, name)?;
    let unread =
        |reader, atr, error| ProbedCard { reader, atr, result: Err(error), exchanges: Vec::new() };
    let Some((insertion, atr)) = card else {
        let detail = "the card does not respond: turn it over or clean it".to_owned();
        let mute = NotIdentified::new(NotIdentifiedReason::Mute, detail);
        return Ok(unread(reader, None, mute));
    };
    if let Some(skipped) = skip_reason(settings, &reader, &atr) {
        return Ok(unread(reader, Some(atr), skipped));
    }
    watch.probe(&reader, insertion, &atr);
    let mut identity = None;
    let read = probe_result(&mut watch, insertion, &mut identity);
    let (result, exchanges) = match tokio::time::timeout(PROBE_DEADLINE, read).await {
        Ok(read) => read?,
        Err(_) => (identity.ok_or_else(too_slow), watch.abandon(&reader)),
    };
    Ok(ProbedCard { reader, atr: Some(atr), result, exchanges })
}

/// How the probe ends; `identity` is set as soon as it is known, which is before the end.
async fn probe_result(
    watch: &mut ReaderWatch,
    of: InsertionId,
    identified: &mut Option<CardIdentity>,
) -> Result<(Result<CardIdentity, NotIdentified>, Vec<ApduExchange>), CommandError> {
    loop {
        let event = watch.next().await?;
        if let ReaderEvent::ProbeFinished { insertion, result, exchanges, .. } = event {
            if insertion == of {
                return Ok((result, exchanges));
            }
        } else if let ReaderEvent::Identified { insertion, identity, .. } = event
            && insertion == of
        {
            *identified = Some(identity);
        }
    }
}

/// What is in a reader: `None` for a mute card.
type CardInReader = Option<(InsertionId, Atr)>;

async fn initial_state(
    watch: &mut ReaderWatch,
) -> Result<BTreeMap<ReaderName, Option<CardInReader>>, CommandError> {
    let mut readers = BTreeMap::new();
    loop {
        match watch.next().await? {
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, atr, .. }) => {
                readers.insert(reader, Some(Some((insertion, atr))));
            }
            ReaderEvent::CardMute { reader, .. } => {
                readers.insert(reader, Some(None));
            }
            ReaderEvent::ReaderAttached { reader, .. }
            | ReaderEvent::CardRemoved { reader, .. } => {
                readers.insert(reader, None);
            }
            ReaderEvent::ReaderDetached { reader } => {
                readers.remove(&reader);
            }
            ReaderEvent::PcscdUnavailable { reason } => return Err(unreachable(&reason)),
            ReaderEvent::InitialScanDone => return Ok(readers),
            ReaderEvent::PcscdConnected
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::Identified { .. }
            | ReaderEvent::CardReleased { .. }
            | ReaderEvent::ProbeFinished { .. } => {}
        }
    }
}

/// The card in the reader of this name, or with this part in its name.
fn choose(
    readers: BTreeMap<ReaderName, Option<CardInReader>>,
    name: Option<&str>,
) -> Result<(ReaderName, CardInReader), CommandError> {
    if readers.is_empty() {
        return Err(CommandError::new(Exit::Unreachable, "no reader is connected"));
    }
    let list = |names: &[ReaderName]| {
        names.iter().map(|name| format!("  {name}")).collect::<Vec<_>>().join("\n")
    };
    let connected: Vec<_> = readers.keys().cloned().collect();
    let is_exact = connected.iter().any(|reader| Some(reader.as_str()) == name);
    let mut chosen = readers;
    chosen.retain(|reader, _| match name {
        Some(name) if is_exact => reader.as_str() == name,
        Some(part) => reader.as_str().contains(part),
        None => true,
    });
    if chosen.is_empty() {
        let names = list(&connected);
        let text = format!("no reader matches this name; connected readers:\n{names}");
        return Err(CommandError::new(Exit::Usage, text));
    }
    let mut with_card = chosen.into_iter().filter_map(|(name, card)| Some((name, card?)));
    let Some(card) = with_card.next() else {
        return Err(CommandError::new(Exit::Failure, "no card is in the reader"));
    };
    let others: Vec<_> = with_card.map(|(name, _)| name).collect();
    if others.is_empty() {
        return Ok(card);
    }
    let names = list(&[vec![card.0], others].concat());
    let text = format!("more than one card; choose a reader with --reader:\n{names}");
    Err(CommandError::new(Exit::Usage, text))
}

/// `read`
pub(super) fn read(
    config: Option<&Path>,
    reader: Option<&str>,
    trace: bool,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = settings_without_cm(config)?;
    let (card, answer) = block_on(async {
        let card = read_card(&settings, reader).await?;
        let answer = match &card.result {
            Ok(identity) if !settings.cm.url.is_empty() => Some(ask_cm(&settings, identity).await),
            Ok(_) | Err(_) => None,
        };
        Ok((card, answer))
    })?;
    let names = card.atr.as_ref().map(atr::list_names).unwrap_or_default();
    let json = as_json(&card, &names, answer.as_ref(), trace);
    out.value(&json, || as_text(&card, &names, answer.as_ref(), trace))?;
    Ok(if card.result.is_ok() { Exit::Success } else { Exit::Failure })
}

/// CM's records for each of a card's ids, or why CM was not asked.
type CmAnswer = Result<BTreeMap<CardId, Vec<CardRecord>>, String>;

/// Asks CM for every id: a site learns here which rule its minidriver follows.
async fn ask_cm(settings: &Settings, identity: &CardIdentity) -> CmAnswer {
    let cm = cm_client(settings).map_err(|error| ErrorChain(&error).to_string())?;
    let ids: BTreeSet<_> = identity.candidates().map(|candidate| candidate.card_id).collect();
    let mut answer = BTreeMap::new();
    for id in ids {
        let records = cm.records(id).await.map_err(|error| ErrorChain(&error).to_string())?;
        answer.insert(id, records);
    }
    Ok(answer)
}

fn records_of<'a>(
    answer: &'a BTreeMap<CardId, Vec<CardRecord>>,
    candidate: &Candidate,
) -> &'a [CardRecord] {
    answer.get(&candidate.card_id).map(Vec::as_slice).unwrap_or_default()
}

/// The first id for which CM has a record.
fn matched<'i>(
    answer: &BTreeMap<CardId, Vec<CardRecord>>,
    identity: &'i CardIdentity,
) -> Option<&'i Candidate> {
    identity.candidates().find(|candidate| !records_of(answer, candidate).is_empty())
}

fn as_json(card: &ProbedCard, names: &[String], answer: Option<&CmAnswer>, trace: bool) -> Value {
    let decoded = card.atr.as_ref().map(|atr| atr::as_json(atr, names));
    let mut fields = vec![
        ("reader", json!(card.reader)),
        ("atr", json!(card.atr)),
        ("atr_decoded", json!(decoded)),
        identity_field(&card.result),
    ];
    if let (Some(answer), Ok(identity)) = (answer, &card.result) {
        let answer = match answer {
            Ok(answer) => answer_as_json(answer, identity),
            Err(error) => json!({ "error": error }),
        };
        fields.push(("cm", answer));
    }
    if trace {
        let exchanges = card.exchanges.iter().map(|exchange| {
            json!({
                "command": hex::encode(&exchange.command),
                "response": hex::encode(&exchange.response),
                "duration_us": exchange.duration.as_micros(),
            })
        });
        fields.push(("trace", exchanges.collect()));
    }
    fields.into_iter().collect()
}

fn answer_as_json(answer: &BTreeMap<CardId, Vec<CardRecord>>, identity: &CardIdentity) -> Value {
    let record = |record: &CardRecord| {
        json!({
            "record": record.id,
            "serial_number": record.serial_number,
            "status": record.status,
            "atr": record.atr,
        })
    };
    let candidate = |candidate: &Candidate| {
        json!({
            "card_id": candidate.card_id,
            "rule": candidate.rule,
            "strength": candidate.strength,
            "records": records_of(answer, candidate).iter().map(record).collect::<Vec<_>>(),
        })
    };
    let matched = matched(answer, identity);
    json!({
        "matched_rule": matched.map(|candidate| candidate.rule),
        "matched_strength": matched.map(|candidate| candidate.strength),
        "candidates": identity.candidates().map(candidate).collect::<Vec<_>>(),
    })
}

fn as_text(
    card: &ProbedCard,
    names: &[String],
    answer: Option<&CmAnswer>,
    trace: bool,
) -> Vec<String> {
    let mut rows = vec![row("Reader", card.reader.to_string())];
    if let Some(atr) = &card.atr {
        rows.push(row("ATR", atr.to_string()));
        rows.extend(atr::as_text(atr, names).into_iter().map(|line| row("", line)));
    }
    let inventory = match &card.result {
        Ok(identity) => {
            rows.push(row("Family", identity.family.to_string()));
            rows.push(row("Serial", identity.serial.to_string()));
            if identity.partial {
                let text = "read in part: another program uses the card, or it stopped responding; \
                            it may have more ids";
                rows.push(row("Identity", text));
            }
            rows.extend(candidate_rows(identity, answer));
            if let (Some(atr), Some(answer)) = (&card.atr, answer) {
                rows.push(row("CM", cm_text(atr, identity, answer)));
            }
            &identity.inventory
        }
        Err(error) => {
            rows.push(row("Not identified", format!("{}: {}", error.reason, error.detail)));
            &error.inventory
        }
    };
    rows.extend(inventory.iter().map(|(number, value)| row(number.name(), value)));
    let mut lines = table(&rows);
    if trace {
        lines.push(String::new());
        for exchange in &card.exchanges {
            lines.push(format!("> {}", hex::encode(&exchange.command)));
            lines.push(if exchange.response.is_empty() {
                "< (no response)".to_owned()
            } else {
                let micros = exchange.duration.as_micros();
                format!("< {}  ({micros} µs)", hex::encode(&exchange.response))
            });
        }
    }
    lines
}

/// Every id with its rule, and what CM has for it.
fn candidate_rows(
    identity: &CardIdentity,
    answer: Option<&CmAnswer>,
) -> impl Iterator<Item = Vec<String>> {
    let answer = answer.and_then(|answer| answer.as_ref().ok());
    identity.candidates().enumerate().map(move |(n, candidate)| {
        let mut text = format!("{}  by {:17}", candidate.card_id, candidate.origin());
        if let Some(answer) = answer {
            let records = records_of(answer, candidate);
            text.extend(records.iter().map(|record| {
                format!("  CM: SerialNumber {}, record {}", record.serial_number, record.id)
            }));
            if records.is_empty() {
                text.push_str("  CM: no record");
            }
        }
        row(if n == 0 { "Card id" } else { "  or" }, text.trim_end())
    })
}

/// By which rule CM knows the card, and how to pin it.
fn cm_text(atr: &Atr, identity: &CardIdentity, answer: &CmAnswer) -> String {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return format!("lookup failed: {error}"),
    };
    match matched(answer, identity) {
        None => "no record of this card".to_owned(),
        Some(Candidate { rule, pinned: true, .. }) => {
            format!("record found by {rule}, which is pinned")
        }
        Some(Candidate { rule, strength: Strength::Shared, .. }) => format!(
            "record found by {rule}, an id that several cards can have: the card is not updated"
        ),
        Some(Candidate { rule, .. }) => format!(
            "record found by {rule}; to pin it: [[card]] match = \"{atr}\", id_rule = \"{rule}\""
        ),
    }
}
