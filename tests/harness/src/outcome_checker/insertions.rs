//! The insertions of cards, as the test knows them that made them:
//! each leaves one story and one end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use uuid::Uuid;

use super::claims::{card_of, field, logged, outcome};

/// A card that was in for so long, undisturbed, has to have been seen.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// From a moment to another.
pub type Span = (SystemTime, SystemTime);

/// A card in a reader. No card is in two insertions.
#[derive(Clone, Debug)]
pub struct Insertion {
    /// A part of the reader's name that it keeps over all that happens to it.
    pub reader: String,
    /// What is wrong with the card.
    pub quirk: Quirk,
    /// The card's id.
    pub card: Uuid,
    /// Its ATR in hexadecimal digits; a hindered card shares it with no other.
    pub atr: String,
    /// From the moment it was put in to the moment it was taken out.
    pub span: Span,
    /// When pcscd could not have it for its reader's sake: that was unplugged or
    /// broken, or has another name since.
    pub lost: Vec<Span>,
}

/// What is wrong with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Nothing.
    Healthy,
    /// It goes, or hangs, in the middle of a command.
    Hindered,
    /// It never answers.
    Mute,
}

/// All insertions of a run, and what was reported of them.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The insertions, in the order of their beginnings.
    pub insertions: &'a [Insertion],
    /// When pcscd was away or held, or the agent could not know yet that it was back.
    pub away: &'a [Span],
    /// When pcscd was down and another one took its place.
    pub restarts: &'a [Span],
    /// The audit trail, a value a line.
    pub audit: &'a [Value],
    /// The agent's log over one life, at level info or more.
    pub log: &'a str,
}

/// Everything that is wrong with what was reported of the insertions; empty where all is well.
#[must_use]
pub fn insertions(run: &Run<'_>) -> Vec<String> {
    let index = Index::new(run);
    let mut complaints: Vec<String> = Vec::new();
    for inserted in run.insertions {
        let wrong = match inserted.quirk {
            Quirk::Healthy => index.healthy(inserted, run),
            Quirk::Hindered => index.hindered(inserted, run),
            Quirk::Mute => index.mute(inserted, run),
        };
        complaints.extend(wrong.into_iter().map(|why| format!("{why}: {inserted:?}")));
    }
    complaints.extend(index.unexplained(run));
    complaints
}

/// How many insertions were long and undisturbed, and so prove most.
#[must_use]
pub fn exact(run: &Run<'_>) -> usize {
    run.insertions.iter().filter(|inserted| inserted.is_exact(run)).count()
}

impl Insertion {
    /// The longest undisturbed time.
    fn calm(&self, run: &Run<'_>) -> Duration {
        let mut marks = self.disturbances(run);
        marks.sort_unstable();
        let (mut at, end) = self.span;
        let mut longest = Duration::ZERO;
        for (from, to) in marks {
            longest = longest.max(from.duration_since(at).unwrap_or_default());
            at = at.max(to);
        }
        longest.max(end.duration_since(at).unwrap_or_default())
    }

    fn disturbances(&self, run: &Run<'_>) -> Vec<Span> {
        let (from, to) = self.span;
        let all = run.away.iter().chain(&self.lost);
        all.filter(|span| span.0 < to && span.1 > from).copied().collect()
    }

    /// How often it was not certain that the card stayed: with its reader or with pcscd everything
    /// went that could prove it.
    fn doubts(&self, run: &Run<'_>) -> usize {
        let (from, to) = self.span;
        let restarts = run.restarts.iter().filter(|span| span.0 < to && span.1 > from);
        self.lost.len() + restarts.count()
    }

    /// Whether it must have been seen.
    fn is_long(&self, run: &Run<'_>) -> bool {
        self.calm(run) >= LONG_ENOUGH
    }

    /// Whether it must have been seen, and cannot have been taken for two.
    fn is_exact(&self, run: &Run<'_>) -> bool {
        self.is_long(run) && self.disturbances(run).is_empty()
    }

