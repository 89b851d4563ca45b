//! `scan` and `read`: what is in the readers, with or without CM.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::config_loader::CardCommandSettings;
use super::exit::{CommandError, Exit};
use crate::app::PROBE_DEADLINE;
use crate::domain::{
    ApduExchange, Atr, CardIdentity, InsertedCard, InsertionId, NotIdentified, NotIdentifiedReason,
    ReaderEvent, ReaderName,
};
use crate::readers::{ReaderOptions, Readers};

mod read;
mod scan;

pub(super) use read::read;
pub(super) use scan::scan;

/// pcscd answers in milliseconds once every reader has been powered up, which takes seconds.
const INITIAL_STATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs something that waits, on a runtime of its own.
pub(super) fn block_on<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // A name that is being looked up can hold its thread for a minute; nobody waits for the answer.
    runtime.shutdown_background();
    ended
}

/// A look at the readers that ends when it is dropped.
struct ReaderWatch {
    readers: Option<Readers>,
    observations: UnboundedReceiver<ReaderEvent>,
}

impl ReaderWatch {
    fn start(desk: &CardCommandSettings) -> Result<Self, CommandError> {
        let options =
            ReaderOptions { probing: desk.probing.clone(), probe_deadline: PROBE_DEADLINE };
        let (readers, observations) = Readers::start(options)?;
        Ok(Self { readers: Some(readers), observations })
    }

    async fn next(&mut self) -> Result<ReaderEvent, CommandError> {
        let gone =
            || CommandError::message(Exit::Failed, "the reader monitor stopped unexpectedly");
        self.observations.recv().await.ok_or_else(gone)
    }

    fn probe(&mut self, reader: &ReaderName, insertion: InsertionId, atr: &Atr) {
        if let Some(readers) = &mut self.readers {
            readers.probe(reader, insertion, atr, false);
        }
    }

    fn abandon(&mut self, reader: &ReaderName) -> Vec<ApduExchange> {
        self.readers.as_mut().map(|readers| readers.abandon(reader)).unwrap_or_default()
    }
}

impl Drop for ReaderWatch {
    fn drop(&mut self) {
        if let Some(readers) = self.readers.take() {
            readers.stop();
        }
    }
}

fn unreachable(reason: &str) -> CommandError {
    let advice = "check that pcscd runs and that this user has access";
    CommandError::message(Exit::Unreachable, format!("pcscd does not answer: {reason}\n{advice}"))
}

/// Adds who a card is, or why that is not known, to an object about it.
pub(super) fn merge(object: &mut Value, result: &Result<CardIdentity, NotIdentified>) {
    let (key, value) = match result {
        Ok(identity) => ("identity", serde_json::to_value(identity)),
        Err(why) => ("not_identified", serde_json::to_value(why)),
    };
    if let (Some(object), Ok(value)) = (object.as_object_mut(), value) {
        object.insert(key.to_owned(), value);
    }
}

/// A card that was read on demand.
pub(super) struct ProbedCard {
    pub(super) reader: ReaderName,
    /// None where the card does not answer at power-up.
    pub(super) atr: Option<Atr>,
    pub(super) result: Result<CardIdentity, NotIdentified>,
    exchanges: Vec<ApduExchange>,
}

/// Reads the card in the reader that is named, or in the only one that has a card.
pub(super) async fn read_card(
    desk: &CardCommandSettings,
    wanted: Option<&str>,
) -> Result<ProbedCard, CommandError> {
    let mut watch = ReaderWatch::start(desk)?;
    let cards = tokio::time::timeout(INITIAL_STATE_TIMEOUT, initial_state(&mut watch))
        .await
        .map_err(|_| unreachable("no answer in time"))??;
    let (reader, card) = choose(cards, wanted)?;
    let Some((insertion, atr)) = card else {
        let detail = "the card does not respond: turn it over or clean it".to_owned();
        let result = Err(NotIdentified::new(NotIdentifiedReason::Mute, detail));
        return Ok(ProbedCard { reader, atr: None, result, exchanges: Vec::new() });
    };
    if let Some(why) = desk.skip_reason(&reader, &atr) {
        return Ok(ProbedCard { reader, atr: Some(atr), result: Err(why), exchanges: Vec::new() });
    }
    watch.probe(&reader, insertion, &atr);
    let mut known = None;
    let read = read_result(&mut watch, insertion, &mut known);
    let (result, exchanges) = match tokio::time::timeout(PROBE_DEADLINE, read).await {
        Ok(read) => read?,
        Err(_) => (known.ok_or_else(too_slow), watch.abandon(&reader)),
    };
    Ok(ProbedCard { reader, atr: Some(atr), result, exchanges })
}

