//! Cards of generated data, mostly pairs of which one is like the other.

use proptest::prelude::*;

use super::*;

/// The data of an application, by which a card differs from others.
#[derive(Debug, Clone, PartialEq)]
enum Data {
    Gids([u8; 16]),
    Idprime([u8; 16]),
    /// FASC-N and GUID.
    Piv([u8; 25], [u8; 16]),
    /// Manufacturer and serial number.
    Openpgp([u8; 2], [u8; 4]),
    Pkcs15(Vec<u8>),
}

impl Data {
    const fn family(&self) -> Family {
        match self {
            Self::Gids(_) => Family::Gids,
            Self::Idprime(_) => Family::Idprime,
            Self::Piv(..) => Family::Piv,
            Self::Openpgp(..) => Family::Openpgp,
            Self::Pkcs15(_) => Family::Pkcs15,
        }
    }

    fn table(&self) -> String {
        match self {
            Self::Gids(id) => format!("[gids]\ncardid = \"{}\"", hex::encode(id)),
            Self::Idprime(id) => format!("[idprime]\ncardid = \"{}\"", hex::encode(id)),
            Self::Piv(fascn, guid) => {
                let (fascn, guid) = (hex::encode(fascn), hex::encode(guid));
                format!("[piv]\nfascn = \"{fascn}\"\nguid = \"{guid}\"")
            }
            Self::Openpgp(manufacturer, serial) => {
                let (manufacturer, serial) = (hex::encode(manufacturer), hex::encode(serial));
                format!(
                    "[openpgp]\nversion = \"0304\"\nmanufacturer = \"{manufacturer}\"\nserial = \"{serial}\""
                )
            }
            Self::Pkcs15(serial) => {
                format!("[pkcs15]\nserial = \"{}\"\nlabel = \"C\"", hex::encode(serial))
            }
        }
    }

    /// The same data, but for one byte.
    fn change(&mut self, at: prop::sample::Index, byte: u8) {
        match self {
            Self::Gids(id) | Self::Idprime(id) => id[at.index(16)] = byte,
            Self::Piv(fascn, guid) => match at.index(41) {
                place @ 0..25 => fascn[place] = byte,
                place => guid[place - 25] = byte,
            },
            Self::Openpgp(manufacturer, serial) => match at.index(6) {
                place @ 0..2 => manufacturer[place] = byte,
                place => serial[place - 2] = byte,
            },
            Self::Pkcs15(serial) => {
                let place = at.index(serial.len());
                serial[place] = byte;
            }
        }
    }

    /// Whether both have the serial number of one card: that is what its issuer promises not to do. What
    /// follows the credential in a FASC-N says whose it is, and not which.
    fn is_same_serial(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Piv(fascn, _), Self::Piv(other, _)) => fascn[..16] == other[..16],
            _ => self == other,
        }
    }
}

/// Bytes of few values, so that cards come near each other.
fn few<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    let byte = prop::sample::select(vec![0x00, 0xFF, 0x12, 0x20, 0x30, 0x5A]);
    prop::collection::vec(byte, N).prop_map(|bytes| bytes.try_into().unwrap())
}

fn fascn() -> impl Strategy<Value = [u8; 25]> {
    let constants = [
        "d4e739da739ced39ce739d836858210842108421c84210c3eb",
        "d4e739da739ced39ce739d836858210842108421384210c3f5",
        "d04210d821086c1084210d836858210842108421c84210c3eb",
        "d0439458210c2c19a0846d83685a1082108ce73984108ca3fc",
    ];
    let constant = prop::sample::select(constants.to_vec())
        .prop_map(|text| <[u8; 25]>::try_from(hex::decode(text).unwrap()).unwrap());
    (constant, few::<25>(), 0_usize..26).prop_map(|(mut fascn, other, keep)| {
        fascn[keep..].copy_from_slice(&other[keep..]);
        fascn
    })
}

fn data() -> impl Strategy<Value = Data> {
    let manufacturer = prop::sample::select(vec![
        [0, 0],
        [0, 6],
        [0xFF, 0xFF],
        [0xFF, 0xFE],
        [0xFF, 0],
        [0x12, 0x34],
    ]);
    let drawn = Just(*b"\xa0\x4f\x53\x43\x73\x10\x01\xf9\xaa\x6e\x34\x53\x7b\xee\x6f\xc1");
    prop_oneof![
        few().prop_map(Data::Gids),
        few().prop_map(Data::Idprime),
        (fascn(), prop_oneof![few(), drawn]).prop_map(|(fascn, guid)| Data::Piv(fascn, guid)),
        (manufacturer, few())
            .prop_map(|(manufacturer, serial)| Data::Openpgp(manufacturer, serial)),
        serial().prop_map(Data::Pkcs15),
    ]
}

