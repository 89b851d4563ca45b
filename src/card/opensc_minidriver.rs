//! The card id that OpenSC's minidriver for Windows makes of a serial text.
//!
//! Source: OpenSC `src/minidriver/minidriver.c`, `md_set_cardid`, and `src/libopensc/sc.c`,
//! `sc_hex_to_bin`. The minidriver reads the serial as hex, or takes its ASCII bytes where it is
//! none, and repeats the bytes until there are 16; Windows shows those as a GUID in memory order.

/// As many bytes of a serial as the minidriver has room for (`SC_MAX_SERIALNR`).
const MAX_SERIAL: usize = 32;

/// The 16 bytes of the minidriver's file `cardid`.
pub(super) fn cardid(serial: &str) -> [u8; 16] {
    let bytes = hex_to_bin(serial).unwrap_or_else(|| serial.bytes().take(MAX_SERIAL).collect());
    let mut cardid = [0; 16];
    for (to, from) in cardid.iter_mut().zip(bytes.iter().cycle()) {
        *to = *from;
    }
    cardid
}

/// Hex as `sc_hex_to_bin` reads it: either case, blanks and colons between whole bytes only, no odd
/// digit but a lone one, no more than there is room for.
fn hex_to_bin(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut high: Option<u8> = None;
    for letter in text.chars() {
        let separates = matches!(letter, ' ' | ':');
        match (letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()), high) {
            (None, None) if separates => {}
            (None, _) => return None,
            (Some(_), None) if bytes.len() == MAX_SERIAL => return None,
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(first)) => {
                bytes.push(first << 4 | digit);
                high = None;
            }
        }
    }
    match high {
        None => Some(bytes),
        Some(lone) if bytes.is_empty() => Some(vec![lone]),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// The serial text, the 16 bytes, and the GUID that Windows shows.
    const TABLE: [(&str, &str, &str); 10] = [
        (
            "fffe52ff6f06",
            "fffe52ff6f06fffe52ff6f06fffe52ff",
            "ff52feff-066f-feff-52ff-6f06fffe52ff",
        ),
        (
            "000612345678",
            "00061234567800061234567800061234",
            "34120600-7856-0600-1234-567800061234",
        ),
        (
            "9276000000001234",
            "92760000000012349276000000001234",
            "00007692-0000-3412-9276-000000001234",
        ),
        ("DENK0200123", "44454e4b3032303031323344454e4b30", "4b4e4544-3230-3030-3132-3344454e4b30"),
        (
            "0006123456780",
            "30303036313233343536373830303030",
            "36303030-3231-3433-3536-373830303030",
        ),
        ("7", "07070707070707070707070707070707", "07070707-0707-0707-0707-070707070707"),
        (
            "d4e739da739ced39ce739d836858210842108421c84210c3eb",
            "d4e739da739ced39ce739d8368582108",
            "da39e7d4-9c73-39ed-ce73-9d8368582108",
        ),
        (
            "a04f5343731001f9aa6e34537bee6fc1",
            "a04f5343731001f9aa6e34537bee6fc1",
            "43534fa0-1073-f901-aa6e-34537bee6fc1",
        ),
        (
            "3ff188bcba833740826246eba1291c6e",
            "3ff188bcba833740826246eba1291c6e",
            "bc88f13f-83ba-4037-8262-46eba1291c6e",
        ),
        ("0000", "00000000000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
    ];

    #[test]
    fn serials_become_the_ids_that_the_minidriver_makes_of_them() {
        for (serial, bytes, guid) in TABLE {
            let cardid = cardid(serial);
            assert_eq!(hex::encode(cardid), bytes, "{serial}");
            assert_eq!(Uuid::from_bytes_le(cardid).to_string(), guid, "{serial}");
        }
    }

    #[test]
    fn blanks_and_colons_count_between_whole_bytes_only() {
        assert_eq!(hex_to_bin("00:06 12"), Some(vec![0, 6, 0x12]));
        assert_eq!(hex_to_bin(" 00 "), Some(vec![0]));
        assert_eq!(hex_to_bin("0:0"), None);
        assert_eq!(hex_to_bin("7 "), None);
        assert_eq!(hex_to_bin("00-06"), None);
    }

    #[test]
    fn a_serial_of_more_than_32_bytes_is_taken_as_letters() {
        assert_eq!(hex_to_bin(&"0".repeat(64)).unwrap().len(), 32);
        assert_eq!(hex_to_bin(&format!("{}  ", "0".repeat(64))).unwrap().len(), 32);
        assert_eq!(cardid(&"1".repeat(65)), [b'1'; 16]);
    }

    #[test]
    fn no_serial_at_all_is_all_zeros() {
        assert_eq!(cardid(""), [0; 16]);
    }

    proptest! {
        #[test]
        fn every_text_has_an_id(text in ".{0,80}") {
            let _ = cardid(&text);
        }
    }
}
