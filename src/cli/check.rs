//! `check`: every step on the way to CM, each a line with its remedy.

use std::path::Path;

use serde_json::json;
use strum::VariantArray;

use super::config_loader::{CheckedConfig, settings_without_cm};
use super::output::{CommandError, Exit, Output, block_on};
use crate::app::cm_client;
use crate::cm::CmClient;
use crate::config::{ConfigProblem, Settings};
use crate::diagnostics::{
    CheckResult, CheckStatus, CheckStep, FailureClass, check_cm, check_station, skip,
};
use crate::domain::Problem;

/// Results on their way out.
struct CheckReport<'a> {
    out: &'a mut Output,
    results: Vec<CheckResult>,
    /// Why the output could not be written.
    write_error: Option<CommandError>,
}

pub(super) fn check(config: Option<&Path>, out: &mut Output) -> Result<Exit, CommandError> {
    const INVALID: &str = "the configuration is invalid";
    let mut report = CheckReport { out, results: Vec::new(), write_error: None };
    let configured = check_configuration(CheckedConfig::read(config)?, &mut report);
    // The readers can be checked with an invalid `cm` section.
    let local = match &configured {
        Some((settings, _)) => Some(settings.clone()),
        None => settings_without_cm(config).ok(),
    };
    let is_at_cm = |step: &CheckStep| *step == CheckStep::Dns;
    let first_at_cm = CheckStep::VARIANTS.iter().position(is_at_cm).unwrap_or_default();
    let (here, at_cm) = CheckStep::VARIANTS.split_at(first_at_cm);
    block_on(async {
        let mut take = |result| report.take(result);
        if let Some(Settings { readers, outbox, control, .. }) = &local {
            check_station(readers, &outbox.path, &control.socket, &mut take).await;
        } else {
            skip(here.get(1..).unwrap_or_default(), INVALID, &mut take);
        }
        match &configured {
            Some((_, cm)) => check_cm(cm, &mut take).await,
            None => skip(at_cm, INVALID, &mut take),
        }
        Ok(())
    })?;
    report.finish()
}

/// The settings and a client of CM, if they are valid.
fn check_configuration(
    CheckedConfig { result, warnings }: CheckedConfig,
    report: &mut CheckReport<'_>,
) -> Option<(Settings, CmClient)> {
    const STEP: CheckStep = CheckStep::Configuration;
    let failed = |detail: &str, remedy: &str| {
        CheckResult::failed(STEP, FailureClass::Configuration, detail, remedy)
    };
    let settings = match result {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            for ConfigProblem { origin, key, problem } in problems.iter() {
                let separator = if key.is_empty() { "" } else { ": " };
                let detail = format!("{origin}: {key}{separator}{}", problem.what);
                report.take(failed(&detail, &problem.remedy));
            }
            return None;
        }
    };
    for ConfigProblem { origin, key, problem: Problem { what, remedy } } in warnings {
        report.take(CheckResult::warning(STEP, format!("{origin}: {key}: {what}"), remedy));
    }
    match cm_client(&settings) {
        Ok(cm) => {
            let detail = format!("station {}, CM at {}", settings.station, settings.cm.url);
            report.take(CheckResult::ok(STEP, detail));
            Some((settings, cm))
        }
        Err(Problem { what, remedy }) => {
            report.take(failed(&what, &remedy));
            None
        }
    }
}

impl CheckReport<'_> {
    fn take(&mut self, result: CheckResult) {
        if !self.out.is_json() && self.write_error.is_none() {
            self.write_error = self.print(&result).err();
        }
        self.results.push(result);
    }

    fn print(&mut self, result: &CheckResult) -> Result<(), CommandError> {
        let (step, status): (&str, &str) = (result.step.into(), result.status.into());
        let status = match result.status {
            CheckStatus::Failed(_) => "FAILED",
            CheckStatus::Ok | CheckStatus::Warning | CheckStatus::Skipped => status,
        };
        self.out.line(&format!("{status:7} {step:15} {}", result.detail))?;
        match &result.remedy {
            Some(remedy) => Ok(self.out.line(&format!("{:23} > {remedy}", ""))?),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Exit, CommandError> {
        if let Some(error) = self.write_error {
            return Err(error);
        }
        let exit = exit(&self.results);
        if self.out.is_json() {
            let check = |result: &CheckResult| {
                let (name, status): (&str, &str) = (result.step.into(), result.status.into());
                let CheckResult { detail, remedy, .. } = result;
                json!({ "name": name, "status": status, "detail": detail, "remedy": remedy })
            };
            let checks: Vec<_> = self.results.iter().map(check).collect();
            let json = json!({ "ok": exit == Exit::Success, "checks": checks });
            self.out.value(&json, Vec::new)?;
        }
        Ok(exit)
    }
}

/// The first failed step decides.
fn exit(results: &[CheckResult]) -> Exit {
    let class = results.iter().find_map(|result| match result.status {
        CheckStatus::Failed(class) => Some(class),
        CheckStatus::Ok | CheckStatus::Warning | CheckStatus::Skipped => None,
    });
    match class {
        None => Exit::Success,
        Some(FailureClass::Broken) => Exit::Failure,
        Some(FailureClass::Configuration) => Exit::Usage,
        Some(FailureClass::Unreachable) => Exit::Unreachable,
        Some(FailureClass::Refused) => Exit::Refused,
    }
}
