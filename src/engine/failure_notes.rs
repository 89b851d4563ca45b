//! Audit lines of cards that could not be identified, so few that no card fills the trail.
//!
//! A card that flickers fails several times a second, for weeks. The first failures of a reader, ATR
//! and reason have lines of their own, at once. Further ones are counted, and the count is written
//! at growing intervals, or when the failures end. Where more differ than are followed here, or more
//! lines are due than the allowance has, they are counted together in one line for all.
//!
//! The counts are in memory: a daemon that is killed loses what it counted since the last line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::context::{Context, count};
use super::interface::{Now, OutboxEffect};
use crate::domain::{Atr, AuditLine, NotIdentified, NotIdentifiedReason, ReaderName};

/// Failures that are further apart than this are not counted together.
const QUIET_INTERVAL: Duration = Duration::from_mins(10);

/// How many equal failures have a line each: an operator who tries again a few times is no flicker.
const MAX_SINGLE: usize = 3;

/// How long after each line the next count is written, while the failures go on.
const INTERVALS: [Duration; 5] = [
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(6),
    Duration::from_hours(24),
];

/// How many different failures are followed at a time.
const MAX_FOLLOWED: usize = 256;

/// Lines that may be written at once, if none was written for long, and until one more is allowed.
const MAX_ALLOWANCE: u32 = 1000;
const ALLOWANCE_INTERVAL: Duration = Duration::from_mins(1);

/// How many readers the line for all names.
const MAX_NAMED: usize = 16;

/// What was counted and not written yet.
#[derive(Debug)]
struct FailureCounter {
    /// Failures since the last line.
    unwritten: u64,
    first: Timestamp,
    last: Timestamp,
    last_mono: Instant,
    written: Instant,
    /// How many counts were written.
    lines: usize,
}

impl FailureCounter {
    const fn new(now: Now) -> Self {
        Self {
            unwritten: 0,
            first: now.wall,
            last: now.wall,
            last_mono: now.mono,
            written: now.mono,
            lines: 0,
        }
    }

    fn add(&mut self, now: Now) {
        if self.unwritten == 0 {
            self.first = now.wall;
        }
        self.unwritten += 1;
        (self.last, self.last_mono) = (now.wall, now.mono);
    }

    fn due(&self) -> Option<Instant> {
        let interval =
            INTERVALS.get(self.lines).or(INTERVALS.last()).copied().unwrap_or(QUIET_INTERVAL);
        let due = (self.written + interval).min(self.last_mono + QUIET_INTERVAL);
        (self.unwritten > 0).then_some(due)
    }

    fn is_over(&self, now: Now) -> bool {
        now.mono >= self.last_mono + QUIET_INTERVAL
    }

    /// The line with the count, made of the line of one failure.
    fn write(&mut self, line: AuditLine, now: Now) -> AuditLine {
        let line = line.repeated(now.wall, self.unwritten, (self.first, self.last));
        (self.unwritten, self.written) = (0, now.mono);
        self.lines += 1;
        line
    }
}

/// Failures of one reader, ATR and reason.
#[derive(Debug)]
struct TrackedFailure {
    reason: NotIdentifiedReason,
    /// The newest of them.
    line: AuditLine,
    counter: FailureCounter,
    /// How many lines of one failure were written.
    lines: usize,
}

impl TrackedFailure {
    fn is(&self, line: &AuditLine, reason: NotIdentifiedReason) -> bool {
        self.reason == reason && self.line.reader == line.reader && self.line.atr == line.atr
    }

    /// Once failures are counted, they are until they end.
    const fn may_have_a_line(&self) -> bool {
        self.lines < MAX_SINGLE && self.counter.unwritten == 0 && self.counter.lines == 0
    }
}

/// Failures that have no line of their own.
#[derive(Debug)]
struct OtherFailures {
    reasons: BTreeMap<&'static str, u64>,
    readers: BTreeSet<ReaderName>,
    counter: FailureCounter,
}

/// The recent failures.
#[derive(Debug, Default)]
pub(super) struct FailureNotes {
    followed: Vec<TrackedFailure>,
    others: Option<OtherFailures>,
    /// Lines of the allowance that are used, and since when the oldest of them is refilled.
    used: u32,
    refilled: Option<Instant>,
}

