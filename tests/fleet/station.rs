//! One station: a real engine, a disk that fails on demand, and cards that come and go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cardbridge::config::{ConfigInputs, ConfigText, parse};
use cardbridge::domain::{
    AuditLine, Candidate, CardEvent, CardIdentity, EntryId, Family, IdRule, InsertedCard,
    InsertionId, ReaderEvent, Removal, Serial,
};
use cardbridge::engine::{
    CmCall, CmEvent, CmResponse, Effect, Engine, EngineSettings, Event, Now, OutboxEffect,
    OutboxEvent, ReaderEffect, RestoredState, RetryPolicy,
};

use super::cm::Cm;

pub(crate) const ATR: &str = "3b8d0180fba000000397425446590301c8";
const READER: &str = "Reader";

/// How long things take.
const CALL: Duration = Duration::from_millis(20);
const COMMIT: Duration = Duration::from_millis(2);
const PROBE: Duration = Duration::from_millis(150);

/// Midnight of the simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(pub(crate) Instant);

impl Epoch {
    pub(crate) fn at(self, time: Duration) -> Now {
        let wall: jiff::Timestamp = "2026-03-01T08:00:00Z".parse().unwrap();
        Now { mono: self.0 + time, wall: wall + time }
    }
}

/// What the documentation's configuration says to the engine.
pub(crate) fn policy() -> EngineSettings {
    let text = "[cm]\nurl = \"https://cm.example.com\"\n[cm.auth]\nmethod = \"none\"\n";
    let source = ConfigText { name: "fleet".to_owned(), text: text.to_owned() };
    let inputs =
        ConfigInputs { sources: &[source], host_name: "desk-3", ..ConfigInputs::default() };
    let settings = parse(&inputs).unwrap().settings;
    EngineSettings {
        station: settings.station,
        rules: settings.rules,
        readers: settings.readers,
        skip_atr: settings.skip_atr,
        concurrency: settings.cm.concurrency,
        retry: RetryPolicy { min: settings.outbox.retry_min, max: settings.outbox.retry_max },
        max_age: settings.outbox.max_age,
        probe_deadline: Duration::from_secs(10),
    }
}

/// A station, and the number that its cards begin with.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) engine: Engine,
    number: usize,
    cards: u64,
    insertion: InsertionId,
    entries: i64,
    /// How many of the entries that waited when CM came back wait still.
    pub(crate) backlog: usize,
    /// The last of those.
    backlog_ends: EntryId,
    /// What waits on the disk.
    drafts: BTreeMap<EntryId, CardEvent>,
    pub(crate) settled: Vec<(EntryId, String)>,
}

impl Station {
    pub(crate) fn new(number: usize, policy: &EngineSettings, seed: u64, now: Now) -> Self {
        let mut engine = Engine::new(policy.clone(), RestoredState::default(), seed, now);
        engine.handle(Event::Reader(ReaderEvent::PcscdConnected), now);
        engine.handle(
            Event::Reader(ReaderEvent::ReaderAttached { reader: READER.into(), instance: None }),
            now,
        );
        engine.handle(Event::Reader(ReaderEvent::InitialScanDone), now);
        Self {
            engine,
            number,
            cards: 0,
            insertion: InsertionId::ZERO,
            entries: 0,
            backlog: 0,
            backlog_ends: EntryId::new(0),
            drafts: BTreeMap::new(),
            settled: Vec::new(),
        }
    }

    /// CM is back: counts what waits.
    pub(crate) fn mark_backlog(&mut self) -> usize {
        self.backlog_ends = EntryId::new(self.entries);
        self.backlog = self.drafts.len();
        self.backlog
    }

    /// A card that was never seen before, in the place of the one before.
    pub(crate) fn insert(&mut self, now: Now) {
        if self.cards > 0 {
            let reader = READER.into();
            let insertion = self.insertion;
            self.engine.handle(
                Event::Reader(ReaderEvent::CardRemoved {
                    reader,
                    insertion,
                    removal: Removal::Observed,
                }),
                now,
            );
        }
        self.cards += 1;
        self.insertion = self.insertion.next();
        let presence = InsertedCard {
            reader: READER.into(),
            insertion: self.insertion,
            atr: ATR.parse().unwrap(),
            event_count: u32::try_from(self.cards).unwrap(),
            at_start: false,
        };
        self.engine.handle(Event::Reader(ReaderEvent::CardInserted(presence)), now);
    }

    /// Does what the engine wants done; the answers come later.
    pub(crate) fn perform(&mut self, cm: &mut Cm, time: Duration) -> Vec<(Duration, Event)> {
        let mut answers = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            let answer = match effect {
                Effect::Reader(ReaderEffect::StartProbe { reader, insertion, .. }) => {
                    let result = Ok(self.identity());
                    let exchanges = vec![];
                    let event = ReaderEvent::ProbeFinished { reader, insertion, result, exchanges };
                    (PROBE, Event::Reader(event))
                }
                Effect::Outbox(effect) => match self.store(effect) {
                    Some(event) => (COMMIT, Event::Outbox(event)),
                    None => continue,
                },
                Effect::Cm { entry, call } => {
                    let operation = call.operation();
                    let result = match call {
                        CmCall::Lookup(identity) => {
                            cm.look_up(&identity, time).map(CmResponse::Lookup)
                        }
                        CmCall::ReadRecord(decision) => {
                            cm.read(decision.record, time).map(CmResponse::Record)
                        }
                        CmCall::SetStatus(decision) => {
                            cm.put(&decision, time).map(CmResponse::SetStatus)
                        }
                        CmCall::ReadRequest(_) | CmCall::CompleteRequest(_) => continue,
                    };
                    (CALL, Event::Cm(CmEvent { entry, operation, result }))
                }
                Effect::Reader(_) | Effect::Report(_) => continue,
            };
            answers.push(answer);
        }
        answers
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have no answer")]
    fn store(&mut self, effect: OutboxEffect) -> Option<OutboxEvent> {
        match effect {
            OutboxEffect::AppendEntry { insertion, entry } => {
                self.entries += 1;
                let id = EntryId::new(self.entries);
                let trigger = entry.card_event.trigger;
                self.drafts.insert(id, entry.card_event);
                let result = Ok((id, Vec::new()));
                Some(OutboxEvent::EntryAppended { insertion, trigger, result })
            }
            OutboxEffect::SaveStage { entry, .. } => {
                Some(OutboxEvent::StageSaved { entry, result: Ok(()) })
            }
            OutboxEffect::SettleEntry { entry, end } => {
                let draft = self.drafts.remove(&entry)?;
                self.backlog -= usize::from(entry <= self.backlog_ends);
                self.settled.push((entry, end.outcome.as_str().to_owned()));
                let line = AuditLine::settled("desk", entry, &draft, &end);
                Some(OutboxEvent::EntrySettled { entry, result: Ok(line) })
            }
            _ => None,
        }
    }

    fn identity(&self) -> CardIdentity {
        let id = format!("bc88f13f-0000-4000-{:04x}-{:012x}", self.number, self.cards);
        let first = Candidate::by_rule(id.parse().unwrap(), IdRule::GidsCardid);
        let serial = Serial::from_bytes(&self.cards.to_be_bytes());
        CardIdentity::new(Family::Gids, serial, first, Vec::new())
    }
}
