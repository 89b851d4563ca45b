//! From the merged text to the settings: one function per section, in the order of the file.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use strum::VariantArray as _;

use super::address;
use super::auth;
use super::lists;
use super::problem::{ProblemCollector, ReportedProblem};
use super::settings::{
    AuditSettings, CmSettings, ControlSettings, Level, LogFormat, LogSettings, OutboxSettings,
    Settings,
};
use super::tree::{KeyReader, MergedConfig};
use super::value::{
    boolean, choice, credential, duration, group, integer, path, quote, single_line, socket, text,
};
use crate::domain::{ProbeSettings, Problem};
use crate::rules::{AtrMismatch, RuleSet};

/// A shorter wait or timeout would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

const CALL: RangeInclusive<Duration> = SHORTEST..=Duration::from_hours(1);

const RETRY: RangeInclusive<Duration> = SHORTEST..=Duration::from_hours(24);

/// CM does not live longer than ten years.
const AGE: RangeInclusive<Duration> = SHORTEST..=Duration::from_hours(10 * 8766);

/// A typing error deletes no audit line of the last day.
const KEEP: RangeInclusive<Duration> = Duration::from_hours(24)..=Duration::from_hours(100 * 8766);

/// No desk has more cards at a time; CM takes as many.
const CONCURRENCY: RangeInclusive<usize> = 1..=64;

/// A larger number is a typing error.
const ENTRIES: RangeInclusive<usize> = 1..=10_000_000;

/// Reads every key, and reports every problem.
pub(super) fn read(
    tree: &MergedConfig,
    without_cm: bool,
    report: &mut ProblemCollector,
) -> Result<Settings, ReportedProblem> {
    let mut scope = KeyReader::top(tree, report);
    let station = station(&mut scope);
    let cm = cm(&mut scope, without_cm);
    let families = scope.required_list("cards.families", lists::family);
    let inventory = scope.required("cards.inventory", boolean);
    let skip_atr = scope.list_or_empty("cards.skip_atr", lists::atr_pattern);
    let atr_mismatch = scope.required(
        "cards.atr_mismatch",
        choice(&[AtrMismatch::Warn, AtrMismatch::Refuse], |mismatch| match mismatch {
            AtrMismatch::Warn => "warn",
            AtrMismatch::Refuse => "refuse",
        }),
    );
    let outbox = outbox(&mut scope);
    let retention = scope.required("audit.retention", duration(KEEP));
    let socket = check_socket_path(&mut scope, &outbox);
    let view_group = scope.required("control.view_group", group);
    let operator_group = scope.required("control.operator_group", group);
    let metrics_listen = scope.optional("control.metrics_listen", address::loopback_address);
    let log = log(&mut scope);

    let cards = lists::cards(tree, report);
    let numbers = lists::numbers(tree, report);
    let readers = lists::readers(tree, report);
    let rules = lists::rules(tree, &numbers, report);
    Ok(Settings {
        station: station?,
        cm: cm?,
        probe: ProbeSettings { families: families?, cards: cards?, inventory: inventory? },
        skip_atr: skip_atr?.unwrap_or_default(),
        readers: readers?,
        rules: RuleSet { rules: rules?, atr_mismatch: atr_mismatch?, numbers },
        outbox: outbox?,
        audit: AuditSettings { retention: retention? },
        control: ControlSettings {
            socket: socket?,
            view_group: view_group?,
            operator_group: operator_group?,
            metrics_listen: metrics_listen?,
        },
        log: log?,
    })
}

fn station(scope: &mut KeyReader<'_>) -> Result<String, ReportedProblem> {
    let is_set = scope.is_set("station.id");
    scope.required("station.id", |value| match single_line(value) {
        Err(_) if !is_set => Err(Problem::new(
            format!("the host name {} is unusable", quote(text(value)?)),
            "write id = \"desk-3\" in [station]",
        )),
        named => named,
    })
}

