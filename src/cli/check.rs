//! `check`: every step on the way to CM, each a line with its remedy.

use std::path::Path;

use serde_json::{Value, json};

use super::cards::block_on;
use super::config_loader::{checked, settings_without_cm, warnings};
use super::exit::{CommandError, Exit};
use super::output::Output;
use crate::app::remote;
use crate::cm::CmClient;
use crate::config::{ConfigProblem, Settings};
use crate::diagnostics::{
    CheckResult, CheckStatus, CheckStep, FailureClass, LocalInputs, examine_cm, examine_station,
    skip,
};

/// From this step on, CM has to be known.
const NEED_CONFIGURATION: usize = 5;

/// Findings on their way out, and what they come to.
struct CheckReport<'a> {
    out: &'a mut Output,
    findings: Vec<CheckResult>,
    /// Why the output could not be written.
    write_error: Option<CommandError>,
}

pub(super) fn check(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    let mut report = CheckReport { out, findings: Vec::new(), write_error: None };
    let configured = configuration(config, &mut report)?;
    // Readers can be looked at whatever is wrong with the rest.
    let local = match &configured {
        Some((settings, _)) => Some(settings.clone()),
        None => settings_without_cm(config).ok(),
    };
    block_on(async {
        let mut tell = |finding| report.take(finding);
        let (here, there) = CheckStep::ALL.split_at(NEED_CONFIGURATION);
        let here = here.split_first().map_or(here, |(_, rest)| rest);
        if let Some(settings) = &local {
            examine_station(station(settings), &mut tell).await;
        } else {
            skip(here, NO_CONFIGURATION, &mut tell);
        }
        if let Some((_, remote)) = &configured {
            examine_cm(remote, &mut tell).await;
        } else {
            skip(there, NO_CONFIGURATION, &mut tell);
        }
        Ok(())
    })?;
    report.finish()
}

const NO_CONFIGURATION: &str = "the configuration is not usable";

/// The settings and a client of CM's; everything that is wrong with them is told.
fn configuration(
    config: Option<&Path>,
    report: &mut CheckReport<'_>,
) -> Result<Option<(Settings, CmClient)>, CommandError> {
    let failed = |words: &str, remedy: &str| {
        CheckResult::failed(CheckStep::Configuration, FailureClass::Configuration, words, remedy)
    };
    let loaded = match checked(config)? {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in problems.iter() {
                let ConfigProblem { origin, key, message: what, remedy } = problem;
                let separator = if key.is_empty() { "" } else { ": " };
                report.take(failed(&format!("{origin}: {key}{separator}{what}"), remedy));
            }
            return Ok(None);
        }
    };
    for ConfigProblem { origin, key, message: what, remedy } in warnings(config)? {
        let words = format!("{origin}: {key}: {what}");
        let (step, verdict) = (CheckStep::Configuration, CheckStatus::Warning);
        report.take(CheckResult { step, verdict, detail: words, remedy: Some(remedy) });
    }
    match remote(&loaded.settings) {
        Ok(remote) => {
            let words =
                format!("station {}, CM at {}", loaded.settings.station, loaded.settings.cm.url);
            report.take(CheckResult {
                step: CheckStep::Configuration,
                verdict: CheckStatus::Ok,
                detail: words,
                remedy: None,
            });
            Ok(Some((loaded.settings, remote)))
        }
        Err(error) => {
            let text = error.to_string();
            let (words, remedy) = text.split_once('\n').unwrap_or((&text, ""));
            report.take(failed(words, remedy));
            Ok(None)
        }
    }
}

fn station(settings: &Settings) -> LocalInputs<'_> {
    LocalInputs {
        outbox: &settings.outbox.path,
        socket: &settings.control.socket,
        readers: &settings.readers,
    }
}

impl CheckReport<'_> {
    fn take(&mut self, finding: CheckResult) {
        if !self.out.is_json() && self.write_error.is_none() {
            self.write_error = self.print(&finding).err();
        }
        self.findings.push(finding);
    }

    fn print(&mut self, finding: &CheckResult) -> Result<(), CommandError> {
        let name = finding.step.as_str();
        self.out.line(&format!("{:7} {name:15} {}", mark(finding.verdict), finding.detail))?;
        match &finding.remedy {
            Some(remedy) => self.out.line(&format!("{:23} > {remedy}", "")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Exit, CommandError> {
        if let Some(lost) = self.write_error {
            return Err(lost);
        }
        let exit = exit(&self.findings);
        if self.out.is_json() {
            let checks: Vec<_> = self.findings.iter().map(as_json).collect();
            self.out.value(&json!({ "ok": exit == Exit::Done, "checks": checks }))?;
        }
        Ok(exit)
    }
}

/// The first step that failed decides.
fn exit(findings: &[CheckResult]) -> Exit {
    let failed = findings.iter().find_map(|finding| match finding.verdict {
        CheckStatus::Failed(grade) => Some(grade),
        CheckStatus::Ok | CheckStatus::Warning | CheckStatus::Skipped => None,
    });
    match failed {
        None => Exit::Done,
        Some(FailureClass::Broken) => Exit::Failed,
        Some(FailureClass::Configuration) => Exit::Usage,
        Some(FailureClass::Unreachable) => Exit::Unreachable,
        Some(FailureClass::Refused) => Exit::Refused,
    }
}

const fn mark(verdict: CheckStatus) -> &'static str {
    match verdict {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Failed(_) => "FAILED",
        CheckStatus::Skipped => "skipped",
    }
}

fn as_json(finding: &CheckResult) -> Value {
    let state = match finding.verdict {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Failed(_) => "failed",
        CheckStatus::Skipped => "skipped",
    };
    json!({
        "name": finding.step.as_str(),
        "status": state,
        "detail": finding.detail,
        "remedy": finding.remedy,
    })
}
