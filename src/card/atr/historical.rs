//! The historical bytes: the card maker's own words (ISO 7816-4:2005 section 8.1.1).

use std::fmt;

/// Letters in a row that are taken for a text.
const SHORTEST_TEXT: usize = 4;

/// What the first historical byte says about the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// 00: compact-TLV, then three bytes of status.
    CompactThenStatus,
    /// 10: where to find the card's directory.
    Directory,
    /// 80: compact-TLV.
    Compact,
    /// 81 to 8F: reserved.
    Reserved,
    /// Anything else: free.
    Proprietary,
}

/// An entry of compact-TLV historical bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactTlv {
    /// The tag, 0 to 15.
    pub tag: u8,
    /// The value.
    pub value: Vec<u8>,
}

/// The historical bytes, taken apart where they say how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Historical {
    /// All of them.
    pub bytes: Vec<u8>,
    /// The entries, where the bytes are compact-TLV.
    pub entries: Vec<CompactTlv>,
    /// What is left where the last entry announces more than there is.
    pub leftover: Vec<u8>,
}

impl Historical {
    /// Category 80 is compact-TLV; category 00 is too, and ends in three bytes of status, which
    /// are tag 8 in the other.
    pub(super) fn of(bytes: &[u8]) -> Self {
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

    /// What the first byte says about the others; `None` where there is none.
    #[must_use]
    pub fn category(&self) -> Option<Category> {
        self.bytes.first().map(|first| match first {
            0x00 => Category::CompactThenStatus,
            0x10 => Category::Directory,
            0x80 => Category::Compact,
            0x81..=0x8F => Category::Reserved,
            _ => Category::Proprietary,
        })
    }

    /// The longest text in the entries, or in all of the bytes where there are none; `None` where
    /// it is too short to be one.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let is_letter = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let values = self.entries.iter().map(|entry| entry.value.as_slice());
        let all = self.entries.is_empty().then_some(self.bytes.as_slice());
        let runs = values.chain(all).flat_map(|bytes| bytes.split(move |byte| !is_letter(byte)));
        let longest = runs.max_by_key(|run| run.len()).filter(|run| run.len() >= SHORTEST_TEXT)?;
        Some(longest.iter().copied().map(char::from).collect())
    }

    /// Whether `part` is somewhere in them.
    pub(super) fn contain(&self, part: &[u8]) -> bool {
        self.bytes.windows(part.len()).any(|window| window == part)
    }
}

impl CompactTlv {
    /// What the entry is about.
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

    /// What the value says, where it has words: services, capabilities and status.
    #[must_use]
    pub fn description(&self) -> Option<String> {
        let words = match (self.tag, self.value.as_slice()) {
            (3, [services]) => bits(*services, &SERVICES),
            (7, [selection, ..]) => bits(*selection, &SELECTION),
            (8, [life]) => life_cycle(*life).to_owned(),
            (8, [high, low]) => format!("status word {high:02X}{low:02X}"),
            (8, [life, high, low]) => {
                format!("{}, status word {high:02X}{low:02X}", life_cycle(*life))
            }
            _ => return None,
        };
        Some(words).filter(|words| !words.is_empty())
    }
}

/// ISO 7816-4 section 8.1.1.2.3; the lower bits are left aside.
const SERVICES: [(u8, &str); 4] = [
    (0x80, "applications by full name"),
    (0x40, "applications by partial name"),
    (0x20, "has EF.DIR"),
    (0x10, "has EF.ATR"),
];

/// ISO 7816-4 section 8.1.1.2.7, the first byte of the three.
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
        0 => "life cycle not told",
        1 => "being created",
        2 | 3 => "being initialised",
        4 | 6 => "operational, deactivated",
        5 | 7 => "operational",
        12..=15 => "terminated",
        16..=255 => "life cycle in the maker's words",
        8..=11 => "life cycle reserved",
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CompactThenStatus => "compact-tlv-and-status",
            Self::Directory => "directory-reference",
            Self::Compact => "compact-tlv",
            Self::Reserved => "reserved",
            Self::Proprietary => "proprietary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn historical(text: &str) -> Historical {
        Historical::of(&hex::decode(text).unwrap())
    }

    #[test]
    fn the_first_byte_says_how_to_read_the_others() {
        for (text, category) in [
            ("0031c573c00140059000", Category::CompactThenStatus),
            ("1000", Category::Directory),
            ("8031", Category::Compact),
            ("8131", Category::Reserved),
            ("597562696b657934", Category::Proprietary),
        ] {
            assert_eq!(historical(text).category(), Some(category));
        }
        assert_eq!(Historical::default().category(), None);
    }

    #[test]
    fn a_text_in_the_bytes_is_found() {
        assert_eq!(historical("597562696b657934").text().as_deref(), Some("Yubikey4"));
        assert_eq!(historical("8073c021c057597562694b6579").text().as_deref(), Some("YubiKey"));
        assert_eq!(historical("8031815448534d31").text().as_deref(), Some("HSM1"));
        assert_eq!(historical("80318065b0").text(), None);
    }

    #[test]
    fn an_entry_that_is_longer_than_the_rest_is_left_over() {
        let cut = historical("803180654142");
        assert_eq!(cut.entries.len(), 1);
        assert_eq!(cut.leftover, [0x65, 0x41, 0x42]);
    }

    #[test]
    fn services_capabilities_and_status_have_words() {
        let words: Vec<_> = historical("0031c573c00140059000")
            .entries
            .iter()
            .map(|entry| entry.description().unwrap())
            .collect();
        assert_eq!(
            words,
            [
                "applications by full name, applications by partial name",
                "DF by full name, DF by partial name",
                "operational, status word 9000",
            ]
        );
    }
}
