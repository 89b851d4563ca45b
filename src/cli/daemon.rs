//! `run` and `config`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::config_loader::{checked, load, warnings};
use super::exit::{CommandError, Exit};
use super::output::Output;
use super::text::table;
use crate::app::{self, CmSetupError};
use crate::config::{Level, LogFormat, LogSettings};
use crate::telemetry::{self, IdRedaction, LevelFilter, LogOutput};

pub(super) fn run(config: Option<&Path>) -> Result<Exit, CommandError> {
    let settings = load(config)?.settings;
    log(settings.log);
    let file: Option<PathBuf> = config.map(Path::to_owned);
    let reload = Box::new(move || {
        load(file.as_deref()).map(|loaded| loaded.settings).map_err(|failure| failure.to_string())
    });
    app::run(settings, reload).map_err(|error| match error.downcast::<CmSetupError>() {
        Ok(client) => client.into(),
        Err(error) => CommandError::new(Exit::Failed, error),
    })?;
    Ok(Exit::Done)
}

fn log(settings: LogSettings) {
    let level = match settings.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let format = match settings.format {
        LogFormat::Auto => LogOutput::suitable(),
        LogFormat::Text => LogOutput::Text,
        LogFormat::Json => LogOutput::Json,
        LogFormat::Journald => LogOutput::Journal,
    };
    telemetry::init(level, format, IdRedaction { show_full: settings.show_ids });
}

pub(super) fn check(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let checked = checked(config)?;
    let problems: Vec<String> = match &checked {
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
        Ok(loaded) => app::remote(&loaded.settings).err().iter().map(one_line).collect(),
    };
    let exit = if problems.is_empty() { Exit::Done } else { Exit::Usage };
    let warnings: Vec<_> = warnings(config)?.iter().map(ToString::to_string).collect();
    if out.is_json() {
        let verdict = match &checked {
            Ok(loaded) if problems.is_empty() => {
                json!({ "ok": true, "station": loaded.settings.station, "warnings": warnings })
            }
            Ok(_) | Err(_) => json!({ "ok": false, "problems": problems, "warnings": warnings }),
        };
        return out.value(&verdict).map(|_| exit);
    }
    for warning in &warnings {
        out.line(&format!("warning: {warning}"))?;
    }
    if !problems.is_empty() {
        return Err(CommandError::message(exit, problems.join("\n")));
    }
    out.line("The configuration is good.")?;
    Ok(exit)
}

/// A problem and its remedy, as the configuration's own are told.
fn one_line(error: &CmSetupError) -> String {
    error.to_string().replace('\n', "; ")
}

pub(super) fn show(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let effective = load(config)?.effective;
    if out.is_json() {
        let rows: Vec<_> = effective
            .iter()
            .map(|e| json!({ "key": e.key, "value": e.value, "origin": e.origin.to_string() }))
            .collect();
        return out.value(&rows);
    }
    let rows: Vec<_> = effective
        .iter()
        .map(|e| vec![format!("{} = {}", e.key, e.value), format!("# {}", e.origin)])
        .collect();
    for line in table(&rows) {
        out.line(&line)?;
    }
    Ok(Exit::Done)
}
