//! What identifies a card: its family, its serial, and the ids under which CM may know it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Atr, AtrPattern, IdRule, Inventory, Place, Strength};

/// A text that names none of the values of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {known}")]
pub struct UnknownName {
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
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|family| family.as_str() == name).ok_or_else(|| UnknownName {
            name: name.to_owned(),
            known: "gids, idprime, piv, openpgp, pkcs15",
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
    #[error("an id of all zeros or all ones belongs to no particular card")]
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
    /// Bytes that the card gave, as lower-case hex in file order (OpenSC's form).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(bytes))
    }

    /// Bytes that OpenSC has from a driver of its own, which it prints as upper-case hex.
    #[must_use]
    pub fn from_drivers_bytes(bytes: &[u8]) -> Self {
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
pub enum Trust {
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
    pub const fn trust(&self) -> Trust {
        match (self.pinned, self.strength) {
            (true, _) | (false, Strength::Unique) => Trust::Id,
            (false, Strength::Serial) => Trust::IdAndAtr,
            (false, Strength::Shared) => Trust::Nothing,
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
#[serde(try_from = "IdentityForm", into = "IdentityForm")]
pub struct Identity {
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
struct IdentityForm {
    family: Family,
    serial: Serial,
    candidates: Vec<Candidate>,
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    inventory: Inventory,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl From<Identity> for IdentityForm {
    fn from(identity: Identity) -> Self {
        let candidates = identity.candidates().cloned().collect();
        let Identity { family, serial, inventory, partial, .. } = identity;
        Self { family, serial, candidates, inventory, partial }
    }
}

impl TryFrom<IdentityForm> for Identity {
    type Error = &'static str;

    fn try_from(form: IdentityForm) -> Result<Self, &'static str> {
        let mut candidates = form.candidates.into_iter();
        let first = candidates.next().ok_or("an identity without candidates")?;
        let identity = Self::new(form.family, form.serial, first, candidates.collect());
        Ok(Self { partial: form.partial, ..identity.with_inventory(form.inventory) })
    }
}

impl Identity {
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
    pub const fn first(&self) -> &Candidate {
        &self.first
    }

    /// What makes two insertions the same card, where the card has this ATR.
    #[must_use]
    pub fn key(&self, atr: &Atr) -> CardKey {
        let more = match self.first.strength {
            Strength::Unique => None,
            Strength::Serial | Strength::Shared => Some(Box::new(All {
                family: self.family,
                serial: self.serial.clone(),
                ids: self.candidates().map(|candidate| candidate.card_id).collect(),
                atr: atr.clone(),
            })),
        };
        CardKey { id: self.first.card_id, more }
    }
}

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
                let serial = Serial((*serial).to_owned());
                let ids = ids.split(',').map(id).collect::<Result<_, _>>()?;
                let atr = atr.parse().map_err(|_| "a card whose ATR is none")?;
                Ok(Self { id: id(first)?, more: Some(Box::new(All { family, serial, ids, atr })) })
            }
            _ => Err("a card of too many or too few parts"),
        }
    }
}

/// A card that was seen but whose identity is not known, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotIdentified {
    /// The kind of reason.
    pub reason: NotIdentifiedReason,
    /// What happened, for people.
    pub detail: String,
    /// What the card says of itself all the same.
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
}

impl NotIdentified {
    /// A card that said nothing of itself.
    #[must_use]
    pub fn new(reason: NotIdentifiedReason, detail: String) -> Self {
        Self { reason, detail, inventory: Inventory::default() }
    }

    /// Why a card is not to be touched, if the configuration says so.
    #[must_use]
    pub fn left_alone(place: &Place, skip_atr: &[AtrPattern], atr: &Atr) -> Option<Self> {
        let detail = if skip_atr.iter().any(|pattern| pattern.matches(atr)) {
            "cards.skip_atr names its ATR"
        } else if place.enabled {
            return None;
        } else {
            "the reader is switched off"
        };
        Some(Self::new(NotIdentifiedReason::Skipped, detail.to_owned()))
    }
}

/// Why a card's identity is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotIdentifiedReason {
    /// No family that is switched on recognised it.
    UnknownFamily,
    /// The family is known, but the card holds no usable id.
    NoId,
    /// It did not answer at power-up: upside down, dirty or dead.
    Mute,
    /// Another program has it for itself, or uses it in a way that we would disturb.
    Busy,
    /// It was taken out before it was read.
    Removed,
    /// It did not answer within the deadline.
    Timeout,
    /// The configuration says to leave it alone (`cards.skip_atr`).
    Skipped,
    /// Reader or card failed on the way.
    Failed,
}

impl NotIdentifiedReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownFamily,
        Self::NoId,
        Self::Mute,
        Self::Busy,
        Self::Removed,
        Self::Timeout,
        Self::Skipped,
        Self::Failed,
    ];

    /// The name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFamily => "unknown-family",
            Self::NoId => "no-id",
            Self::Mute => "mute",
            Self::Busy => "busy",
            Self::Removed => "removed",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for NotIdentifiedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

    fn identity(serial: &[u8], strength: Strength) -> Identity {
        let card_id = "bc88f13f-83ba-4037-8262-46eba1291c6e".parse().unwrap();
        let first = Candidate { card_id, rule: IdRule::Pkcs15Opensc, strength, pinned: false };
        Identity::new(Family::Pkcs15, Serial::from_bytes(serial), first, vec![])
    }

    #[test]
    fn cards_of_one_unique_id_are_one_card_and_those_of_another_id_only_if_all_else_is_the_same() {
        let atrs: [Atr; 2] = ["3b00".parse().unwrap(), "3b8001".parse().unwrap()];
        let key = |serial: &[u8], strength, atr| identity(serial, strength).key(atr);
        let unique = key(&[1], Strength::Unique, &atrs[0]);
        let openpgp = |strength| Identity { family: Family::Openpgp, ..identity(&[1], strength) };
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

    #[test]
    fn a_candidate_that_was_stored_without_a_strength_has_that_of_its_rule() {
        let read = |rule: &str, id: &str| -> Candidate {
            serde_json::from_str(&format!(r#"{{"card_id":"{id}","rule":"{rule}"}}"#)).unwrap()
        };
        let id = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        assert_eq!(read("gids-cardid", id).trust(), Trust::Id);
        assert_eq!(read("piv-guid-be", id).trust(), Trust::Id);
        let counted = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        assert_eq!(read("gids-cardid", counted).trust(), Trust::Nothing);
        for rule in ["piv-fascn", "piv-opensc", "openpgp-opensc", "pkcs15-opensc"] {
            assert_eq!(read(rule, id).trust(), Trust::Nothing, "{rule}");
        }
        let pinned = Candidate { pinned: true, ..read("openpgp-opensc", id) };
        let stored = serde_json::to_string(&pinned).unwrap();
        assert!(stored.ends_with(r#""strength":"shared","pinned":true}"#), "{stored}");
        assert_eq!(serde_json::from_str::<Candidate>(&stored).unwrap(), pinned);
        assert_eq!(pinned.trust(), Trust::Id);
    }

    #[test]
    fn every_family_is_found_by_its_name() {
        for family in Family::ALL {
            assert_eq!(family.as_str().parse(), Ok(family));
        }
    }
}
