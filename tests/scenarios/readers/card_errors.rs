//! Cards that are mute, slow, hung, strange or empty: reported for what they are, and never taken for
//! a known card.

use cardbridge_harness::cards::{Answering, Card, Faults, PlainCard, TableRow};

use super::*;

/// A card that only speaks T=0: no T=1 in its ATR.
const T0_ATR: [u8; 4] = [0x3b, 0x02, 0x14, 0x50];

/// A card that only speaks T=1.
const T1_ATR: [u8; 4] = [0x3b, 0x80, 0x01, 0x81];

/// Faults from the first command on.
fn answering(answering: Answering) -> Faults {
    Faults { answering, ..Faults::default() }
}

#[test]
fn mute_card_is_reported_and_read_after_reinsertion() {
    let world = require!(world()).start().unwrap();
    let faults = Faults { mute: true, ..Faults::default() };
    let mut card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    wait_card(&world, 0, "mute");
    let line = &world.audit().unwrap()[0];
    assert_eq!(line["reason"], "mute");
    assert!(line["detail"].as_str().unwrap().contains("turn it over"), "{line}");
    assert_eq!((line.get("entry"), line.get("atr")), (None, None));
    assert!(world.cli(&["status"]).unwrap().stdout.contains("mute"));

    card.eject();
    wait_card(&world, 0, "empty");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    world.finish().unwrap();
}

/// A card that answered at power-up is not mute, and to turn it round would not help.
#[test]
fn card_without_common_protocol_is_not_mute() {
    let world = require!(ifd()).start().unwrap();
    let faults = || Faults { t0_only: true, ..Faults::default() };
    let card = PlainCard::new(T1_ATR);
    let _card = world.insert_with(0, card, faults()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["not-identified"]);
    let line = &world.audit().unwrap()[0];
    let detail = line["detail"].as_str().unwrap();
    assert_eq!(
        (&line["reason"], &line["atr"]),
        (&json!("read-error"), &json!(hex::encode(T1_ATR)))
    );
    assert!(detail.contains("T=1") && detail.contains("another reader"), "{detail}");
    assert!(!detail.contains("turn it over"), "{detail}");

    let name = world.pcscd.reader_names()[0].clone();
    let read = world.cli(&["read", "--reader", &name]).unwrap().stdout;
    assert!(read.contains("T=1") && !read.contains("turn it over"), "{read}");
    // A card of T=0 has nothing to complain of in that reader.
    let _other = world.insert_with(1, PlainCard::new(T0_ATR), faults()).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();
    assert_eq!(world.audit().unwrap()[1]["reason"], "unknown-family");
    world.finish().unwrap();
}

#[test]
fn mute_card_delays_no_other_reader() {
    let world = require!(world()).start().unwrap();
    let faults = Faults { mute: true, ..Faults::default() };
    let _mute = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    wait_card(&world, 0, "mute");
    let _card = world.insert(1, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    assert_eq!(card_in(&world, 0)["state"], "mute");
    assert_eq!(world.outcomes().unwrap().len(), 2, "a mute card is reported once");
    world.finish().unwrap();
}

#[test]
fn mute_card_powered_by_other_program_is_processed() {
    let world = require!(world());
    require!(has_opensc());
    let world = world.start().unwrap();
    let faults = Faults { mute: true, ..Faults::default() };
    let card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    wait_card(&world, 0, "mute");
    card.heal();
    let powered = || opensc(&world, 0, "app default {}", &["--atr"]).output().unwrap();
    world.wait_until("the card to answer", LONG, || powered().status.success()).unwrap();
    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["not-identified", "updated"]);
    world.finish().unwrap();
}