fn cm(scope: &mut KeyReader<'_>, without_cm: bool) -> Result<CmSettings, ReportedProblem> {
    let url = if without_cm {
        scope.optional("cm.url", address::origin).map(Option::unwrap_or_default)
    } else {
        scope.required("cm.url", address::origin)
    };
    let api_path = scope.required("cm.api_path", address::api_path);
    let timeout = scope.required("cm.timeout", duration(CALL));
    let connect_timeout = scope.required("cm.connect_timeout", duration(CALL));
    let concurrency = scope.required("cm.concurrency", integer(CONCURRENCY));
    let ca_file = scope.optional("cm.ca_file", credential);
    let proxy = auth::proxy(scope);
    let client_certificate = auth::client_certificate(scope);
    let auth = auth::auth(scope, &client_certificate);
    Ok(CmSettings {
        url: url?,
        api_path: api_path?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        concurrency: NonZeroUsize::new(concurrency?).unwrap_or(NonZeroUsize::MIN),
        ca_file: ca_file?,
        proxy: proxy?,
        auth: auth?,
        client_certificate: client_certificate?,
    })
}

fn outbox(scope: &mut KeyReader<'_>) -> Result<OutboxSettings, ReportedProblem> {
    let path = scope.required("outbox.path", path);
    let max_entries = scope.required("outbox.max_entries", integer(ENTRIES));
    let max_age = scope.required("outbox.max_age", duration(AGE));
    let retry_min = scope.required("outbox.retry_min", duration(RETRY));
    let retry_max = scope.required("outbox.retry_max", duration(RETRY));
    let (retry_min, retry_max) = retry(scope, retry_min?, retry_max?)?;
    Ok(OutboxSettings {
        path: path?,
        max_entries: max_entries?,
        max_age: max_age?,
        retry_min,
        retry_max,
    })
}

/// The socket, which must not be one of the outbox's files.
fn check_socket_path(
    scope: &mut KeyReader<'_>,
    outbox: &Result<OutboxSettings, ReportedProblem>,
) -> Result<PathBuf, ReportedProblem> {
    let socket = scope.required("control.socket", socket)?;
    let Ok(outbox) = outbox else { return Ok(socket) };
    let is_taken = |end| {
        let mut file = outbox.path.clone().into_os_string();
        file.push(end);
        socket.as_os_str() == file
    };
    if ["", ".lock", "-wal", "-shm"].into_iter().any(is_taken) {
        let problem = Problem::new("is a file of the outbox", "give it another path");
        return Err(scope.report_problem("control.socket", problem));
    }
    Ok(socket)
}

/// The two waits, the shorter one first; otherwise the one that the configuration sets is wrong.
fn retry(
    scope: &mut KeyReader<'_>,
    min: Duration,
    max: Duration,
) -> Result<(Duration, Duration), ReportedProblem> {
    if min <= max {
        return Ok((min, max));
    }
    let (shown_min, shown_max) = (format_duration(min), format_duration(max));
    let (key, what, remedy) = if scope.is_set("outbox.retry_min") {
        let what = format!("{shown_min} is longer than outbox.retry_max, {shown_max}");
        ("outbox.retry_min", what, "lower it, or raise the other")
    } else {
        let what = format!("{shown_max} is shorter than outbox.retry_min, {shown_min}");
        ("outbox.retry_max", what, "raise it, or lower the other")
    };
    Err(scope.report_problem(key, Problem::new(what, remedy)))
}

fn log(scope: &mut KeyReader<'_>) -> Result<LogSettings, ReportedProblem> {
    let level = scope.required("log.level", choice(Level::VARIANTS, Into::into));
    let format = scope.required("log.format", choice(LogFormat::VARIANTS, Into::into));
    let show_ids = scope.required("log.show_ids", boolean);
    Ok(LogSettings { level: level?, format: format?, show_ids: show_ids? })
}
