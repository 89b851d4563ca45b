//! `outbox`: the entries that wait, for CM or for a person.

use std::path::Path;

use super::cards::block_on;
use super::config_loader::settings_to_ask;
use super::exit::{CommandError, Exit};
use super::offline;
use super::output::Output;
use super::status::client;
use super::text::{escape_control_chars, table, time};
use crate::control::{ControlError, EntryAction};
use crate::domain::{EntryId, EntryView, Stage, Trigger};
use crate::outbox;
use crate::wire::control::ActionResult;

/// The entries that the daemon has, or those on the disk of one that does not run.
fn entries(config: Option<&Path>) -> Result<Vec<EntryView>, CommandError> {
    let client = client(config)?;
    let answer = block_on(async { Ok(client.entries().await) })?;
    match answer {
        Ok(entries) => Ok(entries),
        Err(error @ ControlError::NotRunning(..)) => match open_offline(config)? {
            Some(store) => on_disk(&store),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// One of them.
fn entry(config: Option<&Path>, id: EntryId) -> Result<EntryView, CommandError> {
    let client = client(config)?;
    match block_on(async { Ok(client.entry(id).await) })? {
        Ok(view) => Ok(view),
        Err(ControlError::NotRunning(..)) => {
            let stored = entries(config)?.into_iter().find(|view| view.entry.id == id);
            stored.ok_or_else(|| CommandError::message(Exit::Failed, "no such entry"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells of rows that are not believed any more, beside the data.
#[expect(clippy::print_stderr, reason = "text for people beside data on standard output")]
pub(super) fn warn_of(damaged: &[outbox::DamagedRow]) {
    for row in damaged {
        eprintln!(
            "cardbridge: left out, because it is damaged: {}",
            escape_control_chars(&row.to_string())
        );
    }
}

/// The disk of a daemon that does not run, where the configuration tells where it is.
pub(super) fn open_offline(
    config: Option<&Path>,
) -> Result<Option<outbox::ReadOnlyOutbox>, CommandError> {
    let settings = settings_to_ask(config)?;
    let path = &settings.outbox.path;
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let store = outbox::act_as_owner(path).and_then(|()| outbox::open_read_only(path));
    store.map(Some).map_err(|error| CommandError::new(Exit::Failed, error))
}

fn on_disk(store: &outbox::ReadOnlyOutbox) -> Result<Vec<EntryView>, CommandError> {
    let listing = store.entries().map_err(|error| CommandError::new(Exit::Failed, error))?;
    warn_of(&listing.damaged);
    let view = |entry| EntryView { entry, attempts: 0, last_error: None, next_try_ms: None };
    Ok(listing.entries.into_iter().map(view).collect())
}

pub(super) fn list(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let entries = entries(config)?;
    if out.is_json() {
        return out.value(&entries);
    }
    if entries.is_empty() {
        out.line("The outbox is empty.")?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["ENTRY", "SEEN", "READER", "CARD", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|view| {
        let draft = &view.entry.card_event;
        vec![
            view.entry.id.to_string(),
            time(draft.seen_at),
            draft.label.clone(),
            draft.identity.primary().card_id.to_string(),
            state(view),
        ]
    }));
    for line in table(&rows) {
        out.line(&line)?;
    }
    Ok(Exit::Done)
}

pub(super) fn show(
    config: Option<&Path>,
    id: EntryId,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let view = entry(config, id)?;
    if out.is_json() {
        return out.value(&view);
    }
    for line in as_text(&view) {
        out.line(&line)?;
    }
    Ok(Exit::Done)
}

fn as_text(view: &EntryView) -> Vec<String> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let draft = &view.entry.card_event;
    let mut rows = vec![
        row("Entry", view.entry.id.to_string()),
        row("Seen", format!("{}, {}", time(draft.seen_at), draft.trigger.as_str())),
        row("Reader", format!("{} ({}), role {}", draft.label, draft.reader, draft.role)),
        row("ATR", draft.atr.to_string()),
        row("Family", draft.identity.family.to_string()),
        row("Serial", draft.identity.serial.to_string()),
    ];
    for candidate in draft.identity.candidates() {
        rows.push(row("Card id", format!("{}  by {}", candidate.card_id, candidate.origin())));
    }
    if let Stage::Sent(decision) | Stage::Completing(decision) = &view.entry.stage {
        rows.push(row("Rule", format!("{} sets {}", decision.rule, decision.new_status_name)));
        rows.push(row("Record", decision.record.to_string()));
        rows.push(row("Request", decision.request.to_string()));
    }
    rows.push(row("State", state(view)));
    table(&rows)
}

/// Where an entry stands, and why it waits.
fn state(view: &EntryView) -> String {
    let what = if view.entry.card_event.trigger == Trigger::Removed { "taken out; " } else { "" };
    format!("{what}{}", stage(view))
}

fn stage(view: &EntryView) -> String {
    let stage = match &view.entry.stage {
        Stage::Queued => "waiting".to_owned(),
        Stage::Sent(_) => "waiting, update possibly sent".to_owned(),
        Stage::Completing(_) => "waiting, status set, request possibly not completed".to_owned(),
        Stage::Parked { reason, detail, .. } => return format!("parked ({reason}): {detail}"),
    };
    let error = view.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let next = view
        .next_try_ms
        .map(|ms| format!("; next try in {} s", ms.div_ceil(1000)))
        .unwrap_or_default();
    format!("{stage}{error}{next}")
}

pub(super) fn retry(
    config: Option<&Path>,
    id: EntryId,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    act(config, id, EntryAction::Retry, out)
}

pub(super) fn discard(
    config: Option<&Path>,
    id: EntryId,
    yes: bool,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    if !yes {
        let message = format!(
            "discarding entry {id} is permanent and the card will not be updated; confirm with --yes"
        );
        return Err(CommandError::message(Exit::Usage, message));
    }
    act(config, id, EntryAction::Discard, out)
}

fn act(
    config: Option<&Path>,
    id: EntryId,
    act: EntryAction,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let client = client(config)?;
    let done = match block_on(async { Ok(client.act(id, act).await) })? {
        Ok(done) => done,
        Err(silent @ ControlError::NotRunning(..)) => {
            offline::act(config, id, act, silent)?;
            ActionResult { result: act.past_participle().to_owned() }
        }
        Err(error) => return Err(error.into()),
    };
    if out.is_json() {
        return out.value(&done);
    }
    out.line(&format!("Entry {id} is {}.", done.result))?;
    Ok(Exit::Done)
}
