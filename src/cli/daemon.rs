//! `status` and `outbox`; and the source of what they show: the running daemon, or the outbox
//! file of a stopped one.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::config_loader::settings_for_daemon;
use super::output::{CommandError, Exit, Output, block_on, print_notice};
use super::render;
use crate::app::{audit_filter, chain_cursor, outbox_options};
use crate::config::Settings;
use crate::control::{ControlClient, ControlError, EntryAction, own_user};
use crate::domain::{
    AuditLine, ChainBatch, ChainPosition, Entry, EntryId, EntryView, Outcome, Settlement, Stage,
};
use crate::outbox::{self, DamagedRow, OpenError, Outbox, ReadOnlyOutbox, StoreError};
use crate::wire::control::{ActionResult, AuditPage, AuditQuery, MarkQuery, VerifyQuery};

/// Entries and audit lines come from the running daemon, or from the file of a stopped one.
pub(super) enum Source {
    Daemon(ControlClient),
    File(ReadOnlyOutbox),
}

impl Source {
    pub(super) fn open(settings: &Settings) -> Result<Self, CommandError> {
        let client = client(settings);
        let path = &settings.outbox.path;
        match block_on(async { Ok(client.check_running().await) })? {
            Ok(()) => Ok(Self::Daemon(client)),
            Err(ControlError::NotRunning(..)) if path.symlink_metadata().is_ok() => {
                outbox::act_as_owner(path)?;
                Ok(Self::File(outbox::open_read_only(path)?))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn entries(&self) -> Result<Vec<EntryView>, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.entries().await?) }),
            Self::File(file) => {
                let listing = file.entries()?;
                warn_of(&listing.damaged);
                let view =
                    |entry| EntryView { entry, attempts: 0, last_error: None, next_try_ms: None };
                Ok(listing.entries.into_iter().map(view).collect())
            }
        }
    }

    fn entry(&self, id: EntryId) -> Result<EntryView, CommandError> {
        if let Self::Daemon(client) = self {
            return block_on(async { Ok(client.entry(id).await?) });
        }
        self.entries()?.into_iter().find(|view| view.entry.id == id).ok_or_else(no_such_entry)
    }

    pub(super) fn audit(&self, query: &AuditQuery) -> Result<AuditPage, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.audit(query).await?) }),
            Self::File(file) => {
                let page = file.audit(&audit_filter(query)?)?;
                warn_of(&page.damaged);
                let next = page.next.map(|cursor| cursor.to_string());
                Ok(AuditPage { lines: page.lines, next })
            }
        }
    }

    pub(super) fn mark(&self, seq: i64) -> Result<Option<ChainPosition>, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.mark(&MarkQuery { seq }).await?) }),
            Self::File(file) => Ok(file.mark(seq)?),
        }
    }

    pub(super) fn verify(&self, query: &VerifyQuery) -> Result<ChainBatch, CommandError> {
        match self {
            Self::Daemon(client) => block_on(async { Ok(client.verify(query).await?) }),
            Self::File(file) => Ok(file.verify(chain_cursor(query)?.as_ref())?),
        }
    }
}

fn client(settings: &Settings) -> ControlClient {
    ControlClient::new(&settings.control.socket)
}

fn warn_of(damaged: &[DamagedRow]) {
    for row in damaged {
        print_notice(&format!("damaged row skipped: {row}"));
    }
}

fn no_such_entry() -> CommandError {
    CommandError::new(Exit::Failure, "no such entry")
}

/// `status`
pub(super) fn status(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let settings = settings_for_daemon(config)?;
    let status = block_on(async { Ok(client(&settings).status().await?) })?;
    out.value(&status, || render::status(&status, &settings.rules.numbers))?;
    Ok(Exit::Success)
}

/// `outbox list`
pub(super) fn list(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let entries = Source::open(&settings_for_daemon(config)?)?.entries()?;
    out.value(&entries, || render::entries(&entries))?;
    Ok(Exit::Success)
}

/// `outbox show`
pub(super) fn show(
    config: Option<&Path>,
    id: EntryId,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let entry = Source::open(&settings_for_daemon(config)?)?.entry(id)?;
    out.value(&entry, || render::entry(&entry))?;
    Ok(Exit::Success)
}

/// `outbox retry` and `outbox discard`
pub(super) fn act(
    config: Option<&Path>,
    id: EntryId,
    action: EntryAction,
    out: &mut Output,
) -> Result<Exit, CommandError> {
    let settings = settings_for_daemon(config)?;
    let (result, text) = match block_on(async { Ok(client(&settings).act(id, action).await) })? {
        Ok(done) => (done.result, ""),
        Err(error @ ControlError::NotRunning(..)) => act_on_file(&settings, id, action, error)?,
        Err(error) => return Err(error.into()),
    };
    let result = ActionResult { result };
    out.value(&result, || vec![format!("Entry {id} is {}{text}.", result.result)])?;
    Ok(Exit::Success)
}

/// Acts on an entry of a stopped daemon, under the lock of its file; `unreachable` is why the
/// daemon was not asked. Returns the result, and what follows it in text.
fn act_on_file(
    settings: &Settings,
    id: EntryId,
    action: EntryAction,
    unreachable: ControlError,
) -> Result<(String, &'static str), CommandError> {
    let path = &settings.outbox.path;
    if path.symlink_metadata().is_err() {
        return Err(unreachable.into());
    }
    let by = own_user();
    outbox::act_as_owner(path)?;
    let (outbox, contents) = outbox::open_stopped(outbox_options(settings)).map_err(|error| {
        if !matches!(error, OpenError::InUse(_)) {
            return error.into();
        }
        let holder = anyhow::Error::new(error).context(unreachable.to_string());
        CommandError::new(Exit::Unreachable, format!("{holder:#}"))
    })?;
    let entry = contents.entries.into_iter().find(|entry| entry.id == id);
    let result = entry.ok_or_else(no_such_entry).and_then(|entry| {
        block_on(async {
            Ok(match (action, &entry.stage) {
                (EntryAction::Discard, _) => {
                    discard(&outbox, &entry, by).await?;
                    (action.past_participle().to_owned(), "")
                }
                (EntryAction::Retry, Stage::Parked { .. }) => {
                    let at = Timestamp::now();
                    let line =
                        AuditLine::operator_action(&settings.station, &entry, "retried", &by, at);
                    outbox.unpark(id, line).await?;
                    (action.past_participle().to_owned(), AT_START)
                }
                (EntryAction::Retry, Stage::Queued | Stage::Sent(_) | Stage::Completing(_)) => {
                    ("waiting".to_owned(), AT_START)
                }
            })
        })
    });
    outbox.close();
    result
}

const AT_START: &str = ": the daemon retries it when it starts";

async fn discard(outbox: &Outbox, entry: &Entry, by: String) -> Result<(), StoreError> {
    let at = Timestamp::now();
    let age = Duration::try_from(at.duration_since(entry.card_event.seen_at));
    let end = Settlement {
        outcome: Outcome::Discarded,
        at,
        decision: entry.stage.sent().cloned(),
        known_by: None,
        detail: format!("discarded by {by}, while the daemon was stopped"),
        http_status: None,
        correlation_id: None,
        attempts: 0,
        duration: age.unwrap_or_default(),
        by: Some(by),
    };
    outbox.settle(entry.id, end).await.map(drop)
}
