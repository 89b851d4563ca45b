//! An answer-to-reset decoded for people (ISO 7816-3:2006 section 8, ISO 7816-4:2005 section 8.1.1).
//!
//! Nothing here decides anything: an ATR is a hint, never proof of identity. Decoding takes what it
//! can get, says what is odd, and never refuses.

use std::fmt;

use crate::domain::Atr;

/// The cards that are known by name, with the ATR as text.
const KNOWN: [(&str, &str); 2] = [
    ("3b8d0180fba000000397425446590301c8", "Microsoft virtual smart card"),
    ("3b8d0180fba000000397425446590401cf", "Microsoft virtual smart card (newer)"),
];

/// What an ATR tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtrFacts {
    /// How bits are sent.
    pub convention: Convention,
    /// The transmission protocols that the card offers, the preferred one first: 0 for T=0.
    pub protocols: Vec<u8>,
    /// The historical bytes: free words of the card's maker.
    pub historical: Vec<u8>,
    /// The entries in the historical bytes, where those say that they are compact-TLV.
    pub entries: Vec<CompactTlv>,
    /// Whether the check byte fits.
    pub checksum: Checksum,
    /// Whether the ATR ends before it should.
    pub cut_off: bool,
    /// The kind of contactless card, where the reader made the ATR up for one.
    pub contactless: Option<Contactless>,
    /// The card's name, where this ATR is known.
    pub known: Option<&'static str>,
}

/// How the card sends bits (byte TS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// TS is 3B.
    Direct,
    /// TS is 3F.
    Inverse,
    /// TS is neither.
    Unknown(u8),
}

/// The check byte TCK, which makes the bytes from T0 on come out as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It fits.
    Right,
    /// It does not, which is no reason to refuse the card.
    Wrong,
    /// It should be there and is not.
    Missing,
    /// A card that offers T=0 only has none.
    NotDue,
}

/// An entry of compact-TLV historical bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactTlv {
    /// The tag, 0 to 15.
    pub tag: u8,
    /// The value.
    pub value: Vec<u8>,
}

/// The ATR that PC/SC part 3 has readers make up for contactless cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contactless {
    /// A card that speaks ISO 14443-4.
    Smart,
    /// A memory card.
    Memory {
        /// The standard, as PC/SC part 3 supplement numbers it.
        standard: u8,
        /// The kind of card, likewise.
        name: u16,
    },
}

impl AtrFacts {
    /// Decodes an ATR.
    #[must_use]
    pub fn of(atr: &Atr) -> Self {
        let bytes = atr.as_bytes();
        let [ts, after_ts @ ..] = bytes else { return Self::nothing() };
        let [t0, rest @ ..] = after_ts else { return Self::nothing() };

        let (indicated, interface_end) = interface_bytes(*t0, rest);
        let announced = usize::from(t0 & 0x0F);
        let historical = interface_end.get(..announced).unwrap_or(interface_end).to_vec();
        let after = interface_end.get(announced..).unwrap_or_default();

        Self {
            convention: Convention::of(*ts),
            protocols: offered(&indicated),
            entries: compact_tlv(&historical),
            checksum: Checksum::of(after_ts, &indicated, after),
            cut_off: historical.len() < announced,
            contactless: contactless(bytes, &historical),
            known: known(atr),
            historical,
        }
    }

    /// What an ATR of no bytes would tell; a parsed [`Atr`] has at least two.
    const fn nothing() -> Self {
        Self {
            convention: Convention::Unknown(0),
            protocols: Vec::new(),
            historical: Vec::new(),
            entries: Vec::new(),
            checksum: Checksum::Missing,
            cut_off: true,
            contactless: None,
            known: None,
        }
    }
}

/// The family that a card with this ATR is most likely of.
pub(super) fn hint(_atr: &Atr) -> Option<crate::domain::Family> {
    None
}

