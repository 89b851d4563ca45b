//! The common cards by their ATR, and which family they are likely of. Neither is proof of anything:
//! anybody may build a card that says the ATR of another.
//!
//! `docs/cards.md` has the same table with its sources.

use super::DecodedAtr;
use crate::domain::{Atr, Family};

/// A card that is known by its ATR.
struct KnownCard {
    /// The ATR as text.
    atr: &'static str,
    /// The card's name, for people.
    name: &'static str,
    /// The family that it is likely of, where one of ours may read the card.
    first: Option<Family>,
}

const fn known(atr: &'static str, name: &'static str, first: Option<Family>) -> KnownCard {
    KnownCard { atr, name, first }
}

const GIDS: Option<Family> = Some(Family::Gids);
const IDPRIME: Option<Family> = Some(Family::Idprime);
const PIV: Option<Family> = Some(Family::Piv);
const OPENPGP: Option<Family> = Some(Family::Openpgp);
const PKCS15: Option<Family> = Some(Family::Pkcs15);

/// The cards that are known by name.
const KNOWN: [KnownCard; 26] = [
    known("3b8d0180fba000000397425446590301c8", "Microsoft virtual smart card", GIDS),
    known("3b8d0180fba000000397425446590401cf", "Microsoft virtual smart card (newer)", GIDS),
    known("3b8c014d79536d6172744c6f676f6ea5", "EIDVirtual", GIDS),
    known("3bfd1300008131fe158073c021c057597562694b657940", "YubiKey 5 NFC (contact)", PIV),
    known("3b8d80018073c021c057597562694b6579f9", "YubiKey 5 NFC (contactless)", PIV),
    known("3bf81300008131fe15597562696b657934d4", "YubiKey 4", PIV),
    known("3bfc1300008131fe15597562696b65794e454f7233e1", "YubiKey NEO", PIV),
    known("3bda18ff81b1fe751f030031c573c001400090000c", "OpenPGP card v2", OPENPGP),
    known("3bda18ff81b1fe751f030031f573c001600090001c", "OpenPGP card v3", OPENPGP),
    known("3bda11ff81b1fe551f0300318473800180009000e4", "Gnuk", OPENPGP),
    known("3b8f01805d4e6974726f6b657900000000006a", "Nitrokey 3 Mini", PIV),
    known("3bf71100008131fe6543616e6f6b657999", "CanoKey", PIV),
    known("3b7f96000080318065b0850300ef120ffe829000", "Gemalto IDPrime MD 840", IDPRIME),
    known("3b7f96000080318065b0855956fb120ffe829000", "Thales IDPrime 941", IDPRIME),
    known("3b7f96000080318065b0846160fb120ffd829000", "IDPrime 930/3930", IDPRIME),
    known("3bff9600008131fe4380318065b0855956fb120ffe82900000", "SafeNet eToken 5110", IDPRIME),
    known("3b9f958131fe9f006646530510043171df000000000026", "Feitian ePass2003", PKCS15),
    known("3bf51800008131fe454d794549449a", "Aventra MyEID", PKCS15),
    known("3bfe1800008131fe458031815448534d31738021408107fa", "SmartCard-HSM", PKCS15),
    known(
        "3bde96ff8191fe1fc38031815448534d3173802140810792",
        "SmartCard-HSM 4K or Nitrokey HSM 2",
        PKCS15,
    ),
    known("3bd218008131fe58c90217", "Atos CardOS 5.3", PKCS15),
    known("3bd6970081b1fe451f878031c152211a4b", "IDEMIA ID-One PIV 2.4", PIV),
    known("3bdb18ff8191fe1fc306092b06010401e9100503d7", "SafeSign QSCD on JCOP 3", None),
    known("3bf81800008031fe450073c8401300900092", "G&D StarSign token", None),
    known("3bd596ff8191fe1fc34332333030cc", "HID Crescendo C2300", PIV),
    known("3b8f80018073cc91cbf9a0000003080000100029", "NIST demo PIV card (contactless)", PIV),
];

