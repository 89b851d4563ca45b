//! What is wrong with a configuration, in lines that a person can act on.

use std::fmt;

use super::ConfigInputs;

/// Who says what a key's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, by its path.
    File(String),
    /// An environment variable, by its name.
    Variable(String),
    /// Nobody: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) | Self::Variable(name) => f.write_str(&on_one_line(name)),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A name with its control characters escaped.
fn on_one_line(name: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    name.chars().map(escaped).collect()
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it was found.
    pub origin: Origin,
    /// The key's path: `cm.timeout`, `rule[2].set_status`. Tables of a list are counted from 1
    /// within their file. Empty where no key is to blame, as in a syntax error.
    pub key: String,
    /// What is wrong, as a fragment that follows the key.
    pub message: String,
    /// What to do, as a fragment.
    pub remedy: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// Everything that is wrong with a configuration: never empty, file by file, then the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigProblems {
    /// These problems and more of them, each file's together.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = ConfigProblem>) -> Self {
        for problem in more {
            let same = |known: &ConfigProblem| known.origin == problem.origin;
            let at = self.0.iter().rposition(same).map_or(self.0.len(), |last| last + 1);
            self.0.insert(at, problem);
        }
        self
    }

    /// Several problems; `None` where there is none.
    #[must_use]
    pub fn of(problems: Vec<ConfigProblem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Every problem, in the order in which they are told.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigProblem> {
        self.0.iter()
    }
}

fn lines(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ConfigProblem::to_string).collect::<Vec<_>>().join("\n")
}

/// What is wrong with a value, before it is known whose value it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueError {
    what: String,
    remedy: String,
}

impl ValueError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// The proof that a problem was reported: the only way to go on without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReportedProblem(Box<ConfigProblem>);

impl From<ReportedProblem> for ConfigProblems {
    fn from(ReportedProblem(problem): ReportedProblem) -> Self {
        Self(vec![*problem])
    }
}

/// The problems found so far.
#[derive(Debug)]
pub(super) struct ProblemCollector {
    /// The files, in order.
    files: Vec<String>,
    problems: Vec<ConfigProblem>,
    /// The first file that is no TOML.
    unread: Option<ReportedProblem>,
}

impl ProblemCollector {
    pub(super) fn new(inputs: &ConfigInputs<'_>) -> Self {
        let read = inputs.sources.iter().map(|source| source.name.clone());
        let unread = inputs.unread.iter().map(|file| file.name.clone());
        let files = read.chain(unread).collect();
        let mut report = Self { files, problems: Vec::new(), unread: None };
        for file in inputs.unread {
            let remedy = "check that it is there and that this user may read it";
            let remedy = file.remedy.unwrap_or(remedy);
            let fault = ValueError::new(format!("cannot be read: {}", file.error), remedy);
            report.push_unread(&Origin::File(file.name.clone()), fault);
        }
        report
    }

    pub(super) fn push(
        &mut self,
        origin: &Origin,
        key: &str,
        fault: ValueError,
    ) -> ReportedProblem {
        let ValueError { what, remedy } = fault;
        let problem =
            ConfigProblem { origin: origin.clone(), key: key.to_owned(), message: what, remedy };
        self.problems.push(problem.clone());
        ReportedProblem(Box::new(problem))
    }

    /// A file that is no TOML. What it sets is unknown from here on.
    pub(super) fn push_unread(&mut self, origin: &Origin, fault: ValueError) {
        let reported = self.push(origin, "", fault);
        self.unread.get_or_insert(reported);
    }

    /// A key that somebody has to set. Where an unread file may well set it, that file's problem
    /// is the one to mend.
    pub(super) fn push_missing(
        &mut self,
        origin: &Origin,
        key: &str,
        fault: ValueError,
    ) -> ReportedProblem {
        match &self.unread {
            Some(reported) => reported.clone(),
            None => self.push(origin, key, fault),
        }
    }

    /// Where a key that nobody set would be looked for.
    pub(super) fn main_file(&self) -> Origin {
        self.files.first().map_or(Origin::Default, |name| Origin::File(name.clone()))
    }

    /// Everything found, or `None` where nothing is wrong.
    pub(super) fn finish(self) -> Option<ConfigProblems> {
        let Self { files, mut problems, unread: _ } = self;
        problems.sort_by_key(|problem| {
            match &problem.origin {
                Origin::File(name) => files.iter().position(|file| file == name),
                Origin::Variable(_) | Origin::Default => None,
            }
            .unwrap_or(files.len())
        });
        (!problems.is_empty()).then_some(ConfigProblems(problems))
    }
}
