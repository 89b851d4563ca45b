//! Settings into each edge's own options, observations into events.

use std::path::{Path, PathBuf};

use super::PROBE_DEADLINE;
use crate::config::{Auth, Settings};
use crate::engine::{Event, Policy, Presence, Retry};
use crate::readers::Observation;
use crate::{outbox, readers, remote};

/// What the engine is told.
pub(super) fn policy(settings: &Settings) -> Policy {
    Policy {
        station: settings.station.clone(),
        rules: settings.rules.clone(),
        readers: settings.readers.clone(),
        skip_atr: settings.skip_atr.clone(),
        concurrency: settings.cm.concurrency,
        retry: Retry { min: settings.outbox.retry_min, max: settings.outbox.retry_max },
        max_age: settings.outbox.max_age,
        probe_deadline: PROBE_DEADLINE,
    }
}

/// What the outbox is told.
pub(super) fn outbox_options(settings: &Settings) -> outbox::Options {
    outbox::Options {
        path: settings.outbox.path.clone(),
        max_entries: settings.outbox.max_entries,
        station: settings.station.clone(),
    }
}

/// What the readers are told.
#[must_use]
pub fn reader_options(settings: &Settings) -> readers::Options {
    readers::Options { families: settings.families.clone(), probe_deadline: PROBE_DEADLINE }
}

/// What the client of CM is told.
#[must_use]
pub fn remote_options(settings: &Settings) -> remote::Options {
    remote::Options {
        url: settings.cm.url.clone(),
        api_path: settings.cm.api_path.clone(),
        timeout: settings.cm.timeout,
        connect_timeout: settings.cm.connect_timeout,
        ca_file: settings.cm.ca_file.clone(),
        auth: match &settings.cm.auth {
            Auth::None => remote::Auth::None,
            Auth::Bearer { token_file } => remote::Auth::Bearer { token_file: secret(token_file) },
        },
        numbers: settings.rules.numbers.clone(),
    }
}

/// A bare name of a secret's file is looked up where systemd puts a service's credentials.
fn secret(file: &Path) -> PathBuf {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) if file.components().count() == 1 => Path::new(&directory).join(file),
        Some(_) | None => file.to_owned(),
    }
}

/// The keys whose change a running daemon cannot follow.
pub(super) fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("station.id", old.station != new.station),
        ("outbox.path", old.outbox.path != new.outbox.path),
        ("outbox.max_entries", old.outbox.max_entries != new.outbox.max_entries),
        ("control.socket", old.control.socket != new.control.socket),
        ("log.level", old.log.level != new.log.level),
        ("log.format", old.log.format != new.log.format),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// What the engine hears of an observation. The bytes that were exchanged are for people.
pub(super) fn event(observation: Observation) -> Event {
    match observation {
        Observation::ServiceUp => Event::ServiceUp,
        Observation::ServiceDown { reason } => Event::ServiceDown { reason },
        Observation::Settled => Event::ServiceSettled,
        Observation::Attached { reader } => Event::Attached { reader },
        Observation::Detached { reader } => Event::Detached { reader },
        Observation::Inserted { reader, insertion, atr, event_count, at_start } => {
            Event::CardPresent(Presence { reader, insertion, atr, event_count, at_start })
        }
        Observation::Mute { reader, insertion } => Event::CardMute { reader, insertion },
        Observation::Removed { reader, insertion } => Event::CardRemoved { reader, insertion },
        Observation::Probed { reader, insertion, result, .. } => {
            Event::Probed { reader, insertion, result }
        }
    }
}
