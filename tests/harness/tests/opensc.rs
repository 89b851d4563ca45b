//! The virtual cards, judged by OpenSC's tools: what these say of a card agrees
//! with its personalisation file.

#![expect(
    clippy::expect_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use cardbridge_harness::cards::{AppletCard, InsertedCard, load};
use cardbridge_harness::pcscd::{Pcscd, PcscdOptions, available};
use cardbridge_harness::process::wait_until;
use cardbridge_harness::require;

const LONG: Duration = Duration::from_secs(10);

/// What OpenSC is to say of a card.
struct Expected {
    /// Its file, without `.toml`.
    file: &'static str,
    /// One name, or what each of several versions calls it.
    names: &'static [&'static str],
    /// The keys whose values, one behind the other, are the serial number that
    /// `opensc-tool` prints; empty where it finds none.
    serial: &'static [&'static str],
}

const fn card(
    file: &'static str,
    names: &'static [&'static str],
    serial: &'static [&'static str],
) -> Expected {
    Expected { file, names, serial }
}

const PIV: &[&str] = &["Personal Identity Verification Card"];
const UNSUPPORTED: &str = "Unsupported card";
const IDPRIME_BLANK: &[&str] = &["Gemalto IDPrime (generic)", "Gemalto IDPrime 930/3930"];
const IDPRIME_840: &[&str] = &["Gemalto IDPrime (generic)", "Gemalto IDPrime MD 840"];
const IDPRIME_930: &[&str] = &["Gemalto IDPrime (OSv2)", "Gemalto IDPrime 930/3930"];
const IDPRIME_940: &[&str] = &["Gemalto IDPrime (generic)", "Gemalto IDPrime 940"];
const OPENPGP: &[&str] = &["openpgp.manufacturer", "openpgp.serial"];

/// OpenSC's version, major and minor.
fn version() -> (u32, u32) {
    let output = Command::new("opensc-tool").arg("--info").output().expect("opensc-tool runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "OpenSC 0.26.1 [gcc  14.2.0]", in a line of its own.
    let line = text.lines().find_map(|line| line.trim().strip_prefix("OpenSC "));
    let mut numbers = line.expect("a version").split(['.', ' ', '-']).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).expect("a number");
    (next(), next())
}

/// A private pcscd with a card in each of its readers.
struct Bench {
    pcscd: Pcscd,
    cards: Vec<InsertedCard>,
}

impl Bench {
    fn with(files: &[&str]) -> Result<Self, String> {
        let pcscd = start(files.len())?;
        let insert = |(reader, file): (usize, &&str)| {
            let card = load(path(file)).expect("it is a card");
            pcscd.insert(reader, card).expect("the card goes in")
        };
        let cards = files.iter().enumerate().map(insert).collect();
        let bench = Self { pcscd, cards };
        bench.wait_for_cards(files.len());
        Ok(bench)
    }

    fn wait_for_cards(&self, count: usize) {
        wait_until("pcscd has seen the cards", LONG, || {
            run(&self.pcscd, "opensc-tool", &["-l"]).matches("Yes").count() == count
        })
        .expect("pcscd polls its readers");
    }

    /// What a tool prints of the card in a reader.
    fn ask(&self, reader: usize, tool: &str, args: &[&str]) -> String {
        // By name: pcscd numbers its readers in the order in which it found them.
        let reader = self.pcscd.reader_names().swap_remove(reader);
        let args = [&["--reader", &reader], args].concat();
        run(&self.pcscd, tool, &args)
    }

    fn name(&self, reader: usize) -> String {
        self.ask(reader, "opensc-tool", &["--name"]).trim().to_owned()
    }

    fn serial(&self, reader: usize) -> String {
        bytes(&self.ask(reader, "opensc-tool", &["--serial"]))
    }

    /// The serial number of the PKCS#15 view, which every supported card has.
    fn token_serial(&self, reader: usize) -> Option<String> {
        field(&self.ask(reader, "pkcs15-tool", &["--list-info"]), "Serial number")
    }
}

fn start(readers: usize) -> Result<Pcscd, String> {
    available()?;
    require::program("opensc-tool", "opensc")?;
    Ok(Pcscd::start(PcscdOptions { readers, ..PcscdOptions::default() }).expect("pcscd starts"))
}

fn output(pcscd: &Pcscd, tool: &str, args: &[&str]) -> Output {
    let mut command = Command::new(tool);
    command.args(args).env("PCSCLITE_CSOCK_NAME", pcscd.socket_path());
    command.env_remove("OPENSC_DRIVER").env_remove("OPENSC_CONF");
    command.output().expect("the tool runs")
}

