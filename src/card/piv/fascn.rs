//! The FASC-N, by which agencies of the US government number their credentials.
//!
//! Source: PACS "Technical Implementation Guidance: Smart Card Enabled Physical Access Control
//! Systems", version 2.3, section 6. 25 bytes are 40 symbols of five bits: four bits of the digit,
//! the least significant first, and a bit for odd parity.
//!
//! ```text
//! symbol  0      1-4      5   6-9     10   11-16       17  18  19  20  21   22-37     38   39
//!         start  agency   sep system  sep  credential  sep CS  sep ICI sep  person …  end  LRC
//! ```

use super::IdWorth;

const SYMBOLS: usize = 40;

const START: u8 = 0xB;
const SEPARATOR: u8 = 0xD;
const END: u8 = 0xF;

/// Issuers outside the government, who are all alike.
const OUTSIDE: [u8; 4] = [9; 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fascn(pub(super) [u8; 25]);

impl Fascn {
    /// What it is worth as a card's id, by agency, system and credential. The rest identifies the person,
    /// not the card.
    pub(super) fn id_worth(&self) -> IdWorth {
        let symbols = self.symbols();
        let fields: [&[u8]; 3] = [&symbols[1..5], &symbols[6..10], &symbols[11..17]];
        let is_assigned =
            |field: &&[u8]| field.iter().any(|d| *d != 0) && field.iter().any(|d| *d != 9);
        let is_constant = fields.iter().flat_map(|field| *field).all(|digit| *digit == symbols[1]);
        // Whatever the rest, and however wrong the parity.
        if is_constant || !fields.iter().any(is_assigned) {
            IdWorth::Placeholder
        } else if fields.iter().all(is_assigned) && fields[0] != OUTSIDE && self.is_valid() {
            IdWorth::Serial
        } else {
            IdWorth::Shared
        }
    }

    /// Whether the agency code is 9999: start and four nines with their parity, whatever follows.
    pub(super) const fn is_outside_government(&self) -> bool {
        matches!(self.0, [0xD4, 0xE7, 0x39, 0x80..=0xFF, ..])
    }

    /// The first 16 bytes, of which an id is made.
    pub(super) fn front(&self) -> [u8; 16] {
        *self.0.first_chunk().unwrap_or(&[0; 16])
    }

    /// Whether every symbol is in its place, with the right parity and check symbol.
    fn is_valid(&self) -> bool {
        let symbols = self.symbols();
        let parity = self.raw_symbols().all(|bits| bits.count_ones() % 2 == 1);
        let check = symbols.iter().fold(0, |sum, symbol| sum ^ symbol) == 0;
        let in_place = symbols.iter().enumerate().all(|(place, symbol)| match place {
            0 => *symbol == START,
            5 | 10 | 17 | 19 | 21 => *symbol == SEPARATOR,
            38 => *symbol == END,
            39 => true,
            _ => *symbol <= 9,
        });
        parity && check && in_place
    }

    /// The four bits of each symbol, as a number.
    fn symbols(&self) -> [u8; SYMBOLS] {
        let mut symbols = [0; SYMBOLS];
        for (symbol, bits) in symbols.iter_mut().zip(self.raw_symbols()) {
            *symbol = (bits >> 1).reverse_bits() >> 4;
        }
        symbols
    }

    /// The five bits of each symbol, in the card's order.
    fn raw_symbols(&self) -> impl Iterator<Item = u8> {
        let bit = |at: usize| self.0.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
        (0..SYMBOLS).map(move |symbol| {
            (0..5).fold(0, |bits, place| bits << 1 | u8::from(bit(symbol * 5 + place)))
        })
    }
}

#[cfg(test)]
pub(in crate::card) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The FASC-N of these digits: 4 of the agency, 4 of the system, 6 of the credential, 1 of the
    /// series, 1 of the issue, 16 of the person.
    pub(in crate::card) fn encode(digits: &str) -> [u8; 25] {
        let mut fields = digits.chars().map(|c| u8::try_from(c.to_digit(10).unwrap()).unwrap());
        let mut symbols = vec![START];
        for length in [4, 4, 6, 1, 1] {
            symbols.extend(fields.by_ref().take(length));
            symbols.push(SEPARATOR);
        }
        symbols.extend(fields);
        symbols.push(END);
        symbols.push(symbols.iter().fold(0, |sum, symbol| sum ^ symbol));
        assert_eq!(symbols.len(), SYMBOLS);
        let bits = symbols.iter().flat_map(|symbol| {
            let parity = symbol.count_ones().is_multiple_of(2);
            (0..4).map(move |bit| symbol >> bit & 1 == 1).chain([parity])
        });
        let bits: Vec<_> = bits.collect();
        let bytes =
            bits.chunks(8).map(|byte| byte.iter().fold(0, |b, bit| b << 1 | u8::from(*bit)));
        bytes.collect::<Vec<u8>>().try_into().unwrap()
    }

    const PERSON: &str = "0000000000300001";

    fn of(agency: &str, system: &str, credential: &str, rest: &str) -> IdWorth {
        Fascn(encode(&format!("{agency}{system}{credential}{rest}"))).id_worth()
    }

    fn written(hex: &str) -> IdWorth {
        Fascn(hex::decode(hex).unwrap().try_into().unwrap()).id_worth()
    }

    #[test]
    fn published_fascns_have_expected_worth() {
        // Yubico's template today, and that of older tools, whose last symbols are wrong.
        let template = encode(&format!("9999999999999901{PERSON}"));
        assert_eq!(hex::encode(template), "d4e739da739ced39ce739d836858210842108421c84210c3eb");
        for constant in [
            "d4e739da739ced39ce739d836858210842108421c84210c3eb",
            "d4e739da739ced39ce739d836858210842108421384210c3f5",
            "d4e739da739ced39ce739d8368582108421084210842108400",
            // pivy's and PivApplet's.
            "d04210d821086c1084210d836858210842108421c84210c3eb",
        ] {
            assert_eq!(written(constant), IdWorth::Placeholder, "{constant}");
        }
        // PACS, figure 7: agency 0032, system 0001, credential 092446.
        let agency = "d0439458210c2c19a0846d83685a1082108ce73984108ca3fc";
        assert_eq!(written(agency), IdWorth::Serial);
        assert_eq!(hex::encode(encode("00320001092446011112223333199992")).len(), 50);
    }

    #[test]
    fn fascn_of_agency_is_serial_else_shared() {
        let rest = format!("01{PERSON}");
        for (agency, system, credential, meant) in [
            ("9700", "1234", "567890", IdWorth::Serial),
            ("9990", "0009", "000009", IdWorth::Serial),
            ("9700", "1234", "000001", IdWorth::Serial),
            ("9999", "1234", "567890", IdWorth::Shared),
            ("0000", "1234", "567890", IdWorth::Shared),
            ("9700", "9999", "567890", IdWorth::Shared),
            ("9700", "0000", "567890", IdWorth::Shared),
            ("9700", "1234", "999999", IdWorth::Shared),
            ("9700", "1234", "000000", IdWorth::Shared),
            ("9999", "9999", "123456", IdWorth::Shared),
            ("9999", "9999", "999999", IdWorth::Placeholder),
            ("0000", "0000", "000000", IdWorth::Placeholder),
            ("9999", "9999", "000000", IdWorth::Placeholder),
            ("0000", "9999", "999999", IdWorth::Placeholder),
            ("1111", "1111", "111111", IdWorth::Placeholder),
        ] {
            assert_eq!(
                of(agency, system, credential, &rest),
                meant,
                "{agency}-{system}-{credential}"
            );
        }
    }

    #[test]
    fn invalid_fascn_is_never_serial() {
        for bytes in [[0x00; 25], [0xFF; 25], [0x5A; 25], *b"SERIAL NUMBER 12345678901"] {
            assert_ne!(Fascn(bytes).id_worth(), IdWorth::Serial, "{}", hex::encode(bytes));
        }
        // Nothing but separators, each with its parity.
        let separators = [0xB5, 0xAD, 0x6B, 0x5A, 0xD6].repeat(5);
        assert_eq!(Fascn(separators.try_into().unwrap()).id_worth(), IdWorth::Placeholder);
    }

    proptest! {
        #[test]
        fn constant_fascn_is_placeholder(
            digit in prop::sample::select(vec!['0', '9']),
            rest in "[0-9]{18}",
            flipped in prop::collection::vec(0_usize..SYMBOLS, 0..6),
            tail in any::<[u8; 8]>(),
        ) {
            let mut fascn = encode(&(digit.to_string().repeat(14) + &rest));
            for symbol in flipped {
                let parity = symbol * 5 + 4;
                fascn[parity / 8] ^= 0x80 >> (parity % 8);
            }
            fascn[17..].copy_from_slice(&tail);
            prop_assert_eq!(Fascn(fascn).id_worth(), IdWorth::Placeholder);
        }

        #[test]
        fn fascn_with_wrong_bit_is_never_serial(digits in "97001[0-9]{27}", bit in 0_usize..200) {
            let mut fascn = encode(&digits);
            fascn[bit / 8] ^= 0x80 >> (bit % 8);
            prop_assert_ne!(Fascn(fascn).id_worth(), IdWorth::Serial);
        }
    }
}
