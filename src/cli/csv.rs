//! Audit lines as CSV: RFC 4180, with a header, one record a line of the trail.
//!
//! Every field of a line has its column, in the order of its JSON, whether the line has it or not;
//! times, ids and words are those of the JSON, `inventory` is its JSON in one cell. A field is
//! quoted where a comma, a quote or a line break is in it, records end with CR LF.
//!
//! Text from outside (a reader's name, a card's label, CM's messages) is changed in two ways, so that
//! no spreadsheet runs it and no terminal obeys it; a program that wants it as it is reads the JSON:
//!
//! - What cannot be seen is escaped, as on a terminal ([`escape_control_chars`]).
//! - A cell that begins with `=`, `+`, `-`, `@` or their full-width forms, after blanks and quotes, is
//!   a formula to a spreadsheet. It gets an apostrophe in front ("this is text"). So does such a piece
//!   after `,`, `;`, `|` or a colon within a cell: where the list separator is another one than the
//!   comma, spreadsheets split there, whatever is quoted.

use serde_json::Value;

use super::exit::{CommandError, Exit};
use super::text::escape_control_chars;
use crate::domain::AuditRecord;

/// The columns: the names of the line's fields.
const COLUMNS: [&str; 35] = [
    "at",
    "station",
    "kind",
    "outcome",
    "reason",
    "detail",
    "entry",
    "reader",
    "label",
    "trigger",
    "seen_at",
    "atr",
    "family",
    "serial",
    "inventory",
    "card_id",
    "id_rule",
    "id_strength",
    "id_pinned",
    "rule",
    "record",
    "request",
    "old_status",
    "new_status",
    "new_status_name",
    "http_status",
    "correlation_id",
    "attempts",
    "duration_ms",
    "by",
    "count",
    "first_seen_at",
    "last_seen_at",
    "seq",
    "chain",
];

/// The first record: the names of the columns.
pub(super) fn header() -> String {
    join(COLUMNS.iter().map(|name| (*name).to_owned()))
}

/// A line's record.
pub(super) fn record(line: &AuditRecord) -> Result<String, CommandError> {
    let json =
        serde_json::to_value(line).map_err(|error| CommandError::new(Exit::Failed, error))?;
    Ok(join(COLUMNS.iter().map(|name| field(json.get(name)))))
}

fn join(fields: impl Iterator<Item = String>) -> String {
    fields.collect::<Vec<_>>().join(",") + "\r\n"
}

fn field(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        Some(Value::String(text)) => quoted(&escape_formula(&escape_control_chars(text))),
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            quoted(&escape_formula(&escape_control_chars(&value.to_string())))
        }
    }
}

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// What may be the border of a cell, if not here then in another country.
const BORDERS: [char; 4] = [',', ';', '|', ':'];

/// The text as no spreadsheet takes it, or a piece of it, for a formula.
fn escape_formula(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for piece in text.split_inclusive(BORDERS) {
        let content = piece.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
        if content.starts_with(FORMULA) {
            safe.push('\'');
        }
        safe.push_str(piece);
    }
    safe
}

fn quoted(text: &str) -> String {
    if text.contains([',', ';', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
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
        let draft = CardEvent {
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
        let line =
            AuditLine::settled("desk-3", EntryId::new(1), &draft, &end).repeated(at, 3, (at, at));
        let inventory = serde_json::from_value(serde_json::json!({ "iccsn": "a,b" }));
        let line = AuditLine { inventory: inventory.unwrap(), ..line };
        AuditRecord { line, seq: 7, chain: "ab".repeat(32) }
    }

    /// A reader of RFC 4180 that is not the writer's mirror image.
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
    fn every_field_of_a_line_has_its_column() {
        let json = serde_json::to_value(line()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, COLUMNS);
    }

    #[test]
    fn what_is_written_is_read_back_whatever_is_in_it() {
        let records = parse(&(header() + &record(&line()).unwrap()));
        assert_eq!(records.len(), 2);
        assert_eq!(records[0], COLUMNS);
        let column = |name: &str| {
            let index = COLUMNS.iter().position(|column| *column == name).unwrap();
            records[1][index].as_str()
        };
        assert_eq!(column("label"), "Desk 3, \"left\"\\u{a}by the door");
        assert_eq!((column("seq"), column("chain")), ("7", "ab".repeat(32).as_str()));
        assert_eq!(column("http_status"), "403");
        assert_eq!(column("inventory"), r#"{"iccsn":"a,b"}"#);
    }

    #[test]
    fn no_cell_is_a_formula_whatever_the_list_separator_is() {
        let text = record(&line()).unwrap();
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
            let text = record(&line).unwrap();
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
    fn what_cannot_be_seen_is_escaped_in_every_cell() {
        let mut line = line();
        line.line.reader = "R\u{202e}\u{61c}\u{ad}".into();
        line.line.detail = "x\u{9b}2J\u{e0041}".to_owned();
        line.line.by = Some("a\u{2066}b".to_owned());
        let text = record(&line).unwrap();
        for escaped in ["R\\u{202e}\\u{61c}\\u{ad}", "x\\u{9b}2J\\u{e0041}", "a\\u{2066}b"] {
            assert!(text.contains(escaped), "{text}");
        }
    }
}
