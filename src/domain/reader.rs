//! Readers: their PC/SC names, and what the configuration calls them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// A reader's name as PC/SC gives it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ReaderName(Arc<str>);

impl ReaderName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ReaderName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for ReaderName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<ReaderName> for String {
    fn from(name: ReaderName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ReaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stay of one card in one reader, unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InsertionId(u64);

impl InsertionId {
    /// The insertion before all others: what a counter starts from.
    pub const ZERO: Self = Self(0);

    /// The next insertion.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for InsertionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a card's stay in a reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The card was taken out of a reader that is still there.
    Taken,
    /// Nobody can tell: the reader went with the card in it, its driver is in trouble, or the card
    /// fell silent where it was.
    Unclear,
}

/// A glob over reader names: `*` for any text, `?` for one character, the rest literal.
///
/// Brackets are literal too: PC/SC names have them.
#[derive(Clone, PartialEq)]
pub struct Glob(WildMatch);

impl Glob {
    /// A glob from its text; every text is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(WildMatch::new(pattern))
    }

    /// Whether the glob stands for this name.
    #[must_use]
    pub fn matches(&self, reader: &ReaderName) -> bool {
        self.0.matches(reader.as_str())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({})", self.0)
    }
}

/// One `[[reader]]` of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderRule {
    /// Which readers it is about.
    pub matches: Glob,
    /// What people call the reader; its PC/SC name where this is not set.
    pub label: Option<String>,
    /// A free word for the rules.
    pub role: String,
    /// Whether cards in it are looked at.
    pub enabled: bool,
    /// How long a card may be gone and still not have left.
    pub settle: Duration,
}

/// What the configuration makes of a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What people call the reader.
    pub label: String,
    /// A free word for the rules.
    pub role: String,
    /// Whether cards in it are looked at.
    pub enabled: bool,
    /// How long a card may be gone and still not have left.
    #[serde(skip)]
    pub settle: Duration,
}

/// Every `[[reader]]`, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReaderRules(pub Vec<ReaderRule>);

impl ReaderRules {
    /// The role of a reader that no rule is about.
    pub const DEFAULT_ROLE: &str = "desk";

    /// The place of a reader: the first rule that matches it, or label = name and role = "desk".
    #[must_use]
    pub fn place(&self, reader: &ReaderName) -> Place {
        match self.0.iter().find(|rule| rule.matches.matches(reader)) {
            Some(rule) => Place {
                label: rule.label.clone().unwrap_or_else(|| reader.as_str().to_owned()),
                role: rule.role.clone(),
                enabled: rule.enabled,
                settle: rule.settle,
            },
            None => Place {
                label: reader.as_str().to_owned(),
                role: Self::DEFAULT_ROLE.to_owned(),
                enabled: true,
                settle: Duration::ZERO,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_a_glob_are_literal() {
        let name = ReaderName::from("HID Omnikey 3121 [CCID Interface] (AB12) 00 00");
        assert!(Glob::new("*Omnikey*[CCID Interface]*").matches(&name));
        assert!(!Glob::new("*Omnikey*[XYZ]*").matches(&name));
    }

    #[test]
    fn the_first_matching_rule_places_a_reader() {
        let rules = ReaderRules(vec![
            ReaderRule {
                matches: Glob::new("*A*"),
                label: None,
                role: "out".into(),
                enabled: true,
                settle: Duration::ZERO,
            },
            ReaderRule {
                matches: Glob::new("*"),
                label: Some("B".into()),
                role: "in".into(),
                enabled: false,
                settle: Duration::ZERO,
            },
        ]);
        assert_eq!(rules.place(&"Reader A".into()).role, "out");
        assert_eq!(rules.place(&"Reader A".into()).label, "Reader A");
        assert!(!rules.place(&"other".into()).enabled);
        assert_eq!(ReaderRules::default().place(&"other".into()).role, "desk");
    }
}
