//! `scan`: readers and cards as they come and go.
//!
//! For each reader, attached alternates with detached, and inserted or mute with removed, whatever
//! happens to the card, the reader or pcscd: programs that read along can rely on it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::super::config_loader::CardCommandSettings;
use super::super::exit::{CommandError, Exit};
use super::super::output::Output;
use super::super::text::{escape_control_chars, time};
use super::{INITIAL_STATE_TIMEOUT, ReaderWatch, block_on, merge, too_slow, unreachable};
use crate::app::PROBE_DEADLINE;
use crate::domain::{
    Atr, CardIdentity, InsertedCard, InsertionId, NotIdentified, NotIdentifiedReason, ReaderEvent,
    ReaderName,
};

pub(in super::super) fn scan(
    config: Option<&Path>,
    once: bool,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let desk = CardCommandSettings::load(config)?;
    block_on(async move {
        let watch = ReaderWatch::start(&desk)?;
        let mut scan = Scan { desk, watch, out, readers: BTreeMap::new() };
        let first_look = Instant::now() + INITIAL_STATE_TIMEOUT;
        let mut settled = false;
        while !(once && settled && scan.next_deadline().is_none()) {
            let waits_for_first = once && !settled;
            let first = waits_for_first.then_some(first_look);
            let Some(seen) = scan.next(first).await? else {
                if waits_for_first && first_look <= Instant::now() {
                    return Err(unreachable("no answer in time"));
                }
                scan.give_up_slow_cards()?;
                continue;
            };
            if let (ReaderEvent::PcscdUnavailable { reason }, true) = (&seen, once) {
                return Err(unreachable(reason));
            }
            settled |= matches!(seen, ReaderEvent::InitialScanDone);
            scan.show(seen)?;
        }
        Ok(Exit::Done)
    })
}

struct Scan<'a> {
    desk: CardCommandSettings,
    watch: ReaderWatch,
    out: &'a mut Output,
    /// What was told of each reader that is there.
    readers: BTreeMap<ReaderName, PrintedState>,
}

/// What was told of a reader.
enum PrintedState {
    /// That it is there, or that its card is not any more.
    Empty,
    /// The same; there is a card in it that will be told as soon as it is known who it is.
    Reading(PendingCard),
    /// That there is a card in it.
    Card,
}

/// A card that is being read.
struct PendingCard {
    insertion: InsertionId,
    atr: Atr,
    at: Timestamp,
    deadline: Instant,
    /// Who it is, once its ids are read; what follows is for people.
    known: Option<Box<CardIdentity>>,
}

