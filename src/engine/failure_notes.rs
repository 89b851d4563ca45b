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

use super::{Effect, Engine, Now};
use crate::domain::{Atr, AuditLine, NotIdentified, NotIdentifiedReason, ReaderName};

/// Failures that are further apart than this are not the same any more.
const QUIET_INTERVAL: Duration = Duration::from_mins(10);

/// How many failures alike have a line each: an operator who tries again a few times is no flicker.
const MAX_SINGLE: usize = 3;

/// How long after each line the next count is written, while the failures go on.
const INTERVALS: [Duration; 5] = [
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(6),
    Duration::from_hours(24),
];

/// How many failures that differ are followed at a time.
const MAX_FOLLOWED: usize = 256;

/// Lines that may be written at once, if none was written for long.
const MAX_ALLOWANCE: u32 = 1000;

/// How long until one line more is allowed.
const ALLOWANCE_INTERVAL: Duration = Duration::from_mins(1);

/// How many readers the line for all names.
const MAX_NAMED: usize = 16;

/// What was counted and not written yet.
#[derive(Debug)]
struct NoteCounter {
    /// Failures since the last line.
    unwritten: u64,
    first: Timestamp,
    last: Timestamp,
    last_mono: Instant,
    written: Instant,
    /// How many counts were written.
    lines: usize,
}

impl NoteCounter {
    const fn new(unwritten: u64, now: Now) -> Self {
        Self {
            unwritten,
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

    fn may_write(&self, now: Now) -> bool {
        now.mono >= self.last_mono + QUIET_INTERVAL
    }

    /// The line with the count in place of this one.
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
    count: NoteCounter,
    /// How many lines of one failure were written.
    lines: usize,
}

impl TrackedFailure {
    fn is(&self, line: &AuditLine, reason: NotIdentifiedReason) -> bool {
        self.reason == reason && self.line.reader == line.reader && self.line.atr == line.atr
    }

    /// Once failures are counted, they are until they end.
    const fn may_have_a_line(&self) -> bool {
        self.lines < MAX_SINGLE && self.count.unwritten == 0 && self.count.lines == 0
    }
}

/// Failures that have no line of their own.
#[derive(Debug)]
struct OtherFailures {
    reasons: BTreeMap<&'static str, u64>,
    readers: BTreeSet<ReaderName>,
    count: NoteCounter,
}

/// What is known of the failures of late.
#[derive(Debug, Default)]
pub(super) struct FailureNotes {
    followed: Vec<TrackedFailure>,
    rest: Option<OtherFailures>,
    /// Lines of the allowance that are used, and since when the oldest of them comes back.
    used: u32,
    refilled: Option<Instant>,
}

impl FailureNotes {
    /// Takes in a failure; the line that is to be written for it now, if any is.
    fn add(&mut self, line: AuditLine, reason: NotIdentifiedReason, now: Now) -> Option<AuditLine> {
        self.followed.retain(|it| it.count.unwritten > 0 || !it.count.may_write(now));
        let known = self.followed.iter().position(|it| it.is(&line, reason));
        let room = known.map_or(self.followed.len() < MAX_FOLLOWED, |at| {
            self.followed.get(at).is_some_and(TrackedFailure::may_have_a_line)
        });
        let allowed = room && self.allows(now);
        if let Some(followed) = known.and_then(|at| self.followed.get_mut(at)) {
            followed.line = line.clone();
            if !allowed {
                followed.count.add(now);
                return None;
            }
            followed.lines += 1;
            followed.count = NoteCounter::new(0, now);
            return Some(line);
        }
        if allowed {
            let followed = TrackedFailure {
                reason,
                line: line.clone(),
                count: NoteCounter::new(0, now),
                lines: 1,
            };
            self.followed.push(followed);
            return Some(line);
        }
        let rest = self.rest.get_or_insert_with(|| OtherFailures {
            reasons: BTreeMap::new(),
            readers: BTreeSet::new(),
            count: NoteCounter::new(0, now),
        });
        rest.count.add(now);
        *rest.reasons.entry(reason.as_str()).or_default() += 1;
        if rest.readers.len() < MAX_NAMED {
            rest.readers.insert(line.reader);
        }
        None
    }

    /// Uses one line of the allowance, if there is one.
    fn allows(&mut self, now: Now) -> bool {
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

    /// When the next count is to be written.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let rest = self.rest.iter().filter_map(|rest| rest.count.due());
        self.followed.iter().filter_map(|it| it.count.due()).chain(rest).min()
    }

    /// The counts that are due, or all of them.
    fn counts(&mut self, station: &str, all: bool, now: Now) -> Vec<AuditLine> {
        let is_due = |count: &NoteCounter| count.due().is_some_and(|due| all || due <= now.mono);
        let mut lines = Vec::new();
        for it in self.followed.iter_mut().filter(|it| is_due(&it.count)) {
            lines.push(it.count.write(it.line.clone(), now));
        }
        if let Some(rest) = self.rest.as_mut().filter(|rest| is_due(&rest.count)) {
            lines.push(rest.count.write(rest_line(station, rest, now), now));
            rest.reasons.clear();
            rest.readers.clear();
        }
        self.rest.take_if(|rest| rest.count.may_write(now));
        self.followed.retain(|it| !it.count.may_write(now));
        lines
    }

    /// How many failures are followed.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.followed.len() + usize::from(self.rest.is_some())
    }
}

fn rest_line(station: &str, rest: &OtherFailures, now: Now) -> AuditLine {
    let reasons: Vec<_> = rest.reasons.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let readers: Vec<_> = rest.readers.iter().map(ReaderName::as_str).collect();
    let more = if rest.readers.len() < MAX_NAMED { "" } else { " and perhaps others" };
    let detail = format!(
        "too many different cards for a line each ({}), in {}{more}",
        reasons.join(", "),
        readers.join(", ")
    );
    let why = NotIdentified::new(NotIdentifiedReason::ReadError, detail);
    let line = AuditLine::not_identified(station, (&"".into(), ""), None, now.wall, &why);
    AuditLine { reason: Some("various".to_owned()), ..line }
}

impl Engine {
    /// Has it audited that a card could not be identified, or counts it.
    pub(super) fn add_failure_note(
        &mut self,
        (reader, label): (&ReaderName, &str),
        atr: Option<Atr>,
        why: &NotIdentified,
        now: Now,
    ) {
        let line =
            AuditLine::not_identified(&self.policy.station, (reader, label), atr, now.wall, why);
        let line = self.notes.add(line, why.reason, now);
        self.effects.extend(line.map(Effect::AppendAudit));
    }

    /// Has the counts audited that are due.
    pub(super) fn note_due_counts(&mut self, now: Now) {
        let lines = self.notes.counts(&self.policy.station, false, now);
        self.effects.extend(lines.into_iter().map(Effect::AppendAudit));
    }

    /// The counts that were not audited yet, for an engine that ends.
    pub fn take_unwritten_counts(&mut self, now: Now) -> Vec<AuditLine> {
        self.notes.counts(&self.policy.station, true, now)
    }
}
