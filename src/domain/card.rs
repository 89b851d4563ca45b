//! What identifies a card: its family, its serial, and the ids under which CM may know it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::{Atr, is_placeholder};

/// A family of cards: the protocol by which the id is read. In the order of probing.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Family {
    /// Microsoft's Generic Identity Device Specification, TPM virtual smart cards included.
    Gids,
    /// Thales (Gemalto) IDPrime.
    Idprime,
    /// NIST SP 800-73 Personal Identity Verification.
    Piv,
    Openpgp,
    /// ISO 7816-15.
    Pkcs15,
}

impl Family {
    pub const ALL: [Self; 5] = [Self::Gids, Self::Idprime, Self::Piv, Self::Openpgp, Self::Pkcs15];
}

/// The rule by which a candidate id was made from what the card said. `docs/cards.md` says how sure
/// each of them is.
///
/// *LE* means a Windows GUID in memory order: the first three fields little-endian. *BE* means the
/// bytes in reading order (RFC 9562).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum IdRule {
    /// The GIDS file `cardid`, LE.
    GidsCardid,
    /// The GIDS file `cardid`, BE, as a hand-made card may have it.
    GidsCardidBe,
    /// The IDPrime file `cardid`, LE.
    IdprimeCardid,
    /// The IDPrime file `cardid`, BE.
    IdprimeCardidBe,
    /// The GUID in the PIV CHUID, LE: what Windows makes of 16 bytes.
    PivGuidLe,
    /// The GUID in the PIV CHUID, BE: what the standard calls it.
    PivGuidBe,
    /// The first 16 bytes of the FASC-N in the PIV CHUID, LE.
    PivFascn,
    /// What OpenSC's minidriver makes of the serial that OpenSC sees on a PIV card.
    PivOpensc,
    /// What OpenSC's minidriver makes of manufacturer and serial of an OpenPGP card.
    OpenpgpOpensc,
    /// What OpenSC's minidriver makes of the serial in a PKCS#15 card's TokenInfo.
    Pkcs15Opensc,
}

impl IdRule {
    /// Every rule that a site may pin.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The family whose cards give such an id.
    pub const fn family(self) -> Family {
        match self {
            Self::GidsCardid | Self::GidsCardidBe => Family::Gids,
            Self::IdprimeCardid | Self::IdprimeCardidBe => Family::Idprime,
            Self::PivGuidLe | Self::PivGuidBe | Self::PivFascn | Self::PivOpensc => Family::Piv,
            Self::OpenpgpOpensc => Family::Openpgp,
            Self::Pkcs15Opensc => Family::Pkcs15,
        }
    }
}

/// How much an id proves: whether a record that CM has under it is this card's. The strongest first.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Strength {
    /// 16 bytes that were made for this card and written on it: a match acts.
    Unique,
    /// A serial number that its issuer gives out once, from which nothing was cut and which nothing
    /// was added to: a match acts if CM's record has this card's ATR.
    Serial,
    /// More than one card can carry it: a match never acts, unless the site pinned the rule.
    Shared,
}

enum_names!(Family, IdRule, Strength);

impl Strength {
    /// Of an id that is 16 bytes as the card has them.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        if is_placeholder(bytes) { Self::Shared } else { Self::Unique }
    }

    /// Of an id of which only the rule and the value are known: those that were stored before ids had
    /// strengths, and those that an operator enters. What was cut or repeated for a derived id is not
    /// known any more.
    pub fn by_rule(rule: IdRule, id: Uuid) -> Self {
        match rule {
            IdRule::GidsCardid
            | IdRule::GidsCardidBe
            | IdRule::IdprimeCardid
            | IdRule::IdprimeCardidBe
            | IdRule::PivGuidLe
            | IdRule::PivGuidBe => Self::of_bytes(id.into_bytes()),
            IdRule::PivFascn | IdRule::PivOpensc | IdRule::OpenpgpOpensc | IdRule::Pkcs15Opensc => {
                Self::Shared
            }
        }
    }
}

/// The id under which CM knows a card: its `SerialNumber` without braces.
///
/// All-zero and all-FF ids do not exist as a `CardId`: they would match foreign cards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct CardId(Uuid);

/// Why a value is not a card id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardIdError {
    #[error("not a GUID")]
    NotGuid,
    #[error("an id of all zeros or all ones is not unique to a card")]
    NotUnique,
}