impl Scan<'_> {
    /// The next observation; `None` when it is time to look at the clock.
    async fn next(&mut self, first: Option<Instant>) -> Result<Option<ReaderEvent>, CommandError> {
        let deadline = self.next_deadline().into_iter().chain(first).min();
        let next = self.watch.next();
        match deadline {
            Some(deadline) => timeout_at(deadline, next).await.ok().transpose(),
            None => next.await.map(Some),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadline = |told: &PrintedState| match told {
            PrintedState::Reading(reading) => Some(reading.deadline),
            PrintedState::Empty | PrintedState::Card => None,
        };
        self.readers.values().filter_map(deadline).min()
    }

    fn show(&mut self, seen: ReaderEvent) -> Result<(), CommandError> {
        match seen {
            ReaderEvent::PcscdConnected
            | ReaderEvent::InitialScanDone
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::CardReleased { .. } => Ok(()),
            ReaderEvent::Identified { reader, insertion, identity } => {
                if let Some(PrintedState::Reading(reading)) = self.readers.get_mut(&reader)
                    && reading.insertion == insertion
                {
                    reading.known = Some(Box::new(identity));
                }
                Ok(())
            }
            ReaderEvent::PcscdUnavailable { reason } => self.service_down(&reason),
            ReaderEvent::ReaderAttached { reader, .. } => {
                self.event("reader-attached", &reader, "")?;
                self.readers.insert(reader, PrintedState::Empty);
                Ok(())
            }
            ReaderEvent::ReaderDetached { reader } => {
                self.readers.remove(&reader);
                self.event("reader-detached", &reader, "")
            }
            ReaderEvent::CardMute { reader, .. } => {
                self.event("card-mute", &reader, "turn it round or clean it")?;
                self.readers.insert(reader, PrintedState::Card);
                Ok(())
            }
            ReaderEvent::CardRemoved { reader, .. } => {
                self.removed(&reader, NotIdentifiedReason::Removed, "card was removed")
            }
            ReaderEvent::CardInserted(InsertedCard { reader, insertion, atr, .. }) => {
                let (at, deadline) = (Timestamp::now(), Instant::now() + PROBE_DEADLINE);
                let skipped = self.desk.skip_reason(&reader, &atr);
                if skipped.is_none() {
                    self.watch.probe(&reader, insertion, &atr);
                }
                let reading = PendingCard { insertion, atr, at, deadline, known: None };
                self.readers.insert(reader.clone(), PrintedState::Reading(reading));
                skipped.map_or(Ok(()), |why| self.probed(&reader, insertion, &Err(why)))
            }
            ReaderEvent::ProbeFinished { reader, insertion, result, .. } => {
                self.probed(&reader, insertion, &result)
            }
        }
    }

    /// Tells that every card and every reader is gone.
    fn service_down(&mut self, reason: &str) -> Result<(), CommandError> {
        let readers: Vec<_> = self.readers.keys().cloned().collect();
        for reader in readers {
            self.removed(&reader, NotIdentifiedReason::ReadError, "pcscd went away")?;
            self.event("reader-detached", &reader, "")?;
        }
        self.readers.clear();
        print_notice(&format!("pcscd does not answer ({reason}); waiting for it"));
        Ok(())
    }

    fn probed(
        &mut self,
        reader: &ReaderName,
        insertion: InsertionId,
        result: &Result<CardIdentity, NotIdentified>,
    ) -> Result<(), CommandError> {
        let is_awaited = |told: &PrintedState| matches!(told, PrintedState::Reading(card) if card.insertion == insertion);
        if !self.readers.get(reader).is_some_and(is_awaited) {
            return Ok(());
        }
        match self.readers.insert(reader.clone(), PrintedState::Card) {
            Some(PrintedState::Reading(reading)) => self.inserted(&reading, reader, result),
            Some(PrintedState::Empty | PrintedState::Card) | None => Ok(()),
        }
    }

    /// Tells the end of a stay, and its beginning if that was not told yet.
    fn removed(
        &mut self,
        reader: &ReaderName,
        reason: NotIdentifiedReason,
        detail: &str,
    ) -> Result<(), CommandError> {
        let told = self.readers.insert(reader.clone(), PrintedState::Empty);
        match told {
            Some(PrintedState::Empty) | None => return Ok(()),
            Some(PrintedState::Card) => {}
            Some(PrintedState::Reading(reading)) => {
                let detail = format!("{detail} before the card was read");
                self.inserted(&reading, reader, &Err(NotIdentified::new(reason, detail)))?;
            }
        }
        self.event("card-removed", reader, "")
    }

    /// Tells cards that were not read in time, and leaves them alone.
    fn give_up_slow_cards(&mut self) -> Result<(), CommandError> {
        let now = Instant::now();
        let slow: Vec<_> = self
            .readers
            .iter()
            .filter_map(|(reader, told)| match told {
                PrintedState::Reading(reading) if reading.deadline <= now => {
                    Some((reader.clone(), reading.insertion))
                }
                PrintedState::Reading(_) | PrintedState::Empty | PrintedState::Card => None,
            })
            .collect();
        for (reader, insertion) in slow {
            self.watch.abandon(&reader);
            self.probed(&reader, insertion, &Err(too_slow()))?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: &str,
        reader: &ReaderName,
        advice: &str,
    ) -> Result<(), CommandError> {
        let at = Timestamp::now();
        if self.out.is_json() {
            return self.out.object(&json!({ "event": event, "at": at, "reader": reader }));
        }
        let words = event.replace('-', " ");
        self.out.line(format!("{}  {words:15}  {reader}  {advice}", time(at)).trim_end())
    }

    fn inserted(
        &mut self,
        reading: &PendingCard,
        reader: &ReaderName,
        result: &Result<CardIdentity, NotIdentified>,
    ) -> Result<(), CommandError> {
        let PendingCard { at, atr, known, .. } = reading;
        let known = known.as_deref().cloned().filter(|_| result.is_err()).map(Ok);
        let result = known.as_ref().unwrap_or(result);
        if self.out.is_json() {
            let mut object =
                json!({ "event": "card-inserted", "at": at, "reader": reader, "atr": atr });
            merge(&mut object, result);
            return self.out.object(&object);
        }
        let who = match result {
            Ok(identity) => {
                let part = if identity.partial { " (read in part)" } else { "" };
                format!("{} {}{part}", identity.family, identity.primary().card_id)
            }
            Err(why) => format!("not identified: {}", why.detail),
        };
        self.out.line(&format!("{}  {:15}  {reader}  {who}  ATR {atr}", time(*at), "card inserted"))
    }
}

#[expect(clippy::print_stderr, reason = "text for people beside data on standard output")]
fn print_notice(text: &str) {
    eprintln!("cardbridge: {}", escape_control_chars(text));
}
