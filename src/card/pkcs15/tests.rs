//! PKCS#15 cards as they should be, and as they should not.

mod forms;

use std::collections::BTreeMap;

use super::super::Protocol;
use super::super::tests::script::{Script, bytes};
use super::*;

/// The EF.TokenInfo of the worked example: serial 9276000000001234.
const INFO: &str = "301e0201000408927600000000123 40c0541434d45218004434152440302 0430";

const PKCS15: &str = "a000000063504b43532d3135";

/// A file system, and the forms of SELECT that a card knows.
#[derive(Clone)]
struct Files {
    /// Content by path from the MF, in hex: "5015" + "5032".
    content: BTreeMap<String, Content>,
    /// The DF that each application's name selects; the MF is the empty path.
    names: BTreeMap<String, String>,
    /// What GET DATA brings.
    objects: BTreeMap<String, String>,
    /// The P1 P2 that SELECT takes.
    select_forms: Vec<&'static str>,
    /// How much READ BINARY brings, in digits.
    at_most: usize,
    /// Where SELECT is now.
    current: String,
    sent: Vec<String>,
}

#[derive(Clone)]
enum Content {
    Transparent(String),
    Records(Vec<String>),
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let content = files.iter().map(|(path, content)| {
            ((*path).to_owned(), Content::Transparent(content.replace(' ', "")))
        });
        Self {
            content: content.collect(),
            names: BTreeMap::new(),
            objects: BTreeMap::new(),
            select_forms: vec!["0800", "0000", "0200", "0400"],
            at_most: 512,
            current: String::new(),
            sent: Vec::new(),
        }
    }

    fn named(mut self, name: &str, df: &str) -> Self {
        self.names.insert(name.to_owned(), df.to_owned());
        self
    }

    fn select_forms(self, select_forms: &[&'static str]) -> Self {
        Self { select_forms: select_forms.to_vec(), ..self }
    }

    fn exists(&self, path: &str) -> bool {
        self.content.keys().any(|file| file.starts_with(path))
    }

    fn select(&mut self, form: &str, what: &str) -> &'static str {
        if !self.select_forms.contains(&form) {
            return "6a86";
        }
        let df = match self.content.get(&self.current) {
            Some(_) => self.current.split_at(self.current.len() - 4).0.to_owned(),
            None => self.current.clone(),
        };
        let path = match form.split_at(2).0 {
            "04" => self.names.get(what).cloned(),
            "08" => Some(what.to_owned()),
            _ if what == "3f00" => Some(String::new()),
            _ => Some(df + what),
        };
        match path {
            Some(path) if path.is_empty() || self.exists(&path) => {
                self.current = path;
                "9000"
            }
            _ => "6a82",
        }
    }

    fn read(&self, offset: usize) -> String {
        match self.content.get(&self.current) {
            Some(Content::Transparent(content)) if offset * 2 <= content.len() => {
                let part: String = content.chars().skip(offset * 2).take(self.at_most).collect();
                let end = if part.len() < self.at_most { "6282" } else { "9000" };
                part + end
            }
            Some(Content::Transparent(_)) => "6b00".to_owned(),
            Some(Content::Records(_)) => "6981".to_owned(),
            None => "6986".to_owned(),
        }
    }

    fn record(&self, number: usize) -> String {
        match self.content.get(&self.current) {
            Some(Content::Records(records)) => {
                records.get(number - 1).map_or("6a83".to_owned(), |record| format!("{record}9000"))
            }
            _ => "6981".to_owned(),
        }
    }
}

impl Transmit for Files {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let command = command.to_bytes(Protocol::T1);
        self.sent.push(hex::encode(&command));
        let answer = match command.as_slice() {
            [0, 0xA4, p1, p2, length, rest @ ..] => {
                let what = hex::encode(&rest[..usize::from(*length)]);
                self.select(&hex::encode([*p1, *p2]), &what).to_owned()
            }
            [0, 0xB0, high, low, 0] => self.read(usize::from(u16::from_be_bytes([*high, *low]))),
            [0, 0xB2, number, 0x04, 0] => self.record(usize::from(*number)),
            [0, 0xCA, high, low, 0] => {
                let object = hex::encode([*high, *low]);
                self.objects.get(&object).cloned().unwrap_or_else(|| "6a88".to_owned())
            }
            _ => "6d00".to_owned(),
        };
        Ok(bytes(&answer))
    }

    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

fn run(card: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    probe(card)
}

fn serial(mut card: Files) -> String {
    match run(&mut card) {
        Ok(reading) => reading.serial.to_string(),
        other => panic!("{other:?} after {:?}", card.sent),
    }
}

/// An entry of EF.DIR.
fn entry(inside: &str) -> String {
    let inside = inside.replace(' ', "");
    format!("61{:02x}{inside}", inside.len() / 2)
}

fn usual_entry() -> String {
    entry(&format!("4f0c{PKCS15} 5004 43415244 5104 3f005015"))
}

const SERIAL: &str = "9276000000001234";

