//! 16-byte values that belong to no card: placeholders of tools, and published samples.
//!
//! A card whose GUID is one of them shares it with other cards. Random bytes make such a pattern
//! about once in 10^10 cards. Values that a site counts up itself are none of them.

use uuid::Uuid;

/// The longest pattern of a placeholder that repeats it, in bytes.
const MAX_PATTERN: usize = 4;

/// The two digits of a GUID with version and variant (RFC 9562 section 4), which also a template without
/// random bytes sets.
const VERSION_AND_VARIANT: u128 = 0x0000_0000_0000_F000_F000_0000_0000_0000;

/// What FASC-Ns of no card begin with (see `card::piv`); tools copied them into the GUID.
const FASCN_TEMPLATES: [[u8; 5]; 2] =
    [[0xD4, 0xE7, 0x39, 0xDA, 0x73], [0xD0, 0x42, 0x10, 0xD8, 0x21]];

/// GUIDs that stand in documents and programs.
const PUBLISHED: [u128; 12] = [
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
    0x1234_5678_1234_1234_1234_1234_5678_9ABC,
    0x3F25_04E0_4F89_11D3_9A0C_0305_E82C_3301,
    // The text 1234567890123456, in the CHUIDs of NIST's test cards (SP 800-73 reference data).
    0x3132_3334_3536_3738_3930_3132_3334_3536,
];

/// Whether these bytes are known to belong to no card, in whatever order the fields of the GUID are.
pub fn is_placeholder(bytes: [u8; 16]) -> bool {
    let swapped = Uuid::from_bytes(bytes).to_bytes_le();
    [bytes, swapped].iter().any(|bytes| {
        let value = u128::from_be_bytes(*bytes);
        PUBLISHED.contains(&value)
            || holds_fascn(bytes)
            || counts(bytes)
            || (1..=MAX_PATTERN).any(|length| repeats(bytes, length))
    })
}

/// Whether each byte is the one before it plus the same number.
fn counts(bytes: &[u8; 16]) -> bool {
    let mut steps = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    let first = steps.next();
    steps.all(|step| Some(step) == first)
}

/// Whether the first `length` bytes are repeated to the end, but for version and variant.
fn repeats(bytes: &[u8; 16], length: usize) -> bool {
    let mut repeated = [0; 16];
    for (to, from) in repeated.iter_mut().zip(bytes.iter().take(length).cycle()) {
        *to = *from;
    }
    let differences = u128::from_be_bytes(*bytes) ^ u128::from_be_bytes(repeated);
    differences & !VERSION_AND_VARIANT == 0
}

fn holds_fascn(bytes: &[u8; 16]) -> bool {
    FASCN_TEMPLATES.iter().any(|part| bytes.windows(part.len()).any(|window| window == part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_and_published_values_are_placeholders() {
        for (id, expected) in [
            ("00000000-0000-0000-0000-00c0ffee2345", false),
            ("00000000-0000-0000-0000-000000000001", false),
            ("57090000-0000-4000-8000-000000000012", false),
            ("41434d45-2d30-3030-3132-330000000000", false),
            ("bc88f13f-83ba-4037-8262-46eba1291c6e", false),
            ("00000000-0000-4000-8000-000000000000", true),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", true),
            ("ffffffff-ffff-4fff-bfff-ffffffffffff", true),
            ("11111111-1111-4111-8111-111111111111", true),
            ("12345678-1234-5678-1234-567812345678", true),
            ("12345678-1234-1234-1234-123456789abc", true),
            ("00010203-0405-4607-8809-0a0b0c0d0e0f", false),
            ("00112233-4455-4677-8899-aabbccddeeff", false),
            ("78787878-7878-7878-7878-787878787878", true),
            ("20202020-2020-2020-2020-202020202020", true),
            ("00010203-0405-0607-0809-0a0b0c0d0e0f", true),
            ("0f0e0d0c-0b0a-0908-0706-050403020100", true),
            ("00112233-4455-6677-8899-aabbccddeeff", true),
            ("31323334-3536-3738-3930-313233343536", true),
            ("deadbeef-dead-beef-dead-beefdeadbeef", true),
            ("013019d4-e739-da73-9ced-39ce739d8368", true),
            ("990a2bd7-e738-46c7-b26f-1cf8fb9f1391", true),
        ] {
            let uuid = Uuid::try_parse(id).unwrap();
            for bytes in [uuid.into_bytes(), uuid.to_bytes_le()] {
                assert_eq!(is_placeholder(bytes), expected, "{id}");
            }
        }
    }

    #[test]
    fn random_value_is_no_placeholder() {
        let mut random = fastrand::Rng::with_seed(10);
        let found = (0..200_000).filter(|_| is_placeholder(random.u128(..).to_be_bytes())).count();
        assert_eq!(found, 0);
    }

    proptest! {
        #[test]
        fn repeating_or_counting_value_is_placeholder(
            part in prop::collection::vec(any::<u8>(), 1..=MAX_PATTERN),
            start in any::<u8>(),
            step in any::<u8>(),
        ) {
            let repeated: Vec<_> = part.iter().copied().cycle().take(16).collect();
            prop_assert!(is_placeholder(repeated.try_into().unwrap()));
            let mut counted = [0; 16];
            let mut next = start;
            for byte in &mut counted {
                *byte = next;
                next = next.wrapping_add(step);
            }
            prop_assert!(is_placeholder(counted));
        }
    }
}
