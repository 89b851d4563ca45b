//! `audit`: the audit trail as text, JSON or CSV.

use std::path::Path;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use csv::{Terminator, WriterBuilder};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::audit_verify::RecordedHash;
use super::config_loader::settings_for_daemon;
use super::daemon::Source;
use super::output::{CommandError, Exit, Output};
use super::render;
use crate::domain::{AuditRecord, CardId};
use crate::telemetry::escape_control_chars;
use crate::wire::control::AuditQuery;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArguments {
    #[command(subcommand)]
    pub(super) command: Option<AuditCommand>,
    /// Only lines at or after T: RFC 3339 time, UTC date, or age such as 2h or 30d
    #[arg(long, value_name = "T", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only lines before T: RFC 3339 time, UTC date, or age such as 2h or 30d
    #[arg(long, value_name = "T", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Only lines about this card id
    #[arg(long, value_name = "GUID")]
    card: Option<CardId>,
    /// Output format [default: text; json with --json]
    #[arg(long, value_name = "F", value_enum)]
    format: Option<AuditFormat>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Verify the audit hash chain; exits with 1 if a line was changed, removed or moved
    Verify {
        /// Compare with a hash from the log; exits with 1 if it differs or its line is missing,
        /// with 2 if its line was pruned; can be repeated
        #[arg(long, value_name = "SEQ:HASH")]
        against: Vec<RecordedHash>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuditFormat {
    /// Human-readable
    Text,
    /// One object per line
    Json,
    /// RFC 4180 with header
    Csv,
}

/// Lines per page: some hundred KiB.
const PAGE: usize = 500;

fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(date) = text.parse::<Date>() {
        return TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_err(|error| error.to_string());
    }
    let age = humantime::parse_duration(text)
        .map_err(|_| "not an RFC 3339 time, a date, or an age like 2h or 30d".to_owned())?;
    let at = SystemTime::now().checked_sub(age).ok_or("too long ago")?;
    Timestamp::try_from(at).map_err(|error| error.to_string())
}

pub(super) fn audit(
    config: Option<&Path>,
    arguments: &AuditArguments,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = settings_for_daemon(config)?;
    let default = if out.is_json() { AuditFormat::Json } else { AuditFormat::Text };
    let format = arguments.format.unwrap_or(default);
    let AuditArguments { since, until, card, .. } = *arguments;
    let mut query = AuditQuery { since, until, card, after: None, limit: Some(PAGE) };
    let source = Source::open(&settings)?;
    let mut page = source.audit(&query)?;
    if format == AuditFormat::Csv {
        out.bytes(&csv_record(COLUMNS.split_whitespace())?)?;
    }
    loop {
        for line in &page.lines {
            match format {
                AuditFormat::Text => {
                    out.line(&render::audit_line(&line.line, &settings.rules.numbers))?;
                }
                AuditFormat::Json => out.object(line)?,
                AuditFormat::Csv => out.bytes(&csv_record(csv_cells(line)?)?)?,
            }
        }
        if page.next.is_none() {
            return Ok(Exit::Success);
        }
        query.after = page.next;
        page = source.audit(&query)?;
    }
}

/// The CSV columns: every field of an audit line, in the order of its JSON.
const COLUMNS: &str = "
    at station kind outcome reason detail entry reader label trigger seen_at atr family serial
    inventory card_id id_rule id_strength id_pinned rule record request old_status new_status
    new_status_name http_status correlation_id attempts duration_ms by count first_seen_at
    last_seen_at seq chain
";

/// A record of RFC 4180.
fn csv_record<T: AsRef<[u8]>>(cells: impl IntoIterator<Item = T>) -> Result<Vec<u8>, CommandError> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(cells)?;
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

/// The values of the JSON; `inventory` is JSON in one cell. Text from outside (reader names,
/// labels, CM's messages) is escaped for terminals and spreadsheets: the JSON has it unchanged.
fn csv_cells(line: &AuditRecord) -> Result<impl Iterator<Item = String>, CommandError> {
    let json = serde_json::to_value(line)?;
    let escape = |text: &str| escape_formula(&escape_control_chars(text));
    let cell = move |name| match json.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        Some(Value::String(text)) => escape(text),
        Some(value @ (Value::Array(_) | Value::Object(_))) => escape(&value.to_string()),
    };
    Ok(COLUMNS.split_whitespace().map(cell))
}

/// What a spreadsheet takes for the beginning of a formula, full-width forms included.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// What separates cells in one locale or another, even inside quotes.
const SEPARATORS: [char; 4] = [',', ';', '|', ':'];

