//! What the agent says of itself: each entry ends once, and as it must.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::{Evidence, RULES};
use crate::cm::Store;

/// Every entry has exactly one outcome: those that the log calls queued, and
/// every number up to the last, for a kill may come between disk and log.
pub(super) fn outcomes(evidence: &Evidence<'_>) -> Vec<String> {
    let mut ends: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (entry, outcome) in evidence.audit.iter().filter_map(outcome) {
        ends.entry(entry).or_default().push(outcome);
    }
    let queued: Vec<_> = logged(evidence.log, "Entry queued").filter_map(entry_of).collect();
    let last = queued.iter().chain(ends.keys()).max().copied().unwrap_or(0);
    let mut complaints = Vec::new();
    for entry in 1..=last {
        match ends.get(&entry).map(Vec::as_slice) {
            Some([_]) => {}
            Some(several) => complaints.push(format!("entry {entry} has outcomes {several:?}")),
            None => complaints.push(format!("entry {entry} has no outcome")),
        }
    }
    for line in logged(evidence.log, "Entry settled") {
        let logged = (entry_of(line), field(line, "outcome"));
        let known = logged.0.and_then(|entry| ends.get(&entry));
        if !known.is_some_and(|ends| ends.iter().any(|end| Some(*end) == logged.1)) {
            complaints.push(format!("settled in the log and not in the audit trail: {line}"));
        }
    }
    complaints
}

/// How a card ends that was read in part only: not all ids under which CM may know it were tried.
const IN_PART: &str = "not-identified, in part";

/// Each card's outcomes are those that CM's knowledge of it allows, and its
/// record stands as they say.
pub(super) fn cards(evidence: &Evidence<'_>) -> Vec<String> {
    let mut cards: BTreeMap<Uuid, Vec<(i64, &str)>> = BTreeMap::new();
    for line in evidence.audit {
        if let (Some(card), Some((entry, outcome))) = (card_of(line), outcome(line)) {
            let in_part = line["detail"].as_str().is_some_and(|detail| detail.contains("in part"));
            let outcome = if in_part { IN_PART } else { outcome };
            cards.entry(card).or_default().push((entry, outcome));
        }
    }
    let mut complaints = Vec::new();
    for (card, mut ends) in cards {
        ends.sort_unstable();
        let ends: Vec<_> = ends.into_iter().map(|(_, outcome)| outcome).collect();
        if let Some(why) = improbable(evidence, card, &ends) {
            complaints.push(format!("card {card}: {why}: {ends:?}"));
        }
    }
    complaints
}

fn improbable(evidence: &Evidence<'_>, card: Uuid, ends: &[&str]) -> Option<&'static str> {
    let (record, target) = match meant(evidence.before, card) {
        Known::Nothing => return strange(ends, &["unknown-card", IN_PART]),
        Known::Record => return strange(ends, &["nothing-to-do", IN_PART]),
        Known::Request { record, target } => (record, target),
    };
    let count = |wanted: &str| ends.iter().filter(|end| **end == wanted).count();
    let status = evidence.after.record(record).map(|record| record.status);
    if count("updated") > 1 {
        return Some("it was updated more than once");
    }
    if count("updated") + count("already-set") > 0 && status != Some(target) {
        return Some("CM's record does not say so");
    }
    // CM may have failed on it too often; then nothing is claimed.
    if count("updated") + count("already-set") + count("parked") == 0 {
        return Some("nothing came of it");
    }
    strange(ends, &["updated", "already-set"])
}

/// An outcome that this card cannot have.
fn strange(ends: &[&str], allowed: &[&str]) -> Option<&'static str> {
    let always = ["superseded", "parked"];
    let known = |end: &&str| allowed.contains(end) || always.contains(end);
    (!ends.iter().all(known)).then_some("an outcome that nothing CM knows can make")
}

/// What CM knows of a card.
enum Known {
    Nothing,
    Record,
    Request { record: Uuid, target: u32 },
}

