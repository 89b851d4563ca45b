//! The log: what happened, with constant messages and values as fields.

use crate::config::Settings;
use crate::domain::{
    AuditLine, CmOperation, EntryId, InsertedCard, ReaderAttributes, ReaderEvent, UnavailableReason,
};
use crate::engine::{CmEvent, Event, Notice, OutboxEvent, RestoredState};
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

/// Each row may have been an entry.
pub(super) fn damaged(rows: &[DamagedRow]) {
    for row in rows {
        tracing::error!(row = %row, "Damaged outbox row skipped");
    }
}

/// What could not be read may have been an entry.
pub(super) fn repaired(repair: Option<&RepairReport>) {
    let Some(RepairReport { set_aside, cause, entries, lines, last_seen, damaged, .. }) = repair
    else {
        return;
    };
    let Some(set_aside) = set_aside else {
        tracing::error!(
            cause,
            entries,
            lines,
            "Outbox file was missing; readable rows recovered from what was left"
        );
        return;
    };
    tracing::error!(
        set_aside_path = %set_aside.display(),
        cause,
        entries,
        lines,
        last_seen,
        damaged,
        "Damaged outbox file set aside; readable rows recovered"
    );
}

pub(super) fn log_reader_event(event: &ReaderEvent, ids: IdRedaction) {
    match event {
        // The reader monitor logs these itself.
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
            tracing::debug!(%reader, "Card released by other programs");
        }
        ReaderEvent::Identified { reader, insertion, .. } => {
            tracing::debug!(%reader, %insertion, "Card id known");
        }
        ReaderEvent::ProbeFinished { reader, insertion, result: Ok(identity), .. } => {
            let card_id = ids.show(identity.primary().card_id);
            tracing::info!(%reader, %insertion, family = %identity.family, card_id, "Card identified");
        }
        ReaderEvent::ProbeFinished { reader, insertion, result: Err(error), .. } => {
            let (reason, detail) = (error.reason, &error.detail);
            tracing::info!(%reader, %insertion, %reason, detail, "Card not identified");
        }
    }
}

pub(super) fn log_event(event: &Event, ids: IdRedaction) {
    match event {
        Event::Cm(CmEvent { entry, operation, result }) => {
            let ok = result.is_ok();
            match operation {
                CmOperation::Lookup => tracing::debug!(%entry, ok, "CM lookup finished"),
                CmOperation::ReadRecord => tracing::debug!(%entry, ok, "CM record read"),
                CmOperation::SetStatus => tracing::debug!(%entry, ok, "CM status update finished"),
                CmOperation::ReadRequest => tracing::debug!(%entry, ok, "CM request read"),
                CmOperation::CompleteRequest => {
                    tracing::debug!(%entry, ok, "CM request completion finished");
                }
            }
        }
        Event::Outbox(OutboxEvent::EntryAppended { insertion, trigger, result }) => {
            let Ok((entry, lines)) = result else { return };
            tracing::info!(%insertion, trigger = trigger.as_str(), %entry, "Entry queued");
            for line in lines {
                settled(line, ids);
            }
        }
        Event::Outbox(OutboxEvent::StageSaved { entry, result }) => {
            tracing::debug!(%entry, ok = result.is_ok(), "Decision saved");
        }
        Event::Outbox(OutboxEvent::EntrySettled { result: Ok(line), .. }) => settled(line, ids),
        Event::Outbox(OutboxEvent::EntryUnparked { entry, result }) => {
            tracing::info!(%entry, ok = result.is_ok(), "Parked entry requeued");
        }
        Event::Reader(_)
        | Event::Outbox(OutboxEvent::EntrySettled { .. } | OutboxEvent::AuditAppended(_))
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
            tracing::warn!(%reader, "Card is inserted and removed repeatedly; waiting until it is stable");
        }
        Notice::OutboxError(detail) => {
            tracing::error!(detail, "Outbox cannot store entries; retrying");
        }
        Notice::OutboxRecovered => tracing::info!("Outbox stores entries again"),
        Notice::EntryLost { entry, detail } => {
            tracing::error!(%entry, detail, "Outbox entry lost; check the card's record in CM");
        }
        Notice::CardDropped(card_event) => {
            let card_id = ids.show(card_event.identity.primary().card_id);
            tracing::error!(reader = %card_event.reader, card_id, "Card event dropped: disk and memory are full; insert the card again");
        }
        Notice::UnexpectedResult { of, result } => {
            tracing::warn!(of, result, "Result for an unknown entry or insertion ignored");
        }
    }
}
