//! Heads of the audit trail that somebody kept, and what became of them.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::exit::Exit;
use crate::domain::ChainPosition;

/// A head as it was logged: a line's number and its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RecordedHash {
    pub(super) seq: i64,
    #[serde(rename = "chain")]
    hash: String,
}

impl FromStr for RecordedHash {
    type Err = &'static str;

    /// Reads `SEQ:HASH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write it as SEQ:HASH, with the 64 hex digits of `chain`";
        let (seq, hash) = text.split_once(':').ok_or(FORM)?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or(FORM)?;
        if hash.len() != 64 || !hash.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(FORM);
        }
        Ok(Self { seq, hash: hash.to_ascii_lowercase() })
    }
}

/// What the trail says to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HashFinding {
    /// The line has that chain: nothing up to it was changed since.
    Same,
    /// The line has this chain: it or a line before it was changed.
    Differs(String),
    /// The trail ends before the line: it was cut, or the file is an older copy.
    Missing {
        /// The last line that there is.
        last: i64,
    },
    /// The line was pruned: nothing is left to compare with.
    Pruned {
        /// The last line that was pruned.
        anchor: i64,
    },
}

impl HashFinding {
    const fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs(_) => "differs",
            Self::Missing { .. } => "missing",
            Self::Pruned { .. } => "pruned",
        }
    }

    /// The exit code that it deserves.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Same => Exit::Done,
            Self::Differs(_) | Self::Missing { .. } => Exit::Failed,
            Self::Pruned { .. } => Exit::Usage,
        }
    }
}

impl Serialize for HashFinding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A witness, heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HashComparison {
    #[serde(flatten)]
    witness: RecordedHash,
    pub(super) found: HashFinding,
}

impl RecordedHash {
    /// Compares with the trail between these ends, in which the line stands like this.
    pub(super) fn compare(
        &self,
        anchor: Option<&ChainPosition>,
        head: Option<&ChainPosition>,
        line: Option<&ChainPosition>,
    ) -> HashComparison {
        let (first, last) = (anchor.map_or(0, |mark| mark.seq), head.map_or(0, |mark| mark.seq));
        let stored = anchor.filter(|mark| mark.seq == self.seq).or(line);
        let found = match stored {
            Some(mark) if mark.hash == self.hash => HashFinding::Same,
            Some(mark) => HashFinding::Differs(mark.hash.clone()),
            None if self.seq < first => HashFinding::Pruned { anchor: first },
            None => HashFinding::Missing { last },
        };
        HashComparison { witness: self.clone(), found }
    }
}

impl HashComparison {
    /// For people.
    pub(super) fn as_text(&self) -> String {
        let seq = self.witness.seq;
        match &self.found {
            HashFinding::Same => {
                format!("Line {seq} is what it was: nothing up to it was changed.")
            }
            HashFinding::Differs(chain) => format!(
                "Line {seq} is not what it was: its chain is {chain}. It or a line before it was \
                 changed, and the chain computed again."
            ),
            HashFinding::Missing { last } if *last < seq => format!(
                "Line {seq} is not there: the trail ends with line {last}. Its end was removed, or \
                 the file is an older copy."
            ),
            HashFinding::Missing { .. } => format!("Line {seq} is not there: it was removed."),
            HashFinding::Pruned { anchor } => format!(
                "Line {seq} cannot be compared: the trail was pruned up to line {anchor}. Take a \
                 later head from the log."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: i64, digit: char) -> ChainPosition {
        ChainPosition { seq, at: None, hash: digit.to_string().repeat(64) }
    }

    #[test]
    fn witness_is_read_as_it_is_logged() {
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
    fn witness_finds_what_it_saw_or_says_why_not() {
        let (anchor, head) = (mark(5, 'a'), mark(9, 'b'));
        let ask = |seq, digit: char, line: Option<ChainPosition>| {
            let witness = RecordedHash { seq, hash: digit.to_string().repeat(64) };
            witness.compare(Some(&anchor), Some(&head), line.as_ref()).found
        };
        assert_eq!(ask(7, 'c', Some(mark(7, 'c'))), HashFinding::Same);
        assert_eq!(ask(7, 'd', Some(mark(7, 'c'))), HashFinding::Differs("c".repeat(64)));
        assert_eq!(ask(7, 'd', None), HashFinding::Missing { last: 9 });
        assert_eq!(ask(10, 'd', None), HashFinding::Missing { last: 9 });
        // The last line that was pruned is known by its chain still.
        assert_eq!(ask(5, 'a', None), HashFinding::Same);
        assert_eq!(ask(5, 'b', None), HashFinding::Differs("a".repeat(64)));
        assert_eq!(ask(4, 'b', None), HashFinding::Pruned { anchor: 5 });
    }
}