impl CardId {
    /// The id as 16 bytes in RFC 9562 order.
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

/// A card's serial as text, for comparison with other tools.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(String);

impl Serial {
    /// Bytes that the card gave, as lower-case hex in file order (OpenSC's form).
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(bytes))
    }

    /// Bytes that OpenSC has from a driver of its own, which it prints as upper-case hex.
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
#[serde(from = "StoredCandidate")]
pub struct Candidate {
    pub card_id: CardId,
    pub rule: IdRule,
    pub strength: Strength,
    /// Whether the site pinned the rule for this card (`[[card]] id_rule`), and the value is no
    /// placeholder.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// A candidate as it is stored: version 0.1 stored no strength.
#[derive(Deserialize)]
struct StoredCandidate {
    card_id: CardId,
    rule: IdRule,
    strength: Option<Strength>,
    #[serde(default)]
    pinned: bool,
}

impl From<StoredCandidate> for Candidate {
    fn from(stored: StoredCandidate) -> Self {
        let StoredCandidate { card_id, rule, strength, pinned } = stored;
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
    pub fn by_rule(card_id: CardId, rule: IdRule) -> Self {
        Self { card_id, rule, strength: Strength::by_rule(rule, card_id.uuid()), pinned: false }
    }

    /// A pinned id acts like a unique one: the site has checked how its cards are numbered.
    pub const fn trust(&self) -> IdTrust {
        match (self.pinned, self.strength) {
            (true, _) | (false, Strength::Unique) => IdTrust::Id,
            (false, Strength::Serial) => IdTrust::IdAndAtr,
            (false, Strength::Shared) => IdTrust::Nothing,
        }
    }

    /// The rule, and the strength where it is not `unique`, for output.
    pub fn origin(&self) -> String {
        let Self { rule, strength, pinned, .. } = self;
        match (strength, pinned) {
            (Strength::Unique, false) => rule.to_string(),
            (Strength::Serial | Strength::Shared, false) => format!("{rule} ({strength})"),
            (_, true) => format!("{rule} ({strength}, pinned)"),
        }
    }
}

/// A number that a card or its reader may report besides the card's identity.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
pub enum InventoryNumber {
    /// The ICCSN of EF.GDO (ISO 7816-4, data object 5A): its digits, without padding.
    #[strum(serialize = "ICCSN")]
    Iccsn,
    /// The 42 bytes of card production life cycle data (GlobalPlatform, data object 9F7F), in hex.
    #[strum(serialize = "CPLC")]
    Cplc,
    /// The serial number on a YubiKey's casing, in decimal.
    #[strum(serialize = "YubiKey serial")]
    YubikeySerial,
    /// The UID by which a reader distinguishes contactless cards (PC/SC part 3), in hex.
    #[strum(serialize = "Contactless UID")]
    ContactlessUid,
    /// The card identifier of a PIV card's CCC (NIST SP 800-73-4, data object F0), in hex.
    #[strum(serialize = "PIV CCC")]
    PivCcc,
}

impl InventoryNumber {
    /// The name in output.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a card reports besides its identity: shown and audited, and never used to find a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inventory(BTreeMap<InventoryNumber, String>);

impl Inventory {
    pub fn note(&mut self, number: InventoryNumber, value: Option<String>) {
        self.0.extend(value.map(|value| (number, value)));
    }

    pub fn get(&self, number: InventoryNumber) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (InventoryNumber, &str)> {
        self.0.iter().map(|(number, value)| (*number, value.as_str()))
    }
}

/// Who a card is: its family, and at least one candidate id, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CardIdentityData", into = "CardIdentityData")]
pub struct CardIdentity {
    pub family: Family,
    pub serial: Serial,
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

    fn try_from(data: CardIdentityData) -> Result<Self, &'static str> {
        let CardIdentityData { family, serial, candidates, inventory, partial } = data;
        let mut candidates = candidates.into_iter();
        let first = candidates.next().ok_or("an identity without candidates")?;
        Ok(Self { family, serial, inventory, partial, first, rest: candidates.collect() })
    }
}

impl CardIdentity {
    pub fn new(family: Family, serial: Serial, first: Candidate, rest: Vec<Candidate>) -> Self {
        Self { family, serial, inventory: Inventory::default(), partial: false, first, rest }
    }

    pub fn with_inventory(self, inventory: Inventory) -> Self {
        Self { inventory, ..self }
    }

    /// Whether both may be one card of which one was read in part: they share an id.
    pub fn shares_id_with(&self, other: &Self) -> bool {
        self.candidates().any(|own| other.candidates().any(|its| its.card_id == own.card_id))
    }

    /// Every candidate, the likeliest first.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The likeliest candidate.
    pub const fn primary(&self) -> &Candidate {
        &self.first
    }

