//! The interface bytes: TA1, TB1, TC1, TD1, TA2 … (ISO 7816-3:2006 sections 8.2.3, 8.3, 10.2 and 11.4).
//!
//! T0 and each TD announce, from bit 5 up, which of TA TB TC TD follow. Of the bytes after TD2 with one
//! letter and one protocol only the first has a meaning; the others are reserved.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceByte {
    /// A to D.
    letter: char,
    /// From 1.
    number: u8,
    pub value: u8,
    /// That of the TD byte that announced it; 0 before the first.
    protocol: u8,
    /// Whether a byte before it has the same meaning.
    is_repeated: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct InterfaceBytes<'a> {
    pub(super) bytes: Vec<InterfaceByte>,
    pub(super) rest: &'a [u8],
    /// Whether more are announced than there are.
    pub(super) cut_off: bool,
}

impl<'a> InterfaceBytes<'a> {
    /// Reads what T0 and then every TD announces.
    pub(super) fn read(t0: u8, rest: &'a [u8]) -> Self {
        let mut read = Self { bytes: Vec::new(), rest, cut_off: false };
        let (mut announcing, mut protocol, mut number) = (Some(t0), 0, 0_u8);
        while let Some(announced) = announcing.take() {
            number = number.saturating_add(1);
            for (bit, letter) in [(0x10, 'A'), (0x20, 'B'), (0x40, 'C'), (0x80, 'D')] {
                if announced & bit == 0 {
                    continue;
                }
                let Some((&value, rest)) = read.rest.split_first() else {
                    read.cut_off = true;
                    return read;
                };
                read.rest = rest;
                let is_same = |byte: &InterfaceByte| {
                    byte.number > 2 && byte.letter == letter && byte.protocol == protocol
                };
                let is_repeated = number > 2 && read.bytes.iter().any(is_same);
                read.bytes.push(InterfaceByte { letter, number, value, protocol, is_repeated });
                announcing = (letter == 'D').then_some(value);
            }
            protocol = announcing.map_or(0, |td| td & 0x0F);
        }
        read
    }

    pub(super) fn indicated(&self) -> Vec<u8> {
        let tds = self.bytes.iter().filter(|byte| byte.letter == 'D');
        tds.map(|byte| byte.value & 0x0F).collect()
    }
}

impl InterfaceByte {
    /// The protocol that the byte is for, `global` or `structural`.
    #[must_use]
    pub fn scope(&self) -> String {
        match (self.letter, self.number, self.protocol) {
            ('D', ..) => "structural".to_owned(),
            ('C', 2, _) => "T=0".to_owned(),
            (_, 1 | 2, _) | (_, _, 15) => "global".to_owned(),
            (.., protocol) => format!("T={protocol}"),
        }
    }

    #[must_use]
    pub fn meaning(&self) -> String {
        let value = self.value;
        match (self.letter, self.number, self.protocol) {
            ('D', ..) => protocol(value),
            (.., protocol) if self.is_repeated => format!("reserved for T={protocol}"),
            ('A', 1, _) => speed(value),
            ('B', 1 | 2, _) => "programming voltage, to be ignored".to_owned(),
            ('C', 1, _) => guard_time(value),
            ('A', 2, _) => specific_mode(value),
            ('C', 2, _) => format!("T=0: waiting time {value}"),
            ('A', _, 1) => format!("T=1: the card takes {value} bytes a block"),
            ('B', _, 1) => {
                let (block, byte) = (value >> 4, value & 0x0F);
                format!("T=1: block waiting time {block}, byte waiting time {byte}")
            }
            ('C', _, 1) if value & 1 == 0 => "T=1: blocks end in an LRC".to_owned(),
            ('C', _, 1) => "T=1: blocks end in a CRC".to_owned(),
            ('A', _, 15) => clock_and_class(value),
            ('B', _, 15) => spare_contact(value).to_owned(),
            (.., protocol) => format!("reserved for T={protocol}"),
        }
    }
}

impl fmt::Display for InterfaceByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}{}", self.letter, self.number)
    }
}

/// By the high half of TA1: clock cycles per bit, and the highest clock in tenths of a MHz; 0 is reserved.
const FI: [u32; 16] =
    [372, 372, 558, 744, 1116, 1488, 1860, 0, 0, 512, 768, 1024, 1536, 2048, 0, 0];
