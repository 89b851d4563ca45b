//! What identifies a card: its family, its serial, and the ids under which CM may know it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{IdRule, Inventory, Strength};

/// A text that names none of the values of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {known}")]
pub struct UnknownEnumValue {
    /// The text.
    pub name: String,
    /// The names that would have done.
    pub known: &'static str,
}

/// A family of cards: the protocol by which the id is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Microsoft's Generic Identity Device Specification, TPM virtual smart cards included.
    Gids,
    /// Thales (Gemalto) IDPrime.
    Idprime,
    /// NIST SP 800-73 Personal Identity Verification.
    Piv,
    /// The OpenPGP application.
    Openpgp,
    /// ISO 7816-15.
    Pkcs15,
}

impl Family {
    /// Every family that the configuration may name, in the contract's probing order.
    pub const ALL: [Self; 5] = [Self::Gids, Self::Idprime, Self::Piv, Self::Openpgp, Self::Pkcs15];

    /// The name in configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gids => "gids",
            Self::Idprime => "idprime",
            Self::Piv => "piv",
            Self::Openpgp => "openpgp",
            Self::Pkcs15 => "pkcs15",
        }
    }
}

impl FromStr for Family {
    type Err = UnknownEnumValue;

    fn from_str(name: &str) -> Result<Self, UnknownEnumValue> {
        Self::ALL.into_iter().find(|family| family.as_str() == name).ok_or_else(|| {
            UnknownEnumValue { name: name.to_owned(), known: "gids, idprime, piv, openpgp, pkcs15" }
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id under which CM knows a card: its `SerialNumber` without braces.
///
/// All-zero and all-FF ids do not exist as a `CardId`: they would match foreign cards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct CardId(Uuid);

/// Why a value is no card id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardIdError {
    /// Not a GUID in any of its usual forms.
    #[error("not a GUID")]
    NotGuid,
    /// All bits zero, or all set: the id of no particular card.
    #[error("an id of all zeros or all ones is not unique to a card")]
    NotUnique,
}

impl CardId {
    /// The id as 16 bytes in RFC 9562 order.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl TryFrom<Uuid> for CardId {
    type Error = CardIdError;

    fn try_from(uuid: Uuid) -> Result<Self, CardIdError> {
        if uuid.is_nil() || uuid.is_max() { Err(CardIdError::NotUnique) } else { Ok(Self(uuid)) }
    }
}

impl From<CardId> for Uuid {
    fn from(id: CardId) -> Self {
        id.0
    }
}

impl FromStr for CardId {
    type Err = CardIdError;

    /// Reads any case, with or without braces and hyphens.
    fn from_str(text: &str) -> Result<Self, CardIdError> {
        let uuid = Uuid::try_parse(text.trim()).map_err(|_| CardIdError::NotGuid)?;
        Self::try_from(uuid)
    }
}

impl fmt::Display for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardId({self})")
    }
}

/// A card's serial as text: what a person compares with other tools.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(String);

impl Serial {
    /// The text of one that was stored.
    pub(super) fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Bytes that the card gave, as lower-case hex in file order (OpenSC's form).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(bytes))
    }

    /// Bytes that OpenSC has from a driver of its own, which it prints as upper-case hex.
    #[must_use]
    pub fn from_opensc_driver(bytes: &[u8]) -> Self {
        Self(hex::encode_upper(bytes))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One id under which CM may know the card, the rule that made it, and how much it proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CandidateForm")]
pub struct Candidate {
    /// The id to ask CM for.
    pub card_id: CardId,
    /// How it was made.
    pub rule: IdRule,
    /// How much it proves.
    pub strength: Strength,
    /// Whether the site pinned the rule for this card (`[[card]] id_rule`), and the value is not
    /// known to belong to no card.
    #[serde(skip_serializing_if = "super::is_false")]
    pub pinned: bool,
}

/// A candidate as it is stored: version 0.1 stored no strength.
#[derive(Deserialize)]
struct CandidateForm {
    card_id: CardId,
    rule: IdRule,
    strength: Option<Strength>,
    #[serde(default)]
    pinned: bool,
}

impl From<CandidateForm> for Candidate {
    fn from(form: CandidateForm) -> Self {
        let CandidateForm { card_id, rule, strength, pinned } = form;
        let strength = strength.unwrap_or_else(|| Strength::by_rule(rule, card_id.uuid()));
        Self { card_id, rule, strength, pinned }
    }
}

/// When a record that CM has under an id may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdTrust {
    /// The id alone proves that the record is this card's.
    Id,
    /// The id and the card's ATR together do.
    IdAndAtr,
    /// Nothing proves it.
    Nothing,
}

impl Candidate {
    /// An id of which only the value and its rule are known.
    #[must_use]
    pub fn by_rule(card_id: CardId, rule: IdRule) -> Self {
        Self { card_id, rule, strength: Strength::by_rule(rule, card_id.uuid()), pinned: false }
    }

