//! `audit verify`: whether the audit trail's hash chain is intact.

use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use super::config_loader::settings_for_daemon;
use super::daemon::Source;
use super::output::{CommandError, Exit, Output};
use super::render::time;
use crate::domain::{ChainFault, ChainPosition};
use crate::wire::control::VerifyQuery;

#[derive(Debug, Default, Serialize)]
struct ChainReport {
    ok: bool,
    lines: u64,
    anchor: Option<ChainPosition>,
    head: Option<ChainPosition>,
    faults: Vec<ChainFault>,
    /// A result for each recorded hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against: Vec<HashComparison>,
}

/// A line's number and hash, as the log records them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RecordedHash {
    seq: i64,
    hash: String,
}

#[derive(Debug, Serialize)]
struct HashComparison {
    #[serde(flatten)]
    recorded: RecordedHash,
    found: HashFinding,
    #[serde(skip)]
    text: String,
}

/// What became of a line whose hash was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum HashFinding {
    /// Nothing up to this line was changed since.
    Same,
    /// This line, or one before it, was changed.
    Differs,
    /// The trail was cut, or the file is an older copy.
    Missing,
    /// The line was pruned: nothing is left to compare with.
    Pruned,
}

pub(super) fn verify(
    config: Option<&Path>,
    against: &[RecordedHash],
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let source = Source::open(&settings_for_daemon(config)?)?;
    let report = ChainReport::read(&source, against)?;
    out.value(&report, || report.text())?;
    Ok(report.exit())
}

impl ChainReport {
    fn read(source: &Source, against: &[RecordedHash]) -> Result<Self, CommandError> {
        let mut report = Self::default();
        let mut query = VerifyQuery::default();
        loop {
            let mut batch = source.verify(&query)?;
            report.lines += batch.lines;
            report.faults.append(&mut batch.faults);
            (report.anchor, report.head) = (batch.anchor, batch.head);
            if batch.next.is_none() {
                break;
            }
            query.after = batch.next;
        }
        for recorded in against {
            let line = source.mark(recorded.seq)?;
            let ends = (report.anchor.as_ref(), report.head.as_ref());
            let (found, text) = recorded.compare(ends, line.as_ref());
            report.against.push(HashComparison { recorded: recorded.clone(), found, text });
        }
        report.ok = report.exit() == Exit::Success;
        Ok(report)
    }

    /// A changed trail takes precedence over a hash that cannot be compared.
    fn exit(&self) -> Exit {
        let any = |finding| self.against.iter().any(|it| it.found == finding);
        if !self.faults.is_empty() || any(HashFinding::Differs) || any(HashFinding::Missing) {
            Exit::Failure
        } else if any(HashFinding::Pruned) {
            Exit::Usage
        } else {
            Exit::Success
        }
    }

    fn text(&self) -> Vec<String> {
        let (lines, faults) = (self.lines, self.faults.len());
        let mut text: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        text.push(match faults {
            0 => format!("Audit chain verified: {lines} lines."),
            _ => format!("Audit chain broken: {faults} faults in {lines} lines."),
        });
        if let Some(ChainPosition { seq, at: Some(at), .. }) = &self.anchor {
            text.push(format!("Pruned up to line {seq} ({}).", time(*at)));
        }
        if let Some(ChainPosition { seq: seq @ 1.., hash, .. }) = &self.head {
            text.push(format!("Last line: {seq}, hash {hash}."));
        }
        text.extend(self.against.iter().map(|comparison| comparison.text.clone()));
        text
    }
}

