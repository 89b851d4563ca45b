//! `scan`: reader and card events.
//!
//! For each reader, attached alternates with detached, and inserted or mute with removed, whatever
//! happens to the card, the reader or pcscd: programs that read the output rely on it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::cards::{
    INITIAL_STATE_TIMEOUT, ReaderWatch, identity_field, skip_reason, too_slow, unreachable,
};
use super::config_loader::settings_without_cm;
use super::output::{CommandError, Exit, Output, block_on, print_notice};
use super::render::time;
use crate::app::PROBE_DEADLINE;
use crate::config::Settings;
use crate::domain::{
    Atr, CardIdentity, InsertedCard, InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent,
    ReaderName,
};

pub(super) fn scan(
    config: Option<&Path>,
    once: bool,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = settings_without_cm(config)?;
    block_on(async move {
        let watch = ReaderWatch::start(&settings)?;
        let mut scan = Scan { settings, watch, out, readers: BTreeMap::new() };
        let initial_deadline = Instant::now() + INITIAL_STATE_TIMEOUT;
        let mut is_initial = true;
        while !once || is_initial || scan.next_deadline().is_some() {
            let timeout = (once && is_initial).then_some(initial_deadline);
            let Some(event) = scan.next(timeout).await? else {
                if timeout.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Err(unreachable("no response in time"));
                }
                scan.abandon_slow_cards()?;
                continue;
            };
            if let (ReaderEvent::PcscdUnavailable { reason }, true) = (&event, once) {
                return Err(unreachable(reason));
            }
            is_initial &= !matches!(event, ReaderEvent::InitialScanDone);
            scan.show(event)?;
        }
        Ok(Exit::Success)
    })
}

struct Scan<'a> {
    settings: Settings,
    watch: ReaderWatch,
    out: &'a mut Output,
    readers: BTreeMap<ReaderName, PrintedState>,
}

/// What the output says of a connected reader.
enum PrintedState {
    Empty,
    /// The same; a card is being read, and printed with the result.
    Reading(PendingCard),
    Card,
}

/// A card that is being read.
struct PendingCard {
    insertion: InsertionId,
    atr: Atr,
    at: Timestamp,
    deadline: Instant,
    /// Set as soon as it is known, which is before the end of the probe.
    identity: Option<Box<CardIdentity>>,
}