const MAX_CLOCK: [u32; 16] = [40, 50, 60, 80, 120, 160, 200, 0, 0, 50, 75, 100, 150, 200, 0, 0];

/// By the low half of TA1: what these are divided by.
const DI: [u32; 16] = [0, 1, 2, 4, 8, 16, 32, 64, 12, 20, 0, 0, 0, 0, 0, 0];

fn speed(value: u8) -> String {
    let entry = |table: [u32; 16], index: u8| {
        table.get(usize::from(index)).copied().filter(|entry| *entry != 0)
    };
    let (fi, di) = (entry(FI, value >> 4), entry(DI, value & 0x0F));
    if let (Some(fi), Some(di), Some(tenths)) = (fi, di, entry(MAX_CLOCK, value >> 4)) {
        let clock = f64::from(tenths) / 10.0;
        let bits = u64::from(tenths) * 100_000 * u64::from(di) / u64::from(fi);
        return format!("Fi {fi}, Di {di}, up to {clock} MHz: at most {bits} bit/s");
    }
    let text = |entry: Option<u32>| entry.map_or("reserved".to_owned(), |entry| entry.to_string());
    format!("Fi {}, Di {}", text(fi), text(di))
}

fn guard_time(value: u8) -> String {
    match value {
        0 => "no extra guard time".to_owned(),
        255 => "the least guard time of the protocol".to_owned(),
        n => format!("extra guard time of {n} bits"),
    }
}

fn protocol(value: u8) -> String {
    match value & 0x0F {
        15 => "T=15: global bytes follow".to_owned(),
        protocol @ 0..=1 => format!("T={protocol}"),
        protocol => format!("T={protocol}, not of ISO 7816"),
    }
}

fn specific_mode(value: u8) -> String {
    let change = if value & 0x80 == 0 { "may change" } else { "cannot change" };
    let by = if value & 0x10 == 0 { "as the interface bytes say" } else { "as both sides know" };
    format!("specific mode: T={} only, {by}, {change}", value & 0x0F)
}

fn clock_and_class(value: u8) -> String {
    let stop = match value >> 6 {
        0 => "never",
        1 => "low only",
        2 => "high only",
        _ => "either way",
    };
    let classes = [(0x01, "5 V"), (0x02, "3 V"), (0x04, "1.8 V")];
    let classes = classes.iter().filter(|(bit, _)| value & bit != 0);
    let voltages = classes.map(|(_, volts)| *volts).collect::<Vec<_>>().join(", ");
    let voltages = if voltages.is_empty() { "unknown" } else { &voltages };
    format!("clock may stop: {stop}; voltages: {voltages}")
}