fn meant(store: &Store, card: Uuid) -> Known {
    let is_card = |serial: &str| Uuid::try_parse(serial) == Ok(card);
    let Some(record) = store.records.iter().find(|record| is_card(&record.serial_number)) else {
        return Known::Nothing;
    };
    let mut open = store.requests.iter().filter(|request| request.is_open());
    let rule = open
        .find(|request| request.old_smartcard_uuid == record.uuid)
        .and_then(|request| RULES.iter().find(|(kind, ..)| *kind == request.request_type));
    match rule {
        Some((_, _, target)) => Known::Request { record: record.uuid, target: *target },
        None => Known::Record,
    }
}

pub(super) fn outcome(line: &Value) -> Option<(i64, &str)> {
    let is_outcome = line.get("kind")?.as_str()? == "outcome";
    let outcome = line.get("outcome")?.as_str()?;
    is_outcome.then_some((line.get("entry")?.as_i64()?, outcome))
}

pub(super) fn card_of(line: &Value) -> Option<Uuid> {
    Uuid::try_parse(line.get("card_id")?.as_str()?).ok()
}

/// The lines of the log with this message.
pub(super) fn logged<'a>(log: &'a str, message: &'static str) -> impl Iterator<Item = &'a str> {
    log.lines().filter(move |line| line.contains(message))
}

pub(super) fn entry_of(line: &str) -> Option<i64> {
    field(line, "entry")?.parse().ok()
}

/// A field of a line of the log in text format.
pub(super) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.map(|value| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";

    fn line(entry: i64, outcome: &str) -> Value {
        json!({"kind": "outcome", "entry": entry, "outcome": outcome, "card_id": CARD})
    }

    fn judged(audit: &[Value], log: &str, status: u32) -> Vec<String> {
        let before = Store::seed();
        let mut after = Store::seed();
        after.records[0].status = status;
        let evidence = Evidence { before: &before, after: &after, calls: &[], audit, log };
        let mut found = outcomes(&evidence);
        found.extend(cards(&evidence));
        found
    }

    #[test]
    fn one_outcome_an_entry_is_in_order() {
        let log = "x INFO Entry queued insertion=1 entry=2\nx INFO Entry settled entry=2 outcome=\"updated\"";
        let audit = [line(1, "superseded"), line(2, "updated")];
        assert_eq!(judged(&audit, log, 6), [""; 0]);
    }

    #[test]
    fn an_entry_without_an_outcome_is_found() {
        assert_eq!(judged(&[line(2, "updated")], "", 6).len(), 1, "a gap");
        let log = "x INFO Entry queued insertion=1 entry=2";
        assert_eq!(judged(&[line(1, "updated")], log, 6).len(), 1, "queued, and never seen again");
    }

    #[test]
    fn two_outcomes_of_one_entry_are_found() {
        assert_eq!(judged(&[line(1, "updated"), line(1, "already-set")], "", 6).len(), 1);
    }

    #[test]
    fn an_outcome_that_only_the_log_has_is_found() {
        let log = "x INFO Entry settled entry=1 outcome=\"parked\"";
        assert_eq!(judged(&[line(1, "updated")], log, 6).len(), 1);
    }

    #[test]
    fn partial_read_ends_entry_only_without_cm_request() {
        let mut line = line(1, "not-identified");
        line["detail"] = json!("the card was read in part only; by that part: CM has no record");
        assert_eq!(judged(&[line.clone()], "", 2).len(), 1, "CM has a request for this one");
        line["card_id"] = json!("7c1d0e52-9b3a-4f6e-8d27-3e9a51c4b806");
        assert_eq!(judged(&[line.clone()], "", 2), [""; 0]);
        line["detail"] = json!("no family recognised the card");
        assert_eq!(judged(&[line], "", 2).len(), 1);
    }

    #[test]
    fn update_unknown_to_cm_is_found() {
        assert_eq!(judged(&[line(1, "updated")], "", 2).len(), 1);
        assert_eq!(judged(&[line(1, "updated"), line(2, "updated")], "", 6).len(), 1);
        assert_eq!(judged(&[line(1, "nothing-to-do")], "", 2).len(), 1);
    }
}
