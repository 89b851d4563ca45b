//! A decoded answer-to-reset, for operators (ISO 7816-3:2006 section 8, ISO 7816-4:2005 section 8.1.1).
//!
//! Nothing here decides anything: an ATR is a hint, never proof of identity. Decoding takes what it
//! can, lists anomalies, and never refuses.

mod interface;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::domain::{Atr, Family};

pub use interface::InterfaceByte;
use interface::InterfaceBytes;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedAtr {
    /// TS: how the card sends bits.
    ts: u8,
    /// The interface bytes, in the order sent.
    pub interface: Vec<InterfaceByte>,
    /// The transmission protocols that the card offers, the preferred one first: 0 for T=0.
    pub protocols: Vec<u8>,
    pub historical: Historical,
    /// Whether TCK is correct.
    pub checksum: Checksum,
    /// Whether the ATR is shorter than it announces, TCK left aside.
    pub truncated: bool,
    /// How many bytes follow the end.
    pub trailing_bytes: usize,
    /// Whether a contactless reader made the ATR (PC/SC part 3).
    pub is_contactless: bool,
    /// The card's name, if this ATR is known.
    pub known: Option<&'static str>,
}

/// TCK: the XOR of the bytes from T0 to it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    Valid,
    /// Wrong, which is no reason to refuse the card.
    Invalid,
    /// Required and missing.
    Missing,
    /// A card that offers only T=0 has none.
    NotRequired,
}

impl DecodedAtr {
    #[must_use]
    pub fn of(atr: &Atr) -> Self {
        let (&ts, after_ts) = atr.as_bytes().split_first().unwrap_or((&0, &[]));
        let (&t0, rest) = after_ts.split_first().unwrap_or((&0, &[]));
        let interface = InterfaceBytes::read(t0, rest);
        let announced = usize::from(t0 & 0x0F);
        let (historical, after) =
            interface.rest.split_at_checked(announced).unwrap_or((interface.rest, &[]));
        let indicated = interface.indicated();
        let (checksum, trailing_bytes) = Checksum::of(after_ts, &indicated, after);
        Self {
            ts,
            protocols: offered(&indicated),
            historical: Historical::of(historical),
            checksum,
            truncated: interface.cut_off || historical.len() < announced,
            trailing_bytes,
            // PC/SC part 3: `3B 8n 80 01`, then the card's own bytes or those of a table.
            is_contactless: matches!(atr.as_bytes(), [0x3B, 0x80..=0x8F, 0x80, 0x01, ..]),
            known: known(atr).map(|(_, name, _)| *name),
            interface: interface.bytes,
        }
    }

    /// How the card sends bits.
    #[must_use]
    pub fn convention(&self) -> String {
        match self.ts {
            0x3B => "direct".to_owned(),
            0x3F => "inverse".to_owned(),
            ts => format!("unknown ({ts:02X})"),
        }
    }

    /// What does not follow the standard, in the order of the bytes. No reason to refuse the card.
    #[must_use]
    pub fn anomalies(&self) -> Vec<String> {
        let td1 = self.interface.iter().find(|byte| byte.scope() == "structural");
        let is_missing = self.checksum == Checksum::Missing && !self.truncated;
        let trailing = match self.trailing_bytes {
            1 => "1 byte too many".to_owned(),
            n => format!("{n} bytes too many"),
        };
        let all = [
            (!matches!(self.ts, 0x3B | 0x3F), "begins with neither 3B nor 3F"),
            (td1.is_some_and(|td| td.value & 0x0F == 15), "TD1 names T=15, which is no protocol"),
            (self.truncated, "ends before it should"),
            (!self.historical.leftover.is_empty(), "the last historical entry is cut off"),
            (self.checksum == Checksum::Invalid, "check byte wrong"),
            (is_missing, "check byte missing"),
            (self.trailing_bytes > 0, &trailing),
        ];
        all.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.to_owned()).collect()
    }
}