/// The protocol nibbles of every TD byte, and what follows the interface bytes.
///
/// T0 and each TD announce, from bit 5 up, which of TA TB TC TD follow (ISO 7816-3 section 8.2.3).
fn interface_bytes(t0: u8, mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut indicated = Vec::new();
    let mut announcing = Some(t0);
    while let Some(byte) = announcing {
        let before_td = (byte & 0x70).count_ones() as usize;
        rest = rest.get(before_td..).unwrap_or_default();
        announcing = None;
        if byte & 0x80 != 0
            && let [td, after @ ..] = rest
        {
            indicated.push(td & 0x0F);
            announcing = Some(*td);
            rest = after;
        }
    }
    (indicated, rest)
}

/// Without a TD byte there is T=0; 15 stands for global bytes, not for a protocol.
fn offered(indicated: &[u8]) -> Vec<u8> {
    let mut protocols: Vec<u8> = Vec::new();
    for &protocol in indicated.iter().filter(|protocol| **protocol != 15) {
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    if protocols.is_empty() { vec![0] } else { protocols }
}

/// ISO 7816-4 section 8.1.1: category 80 is compact-TLV; category 00 is too, and ends in three
/// bytes of status, which are tag 8 in the other.
fn compact_tlv(historical: &[u8]) -> Vec<CompactTlv> {
    let (mut rest, status) = match historical {
        [0x80, rest @ ..] => (rest, None),
        [0x00, rest @ .., a, b, c] => (rest, Some(vec![*a, *b, *c])),
        _ => return Vec::new(),
    };
    let mut entries = Vec::new();
    while let [head, after @ ..] = rest
        && let Some((value, after)) = after.split_at_checked(usize::from(head & 0x0F))
    {
        entries.push(CompactTlv { tag: head >> 4, value: value.to_vec() });
        rest = after;
    }
    entries.extend(status.map(|value| CompactTlv { tag: 8, value }));
    entries
}

/// PC/SC part 3: `3B 8n 80 01`, then the card's own bytes or those of a table.
fn contactless(atr: &[u8], historical: &[u8]) -> Option<Contactless> {
    let [0x3B, t0, 0x80, 0x01, ..] = atr else { return None };
    if t0 & 0xF0 != 0x80 {
        return None;
    }
    match *historical {
        [0x80, 0x4F, 0x0C, 0xA0, 0x00, 0x00, 0x03, 0x06, standard, high, low, ..] => {
            Some(Contactless::Memory { standard, name: u16::from_be_bytes([high, low]) })
        }
        _ => Some(Contactless::Smart),
    }
}

fn known(atr: &Atr) -> Option<&'static str> {
    let text = atr.to_string();
    KNOWN.iter().find(|(known, _)| *known == text).map(|(_, name)| *name)
}

impl Convention {
    const fn of(ts: u8) -> Self {
        match ts {
            0x3B => Self::Direct,
            0x3F => Self::Inverse,
            other => Self::Unknown(other),
        }
    }
}

impl Checksum {
    /// TCK is due as soon as anything but T=0 is indicated (ISO 7816-3 section 8.2.5).
    fn of(checked: &[u8], indicated: &[u8], after_historical: &[u8]) -> Self {
        if indicated.iter().all(|protocol| *protocol == 0) {
            Self::NotDue
        } else if after_historical.is_empty() {
            Self::Missing
        } else if checked.iter().fold(0, |sum, byte| sum ^ byte) == 0 {
            Self::Right
        } else {
            Self::Wrong
        }
    }
}