/// How the reading of a card ends; `known` is who the card is, as soon as it has said so.
async fn read_result(
    watch: &mut ReaderWatch,
    insertion: InsertionId,
    known: &mut Option<CardIdentity>,
) -> Result<(Result<CardIdentity, NotIdentified>, Vec<ApduExchange>), CommandError> {
    loop {
        let seen = watch.next().await?;
        if let ReaderEvent::ProbeFinished { insertion: read, result, exchanges, .. } = seen {
            if read == insertion {
                return Ok((result, exchanges));
            }
        } else if let ReaderEvent::Identified { insertion: read, identity, .. } = seen
            && read == insertion
        {
            *known = Some(identity);
        }
    }
}

/// A card that took longer than any that answers at all.
fn too_slow() -> NotIdentified {
    let detail = format!("card was not read within {} s", PROBE_DEADLINE.as_secs());
    NotIdentified::new(NotIdentifiedReason::Timeout, detail)
}

/// What is in a reader: `None` for a mute card.
type CardInReader = Option<(InsertionId, Atr)>;

async fn initial_state(
    watch: &mut ReaderWatch,
) -> Result<BTreeMap<ReaderName, Option<CardInReader>>, CommandError> {
    let mut readers = BTreeMap::new();
    loop {
        match watch.next().await? {
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, atr, .. }) => {
                readers.insert(reader, Some(Some((insertion, atr))));
            }
            ReaderEvent::CardMute { reader, .. } => {
                readers.insert(reader, Some(None));
            }
            ReaderEvent::ReaderAttached { reader, .. }
            | ReaderEvent::CardRemoved { reader, .. } => {
                readers.insert(reader, None);
            }
            ReaderEvent::ReaderDetached { reader } => {
                readers.remove(&reader);
            }
            ReaderEvent::PcscdUnavailable { reason } => return Err(unreachable(&reason)),
            ReaderEvent::InitialScanDone => return Ok(readers),
            ReaderEvent::PcscdConnected
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::Identified { .. }
            | ReaderEvent::CardReleased { .. }
            | ReaderEvent::ProbeFinished { .. } => {}
        }
    }
}

fn choose(
    readers: BTreeMap<ReaderName, Option<CardInReader>>,
    wanted: Option<&str>,
) -> Result<(ReaderName, CardInReader), CommandError> {
    let names = |readers: &[ReaderName]| {
        readers.iter().map(|name| format!("  {name}")).collect::<Vec<_>>().join("\n")
    };
    let all: Vec<_> = readers.keys().cloned().collect();
    if all.is_empty() {
        return Err(CommandError::message(Exit::Unreachable, "no reader is attached"));
    }
    let exact = wanted.filter(|wanted| all.iter().any(|name| name.as_str() == *wanted));
    let is_wanted = |name: &ReaderName| match (exact, wanted) {
        (Some(exact), _) => name.as_str() == exact,
        (None, Some(part)) => name.as_str().contains(part),
        (None, None) => true,
    };
    let mut chosen: Vec<_> = readers.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if chosen.is_empty() {
        let message = format!("no reader matches this name; connected readers:\n{}", names(&all));
        return Err(CommandError::message(Exit::Usage, message));
    }
    chosen.retain(|(_, card)| card.is_some());
    match chosen.as_slice() {
        [(reader, Some(card))] => Ok((reader.clone(), card.clone())),
        [] => Err(CommandError::message(Exit::Failed, "no card is in the reader")),
        several => {
            let several: Vec<_> = several.iter().map(|(name, _)| name.clone()).collect();
            let message =
                format!("more than one card; choose a reader with --reader:\n{}", names(&several));
            Err(CommandError::message(Exit::Usage, message))
        }
    }
}