#[test]
fn read_shows_commands_of_hung_card() {
    let world = require!(world()).without_daemon().start().unwrap();
    let faults = Faults { hang_at: Some(2), ..Faults::default() };
    let hung = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    wait_powered(&hung);
    let name = world.pcscd.reader_names()[0].clone();
    let read = world.cli(&["read", "--reader", &name, "--json", "--trace"]).unwrap();
    assert_eq!(read.code, Some(1), "{read:?}");
    let said = read.json().unwrap();
    assert_eq!(said["not_identified"]["reason"], "timeout", "{said}");
    assert_eq!(said["atr_decoded"]["tck"], "valid", "{said}");
    let responses: Vec<_> =
        said["trace"].as_array().unwrap().iter().map(|e| &e["response"]).collect();
    assert_eq!(responses.len(), 2, "{said}");
    assert!(responses[0].as_str().unwrap().ends_with("9000"), "{said}");
    assert_eq!(responses[1], "", "the command that hangs: {said}");

    let faults = Faults { mute: true, ..Faults::default() };
    let _mute = world.insert_with(1, GidsCard::seed(), faults).unwrap();
    let name = world.pcscd.reader_names()[1].clone();
    let mut said = Value::Null;
    let is_there = || {
        let read = world.cli(&["read", "--reader", &name, "--json"]).unwrap();
        said = read.json().unwrap_or_default();
        !said.is_null()
    };
    world.wait_until("the mute card", LONG, is_there).unwrap();
    assert_eq!(said["not_identified"]["reason"], "mute", "{said}");
    assert_eq!(said["atr"], Value::Null);
    drop(hung);
    world.finish().unwrap();
}

