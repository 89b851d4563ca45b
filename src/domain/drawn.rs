//! Whether 16 bytes look drawn at random, or written: a placeholder, a counter, a text, a sample.
//!
//! A card whose id was written by hand or by a tool's template shares it with other cards. No list
//! of such values is complete, so what is looked at is how they are made. A value that was drawn
//! fails one of these tests about once in a million.

use uuid::Uuid;

/// How many of 16 drawn bytes are different, at least.
const MIN_DISTINCT: usize = 5;

/// The longest run of one byte in 16 drawn ones.
const LONGEST_RUN: usize = 7;

/// How often a byte is the one before it, at most.
const MAX_REPEATED: usize = 10;

/// How often a byte is the one before it plus the same number, at most.
const MAX_COUNTED: usize = 5;

/// How many of 32 drawn hexadecimal digits are letters, at most: more of them are words.
const MAX_LETTERS: usize = 26;

/// The longest serial number that was repeated until it filled 16 bytes, in bytes.
const LONGEST_REPEATED: usize = 12;

/// How often the difference between neighbours is the same in a placeholder that counts, at least.
const MIN_COUNTED_STEPS: usize = 12;

/// The longest pattern of a placeholder that repeats it, in bytes.
const LONGEST_PATTERN: usize = 4;

/// What FASC-Ns of no card begin with (see `card::piv`); tools copied them into the GUID.
const FASCN_TEMPLATES: [[u8; 5]; 2] =
    [[0xD4, 0xE7, 0x39, 0xDA, 0x73], [0xD0, 0x42, 0x10, 0xD8, 0x21]];

/// GUIDs that stand in documents and programs.
const PUBLISHED: [u128; 10] = [
    // The device class of smart cards in Windows, which drivers gave for the card's id.
    0x990A_2BD7_E738_46C7_B26F_1CF8_FB9F_1391,
    // The device class of smart card readers in Windows.
    0x50DD_5230_BA8A_11D1_BF5D_0000_F805_F530,
    // RFC 9562, appendix A of RFC 4122, and Wikipedia.
    0x6BA7_B810_9DAD_11D1_80B4_00C0_4FD4_30C8,
    0x6BA7_B811_9DAD_11D1_80B4_00C0_4FD4_30C8,
    0x6BA7_B812_9DAD_11D1_80B4_00C0_4FD4_30C8,
    0x6BA7_B814_9DAD_11D1_80B4_00C0_4FD4_30C8,
    0xF81D_4FAE_7DEC_11D0_A765_00A0_C91E_6BF6,
    0x550E_8400_E29B_41D4_A716_4466_5544_0000,
    0x123E_4567_E89B_12D3_A456_4266_1417_4000,
    0x3F25_04E0_4F89_11D3_9A0C_0305_E82C_3301,
];

/// Whether these bytes look drawn, in whatever order the fields of the GUID are.
pub(super) fn is_likely(bytes: [u8; 16]) -> bool {
    let swapped = Uuid::from_bytes(bytes).to_bytes_le();
    [bytes, swapped].iter().all(|bytes| {
        let published = PUBLISHED.contains(&u128::from_be_bytes(*bytes));
        !published
            && has_entropy(bytes)
            && !is_text(bytes)
            && !is_words(bytes)
            && !holds_fascn(bytes)
    })
}

/// Whether these bytes are known to belong to no card: published, or made by counting, or by
/// repeating four bytes or fewer.
#[must_use]
pub fn is_placeholder(bytes: [u8; 16]) -> bool {
    let swapped = Uuid::from_bytes(bytes).to_bytes_le();
    [bytes, swapped].iter().any(|bytes| {
        PUBLISHED.contains(&u128::from_be_bytes(*bytes))
            || holds_fascn(bytes)
            || most_frequent(steps(bytes)) >= MIN_COUNTED_STEPS
            || (1..=LONGEST_PATTERN).any(|length| repeats(bytes, length))
    })
}

/// Whether no simple way makes these bytes: repeating a few, or counting.
fn has_entropy(bytes: &[u8; 16]) -> bool {
    let runs = bytes.chunk_by(|a, b| a == b).map(<[u8]>::len);
    let repeated = steps(bytes).filter(|step| *step == 0).count();
    let counted = most_frequent(steps(bytes).filter(|step| *step != 0));
    distinct(bytes) >= MIN_DISTINCT
        && runs.max() <= Some(LONGEST_RUN)
        && repeated <= MAX_REPEATED
        && counted <= MAX_COUNTED
        && !(1..=LONGEST_REPEATED).any(|length| repeats(bytes, length))
}

fn steps(bytes: &[u8; 16]) -> impl Iterator<Item = u8> {
    bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a))
}

/// Whether the first `length` bytes are repeated to the end.
fn repeats(bytes: &[u8; 16], length: usize) -> bool {
    bytes.iter().skip(length).eq(bytes.iter().take(16 - length))
}

/// Whether these are letters, filled up behind or not.
fn is_text(bytes: &[u8; 16]) -> bool {
    let filling = |byte: &&u8| matches!(**byte, 0x00 | 0xFF);
    let filled = bytes.iter().rev().take_while(filling).count();
    bytes.iter().take(16 - filled).all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether these are words that are written in hexadecimal.
fn is_words(bytes: &[u8; 16]) -> bool {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0F]);
    digits.filter(|digit| *digit > 9).count() > MAX_LETTERS
}

fn holds_fascn(bytes: &[u8; 16]) -> bool {
    FASCN_TEMPLATES.iter().any(|part| bytes.windows(part.len()).any(|window| window == part))
}

fn distinct(bytes: &[u8; 16]) -> usize {
    let mut sorted = *bytes;
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).count()
}

