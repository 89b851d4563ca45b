//! What is counted, as text in Prometheus' exposition format 0.0.4.
//!
//! Every metric has HELP and TYPE, names and base units as Prometheus wants them, and no label
//! whose values come from outside: a hostile reader cannot fill a monitoring system.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::domain::{
    CardView, CmView, Family, Metrics, NotIdentifiedReason, Outcome, ParkReason, PcscdView,
    ProbeResult,
};

/// What the text is, for the header.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of it.
pub(super) fn text(metrics: &Metrics) -> String {
    let mut page = MetricsText::default();
    daemon(&mut page, metrics);
    readers(&mut page, metrics);
    probes(&mut page, metrics);
    cm(&mut page, metrics);
    outbox(&mut page, metrics);
    page.0
}

fn daemon(page: &mut MetricsText, metrics: &Metrics) {
    let Metrics { state, counters: tally, .. } = metrics;
    page.gauge("build_info", "The running version.");
    page.labelled_sample("build_info", &[("version", &state.version)], 1);
    page.gauge("start_time_seconds", "Unix time at which the daemon started.");
    page.sample("start_time_seconds", state.started_at.as_second());
    page.counter(
        "stale_results_total",
        "Results discarded because their entry or insertion had changed.",
    );
    page.sample("stale_results_total", tally.stale_results);
}

fn readers(page: &mut MetricsText, metrics: &Metrics) {
    let Metrics { state, counters: tally, .. } = metrics;
    page.gauge("pcscd_up", "1 if connected to pcscd, else 0.");
    page.sample("pcscd_up", u8::from(matches!(state.pcscd, PcscdView::Connected { .. })));
    page.counter("pcscd_disconnects_total", "Lost connections to pcscd.");
    page.sample("pcscd_disconnects_total", tally.pcscd_losses);
    page.counter("pcsc_errors_total", "PC/SC errors by return code.");
    for (code, count) in &metrics.pcsc_errors {
        page.labelled_sample("pcsc_errors_total", &[("code", code)], count);
    }
    page.gauge("stuck_threads", "Threads blocked in a PC/SC call and abandoned.");
    page.sample("stuck_threads", metrics.stuck_threads);
    page.gauge("readers", "Readers known to pcscd.");
    page.sample("readers", state.readers.len());
    page.gauge("cards", "Cards currently in readers, by state.");
    let is = |view: &CardView, name| card_state(view) == Some(name);
    for name in ["identified", "mute", "not-identified", "reading"] {
        let count = state.readers.iter().filter(|reader| is(&reader.card, name)).count();
        page.labelled_sample("cards", &[("state", name)], count);
    }
    page.counter("card_insertions_total", "Card insertions with a valid ATR.");
    page.sample("card_insertions_total", tally.insertions);
    page.counter("mute_card_insertions_total", "Insertions of mute cards.");
    page.sample("mute_card_insertions_total", tally.mute_cards);
    page.counter("card_removals_total", "Card removals.");
    page.sample("card_removals_total", tally.removals);
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

fn probes(page: &mut MetricsText, metrics: &Metrics) {
    page.counter("card_probes_total", "Finished card probes by family and result.");
    let count = |probed| metrics.counters.probes.get(&probed).copied().unwrap_or_default();
    for family in Family::ALL {
        let labels = [("family", family.as_str()), ("result", "identified")];
        page.labelled_sample("card_probes_total", &labels, count(ProbeResult::Identified(family)));
    }
    for reason in NotIdentifiedReason::ALL {
        let labels = [("family", "unknown"), ("result", reason.as_str())];
        page.labelled_sample(
            "card_probes_total",
            &labels,
            count(ProbeResult::NotIdentified(reason)),
        );
    }
}

fn cm(page: &mut MetricsText, metrics: &Metrics) {
    page.gauge("cm_up", "1 if CM is available, 0 if not; absent before the first call.");
    match metrics.state.cm {
        CmView::Unknown => {}
        CmView::Available { .. } => page.sample("cm_up", 1),
        CmView::Unavailable { .. } => page.sample("cm_up", 0),
    }
    page.counter("cm_outages_total", "Transitions of CM from available to unavailable.");
    page.sample("cm_outages_total", metrics.counters.cm_outages);
    page.counter("cm_calls_total", "CM API calls by operation and result.");
    for (call, tally) in metrics.calls.iter() {
        for (result, count) in &tally.results {
            page.labelled_sample(
                "cm_calls_total",
                &[("operation", call.as_str()), ("result", result)],
                count,
            );
        }
    }
    page.head("cm_call_duration_seconds", "summary", "Duration of CM API calls.");
    for (call, tally) in metrics.calls.iter() {
        let labels = [("operation", call.as_str())];
        page.labelled_sample(
            "cm_call_duration_seconds_sum",
            &labels,
            tally.total_duration.as_secs_f64(),
        );
        page.labelled_sample("cm_call_duration_seconds_count", &labels, tally.count());
    }
}

fn outbox(page: &mut MetricsText, metrics: &Metrics) {
    let outbox = &metrics.state.outbox;
    page.gauge(
        "outbox_entries",
        "Outbox entries by state: waiting (for CM) or parked (for an operator).",
    );
    page.labelled_sample("outbox_entries", &[("state", "waiting")], outbox.waiting);
    page.labelled_sample("outbox_entries", &[("state", "parked")], outbox.parked);
    page.gauge("outbox_oldest_entry_age_seconds", "Age of the oldest waiting entry.");
    let age = outbox.oldest_waiting_at.map(|oldest| metrics.at.duration_since(oldest));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    page.sample("outbox_oldest_entry_age_seconds", age.as_secs_f64());
    page.gauge("outbox_writable", "1 if the outbox is writable, else 0.");
    page.sample("outbox_writable", u8::from(outbox.write_error.is_none()));
    page.counter("outbox_errors_total", "Failed outbox operations.");
    page.sample("outbox_errors_total", metrics.counters.outbox_errors);
    page.counter("entries_settled_total", "Settled entries by outcome and park reason.");
    for outcome in Outcome::ALL {
        let reason = outcome.park_reason().map_or("", ParkReason::as_str);
        let labels = [("outcome", outcome.as_str()), ("reason", reason)];
        let count = metrics.counters.outcomes.get(&outcome).copied().unwrap_or_default();
        page.labelled_sample("entries_settled_total", &labels, count);
    }
}

/// The text as far as it is written. Writing to a string does not fail.
#[derive(Default)]
struct MetricsText(String);

impl MetricsText {
    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible =
            writeln!(self.0, "# HELP cardbridge_{name} {help}\n# TYPE cardbridge_{name} {kind}");
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        let _infallible = writeln!(self.0, "cardbridge_{name} {value}");
    }

    /// Label values are words of this program's own: none needs escapes.
    fn labelled_sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, word)| format!("{label}=\"{word}\"")).collect();
        let _infallible = writeln!(self.0, "cardbridge_{name}{{{}}} {value}", labels.join(","));
    }
}