const fn spare_contact(value: u8) -> &'static str {
    match value {
        0 => "contact C6 not used",
        1..0x80 => "contact C6 used as the standard says",
        0x80.. => "contact C6 used in a proprietary manner",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// T0's half and the bytes, encoded from letters, numbers and values.
    fn encode(bytes: &[InterfaceByte]) -> (u8, Vec<u8>) {
        let announced = |number: u8| {
            let of_number = bytes.iter().filter(|byte| byte.number == number);
            of_number.fold(0, |bits, byte| bits | 0x10 << (u32::from(byte.letter) - u32::from('A')))
        };
        let value = |byte: &InterfaceByte| match byte.letter {
            'D' => announced(byte.number + 1) | (byte.value & 0x0F),
            _ => byte.value,
        };
        (announced(1), bytes.iter().map(value).collect())
    }

    fn meanings(t0: u8, rest: &[u8]) -> Vec<(String, String)> {
        let read = InterfaceBytes::read(t0, rest);
        read.bytes.iter().map(|byte| (byte.to_string(), byte.meaning())).collect()
    }

    #[test]
    fn interface_byte_has_name_and_scope() {
        // YubiKey 5 NFC: 3B FD 13 00 00 81 31 FE 15
        let read = InterfaceBytes::read(0xFD, &[0x13, 0, 0, 0x81, 0x31, 0xFE, 0x15, 0x80]);
        let seen: Vec<_> = read.bytes.iter().map(|b| (b.to_string(), b.scope())).collect();
        let seen: Vec<_> =
            seen.iter().map(|(name, scope)| (name.as_str(), scope.as_str())).collect();
        let meant = [
            ("TA1", "global"),
            ("TB1", "global"),
            ("TC1", "global"),
            ("TD1", "structural"),
            ("TD2", "structural"),
            ("TA3", "T=1"),
            ("TB3", "T=1"),
        ];
        assert_eq!(seen, meant);
        assert_eq!((read.rest, read.cut_off), ([0x80].as_slice(), false));
        assert_eq!(read.indicated(), [1, 1]);
    }

    #[test]
    fn repeated_interface_byte_is_reserved() {
        let seen = meanings(0x80, &[0x81, 0x91, 0xFE, 0x91, 0x20, 0x1F, 0x03]);
        let meant = [("TA3", "T=1: the card takes 254 bytes a block"), ("TA4", "reserved for T=1")];
        for (name, meaning) in meant {
            assert!(seen.contains(&(name.to_owned(), meaning.to_owned())), "{seen:?}");
        }
    }

    #[test]
    fn global_bytes_describe_clock_and_voltage() {
        // SmartCard-HSM 4K: 3B DE 96 FF 81 91 FE 1F C3
        let seen = meanings(0xDE, &[0x96, 0xFF, 0x81, 0x91, 0xFE, 0x1F, 0xC3]);
        assert_eq!(seen.last(), Some(&("TA4".to_owned(), clock_and_class(0xC3))));
    }

    #[test]
    fn missing_interface_bytes_are_reported() {
        let read = InterfaceBytes::read(0xF0, &[0x11, 0x00]);
        assert!(read.cut_off);
        assert_eq!(read.bytes.len(), 2);
        assert!(read.rest.is_empty());
    }

    proptest! {
        #[test]
        fn interface_bytes_round_trip(
            t0: u8,
            rest in prop::collection::vec(any::<u8>(), 0..=31),
        ) {
            let read = InterfaceBytes::read(t0, &rest);
            let sent = rest.len() - read.rest.len();
            if read.cut_off {
                prop_assert!(read.rest.is_empty());
            } else {
                let (announced, encoded) = encode(&read.bytes);
                prop_assert_eq!(announced, t0 & 0xF0);
                prop_assert_eq!(encoded.as_slice(), &rest[..sent]);
            }
        }
    }

    fn meaning(letter: char, number: u8, protocol: u8, value: u8) -> String {
        InterfaceByte { letter, number, value, protocol, is_repeated: false }.meaning()
    }

    #[test]
    fn ta1_describes_maximum_speed() {
        assert_eq!(meaning('A', 1, 0, 0x11), "Fi 372, Di 1, up to 5 MHz: at most 13440 bit/s");
        assert_eq!(meaning('A', 1, 0, 0x96), "Fi 512, Di 32, up to 5 MHz: at most 312500 bit/s");
        assert_eq!(meaning('A', 1, 0, 0xA8), "Fi 768, Di 12, up to 7.5 MHz: at most 117187 bit/s");
        assert_eq!(meaning('A', 1, 0, 0x7F), "Fi reserved, Di reserved");
    }

    #[test]
    fn guard_time_limits_are_described() {
        assert_eq!(meaning('C', 1, 0, 0), "no extra guard time");
        assert_eq!(meaning('C', 1, 0, 2), "extra guard time of 2 bits");
        assert_eq!(meaning('C', 1, 0, 255), "the least guard time of the protocol");
    }

    #[test]
    fn specific_mode_describes_protocol() {
        assert_eq!(
            meaning('A', 2, 0, 0x81),
            "specific mode: T=1 only, as the interface bytes say, cannot change"
        );
    }

    #[test]
    fn clock_stop_and_voltages_are_described() {
        assert_eq!(meaning('A', 3, 15, 0xC3), "clock may stop: either way; voltages: 5 V, 3 V");
        assert_eq!(meaning('A', 3, 15, 0x00), "clock may stop: never; voltages: unknown");
    }

    #[test]
    fn t1_blocks_are_described() {
        assert_eq!(meaning('A', 3, 1, 0xFE), "T=1: the card takes 254 bytes a block");
        assert_eq!(meaning('B', 3, 1, 0x45), "T=1: block waiting time 4, byte waiting time 5");
        assert_eq!(meaning('C', 3, 1, 1), "T=1: blocks end in a CRC");
    }
}
