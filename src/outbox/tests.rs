//! What the outbox promises, a file for each subject. Helpers are here.

mod audit;
mod chain;
mod damage;
mod file_guard;
mod fixture;
mod limits;
mod links;
mod notes;
mod opening;
mod pruning;
mod queue;
mod read_only;
mod recovery;
mod wal;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use super::limits::SizeLimits;
use super::*;
use crate::domain::{
    Candidate, CardId, CardIdentity, CardStatus, Decision, Family, IdRule, NotIdentified,
    NotIdentifiedReason, Outcome, ParkReason, Serial, Trigger,
};

/// A directory, and the outbox in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("outbox.db")
    }

    fn options(&self) -> OutboxOptions {
        OutboxOptions {
            path: self.path(),
            max_entries: 1000,
            station: "desk-3".to_owned(),
            now: at(50),
        }
    }

    fn open(&self) -> (Outbox, OutboxContents) {
        open(self.options()).unwrap()
    }

    /// What a process finds that starts now.
    fn restored(&self) -> OutboxContents {
        let (outbox, restored) = self.open();
        outbox.close();
        restored
    }

    fn entries(&self) -> Vec<Entry> {
        let listing = open_read_only(&self.path()).unwrap().entries().unwrap();
        assert_eq!(listing.damaged, []);
        listing.entries
    }

    fn outcomes(&self) -> Vec<(Option<EntryId>, String)> {
        let page = open_read_only(&self.path()).unwrap().audit(&AuditFilter::default()).unwrap();
        assert_eq!(page.damaged, []);
        page.lines.into_iter().map(|it| (it.line.entry, it.line.outcome)).collect()
    }

    /// A connection that is not the outbox's.
    fn sqlite(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 0).unwrap()
}

fn card(number: u128) -> CardId {
    CardId::try_from(uuid::Uuid::from_u128(number)).unwrap()
}

fn candidate(number: u128) -> Candidate {
    Candidate::by_rule(card(number), IdRule::GidsCardid)
}

/// The insertion of card `number` at second `number`.
fn card_event(number: u8) -> CardEvent {
    let first = candidate(number.into());
    let second = Candidate::by_rule(card(u128::from(number) << 64), IdRule::GidsCardidBe);
    CardEvent {
        trigger: Trigger::Inserted,
        seen_at: at(number.into()),
        reader: "HID Omnikey 3121 [CCID Interface] (AB12) 00 00".into(),
        label: "Desk 3, left".to_owned(),
        role: "desk".to_owned(),
        boot_moment: None,
        event_count: number.into(),
        atr: "3b8d0180fba000000397425446590301c8".parse().unwrap(),
        identity: CardIdentity::new(
            Family::Gids,
            Serial::from_bytes(&[number; 16]),
            first,
            vec![second],
        ),
    }
}

fn append(number: u8) -> AppendRequest {
    AppendRequest {
        card_event: card_event(number),
        stage: Stage::Queued,
        instance: None,
        supersedes: Vec::new(),
    }
}

fn decision(number: u8) -> Decision {
    Decision {
        rule: "retire".to_owned(),
        candidate: candidate(number.into()),
        record: "3f2504e0-4f89-11d3-9a0c-0305e82c3301".parse().unwrap(),
        request: "3f2504e0-4f89-11d3-9a0c-0305e82c3302".parse().unwrap(),
        old_status: CardStatus::new(2),
        new_status: CardStatus::new(5),
        new_status_name: "Retired".to_owned(),
        complete_request: false,
    }
}

fn end(outcome: Outcome) -> Settlement {
    Settlement {
        outcome,
        at: at(100),
        decision: None,
        known_by: None,
        detail: format!("the end: {outcome}"),
        http_status: Some(200),
        correlation_id: Some("c-1".to_owned()),
        attempts: 3,
        duration: Duration::from_millis(1500),
        by: None,
    }
}

fn parked() -> Settlement {
    end(Outcome::Parked(ParkReason::Refused))
}

fn not_identified(second: i64) -> AuditLine {
    let why = NotIdentified::new(NotIdentifiedReason::Mute, "no answer".to_owned());
    AuditLine::not_identified("desk-3", (&"Reader".into(), "Desk"), None, at(second), &why)
}

/// Prunes in as many runs as it takes, and counts the lines.
async fn prune_all(outbox: &Outbox, keep: Duration, now: Timestamp) -> usize {
    let mut pruned = 0;
    loop {
        match outbox.prune(keep, now).await.unwrap() {
            0 => return pruned,
            lines => pruned += lines,
        }
    }
}

fn id(number: i64) -> EntryId {
    EntryId::new(number)
}
