//! The programs inside: one writes through the real outbox, one opens it again. Both are this
//! test binary, started by name; where they were not asked for they do nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardbridge::domain::{
    Candidate, CardEvent, CardIdentity, Decision, EntryId, Family, IdRule, Outcome, Serial,
    Settlement, Trigger,
};
use cardbridge::outbox::{self, AppendRequest, AuditFilter, Outbox, OutboxOptions};
use fastrand::Rng;

use super::ledger::{Found, Stage};

pub(super) const TO: &str = "POWER_CUT_WRITES_TO";
pub(super) const FROM: &str = "POWER_CUT_READS_FROM";
pub(super) const SEED: &str = "POWER_CUT_SEED";
pub(super) const MARK: &str = "found: ";

/// How many steps are under way at a time, as with a daemon that works on several cards.
const AT_ONCE: usize = 4;

#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(TO).map(PathBuf::from) else { return };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let (outbox, _) = open(&dir);
    let ledger = File::options().create(true).append(true).open(dir.join("ledger")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(write(&outbox, ledger, Rng::with_seed(seed)));
}

#[test]
fn prints_outbox_contents() {
    let Some(dir) = std::env::var_os(FROM).map(PathBuf::from) else { return };
    let (outbox, restored) = open(&dir);
    let mut found = Found {
        damaged: restored.damaged.iter().map(ToString::to_string).collect(),
        ..Found::default()
    };
    for entry in restored.entries {
        let stage = if entry.stage.sent().is_some() { Stage::Sent } else { Stage::Queued };
        found.waiting.insert(entry.card_event.event_count, stage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut filter = AuditFilter::default();
    loop {
        let page = runtime.block_on(outbox.audit(filter.clone())).unwrap();
        found.damaged.extend(page.damaged.iter().map(ToString::to_string));
        for line in page.lines {
            // The draft's number stands in the label.
            *found.audited.entry(line.line.label.parse().unwrap()).or_default() += 1;
        }
        let Some(next) = page.next else { break };
        filter.after = Some(next);
    }
    let text = serde_json::to_string(&found).unwrap();
    std::io::stdout().write_all(format!("\n{MARK}{text}\n").as_bytes()).unwrap();
}

fn open(dir: &Path) -> (Outbox, outbox::OutboxContents) {
    let path = dir.join("disk/outbox.db");
    let now = jiff::Timestamp::now();
    outbox::open(OutboxOptions { path, max_entries: 100_000, station: "desk-3".to_owned(), now })
        .unwrap()
}

/// Entries come and go a step at a time, in random order, some in place of an older one.
async fn write(outbox: &Outbox, mut ledger: File, mut random: Rng) {
    let mut note = |line: String| ledger.write_all(format!("{line}\n").as_bytes()).unwrap();
    note(std::process::id().to_string());
    let mut waiting: BTreeMap<u32, (EntryId, Stage)> = BTreeMap::new();
    let mut last = 0;
    loop {
        let mut new = Vec::new();
        for _ in 0..random.usize(1..=AT_ONCE) {
            last += 1;
            note(format!("try queued {last}"));
            let append = AppendRequest {
                card_event: draft(last),
                stage: cardbridge::domain::Stage::Queued,
                instance: None,
                supersedes: Vec::new(),
            };
            new.push((last, outbox.append(append)));
        }
        for (number, done) in new {
            waiting.insert(number, (done.await.unwrap().entry, Stage::Queued));
            note(format!("ok queued {number}"));
        }
        let numbers: Vec<_> = waiting.keys().copied().collect();
        for number in numbers {
            let (id, stage) = waiting[&number];
            match (random.u8(..4), stage) {
                (0, _) => {}
                (_, Stage::Queued) => {
                    note(format!("try sent {number}"));
                    let stage = cardbridge::domain::Stage::Sent(decision());
                    outbox.save(id, stage).await.unwrap();
                    note(format!("ok sent {number}"));
                    waiting.insert(number, (id, Stage::Sent));
                }
                (_, Stage::Sent | Stage::Settled) => {
                    note(format!("try settled {number}"));
                    outbox.settle(id, settlement()).await.unwrap();
                    note(format!("ok settled {number}"));
                    waiting.remove(&number);
                }
            }
        }
    }
}

fn draft(number: u32) -> CardEvent {
    let id = format!("bc88f13f-0000-4000-8000-0000{number:08x}");
    let first = Candidate::by_rule(id.parse().unwrap(), IdRule::GidsCardid);
    let serial = Serial::from_bytes(&number.to_be_bytes());
    CardEvent {
        seen_at: jiff::Timestamp::now(),
        reader: format!("Reader {}", number % 8).as_str().into(),
        label: number.to_string(),
        role: "desk".to_owned(),
        trigger: Trigger::Inserted,
        boot_moment: None,
        event_count: number,
        atr: "3b8d0180fba000000397425446590301c8".parse().unwrap(),
        identity: CardIdentity::new(Family::Gids, serial, first, Vec::new()),
    }
}

/// Any decision: the outbox keeps it and does not interpret it.
fn decision() -> Decision {
    serde_json::from_value(serde_json::json!({
        "rule": "retire",
        "candidate": {
            "card_id": "bc88f13f-0000-4000-8000-000000000001",
            "rule": "gids-cardid",
        },
        "record": "17cf063d-e337-4aa9-a822-346554ddd3c9",
        "request": "b105403d-d021-41ea-9f11-be3d677d229e",
        "from": 2,
        "to": 6,
        "to_name": "Retired",
    }))
    .unwrap()
}

fn settlement() -> Settlement {
    Settlement {
        outcome: Outcome::Updated,
        at: jiff::Timestamp::now(),
        decision: Some(decision()),
        known_by: None,
        detail: "CM confirmed the new status".to_owned(),
        http_status: Some(200),
        correlation_id: None,
        attempts: 1,
        duration: Duration::from_millis(12),
        by: None,
    }
}
