//! What the writer was promised, kept on another file system, and what the disk has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How far an entry can come; each step is a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Stage {
    Queued,
    Sent,
    Settled,
}

/// What an outbox has: the waiting entries by their event count, and how often each is audited.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) waiting: BTreeMap<u32, Stage>,
    pub(super) audited: BTreeMap<u32, usize>,
    pub(super) damaged: Vec<String>,
}

/// How far each entry was asked to go, and how far it was acknowledged to be.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<u32, (Option<Stage>, Option<Stage>)>,
}

impl Ledger {
    /// The writer's process, which it writes first, once it has written more.
    pub(super) fn pid(file: &Path) -> Option<u32> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, rest) = text.split_once('\n')?;
        rest.contains("ok").then(|| pid.parse().ok())?
    }

    /// Lines are `try STEP ENTRY` and `ok STEP ENTRY`; the last one may be torn.
    pub(super) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut ledger = Self::default();
        for line in whole.lines().skip(1) {
            let [what, step, entry] = *line.split(' ').collect::<Vec<_>>() else {
                panic!("{line}")
            };
            let step = match step {
                "queued" => Stage::Queued,
                "sent" => Stage::Sent,
                _ => Stage::Settled,
            };
            let (tried, done) = ledger.entries.entry(entry.parse().unwrap()).or_default();
            *(if what == "try" { tried } else { done }) = Some(step);
        }
        ledger
    }

    /// How many steps were acknowledged, of which each entry counts its last.
    pub(super) fn acknowledged(&self) -> usize {
        self.entries.values().filter(|(_, done)| done.is_some()).count()
    }

    /// What was promised and is not there, or is there and was never asked for.
    pub(super) fn compare(&self, found: &Found) -> Vec<String> {
        let mut complaints = found.damaged.clone();
        for (entry, (tried, done)) in &self.entries {
            let audited = found.audited.get(entry).copied().unwrap_or(0);
            let waiting = found.waiting.get(entry).copied();
            let is = match (waiting, audited) {
                (None, 0) => None,
                (Some(stage), 0) => Some(stage),
                (None, 1) => Some(Stage::Settled),
                (waiting, times) => {
                    complaints.push(format!("entry {entry}: {waiting:?}, audited {times} times"));
                    continue;
                }
            };
            if is < *done || is > *tried {
                let why =
                    format!("entry {entry}: acknowledged {done:?}, asked {tried:?}, is {is:?}");
                complaints.push(why);
            }
        }
        let known = |entry: &&u32| self.entries.contains_key(*entry);
        let invented =
            found.waiting.keys().chain(found.audited.keys()).filter(|entry| !known(entry));
        complaints.extend(invented.map(|entry| format!("entry {entry} was never asked for")));
        complaints
    }
}

#[test]
fn ledger_finds_missing_and_invented_entries() {
    let ledger = Ledger {
        entries: BTreeMap::from([
            (1, (Some(Stage::Queued), Some(Stage::Queued))),
            (2, (Some(Stage::Settled), Some(Stage::Sent))),
            (3, (Some(Stage::Settled), Some(Stage::Settled))),
        ]),
    };
    let found = |waiting: &[(u32, Stage)], audited: &[(u32, usize)]| Found {
        waiting: waiting.iter().copied().collect(),
        audited: audited.iter().copied().collect(),
        damaged: Vec::new(),
    };
    let queued = (1, Stage::Queued);
    assert!(ledger.compare(&found(&[queued], &[(2, 1), (3, 1)])).is_empty());
    assert!(ledger.compare(&found(&[queued, (2, Stage::Sent)], &[(3, 1)])).is_empty());
    for wrong in [
        found(&[], &[(2, 1), (3, 1)]),
        found(&[queued, (2, Stage::Queued)], &[(3, 1)]),
        found(&[queued, (3, Stage::Sent)], &[(2, 1)]),
        found(&[queued, (3, Stage::Sent)], &[(2, 1), (3, 1)]),
        found(&[queued], &[(2, 1), (3, 2)]),
        found(&[queued, (4, Stage::Queued)], &[(2, 1), (3, 1)]),
    ] {
        assert_eq!(ledger.compare(&wrong).len(), 1, "{wrong:?}");
    }
}