/// Puts an apostrophe ("this is text") before every formula.
fn escape_formula(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for piece in text.split_inclusive(SEPARATORS) {
        let content = piece.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
        if content.starts_with(FORMULA) {
            safe.push('\'');
        }
        safe.push_str(piece);
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{
        AuditLine, Candidate, CardEvent, CardIdentity, CardStatus, Decision, EntryId, Family,
        IdRule, Outcome, ParkReason, Serial, Settlement, Strength, Trigger,
    };

    /// A line that has every field.
    fn line() -> AuditRecord {
        let candidate = Candidate {
            card_id: "3f2504e0-4f89-11d3-9a0c-0305e82c3300".parse().unwrap(),
            rule: IdRule::GidsCardid,
            strength: Strength::Serial,
            pinned: true,
        };
        let at = "2026-03-01T10:00:00Z".parse().unwrap();
        let card_event = CardEvent {
            seen_at: at,
            reader: "=cmd|' /C calc'!A0".into(),
            label: "Desk 3, \"left\"\nby the door".to_owned(),
            role: "desk".to_owned(),
            trigger: Trigger::Removed,
            boot_moment: None,
            event_count: 1,
            atr: "3b8d0180fba000000397425446590301c8".parse().unwrap(),
            identity: CardIdentity::new(
                Family::Gids,
                Serial::from_bytes(&[7; 16]),
                candidate.clone(),
                Vec::new(),
            ),
        };
        let decision = Decision {
            rule: "retire".to_owned(),
            candidate,
            record: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".parse().unwrap(),
            request: "3f2504e0-4f89-11d3-9a0c-0305e82c3302".parse().unwrap(),
            old_status: CardStatus::new(2),
            new_status: CardStatus::new(6),
            new_status_name: "Retired".to_owned(),
            complete_request: false,
        };
        let end = Settlement {
            outcome: Outcome::Parked(ParkReason::Refused),
            at,
            decision: Some(decision),
            known_by: None,
            detail: "-1+2".to_owned(),
            http_status: Some(403),
            correlation_id: Some("c-1".to_owned()),
            attempts: 3,
            duration: Duration::from_millis(1500),
            by: Some("uid 0".to_owned()),
        };
        let line = AuditLine::settled("desk-3", EntryId::new(1), &card_event, &end).repeated(
            at,
            3,
            (at, at),
        );
        let inventory = serde_json::from_value(serde_json::json!({ "iccsn": "a,b" }));
        let line = AuditLine { inventory: inventory.unwrap(), ..line };
        AuditRecord { line, seq: 7, chain: "ab".repeat(32) }
    }

    fn record(line: &AuditRecord) -> String {
        String::from_utf8(csv_record(csv_cells(line).unwrap()).unwrap()).unwrap()
    }

    /// A parser of RFC 4180 that is independent of the writer.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
        let (mut chars, mut inside) = (text.chars().peekable(), false);
        while let Some(c) = chars.next() {
            match (inside, c) {
                (true, '"') if chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
                (_, '"') => inside = !inside,
                (false, ',') => record.push(std::mem::take(&mut field)),
                (false, '\r') => assert_eq!(chars.peek(), Some(&'\n')),
                (false, '\n') => {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
                (_, c) => field.push(c),
            }
        }
        assert!(!inside && field.is_empty() && record.is_empty());
        records
    }

    #[test]
    fn every_field_has_its_column() {
        let json = serde_json::to_value(line()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, COLUMNS.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn csv_is_read_back_unchanged() {
        let header = csv_record(COLUMNS.split_whitespace()).unwrap();
        let records = parse(&(String::from_utf8(header).unwrap() + &record(&line())));
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], COLUMNS.split_whitespace().collect::<Vec<_>>());
        let column = |name: &str| {
            let index = COLUMNS.split_whitespace().position(|column| column == name).unwrap();
            records[1][index].as_str()
        };
        assert_eq!(column("label"), "Desk 3, \"left\"\\u{a}by the door");
        assert_eq!((column("seq"), column("chain")), ("7", "ab".repeat(32).as_str()));
        assert_eq!(column("http_status"), "403");
        assert_eq!(column("inventory"), r#"{"iccsn":"a,b"}"#);
    }

    #[test]
    fn no_cell_is_a_formula_for_any_separator() {
        let text = record(&line());
        assert!(parse(&text)[0].iter().any(|cell| cell == "'=cmd|' /C calc'!A0"), "{text}");
        for hostile in [
            "=1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            " =1",
            "\"=1\"",
            "\u{feff}=1",
            "\u{a0}=1",
            "\u{2003}=1",
            "a; \u{3000}=1",
            "\u{ff1d}1",
            "a;=1",
            "a; =1",
            "a;\"=1\"",
            "a\t=1",
            "a\n=1",
            "a,=1",
            "a|=1",
            "a;;-1",
            ";@x",
        ] {
            let mut line = line();
            line.line.label = hostile.to_owned();
            line.line.inventory =
                serde_json::from_value(serde_json::json!({ "iccsn": hostile })).unwrap();
            let text = record(&line);
            for separator in [',', ';', '\t', '|'] {
                for cell in text.trim_end().split(separator) {
                    let cell = cell.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
                    assert!(!cell.starts_with(FORMULA), "{hostile:?} by {separator:?}: {cell}");
                }
            }
            assert!(!text.trim_end().contains(char::is_control), "{hostile:?}: {text:?}");
        }
    }

    #[test]
    fn hidden_characters_are_escaped_in_every_cell() {
        let mut line = line();
        line.line.reader = "R\u{202e}\u{61c}\u{ad}".into();
        line.line.detail = "x\u{9b}2J\u{e0041}".to_owned();
        line.line.by = Some("a\u{2066}b".to_owned());
        let text = record(&line);
        for escaped in ["R\\u{202e}\\u{61c}\\u{ad}", "x\\u{9b}2J\\u{e0041}", "a\\u{2066}b"] {
            assert!(text.contains(escaped), "{text}");
        }
    }

    #[test]
    fn time_is_an_instant_a_date_or_an_age() {
        let instant = "2026-03-01T10:00:00Z";
        assert_eq!(parse_time(instant), Ok(instant.parse().unwrap()));
        assert_eq!(parse_time("2026-03-01"), Ok("2026-03-01T00:00:00Z".parse().unwrap()));
        let age = Timestamp::now().duration_since(parse_time("2h").unwrap()).as_secs();
        assert!((7199..=7201).contains(&age), "{age}");
        assert!(parse_time("yesterday").is_err());
        assert!(parse_time("99999999999999y").is_err());
    }
}
