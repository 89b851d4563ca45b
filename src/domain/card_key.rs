//! What makes two insertions the same card.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Atr, CardId, CardIdentity, Family, Serial, Strength};

/// What makes two insertions the same card: its first id; where another card can carry that one too,
/// also all else that it says of itself.
///
/// As text: the id, and behind it its family, its whole serial, all of its ids with commas between them,
/// and its ATR, each after a blank.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardKey {
    id: CardId,
    more: Option<Box<All>>,
}

/// All that a card says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct All {
    family: Family,
    serial: Serial,
    ids: BTreeSet<CardId>,
    atr: Atr,
}

impl fmt::Display for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        match self.more.as_deref() {
            Some(All { family, serial, ids, atr }) => {
                let ids: Vec<_> = ids.iter().map(CardId::to_string).collect();
                write!(f, " {family} {serial} {} {atr}", ids.join(","))
            }
            None => Ok(()),
        }
    }
}

impl From<CardKey> for String {
    fn from(key: CardKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for CardKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let parts: Vec<_> = text.split(' ').collect();
        let id = |text: &str| text.parse().map_err(|_| "a card whose id is none");
        match parts.as_slice() {
            [first] => Ok(Self { id: id(first)?, more: None }),
            [first, family, serial, ids, atr] => {
                let family = family.parse().map_err(|_| "a card whose family is none")?;
                let serial = Serial::from_stored(serial);
                let ids = ids.split(',').map(id).collect::<Result<_, _>>()?;
                let atr = atr.parse().map_err(|_| "a card whose ATR is none")?;
                Ok(Self { id: id(first)?, more: Some(Box::new(All { family, serial, ids, atr })) })
            }
            _ => Err("a card of too many or too few parts"),
        }
    }
}

impl CardIdentity {
    /// What makes two insertions the same card, where the card has this ATR.
    #[must_use]
    pub fn key(&self, atr: &Atr) -> CardKey {
        let more = match self.primary().strength {
            Strength::Unique => None,
            Strength::Serial | Strength::Shared => Some(Box::new(All {
                family: self.family,
                serial: self.serial.clone(),
                ids: self.candidates().map(|candidate| candidate.card_id).collect(),
                atr: atr.clone(),
            })),
        };
        CardKey { id: self.primary().card_id, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Candidate, IdRule};

    fn identity(serial: &[u8], strength: Strength) -> CardIdentity {
        let card_id = "bc88f13f-83ba-4037-8262-46eba1291c6e".parse().unwrap();
        let first = Candidate { card_id, rule: IdRule::Pkcs15Opensc, strength, pinned: false };
        CardIdentity::new(Family::Pkcs15, Serial::from_bytes(serial), first, vec![])
    }

    #[test]
    fn cards_of_one_unique_id_are_one_card_and_those_of_another_id_only_if_all_else_is_the_same() {
        let atrs: [Atr; 2] = ["3b00".parse().unwrap(), "3b8001".parse().unwrap()];
        let key = |serial: &[u8], strength, atr| identity(serial, strength).key(atr);
        let unique = key(&[1], Strength::Unique, &atrs[0]);
        let openpgp = |strength| {
            let mut identity = identity(&[1], strength);
            identity.family = Family::Openpgp;
            identity
        };
        assert_eq!(unique, key(&[2], Strength::Unique, &atrs[1]));
        for strength in [Strength::Serial, Strength::Shared] {
            let one = key(&[1], strength, &atrs[0]);
            assert_eq!(one, key(&[1], strength, &atrs[0]));
            assert_ne!(one, key(&[2], strength, &atrs[0]), "{strength}");
            assert_ne!(one, key(&[1], strength, &atrs[1]), "{strength}");
            assert_ne!(one, openpgp(strength).key(&atrs[0]), "{strength}");
            assert_ne!(one, unique);
        }
    }

    #[test]
    fn the_key_of_a_card_is_stored_as_text_and_that_of_version_0_1_is_read() {
        let atr: Atr = "3b00".parse().unwrap();
        for strength in Strength::ALL {
            let key = identity(&[1, 2], strength).key(&atr);
            let stored = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<CardKey>(&stored).unwrap(), key);
        }
        let old = r#""bc88f13f-83ba-4037-8262-46eba1291c6e""#;
        let unique = identity(&[1], Strength::Unique).key(&atr);
        assert_eq!(serde_json::from_str::<CardKey>(old).unwrap(), unique);
        for bad in ["", "x", "bc88f13f-83ba-4037-8262-46eba1291c6e 01", "a b c d e"] {
            assert!(CardKey::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
