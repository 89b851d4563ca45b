//! `status`: the running daemon.

use std::path::Path;

use super::audit;
use super::cards::block_on;
use super::config_loader::{numbers, settings_to_ask};
use super::exit::{CommandError, Exit};
use super::output::Output;
use super::text::{table, time};
use crate::control::ControlClient;
use crate::domain::{
    CardView, CmEnums, CmView, CredentialsView, PcscdView, ReaderAttributes, ReaderView, StatusView,
};

/// A way to ask the daemon that this configuration is for.
pub(super) fn client(config: Option<&Path>) -> Result<ControlClient, CommandError> {
    Ok(ControlClient::new(&settings_to_ask(config)?.control.socket))
}

pub(super) fn status(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let client = client(config)?;
    let snapshot = block_on(async { Ok(client.status().await?) })?;
    if out.is_json() {
        return out.value(&snapshot);
    }
    for line in as_text(&snapshot, &numbers(config)?) {
        out.line(&line)?;
    }
    Ok(Exit::Done)
}

fn as_text(snapshot: &StatusView, numbers: &CmEnums) -> Vec<String> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let outbox = &snapshot.outbox;
    let mut rows = vec![
        row("Station", snapshot.station.clone()),
        row("Daemon", format!("{} since {}", snapshot.version, time(snapshot.started_at))),
        row("pcscd", pcscd_line(&snapshot.pcscd)),
        row("CM", link(&snapshot.cm)),
        row("Credentials", credentials_line(&snapshot.credentials)),
        row("Outbox", format!("{} waiting, {} parked", outbox.waiting, outbox.parked)),
    ];
    rows.extend(outbox.oldest_waiting_at.map(|at| row("", format!("oldest since {}", time(at)))));
    rows.extend(outbox.write_error.as_ref().map(|error| row("", format!("ERROR: {error}"))));
    rows.extend(snapshot.data_loss.as_ref().map(|lost| row("", format!("DATA LOSS: {lost}"))));
    rows.extend(snapshot.readers.iter().map(|reader| row("Reader", reader_text(reader))));
    if snapshot.readers.is_empty() {
        rows.push(row("Reader", "none".to_owned()));
    }
    let mut lines = table(&rows);
    if !snapshot.recent_audit.is_empty() {
        lines.push(String::new());
        lines.extend(snapshot.recent_audit.iter().map(|line| audit::as_text(line, numbers)));
    }
    lines
}

fn pcscd_line(view: &PcscdView) -> String {
    match view {
        PcscdView::Connecting => "connecting".to_owned(),
        PcscdView::Connected { since } => format!("connected since {}", time(*since)),
        PcscdView::Unavailable { since, reason } => {
            format!("no connection since {}: {reason}", time(*since))
        }
    }
}

fn link(view: &CmView) -> String {
    match view {
        CmView::Unknown => "not contacted yet".to_owned(),
        CmView::Available { since } => format!("available since {}", time(*since)),
        CmView::Unavailable { since, reason, detail, remedy, next_try_ms } => format!(
            "unavailable since {} ({reason}): {detail}; {remedy}; next attempt in {} s",
            time(*since),
            next_try_ms.div_ceil(1000)
        ),
    }
}

fn attributes_text(attributes: &ReaderAttributes) -> String {
    let ReaderAttributes { vendor, serial } = attributes;
    let vendor = vendor.as_ref().map(|vendor| format!("by {vendor}"));
    let serial = serial.as_ref().map(|serial| format!("serial {serial}"));
    let told: Vec<_> = vendor.into_iter().chain(serial).collect();
    if told.is_empty() { String::new() } else { format!(", {}", told.join(", ")) }
}

fn credentials_line(view: &CredentialsView) -> String {
    let identity = view.identity.as_ref().map(|identity| format!(" as {identity}"));
    let end = view.valid_until.map(|at| format!(", valid until {}", time(at)));
    let trouble = view.renewal_error.as_ref().map(|error| format!("; ERROR: {error}"));
    let details = [identity, end, trouble].into_iter().flatten();
    details.fold(view.method.clone(), |line, detail| line + &detail)
}

fn reader_text(view: &ReaderView) -> String {
    let name = view.reader.as_str();
    let label = if view.settings.label == name {
        name.to_owned()
    } else {
        format!("{} ({name})", view.settings.label)
    };
    let card = match &view.card {
        CardView::Empty => "empty".to_owned(),
        CardView::Mute => "mute card: turn it over or clean it".to_owned(),
        CardView::Reading { .. } => "a card is being read".to_owned(),
        CardView::Identified { identity, entry, .. } => {
            let entry =
                entry.map_or_else(|| "not stored yet".to_owned(), |id| format!("entry {id}"));
            let first = identity.primary();
            let part = if identity.partial {
                ", read in part: another program uses it, or it stopped answering"
            } else {
                ""
            };
            let (family, id, origin) = (identity.family, first.card_id, first.origin());
            format!("{family} {id} by {origin}, {entry}{part}")
        }
        CardView::NotIdentified { error: why, .. } => format!("not identified: {}", why.detail),
    };
    let about = attributes_text(&view.attributes);
    format!("{label}{about}: {}, since {}", in_place(view, card), time(view.since))
}

/// A card that is not worked on because its reader is switched off is no trouble of the card's.
fn in_place(view: &ReaderView, card: String) -> String {
    match &view.card {
        _ if view.settings.enabled => card,
        CardView::Empty => "switched off".to_owned(),
        CardView::Mute | CardView::NotIdentified { .. } => "switched off, with a card".to_owned(),
        CardView::Reading { .. } | CardView::Identified { .. } => format!("switched off, {card}"),
    }
}
