//! Numbers of a card that people and other systems know it by, and CM does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A number that a card or its reader may tell besides the card's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InventoryNumber {
    /// The ICCSN of EF.GDO (ISO 7816-4, data object 5A): its digits, without padding.
    Iccsn,
    /// The 42 bytes of card production life cycle data (GlobalPlatform, data object 9F7F), in hex.
    Cplc,
    /// The serial number on a YubiKey's casing, in decimal.
    YubikeySerial,
    /// The UID by which a reader tells contactless cards apart (PC/SC part 3), in hex.
    ContactlessUid,
    /// The card identifier of a PIV card's CCC (NIST SP 800-73-4, data object F0), in hex.
    PivCcc,
}

impl InventoryNumber {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iccsn => "ICCSN",
            Self::Cplc => "CPLC",
            Self::YubikeySerial => "YubiKey serial",
            Self::ContactlessUid => "Contactless UID",
            Self::PivCcc => "PIV CCC",
        }
    }
}

/// What a card says about itself besides its identity, as far as it says anything.
///
/// For people: shown and audited, and never used to find a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inventory(BTreeMap<InventoryNumber, String>);

impl Inventory {
    /// Adds what a card told, if it told anything.
    pub fn note(&mut self, number: InventoryNumber, value: Option<String>) {
        self.0.extend(value.map(|value| (number, value)));
    }

    /// What the card told.
    #[must_use]
    pub fn get(&self, number: InventoryNumber) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// Whether the card told nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that the card told.
    pub fn iter(&self) -> impl Iterator<Item = (InventoryNumber, &str)> {
        self.0.iter().map(|(number, value)| (*number, value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_card_does_not_tell_is_not_there() {
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