fn most_frequent(values: impl Iterator<Item = u8>) -> usize {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(<[u8]>::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn likely(text: &str) -> bool {
        is_likely(Uuid::try_parse(text).unwrap().into_bytes())
    }

    #[test]
    fn ids_of_real_cards_look_drawn() {
        for id in [
            "bc88f13f-83ba-4037-8262-46eba1291c6e",
            "a04f5343-7310-01f9-aa6e-34537bee6fc1",
            "d1ef6869-5517-42a0-8f05-16ca1a0b834d",
            "23cadd5f-9bd0-4bf0-bb01-9d1de2e5b2d8",
            // GidsApplet's recorded trace, and GUIDs of YubiKeys from public reports.
            "a7f5c742-8955-7bc0-7e9a-9de3ddbd21d7",
            "e005a6c9-f4f2-cb30-61da-57e8f5c0b09d",
            "9acae3db-acb7-f8b5-295a-1be28d916b2c",
            "18d0e48b-ecd1-f91b-91f8-45089e9b3e13",
            "be5c1d0d-2628-6f30-b67d-ef481f5ef208",
            "1de34917-daa9-7af2-4486-1f2adba6a4db",
            // Numbered by an issuer, behind a prefix of its own.
            "57090000-0000-4000-8000-000000000000",
            "57090000-0000-4000-8000-000000000012",
            "bc88f13f-83ba-4037-8262-000000000012",
        ] {
            assert!(likely(id), "{id}");
        }
    }

    #[test]
    fn ids_that_were_written_do_not_in_either_order_of_bytes() {
        for id in [
            "00000000-0000-0000-0000-000000000001",
            "01000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-fffffffffffe",
            "11111111-1111-1111-1111-111111111111",
            "78787878-7878-7878-7878-787878787878",
            "11111111-2222-3333-4444-555555555555",
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "0f0e0d0c-0b0a-0908-0706-050403020100",
            "01020304-0506-0708-090a-0b0c0d0e0f10",
            "00112233-4455-6677-8899-aabbccddeeff",
            "01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-fedc-ba9876543210",
            "12345678-1234-1234-1234-123456789abc",
            "a1a2a3a4-b1b2-c1c2-d1d2-d3d4d5d6d7d8",
            "deadbeef-dead-beef-dead-beefdeadbeef",
            "deadbeef-cafe-babe-feed-facebaddecaf",
            "00000000-0000-0000-0000-0000deadbeef",
            "00000000-0000-0000-1234-56789abcdef0",
            // The text 1234567890123456 of NIST's test cards, and other texts.
            "31323334-3536-3738-3930-313233343536",
            "54657374-2043-6172-6420-4e756d626572",
            "41434d45-2d30-3030-3132-330000000000",
            // Serial numbers that were repeated.
            "fffe52ff-6f06-fffe-52ff-6f06fffe52ff",
            "00112233-4455-6677-8899-001122334455",
            "8f3a1c77-e205-9b46-d318-6ac08f3a1c77",
            // A FASC-N where the GUID belongs.
            "013019d4-e739-da73-9ced-39ce739d8368",
            "990a2bd7-e738-46c7-b26f-1cf8fb9f1391",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "00000000-0000-0000-c000-000000000046",
        ] {
            assert!(!likely(id), "{id}");
            let swapped = Uuid::try_parse(id).unwrap().to_bytes_le();
            assert!(!is_likely(swapped), "{id}, the other way round");
        }
    }

    #[test]
    fn a_number_that_a_site_writes_is_no_placeholder_and_a_template_is_one() {
        for (id, placeholder) in [
            ("00000000-0000-0000-0000-00c0ffee2345", false),
            ("41434d45-2d30-3030-3132-330000000000", false),
            ("bc88f13f-83ba-4037-8262-46eba1291c6e", false),
            ("78787878-7878-7878-7878-787878787878", true),
            ("00010203-0405-0607-0809-0a0b0c0d0e0f", true),
            ("31323334-3536-3738-3930-313233343536", true),
            ("deadbeef-dead-beef-dead-beefdeadbeef", true),
            ("013019d4-e739-da73-9ced-39ce739d8368", true),
            ("990a2bd7-e738-46c7-b26f-1cf8fb9f1391", true),
        ] {
            let uuid = Uuid::try_parse(id).unwrap();
            for bytes in [uuid.into_bytes(), uuid.to_bytes_le()] {
                assert_eq!(is_placeholder(bytes), placeholder, "{id}");
                assert!(!(placeholder && is_likely(bytes)), "{id}");
            }
        }
    }

    #[test]
    fn every_published_value_is_known_in_either_order() {
        for value in PUBLISHED {
            let uuid = Uuid::from_u128(value);
            assert!(!is_likely(uuid.into_bytes()) && !is_likely(uuid.to_bytes_le()), "{uuid}");
        }
    }

    #[test]
    fn next_to_no_drawn_value_is_taken_for_a_written_one() {
        let mut random = fastrand::Rng::with_seed(10);
        let failed = (0..200_000).filter(|_| !is_likely(random.u128(..).to_be_bytes())).count();
        assert!(failed <= 3, "{failed} of 200,000");
    }

    proptest! {
        #[test]
        fn what_repeats_or_counts_never_looks_drawn(
            part in prop::collection::vec(any::<u8>(), 1..=LONGEST_REPEATED),
            start in any::<u8>(),
            step in any::<u8>(),
        ) {
            let repeated: Vec<_> = part.iter().copied().cycle().take(16).collect();
            prop_assert!(!is_likely(repeated.try_into().unwrap()));
            let mut counted = [0; 16];
            let mut next = start;
            for byte in &mut counted {
                *byte = next;
                next = next.wrapping_add(step);
            }
            prop_assert!(!is_likely(counted));
        }
    }
}
