//! This machine: pcscd, its readers, the outbox.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{CheckResult, CheckStep, FailureClass, ResultSink, skip};
use crate::control::{ControlClient, ControlError};
use crate::domain::{ReaderName, ReaderRules, Stage, StatusView};
use crate::outbox::{self, Listing, OpenError, ReadOnlyError};
use crate::readers::{CardAccess, PcscdCheck, ReaderContent, attributes, check_pcscd};
use crate::telemetry::ErrorChain;

/// pcscd responds in milliseconds once it has powered up every reader, which takes seconds.
const PCSCD_TIMEOUT: Duration = Duration::from_secs(8);

const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(2);

/// What lets a user other than root access pcscd, if that asks polkit.
const POLKIT_REMEDY: &str = "install the polkit rule (docs/install.md, \"pcscd and polkit\"), or run this command as user cardbridge; pcscd also refuses new clients above 200";

const START_REMEDY: &str = "start it: `systemctl start cardbridge`";

const OUTBOX_REMEDY: &str = "see docs/troubleshoot.md, \"Outbox and disk\"";

/// Checks the readers; and the outbox by its daemon's socket, or by its file if no daemon runs.
pub(crate) async fn check_station(
    rules: &ReaderRules,
    outbox: &Path,
    socket: &Path,
    report: ResultSink<'_>,
) {
    check_readers(rules, report);
    report(match ControlClient::new(socket).status().await {
        Ok(status) => daemon_outbox(&status),
        Err(error) => file_outbox(outbox, &error),
    });
}

fn check_readers(rules: &ReaderRules, report: ResultSink<'_>) {
    let unreachable = |detail: &str, remedy: &str| {
        CheckResult::failed(CheckStep::Pcscd, FailureClass::Unreachable, detail, remedy)
    };
    match check_pcscd(PCSCD_TIMEOUT) {
        PcscdCheck::Available { readers, cards } => {
            report(CheckResult::ok(CheckStep::Pcscd, "pcscd responds"));
            report(access(cards));
            report(connected(&readers, rules));
        }
        PcscdCheck::AccessDenied => {
            report(CheckResult::ok(CheckStep::Pcscd, "pcscd is running"));
            report(denied("pcscd access denied (SecurityViolation)"));
            skip(&[CheckStep::Readers], "no access to pcscd", report);
        }
        PcscdCheck::Unreachable { detail } => {
            // The detail may end with a remedy of its own.
            let (detail, remedy) =
                detail.split_once(": ").unwrap_or((&detail, "see the log of pcscd"));
            report(unreachable(detail, remedy));
            skip(&[CheckStep::PcscAccess, CheckStep::Readers], "pcscd is unreachable", report);
        }
        PcscdCheck::NotResponding => {
            let detail = format!("pcscd did not respond within {} s", PCSCD_TIMEOUT.as_secs());
            let remedy = "run `systemctl restart pcscd`; a reader or card blocks it";
            report(unreachable(&detail, remedy));
            skip(&[CheckStep::PcscAccess, CheckStep::Readers], "pcscd does not respond", report);
        }
    }
}

fn denied(detail: &str) -> CheckResult {
    CheckResult::failed(CheckStep::PcscAccess, FailureClass::Refused, detail, POLKIT_REMEDY)
}

fn access(cards: CardAccess) -> CheckResult {
    let ok = |detail| CheckResult::ok(CheckStep::PcscAccess, detail);
    match cards {
        CardAccess::Allowed => ok("access to pcscd and cards granted"),
        CardAccess::Untested => ok("access to pcscd granted; no card to test card access"),
        CardAccess::Denied => denied("card access denied (SecurityViolation)"),
    }
}

fn connected(readers: &[(ReaderName, ReaderContent)], rules: &ReaderRules) -> CheckResult {
    if readers.is_empty() {
        let remedy = "connect a reader and check that its driver is installed (libccid)";
        return CheckResult::warning(CheckStep::Readers, "none", remedy);
    }
    let text = |(name, content): &(ReaderName, ReaderContent)| {
        let content = match content {
            ReaderContent::Empty => "empty",
            ReaderContent::Card => "with a card",
            ReaderContent::MuteCard => "with a mute card",
        };
        let attributes = attributes(name, ATTRIBUTES_TIMEOUT);
        let enabled = rules.settings_for(name, &attributes).enabled;
        let disabled = if enabled { "" } else { ", disabled" };
        let vendor = attributes.vendor.map(|it| format!(" by {it}")).unwrap_or_default();
        let serial = attributes.serial.map(|it| format!(" (serial {it})")).unwrap_or_default();
        format!("{name}{vendor}{serial} {content}{disabled}")
    };
    CheckResult::ok(CheckStep::Readers, readers.iter().map(text).collect::<Vec<_>>().join("; "))
}

fn daemon_outbox(status: &StatusView) -> CheckResult {
    let step = CheckStep::Outbox;
    let (version, outbox) = (&status.version, &status.outbox);
    let detail =
        format!("daemon {version} running: {} waiting, {} parked", outbox.waiting, outbox.parked);
    match outbox.write_error.as_ref().or(status.data_loss.as_ref()) {
        Some(error) => CheckResult::warning(step, format!("{detail}; {error}"), OUTBOX_REMEDY),
        None if outbox.parked > 0 => {
            CheckResult::warning(step, detail, "run `cardbridge outbox list`")
        }
        None => CheckResult::ok(step, detail),
    }
}

/// The outbox of a daemon that does not respond.
fn file_outbox(path: &Path, error: &ControlError) -> CheckResult {
    let step = CheckStep::Outbox;
    let broken = |error: &dyn std::error::Error, remedy: &str| {
        let detail = ErrorChain(error).to_string();
        CheckResult::failed(step, FailureClass::Broken, detail, remedy)
    };
    if let ControlError::NotAllowed(_) | ControlError::Forbidden(_) = error {
        let remedy = "run as root, or join the group cardbridge-view (`control.view_group`)";
        return CheckResult::warning(step, error.to_string(), remedy);
    }
    match read_file(path) {
        Ok(Ok(listing)) => {
            let entries = listing.entries.iter();
            let parked =
                entries.filter(|entry| matches!(entry.stage, Stage::Parked { .. })).count();
            let waiting = listing.entries.len() - parked;
            let detail = format!("daemon not running: {waiting} waiting, {parked} parked");
            CheckResult::warning(step, detail, START_REMEDY)
        }
        Ok(Err(error)) => broken(&error, OUTBOX_REMEDY),
        Err(OpenError::Missing(path)) => {
            let detail = format!("daemon not running; {} does not exist yet", path.display());
            CheckResult::warning(step, detail, START_REMEDY)
        }
        Err(error) => broken(&error, "run as root or as user cardbridge; see docs/troubleshoot.md"),
    }
}

/// Reads the file with the rights of its owner: root opens no file in a directory of the
/// service's. In a thread of its own, because a thread does not get root's rights back.
fn read_file(path: &Path) -> Result<Result<Listing, ReadOnlyError>, OpenError> {
    let read = || {
        outbox::act_as_owner(path)?;
        Ok(outbox::open_read_only(path)?.entries())
    };
    let read = thread::scope(|scope| scope.spawn(read).join());
    read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
