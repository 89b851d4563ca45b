//! The interface bytes: TA1, TB1, TC1, TD1, TA2 … (ISO 7816-3:2006 sections 8.2.3 and 8.3).
//!
//! T0 and each TD announce, from bit 5 up, which of TA TB TC TD follow. Of the same letter with
//! the same protocol only the first byte after TD2 has a meaning; the others are reserved.

use std::fmt;

/// An interface byte, in the order sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceByte {
    /// Which of the four.
    pub letter: Letter,
    /// Its number, from 1.
    pub number: u8,
    /// The byte.
    pub value: u8,
    /// What it is about.
    pub role: ByteRole,
}

/// The letter of an interface byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// TA.
    A,
    /// TB.
    B,
    /// TC.
    C,
    /// TD.
    D,
}

/// What an interface byte is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRole {
    /// Clock cycles per bit: Fi and Di (TA1).
    Speed,
    /// The programming voltage of long ago, to be ignored (TB1, TB2).
    Voltage,
    /// Extra guard time between bytes to the card (TC1).
    GuardTime,
    /// A protocol, and which bytes follow (TD).
    Protocol,
    /// The card speaks one way only, without negotiation (TA2).
    SpecificMode,
    /// How long the card may take on T=0 (TC2).
    WaitingTime,
    /// How much the card takes in one block on T=1: IFSC.
    BlockSize,
    /// How long the card may take on T=1: BWI and CWI.
    BlockWaitingTime,
    /// How blocks are checked on T=1.
    BlockCheck,
    /// Whether the clock may stop, and which voltages the card takes (T=15).
    ClockAndClass,
    /// What contact C6 is for (T=15).
    SpareContact,
    /// Not given a meaning by the standard, for this protocol.
    Reserved(u8),
}

/// For which protocol an interface byte counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteScope {
    /// For all.
    Global,
    /// For T= this one.
    Specific(u8),
    /// None: it says which bytes follow.
    Structural,
}

/// The interface bytes, and what follows them.
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
        let (mut announcing, mut protocol) = (Some(t0), None);
        let mut number = 0_u8;
        while let Some(byte) = announcing {
            number = number.saturating_add(1);
            announcing = None;
            for letter in Letter::ALL.into_iter().filter(|letter| letter.announced_by(byte)) {
                let Some(value) = read.take() else { return read };
                read.push(letter, number, value, protocol);
                announcing = (letter == Letter::D).then_some(value);
            }
            protocol = announcing.map(|td| td & 0x0F);
        }
        read
    }

    fn take(&mut self) -> Option<u8> {
        if let [first, rest @ ..] = self.rest {
            self.rest = rest;
            Some(*first)
        } else {
            self.cut_off = true;
            None
        }
    }

    fn push(&mut self, letter: Letter, number: u8, value: u8, protocol: Option<u8>) {
        let role = role(letter, number, protocol.unwrap_or(0));
        let again = number > 2 && role != ByteRole::Protocol && {
            self.bytes.iter().any(|byte| byte.number > 2 && byte.role == role)
        };
        let role = if again { ByteRole::Reserved(protocol.unwrap_or(0)) } else { role };
        self.bytes.push(InterfaceByte { letter, number, value, role });
    }

    /// The protocol nibbles of the TD bytes, in their order.
    pub(super) fn indicated(&self) -> Vec<u8> {
        let tds = self.bytes.iter().filter(|byte| byte.letter == Letter::D);
        tds.map(|byte| byte.value & 0x0F).collect()
    }
}

/// What a byte is about; `protocol` is the one of the TD that announced it.
const fn role(letter: Letter, number: u8, protocol: u8) -> ByteRole {
    match (letter, number, protocol) {
        (Letter::D, _, _) => ByteRole::Protocol,
        (Letter::A, 1, _) => ByteRole::Speed,
        (Letter::B, 1 | 2, _) => ByteRole::Voltage,
        (Letter::C, 1, _) => ByteRole::GuardTime,
        (Letter::A, 2, _) => ByteRole::SpecificMode,
        (Letter::C, 2, _) => ByteRole::WaitingTime,
        (Letter::A, _, 1) => ByteRole::BlockSize,
        (Letter::B, _, 1) => ByteRole::BlockWaitingTime,
        (Letter::C, _, 1) => ByteRole::BlockCheck,
        (Letter::A, _, 15) => ByteRole::ClockAndClass,
        (Letter::B, _, 15) => ByteRole::SpareContact,
        (Letter::A | Letter::B | Letter::C, _, other) => ByteRole::Reserved(other),
    }
}

