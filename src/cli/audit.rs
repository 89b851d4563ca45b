//! `audit`: who did what to which card.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::cards::block_on;
use super::config_loader::numbers;
use super::csv;
use super::exit::{CommandError, Exit};
use super::outbox::{open_offline, warn_of};
use super::output::Output;
use super::status::client;
use super::text::time;
use super::{AuditArguments, AuditFormat};
use crate::app::audit_filter;
use crate::control::{ControlClient, ControlError};
use crate::domain::{AuditLine, CardStatus, CmEnums, Strength, Trigger};
use crate::outbox::ReadOnlyOutbox;
use crate::wire::control::{AuditPage, AuditQuery};

/// Lines a page: some hundred KiB.
const PAGE: usize = 500;

/// Reads a moment: RFC 3339, a date in UTC, or an age.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(date) = text.parse::<Date>() {
        return TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_err(|error| error.to_string());
    }
    let age = humantime::parse_duration(text)
        .map_err(|_| "not RFC 3339, not a date, not an age like 2h or 30d".to_owned())?;
    let at = SystemTime::now().checked_sub(age).ok_or("too long ago")?;
    Timestamp::try_from(at).map_err(|error| error.to_string())
}

/// Where audit lines come from.
enum AuditSource {
    Daemon(ControlClient),
    Disk(ReadOnlyOutbox),
}

impl AuditSource {
    fn page(&self, query: &AuditQuery) -> Result<AuditPage, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.audit(query).await?) }),
            Self::Disk(store) => {
                let failed = |error: anyhow::Error| CommandError::new(Exit::Failed, error);
                let filter = audit_filter(query).map_err(|error| failed(error.into()))?;
                let page = store.audit(&filter).map_err(|error| failed(error.into()))?;
                warn_of(&page.damaged);
                let next = page.next.map(|cursor| cursor.to_string());
                Ok(AuditPage { lines: page.lines, next })
            }
        }
    }
}

pub(super) fn audit(
    config: Option<&Path>,
    arguments: &AuditArguments,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let numbers = numbers(config)?;
    let usual = if out.is_json() { AuditFormat::Json } else { AuditFormat::Text };
    let format = arguments.format.unwrap_or(usual);
    let mut query = AuditQuery {
        since: arguments.since,
        until: arguments.until,
        card: arguments.card,
        after: None,
        limit: Some(PAGE),
    };
    let (source, mut page) = first_page(config, &query)?;
    if format == AuditFormat::Csv {
        out.text(&csv::header())?;
    }
    loop {
        for line in &page.lines {
            match format {
                AuditFormat::Text => out.line(&as_text(&line.line, &numbers))?,
                AuditFormat::Json => out.object(line)?,
                AuditFormat::Csv => drop(out.text(&csv::record(line)?)?),
            }
        }
        if page.next.is_none() {
            return Ok(Exit::Done);
        }
        query.after = page.next;
        page = source.page(&query)?;
    }
}

/// The running daemon's trail, or the one on the disk of a daemon that does not run.
fn first_page(
    config: Option<&Path>,
    query: &AuditQuery,
) -> Result<(AuditSource, AuditPage), CommandError> {
    let client = client(config)?;
    match block_on(async { Ok(client.audit(query).await) })? {
        Ok(page) => Ok((AuditSource::Daemon(client), page)),
        Err(error @ ControlError::NotRunning(..)) => {
            let source = AuditSource::Disk(open_offline(config)?.ok_or(error)?);
            let page = source.page(query)?;
            Ok((source, page))
        }
        Err(error) => Err(error.into()),
    }
}

/// A line for people: when, what, which card, what changed and why.
pub(super) fn as_text(line: &AuditLine, numbers: &CmEnums) -> String {
    let mut text = format!("{}  {:14}", time(line.at), line.outcome);
    let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part).is_ok();
    if let Some(reason) = &line.reason {
        add(format_args!(" ({reason})"));
    }
    if let Some(card) = line.card_id {
        add(format_args!("  card {card}"));
        // An id that is unique needs no remark; lines of version 0.1 say nothing.
        match line.id_strength {
            Some(strength @ (Strength::Serial | Strength::Shared)) => {
                let pinned = if line.id_pinned { ", pinned" } else { "" };
                add(format_args!(" ({strength}{pinned})"));
            }
            Some(Strength::Unique) | None => {}
        }
    } else if let Some(atr) = &line.atr {
        add(format_args!("  ATR {atr}"));
    }
    if line.trigger == Trigger::Removed {
        add(format_args!("  taken out"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_instant_a_date_or_an_age() {
        let instant = "2026-03-01T10:00:00Z";
        assert_eq!(parse_time(instant), Ok(instant.parse().unwrap()));
        assert_eq!(parse_time("2026-03-01"), Ok("2026-03-01T00:00:00Z".parse().unwrap()));
        let age = Timestamp::now().duration_since(parse_time("2h").unwrap()).as_secs();
        assert!((7199..=7201).contains(&age), "{age}");
        assert!(parse_time("yesterday").is_err());
        assert!(parse_time("99999999999999y").is_err());
    }
}
