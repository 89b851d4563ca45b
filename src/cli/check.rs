//! `check`: every step on the way to CM, each a line with its remedy.

use std::path::Path;

use serde_json::{Value, json};

use super::cards::block_on;
use super::exit::{Exit, Failure};
use super::load::{checked, settings_without_cm, warnings};
use super::out::Out;
use crate::app::remote;
use crate::cm::CmClient;
use crate::config::{ConfigProblem, Settings};
use crate::doctor::{Finding, Grade, Station, Step, Verdict, examine_cm, examine_station, skip};

/// From this step on, CM has to be known.
const NEED_CONFIGURATION: usize = 5;

/// Findings on their way out, and what they come to.
struct Report<'a> {
    out: &'a mut Out,
    findings: Vec<Finding>,
    /// Why the output could not be written.
    lost: Option<Failure>,
}

pub(super) fn check(config: Option<&Path>, out: &mut Out) -> Result<Exit, Failure> {
    let mut report = Report { out, findings: Vec::new(), lost: None };
    let configured = configuration(config, &mut report)?;
    // Readers can be looked at whatever is wrong with the rest.
    let local = match &configured {
        Some((settings, _)) => Some(settings.clone()),
        None => settings_without_cm(config).ok(),
    };
    block_on(async {
        let mut tell = |finding| report.take(finding);
        let (here, there) = Step::ALL.split_at(NEED_CONFIGURATION);
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
    report: &mut Report<'_>,
) -> Result<Option<(Settings, CmClient)>, Failure> {
    let failed = |words: &str, remedy: &str| {
        Finding::failed(Step::Configuration, Grade::Configuration, words, remedy)
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
        let (step, verdict) = (Step::Configuration, Verdict::Warning);
        report.take(Finding { step, verdict, words, remedy: Some(remedy) });
    }
    match remote(&loaded.settings) {
        Ok(remote) => {
            let words =
                format!("station {}, CM at {}", loaded.settings.station, loaded.settings.cm.url);
            report.take(Finding {
                step: Step::Configuration,
                verdict: Verdict::Good,
                words,
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

fn station(settings: &Settings) -> Station<'_> {
    Station {
        outbox: &settings.outbox.path,
        socket: &settings.control.socket,
        readers: &settings.readers,
    }
}

impl Report<'_> {
    fn take(&mut self, finding: Finding) {
        if !self.out.is_json() && self.lost.is_none() {
            self.lost = self.print(&finding).err();
        }
        self.findings.push(finding);
    }

    fn print(&mut self, finding: &Finding) -> Result<(), Failure> {
        let name = finding.step.as_str();
        self.out.line(&format!("{:7} {name:15} {}", mark(finding.verdict), finding.words))?;
        match &finding.remedy {
            Some(remedy) => self.out.line(&format!("{:23} > {remedy}", "")),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Exit, Failure> {
        if let Some(lost) = self.lost {
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
fn exit(findings: &[Finding]) -> Exit {
    let failed = findings.iter().find_map(|finding| match finding.verdict {
        Verdict::Failed(grade) => Some(grade),
        Verdict::Good | Verdict::Warning | Verdict::Skipped => None,
    });
    match failed {
        None => Exit::Done,
        Some(Grade::Broken) => Exit::Failed,
        Some(Grade::Configuration) => Exit::Usage,
        Some(Grade::Unreachable) => Exit::Unreachable,
        Some(Grade::Refused) => Exit::Refused,
    }
}

const fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed(_) => "FAILED",
        Verdict::Skipped => "skipped",
    }
}

fn as_json(finding: &Finding) -> Value {
    let state = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed(_) => "failed",
        Verdict::Skipped => "skipped",
    };
    json!({
        "check": finding.step.as_str(),
        "state": state,
        "words": finding.words,
        "remedy": finding.remedy,
    })
}
