//! This machine: pcscd, its readers, the outbox.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::check_result::{CheckResult, CheckStep, FailureClass};
use super::{LocalInputs, ResultSink, skip};
use crate::control::{ControlClient, ControlError};
use crate::domain::{ReaderName, ReaderRules, Stage, StatusView};
use crate::outbox::{self, Listing, OpenError, ReadOnlyError};
use crate::readers::{CardAccess, PcscdCheck, ReaderContent, attributes, check_pcscd};

/// pcscd answers in milliseconds once every reader has been powered up, which takes seconds.
const PCSCD_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a reader's driver may take to tell what it tells.
const DRIVER_PATIENCE: Duration = Duration::from_secs(2);

/// What lets a user other than root reach pcscd, where that asks polkit.
const POLKIT_REMEDY: &str = "install the polkit rule (docs/install.md, \"pcscd and polkit\"), or run this command as user cardbridge; pcscd also refuses new clients above 200";

pub(super) async fn examine(station: LocalInputs<'_>, tell: ResultSink<'_>) {
    readers(station.readers, tell);
    let client = ControlClient::new(station.socket);
    let finding = match client.status().await {
        Ok(snapshot) => daemon_outbox(&snapshot),
        Err(error) => file_outbox(station, &error),
    };
    tell(finding);
}

fn readers(rules: &ReaderRules, tell: ResultSink<'_>) {
    match check_pcscd(PCSCD_TIMEOUT) {
        PcscdCheck::Available { readers, cards } => {
            tell(CheckResult::good(CheckStep::Pcscd, "pcscd responds"));
            tell(permission(cards));
            tell(attached(&readers, rules));
        }
        PcscdCheck::AccessDenied => {
            tell(CheckResult::good(CheckStep::Pcscd, "pcscd is running"));
            let words = "pcscd access denied (SecurityViolation)";
            tell(CheckResult::failed(
                CheckStep::PcscAccess,
                FailureClass::Refused,
                words,
                POLKIT_REMEDY,
            ));
            skip(&[CheckStep::Readers], "no access to pcscd", tell);
        }
        PcscdCheck::Unreachable { detail: why } => {
            // Where there is a remedy of its own, it is in the words.
            let (words, remedy) = why.split_once(": ").unwrap_or((&why, "see pcscd's own log"));
            tell(CheckResult::failed(CheckStep::Pcscd, FailureClass::Unreachable, words, remedy));
            skip(&[CheckStep::PcscAccess, CheckStep::Readers], "pcscd is not reachable", tell);
        }
        PcscdCheck::NotResponding => {
            let words = format!("it does not answer within {} s", PCSCD_TIMEOUT.as_secs());
            let remedy = "run `systemctl restart pcscd`; a reader or card blocks it";
            tell(CheckResult::failed(CheckStep::Pcscd, FailureClass::Unreachable, words, remedy));
            skip(&[CheckStep::PcscAccess, CheckStep::Readers], "pcscd does not answer", tell);
        }
    }
}

fn permission(cards: CardAccess) -> CheckResult {
    let step = CheckStep::PcscAccess;
    match cards {
        CardAccess::Allowed => CheckResult::good(step, "access to pcscd and cards granted"),
        CardAccess::Untested => {
            CheckResult::good(step, "access to pcscd granted; no card to test card access")
        }
        CardAccess::Denied => {
            let words = "card access denied (SecurityViolation)";
            CheckResult::failed(step, FailureClass::Refused, words, POLKIT_REMEDY)
        }
    }
}

fn attached(readers: &[(ReaderName, ReaderContent)], rules: &ReaderRules) -> CheckResult {
    let told: Vec<_> = readers.iter().map(|(name, holds)| reader(name, *holds, rules)).collect();
    if readers.is_empty() {
        let remedy = "connect a reader and check that its driver is installed (libccid)";
        CheckResult::warning(CheckStep::Readers, "none", remedy)
    } else {
        CheckResult::good(CheckStep::Readers, told.join("; "))
    }
}

fn reader(name: &ReaderName, holds: ReaderContent, rules: &ReaderRules) -> String {
    let holds = match holds {
        ReaderContent::Empty => "empty",
        ReaderContent::Card => "with a card",
        ReaderContent::MuteCard => "with a card that does not answer",
    };
    let told = attributes(name, DRIVER_PATIENCE);
    let off = if rules.settings_for(name, &told).enabled { "" } else { ", switched off" };
    let by = told.vendor.map(|vendor| format!(" by {vendor}")).unwrap_or_default();
    let serial = told.serial.map(|serial| format!(" (serial {serial})")).unwrap_or_default();
    format!("{name}{by}{serial} {holds}{off}")
}

fn daemon_outbox(snapshot: &StatusView) -> CheckResult {
    let outbox = &snapshot.outbox;
    let words = format!(
        "daemon {} running: {} waiting, {} parked",
        snapshot.version, outbox.waiting, outbox.parked
    );
    let trouble = outbox.write_error.as_ref().or(snapshot.data_loss.as_ref());
    match trouble {
        Some(trouble) => {
            let words = format!("{words}; {trouble}");
            CheckResult::warning(
                CheckStep::Outbox,
                words,
                "see docs/troubleshoot.md, \"Outbox and disk\"",
            )
        }
        None if outbox.parked > 0 => {
            CheckResult::warning(CheckStep::Outbox, words, "look with `cardbridge outbox list`")
        }
        None => CheckResult::good(CheckStep::Outbox, words),
    }
}

/// What waits in the file, read with the rights of its owner: root opens no file in a directory of the
/// service's. In a thread of its own, because a thread does not get root's rights back.
fn on_disk(path: &Path) -> Result<Result<Listing, ReadOnlyError>, OpenError> {
    let look = || {
        outbox::act_as_owner(path)?;
        Ok(outbox::open_read_only(path)?.entries())
    };
    let looked = thread::scope(|scope| scope.spawn(look).join());
    looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The daemon does not answer: what is in its file.
fn file_outbox(station: LocalInputs<'_>, error: &ControlError) -> CheckResult {
    let step = CheckStep::Outbox;
    if let ControlError::NotAllowed(_) | ControlError::Forbidden(_) = error {
        let remedy = "run as root, or join the group cardbridge-view (`control.view_group`)";
        return CheckResult::warning(step, error.to_string(), remedy);
    }
    let listing = match on_disk(station.outbox) {
        Ok(listing) => listing,
        Err(OpenError::Missing { path }) => {
            let words = format!("daemon not running; {} does not exist yet", path.display());
            return CheckResult::warning(step, words, "start it: `systemctl start cardbridge`");
        }
        Err(error) => {
            let remedy = "run as root or as user cardbridge; see docs/troubleshoot.md";
            let words = crate::telemetry::ErrorChain(&error).to_string();
            return CheckResult::failed(step, FailureClass::Broken, words, remedy);
        }
    };
    match listing {
        Ok(listing) => {
            let parked =
                listing.entries.iter().filter(|entry| matches!(entry.stage, Stage::Parked { .. }));
            let parked = parked.count();
            let waiting = listing.entries.len() - parked;
            let words = format!("daemon not running: {waiting} waiting, {parked} parked");
            CheckResult::warning(step, words, "start it: `systemctl start cardbridge`")
        }
        Err(error) => {
            let words = crate::telemetry::ErrorChain(&error).to_string();
            CheckResult::failed(
                step,
                FailureClass::Broken,
                words,
                "see docs/troubleshoot.md, \"Outbox and disk\"",
            )
        }
    }
}