impl Scan<'_> {
    /// The next event; `None` at a deadline.
    async fn next(
        &mut self,
        timeout: Option<Instant>,
    ) -> Result<Option<ReaderEvent>, CommandError> {
        let deadline = self.next_deadline().into_iter().chain(timeout).min();
        let next = self.watch.next();
        match deadline {
            Some(deadline) => timeout_at(deadline, next).await.ok().transpose(),
            None => next.await.map(Some),
        }
    }

    fn pending(&self) -> impl Iterator<Item = (&ReaderName, &PendingCard)> {
        self.readers.iter().filter_map(|(reader, state)| match state {
            PrintedState::Reading(card) => Some((reader, card)),
            PrintedState::Empty | PrintedState::Card => None,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.pending().map(|(_, card)| card.deadline).min()
    }

    fn show(&mut self, event: ReaderEvent) -> Result<(), CommandError> {
        match event {
            ReaderEvent::PcscdConnected
            | ReaderEvent::InitialScanDone
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::CardReleased { .. } => {}
            ReaderEvent::Identified { reader, insertion, identity } => {
                if let Some(PrintedState::Reading(card)) = self.readers.get_mut(&reader)
                    && card.insertion == insertion
                {
                    card.identity = Some(Box::new(identity));
                }
            }
            ReaderEvent::PcscdUnavailable { reason } => self.pcscd_unavailable(&reason)?,
            ReaderEvent::ReaderAttached { reader, .. } => {
                self.print("reader-attached", &reader, "")?;
                self.readers.insert(reader, PrintedState::Empty);
            }
            ReaderEvent::ReaderDetached { reader } => {
                self.readers.remove(&reader);
                self.print("reader-detached", &reader, "")?;
            }
            ReaderEvent::CardMute { reader, .. } => {
                self.print("card-mute", &reader, "turn it over or clean it")?;
                self.readers.insert(reader, PrintedState::Card);
            }
            ReaderEvent::CardRemoved { reader, .. } => {
                self.removed(&reader, NotIdentifiedReason::Removed, "card was removed")?;
            }
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, atr, .. }) => {
                let (at, deadline) = (Timestamp::now(), Instant::now() + PROBE_DEADLINE);
                let skipped = skip_reason(&self.settings, &reader, &atr);
                if skipped.is_none() {
                    self.watch.probe(&reader, insertion, &atr);
                }
                let card = PendingCard { insertion, atr, at, deadline, identity: None };
                self.readers.insert(reader.clone(), PrintedState::Reading(card));
                if let Some(reason) = skipped {
                    self.probed(&reader, insertion, Err(reason))?;
                }
            }
            ReaderEvent::ProbeFinished { reader, insertion, result, .. } => {
                self.probed(&reader, insertion, result)?;
            }
        }
        Ok(())
    }

    /// Every card and every reader is gone.
    fn pcscd_unavailable(&mut self, reason: &str) -> Result<(), CommandError> {
        let readers: Vec<_> = self.readers.keys().cloned().collect();
        for reader in readers {
            self.removed(&reader, NotIdentifiedReason::ReadError, "pcscd became unavailable")?;
            self.print("reader-detached", &reader, "")?;
        }
        self.readers.clear();
        print_notice(&format!("pcscd is unavailable ({reason}); waiting for it"));
        Ok(())
    }

    fn probed(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        result: Result<CardIdentity, NotIdentified>,
    ) -> Result<(), CommandError> {
        let is_pending = |state: &&mut PrintedState| matches!(state, PrintedState::Reading(card) if card.insertion == insertion);
        if let Some(state) = self.readers.get_mut(reader).filter(is_pending)
            && let PrintedState::Reading(card) = std::mem::replace(state, PrintedState::Card)
        {
            self.print_inserted(card, reader, result)?;
        }
        Ok(())
    }

    /// Prints the removal, and the insertion if it was not printed yet.
    fn removed(
        &mut self,
        reader: &ReaderName,
        reason: NotIdentifiedReason,
        detail: &str,
    ) -> Result<(), CommandError> {
        match self.readers.insert(reader.clone(), PrintedState::Empty) {
            Some(PrintedState::Empty) | None => return Ok(()),
            Some(PrintedState::Card) => {}
            Some(PrintedState::Reading(card)) => {
                let detail = format!("{detail} before the card was read");
                self.print_inserted(card, reader, Err(NotIdentified::new(reason, detail)))?;
            }
        }
        self.print("card-removed", reader, "")
    }

    fn abandon_slow_cards(&mut self) -> Result<(), CommandError> {
        let now = Instant::now();
        let slow = self.pending().filter(|(_, card)| card.deadline <= now);
        let slow: Vec<_> = slow.map(|(reader, card)| (reader.clone(), card.insertion)).collect();
        for (reader, insertion) in slow {
            self.watch.abandon(&reader);
            self.probed(&reader, insertion, Err(too_slow()))?;
        }
        Ok(())
    }

    fn print(
        &mut self,
        event: &str,
        reader: &ReaderName,
        remedy: &str,
    ) -> Result<(), CommandError> {
        let at = Timestamp::now();
        if self.out.is_json() {
            return Ok(self.out.object(&json!({ "event": event, "at": at, "reader": reader }))?);
        }
        let text = event.replace('-', " ");
        let line = format!("{}  {text:15}  {reader}  {remedy}", time(at));
        Ok(self.out.line(line.trim_end())?)
    }

    /// An identity that became known counts, even if the probe failed after it.
    fn print_inserted(
        &mut self,
        card: PendingCard,
        reader: &ReaderName,
        result: Result<CardIdentity, NotIdentified>,
    ) -> Result<(), CommandError> {
        let PendingCard { at, atr, identity, .. } = card;
        let result = result.or_else(|error| identity.map(|identity| *identity).ok_or(error));
        if self.out.is_json() {
            let fields = [
                ("event", json!("card-inserted")),
                ("at", json!(at)),
                ("reader", json!(reader)),
                ("atr", json!(atr)),
                identity_field(&result),
            ];
            return Ok(self.out.object(&Value::from_iter(fields))?);
        }
        let text = match result {
            Ok(identity) => {
                let part = if identity.partial { " (read in part)" } else { "" };
                format!("{} {}{part}", identity.family, identity.primary().card_id)
            }
            Err(error) => format!("not identified: {}", error.detail),
        };
        let line = format!("{}  {:15}  {reader}  {text}  ATR {atr}", time(at), "card inserted");
        Ok(self.out.line(&line)?)
    }
}
