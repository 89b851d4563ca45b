//! The log: what happened, with constant messages and values as fields.

use crate::config::Settings;
use crate::domain::{
    AuditLine, EntryId, InsertedCard, ReaderAttributes, ReaderEvent, UnavailableReason,
};
use crate::engine::{Event, Notice, RestoredState};
use crate::outbox::{DamagedRow, RepairReport};
use crate::telemetry::IdRedaction;

pub(super) fn started(settings: &Settings, restored: &RestoredState) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        station = settings.station,
        cm = settings.cm.url,
        entries = restored.entries.len(),
        "Daemon started"
    );
}

/// Rows that the outbox does not believe any more: each may have been somebody's card.
pub(super) fn damaged(rows: &[DamagedRow]) {
    for row in rows {
        tracing::error!(row = %row, "Damaged outbox row skipped");
    }
}

/// The outbox was damaged as a whole: what could not be read may have been somebody's card.
pub(super) fn mended(mended: Option<&RepairReport>) {
    let Some(mended) = mended else { return };
    if mended.set_aside.is_none() {
        tracing::error!(
            cause = mended.cause,
            entries = mended.entries,
            lines = mended.lines,
            "Outbox was gone; what is readable of what was left was carried over"
        );
    } else {
        tracing::error!(
            set_aside_path =
                mended.set_aside.as_ref().map(|aside| tracing::field::display(aside.display())),
            cause = mended.cause,
            entries = mended.entries,
            lines = mended.lines,
            last_seen = mended.last_seen,
            damaged = mended.damaged,
            "Damaged outbox file set aside; readable rows recovered"
        );
    }
}

pub(super) fn log_reader_event(observation: &ReaderEvent, ids: IdRedaction) {
    match observation {
        // The readers say themselves whether they can be watched.
        ReaderEvent::PcscdConnected | ReaderEvent::PcscdUnavailable { .. } => {}
        ReaderEvent::InitialScanDone => tracing::debug!("Initial reader scan finished"),
        ReaderEvent::ReaderAttached { reader, .. } => tracing::info!(%reader, "Reader attached"),
        ReaderEvent::AttributesRead { reader, attributes } => {
            let ReaderAttributes { vendor, serial } = attributes;
            tracing::debug!(%reader, vendor, serial, "Reader attributes read");
        }
        ReaderEvent::ReaderDetached { reader } => tracing::info!(%reader, "Reader detached"),
        ReaderEvent::CardInserted(InsertedCard { reader, insertion, atr, .. }) => {
            tracing::info!(%reader, %insertion, %atr, "Card inserted");
        }
        ReaderEvent::CardMute { reader, insertion } => {
            tracing::info!(%reader, %insertion, "Card is mute");
        }
        ReaderEvent::CardRemoved { reader, insertion, .. } => {
            tracing::info!(%reader, %insertion, "Card removed");
        }
        ReaderEvent::CardReleased { reader } => {
            tracing::debug!(%reader, "No other program uses the card any more");
        }
        ReaderEvent::Identified { reader, insertion, .. } => {
            tracing::debug!(%reader, %insertion, "Card said who it is");
        }
        ReaderEvent::ProbeFinished { reader, insertion, result: Ok(identity), .. } => {
            let card = ids.show(identity.primary().card_id);
            tracing::info!(%reader, %insertion, family = %identity.family, card, "Card identified");
        }
        ReaderEvent::ProbeFinished { reader, insertion, result: Err(why), .. } => {
            let (reason, detail) = (why.reason, &why.detail);
            tracing::info!(%reader, %insertion, %reason, detail, "Card not identified");
        }
    }
}

pub(super) fn log_event(event: &Event, ids: IdRedaction) {
    match event {
        Event::EntryAppended { insertion, trigger, result: Ok((entry, lines)) } => {
            tracing::info!(%insertion, trigger = trigger.as_str(), %entry, "Entry queued");
            for line in lines {
                settled(line, ids);
            }
        }
        Event::EntrySettled { result: Ok(line), .. } => settled(line, ids),
        Event::EntryUnparked { entry, result } => {
            tracing::info!(%entry, ok = result.is_ok(), "Parked entry requeued");
        }
        Event::LookedUp { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "CM lookup finished");
        }
        Event::RecordRead { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "CM record read");
        }
        Event::StageSaved { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "Decision saved");
        }
        Event::StatusSet { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "CM status update finished");
        }
        Event::RequestRead { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "CM request read");
        }
        Event::RequestCompleted { entry, result } => {
            tracing::debug!(%entry, ok = result.is_ok(), "CM request completion finished");
        }
        Event::EntryAppended { .. }
        | Event::EntrySettled { .. }
        | Event::AuditAppended(_)
        | Event::Reader(_)
        | Event::Reconfigured(_) => {}
    }
}

fn settled(line: &AuditLine, ids: IdRedaction) {
    tracing::info!(
        entry = line.entry.map(EntryId::number),
        outcome = line.outcome,
        reason = line.reason,
        card_id = line.card_id.map(|card| ids.show(card)),
        record = line.record.map(|record| ids.show(record)),
        request = line.request.map(|request| ids.show(request)),
        new_status = line.new_status_name,
        detail = ids.in_text(&line.detail),
        "Entry settled"
    );
}

pub(super) fn notice(notice: &Notice, ids: IdRedaction) {
    match notice {
        Notice::CmUnavailable(error) => {
            let remedy = error.unavailable_reason().map(UnavailableReason::remedy);
            tracing::warn!(detail = ids.in_text(error.detail()), remedy, "CM unavailable");
        }
        Notice::CmAvailable => tracing::info!("CM available again"),
        Notice::Warning { entry, text } => {
            tracing::warn!(%entry, text = ids.in_text(text), "Card does not match its CM record");
        }
        Notice::CardFlapping { reader } => {
            tracing::warn!(%reader, "Card comes and goes all the time: it is worked on once it lies still");
        }
        Notice::OutboxError(detail) => {
            tracing::error!(detail, "Outbox cannot store entries; retrying");
        }
        Notice::OutboxRecovered => tracing::info!("Outbox stores entries again"),
        Notice::EntryLost { entry, detail } => {
            tracing::error!(%entry, detail, "Outbox entry lost; check the card's record in CM");
        }
        Notice::CardDropped(draft) => {
            let card = ids.show(draft.identity.primary().card_id);
            tracing::error!(reader = %draft.reader, card, "Card event dropped: disk and memory are full; insert the card again");
        }
    }
}
