//! Metrics in Prometheus' exposition format 0.0.4.
//!
//! No label has values from outside: a hostile reader name cannot fill a monitoring system.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::domain::{
    CardView, CmView, Family, Metrics, NotIdentifiedReason, Outcome, ParkReason, PcscdView,
    ProbeResult,
};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn text(metrics: &Metrics) -> String {
    let mut page = MetricsText::default();
    daemon(&mut page, metrics);
    readers(&mut page, metrics);
    probes(&mut page, metrics);
    cm(&mut page, metrics);
    outbox(&mut page, metrics);
    page.0
}

fn daemon(page: &mut MetricsText, Metrics { state, counters, .. }: &Metrics) {
    page.head("build_info", "gauge", "The running version.");
    page.sample("build_info", &[("version", &state.version)], 1);
    let started_at = state.started_at.as_second();
    page.gauge("start_time_seconds", "Unix time at which the daemon started.", started_at);
    page.counter(
        "stale_results_total",
        "Results discarded because their entry or insertion had changed.",
        counters.stale_results,
    );
}

fn readers(page: &mut MetricsText, metrics: &Metrics) {
    let Metrics { state, counters, .. } = metrics;
    let is_connected = matches!(state.pcscd, PcscdView::Connected { .. });
    page.gauge("pcscd_up", "1 if connected to pcscd, else 0.", u8::from(is_connected));
    let disconnects = counters.pcscd_losses;
    page.counter("pcscd_disconnects_total", "Lost connections to pcscd.", disconnects);
    page.head("pcsc_errors_total", "counter", "PC/SC errors by return code.");
    for (code, count) in &metrics.pcsc_errors {
        page.sample("pcsc_errors_total", &[("code", code)], count);
    }
    let stuck = metrics.stuck_threads;
    page.gauge("stuck_threads", "Threads blocked in a PC/SC call and abandoned.", stuck);
    page.gauge("readers", "Readers known to pcscd.", state.readers.len());
    page.head("cards", "gauge", "Cards currently in readers, by state.");
    for name in ["identified", "mute", "not-identified", "reading"] {
        let cards = state.readers.iter().filter(|reader| card_state(&reader.card) == Some(name));
        page.sample("cards", &[("state", name)], cards.count());
    }
    let insertions = counters.insertions;
    page.counter("card_insertions_total", "Card insertions with a valid ATR.", insertions);
    page.counter("mute_card_insertions_total", "Insertions of mute cards.", counters.mute_cards);
    page.counter("card_removals_total", "Card removals.", counters.removals);
}

const fn card_state(view: &CardView) -> Option<&'static str> {
    match view {
        CardView::Empty => None,
        CardView::Mute => Some("mute"),
        CardView::Reading { .. } => Some("reading"),
        CardView::Identified { .. } => Some("identified"),
        CardView::NotIdentified { .. } => Some("not-identified"),
    }
}

fn probes(page: &mut MetricsText, Metrics { counters, .. }: &Metrics) {
    page.head("card_probes_total", "counter", "Finished card probes by family and result.");
    let mut sample = |family, result, probe| {
        let count = counters.probes.get(&probe).copied().unwrap_or_default();
        page.sample("card_probes_total", &[("family", family), ("result", result)], count);
    };
    for family in Family::ALL {
        sample(family.as_str(), "identified", ProbeResult::Identified(family));
    }
    for &reason in NotIdentifiedReason::ALL {
        sample("unknown", reason.as_str(), ProbeResult::NotIdentified(reason));
    }
}

fn cm(page: &mut MetricsText, Metrics { state, counters, calls, .. }: &Metrics) {
    page.head("cm_up", "gauge", "1 if CM is available, 0 if not; absent before the first call.");
    match state.cm {
        CmView::Unknown => {}
        CmView::Available { .. } => page.sample("cm_up", &[], 1),
        CmView::Unavailable { .. } => page.sample("cm_up", &[], 0),
    }
    page.counter(
        "cm_outages_total",
        "Transitions of CM from available to unavailable.",
        counters.cm_outages,
    );
    page.head("cm_calls_total", "counter", "CM API calls by operation and result.");
    for (call, stats) in calls.iter() {
        for (result, count) in &stats.results {
            let labels = [("operation", call.as_str()), ("result", result)];
            page.sample("cm_calls_total", &labels, count);
        }
    }
    page.head("cm_call_duration_seconds", "summary", "Duration of CM API calls.");
    for (call, stats) in calls.iter() {
        let labels = [("operation", call.as_str())];
        let total = stats.total_duration.as_secs_f64();
        page.sample("cm_call_duration_seconds_sum", &labels, total);
        page.sample("cm_call_duration_seconds_count", &labels, stats.count());
    }
}

fn outbox(page: &mut MetricsText, Metrics { at, state, counters, .. }: &Metrics) {
    let outbox = &state.outbox;
    page.head(
        "outbox_entries",
        "gauge",
        "Outbox entries by state: waiting (for CM) or parked (for an operator).",
    );
    page.sample("outbox_entries", &[("state", "waiting")], outbox.waiting);
    page.sample("outbox_entries", &[("state", "parked")], outbox.parked);
    let age = outbox.oldest_waiting_at.map(|oldest| at.duration_since(oldest));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default().as_secs_f64();
    page.gauge("outbox_oldest_entry_age_seconds", "Age of the oldest waiting entry.", age);
    let is_writable = outbox.write_error.is_none();
    page.gauge("outbox_writable", "1 if the outbox is writable, else 0.", u8::from(is_writable));
    page.counter("outbox_errors_total", "Failed outbox operations.", counters.outbox_errors);
    let help = "Settled entries by outcome and park reason.";
    page.head("entries_settled_total", "counter", help);
    for outcome in Outcome::ALL {
        let reason = outcome.park_reason().map_or("", ParkReason::as_str);
        let labels = [("outcome", outcome.as_str()), ("reason", reason)];
        let count = counters.outcomes.get(&outcome).copied().unwrap_or_default();
        page.sample("entries_settled_total", &labels, count);
    }
}

/// The text so far. Writing to a string does not fail.
#[derive(Default)]
struct MetricsText(String);

impl MetricsText {
    /// A gauge with one sample.
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A counter with one sample.
    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible =
            writeln!(self.0, "# HELP cardbridge_{name} {help}\n# TYPE cardbridge_{name} {kind}");
    }

    /// Label values are this program's own: none needs escapes.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, text)| format!("{label}=\"{text}\"")).collect();
        let labels = match labels.join(",") {
            labels if labels.is_empty() => labels,
            labels => format!("{{{labels}}}"),
        };
        let _infallible = writeln!(self.0, "cardbridge_{name}{labels} {value}");
    }
}
