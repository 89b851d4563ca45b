//! Whether each PUT follows from what the agent can have read before.

use std::time::SystemTime;

use serde_json::Value;
use uuid::Uuid;

use super::{Evidence, RULES};
use crate::cm::{LogEntry, Record, Store};

/// A PUT of a card's status.
struct Put<'a> {
    call: &'a LogEntry,
    request: Uuid,
    record: Uuid,
    status: String,
}

/// The PUTs that no rule justifies, each with the reason.
pub(super) fn unjustified(evidence: &Evidence<'_>) -> Vec<String> {
    let mut earlier: Vec<Put<'_>> = Vec::new();
    let mut complaints = Vec::new();
    for call in evidence.calls.iter().filter(|call| call.method == "PUT") {
        let judged = Put::parse(call)
            .ok_or_else(|| "it is no PUT of a card's status".to_owned())
            .and_then(|put| put.judge(evidence, &earlier).map(|()| put));
        match judged {
            Ok(put) => earlier.push(put),
            Err(why) => complaints.push(format!("call {}: {call}: {why}", call.id)),
        }
    }
    complaints
}

impl<'a> Put<'a> {
    fn parse(call: &'a LogEntry) -> Option<Self> {
        let segments: Vec<&str> = call.target.rsplit('/').take(4).collect();
        let [record, _, request, _] = *segments.as_slice() else { return None };
        let body: Value = serde_json::from_str(&call.body).ok()?;
        let mut members = body.as_object()?.iter();
        let (_, status) = members.find(|(name, _)| name.eq_ignore_ascii_case("status"))?;
        Some(Self {
            call,
            request: Uuid::try_parse(request).ok()?,
            record: Uuid::try_parse(record).ok()?,
            status: status.as_str()?.to_owned(),
        })
    }

    fn judge(&self, evidence: &Evidence<'_>, earlier: &[Self]) -> Result<(), String> {
        let target = self.wanted(evidence.before)?;
        let record = evidence.before.record(self.record).ok_or("CM has no such record")?;
        let before = earlier.iter().rev().find(|put| put.record == self.record);
        let read = last_reading(evidence.calls, record, self.call)
            .ok_or("the record was never read before")?;
        if let Some(before) = before
            && read.at <= before.call.at
        {
            return Err(format!(
                "it repeats call {} (answered {:?}) without reading the record in between",
                before.call.id, before.call.status
            ));
        }
        let seen = status_at(evidence.calls, record, read.performed_at);
        if seen == target {
            return Err(format!("the record had that status already, as call {} shows", read.id));
        }
        Ok(())
    }

    /// The status that a rule sets for the request, if the record is its old card's: no rule of the
    /// judge's is about a card that a request brings.
    fn wanted(&self, store: &Store) -> Result<u32, String> {
        let request = store.request(self.request).ok_or("CM has no such request")?;
        if !request.is_open() || request.old_smartcard_uuid != self.record {
            return Err("the request is not open, or about another card".to_owned());
        }
        let mut rules = RULES.iter();
        let rule = rules.find(|(kind, name, _)| {
            *kind == request.request_type && self.status.eq_ignore_ascii_case(name)
        });
        rule.map(|(_, _, status)| *status)
            .ok_or_else(|| format!("no rule sets this for type {}", request.request_type))
    }
}

/// The last answer before a PUT that showed the agent how the record stands.
fn last_reading<'a>(
    calls: &'a [LogEntry],
    record: &Record,
    put: &LogEntry,
) -> Option<&'a LogEntry> {
    let by_id = format!("/smartcards/{}", record.uuid);
    let card = record.serial_number.trim_matches(['{', '}']).to_lowercase();
    let reads = |call: &&LogEntry| {
        let target = call.target.to_lowercase();
        call.method == "GET"
            && (target.ends_with(&by_id) || target.contains(&card))
            && call.status == Some(200)
            && call.finished_at.is_some_and(|at| at <= put.at)
            && is_whole(call)
    };
    calls.iter().filter(reads).max_by_key(|call| call.performed_at)
}

/// Whether the answer reached the agent, if the agent was there to read it.
fn is_whole(call: &LogEntry) -> bool {
    call.faults.iter().all(|fault| fault.starts_with("Slow"))
}

