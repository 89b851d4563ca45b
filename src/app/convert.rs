//! Settings into each edge's own options.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::PROBE_DEADLINE;
use crate::cm::CmClient;
use crate::config::Settings;
use crate::domain::Problem;
use crate::engine::{EngineSettings, RetryPolicy};
use crate::{outbox, readers};

/// What the engine is told.
pub(super) fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        station: settings.station.clone(),
        rules: settings.rules.clone(),
        readers: settings.readers.clone(),
        skip_atr: settings.skip_atr.clone(),
        concurrency: settings.cm.concurrency,
        retry: RetryPolicy { min: settings.outbox.retry_min, max: settings.outbox.retry_max },
        max_age: settings.outbox.max_age,
        probe_deadline: PROBE_DEADLINE,
    }
}

/// What the outbox is told.
pub(crate) fn outbox_options(settings: &Settings) -> outbox::OutboxOptions {
    outbox::OutboxOptions {
        path: settings.outbox.path.clone(),
        max_entries: settings.outbox.max_entries,
        station: settings.station.clone(),
        now: Timestamp::now(),
    }
}

/// What the readers are told.
#[must_use]
pub fn reader_options(settings: &Settings) -> readers::ReaderOptions {
    readers::ReaderOptions { probing: settings.probe.clone(), probe_deadline: PROBE_DEADLINE }
}

/// A client of CM; nothing is sent.
pub fn remote(settings: &Settings) -> Result<CmClient, Problem> {
    let mut cm = settings.cm.clone();
    for path in cm.credential_paths() {
        *path = credential_path(path)?;
    }
    CmClient::new(cm, settings.rules.numbers.clone())
}

/// The path of a `*_file`: a bare name is a file in the directory of systemd's credentials.
pub fn credential_path(file: &Path) -> Result<PathBuf, Problem> {
    if file.is_absolute() {
        return Ok(file.to_owned());
    }
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        Problem::new(
            "a `*_file` key names a systemd credential, but $CREDENTIALS_DIRECTORY is not set",
            "use an absolute path, or run under systemd with LoadCredential=",
        )
    })?;
    Ok(Path::new(&directory).join(file))
}

/// Keeps what a running daemon cannot change, and tells the keys whose change has to wait for
/// the next start.
pub(super) fn keep_restart_only_settings(old: &Settings, new: &mut Settings) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    let mut keep = |key, changed: bool| {
        if changed {
            waiting.push(key);
        }
    };
    keep("station.id", old.station != new.station);
    keep("outbox.path", old.outbox.path != new.outbox.path);
    keep("outbox.max_entries", old.outbox.max_entries != new.outbox.max_entries);
    keep("control.socket", old.control.socket != new.control.socket);
    keep("control.view_group", old.control.view_group != new.control.view_group);
    keep("control.operator_group", old.control.operator_group != new.control.operator_group);
    keep("control.metrics_listen", old.control.metrics_listen != new.control.metrics_listen);
    keep("log.level", old.log.level != new.log.level);
    keep("log.format", old.log.format != new.log.format);
    new.station.clone_from(&old.station);
    new.outbox.path.clone_from(&old.outbox.path);
    new.outbox.max_entries = old.outbox.max_entries;
    new.control.clone_from(&old.control);
    (new.log.level, new.log.format) = (old.log.level, old.log.format);
    waiting
}