    /// What makes two insertions the same card, where the card has this ATR.
    pub fn key(&self, atr: &Atr) -> CardKey {
        let more = (self.primary().strength != Strength::Unique).then(|| {
            Box::new(SharedKey {
                family: self.family,
                serial: self.serial.clone(),
                ids: self.candidates().map(|candidate| candidate.card_id).collect(),
                atr: atr.clone(),
            })
        });
        CardKey { id: self.primary().card_id, more }
    }
}

/// What makes two insertions the same card: its first id; where another card can carry that one too,
/// also all else that it reports.
///
/// As text: the id, and behind it its family, its whole serial, all of its ids with commas between them,
/// and its ATR, each after a blank.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CardKey {
    id: CardId,
    more: Option<Box<SharedKey>>,
}

/// What a key has besides an id that more than one card can carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SharedKey {
    family: Family,
    serial: Serial,
    ids: BTreeSet<CardId>,
    atr: Atr,
}

impl fmt::Display for CardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        let Some(SharedKey { family, serial, ids, atr }) = self.more.as_deref() else {
            return Ok(());
        };
        let ids: Vec<_> = ids.iter().map(CardId::to_string).collect();
        write!(f, " {family} {serial} {} {atr}", ids.join(","))
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
                let more = SharedKey { family, serial, ids, atr };
                Ok(Self { id: id(first)?, more: Some(Box::new(more)) })
            }
            _ => Err("a card of too many or too few parts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_id_parses_every_usual_form() {
        let plain = "bc88f13f-83ba-4037-8262-46eba1291c6e";
        for text in
            [plain.to_owned(), format!("{{{plain}}}"), plain.to_uppercase(), plain.replace('-', "")]
        {
            assert_eq!(text.parse::<CardId>().unwrap().to_string(), plain);
        }
    }

    #[test]
    fn placeholder_ids_are_rejected() {
        for text in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
        {
            assert_eq!(text.parse::<CardId>(), Err(CardIdError::NotUnique));
        }
        assert_eq!("SC 12".parse::<CardId>(), Err(CardIdError::NotGuid));
    }

    #[test]
    fn stored_candidate_without_strength_has_that_of_its_rule() {
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
    fn family_name_parses() {
        for family in Family::ALL {
            assert_eq!(family.as_str().parse(), Ok(family));
        }
    }

    #[test]
    fn id_rule_is_stored_by_its_name() {
        for &rule in IdRule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
            assert!(rule.as_str().starts_with(rule.family().as_str()));
        }
    }

    #[test]
    fn strength_is_stored_by_its_name_and_sorted() {
        for &strength in Strength::VARIANTS {
            assert_eq!(serde_json::to_value(strength).unwrap(), strength.as_str());
        }
        assert!(Strength::VARIANTS.is_sorted());
    }

    #[test]
    fn id_of_known_rule_is_unique_only_if_card_made_it() {
        let made = Uuid::try_parse("bc88f13f-83ba-4037-8262-46eba1291c6e").unwrap();
        let placeholder = Uuid::try_parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        for &rule in IdRule::ALL {
            let derived = matches!(
                rule,
                IdRule::PivFascn | IdRule::PivOpensc | IdRule::OpenpgpOpensc | IdRule::Pkcs15Opensc
            );
            let expected = if derived { Strength::Shared } else { Strength::Unique };
            assert_eq!(Strength::by_rule(rule, made), expected, "{rule}");
            assert_eq!(Strength::by_rule(rule, placeholder), Strength::Shared, "{rule}");
        }
    }

    fn identity(serial: &[u8], strength: Strength) -> CardIdentity {
        let card_id = "bc88f13f-83ba-4037-8262-46eba1291c6e".parse().unwrap();
        let first = Candidate { card_id, rule: IdRule::Pkcs15Opensc, strength, pinned: false };
        CardIdentity::new(Family::Pkcs15, Serial::from_bytes(serial), first, vec![])
    }

    #[test]
    fn only_unique_id_alone_makes_cards_the_same() {
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
    fn card_key_is_stored_as_text_and_reads_version_0_1() {
        let atr: Atr = "3b00".parse().unwrap();
        for &strength in Strength::VARIANTS {
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
    fn inventory_stores_only_what_was_reported() {
        let mut inventory = Inventory::default();
        inventory.note(InventoryNumber::Cplc, None);
        assert!(inventory.is_empty());
        assert_eq!(serde_json::to_string(&inventory).unwrap(), "{}");
        inventory.note(InventoryNumber::YubikeySerial, Some("10365563".to_owned()));
        let text = serde_json::to_string(&inventory).unwrap();
        assert_eq!(text, r#"{"yubikey_serial":"10365563"}"#);
        assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
    }
}