/// A record's status as CM had it at a moment.
fn status_at(calls: &[LogEntry], record: &Record, at: Option<SystemTime>) -> u32 {
    let mut done: Vec<_> = calls
        .iter()
        .filter(|call| call.method == "PUT" && call.applied && call.performed_at <= at)
        .filter_map(|call| Some((call.performed_at?, Put::parse(call)?)))
        .filter(|(_, put)| put.record == record.uuid)
        .collect();
    done.sort_by_key(|(at, _)| *at);
    let last = done.pop().and_then(|(_, put)| {
        RULES.iter().find(|(_, name, _)| put.status.eq_ignore_ascii_case(name)).map(|rule| rule.2)
    });
    last.unwrap_or(record.status)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(id: u64, method: &str, target: &str, applied: bool, status: Option<u16>) -> LogEntry {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(10 * id);
        LogEntry {
            id: usize::try_from(id).unwrap(),
            at,
            connection: 1,
            client_certificate: None,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: r#"{"status":"Retired"}"#.to_owned(),
            status,
            applied,
            finished: true,
            performed_at: Some(at + Duration::from_secs(1)),
            finished_at: Some(at + Duration::from_secs(2)),
            faults: Vec::new(),
        }
    }

    fn read(id: u64) -> LogEntry {
        let target = format!("/api/v1.0/smartcards/{}", Record::seed().uuid);
        call(id, "GET", &target, false, Some(200))
    }

    fn put(id: u64, applied: bool, status: Option<u16>) -> LogEntry {
        let store = Store::seed();
        let (request, record) = (store.requests[0].uuid, store.records[0].uuid);
        let target = format!("/api/v1.0/requests/{request}/smartcards/{record}");
        call(id, "PUT", &target, applied, status)
    }

    fn judged(calls: &[LogEntry]) -> Vec<String> {
        let store = Store::seed();
        let evidence = Evidence { before: &store, after: &store, calls, audit: &[], log: "" };
        unjustified(&evidence)
    }

    #[test]
    fn a_put_that_follows_from_what_was_read_is_in_order() {
        assert_eq!(judged(&[read(1), put(2, true, Some(200))]), [""; 0]);
    }

    #[test]
    fn a_put_without_reading_the_record_is_found() {
        assert_eq!(judged(&[put(1, true, Some(200))]).len(), 1);
    }

    #[test]
    fn repeated_put_after_answer_is_found() {
        let answered = put(2, true, Some(200));
        assert_eq!(judged(&[read(1), answered.clone(), put(3, true, Some(200))]).len(), 1);
        assert_eq!(judged(&[read(1), answered, read(3), put(4, true, Some(200))]).len(), 1);
    }

    #[test]
    fn unapplied_put_may_repeat_after_new_read() {
        assert_eq!(judged(&[read(1), put(2, false, None), put(3, true, Some(200))]).len(), 1);
        let calls = [read(1), put(2, false, None), read(3), put(4, true, Some(200))];
        assert_eq!(judged(&calls), [""; 0]);
    }

    #[test]
    fn cut_answer_counts_as_not_read() {
        let mut cut = read(3);
        cut.faults = vec!["CutInBody".to_owned()];
        let calls = [read(1), put(2, false, None), cut, put(4, true, Some(200))];
        assert_eq!(judged(&calls).len(), 1);
    }

    #[test]
    fn a_late_put_may_be_overtaken_by_the_next() {
        // Read back while CM had not done the first yet.
        let mut late = put(2, true, None);
        late.performed_at = Some(late.at + Duration::from_secs(25));
        late.finished_at = late.performed_at;
        assert_eq!(judged(&[read(1), late, read(3), put(4, true, Some(200))]), [""; 0]);
    }

    #[test]
    fn put_without_request_is_found() {
        let mut other = put(2, true, Some(200));
        other.body = r#"{"status":"Disabled"}"#.to_owned();
        assert_eq!(judged(&[read(1), other]).len(), 1);
        let mut other = put(2, true, Some(200));
        other.target = other.target.replace("/requests/b", "/requests/c");
        assert_eq!(judged(&[read(1), other]).len(), 1);
    }
}