impl RecordedHash {
    /// Compares with the line of this number, in a trail with these ends. Returns text too.
    fn compare(
        &self,
        (anchor, head): (Option<&ChainPosition>, Option<&ChainPosition>),
        line: Option<&ChainPosition>,
    ) -> (HashFinding, String) {
        let seq = self.seq;
        let (first, last) = (anchor.map_or(0, |line| line.seq), head.map_or(0, |line| line.seq));
        match anchor.filter(|line| line.seq == seq).or(line) {
            Some(line) if line.hash == self.hash => {
                (HashFinding::Same, format!("Line {seq}: same hash; nothing up to it was changed."))
            }
            Some(line) => (
                HashFinding::Differs,
                format!(
                    "Line {seq}: different hash {}. It or a line before it was changed, and the \
                     chain was recomputed.",
                    line.hash
                ),
            ),
            None if seq < first => (
                HashFinding::Pruned,
                format!(
                    "Line {seq}: pruned, cannot be compared; the trail is pruned up to line \
                     {first}. Use a later hash from the log."
                ),
            ),
            None if last < seq => (
                HashFinding::Missing,
                format!(
                    "Line {seq}: missing; the trail ends with line {last}. Its end was removed, \
                     or the file is an older copy."
                ),
            ),
            None => (HashFinding::Missing, format!("Line {seq}: missing; it was removed.")),
        }
    }
}

impl FromStr for RecordedHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write it as SEQ:HASH, with the 64 hex digits of `chain` in the log";
        let (seq, hash) = text.split_once(':').ok_or(FORM)?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or(FORM)?;
        if hash.len() != 64 || !hash.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(FORM);
        }
        Ok(Self { seq, hash: hash.to_ascii_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(seq: i64, digit: char) -> ChainPosition {
        ChainPosition { seq, at: None, hash: digit.to_string().repeat(64) }
    }

    #[test]
    fn recorded_hash_is_parsed_as_logged() {
        let hash = "0aF1".repeat(16);
        let read: RecordedHash = format!("12:{hash}").parse().unwrap();
        assert_eq!((read.seq, read.hash), (12, hash.to_lowercase()));
        let short = hash.get(1..).unwrap();
        for bad in ["", "12", "12:", ":12", "0:0", "x:y"].map(str::to_owned) {
            assert!(bad.parse::<RecordedHash>().is_err(), "{bad}");
        }
        for bad in [format!("12:{short}"), format!("12:{hash}0"), format!("-1:{hash}")] {
            assert!(bad.parse::<RecordedHash>().is_err(), "{bad}");
        }
        assert!(format!("0:{hash}").parse::<RecordedHash>().is_err());
        assert!(format!("1:{short}g").parse::<RecordedHash>().is_err());
    }

    #[test]
    fn recorded_hash_is_compared_with_its_line() {
        let (anchor, head) = (position(5, 'a'), position(9, 'b'));
        let compare = |seq, digit: char, line: Option<ChainPosition>| {
            let recorded = RecordedHash { seq, hash: digit.to_string().repeat(64) };
            recorded.compare((Some(&anchor), Some(&head)), line.as_ref())
        };
        assert_eq!(compare(7, 'c', Some(position(7, 'c'))).0, HashFinding::Same);
        let (found, text) = compare(7, 'd', Some(position(7, 'c')));
        assert_eq!(found, HashFinding::Differs);
        assert!(text.contains(&"c".repeat(64)), "{text}");
        let (found, text) = compare(7, 'd', None);
        assert_eq!(found, HashFinding::Missing);
        assert!(text.ends_with("it was removed."), "{text}");
        let (found, text) = compare(10, 'd', None);
        assert_eq!(found, HashFinding::Missing);
        assert!(text.contains("ends with line 9"), "{text}");
        // The last line that was pruned is known by its hash still.
        assert_eq!(compare(5, 'a', None).0, HashFinding::Same);
        let (found, text) = compare(5, 'b', None);
        assert_eq!(found, HashFinding::Differs);
        assert!(text.contains(&"a".repeat(64)), "{text}");
        let (found, text) = compare(4, 'b', None);
        assert_eq!(found, HashFinding::Pruned);
        assert!(text.contains("up to line 5"), "{text}");
    }

    #[test]
    fn hash_comparison_is_named_hash_in_json() {
        let recorded = RecordedHash { seq: 7, hash: "ab".to_owned() };
        let comparison =
            HashComparison { recorded, found: HashFinding::Pruned, text: String::new() };
        let json = serde_json::json!({ "seq": 7, "hash": "ab", "found": "pruned" });
        assert_eq!(serde_json::to_value(comparison).unwrap(), json);
    }
}
