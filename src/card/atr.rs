//! An answer-to-reset decoded for people (ISO 7816-3:2006 section 8, ISO 7816-4:2005 section 8.1.1).
//!
//! Nothing here decides anything: an ATR is a hint, never proof of identity. Decoding takes what it
//! can get, says what is odd, and never refuses.

use std::fmt;

use crate::domain::Atr;

mod description;
mod historical;
mod interface;
mod known;

pub use historical::{Category, CompactTlv, Historical};
pub use interface::{ByteRole, ByteScope, InterfaceByte, Letter};
pub use known::hint;

use interface::InterfaceBytes;

/// What an ATR tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedAtr {
    /// How bits are sent.
    pub convention: Convention,
    /// The interface bytes, in the order sent.
    pub interface: Vec<InterfaceByte>,
    /// The transmission protocols that the card offers, the preferred one first: 0 for T=0.
    pub protocols: Vec<u8>,
    /// The historical bytes.
    pub historical: Historical,
    /// Whether the check byte fits.
    pub checksum: Checksum,
    /// Whether the ATR ends before it should, the check byte left aside.
    pub truncated: bool,
    /// How many bytes follow the end.
    pub trailing_bytes: usize,
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
    Valid,
    /// It does not, which is no reason to refuse the card.
    Invalid,
    /// It should be there and is not.
    Missing,
    /// A card that offers T=0 only has none.
    NotRequired,
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

/// Something that the standard does not foresee. No reason to refuse the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtrAnomaly {
    /// The first byte is neither 3B nor 3F.
    Convention,
    /// The first TD byte names T=15, which is no protocol.
    FirstProtocol,
    /// The ATR ends before it should.
    CutOff,
    /// The last entry of the historical bytes is longer than they are.
    Historical,
    /// The check byte does not fit.
    WrongCheck,
    /// The check byte is not there.
    MissingCheck,
    /// This many bytes follow the end.
    Surplus(usize),
}

impl DecodedAtr {
    /// Decodes an ATR.
    #[must_use]
    pub fn of(atr: &Atr) -> Self {
        let bytes = atr.as_bytes();
        let [ts, after_ts @ ..] = bytes else { return Self::nothing() };
        let [t0, rest @ ..] = after_ts else { return Self::nothing() };

        let interface = InterfaceBytes::read(*t0, rest);
        let announced = usize::from(t0 & 0x0F);
        let (historical, after) =
            interface.rest.split_at_checked(announced).unwrap_or((interface.rest, [].as_slice()));
        let (checksum, surplus) = Checksum::of(after_ts, &interface.indicated(), after);

        Self {
            convention: Convention::of(*ts),
            protocols: offered(&interface.indicated()),
            historical: Historical::of(historical),
            checksum,
            truncated: interface.cut_off || historical.len() < announced,
            trailing_bytes: surplus,
            contactless: contactless(bytes, historical),
            known: known::name(atr),
            interface: interface.bytes,
        }
    }

    /// What an ATR of no bytes would tell; a parsed [`Atr`] has at least two.
    fn nothing() -> Self {
        Self {
            convention: Convention::Unknown(0),
            interface: Vec::new(),
            protocols: Vec::new(),
            historical: Historical::default(),
            checksum: Checksum::Missing,
            truncated: true,
            trailing_bytes: 0,
            contactless: None,
            known: None,
        }
    }

    /// What the standard does not foresee, in the order of the bytes.
    #[must_use]
    pub fn anomalies(&self) -> Vec<AtrAnomaly> {
        let first_td = self.interface.iter().find(|byte| byte.letter == Letter::D);
        let global_first = first_td.is_some_and(|td| td.value & 0x0F == 15);
        let uneven = !self.historical.leftover.is_empty();
        let surplus = self.trailing_bytes > 0;
        [
            (matches!(self.convention, Convention::Unknown(_)), AtrAnomaly::Convention),
            (global_first, AtrAnomaly::FirstProtocol),
            (self.truncated, AtrAnomaly::CutOff),
            (uneven, AtrAnomaly::Historical),
            (self.checksum == Checksum::Invalid, AtrAnomaly::WrongCheck),
            (self.checksum == Checksum::Missing && !self.truncated, AtrAnomaly::MissingCheck),
            (surplus, AtrAnomaly::Surplus(self.trailing_bytes)),
        ]
        .into_iter()
        .filter_map(|(is_so, odd)| is_so.then_some(odd))
        .collect()
    }
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
    /// TCK is due as soon as anything but T=0 is indicated (ISO 7816-3 section 8.2.5). `from_t0`
    /// is the ATR without TS, `after` what follows the historical bytes; what is too much comes
    /// with it.
    fn of(from_t0: &[u8], indicated: &[u8], after: &[u8]) -> (Self, usize) {
        if indicated.iter().all(|protocol| *protocol == 0) {
            return (Self::NotRequired, after.len());
        }
        let [_, surplus @ ..] = after else { return (Self::Missing, 0) };
        let checked = from_t0.len().saturating_sub(surplus.len());
        let sum = from_t0.iter().take(checked).fold(0, |sum, byte| sum ^ byte);
        (if sum == 0 { Self::Valid } else { Self::Invalid }, surplus.len())
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
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::NotRequired => "not-required",
        })
    }
}