    /// When a record that CM has under this id may be changed. A pinned id acts like a unique one:
    /// the site has checked how its cards are numbered.
    #[must_use]
    pub const fn trust(&self) -> IdTrust {
        match (self.pinned, self.strength) {
            (true, _) | (false, Strength::Unique) => IdTrust::Id,
            (false, Strength::Serial) => IdTrust::IdAndAtr,
            (false, Strength::Shared) => IdTrust::Nothing,
        }
    }

    /// The rule, and the strength where it is not `unique`, for people.
    #[must_use]
    pub fn origin(&self) -> String {
        let Self { rule, strength, pinned, .. } = self;
        match (strength, pinned) {
            (Strength::Unique, false) => rule.to_string(),
            (Strength::Serial | Strength::Shared, false) => format!("{rule} ({strength})"),
            (_, true) => format!("{rule} ({strength}, pinned)"),
        }
    }
}

/// Who a card is: its family, and at least one candidate id, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CardIdentityData", into = "CardIdentityData")]
pub struct CardIdentity {
    /// The protocol that answered.
    pub family: Family,
    /// The serial for people.
    pub serial: Serial,
    /// What else the card says of itself, for people too.
    pub inventory: Inventory,
    /// Whether another program used the card, so that it could not be read in full.
    pub partial: bool,
    first: Candidate,
    rest: Vec<Candidate>,
}

/// An identity as it is stored and shown.
#[derive(Serialize, Deserialize)]
struct CardIdentityData {
    family: Family,
    serial: Serial,
    candidates: Vec<Candidate>,
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    inventory: Inventory,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl From<CardIdentity> for CardIdentityData {
    fn from(identity: CardIdentity) -> Self {
        let candidates = identity.candidates().cloned().collect();
        let CardIdentity { family, serial, inventory, partial, .. } = identity;
        Self { family, serial, candidates, inventory, partial }
    }
}

impl TryFrom<CardIdentityData> for CardIdentity {
    type Error = &'static str;

    fn try_from(form: CardIdentityData) -> Result<Self, &'static str> {
        let mut candidates = form.candidates.into_iter();
        let first = candidates.next().ok_or("an identity without candidates")?;
        let identity = Self::new(form.family, form.serial, first, candidates.collect());
        Ok(Self { partial: form.partial, ..identity.with_inventory(form.inventory) })
    }
}

impl CardIdentity {
    /// An identity of `first` and whatever else the card may be known as.
    #[must_use]
    pub fn new(family: Family, serial: Serial, first: Candidate, rest: Vec<Candidate>) -> Self {
        Self { family, serial, inventory: Inventory::default(), partial: false, first, rest }
    }

    /// The same identity, with what else the card says of itself.
    #[must_use]
    pub fn with_inventory(self, inventory: Inventory) -> Self {
        Self { inventory, ..self }
    }

    /// Whether both may be one card of which one was read in part: they share an id.
    #[must_use]
    pub fn shares_id_with(&self, other: &Self) -> bool {
        self.candidates().any(|own| other.candidates().any(|its| its.card_id == own.card_id))
    }

    /// Every candidate, the likeliest first.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The likeliest candidate.
    #[must_use]
    pub const fn primary(&self) -> &Candidate {
        &self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_id_reads_every_usual_form_and_prints_one() {
        let plain = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        for text in
            [plain.to_owned(), format!("{{{plain}}}"), plain.to_uppercase(), plain.replace('-', "")]
        {
            assert_eq!(text.parse::<CardId>().unwrap().to_string(), plain);
        }
    }

    #[test]
    fn ids_of_no_particular_card_do_not_exist() {
        for text in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
        {
            assert_eq!(text.parse::<CardId>(), Err(CardIdError::NotUnique));
        }
        assert_eq!("SC 12".parse::<CardId>(), Err(CardIdError::NotGuid));
    }

    #[test]
    fn a_candidate_that_was_stored_without_a_strength_has_that_of_its_rule() {
        let read = |rule: &str, id: &str| -> Candidate {
            serde_json::from_str(&format!(r#"{{"card_id":"{id}","rule":"{rule}"}}"#)).unwrap()
        };
        let id = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        assert_eq!(read("gids-cardid", id).trust(), IdTrust::Id);
        assert_eq!(read("piv-guid-be", id).trust(), IdTrust::Id);
        let counted = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        assert_eq!(read("gids-cardid", counted).trust(), IdTrust::Nothing);
        for rule in ["piv-fascn", "piv-opensc", "openpgp-opensc", "pkcs15-opensc"] {
            assert_eq!(read(rule, id).trust(), IdTrust::Nothing, "{rule}");
        }
        let pinned = Candidate { pinned: true, ..read("openpgp-opensc", id) };
        let stored = serde_json::to_string(&pinned).unwrap();
        assert!(stored.ends_with(r#""strength":"shared","pinned":true}"#), "{stored}");
        assert_eq!(serde_json::from_str::<Candidate>(&stored).unwrap(), pinned);
        assert_eq!(pinned.trust(), IdTrust::Id);
    }

    #[test]
    fn every_family_is_found_by_its_name() {
        for family in Family::ALL {
            assert_eq!(family.as_str().parse(), Ok(family));
        }
    }
}