/// What the historical bytes of a family's cards often hold: the names of applications (for
/// PKCS#15 that of ISO 7816-15), and words of the makers.
///
/// `80 31 80 65 B0` is in IDPrime cards, and in other cards of the same maker too.
const MARKS: [(&[u8], Family); 7] = [
    (&[0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59], Family::Gids),
    (&[0xA0, 0x00, 0x00, 0x03, 0x08], Family::Piv),
    (&[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01], Family::Openpgp),
    (&[0xA0, 0x00, 0x00, 0x00, 0x63, 0x50, 0x4B, 0x43, 0x53, 0x2D, 0x31, 0x35], Family::Pkcs15),
    (&[0x80, 0x31, 0x80, 0x65, 0xB0], Family::Idprime),
    (b"YubiKey", Family::Piv),
    (b"Yubikey", Family::Piv),
];

/// The card's name, where its ATR is known.
pub(super) fn name(atr: &Atr) -> Option<&'static str> {
    find(atr).map(|known| known.name)
}

/// The family that the card is likely of. A card of a known name for which no family is known has none.
#[must_use]
pub fn hint(atr: &Atr) -> Option<Family> {
    match find(atr) {
        Some(known) => known.first,
        None => marked(atr),
    }
}

fn find(atr: &Atr) -> Option<&'static KnownCard> {
    let text = atr.to_string();
    KNOWN.iter().find(|known| known.atr == text)
}

fn marked(atr: &Atr) -> Option<Family> {
    let historical = DecodedAtr::of(atr).historical;
    MARKS.iter().find(|(mark, _)| historical.contain(mark)).map(|(_, family)| *family)
}

#[cfg(test)]
mod tests {
    use super::super::Checksum;
    use super::*;

    const CARDS: &str = include_str!("../../../docs/cards.md");

    fn hint_of(text: &str) -> Option<Family> {
        hint(&text.parse().unwrap())
    }

    #[test]
    fn every_known_atr_is_whole_and_has_a_right_check_byte_where_one_is_due() {
        for KnownCard { atr, name, .. } in &KNOWN {
            let facts = DecodedAtr::of(&atr.parse().unwrap());
            assert_eq!(facts.known, Some(*name), "{atr} is there twice, or not lower case");
            assert!(facts.anomalies().is_empty(), "{name}: {:?}", facts.anomalies());
            let due = !atr.starts_with("3b7f96000080318065b0");
            let meant = if due { Checksum::Valid } else { Checksum::NotRequired };
            assert_eq!(facts.checksum, meant, "{name}");
        }
    }

    #[test]
    fn the_table_is_the_one_in_the_document() {
        let heading = "### ATRs known by name";
        let lines = CARDS.lines().skip_while(|line| *line != heading).skip(1);
        let rows = lines.take_while(|line| !line.starts_with('#'));
        let written: Vec<_> = rows.filter(|line| line.starts_with("| `3")).collect();
        assert_eq!(written.len(), KNOWN.len());
        for (row, KnownCard { atr, name, first }) in written.iter().zip(&KNOWN) {
            let first = first.map_or("–".to_owned(), |family| format!("`{family}`"));
            let meant = format!("| `{atr}` | {name} | {first} |");
            assert!(row.starts_with(&meant), "{row}\nshould begin\n{meant}");
        }
    }

    #[test]
    fn an_unknown_card_is_hinted_at_by_what_its_historical_bytes_hold() {
        for (atr, family) in [
            ("3b8d0180fba000000397425446590501ce", Some(Family::Gids)),
            ("3b8a8001a000000308000010000030", Some(Family::Piv)),
            ("3b8a8001d276000124010304000600", Some(Family::Openpgp)),
            ("3b8e800180fca000000063504b43532d313500", Some(Family::Pkcs15)),
            ("3b7f96000080318065b08403000f120fff829000", Some(Family::Idprime)),
            ("3bfd1300008131fe158073c021c057597562694b657941", Some(Family::Piv)),
            ("3b8001", None),
        ] {
            assert_eq!(hint_of(atr), family, "{atr}");
        }
    }

    #[test]
    fn a_mark_outside_the_historical_bytes_is_no_hint() {
        assert_eq!(hint_of("3bf0a00000030800"), None);
    }
}
