//! How much an id proves: whether a record that CM has under it is this card's.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{IdRule, is_placeholder};

/// How much an id proves. The strongest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// 16 bytes that were made for this card and written on it: a match acts.
    Unique,
    /// A serial number that its issuer gives out once, from which nothing was cut and which nothing
    /// was added to: a match acts if CM's record has this card's ATR.
    Serial,
    /// More than one card can carry it: a match never acts, unless the site pinned the rule.
    Shared,
}

impl Strength {
    /// Every strength, the strongest first.
    pub const ALL: [Self; 3] = [Self::Unique, Self::Serial, Self::Shared];

    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Serial => "serial",
            Self::Shared => "shared",
        }
    }

    /// What an id proves that is 16 bytes as the card has them: [`Self::Unique`], unless the bytes
    /// are known to belong to no card.
    #[must_use]
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        if is_placeholder(bytes) { Self::Shared } else { Self::Unique }
    }

    /// What an id proves of which only the rule and the value are known: those that were stored
    /// before ids had strengths, and those that a person types.
    #[must_use]
    pub fn by_rule(rule: IdRule, id: Uuid) -> Self {
        match rule {
            IdRule::GidsCardid
            | IdRule::GidsCardidBe
            | IdRule::IdprimeCardid
            | IdRule::IdprimeCardidBe
            | IdRule::PivGuidLe
            | IdRule::PivGuidBe => Self::of_bytes(id.into_bytes()),
            // What was cut or repeated for it is not known any more.
            IdRule::PivFascn | IdRule::PivOpensc | IdRule::OpenpgpOpensc | IdRule::Pkcs15Opensc => {
                Self::Shared
            }
        }
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_have_one_name_and_the_strongest_is_the_least() {
        for strength in Strength::ALL {
            assert_eq!(serde_json::to_value(strength).unwrap(), strength.as_str());
        }
        assert!(Strength::ALL.is_sorted());
    }

    #[test]
    fn an_id_of_which_only_the_rule_is_known_is_unique_only_where_it_is_16_bytes_of_the_card() {
        let made = Uuid::try_parse("bc88f13f-83ba-4037-8262-46eba1291c6e").unwrap();
        let placeholder = Uuid::try_parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        for rule in IdRule::ALL {
            let derived = matches!(
                rule,
                IdRule::PivFascn | IdRule::PivOpensc | IdRule::OpenpgpOpensc | IdRule::Pkcs15Opensc
            );
            let expected = if derived { Strength::Shared } else { Strength::Unique };
            assert_eq!(Strength::by_rule(rule, made), expected, "{rule}");
            assert_eq!(Strength::by_rule(rule, placeholder), Strength::Shared, "{rule}");
        }
    }
}