impl CompactTlv {
    /// What the entry is about (ISO 7816-4 section 8.1.1).
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        match self.tag {
            1 => "country",
            2 => "issuer number",
            3 => "services",
            4 => "initial access",
            5 => "issuer's data",
            6 => "pre-issuing data",
            7 => "capabilities",
            8 => "status",
            15 => "application",
            _ => "unknown",
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Inverse => f.write_str("inverse"),
            Self::Unknown(ts) => write!(f, "unknown ({ts:02X})"),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Missing => "missing",
            Self::NotDue => "not due",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(text: &str) -> AtrFacts {
        AtrFacts::of(&text.parse().unwrap())
    }

    #[test]
    fn a_microsoft_virtual_smart_card_names_its_application() {
        let facts = facts("3b8d0180fba000000397425446590301c8");
        assert_eq!(facts.convention, Convention::Direct);
        assert_eq!(facts.protocols, [1]);
        assert_eq!(facts.checksum, Checksum::Right);
        assert_eq!(facts.known, Some("Microsoft virtual smart card"));
        assert_eq!(facts.contactless, None);
        let [entry] = facts.entries.as_slice() else { panic!("{facts:?}") };
        assert_eq!(entry.meaning(), "application");
        assert_eq!(hex::encode(&entry.value), "a0000003974254465903 01".replace(' ', ""));
    }

    #[test]
    fn the_newer_virtual_smart_card_is_known_too() {
        assert!(facts("3b8d0180fba000000397425446590401cf").known.is_some());
    }

    #[test]
    fn an_idprime_card_offers_t0_only_and_has_no_check_byte() {
        let facts = facts("3b7f96000080318065b0850300ef120ffe829000");
        assert_eq!(facts.protocols, [0]);
        assert_eq!(facts.checksum, Checksum::NotDue);
        assert!(!facts.cut_off);
        let tags: Vec<u8> = facts.entries.iter().map(|entry| entry.tag).collect();
        assert_eq!(tags, [3, 6, 1, 8]);
    }

    #[test]
    fn a_yubikey_5_by_contact_offers_t1_and_by_air_is_contactless() {
        let contact = facts("3bfd1300008131fe158073c021c057597562694b657940");
        assert_eq!((contact.protocols.as_slice(), contact.contactless), ([1].as_slice(), None));
        let by_air = facts("3b8d80018073c021c057597562694b6579f9");
        assert_eq!(by_air.protocols, [0, 1]);
        assert_eq!(by_air.contactless, Some(Contactless::Smart));
        assert_eq!(by_air.checksum, Checksum::Right);
    }

    #[test]
    fn a_contactless_memory_card_says_which_kind_it_is() {
        let facts = facts("3b8f8001804f0ca000000306030001000000006a");
        assert_eq!(facts.contactless, Some(Contactless::Memory { standard: 3, name: 1 }));
    }

    #[test]
    fn the_status_at_the_end_of_category_00_is_an_entry() {
        let facts = facts("3bda18ff81b1fe751f030031c573c001400090000c");
        let tags: Vec<u8> = facts.entries.iter().map(|entry| entry.tag).collect();
        assert_eq!(tags, [3, 7, 8]);
        assert_eq!(facts.entries[2].value, [0x00, 0x90, 0x00]);
    }

    #[test]
    fn global_bytes_are_no_protocol_but_make_a_check_byte_due() {
        let facts = facts("3b80801f9f");
        assert_eq!(facts.protocols, [0]);
        assert_ne!(facts.checksum, Checksum::NotDue);
    }

    #[test]
    fn a_wrong_or_missing_check_byte_is_told_and_forgiven() {
        let wrong = facts("3bde98ff8191fe1fc38031815448534d3173802140810792");
        assert_eq!(wrong.checksum, Checksum::Wrong);
        assert_eq!(wrong.protocols, [1]);
        assert_eq!(facts("3b8001").checksum, Checksum::Missing);
    }

    #[test]
    fn an_atr_that_announces_more_than_it_has_is_cut_off() {
        let facts = facts("3b0f8031");
        assert!(facts.cut_off);
        assert_eq!(facts.historical, [0x80, 0x31]);
        assert_eq!(facts.entries, []);
    }

    #[test]
    fn inverse_convention_and_nonsense_are_told() {
        assert_eq!(facts("3f00").convention, Convention::Inverse);
        assert_eq!(facts("0000").convention.to_string(), "unknown (00)");
    }

    proptest! {
        #[test]
        fn every_atr_is_decoded(bytes in prop::collection::vec(any::<u8>(), 2..=33)) {
            let facts = AtrFacts::of(&Atr::try_from(bytes.as_slice()).unwrap());
            prop_assert!(!facts.protocols.is_empty());
            prop_assert!(facts.historical.len() <= 15);
        }
    }
}
