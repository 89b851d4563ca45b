//! Acts on the entries of a daemon that does not run, in its file and under its lock.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::cards::block_on;
use super::config_loader::settings_without_cm;
use super::exit::{CommandError, Exit};
use crate::app::outbox_options;
use crate::control::{ControlError, EntryAction, own_user};
use crate::domain::{AuditLine, Entry, EntryId, Outcome, Settlement, Stage};
use crate::outbox::{self, OpenError, Outbox, StoreError};

/// Does to an entry what the daemon would; `silent` is why that could not be asked.
pub(super) fn act(
    config: Option<&Path>,
    id: EntryId,
    act: EntryAction,
    silent: ControlError,
) -> Result<(), CommandError> {
    let settings = settings_without_cm(config)?;
    if settings.outbox.path.symlink_metadata().is_err() {
        return Err(silent.into());
    }
    let by = own_user();
    outbox::act_as_owner(&settings.outbox.path).map_err(|error| open_error(error, &silent))?;
    let (outbox, restored) = outbox::open_stopped(outbox_options(&settings))
        .map_err(|error| open_error(error, &silent))?;
    let entry = restored.entries.into_iter().find(|entry| entry.id == id);
    let done = match entry {
        Some(entry) => block_on(async {
            Ok(match act {
                EntryAction::Discard => discard(&outbox, &entry, by).await,
                EntryAction::Retry => retry(&outbox, &entry, &settings.station, &by).await,
            })
        })?
        .map_err(|error| CommandError::new(Exit::Failed, error)),
        None => Err(CommandError::message(Exit::Failed, "no such entry")),
    };
    outbox.close();
    done
}

/// Why the file is not to be had. One that a process holds is that process's to change.
fn open_error(error: OpenError, silent: &ControlError) -> CommandError {
    if let OpenError::InUse { .. } = error {
        let silent = silent.to_string();
        return CommandError::new(Exit::Unreachable, anyhow::Error::new(error).context(silent));
    }
    CommandError::new(Exit::Failed, error)
}

async fn discard(outbox: &Outbox, entry: &Entry, by: String) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let end = Settlement {
        outcome: Outcome::Discarded,
        at: now,
        decision: entry.stage.sent().cloned(),
        known_by: None,
        detail: format!("discarded by {by}, while the daemon was stopped"),
        http_status: None,
        correlation_id: None,
        attempts: 0,
        duration: Duration::try_from(now.duration_since(entry.card_event.seen_at))
            .unwrap_or_default(),
        by: Some(by),
    };
    outbox.settle(entry.id, end).await.map(drop)
}

/// A parked entry goes back into the queue. One that waits is tried at the start anyway.
async fn retry(outbox: &Outbox, entry: &Entry, station: &str, by: &str) -> Result<(), StoreError> {
    match entry.stage {
        Stage::Parked { .. } => {
            let act = AuditLine::operator_action(station, entry, "retried", by, Timestamp::now());
            outbox.unpark(entry.id, act).await
        }
        Stage::Queued | Stage::Sent(_) | Stage::Completing(_) => Ok(()),
    }
}
