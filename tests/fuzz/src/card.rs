//! A family's probe against a card of bad will. `hostile` says what the input is.

use cardbridge::card::{MAX_COMMANDS, ProbeError, ProbeTarget, TransmitError, identify};
use cardbridge::domain::{
    Candidate, CardIdentity, Family, IdRule, Inventory, InventoryNumber, ProbePlan, Strength,
};

use super::hostile::Hostile;

/// The longest command: a header, Lc, 16 bytes and Le.
const LONGEST_COMMAND: usize = 4 + 1 + 16 + 1;

/// Asks the card that the input describes whether it is of this family, and who it is.
pub fn check(family: Family, data: &[u8]) {
    let mut card = Hostile::new(data);
    let Some(atr) = card.atr() else { return };
    let in_use = card.is_in_use();
    let plan = ProbePlan { families: vec![family], id_rule: None, inventory: true };
    let mut inventory = Inventory::default();
    let result =
        identify(&mut card, ProbeTarget { atr: &atr, plan: &plan, in_use }, &mut inventory);

    assert!(card.sent.len() <= MAX_COMMANDS, "{} commands", card.sent.len());
    for command in &card.sent {
        assert!(only_reads(command), "{}", hex::encode(command));
        assert!(!in_use || command.get(1) != Some(&0xA4), "a SELECT of a card in use");
    }
    // A card that leaves after its ids were read is identified all the same.
    if card.gone
        && let Err(why) = &result
    {
        assert_eq!(*why, ProbeError::Interrupted(TransmitError::Removed));
    }
    check_inventory(&inventory);
    match result {
        Ok(identity) => is_of(family, &identity, &card.given()),
        Err(why) => assert!(is_line(&why.to_string()), "{why:?}"),
    }
}

fn only_reads(command: &[u8]) -> bool {
    let known: &[u8] = match command.first() {
        Some(0x00) => &[0xA4, 0xB0, 0xB2, 0xC0, 0xCA, 0xCB, 0x1D, 0xF8],
        Some(0x80 | 0xFF) => &[0xCA],
        _ => &[],
    };
    command.get(1).is_some_and(|instruction| known.contains(instruction))
        && (4..=LONGEST_COMMAND).contains(&command.len())
}

/// An identity is made of what the card gave, and of nothing else.
fn is_of(family: Family, identity: &CardIdentity, given: &[u8]) {
    let serial = hex_of(&identity.serial.to_string());
    assert!(!serial.is_empty() && contains(given, &serial), "{identity:?}");
    assert_eq!(identity.family, family);
    assert_eq!(identity.primary(), identity.candidates().next().unwrap_or(identity.primary()));
    for Candidate { card_id, rule, strength, pinned } in identity.candidates() {
        let uuid = card_id.uuid();
        assert!(!pinned, "{identity:?}");
        if *strength == Strength::Unique {
            assert!(contains(given, uuid.as_bytes()) || contains(given, &uuid.to_bytes_le()));
        }
        assert!(!uuid.is_nil() && !uuid.is_max(), "{identity:?}");
        assert_eq!(rule.family(), family);
        let comes_from_card = match rule {
            IdRule::GidsCardid | IdRule::IdprimeCardid | IdRule::PivGuidLe | IdRule::PivFascn => {
                contains(given, &uuid.to_bytes_le())
            }
            IdRule::GidsCardidBe | IdRule::IdprimeCardidBe | IdRule::PivGuidBe => {
                contains(given, uuid.as_bytes())
            }
            IdRule::PivOpensc | IdRule::OpenpgpOpensc | IdRule::Pkcs15Opensc => {
                uuid.to_bytes_le() == of_serial(&serial)
            }
        };
        assert!(comes_from_card, "{rule} of {identity:?}");
    }
    assert!(identity.candidates().count() <= 4, "{identity:?}");
}

/// What OpenSC's minidriver makes of a serial: its bytes over and over, or those of its text where
/// they are too many.
fn of_serial(serial: &[u8]) -> [u8; 16] {
    let text = hex::encode(serial).into_bytes();
    let bytes = if serial.len() > 32 { &text } else { serial };
    let mut id = [0; 16];
    id.iter_mut().zip(bytes.iter().cycle()).for_each(|(to, from)| *to = *from);
    id
}

fn check_inventory(inventory: &Inventory) {
    for (number, value) in inventory.iter() {
        assert!(!value.is_empty(), "{number:?}");
        match number {
            InventoryNumber::YubikeySerial => assert!(value.parse::<u32>().is_ok(), "{value}"),
            InventoryNumber::Cplc => assert_eq!(hex_of(value).len(), 42),
            InventoryNumber::ContactlessUid | InventoryNumber::PivCcc => {
                assert!(!hex_of(value).is_empty());
            }
            // A last digit may be missing: padding fills the byte.
            InventoryNumber::Iccsn => {
                assert!(value.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
            }
        }
    }
}

/// The bytes of hex in one case.
fn hex_of(text: &str) -> Vec<u8> {
    let bytes = hex::decode(text).unwrap_or_default();
    let one_case = hex::encode(&bytes) == text || hex::encode_upper(&bytes) == text;
    assert!(one_case, "hex of two cases: {text}");
    bytes
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// One line, not an endless one.
fn is_line(text: &str) -> bool {
    (1..1000).contains(&text.len()) && !text.contains(char::is_control)
}
