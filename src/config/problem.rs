//! Problems of a configuration, each with its place and a remedy.

use std::fmt;

use crate::domain::Problem;

/// Where a key's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, by its path.
    File(String),
    /// An environment variable, by its name.
    Variable(String),
    /// The table of keys.
    Default,
}

impl fmt::Display for Origin {
    /// On one line: control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::File(name) | Self::Variable(name) => name,
            Self::Default => "default",
        };
        name.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

/// A problem of a configuration, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file or variable.
    pub origin: Origin,
    /// The key's path: `cm.timeout`, `rule[2].set_status`. Tables of a list are counted from 1
    /// within their file. Empty for a syntax error.
    pub key: String,
    /// `what` follows the key.
    pub problem: Problem,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// All problems of a configuration: never empty, file by file, then the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
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

    /// `None` without a problem.
    #[must_use]
    pub fn of(problems: Vec<ConfigProblem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// The problems in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigProblem> {
        self.0.iter()
    }
}

/// The proof that a problem was reported: the only error of reading a key.
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
    /// In the order of reading.
    files: Vec<String>,
    problems: Vec<ConfigProblem>,
    /// The first file that is unreadable or no TOML.
    unread: Option<ReportedProblem>,
}

impl ProblemCollector {
    pub(super) const fn new(files: Vec<String>) -> Self {
        Self { files, problems: Vec::new(), unread: None }
    }

    pub(super) fn push(&mut self, origin: &Origin, key: &str, problem: Problem) -> ReportedProblem {
        let problem = ConfigProblem { origin: origin.clone(), key: key.to_owned(), problem };
        self.problems.push(problem.clone());
        ReportedProblem(Box::new(problem))
    }

    /// A file whose keys are unknown.
    pub(super) fn push_unread(&mut self, origin: &Origin, problem: Problem) {
        let reported = self.push(origin, "", problem);
        self.unread.get_or_insert(reported);
    }

    /// A required key that is not set. An unread file may set it: then that file is the problem.
    pub(super) fn push_missing(
        &mut self,
        origin: &Origin,
        key: &str,
        problem: Problem,
    ) -> ReportedProblem {
        match &self.unread {
            Some(reported) => reported.clone(),
            None => self.push(origin, key, problem),
        }
    }

    /// Where a missing key belongs.
    pub(super) fn main_file(&self) -> Origin {
        self.files.first().map_or(Origin::Default, |name| Origin::File(name.clone()))
    }

    pub(super) fn finish(self) -> Option<ConfigProblems> {
        let Self { files, mut problems, .. } = self;
        problems.sort_by_key(|problem| {
            let file = |name: &String| matches!(&problem.origin, Origin::File(own) if own == name);
            files.iter().position(file).unwrap_or(files.len())
        });
        ConfigProblems::of(problems)
    }
}
