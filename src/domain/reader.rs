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

/// One card in one reader from insert to remove, unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InsertionId(u64);

impl InsertionId {
    /// The insertion before all others: what a counter starts from.
    pub const ZERO: Self = Self(0);

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for InsertionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an insertion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The card was taken out of a reader that is still there.
    Observed,
    /// Not certain: the reader went with the card in it, its driver failed, or the card fell silent
    /// where it was.
    Inferred,
}

/// A glob over what a reader is called: `*` for any text, `?` for one character, the rest literal,
/// in upper or lower case. Makers write their own names in both (Omnikey, OMNIKEY).
///
/// Brackets are literal too: PC/SC names have them.
#[derive(Clone, PartialEq)]
pub struct Glob(WildMatch);

impl Glob {
    pub fn new(pattern: &str) -> Self {
        Self(WildMatch::new_case_insensitive(pattern))
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
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

/// What a reader's driver reports (PC/SC part 3, section 3.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReaderAttributes {
    /// `SCARD_ATTR_VENDOR_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// `SCARD_ATTR_VENDOR_IFD_SERIAL_NO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// Which readers a rule applies to.
#[derive(Debug, Clone, PartialEq)]
pub enum ReaderMatch {
    Name(Glob),
    Vendor(Glob),
    Serial(Glob),
}

impl ReaderMatch {
    /// A glob over names; over vendors or serial numbers where the text says so in front, as in
    /// `serial:3F0012*`. No PC/SC name begins like that.
    pub fn new(text: &str) -> Self {
        let after = |prefix: &str| {
            let (begin, pattern) = text.split_at_checked(prefix.len())?;
            begin.eq_ignore_ascii_case(prefix).then(|| Glob::new(pattern))
        };
        if let Some(glob) = after("vendor:") {
            Self::Vendor(glob)
        } else if let Some(glob) = after("serial:") {
            Self::Serial(glob)
        } else {
            Self::Name(Glob::new(text))
        }
    }

    pub fn matches(&self, reader: &ReaderName, attributes: &ReaderAttributes) -> bool {
        let matches = |glob: &Glob, value: &Option<String>| {
            value.as_ref().is_some_and(|value| glob.matches(value))
        };
        match self {
            Self::Name(glob) => glob.matches(reader.as_str()),
            Self::Vendor(glob) => matches(glob, &attributes.vendor),
            Self::Serial(glob) => matches(glob, &attributes.serial),
        }
    }

    const fn needs_attributes(&self) -> bool {
        matches!(self, Self::Vendor(_) | Self::Serial(_))
    }
}

/// One `[[reader]]` of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderRule {
    pub matches: ReaderMatch,
    pub label: Option<String>,
    pub role: String,
    pub enabled: bool,
    /// How long a card may be gone without counting as removed.
    pub removal_debounce: Duration,
}

/// What the configuration makes of a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderSettings {
    pub label: String,
    pub role: String,
    pub enabled: bool,
    /// How long a card may be gone without counting as removed.
    #[serde(skip)]
    pub removal_debounce: Duration,
}

/// Every `[[reader]]`, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReaderRules(pub Vec<ReaderRule>);

impl ReaderRules {
    /// The role of a reader that no rule is about.
    pub const DEFAULT_ROLE: &str = "desk";

    /// Whether the settings of some reader depend on more than its name.
    pub fn need_attributes(&self) -> bool {
        self.0.iter().any(|rule| rule.matches.needs_attributes())
    }

    /// Whether the settings of this reader depend on its attributes: a rule that comes before those
    /// that match its name asks for them.
    pub fn need_attributes_of(&self, reader: &ReaderName) -> bool {
        let unknown = ReaderAttributes::default();
        let first = self
            .0
            .iter()
            .map(|rule| &rule.matches)
            .find(|matches| matches.needs_attributes() || matches.matches(reader, &unknown));
        first.is_some_and(ReaderMatch::needs_attributes)
    }

    /// By the first rule that matches, or label = name and role = "desk".
    pub fn settings_for(
        &self,
        reader: &ReaderName,
        attributes: &ReaderAttributes,
    ) -> ReaderSettings {
        match self.0.iter().find(|rule| rule.matches.matches(reader, attributes)) {
            Some(rule) => ReaderSettings {
                label: rule.label.clone().unwrap_or_else(|| reader.as_str().to_owned()),
                role: rule.role.clone(),
                enabled: rule.enabled,
                removal_debounce: rule.removal_debounce,
            },
            None => ReaderSettings {
                label: reader.as_str().to_owned(),
                role: Self::DEFAULT_ROLE.to_owned(),
                enabled: true,
                removal_debounce: Duration::ZERO,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_brackets_are_literal() {
        let name = ReaderName::from("HID Omnikey 3121 [CCID Interface] (AB12) 00 00");
        assert!(Glob::new("*Omnikey*[CCID Interface]*").matches(name.as_str()));
        assert!(!Glob::new("*Omnikey*[XYZ]*").matches(name.as_str()));
    }

    #[test]
    fn glob_ignores_case() {
        let name =
            ReaderName::from("HID Global OMNIKEY 3x21 Smart Card Reader [Leseger\u{c4}t] 00 00");
        let attributes = ReaderAttributes {
            vendor: Some("HID Global".to_owned()),
            serial: Some("OKCM0011ab".to_owned()),
        };
        let matches = |pattern: &str| ReaderMatch::new(pattern).matches(&name, &attributes);
        assert!(matches("*Omnikey*") && matches("*omnikey*") && matches("*OmniKey*"));
        assert!(matches("*leseger\u{e4}t*") && matches("*00 0?"));
        assert!(matches("vendor:hid*") && matches("Serial:okcm0011AB"));
        assert!(!matches("*omnikex*") && !matches("serial:okcm0011") && !matches("vendor:omnikey"));
    }

    #[test]
    fn first_matching_reader_rule_wins() {
        let rules = ReaderRules(vec![
            ReaderRule {
                matches: ReaderMatch::new("*A*"),
                label: None,
                role: "out".into(),
                enabled: true,
                removal_debounce: Duration::ZERO,
            },
            ReaderRule {
                matches: ReaderMatch::new("*"),
                label: Some("B".into()),
                role: "in".into(),
                enabled: false,
                removal_debounce: Duration::ZERO,
            },
        ]);
        let place = |rules: &ReaderRules, name: &str| {
            rules.settings_for(&name.into(), &ReaderAttributes::default())
        };
        assert_eq!(place(&rules, "Reader A").role, "out");
        assert_eq!(place(&rules, "Reader A").label, "Reader A");
        assert!(!place(&rules, "other").enabled);
        assert_eq!(place(&ReaderRules::default(), "other").role, "desk");
        assert!(!rules.need_attributes());
    }

    #[test]
    fn reader_matches_by_driver_attributes() {
        let name = ReaderName::from("ACS ACR39U 01 00");
        let attributes =
            ReaderAttributes { vendor: Some("ACS".into()), serial: Some("R-17".into()) };
        let matches = |pattern: &str| ReaderMatch::new(pattern).matches(&name, &attributes);
        assert!(matches("serial:R-1?") && matches("vendor:AC*") && matches("*ACR39U*"));
        assert!(!matches("serial:R-2*") && !matches("vendor:HID") && !matches("R-17"));
        let unknown = ReaderAttributes::default();
        assert!(!ReaderMatch::new("serial:*").matches(&name, &unknown));
        assert!(ReaderMatch::new("serial:*").needs_attributes());
    }
}