    fn has(&self, at: SystemTime) -> bool {
        self.span.0 <= at && at <= self.span.1
    }
}

/// What was reported, by its subject.
struct Index<'a> {
    /// The insertions in which the log has a card identified.
    identified: BTreeMap<Uuid, BTreeSet<&'a str>>,
    /// The insertions that the log calls queued, each with how often.
    queued: BTreeMap<&'a str, usize>,
    /// The insertions in the log, each with how often.
    inserted: BTreeMap<&'a str, usize>,
    /// How often the log has an insertion with an ATR.
    inserted_atr: BTreeMap<&'a str, usize>,
    /// The outcomes of entries.
    outcomes: BTreeMap<Uuid, Vec<&'a str>>,
    /// The cards that were read in part first, and later in full: a hung call of the agent's own held
    /// the reader. Each has an entry more.
    read_again: BTreeSet<Uuid>,
    /// The lines on cards that were not identified: ATR, reader, reason, time.
    strangers: Vec<Stranger<'a>>,
    /// When the log has a mute card, and in which reader.
    mute: Vec<(SystemTime, &'a str)>,
}

struct Stranger<'a> {
    atr: Option<&'a str>,
    reader: &'a str,
    reason: &'a str,
    at: SystemTime,
}

impl<'a> Index<'a> {
    fn new(run: &Run<'a>) -> Self {
        let mut index = Self {
            identified: BTreeMap::new(),
            queued: BTreeMap::new(),
            inserted: BTreeMap::new(),
            inserted_atr: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            read_again: BTreeSet::new(),
            strangers: run.audit.iter().filter_map(stranger).collect(),
            mute: Vec::new(),
        };
        for line in logged(run.log, "Card identified") {
            let card = field(line, "card_id").and_then(|card| Uuid::try_parse(card).ok());
            if let (Some(card), Some(insertion)) = (card, field(line, "insertion")) {
                index.identified.entry(card).or_default().insert(insertion);
            }
        }
        for insertion in logged(run.log, "Entry queued").filter_map(|line| field(line, "insertion"))
        {
            *index.queued.entry(insertion).or_default() += 1;
        }
        for line in logged(run.log, "Card inserted") {
            let (insertion, atr) = (field(line, "insertion"), field(line, "atr"));
            *index.inserted.entry(insertion.unwrap_or_default()).or_default() += 1;
            *index.inserted_atr.entry(atr.unwrap_or_default()).or_default() += 1;
        }
        let mute = logged(run.log, "Card is mute");
        index.mute = mute.filter_map(|line| Some((time(line)?, line))).collect();
        for line in run.audit {
            let (Some(card), Some((_, outcome))) = (card_of(line), outcome(line)) else { continue };
            if line["detail"].as_str().is_some_and(|detail| detail.contains("read in full")) {
                index.read_again.insert(card);
            } else {
                index.outcomes.entry(card).or_default().push(outcome);
            }
        }
        index
    }

    fn ends(&self, inserted: &Insertion) -> usize {
        self.outcomes.get(&inserted.card).map_or(0, Vec::len)
    }

    /// A card that nothing is wrong with: one outcome an insertion, and one story.
    fn healthy(&self, inserted: &Insertion, run: &Run<'_>) -> Option<String> {
        let ends = self.ends(inserted);
        if inserted.is_long(run) && ends == 0 {
            return Some(format!("in for {:?} and never worked on", inserted.calm(run)));
        }
        if ends > 1 + inserted.doubts(run) {
            return Some(format!("{ends} outcomes"));
        }
        if !inserted.is_exact(run) || self.read_again.contains(&inserted.card) {
            return None;
        }
        let empty = BTreeSet::new();
        let insertions = self.identified.get(&inserted.card).unwrap_or(&empty);
        let reported_once = |insertion: &&str| {
            self.inserted.get(insertion) == Some(&1) && self.queued.get(insertion) == Some(&1)
        };
        let one_story = insertions.len() == 1 && insertions.iter().all(reported_once);
        (!one_story).then(|| format!("no one story in the log, but insertions {insertions:?}"))
    }

