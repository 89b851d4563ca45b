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
    page.gauge("start_time_seconds", "When the daemon started, in seconds since 1970.");
    page.sample("start_time_seconds", state.started_at.as_second());
    page.counter("stale_answers_total", "Answers that came too late to be believed.");
    page.sample("stale_answers_total", tally.stale_results);
}

fn readers(page: &mut MetricsText, metrics: &Metrics) {
    let Metrics { state, counters: tally, .. } = metrics;
    page.gauge("pcscd_up", "Whether the readers can be watched.");
    page.sample("pcscd_up", u8::from(matches!(state.pcscd, PcscdView::Connected { .. })));
    page.counter("pcscd_losses_total", "How often pcscd was there and went away.");
    page.sample("pcscd_losses_total", tally.pcscd_losses);
    page.counter("pcsc_errors_total", "Errors of PC/SC, by their code.");
    for (code, count) in &metrics.pcsc_errors {
        page.labelled_sample("pcsc_errors_total", &[("code", code)], count);
    }
    page.gauge("stuck_threads", "Threads that a card or pcscd holds.");
    page.sample("stuck_threads", metrics.stuck_threads);
    page.gauge("readers", "Readers that pcscd has.");
    page.sample("readers", state.readers.len());
    page.gauge("cards", "Cards in the readers, by what is known of them.");
    let is = |view: &CardView, name| card_state(view) == Some(name);
    for name in ["identified", "mute", "not-identified", "reading"] {
        let count = state.readers.iter().filter(|reader| is(&reader.card, name)).count();
        page.labelled_sample("cards", &[("state", name)], count);
    }
    page.counter("card_insertions_total", "Cards that came and answered.");
    page.sample("card_insertions_total", tally.insertions);
    page.counter("mute_cards_total", "Cards that came and did not answer.");
    page.sample("mute_cards_total", tally.mute_cards);
    page.counter("card_removals_total", "Cards that went.");
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
    page.counter("probes_total", "Cards that were read, by family and by what came of it.");
    let count = |probed| metrics.counters.probes.get(&probed).copied().unwrap_or_default();
    for family in Family::ALL {
        let labels = [("family", family.as_str()), ("result", "identified")];
        page.labelled_sample("probes_total", &labels, count(ProbeResult::Identified(family)));
    }
    for reason in NotIdentifiedReason::ALL {
        let labels = [("family", "unknown"), ("result", reason.as_str())];
        page.labelled_sample("probes_total", &labels, count(ProbeResult::NotIdentified(reason)));
    }
}

fn cm(page: &mut MetricsText, metrics: &Metrics) {
    page.gauge("cm_up", "Whether CM answers; absent while nobody has asked it.");
    match metrics.state.cm {
        CmView::Unknown => {}
        CmView::Available { .. } => page.sample("cm_up", 1),
        CmView::Unavailable { .. } => page.sample("cm_up", 0),
    }
    page.counter("cm_outages_total", "How often CM was found to be away.");
    page.sample("cm_outages_total", metrics.counters.cm_outages);
    page.counter("cm_calls_total", "Calls to CM, by what they are for and how they ended.");
    for (call, tally) in metrics.calls.iter() {
        for (result, count) in &tally.results {
            page.labelled_sample(
                "cm_calls_total",
                &[("call", call.as_str()), ("result", result)],
                count,
            );
        }
    }
    page.head("cm_call_duration_seconds", "summary", "How long calls to CM took.");
    for (call, tally) in metrics.calls.iter() {
        let labels = [("call", call.as_str())];
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
    page.gauge("outbox_entries", "Entries, by what they wait for: CM, or (parked) a person.");
    page.labelled_sample("outbox_entries", &[("state", "waiting")], outbox.waiting);
    page.labelled_sample("outbox_entries", &[("state", "parked")], outbox.parked);
    page.gauge("outbox_oldest_age_seconds", "How long ago the oldest waiting card was seen.");
    let age = outbox.oldest_waiting_at.map(|oldest| metrics.at.duration_since(oldest));
    let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
    page.sample("outbox_oldest_age_seconds", age.as_secs_f64());
    page.gauge("outbox_writable", "Whether the disk takes entries.");
    page.sample("outbox_writable", u8::from(outbox.write_error.is_none()));
    page.counter("outbox_errors_total", "What was asked of the outbox in vain.");
    page.sample("outbox_errors_total", metrics.counters.outbox_errors);
    page.counter("outcomes_total", "Entries that came to their outcome, by outcome and reason.");
    for outcome in Outcome::ALL {
        let reason = outcome.park_reason().map_or("", ParkReason::as_str);
        let labels = [("outcome", outcome.as_str()), ("reason", reason)];
        let count = metrics.counters.outcomes.get(&outcome).copied().unwrap_or_default();
        page.labelled_sample("outcomes_total", &labels, count);
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