impl fmt::Display for AtrAnomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Convention => f.write_str("begins with neither 3B nor 3F"),
            Self::FirstProtocol => f.write_str("TD1 names T=15, which is no protocol"),
            Self::CutOff => f.write_str("ends before it should"),
            Self::Historical => f.write_str("the last historical entry is cut off"),
            Self::WrongCheck => f.write_str("check byte wrong"),
            Self::MissingCheck => f.write_str("check byte missing"),
            Self::Surplus(1) => f.write_str("1 byte too many"),
            Self::Surplus(n) => write!(f, "{n} bytes too many"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(text: &str) -> DecodedAtr {
        DecodedAtr::of(&text.parse().unwrap())
    }

    #[test]
    fn a_microsoft_virtual_smart_card_names_its_application() {
        let facts = facts("3b8d0180fba000000397425446590301c8");
        assert_eq!(facts.convention, Convention::Direct);
        assert_eq!(facts.protocols, [1]);
        assert_eq!(facts.checksum, Checksum::Valid);
        assert_eq!(facts.known, Some("Microsoft virtual smart card"));
        assert_eq!(facts.contactless, None);
        let [entry] = facts.historical.entries.as_slice() else { panic!("{facts:?}") };
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
        assert_eq!(facts.checksum, Checksum::NotRequired);
        assert!(!facts.truncated);
        let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
        assert_eq!(tags, [3, 6, 1, 8]);
    }

    #[test]
    fn a_yubikey_5_by_contact_offers_t1_and_by_air_is_contactless() {
        let contact = facts("3bfd1300008131fe158073c021c057597562694b657940");
        assert_eq!((contact.protocols.as_slice(), contact.contactless), ([1].as_slice(), None));
        let by_air = facts("3b8d80018073c021c057597562694b6579f9");
        assert_eq!(by_air.protocols, [0, 1]);
        assert_eq!(by_air.contactless, Some(Contactless::Smart));
        assert_eq!(by_air.checksum, Checksum::Valid);
    }

    #[test]
    fn a_contactless_memory_card_says_which_kind_it_is() {
        let facts = facts("3b8f8001804f0ca000000306030001000000006a");
        assert_eq!(facts.contactless, Some(Contactless::Memory { standard: 3, name: 1 }));
    }

    #[test]
    fn the_status_at_the_end_of_category_00_is_an_entry() {
        let facts = facts("3bda18ff81b1fe751f030031c573c001400090000c");
        let tags: Vec<u8> = facts.historical.entries.iter().map(|entry| entry.tag).collect();
        assert_eq!(tags, [3, 7, 8]);
        assert_eq!(facts.historical.entries[2].value, [0x00, 0x90, 0x00]);
    }

    #[test]
    fn global_bytes_are_no_protocol_but_make_a_check_byte_due() {
        let facts = facts("3b80801f9f");
        assert_eq!(facts.protocols, [0]);
        assert_ne!(facts.checksum, Checksum::NotRequired);
    }

    #[test]
    fn a_wrong_or_missing_check_byte_is_told_and_forgiven() {
        let wrong = facts("3bde98ff8191fe1fc38031815448534d3173802140810792");
        assert_eq!(wrong.checksum, Checksum::Invalid);
        assert_eq!(wrong.protocols, [1]);
        assert_eq!(facts("3b8001").checksum, Checksum::Missing);
        assert_eq!(wrong.anomalies(), [AtrAnomaly::WrongCheck]);
    }

    #[test]
    fn an_atr_that_announces_more_than_it_has_is_cut_off() {
        let facts = facts("3b0f8031");
        assert!(facts.truncated);
        assert_eq!(facts.historical.bytes, [0x80, 0x31]);
        assert_eq!(facts.historical.entries, []);
    }

    #[test]
    fn an_atr_that_ends_within_its_interface_bytes_is_cut_off() {
        assert!(facts("3bf013").truncated);
        assert!(!facts("3b1013").truncated);
    }

    #[test]
    fn bytes_after_the_end_are_told_and_not_checked() {
        let facts = facts("3b8d0180fba000000397425446590301c8ffff");
        assert_eq!(facts.checksum, Checksum::Valid);
        assert_eq!(facts.anomalies(), [AtrAnomaly::Surplus(2)]);
    }

    #[test]
    fn everything_that_is_odd_is_told_in_the_order_of_the_bytes() {
        let meant = [AtrAnomaly::Convention, AtrAnomaly::FirstProtocol, AtrAnomaly::MissingCheck];
        assert_eq!(facts("00800f").anomalies(), meant);
        let meant = [AtrAnomaly::Convention, AtrAnomaly::FirstProtocol, AtrAnomaly::CutOff];
        assert_eq!(facts("00821f80").anomalies(), meant);
        assert_eq!(facts("3b038032ff").anomalies(), [AtrAnomaly::Historical]);
    }

    #[test]
    fn inverse_convention_and_nonsense_are_told() {
        assert_eq!(facts("3f00").convention, Convention::Inverse);
        assert_eq!(facts("0000").convention.to_string(), "unknown (00)");
    }

    proptest! {
        #[test]
        fn every_atr_is_decoded(bytes in prop::collection::vec(any::<u8>(), 2..=33)) {
            let facts = DecodedAtr::of(&Atr::try_from(bytes.as_slice()).unwrap());
            let _words: Vec<_> = facts.interface.iter().map(InterfaceByte::meaning).collect();
            let _entries: Vec<_> = facts.historical.entries.iter().map(CompactTlv::description).collect();
            let _hint = (hint(&Atr::try_from(bytes.as_slice()).unwrap()), facts.historical.text());
            prop_assert!(!facts.protocols.is_empty());
            // A buffer is cut where this decoder finds the end, too.
            let is_buffer = bytes.len() == 33 && matches!(bytes.first(), Some(0x3B | 0x3F));
            prop_assert!(!is_buffer || facts.trailing_bytes == 0);
            prop_assert!(facts.historical.bytes.len() <= 15);
        }
    }
}
