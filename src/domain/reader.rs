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
pub enum Removal {
    /// The card was taken out of a reader that is still there.
    Observed,
    /// Nobody can tell: the reader went with the card in it, its driver is in trouble, or the card
    /// fell silent where it was.
    Inferred,
}

/// A glob over what a reader is called: `*` for any text, `?` for one character, the rest literal,
/// in upper or lower case. Makers write their own names in both (Omnikey, OMNIKEY).
///
/// Brackets are literal too: PC/SC names have them.
#[derive(Clone, PartialEq)]
pub struct Glob(WildMatch);

impl Glob {
    /// A glob from its text; every text is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(WildMatch::new_case_insensitive(pattern))
    }

    /// Whether the glob stands for this text.
    #[must_use]
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

/// What a reader's driver tells of it, where it does (PC/SC part 3, section 3.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReaderAttributes {
    /// `SCARD_ATTR_VENDOR_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// `SCARD_ATTR_VENDOR_IFD_SERIAL_NO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// Which readers a rule is about.
#[derive(Debug, Clone, PartialEq)]
pub enum ReaderMatch {
    /// Those with such a name.
    Name(Glob),
    /// Those of such a vendor.
    Vendor(Glob),
    /// The one with this serial number, or a few.
    Serial(Glob),
}

impl ReaderMatch {
    /// A glob over names; over vendors or serial numbers where the text says so in front, as in
    /// `serial:3F0012*`. No PC/SC name begins like that.
    #[must_use]
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

    /// Whether it is about this reader.
    #[must_use]
    pub fn matches(&self, reader: &ReaderName, attributes: &ReaderAttributes) -> bool {
        let told = |glob: &Glob, value: &Option<String>| {
            value.as_ref().is_some_and(|value| glob.matches(value))
        };
        match self {
            Self::Name(glob) => glob.matches(reader.as_str()),
            Self::Vendor(glob) => told(glob, &attributes.vendor),
            Self::Serial(glob) => told(glob, &attributes.serial),
        }
    }

    const fn needs_attributes(&self) -> bool {
        matches!(self, Self::Vendor(_) | Self::Serial(_))
    }
}

/// One `[[reader]]` of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderRule {
    /// Which readers it is about.
    pub matches: ReaderMatch,
    /// What people call the reader; its PC/SC name where this is not set.
    pub label: Option<String>,
    /// A free word for the rules.
    pub role: String,
    /// Whether cards in it are looked at.
    pub enabled: bool,
    /// How long a card may be gone and still not have left.
    pub removal_debounce: Duration,
}

/// What the configuration makes of a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderSettings {
    /// What people call the reader.
    pub label: String,
    /// A free word for the rules.
    pub role: String,
    /// Whether cards in it are looked at.
    pub enabled: bool,
    /// How long a card may be gone and still not have left.
    #[serde(skip)]
    pub removal_debounce: Duration,
}

/// Every `[[reader]]`, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReaderRules(pub Vec<ReaderRule>);

impl ReaderRules {
    /// The role of a reader that no rule is about.
    pub const DEFAULT_ROLE: &str = "desk";

    /// Whether a reader's name alone does not tell its place.
    #[must_use]
    pub fn need_attributes(&self) -> bool {
        self.0.iter().any(|rule| rule.matches.needs_attributes())
    }

    /// Whether the name of this reader alone does not tell its place: a rule that comes before those
    /// that match it asks for what its driver tells.
    #[must_use]
    pub fn need_attributes_of(&self, reader: &ReaderName) -> bool {
        let unknown = ReaderAttributes::default();
        let first = self
            .0
            .iter()
            .map(|rule| &rule.matches)
            .find(|matches| matches.needs_attributes() || matches.matches(reader, &unknown));
        first.is_some_and(ReaderMatch::needs_attributes)
    }

    /// The place of a reader: the first rule that matches it, or label = name and role = "desk".
    #[must_use]
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
    fn brackets_in_a_glob_are_literal() {
        let name = ReaderName::from("HID Omnikey 3121 [CCID Interface] (AB12) 00 00");
        assert!(Glob::new("*Omnikey*[CCID Interface]*").matches(name.as_str()));
        assert!(!Glob::new("*Omnikey*[XYZ]*").matches(name.as_str()));
    }

    #[test]
    fn a_glob_ignores_case_in_names_vendors_and_serial_numbers() {
        let name =
            ReaderName::from("HID Global OMNIKEY 3x21 Smart Card Reader [Leseger\u{c4}t] 00 00");
        let told = ReaderAttributes {
            vendor: Some("HID Global".to_owned()),
            serial: Some("OKCM0011ab".to_owned()),
        };
        let matches = |pattern: &str| ReaderMatch::new(pattern).matches(&name, &told);
        assert!(matches("*Omnikey*") && matches("*omnikey*") && matches("*OmniKey*"));
        assert!(matches("*leseger\u{e4}t*") && matches("*00 0?"));
        assert!(matches("vendor:hid*") && matches("Serial:okcm0011AB"));
        assert!(!matches("*omnikex*") && !matches("serial:okcm0011") && !matches("vendor:omnikey"));
    }

    #[test]
    fn the_first_matching_rule_places_a_reader() {
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
    fn a_reader_can_be_told_by_what_its_driver_says() {
        let name = ReaderName::from("ACS ACR39U 01 00");
        let told = ReaderAttributes { vendor: Some("ACS".into()), serial: Some("R-17".into()) };
        let matches = |pattern: &str| ReaderMatch::new(pattern).matches(&name, &told);
        assert!(matches("serial:R-1?") && matches("vendor:AC*") && matches("*ACR39U*"));
        assert!(!matches("serial:R-2*") && !matches("vendor:HID") && !matches("R-17"));
        let untold = ReaderAttributes::default();
        assert!(!ReaderMatch::new("serial:*").matches(&name, &untold));
        assert!(ReaderMatch::new("serial:*").needs_attributes());
    }
}