/// Without a TD byte the card offers T=0; 15 stands for global bytes, not for a protocol.
fn offered(indicated: &[u8]) -> Vec<u8> {
    let mut protocols: Vec<u8> = Vec::new();
    for &protocol in indicated.iter().filter(|protocol| **protocol != 15) {
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    if protocols.is_empty() { vec![0] } else { protocols }
}

impl Checksum {
    /// TCK is required if any TD indicates another protocol than T=0 (ISO 7816-3 section 8.2.5).
    /// `after` is what follows the historical bytes. Returns the number of trailing bytes too.
    fn of(from_t0: &[u8], indicated: &[u8], after: &[u8]) -> (Self, usize) {
        if indicated.iter().all(|protocol| *protocol == 0) {
            return (Self::NotRequired, after.len());
        }
        let [_, trailing @ ..] = after else { return (Self::Missing, 0) };
        let checked = from_t0.len().saturating_sub(trailing.len());
        let sum = from_t0.iter().take(checked).fold(0, |sum, byte| sum ^ byte);
        (if sum == 0 { Self::Valid } else { Self::Invalid }, trailing.len())
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

/// The historical bytes (ISO 7816-4:2005 section 8.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Historical {
    pub bytes: Vec<u8>,
    /// The entries, if the bytes are compact-TLV.
    pub entries: Vec<CompactTlv>,
    /// What is left where the last entry announces more than there is.
    pub leftover: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactTlv {
    pub tag: u8,
    pub value: Vec<u8>,
}

/// The shortest row of letters that counts as a text.
const SHORTEST_TEXT: usize = 4;

impl Historical {
    /// Category 80 is compact-TLV; category 00 too, followed by three bytes of status, which are tag 8 of
    /// the other.
    fn of(bytes: &[u8]) -> Self {
        let (mut rest, status) = match bytes {
            [0x80, rest @ ..] => (rest, None),
            [0x00, rest @ .., a, b, c] => (rest, Some(vec![*a, *b, *c])),
            _ => return Self { bytes: bytes.to_vec(), ..Self::default() },
        };
        let mut entries = Vec::new();
        while let [head, after @ ..] = rest
            && let Some((value, after)) = after.split_at_checked(usize::from(head & 0x0F))
        {
            entries.push(CompactTlv { tag: head >> 4, value: value.to_vec() });
            rest = after;
        }
        entries.extend(status.map(|value| CompactTlv { tag: 8, value }));
        Self { bytes: bytes.to_vec(), entries, leftover: rest.to_vec() }
    }

    /// The format of the bytes, by the first of them; `None` where there is none.
    #[must_use]
    pub fn category(&self) -> Option<&'static str> {
        self.bytes.first().map(|first| match first {
            0x00 => "compact-tlv-and-status",
            0x10 => "directory-reference",
            0x80 => "compact-tlv",
            0x81..=0x8F => "reserved",
            _ => "proprietary",
        })
    }

    /// The longest text in the entries, or in all bytes where there are no entries.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let is_letter = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let values = self.entries.iter().map(|entry| entry.value.as_slice());
        let all = self.entries.is_empty().then_some(self.bytes.as_slice());
        let runs = values.chain(all).flat_map(|bytes| bytes.split(move |byte| !is_letter(byte)));
        let longest = runs.max_by_key(|run| run.len()).filter(|run| run.len() >= SHORTEST_TEXT)?;
        Some(longest.iter().copied().map(char::from).collect())
    }
}

impl CompactTlv {
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

    /// The value as text, for services, capabilities and status.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        let text = match (self.tag, self.value.as_slice()) {
            (3, [services]) => bits(*services, &SERVICES),
            (7, [selection, ..]) => bits(*selection, &SELECTION),
            (8, [life]) => life_cycle(*life).to_owned(),
            (8, [high, low]) => format!("status word {high:02X}{low:02X}"),
            (8, [life, high, low]) => {
                format!("{}, status word {high:02X}{low:02X}", life_cycle(*life))
            }
            _ => return None,
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

/// ISO 7816-4 section 8.1.1.2.3, without the lower bits.
const SERVICES: [(u8, &str); 4] = [
    (0x80, "applications by full name"),
    (0x40, "applications by partial name"),
    (0x20, "has EF.DIR"),
    (0x10, "has EF.ATR"),
];

/// ISO 7816-4 section 8.1.1.2.7, the first of three bytes.
const SELECTION: [(u8, &str); 8] = [
    (0x80, "DF by full name"),
    (0x40, "DF by partial name"),
    (0x20, "DF by path"),
    (0x10, "DF by file id"),
    (0x08, "implicit DF"),
    (0x04, "short file ids"),
    (0x02, "record numbers"),
    (0x01, "record ids"),
];

fn bits(value: u8, names: &[(u8, &str)]) -> String {
    let set = names.iter().filter(|(bit, _)| value & bit != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// ISO 7816-4 section 5.3.3.2.
const fn life_cycle(value: u8) -> &'static str {
    match value {
        0 => "no life cycle given",
        1 => "being created",
        2 | 3 => "being initialised",
        4 | 6 => "operational, deactivated",
        5 | 7 => "operational",
        8..=11 => "life cycle reserved",
        12..=15 => "terminated",
        16..=255 => "proprietary life cycle",
    }
}

const GIDS: Option<Family> = Some(Family::Gids);
const IDPRIME: Option<Family> = Some(Family::Idprime);
const PIV: Option<Family> = Some(Family::Piv);
const OPENPGP: Option<Family> = Some(Family::Openpgp);
const PKCS15: Option<Family> = Some(Family::Pkcs15);

/// Common cards: ATR, name, and the family that the card is likely of, if cardbridge may read it. Another
/// card may return the same ATR. `docs/cards.md` has the same table with its sources.
const KNOWN: [(&str, &str, Option<Family>); 26] = [
    ("3b8d0180fba000000397425446590301c8", "Microsoft virtual smart card", GIDS),
    ("3b8d0180fba000000397425446590401cf", "Microsoft virtual smart card (newer)", GIDS),
    ("3b8c014d79536d6172744c6f676f6ea5", "EIDVirtual", GIDS),
    ("3bfd1300008131fe158073c021c057597562694b657940", "YubiKey 5 NFC (contact)", PIV),
    ("3b8d80018073c021c057597562694b6579f9", "YubiKey 5 NFC (contactless)", PIV),
    ("3bf81300008131fe15597562696b657934d4", "YubiKey 4", PIV),
    ("3bfc1300008131fe15597562696b65794e454f7233e1", "YubiKey NEO", PIV),
    ("3bda18ff81b1fe751f030031c573c001400090000c", "OpenPGP card v2", OPENPGP),
    ("3bda18ff81b1fe751f030031f573c001600090001c", "OpenPGP card v3", OPENPGP),
    ("3bda11ff81b1fe551f0300318473800180009000e4", "Gnuk", OPENPGP),
    ("3b8f01805d4e6974726f6b657900000000006a", "Nitrokey 3 Mini", PIV),
    ("3bf71100008131fe6543616e6f6b657999", "CanoKey", PIV),
    ("3b7f96000080318065b0850300ef120ffe829000", "Gemalto IDPrime MD 840", IDPRIME),
    ("3b7f96000080318065b0855956fb120ffe829000", "Thales IDPrime 941", IDPRIME),
    ("3b7f96000080318065b0846160fb120ffd829000", "IDPrime 930/3930", IDPRIME),
    ("3bff9600008131fe4380318065b0855956fb120ffe82900000", "SafeNet eToken 5110", IDPRIME),
    ("3b9f958131fe9f006646530510043171df000000000026", "Feitian ePass2003", PKCS15),
    ("3bf51800008131fe454d794549449a", "Aventra MyEID", PKCS15),
    ("3bfe1800008131fe458031815448534d31738021408107fa", "SmartCard-HSM", PKCS15),
    (
        "3bde96ff8191fe1fc38031815448534d3173802140810792",
        "SmartCard-HSM 4K or Nitrokey HSM 2",
        PKCS15,
    ),
    ("3bd218008131fe58c90217", "Atos CardOS 5.3", PKCS15),
    ("3bd6970081b1fe451f878031c152211a4b", "IDEMIA ID-One PIV 2.4", PIV),
    ("3bdb18ff8191fe1fc306092b06010401e9100503d7", "SafeSign QSCD on JCOP 3", None),
    ("3bf81800008031fe450073c8401300900092", "G&D StarSign token", None),
    ("3bd596ff8191fe1fc34332333030cc", "HID Crescendo C2300", PIV),
    ("3b8f80018073cc91cbf9a0000003080000100029", "NIST demo PIV card (contactless)", PIV),
];

/// What the historical bytes of a family's cards often hold: names of applications (for PKCS#15 that of
/// ISO 7816-15), and texts of the makers. Other cards of the same maker have IDPrime's mark too.
const MARKS: [(&[u8], Family); 7] = [
    (&[0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59], Family::Gids),
    (&[0xA0, 0x00, 0x00, 0x03, 0x08], Family::Piv),
    (&[0xD2, 0x76, 0x00, 0x01, 0x24, 0x01], Family::Openpgp),
    (&[0xA0, 0x00, 0x00, 0x00, 0x63, 0x50, 0x4B, 0x43, 0x53, 0x2D, 0x31, 0x35], Family::Pkcs15),
    (&[0x80, 0x31, 0x80, 0x65, 0xB0], Family::Idprime),
    (b"YubiKey", Family::Piv),
    (b"Yubikey", Family::Piv),
];

/// The family that the card is likely of. A known card without a known family has none.
#[must_use]
pub fn hint(atr: &Atr) -> Option<Family> {
    if let Some((_, _, family)) = known(atr) {
        return *family;
    }
    let bytes = DecodedAtr::of(atr).historical.bytes;
    let is_in = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
    MARKS.iter().find(|(mark, _)| is_in(mark)).map(|(_, family)| *family)
}

fn known(atr: &Atr) -> Option<&'static (&'static str, &'static str, Option<Family>)> {
    let text = atr.to_string();
    KNOWN.iter().find(|(known, ..)| *known == text)
}