    /// A card that could not be read to its end: worked on, or reported as a stranger, once.
    fn hindered(&self, inserted: &Insertion, run: &Run<'_>) -> Option<String> {
        let strange = |line: &&Stranger<'_>| line.atr == Some(&*inserted.atr);
        let ends = self.ends(inserted) + self.strangers.iter().filter(strange).count();
        let seen = self.inserted_atr.get(&*inserted.atr).copied().unwrap_or(0);
        if ends > seen {
            return Some(format!("{ends} ends of {seen} insertions"));
        }
        if inserted.is_long(run) && ends == 0 {
            return Some(format!("in for {:?} and never reported", inserted.calm(run)));
        }
        let exact = inserted.is_exact(run);
        (exact && (ends, seen) != (1, 1)).then(|| format!("{ends} ends of {seen} insertions"))
    }

    /// A mute card is reported once.
    fn mute(&self, inserted: &Insertion, run: &Run<'_>) -> Option<String> {
        let here = |reader: &str, at| reader.contains(&inserted.reader) && inserted.has(at);
        let audited = self
            .strangers
            .iter()
            .filter(|line| line.reason == "mute" && here(line.reader, line.at))
            .count();
        let logged = self.mute.iter().filter(|(at, line)| here(line, *at)).count();
        if audited == 0 && self.is_counted(inserted) {
            let unreported = inserted.is_long(run) && logged == 0;
            return unreported.then(|| "never reported".to_owned());
        }
        if inserted.is_exact(run) {
            let once = (audited, logged) == (1, 1);
            return (!once).then(|| format!("reported {audited} times, in the log {logged} times"));
        }
        let most = 1 + inserted.disturbances(run).len();
        if audited > most {
            return Some(format!("reported {audited} times"));
        }
        (inserted.is_long(run) && audited == 0).then(|| "never reported".to_owned())
    }

    /// Whether so many mute cards were reported in the reader of late that further ones are only counted
    /// (docs/decisions/0023-notes.md). The log has each all the same.
    fn is_counted(&self, inserted: &Insertion) -> bool {
        const QUIET: Duration = Duration::from_mins(10);
        let late = self.strangers.iter().filter(|line| {
            let before = inserted.span.0.duration_since(line.at);
            line.reason == "mute"
                && line.reader.contains(&inserted.reader)
                && before.is_ok_and(|before| before < QUIET)
        });
        late.count() >= 3
    }

    /// Cards with nothing wrong that were reported as strangers: no more than were disturbed, or taken
    /// out early.
    fn unexplained(&self, run: &Run<'_>) -> Vec<String> {
        let mut strangers: BTreeMap<&str, usize> = BTreeMap::new();
        for atr in self.strangers.iter().filter_map(|line| line.atr) {
            *strangers.entry(atr).or_default() += 1;
        }
        let mut excused: BTreeMap<&str, usize> = BTreeMap::new();
        for inserted in run.insertions.iter().filter(|inserted| inserted.quirk == Quirk::Healthy) {
            let excuses = inserted.disturbances(run).len() + usize::from(!inserted.is_long(run));
            *excused.entry(&*inserted.atr).or_default() += excuses;
        }
        let more = excused.into_iter().filter_map(|(atr, excuses)| {
            let count = strangers.get(atr).copied().unwrap_or(0);
            (count > excuses)
                .then(|| format!("{count} strangers with ATR {atr}, {excuses} excuses"))
        });
        more.collect()
    }
}

fn stranger(line: &Value) -> Option<Stranger<'_>> {
    let text = |key| line.get(key).and_then(Value::as_str);
    (text("outcome")? == "not-identified").then_some(())?;
    Some(Stranger {
        atr: text("atr"),
        reader: text("reader")?,
        reason: text("reason")?,
        at: humantime::parse_rfc3339(text("at")?).ok()?,
    })
}

/// When a line of the log was written.
fn time(line: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(line.split_whitespace().next()?).ok()
}

#[cfg(test)]
mod tests;