impl InterfaceByte {
    /// For which protocol the byte counts.
    #[must_use]
    pub const fn scope(&self) -> ByteScope {
        match self.role {
            ByteRole::Protocol => ByteScope::Structural,
            ByteRole::Speed
            | ByteRole::Voltage
            | ByteRole::GuardTime
            | ByteRole::SpecificMode
            | ByteRole::ClockAndClass
            | ByteRole::SpareContact
            | ByteRole::Reserved(15) => ByteScope::Global,
            ByteRole::WaitingTime => ByteScope::Specific(0),
            ByteRole::BlockSize | ByteRole::BlockWaitingTime | ByteRole::BlockCheck => {
                ByteScope::Specific(1)
            }
            ByteRole::Reserved(protocol) => ByteScope::Specific(protocol),
        }
    }
}

impl Letter {
    const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// The bit of T0 or TD that announces it.
    const fn bit(self) -> u8 {
        match self {
            Self::A => 0x10,
            Self::B => 0x20,
            Self::C => 0x40,
            Self::D => 0x80,
        }
    }

    const fn announced_by(self, byte: u8) -> bool {
        byte & self.bit() != 0
    }
}

/// The byte's name: TA1.
impl fmt::Display for InterfaceByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{:?}{}", self.letter, self.number)
    }
}

impl fmt::Display for ByteScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Specific(protocol) => write!(f, "T={protocol}"),
            Self::Structural => f.write_str("structural"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// T0's half and the bytes, written anew from letters, numbers and values.
    fn encode(bytes: &[InterfaceByte]) -> (u8, Vec<u8>) {
        let announced = |number: u8| {
            let of_number = bytes.iter().filter(|byte| byte.number == number);
            of_number.fold(0, |bits, byte| bits | byte.letter.bit())
        };
        let value = |byte: &InterfaceByte| match byte.letter {
            Letter::D => announced(byte.number + 1) | (byte.value & 0x0F),
            Letter::A | Letter::B | Letter::C => byte.value,
        };
        (announced(1), bytes.iter().map(value).collect())
    }

    fn roles(t0: u8, rest: &[u8]) -> Vec<(String, ByteRole)> {
        let read = InterfaceBytes::read(t0, rest);
        read.bytes.iter().map(|byte| (byte.to_string(), byte.role)).collect()
    }

    #[test]
    fn every_byte_has_its_name_and_its_role() {
        // YubiKey 5 NFC: 3B FD 13 00 00 81 31 FE 15
        let read = InterfaceBytes::read(0xFD, &[0x13, 0, 0, 0x81, 0x31, 0xFE, 0x15, 0x80]);
        let seen: Vec<_> = read.bytes.iter().map(|b| (b.to_string(), b.scope())).collect();
        let seen: Vec<_> = seen.iter().map(|(name, scope)| (name.as_str(), *scope)).collect();
        let meant = [
            ("TA1", ByteScope::Global),
            ("TB1", ByteScope::Global),
            ("TC1", ByteScope::Global),
            ("TD1", ByteScope::Structural),
            ("TD2", ByteScope::Structural),
            ("TA3", ByteScope::Specific(1)),
            ("TB3", ByteScope::Specific(1)),
        ];
        assert_eq!(seen, meant);
        assert_eq!((read.rest, read.cut_off), ([0x80].as_slice(), false));
        assert_eq!(read.indicated(), [1, 1]);
    }

    #[test]
    fn the_second_byte_of_a_letter_and_a_protocol_is_reserved() {
        let seen = roles(0x80, &[0x81, 0x91, 0xFE, 0x91, 0x20, 0x1F, 0x03]);
        let meant = [("TA3", ByteRole::BlockSize), ("TA4", ByteRole::Reserved(1))];
        for (name, role) in meant {
            assert!(seen.contains(&(name.to_owned(), role)), "{seen:?}");
        }
    }

    #[test]
    fn global_bytes_after_t15_tell_clock_and_voltage() {
        // SmartCard-HSM 4K: 3B DE 96 FF 81 91 FE 1F C3
        let seen = roles(0xDE, &[0x96, 0xFF, 0x81, 0x91, 0xFE, 0x1F, 0xC3]);
        assert_eq!(seen.last(), Some(&("TA4".to_owned(), ByteRole::ClockAndClass)));
    }

    #[test]
    fn bytes_that_are_announced_and_missing_are_told() {
        let read = InterfaceBytes::read(0xF0, &[0x11, 0x00]);
        assert!(read.cut_off);
        assert_eq!(read.bytes.len(), 2);
        assert!(read.rest.is_empty());
    }

    proptest! {
        #[test]
        fn what_was_read_encodes_to_what_was_sent(
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
}
