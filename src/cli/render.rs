//! Text for the operator: tables, times, audit lines, the daemon's status and its entries.

use std::fmt::Write;

use jiff::Timestamp;

use crate::domain::{
    AuditLine, CardIdentity, CardStatus, CardView, CmEnums, CmView, CredentialsView, EntryView,
    PcscdView, ReaderView, Stage, StatusView, Strength, Trigger,
};
use crate::telemetry::escape_control_chars;

/// A row of two columns.
pub(super) fn row(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), value.into()]
}

/// Rows with their columns aligned; the last column has any length.
pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| escape_control_chars(cell).chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{:width$}", escape_control_chars(cell)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A time, to the second.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// When, what, which card, what changed and why.
pub(super) fn audit_line(line: &AuditLine, numbers: &CmEnums) -> String {
    let mut text = format!("{}  {:14}", time(line.at), line.outcome);
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).is_ok();
    if let Some(reason) = &line.reason {
        add(format_args!(" ({reason})"));
    }
    if let Some(card) = line.card_id {
        add(format_args!("  card {card}"));
        // A unique id needs no remark; lines of version 0.1 have no strength.
        if let Some(strength @ (Strength::Serial | Strength::Shared)) = line.id_strength {
            let pinned = if line.id_pinned { ", pinned" } else { "" };
            add(format_args!(" ({strength}{pinned})"));
        }
    } else if let Some(atr) = &line.atr {
        add(format_args!("  ATR {atr}"));
    }
    if line.trigger == Trigger::Removed {
        add(format_args!("  removed"));
    }
    let status = |status: CardStatus| numbers.card_status_text(status);
    if let (Some(old), Some(new)) = (line.old_status, line.new_status) {
        add(format_args!("  {} -> {}", status(old), status(new)));
    }
    if let Some(entry) = line.entry {
        add(format_args!("  entry {entry}"));
    }
    if line.label.is_empty() {
        add(format_args!("  {}", line.detail));
    } else {
        add(format_args!("  at {}: {}", line.label, line.detail));
    }
    if let Some(id) = &line.correlation_id {
        add(format_args!("  [correlation id {id}]"));
    }
    text
}

pub(super) fn status(view: &StatusView, numbers: &CmEnums) -> Vec<String> {
    let outbox = &view.outbox;
    let mut rows = vec![
        row("Station", &view.station),
        row("Daemon", format!("{} since {}", view.version, time(view.started_at))),
        row("pcscd", pcscd(&view.pcscd)),
        row("CM", cm(&view.cm)),
        row("Credentials", credentials(&view.credentials)),
        row("Outbox", format!("{} waiting, {} parked", outbox.waiting, outbox.parked)),
    ];
    rows.extend(outbox.oldest_waiting_at.map(|at| row("", format!("oldest since {}", time(at)))));
    rows.extend(outbox.write_error.as_ref().map(|error| row("", format!("ERROR: {error}"))));
    rows.extend(view.data_loss.as_ref().map(|lost| row("", format!("DATA LOSS: {lost}"))));
    rows.extend(view.readers.iter().map(|view| row("Reader", reader(view))));
    if view.readers.is_empty() {
        rows.push(row("Reader", "none"));
    }
    let mut lines = table(&rows);
    if !view.recent_audit.is_empty() {
        lines.push(String::new());
        lines.extend(view.recent_audit.iter().map(|line| audit_line(line, numbers)));
    }
    lines
}

fn pcscd(view: &PcscdView) -> String {
    match view {
        PcscdView::Connecting => "connecting".to_owned(),
        PcscdView::Connected { since } => format!("connected since {}", time(*since)),
        PcscdView::Unavailable { since, reason } => {
            format!("unavailable since {}: {reason}", time(*since))
        }
    }
}