/// Serial numbers of all lengths; those that begin alike, repeat the same bytes, are filled up, or differ
/// only behind the 16 bytes that count.
fn serial() -> impl Strategy<Value = Vec<u8>> {
    let drawn = Just(*b"\x92\x76\x3d\x0a\x9b\x7f\x11\x02\xa7\xc4\xe6\xf8\x09\x15\x53\x4c");
    let base = prop_oneof![drawn, few()];
    let filling = prop::sample::select(vec![0x00, 0xFF, b' ', b'0']);
    (base, 1_usize..=16, 1_usize..=40, prop::option::of(filling)).prop_map(
        |(base, part, length, filling)| {
            let part = base[..part].iter().copied();
            match filling {
                Some(filling) => part.chain(std::iter::repeat(filling)).take(length).collect(),
                None => part.cycle().take(length).collect(),
            }
        },
    )
}

/// A card of one application, or a few.
#[derive(Debug, Clone, PartialEq)]
struct Made(Vec<Data>);

impl Made {
    fn file(&self) -> String {
        let has_files = self.0.iter().any(|data| data.family() == Family::Pkcs15);
        let selected = if has_files { "default_selected = \"pkcs15\"\n" } else { "" };
        let tables: Vec<_> = self.0.iter().map(Data::table).collect();
        format!("atr = \"3b800181\"\n{selected}{}\n", tables.join("\n"))
    }

    fn shares_a_serial_with(&self, other: &Self) -> bool {
        self.0.iter().any(|data| other.0.iter().any(|other| data.is_same_serial(other)))
    }
}

fn made() -> impl Strategy<Value = Made> {
    prop::collection::vec(data(), 1..4).prop_map(|mut data| {
        data.sort_by_key(Data::family);
        data.dedup_by_key(|data| data.family());
        Made(data)
    })
}

/// Another card, mostly one that is like the first.
fn pair() -> impl Strategy<Value = (Made, Made)> {
    let (one, at) = (made(), any::<[prop::sample::Index; 2]>());
    let near = (one, at, any::<u8>()).prop_map(|(one, [which, at], byte)| {
        let mut other = one.clone();
        let which = which.index(other.0.len());
        other.0[which].change(at, byte);
        (one, other)
    });
    // Serial numbers that OpenSC's minidriver may make the same 16 bytes of.
    let alike = (few::<2>(), few::<4>(), 1_usize..=40, 1_usize..=40).prop_map(
        |(manufacturer, serial, length, other)| {
            let both = [manufacturer.as_slice(), &serial].concat();
            let repeated =
                |length| Data::Pkcs15(both.iter().copied().cycle().take(length).collect());
            let one =
                if length < 7 { Data::Openpgp(manufacturer, serial) } else { repeated(length) };
            (Made(vec![one]), Made(vec![repeated(other)]))
        },
    );
    let serials = (serial(), serial())
        .prop_map(|(one, other)| (Made(vec![Data::Pkcs15(one)]), Made(vec![Data::Pkcs15(other)])));
    prop_oneof![(made(), made()), near, alike, serials]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 1024,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_two_cards_act_on_one_record_unless_a_unique_id_is_equal((one, other) in pair()) {
        let folder = tempfile::tempdir().unwrap();
        let identity = |name: &str, card: &Made| {
            let file = folder.path().join(name);
            std::fs::write(&file, card.file()).unwrap();
            ask(&file, None)
        };
        let (atr, first, _) = identity("one.toml", &one);
        let (_, second, _) = identity("other.toml", &other);
        if let (Ok(first), Ok(second), false) = (first, second, one == other) {
            let same_serial = one.shares_a_serial_with(&other);
            let what = format!("{one:?} and {other:?}");
            assert_not_both(((&atr, &first), (&atr, &second)), same_serial, &what);
            // Nor does one take the other's place in the queue.
            if !same_serial && !share_a_unique_id(&first, &second) {
                prop_assert_ne!(first.key(&atr), second.key(&atr));
            }
        }
    }
}