#[test]
fn token_info_serial_makes_opensc_id() {
    let mut card = Files::new(&[("2f00", &usual_entry()), ("50155032", INFO)]);
    let reading = run(&mut card).unwrap();
    assert_eq!(reading.serial.to_string(), SERIAL);
    let candidates = reading.candidates();
    let [candidate] = candidates.as_slice() else { panic!("{reading:?}") };
    assert_eq!(candidate.rule, IdRule::Pkcs15Opensc);
    assert_eq!(candidate.card_id.to_string(), "00007692-0000-3412-9276-000000001234");
}

#[test]
fn ef_dir_locates_token_info() {
    let elsewhere = entry(&format!("4f0c{PKCS15} 5104 3f004401"));
    assert_eq!(serial(Files::new(&[("2f00", &elsewhere), ("44015032", INFO)])), SERIAL);

    let redirected = entry(&format!("4f0c{PKCS15} 5104 3f005015 730a a008 0406 3f0044014402"));
    assert_eq!(serial(Files::new(&[("2f00", &redirected), ("44014402", INFO)])), SERIAL);

    let by_name = entry(&format!("4f0c{PKCS15}"));
    let card = Files::new(&[("2f00", &by_name), ("77015032", INFO)]).named(PKCS15, "7701");
    assert_eq!(serial(card), SERIAL);
}

#[test]
fn known_application_precedes_others() {
    let other = entry("4f05a000000001 5104 3f006601");
    let dir = format!("{other}{}ffffffff", usual_entry());
    let card =
        Files::new(&[("2f00", &dir), ("66015032", "300a02010004050102030405"), ("50155032", INFO)]);
    assert_eq!(serial(card), SERIAL);
}

#[test]
fn ef_dir_records_are_read() {
    let mut card = Files::new(&[("50155032", INFO)]);
    let records = vec![entry("4f05a000000001"), usual_entry()];
    card.content.insert("2f00".to_owned(), Content::Records(records));
    assert_eq!(serial(card), SERIAL);
}

#[test]
fn missing_ef_dir_uses_usual_places() {
    assert_eq!(serial(Files::new(&[("50155032", INFO)])), SERIAL);
    assert_eq!(
        serial(
            Files::new(&[("7701 5032", INFO)].map(|_| ("77015032", INFO))).named(PKCS15, "7701")
        ),
        SERIAL
    );
}

/// A card that shows its file system only once its applet was selected.
struct Applet(Files, BTreeMap<String, Content>);

impl Transmit for Applet {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let answer = self.0.transmit(command);
        if command.to_bytes(Protocol::T1).get(1..4) == Some(&[0xA4, 0x04, 0x00])
            && answer == Ok(vec![0x90, 0x00])
        {
            self.0.content = self.1.clone();
        }
        answer
    }
    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

#[test]
fn iso_applet_is_selected_first() {
    let name = "f276a288bcfba69d34f31001";
    let mut card = Files::new(&[("aa01", "00")]).named(name, "");
    // Nothing of the file system is there before the applet is.
    let inside = Files::new(&[("2f00", &usual_entry()), ("50155032", INFO)]).content;
    card.select_forms = vec!["0400", "0800", "0000"];
    let mut applet = Applet(card, inside);
    let reading = run(&mut applet).unwrap();
    assert_eq!(reading.serial.to_string(), SERIAL);
    assert_eq!(reading.reselect, Some(CommandApdu::select(&ISO_APPLET)));
}

#[test]
fn long_token_info_is_read_completely() {
    let rest = "5a".repeat(300);
    let content = format!("30820140 020100 04089276000000001234 0c82012c {rest}");
    let content = content.replace("30820140", &format!("3082{:04x}", 3 + 10 + 4 + 300));
    assert_eq!(serial(Files::new(&[("50155032", &format!("{content}0000"))])), SERIAL);
}

#[test]
fn token_info_without_serial_is_no_id() {
    for content in ["3003020100", "30080201000c03414243", "30050201000400"] {
        let mut card = Files::new(&[("50155032", content)]);
        assert!(matches!(run(&mut card), Err(NoReading::NoId(_))), "{content}");
    }
    let mut zeros = Files::new(&[("50155032", "3007020100 04020000")]);
    assert_eq!(run(&mut zeros).unwrap().candidates(), []);
}

#[test]
fn invalid_token_info_is_other_family() {
    for content in ["", "00", "30", "3000", "310302 0100", "30030401 00", "3080020100"] {
        let mut card = Files::new(&[("50155032", content)]);
        assert!(matches!(run(&mut card), Err(NoReading::OtherFamily(_))), "{content}");
    }
    let mut none = Script::new(Protocol::T1);
    assert!(matches!(run(&mut none), Err(NoReading::OtherFamily(_))));
    assert!(none.sent().len() <= 11, "{:?}", none.sent());
}