fn cm(view: &CmView) -> String {
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

fn credentials(view: &CredentialsView) -> String {
    let mut text = view.method.clone();
    text.extend(view.identity.as_ref().map(|identity| format!(" as {identity}")));
    text.extend(view.valid_until.map(|at| format!(", valid until {}", time(at))));
    text.extend(view.renewal_error.as_ref().map(|error| format!("; ERROR: {error}")));
    text
}

fn reader(view: &ReaderView) -> String {
    let ReaderView { reader, settings, attributes, .. } = view;
    let mut text = match settings.label.as_str() {
        label if label == reader.as_str() => label.to_owned(),
        label => format!("{label} ({reader})"),
    };
    text.extend(attributes.vendor.as_ref().map(|vendor| format!(", by {vendor}")));
    text.extend(attributes.serial.as_ref().map(|serial| format!(", serial {serial}")));
    let card = match &view.card {
        CardView::Empty => "empty".to_owned(),
        CardView::Mute => "mute card: turn it over or clean it".to_owned(),
        CardView::Reading { .. } => "reading a card".to_owned(),
        CardView::Identified { identity, entry, .. } => {
            let entry = entry.map_or("not stored yet".to_owned(), |id| format!("entry {id}"));
            let (family, id) = (identity.family, identity.primary());
            let partial = if identity.partial { READ_IN_PART } else { "" };
            format!("{family} {} by {}, {entry}{partial}", id.card_id, id.origin())
        }
        CardView::NotIdentified { error, .. } => format!("not identified: {}", error.detail),
    };
    let state = match &view.card {
        _ if settings.enabled => card,
        CardView::Empty => "disabled".to_owned(),
        CardView::Mute | CardView::NotIdentified { .. } => "disabled, with a card".to_owned(),
        CardView::Reading { .. } | CardView::Identified { .. } => format!("disabled, {card}"),
    };
    format!("{text}: {state}, since {}", time(view.since))
}

const READ_IN_PART: &str = ", read in part: another program uses it, or it stopped responding";

pub(super) fn entries(entries: &[EntryView]) -> Vec<String> {
    if entries.is_empty() {
        return vec!["The outbox is empty.".to_owned()];
    }
    let mut rows = vec![["ENTRY", "SEEN", "READER", "CARD", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|view| {
        let card_event = &view.entry.card_event;
        vec![
            view.entry.id.to_string(),
            time(card_event.seen_at),
            card_event.label.clone(),
            card_event.identity.primary().card_id.to_string(),
            state(view),
        ]
    }));
    table(&rows)
}

pub(super) fn entry(view: &EntryView) -> Vec<String> {
    let event = &view.entry.card_event;
    let mut rows = vec![
        row("Entry", view.entry.id.to_string()),
        row("Seen", format!("{}, {}", time(event.seen_at), event.trigger.as_str())),
        row("Reader", format!("{} ({}), role {}", event.label, event.reader, event.role)),
        row("ATR", event.atr.to_string()),
        row("Family", event.identity.family.to_string()),
        row("Serial", event.identity.serial.to_string()),
    ];
    rows.extend(card_ids(&event.identity));
    if let Stage::Sent(decision) | Stage::Completing(decision) = &view.entry.stage {
        rows.push(row("Rule", format!("{} sets {}", decision.rule, decision.new_status_name)));
        rows.push(row("Record", decision.record.to_string()));
        rows.push(row("Request", decision.request.to_string()));
    }
    rows.push(row("State", state(view)));
    table(&rows)
}

/// A row for each id of a card, with the rule that it comes from.
pub(super) fn card_ids(identity: &CardIdentity) -> impl Iterator<Item = Vec<String>> {
    identity.candidates().map(|id| row("Card id", format!("{}  by {}", id.card_id, id.origin())))
}

/// The stage of an entry, and why it waits.
fn state(view: &EntryView) -> String {
    let mut text = match view.entry.card_event.trigger {
        Trigger::Inserted => String::new(),
        Trigger::Removed => "removed; ".to_owned(),
    };
    text.push_str(match &view.entry.stage {
        Stage::Queued => "waiting",
        Stage::Sent(_) => "waiting, update possibly sent",
        Stage::Completing(_) => "waiting, status set, request possibly not completed",
        Stage::Parked { reason, detail, .. } => {
            return format!("{text}parked ({reason}): {detail}");
        }
    });
    text.extend(view.last_error.as_ref().map(|error| format!(": {error}")));
    text.extend(view.next_try_ms.map(|ms| format!("; next attempt in {} s", ms.div_ceil(1000))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), ["a     b", "long  c"]);
    }
}