fn run(pcscd: &Pcscd, tool: &str, args: &[&str]) -> String {
    String::from_utf8_lossy(&output(pcscd, tool, args).stdout).into_owned()
}

fn path(file: &str) -> PathBuf {
    let cards = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../cards");
    cards.join(file).with_extension("toml")
}

/// The value of `table.key` in a card's file, without blanks.
fn personal(file: &str, key: &str) -> String {
    let text = fs::read_to_string(path(file)).expect("it is there");
    let table: toml::Table = text.parse().expect("it is TOML");
    let (family, key) = key.split_once('.').expect("table.key");
    let value = table.get(family).and_then(|family| family.get(key)?.as_str());
    value.expect("the file has it").split_whitespace().collect()
}

/// The bytes in `3F F1 88 …  ?...`, line by line, without their text.
fn bytes(dump: &str) -> String {
    let lines = dump.lines().filter_map(|line| line.get(..48.min(line.len())));
    let words = lines.flat_map(|line| line.split(' ').take(16));
    words
        .filter(|word| word.len() == 2 && hex::decode(word).is_ok())
        .collect::<String>()
        .to_lowercase()
}

/// What stands behind `name :` in a tool's list.
fn field(list: &str, name: &str) -> Option<String> {
    let line = list.lines().find(|line| line.trim().starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn judge(expected: &[Expected]) {
    let files: Vec<_> = expected.iter().map(|it| it.file).collect();
    let bench = require!(Bench::with(&files));
    for (reader, it) in expected.iter().enumerate() {
        let serial: String = it.serial.iter().map(|key| personal(it.file, key)).collect();
        let name = bench.name(reader);
        assert!(it.names.contains(&name.as_str()), "{}: {name}", it.file);
        assert_eq!(bench.serial(reader), serial, "{}", it.file);
    }
    assert!(bench.cards.iter().all(|card| !card.apdus().is_empty()));
}

#[test]
fn a_piv_card_has_its_guid_or_its_fascn_for_a_serial() {
    judge(&[
        card("piv-yubikey-5", PIV, &["piv.guid"]),
        card("piv-fascn", PIV, &["piv.fascn"]),
        card("piv-without-guid", PIV, &["piv.fascn"]),
        card("piv-signed-chuid", PIV, &["piv.guid"]),
        card("piv-signed-chuid-t0", PIV, &["piv.guid"]),
        card("piv-default-selected", PIV, &["piv.guid"]),
        card("piv-contactless", PIV, &["piv.guid"]),
        card("unknown-aid-6999", PIV, &["piv.guid"]),
        card("unknown-aid-6d00", PIV, &["piv.guid"]),
        // Sooner or later a program takes it for the applet that says yes to all.
        card("unknown-aid-9000", &["MuscleApplet"], &[]),
    ]);
}

#[test]
fn a_piv_card_without_a_chuid_has_no_serial() {
    judge(&[
        card("piv-blank", PIV, &[]),
        card("piv-empty-chuid", PIV, &[]),
        card("piv-refused-chuid", PIV, &[]),
        // 0.23 does not mind that all bytes are zero.
        card("piv-zero-chuid", PIV, &["piv.fascn"]),
    ]);
}

#[test]
fn piv_card_with_empty_select_answer_is_known() {
    let bench = require!(Bench::with(&["piv-bare-select"]));
    assert_eq!(bench.name(0), UNSUPPORTED);
    // PIV has stayed selected, and so its discovery object is there to be read. 0.26 does not do so.
    if version() >= (0, 26) {
        return assert_eq!(bench.name(0), UNSUPPORTED);
    }
    assert_eq!([bench.name(0)], PIV);
    assert_eq!(bench.serial(0), personal("piv-bare-select", "piv.guid"));
}

#[test]
fn an_openpgp_card_has_manufacturer_and_serial() {
    judge(&[
        card("openpgp-yubico", &["OpenPGP card v3.4 (0006 12345678)"], OPENPGP),
        card("openpgp-v2", &["OpenPGP card v2.0 (0005 00001A2B)"], OPENPGP),
        card("openpgp-v3", &["OpenPGP card v3.4 (0005 00003C4D)"], OPENPGP),
        card("openpgp-gnuk", &["Gnuk v1.x.x (OpenPGP v2.0) (F517 87654321)"], OPENPGP),
        card("openpgp-blank", &["OpenPGP card v3.4 (FFFE 00000000)"], OPENPGP),
        card("openpgp-terminated", &[UNSUPPORTED], &[]),
    ]);
}

#[test]
fn openpgp_tool_reads_the_applet_also_beside_others() {
    let files = ["openpgp-yubico", "piv-yubikey-5", "piv-openpgp", "multi-cplc"];
    let bench = require!(Bench::with(&files));
    for (reader, file) in files.iter().enumerate() {
        let list = bench.ask(reader, "openpgp-tool", &["--card-info"]);
        let serial = field(&list, "Serial number").map(|serial| serial.to_lowercase());
        assert_eq!(serial, Some(personal(file, "openpgp.serial")), "{file}: {list}");
        let aid = list.lines().next().expect("a first line").replace(':', "");
        assert!(aid.contains(&personal(file, "openpgp.manufacturer")), "{file}: {list}");
    }
}

#[test]
fn a_pkcs15_card_has_the_serial_of_its_token_info_or_its_own() {
    let serials = [
        ("pkcs15-transparent", Some("pkcs15.serial")),
        ("pkcs15-records", Some("pkcs15.serial")),
        ("pkcs15-without-dir", Some("pkcs15.serial")),
        ("pkcs15-iso-applet", Some("pkcs15.serial")),
        ("pkcs15-blank", None),
        ("pkcs15-gdo", None),
    ];
    let bench = require!(Bench::with(&serials.map(|(file, _)| file)));
    for (reader, (file, key)) in serials.into_iter().enumerate() {
        let serial = key.map_or("(null)".to_owned(), |key| personal(file, key));
        assert_eq!(bench.token_serial(reader), Some(serial), "{file}");
        let list = bench.ask(reader, "pkcs15-tool", &["--dump"]);
        assert!(list.contains("PKCS#15 Card [CARD]"), "{file}: {list}");
    }
}

#[test]
fn a_pkcs15_card_without_a_serial_may_have_the_chips() {
    let bench =
        require!(Bench::with(&["pkcs15-cardos", "pkcs15-myeid", "pkcs15-broken-token-info"]));
    assert_eq!(bench.name(0), "Atos CardOS");
    assert_eq!(bench.serial(0), "0102030405060708");
    assert_eq!(bench.token_serial(0).as_deref(), Some("0102030405060708"));
    assert_eq!(bench.name(1), "MyEID 3.3.3");
    assert_eq!(bench.serial(1), "00112233445566778899");
    assert_eq!(bench.token_serial(1).as_deref(), Some("00112233445566778899"));
    assert_eq!(bench.token_serial(2), None);
}

#[test]
fn an_idprime_card_has_its_cardid_for_a_serial() {
    judge(&[
        card("idprime-930", IDPRIME_930, &["idprime.cardid"]),
        card("idprime-940", IDPRIME_940, &["idprime.cardid"]),
        card("idprime-840", IDPRIME_840, &["idprime.cardid"]),
        card("idprime-blank", IDPRIME_BLANK, &[]),
        card("idprime-short-cardid", IDPRIME_BLANK, &[]),
        // 0.23 does not know this ATR.
        if version() >= (0, 26) {
            card("idprime-etoken", IDPRIME_940, &["idprime.cardid"])
        } else {
            card("idprime-etoken", &[UNSUPPORTED], &[])
        },
    ]);
}

#[test]
fn a_gids_card_has_its_cardid_unless_piv_is_found_first() {
    judge(&[
        card("gids-seed", &["GIDS Smart Card"], &["gids.cardid"]),
        card("gids-blank", &["GIDS Smart Card"], &[]),
        card("gids-piv", PIV, &["piv.guid"]),
        card("multi-cplc", PIV, &["piv.fascn"]),
    ]);
}

#[test]
fn pin_verification_ends_for_other_program() {
    let pcscd = require!(start(2));
    let card = AppletCard::load(path("piv-openpgp")).expect("it is a card");
    let pins = card.pins();
    let card = pcscd.insert(0, card).expect("the card goes in");
    let bench = Bench { pcscd, cards: vec![card] };
    bench.wait_for_cards(1);
    let select = "00A4040009A0000003080000100000";
    let verify = "0020008008313233343536FFFF";
    let said = bench.ask(0, "opensc-tool", &["-s", select, "-s", verify]);
    assert!(said.matches("SW1=0x90, SW2=0x00").count() == 2, "{said}");
    assert!(pins.is_verified("piv"));
    assert_eq!(bench.serial(0), personal("piv-openpgp", "piv.guid"));
    assert!(!pins.is_verified("piv"), "OpenSC selects PIV again");
    assert_eq!(pins.tries_left("piv"), Some(3));
}