impl FailureNotes {
    /// Audits that a card could not be identified, or counts it.
    pub(super) fn add(
        &mut self,
        cx: &mut Context,
        (reader, label): (&ReaderName, &str),
        atr: Option<Atr>,
        error: &NotIdentified,
        at: Now,
    ) {
        let station = &cx.settings.station;
        let line = AuditLine::not_identified(station, (reader, label), atr, at.wall, error);
        if let Some(line) = self.count(line, error.reason, at) {
            cx.store(OutboxEffect::AppendAudit(line));
        }
    }

    /// Returns the line that is to be written for this failure now.
    fn count(
        &mut self,
        line: AuditLine,
        reason: NotIdentifiedReason,
        now: Now,
    ) -> Option<AuditLine> {
        self.followed.retain(|it| it.counter.unwritten > 0 || !it.counter.is_over(now));
        let known = self.followed.iter().position(|it| it.is(&line, reason));
        let room = known.map_or(self.followed.len() < MAX_FOLLOWED, |at| {
            self.followed.get(at).is_some_and(TrackedFailure::may_have_a_line)
        });
        let allowed = room && self.use_allowance(now);
        if let Some(followed) = known.and_then(|at| self.followed.get_mut(at)) {
            followed.line = line.clone();
            if !allowed {
                followed.counter.add(now);
                return None;
            }
            followed.lines += 1;
            followed.counter = FailureCounter::new(now);
            return Some(line);
        }
        if allowed {
            let counter = FailureCounter::new(now);
            self.followed.push(TrackedFailure { reason, line: line.clone(), counter, lines: 1 });
            return Some(line);
        }
        let others = self.others.get_or_insert_with(|| OtherFailures {
            reasons: BTreeMap::new(),
            readers: BTreeSet::new(),
            counter: FailureCounter::new(now),
        });
        others.counter.add(now);
        count(&mut others.reasons, reason.as_str());
        if others.readers.len() < MAX_NAMED {
            others.readers.insert(line.reader);
        }
        None
    }

    /// Uses one line of the allowance, if there is one.
    fn use_allowance(&mut self, now: Now) -> bool {
        let since = *self.refilled.get_or_insert(now.mono);
        let passed = now.mono.saturating_duration_since(since);
        let back = passed.as_secs() / ALLOWANCE_INTERVAL.as_secs();
        let back = u32::try_from(back).unwrap_or(u32::MAX).min(self.used);
        self.used -= back;
        self.refilled =
            if self.used == 0 { Some(now.mono) } else { Some(since + ALLOWANCE_INTERVAL * back) };
        let allowed = self.used < MAX_ALLOWANCE;
        self.used += u32::from(allowed);
        allowed
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let others = self.others.iter().filter_map(|others| others.counter.due());
        self.followed.iter().filter_map(|it| it.counter.due()).chain(others).min()
    }

    /// Audits the counts that are due.
    pub(super) fn on_timeout(&mut self, cx: &mut Context) {
        for line in self.take(cx, false) {
            cx.store(OutboxEffect::AppendAudit(line));
        }
    }

    /// The counts that are due, or all that are not written.
    pub(super) fn take(&mut self, cx: &Context, all: bool) -> Vec<AuditLine> {
        let now = cx.time;
        let is_due =
            |counter: &FailureCounter| counter.due().is_some_and(|due| all || due <= now.mono);
        let mut lines = Vec::new();
        for it in self.followed.iter_mut().filter(|it| is_due(&it.counter)) {
            lines.push(it.counter.write(it.line.clone(), now));
        }
        if let Some(others) = self.others.as_mut().filter(|others| is_due(&others.counter)) {
            let line = others.line(&cx.settings.station, now);
            lines.push(others.counter.write(line, now));
            others.reasons.clear();
            others.readers.clear();
        }
        self.others.take_if(|others| others.counter.is_over(now));
        self.followed.retain(|it| !it.counter.is_over(now));
        lines
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.followed.len() + usize::from(self.others.is_some())
    }
}

impl OtherFailures {
    fn line(&self, station: &str, now: Now) -> AuditLine {
        let reasons: Vec<_> = self.reasons.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let readers: Vec<_> = self.readers.iter().map(ReaderName::as_str).collect();
        let more = if self.readers.len() < MAX_NAMED { "" } else { " and perhaps others" };
        let detail = format!(
            "too many different cards for a line each ({}), in {}{more}",
            reasons.join(", "),
            readers.join(", ")
        );
        let error = NotIdentified::new(NotIdentifiedReason::ReadError, detail);
        let line = AuditLine::not_identified(station, (&"".into(), ""), None, now.wall, &error);
        AuditLine { reason: Some("various".to_owned()), ..line }
    }
}