#[test]
fn missing_serial_is_read_as_opensc_does() {
    let serial = |object: &str, answer: &str| {
        let mut card = Files::new(&[("50155032", "3003020100")]);
        card.objects.insert(object.to_owned(), format!("{answer}9000"));
        run(&mut card).map(|reading| reading.serial.to_string())
    };
    assert_eq!(serial("0181", "0102030405060708").unwrap(), "0102030405060708");
    let block = format!("{}aabbccddeeff{}", "00".repeat(10), "00".repeat(16));
    assert_eq!(serial("0181", &block).unwrap(), "AABBCCDDEEFF", "as OpenSC prints it");
    let information = format!("{}00112233445566778899 0000", "00".repeat(8));
    assert_eq!(serial("01a0", &information).unwrap(), "00112233445566778899");
    for (object, answer) in
        [("0181", "010203"), ("0181", ""), ("01a0", "0102030405060708"), ("0181", &information)]
    {
        assert!(matches!(serial(object, answer), Err(NoReading::NoId(_))), "{object} {answer}");
    }
}

#[test]
fn known_pkcs15_application_is_first() {
    for name in ["a000000177504b43532d3135", "e828bd080f8025000001ff0010", "4446206973737565 72"] {
        let name = name.replace(' ', "");
        let other = |n: u8| entry(&format!("4f05a0000000{n:02x} 5104 3f0066{n:02x}"));
        let known = entry(&format!("4f{:02x}{name} 5104 3f004401", name.len() / 2));
        let dir: String = (1..=5).map(other).chain([known]).collect();
        let files =
            [("2f00", dir.as_str()), ("66015032", "300a02010004050102030405"), ("44015032", INFO)];
        assert_eq!(serial(Files::new(&files)), SERIAL, "{name}");
    }
}

#[test]
fn single_file_path_is_in_applications_df() {
    let dir = entry(&format!("4f0c{PKCS15} 5104 3f004401 7306 a004 0402 4432"));
    assert_eq!(serial(Files::new(&[("2f00", &dir), ("44014432", INFO)])), SERIAL);
}

#[test]
fn ef_dir_is_read_beyond_partial_response() {
    let first = entry("4f05a000000001 5104 3f006601");
    let dir = format!("{first}{}", usual_entry());
    let mut card = Files::new(&[("2f00", &dir), ("50155032", INFO)]);
    card.at_most = first.len();
    assert_eq!(serial(card), SERIAL);
}

#[test]
fn token_info_without_df_is_in_mf() {
    assert_eq!(serial(Files::new(&[("5032", INFO)])), SERIAL);
}

#[test]
fn file_is_selected_by_identifier_only() {
    let by_name = entry(&format!("4f0c{PKCS15}"));
    let card = Files::new(&[("2f00", &by_name), ("77015032", INFO)])
        .named(PKCS15, "7701")
        .select_forms(&["0400", "0800", "0000"]);
    assert_eq!(serial(card), SERIAL);
}

fn worth_of(number: &str) -> IdWorth {
    id_worth(&hex::decode(number).unwrap())
}

#[test]
fn cut_repeated_or_filled_serial_is_shared() {
    for number in [
        "9276000000001234",
        "534c494e0a3d7f9b1102a7c4e6f80911",
        "3132333435363738",
        "00112233445566778899",
    ] {
        assert_eq!(worth_of(number), IdWorth::Serial, "{number}");
    }
    for (number, reason) in [
        ("12", "one byte"),
        ("1234", "two bytes"),
        ("12341234", "two bytes twice"),
        ("92760000001234", "seven bytes"),
        ("92760000000012349276000000001234ab", "seventeen bytes"),
        ("534c494e0a3d7f9b1102a7c4e6f8091122334401", "twenty bytes"),
        ("1a2b3c4d1a2b3c4d", "four bytes twice"),
        ("1a2b3c4d5e1a2b3c", "five bytes repeated"),
        ("9276000000001234 9276000000001234", "eight bytes twice"),
        ("1a2b3c0000000000", "three bytes and zeros"),
        ("3132333420202020", "four letters and blanks"),
        ("0000000000001234", "two bytes behind zeros"),
        ("3030303030313233", "three digits behind zeros"),
        ("1a2b3c4dffffffffffffffff", "four bytes and ones"),
    ] {
        assert_eq!(worth_of(&number.replace(' ', "")), IdWorth::Shared, "{number}: {reason}");
    }
    for number in [
        "00",
        "30",
        "1212",
        "0000",
        "0000000000000000",
        "ffffffffffffffff",
        "2020202020202020",
        "3030303030303030",
        "3030303020202020",
        "4141414141414141",
    ] {
        assert_eq!(worth_of(number), IdWorth::Placeholder, "{number}");
    }
}

proptest::proptest! {
    #[test]
    fn serials_that_count_make_different_ids(
        one in proptest::collection::vec(0_u8..4, 1..33),
        lengths in (1_usize..33, 1_usize..33),
    ) {
        // Two serial numbers that repeat the same bytes to different lengths.
        let repeat = |length: usize| one.iter().copied().cycle().take(length).collect::<Vec<u8>>();
        let (a, b) = (repeat(lengths.0), repeat(lengths.1));
        let id = |number: &[u8]| opensc_cardid(&hex::encode(number));
        let both_count = id_worth(&a) == IdWorth::Serial && id_worth(&b) == IdWorth::Serial;
        proptest::prop_assert!(!(both_count && a != b && id(&a) == id(&b)), "{a:?} {b:?}");
    }
}