#[test]
fn hung_card_is_reported_as_timeout() {
    let mut world = require!(world()).cm(cm_with(&[OTHER])).start().unwrap();
    let faults = Faults { hang_at: Some(2), ..Faults::default() };
    let mut hung = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    hung.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    let began = Instant::now();
    let mut scan = Beside::start(world.cli_command(&["scan", "--once", "--json"]));
    let _good = world.insert(1, other()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert!(began.elapsed() < Duration::from_secs(8), "the other card waited for the hung one");
    assert_eq!(card_in(&world, 0)["state"], "reading");

    assert_eq!(world.wait_for_outcomes(2, LONG).unwrap(), ["updated", "not-identified"]);
    assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(world.audit().unwrap()[1]["reason"], "timeout");
    let card = wait_card(&world, 0, "not-identified");
    assert_eq!(card["error"]["reason"], "timeout");

    world.wait_until("scan to end as well", LONG, || !scan.runs()).unwrap();
    // The daemon's thread still has the card in a transaction.
    assert!(scan.output().contains(r#""reason":"in-use""#), "{}", scan.output());

    // What it says after all comes too late, and the next insertion starts again.
    hung.release();
    hung.wait_for("the late answer", LONG, |state| !state.hanging).unwrap();
    hung.eject();
    wait_card(&world, 0, "empty");
    let again = world.insert_with(0, GidsCard::seed(), Faults::default()).unwrap();
    assert_eq!(world.wait_for_outcomes(3, LONG).unwrap()[2], "updated");
    drop(again);

    // A thread that was given up, and one that was not, are both left behind at the end.
    let faults = Faults { hang_at: Some(1), ..Faults::default() };
    wait_card(&world, 0, "empty");
    let hung = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    hung.wait_for("the card to hang", LONG, |state| state.hanging).unwrap();
    world.stop_daemon().unwrap();
    world.finish().unwrap();
}

#[test]
fn a_slow_card_is_read() {
    let world = require!(world()).start().unwrap();
    let faults = Faults { slow: Duration::from_millis(200), ..Faults::default() };
    let card = world.insert_with(0, GidsCard::seed(), faults).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let took = world.audit().unwrap()[0]["duration_ms"].as_u64().unwrap();
    assert!(took >= 200 * card.apdus().len() as u64, "{took} ms");
    world.finish().unwrap();
}

#[test]
fn a_card_that_answers_nonsense_is_never_identified() {
    let strange = [
        (Answering::StatusWord(0x6f00), "unknown-family"),
        (Answering::StatusWord(0x6d00), "unknown-family"),
        (Answering::StatusWord(0x6a82), "unknown-family"),
        (Answering::StatusWord(0x6982), "unknown-family"),
        (Answering::StatusWord(0x9000), "unknown-family"),
        (Answering::StatusWord(0x6110), "unknown-family"),
        (Answering::StatusWord(0x6100), "unknown-family"),
        (Answering::StatusWord(0x6c10), "unknown-family"),
        (Answering::StatusWord(0x6c00), "unknown-family"),
        (Answering::Garbage, "unknown-family"),
        (Answering::Stump, "read-error"),
    ];
    let world = require!(world()).readers(strange.len()).start().unwrap();
    let cards: Vec<_> = strange
        .iter()
        .enumerate()
        .map(|(reader, (how, _))| {
            world.insert_with(reader, GidsCard::seed(), answering(*how)).unwrap()
        })
        .collect();
    world.wait_for_outcomes(strange.len(), LONG).unwrap();
    let audit = world.audit().unwrap();
    assert_eq!(audit.len(), strange.len(), "{audit:?}");
    for (name, (how, reason)) in world.pcscd.reader_names().iter().zip(strange) {
        let line = audit.iter().find(|line| line["reader"] == name.as_str()).unwrap();
        assert_eq!(line["outcome"], "not-identified", "{how:?}: {line}");
        assert_eq!(line["reason"], reason, "{how:?}: {line}");
        assert_eq!(line.get("card_id"), None, "{how:?}: {line}");
    }
    assert!(cards.iter().all(|card| card.apdus().len() < 100), "no card is asked without end");
    assert_eq!(world.cm.log().len(), 0, "CM gets no call for them");
    world.finish().unwrap();
}

/// Turns bad after the application was selected.
#[derive(Debug)]
struct TurnsBad {
    card: GidsCard,
    word: u16,
    selected: bool,
}

impl Card for TurnsBad {
    fn atr(&self) -> Vec<u8> {
        self.card.atr()
    }

    fn power(&mut self) {
        self.selected = false;
        self.card.power();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        if self.selected {
            return self.word.to_be_bytes().to_vec();
        }
        self.selected = true;
        self.card.command(apdu)
    }
}

#[test]
fn gids_card_without_usable_id_has_no_card_id() {
    let row = |object, file| TableRow { directory: "", name: "cardid", object, file };
    let seed = GidsCard::seed;
    let bad = |word| TurnsBad { card: seed(), word, selected: false };
    let cards: Vec<Box<dyn Card>> = vec![
        Box::new(GidsCard::uninitialised()),
        Box::new(GidsCard::without_cardid()),
        Box::new(GidsCard::new([0; 16])),
        Box::new(GidsCard::new([0xff; 16])),
        Box::new(seed().with_object((0xA012, 0xDF20), [7; 15])),
        Box::new(seed().with_object((0xA012, 0xDF20), [7; 17])),
        Box::new(seed().with_object((0xA012, 0xDF20), [])),
        Box::new(seed().with_table([])),
        Box::new(seed().with_table([2; 200])),
        Box::new(seed().with_rows(&[row(0x0001_DF20, 0xA012)])),
        Box::new(seed().with_rows(&[row(0xDF20, 0xA013)])),
        Box::new(bad(0x6f00)),
        Box::new(bad(0x6101)),
        Box::new(bad(0x6c01)),
    ];
    let world = require!(world()).readers(cards.len()).start().unwrap();
    let count = cards.len();
    let inserted: Vec<_> = cards
        .into_iter()
        .enumerate()
        .map(|(reader, card)| world.insert(reader, Boxed(card)).unwrap())
        .collect();
    world.wait_for_outcomes(count, LONG).unwrap();
    assert_eq!(column(&world, "outcome"), vec!["not-identified"; count]);
    for line in world.audit().unwrap() {
        assert_eq!(line["reason"], "no-card-id", "{line}");
        assert_eq!(line.get("card_id"), None, "{line}");
    }
    assert_eq!(world.cm.log().len(), 0);
    drop(inserted);
    world.finish().unwrap();
}

/// A card of any kind.
struct Boxed(Box<dyn Card>);

impl Card for Boxed {
    fn atr(&self) -> Vec<u8> {
        self.0.atr()
    }

    fn power(&mut self) {
        self.0.power();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        self.0.command(apdu)
    }
}

#[test]
fn card_is_read_with_any_answering_mode() {
    let mut ids: Vec<String> = (1..=6_u128).map(|n| drawn_id(n).to_string()).collect();
    ids.sort();
    let known: Vec<&str> = ids.iter().map(String::as_str).collect();
    let card = |n: usize| GidsCard::new(cardid(&ids[n]));
    let plain = Answering::Normal;
    let cards = [
        (card(0), Answering::GetResponse),
        (card(1), Answering::WrongLe),
        (card(2).with_atr(T0_ATR), plain),
        (card(3).with_atr(T0_ATR), Answering::GetResponse),
        (card(4).with_more_files(40), plain),
        (card(5).with_more_files(40).with_atr(T0_ATR).selected_by_default(), Answering::WrongLe),
    ];
    let world = require!(world()).readers(6).cm(cm_with(&known)).start().unwrap();
    let inserted: Vec<_> = cards
        .into_iter()
        .enumerate()
        .map(|(reader, (card, how))| world.insert_with(reader, card, answering(how)).unwrap())
        .collect();
    assert_eq!(world.wait_for_outcomes(6, LONG).unwrap(), ["updated"; 6]);
    let mut seen = column(&world, "card_id");
    seen.sort();
    assert_eq!(seen, ids);
    let long = inserted[4].apdus();
    assert!(long.iter().any(|exchange| exchange.command[1] == 0xc0), "the table came in parts");
    world.finish().unwrap();
}

#[test]
fn cards_get_only_reading_commands() {
    let world = require!(world()).start().unwrap();
    let gids = world.insert(0, GidsCard::seed()).unwrap();
    let plain = world.insert(1, PlainCard::default()).unwrap();
    world.wait_for_outcomes(2, LONG).unwrap();
    for exchange in gids.apdus().into_iter().chain(plain.apdus()) {
        // SELECT, GET DATA, GET RESPONSE; no VERIFY, no PUT DATA, no authentication.
        let instruction = exchange.command[1];
        assert!([0xa4, 0xcb, 0xca, 0xc0].contains(&instruction), "{exchange:02x?}");
    }
    let (mut gids, mut plain) = (gids, plain);
    for (reader, card) in [&mut gids, &mut plain].into_iter().enumerate() {
        card.eject();
        wait_card(&world, reader, "empty");
        assert_eq!(card.state().resets, 0, "other programs keep their sessions");
    }
    world.finish().unwrap();
}

#[test]
fn repeated_card_failures_are_counted_in_one_line() {
    let mut world = require!(ifd()).start().unwrap();
    for _ in 0..34 {
        let mut card = world.insert(0, PlainCard::new(T0_ATR)).unwrap();
        wait_card(&world, 0, "not-identified");
        card.eject();
        wait_card(&world, 0, "empty");
    }
    world.stop_daemon().unwrap();
    let audit = world.audit().unwrap();
    assert_eq!(audit.len(), 4, "{audit:#?}");
    let last = &audit[3];
    assert_eq!((&last["count"], &last["reason"]), (&json!(31), &json!("unknown-family")), "{last}");
    let time = |key: &str| last[key].as_str().unwrap().to_owned();
    assert!(time("first_seen_at") < time("last_seen_at"), "{last}");
    assert!(time("last_seen_at") <= time("at"), "{last}");
    assert_eq!(world.cli(&["audit", "verify"]).unwrap().code, Some(0));
    world.finish().unwrap();
}
