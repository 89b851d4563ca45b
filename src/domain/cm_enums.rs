//! CM's enumerations: names in, numbers out. A site may extend or correct every map.

use super::{CardStatus, RequestStatus, RequestType};

/// Names of one enumeration of CM's. A number without a name stays a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumMap(Vec<(String, i64)>);

impl EnumMap {
    fn of(pairs: &[(&str, i64)]) -> Self {
        Self(pairs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect())
    }

    /// The number of a name, whatever its case.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
    }

    /// The name of a number, in CM's spelling.
    #[must_use]
    pub fn name(&self, number: i64) -> Option<&str> {
        self.0.iter().find(|(_, known)| *known == number).map(|(name, _)| name.as_str())
    }

    /// The name of a number, or a text that says that there is none.
    #[must_use]
    pub fn describe(&self, number: i64) -> String {
        self.name(number).map_or_else(|| format!("{number} (unknown)"), str::to_owned)
    }

    /// Gives `name` this number, in place of whatever either was before.
    pub fn set(&mut self, name: &str, number: i64) {
        self.0.retain(|(known, taken)| !known.eq_ignore_ascii_case(name) && *taken != number);
        self.0.push((name.to_owned(), number));
    }

    /// Every name with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, number)| (name.as_str(), *number))
    }
}

/// The enumerations that the agent reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmEnums {
    /// `SmartcardStatus`.
    pub card_status: EnumMap,
    /// `RequestType`.
    pub request_type: EnumMap,
    /// `RequestStatus`.
    pub request_status: EnumMap,
}

impl Default for CmEnums {
    /// What is known of CM's numbers; `docs/cm-protocol.md` says how sure each is.
    fn default() -> Self {
        Self {
            card_status: EnumMap::of(&[
                ("New", 0),
                ("Assigned", 1),
                ("Active", 2),
                ("Disabled", 3),
                ("Retired", 6),
            ]),
            request_type: EnumMap::of(&[
                ("Enroll", 1),
                ("Recover", 2),
                ("Renew", 3),
                ("Disable", 4),
                ("Unblock", 5),
                ("Duplicate", 6),
                ("Retire", 7),
                ("RecoverOnBehalf", 8),
                ("SuspendOrReinstate", 9),
                ("OnlineUpdate", 10),
                ("TemporaryCardEnroll", 11),
            ]),
            request_status: EnumMap::of(&[
                ("None", 0),
                ("Approved", 3),
                ("Denied", 4),
                ("Completed", 8),
                ("Failed", 9),
                ("Pending", 16),
                ("Canceled", 17),
                ("Executing", 18),
            ]),
        }
    }
}

impl CmEnums {
    /// A card status in words.
    #[must_use]
    pub fn card_status_text(&self, status: CardStatus) -> String {
        self.card_status.describe(status.number())
    }

    /// A request type in words.
    #[must_use]
    pub fn request_type_text(&self, kind: RequestType) -> String {
        self.request_type.describe(kind.number())
    }

    /// A request status in words.
    #[must_use]
    pub fn request_status_text(&self, status: RequestStatus) -> String {
        self.request_status.describe(status.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_can_correct_and_extend_every_map() {
        let mut numbers = CmEnums::default();
        numbers.card_status.set("Suspended", 5);
        numbers.request_type.set("retire", 17);
        assert_eq!(numbers.card_status.name(5), Some("Suspended"));
        assert_eq!(numbers.request_type.number("Retire"), Some(17));
        assert_eq!(numbers.request_type.name(7), None);
    }

    #[test]
    fn an_unknown_number_is_described_not_refused() {
        assert_eq!(CmEnums::default().card_status_text(CardStatus::new(5)), "5 (unknown)");
    }
}
