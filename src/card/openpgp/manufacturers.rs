//! The manufacturers that give out serial numbers of OpenPGP cards.
//!
//! Source: `GnuPG`'s `scd/app-openpgp.c`, `get_manufacturer`, which is where the numbers are registered.
//! 0000 and FFFF are for tests, FF00 to FFFE for serial numbers that anyone draws; a number that
//! is not in the list is no better.

/// Every registered number, in order.
const REGISTERED: [u16; 30] = [
    0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0006, 0x0007, 0x0008, 0x0009, 0x000A, 0x000B, 0x000D,
    0x000E, 0x000F, 0x0010, 0x0011, 0x002A, 0x0042, 0x1337, 0x2342, 0x4354, 0x5343, 0x5443, 0x63AF,
    0xBA53, 0xBD0E, 0xCA05, 0xF1D0, 0xF517, 0xF5EC,
];

/// Whether this is the number of test cards, which all begin to count at 1.
pub(super) const fn is_for_tests(number: [u8; 2]) -> bool {
    matches!(number, [0x00, 0x00] | [0xFF, 0xFF])
}

/// Whether the manufacturer with this number (big-endian) is registered.
pub(super) fn is_registered(number: [u8; 2]) -> bool {
    REGISTERED.binary_search(&u16::from_be_bytes(number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_has_none_of_the_numbers_that_anyone_may_use() {
        assert!(REGISTERED.is_sorted());
        for number in [0x0000, 0xFF00, 0xFF7F, 0xFFFE, 0xFFFF, 0xAFAF, 0x1234_u16] {
            assert!(!is_registered(number.to_be_bytes()), "{number:04x}");
        }
        assert!(is_registered([0x00, 0x06]));
    }
}
