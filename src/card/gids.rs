//! Microsoft's Generic Identity Device Specification: what TPM virtual smart cards and many cards
//! behind Windows' own minidriver speak. `docs/cards.md` has the sources.
//!
//! The id is the 16-byte file `cardid` that Windows wrote when it initialised the card. Where that
//! file lies stands in the master file table; no PIN is needed for either.

use uuid::Uuid;

use super::apdu::Command;
use super::exchange::{NoAnswer, ask};
use super::tlv::{self, Tlv, TlvError};
use super::{Miss, Transmit};
use crate::domain::{Atr, Candidate, CardId, CardIdError, Family, IdRule, Identity, Serial};

/// The application, without the two bytes for revision and variant that follow.
const AID: [u8; 9] = [0xA0, 0x00, 0x00, 0x03, 0x97, 0x42, 0x54, 0x46, 0x59];

/// The application template in the answer to SELECT, and the AID in it.
const APPLICATION: u32 = 0x61;
const APPLICATION_ID: u32 = 0x4F;

/// Where a data object lies: the file that holds it, and its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    file: u16,
    object: u32,
}

/// The master file table.
const TABLE: Place = Place { file: 0xA000, object: 0xDF1F };

/// Where the factory's table puts the card id.
const USUAL_CARDID: Place = Place { file: 0xA012, object: 0xDF20 };

/// Finds the card id of a GIDS card.
pub(super) fn probe(transport: &mut dyn Transmit, _atr: &Atr) -> Result<Identity, Miss> {
    let selected = ask(transport, &Command::select(&AID)).map_err(Miss::other_family)?;
    if !is_gids(&selected) {
        return Err(Miss::OtherFamily("card accepts SELECT, but as another application".into()));
    }
    let place = match ask(transport, &TABLE.command()) {
        Ok(answer) => {
            find_cardid(&answer).map_err(|why| Miss::NoId(format!("file table: {why}")))?
        }
        // A table that is there and says something else is believed; one that cannot be read is not.
        Err(NoAnswer::Refused(_)) => USUAL_CARDID,
        Err(why) => return Err(Miss::no_id("file table", why)),
    };
    let answer = ask(transport, &place.command()).map_err(|why| Miss::no_id("cardid", why))?;
    read_cardid(place, &answer).map_err(|why| Miss::NoId(format!("cardid: {why}")))
}

impl Place {
    fn command(self) -> Command {
        Command::get_data(self.file, self.object)
    }
}

/// Whether the answer to SELECT names the application; cards exist that accept any SELECT.
fn is_gids(answer: &[u8]) -> bool {
    let objects = tlv::value(answer, APPLICATION).and_then(tlv::all).unwrap_or_default();
    objects.iter().any(|Tlv { tag, value }| *tag == APPLICATION_ID && value.starts_with(&AID))
}

/// Why an answer holds no card id, or no place of one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Shape(#[from] TlvError),
    #[error("version {0:?} is not the known one")]
    Version(Option<u8>),
    #[error("it has no file cardid")]
    NotListed,
    #[error("it puts cardid at object {object:X} of file {file:X}, which cannot be")]
    Place { file: u32, object: u32 },
    #[error("{0} bytes where 16 belong")]
    Length(usize),
    #[error(transparent)]
    Id(#[from] CardIdError),
}

/// The first byte of a file table whose layout is known.
const TABLE_VERSION: u8 = 1;

/// One record of the file table, 28 bytes: directory and name, NUL-padded; two bytes of padding; tag and
/// file id, each 32 bits little-endian.
struct Record {
    directory: [u8; 9],
    name: [u8; 9],
    object: u32,
    file: u32,
}

impl Record {
    /// A record from the front of the input; `None` where too little is left for one.
    fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (directory, rest) = input.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (_padding, rest) = rest.split_first_chunk::<2>()?;
        let (object, rest) = rest.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let record = Self {
            directory: *directory,
            name: *name,
            object: u32::from_le_bytes(*object),
            file: u32::from_le_bytes(*file),
        };
        Some((record, rest))
    }

    /// Whether this is the file `cardid` in the root directory; names have no case.
    fn is_cardid(&self) -> bool {
        text(&self.directory).is_empty() && text(&self.name).eq_ignore_ascii_case(b"cardid")
    }

    fn place(&self) -> Result<Place, Unusable> {
        let Self { file, object, .. } = *self;
        match u16::try_from(file) {
            Ok(file) if object <= 0xFFFF => Ok(Place { file, object }),
            _ => Err(Unusable::Place { file, object }),
        }
    }
}

/// A NUL-padded name without its padding.
fn text(padded: &[u8]) -> &[u8] {
    padded.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Looks `cardid` up in the answer that holds the file table. A partial record at the end is
/// ignored.
fn find_cardid(answer: &[u8]) -> Result<Place, Unusable> {
    let table = tlv::value(answer, TABLE.object)?;
    let Some((&TABLE_VERSION, mut records)) = table.split_first() else {
        return Err(Unusable::Version(table.first().copied()));
    };
    while let Some((record, rest)) = Record::split(records) {
        if record.is_cardid() {
            return record.place();
        }
        records = rest;
    }
    Err(Unusable::NotListed)
}

/// Makes the identity of the 16 bytes that the answer holds.
///
/// They are a Windows GUID in memory order, so its first three fields are little-endian; a card id
/// that was typed in by hand may be in reading order instead.
fn read_cardid(place: Place, answer: &[u8]) -> Result<Identity, Unusable> {
    let value = tlv::value(answer, place.object)?;
    let raw: [u8; 16] = value.try_into().map_err(|_| Unusable::Length(value.len()))?;
    let windows = CardId::try_from(Uuid::from_bytes_le(raw))?;
    let in_order = CardId::try_from(Uuid::from_bytes(raw))?;
    let first = Candidate { card_id: windows, rule: IdRule::GidsCardid };
    let second = Candidate { card_id: in_order, rule: IdRule::GidsCardidBe };
    let rest = if in_order == windows { Vec::new() } else { vec![second] };
    Ok(Identity::new(Family::Gids, Serial::from_bytes(&raw), first, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::script::{CARDID, GIDS_SELECTED, GIDS_TABLE, Script, atr};
    use super::super::{Interrupted, Protocol};
    use super::*;

    const SELECT: &str = "00a4040009a0000003974254465900";
    const READ_TABLE: &str = "00cba000045c02df1f00";
    const READ_CARDID: &str = "00cba012045c02df2000";

    fn run(card: &mut dyn Transmit) -> Result<Identity, Miss> {
        probe(card, &atr())
    }

    fn card() -> Script {
        Script::gids(Protocol::T1)
    }

    fn no_id(mut card: Script) -> String {
        match run(&mut card) {
            Err(Miss::NoId(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    /// A row of the table as hex.
    fn row(directory: &str, name: &str, object: u32, file: u32) -> String {
        let pad = |text: &str| format!("{:0<18}", hex::encode(text));
        let number = |number: u32| hex::encode(number.to_le_bytes());
        format!("{}{}0000{}{}", pad(directory), pad(name), number(object), number(file))
    }

    /// The answer to reading a table with these bytes after the version.
    fn table(rows: &str) -> String {
        let length = rows.len() / 2 + 1;
        format!("df1f82{length:04x}01{rows}9000")
    }

    #[test]
    fn the_factory_card_is_identified_on_either_protocol() {
        for protocol in [Protocol::T0, Protocol::T1] {
            let identity = run(&mut Script::gids(protocol)).unwrap();
            assert_eq!(identity.family, Family::Gids);
            assert_eq!(identity.serial.to_string(), CARDID);
            let candidates: Vec<_> = identity
                .candidates()
                .map(|candidate| (candidate.rule, candidate.card_id.to_string()))
                .collect();
            assert_eq!(
                candidates,
                [
                    (IdRule::GidsCardid, "bc88f13f-83ba-4037-8262-46eba1291c6e".to_owned()),
                    (IdRule::GidsCardidBe, "3ff188bc-ba83-3740-8262-46eba1291c6e".to_owned()),
                ]
            );
        }
    }

    #[test]
    fn three_commands_are_all_that_a_card_gets() {
        let mut card = card();
        run(&mut card).unwrap();
        assert_eq!(card.sent(), [SELECT, READ_TABLE, READ_CARDID]);
    }

    #[test]
    fn a_card_id_whose_version_nibble_fits_neither_order_is_still_read_as_windows_does() {
        let answer = "df2010a7f5c7428955 7bc07e9a9de3ddbd21d79000";
        let identity = run(&mut card().on(READ_CARDID, answer)).unwrap();
        let first = identity.first().card_id.to_string();
        assert_eq!(first, "42c7f5a7-5589-c07b-7e9a-9de3ddbd21d7");
    }

    #[test]
    fn an_application_that_accepts_any_select_is_not_gids() {
        for answer in ["9000", "61 00 9000", "6109 4f07 a0000003080000 9000", "6f00 9000"] {
            let mut card = card().on(SELECT, answer);
            assert!(matches!(run(&mut card), Err(Miss::OtherFamily(_))), "{answer}");
            assert_eq!(card.sent().len(), 1);
        }
    }

    #[test]
    fn garbage_in_the_answer_to_select_is_not_gids() {
        let (cut, _) = GIDS_SELECTED.split_at(20);
        for answer in [format!("{cut}9000"), GIDS_SELECTED.replace("9000", "009000")] {
            assert!(matches!(run(&mut card().on(SELECT, &answer)), Err(Miss::OtherFamily(_))));
        }
    }

    #[test]
    fn every_refusal_of_select_leads_to_the_next_family() {
        for status in ["6a82", "6a86", "6d00", "6e00", "6700", "6999", "6985", "6982", "6f00"] {
            let mut card = card().on(SELECT, status);
            assert!(matches!(run(&mut card), Err(Miss::OtherFamily(_))), "{status}");
        }
    }

    #[test]
    fn the_table_says_where_the_card_id_lies() {
        let rows = row("", "cardid", 0xDF20, 0xA010);
        let mut card = card()
            .on(READ_TABLE, &table(&rows))
            .on("00cba010045c02df2000", &format!("df2010{}9000", "07".repeat(16)));
        assert_eq!(run(&mut card).unwrap().serial.to_string(), "07".repeat(16));
    }

    #[test]
    fn a_table_over_256_bytes_is_read_to_its_end() {
        let rows =
            row("mscp", "kxc00", 0xDF30, 0xA010).repeat(10) + &row("", "cardid", 0xDF20, 0xA012);
        let whole = table(&rows).trim_end_matches("9000").to_owned();
        let (first, rest) = whole.split_at(512);
        let mut card =
            card().on(READ_TABLE, &format!("{first}613a")).on("00c000003a", &format!("{rest}9000"));
        assert_eq!(run(&mut card).unwrap().serial.to_string(), CARDID);
    }

    #[test]
    fn a_partial_record_at_the_end_of_the_table_is_ignored() {
        let rows = row("", "cardid", 0xDF20, 0xA012) + "6d736370";
        assert!(run(&mut card().on(READ_TABLE, &table(&rows))).is_ok());
        let only_partial = table("6d736370");
        assert!(no_id(card().on(READ_TABLE, &only_partial)).contains("no file cardid"));
    }

    #[test]
    fn names_have_no_case_and_count_in_the_root_only() {
        let rows = row("", "CardID", 0xDF20, 0xA012);
        assert!(run(&mut card().on(READ_TABLE, &table(&rows))).is_ok());
        for rows in [row("mscp", "cardid", 0xDF20, 0xA012), row("", "cardids", 0xDF20, 0xA012)] {
            assert!(no_id(card().on(READ_TABLE, &table(&rows))).contains("no file cardid"));
        }
    }

    #[test]
    fn places_beyond_16_bits_are_refused_not_cut_off() {
        for rows in [row("", "cardid", 0x1_DF20, 0xA012), row("", "cardid", 0xDF20, 0x1_A012)] {
            let mut card = card().on(READ_TABLE, &table(&rows));
            assert!(matches!(run(&mut card), Err(Miss::NoId(_))));
            assert_eq!(card.sent().len(), 2);
        }
    }

    #[test]
    fn only_a_table_that_cannot_be_read_is_done_without() {
        for status in ["6a82", "6a88", "6982", "6f00"] {
            let identity = run(&mut card().on(READ_TABLE, status)).unwrap();
            assert_eq!(identity.serial.to_string(), CARDID);
        }
        let version_2 = format!("df1f818d02{}9000", GIDS_TABLE.replace(' ', "").split_at(2).1);
        for answer in ["9000", "df1f009000", "df1f0101 9000", "df2001019000", &version_2, "90"] {
            let mut card = card().on(READ_TABLE, answer);
            assert!(matches!(run(&mut card), Err(Miss::NoId(_))), "{answer}");
            assert_eq!(card.sent().len(), 2, "{answer}");
        }
    }

    #[test]
    fn a_card_that_was_never_initialised_has_no_id() {
        let what = no_id(card().on(READ_TABLE, "6a82").on(READ_CARDID, "6a82"));
        assert_eq!(what, "cardid: card answered 6A82 (absent)");
    }

    #[test]
    fn an_id_that_reads_the_same_in_either_order_is_one_candidate() {
        let answer = format!("df2010{}9000", "07".repeat(16));
        let identity = run(&mut card().on(READ_CARDID, &answer)).unwrap();
        assert_eq!(identity.candidates().count(), 1);
    }

    #[test]
    fn ids_of_no_particular_card_are_no_id() {
        for byte in ["00", "ff"] {
            let answer = format!("df2010{}9000", byte.repeat(16));
            assert!(no_id(card().on(READ_CARDID, &answer)).contains("no particular card"));
        }
    }

    #[test]
    fn a_card_id_under_another_tag_or_of_another_length_is_no_id() {
        let with = |answer: &str| no_id(card().on(READ_CARDID, answer));
        assert!(with(&format!("df2110{CARDID}9000")).contains("tag DF21"));
        assert!(with(&format!("df200f{}9000", "07".repeat(15))).contains("15 bytes"));
        assert!(with(&format!("df2011{CARDID}009000")).contains("17 bytes"));
        assert!(with(&format!("df2010{CARDID}009000")).contains("1 bytes follow"));
        assert!(with(&format!("df2010{}9000", "07".repeat(15))).contains("cut off"));
        assert!(with("9000").contains("cut off"));
    }

    #[test]
    fn a_card_that_says_yes_to_everything_without_data_is_not_identified() {
        struct Yes;
        impl Transmit for Yes {
            fn transmit(&mut self, _: &[u8]) -> Result<Vec<u8>, Interrupted> {
                Ok(vec![0x90, 0x00])
            }
            fn protocol(&self) -> Protocol {
                Protocol::T1
            }
        }
        assert!(matches!(run(&mut Yes), Err(Miss::OtherFamily(_))));
    }

    #[test]
    fn a_card_torn_out_at_any_command_is_an_interruption() {
        for commands in 0..3 {
            let mut card = card().interrupted_after(commands, Interrupted::Removed);
            assert_eq!(run(&mut card), Err(Miss::Interrupted(Interrupted::Removed)));
        }
    }

    /// Answers from a list, then from its end for ever.
    #[derive(Debug)]
    struct Hostile {
        answers: Vec<Vec<u8>>,
        sent: usize,
        protocol: Protocol,
    }

    impl Transmit for Hostile {
        fn transmit(&mut self, _: &[u8]) -> Result<Vec<u8>, Interrupted> {
            let last = self.answers.len() - 1;
            let answer = self.answers[self.sent.min(last)].clone();
            self.sent += 1;
            Ok(answer)
        }
        fn protocol(&self) -> Protocol {
            self.protocol
        }
    }

    /// Answers that get past one check or another, and ones that get past none.
    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let bytes = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
        prop_oneof![
            Just(bytes(GIDS_SELECTED)),
            Just(bytes(&format!("df1f818d{GIDS_TABLE}9000"))),
            prop::collection::vec(any::<u8>(), 0..300),
            (prop::collection::vec(any::<u8>(), 0..300), any::<u8>()).prop_map(|(mut data, xx)| {
                data.extend([0x61, xx]);
                data
            }),
            (prop::collection::vec(any::<u8>(), 0..4), any::<u8>()).prop_map(|(mut data, xx)| {
                data.extend([0x6C, xx]);
                data
            }),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|mut data| {
                let length = u8::try_from(data.len() / 2).unwrap();
                let mut object = vec![0xDF, 0x1F, 0x81, length];
                object.append(&mut data);
                object.extend([0x90, 0x00]);
                object
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_card_makes_the_probe_panic_or_go_on_for_ever(
            answers in prop::collection::vec(answer(), 1..8),
            t0 in any::<bool>(),
        ) {
            let protocol = if t0 { Protocol::T0 } else { Protocol::T1 };
            let mut card = Hostile { answers, sent: 0, protocol };
            drop(run(&mut card));
            // Three questions, each at most 65 parts with one corrected Le apiece.
            prop_assert!(card.sent <= 3 * 65 * 2);
        }

        #[test]
        fn whatever_cardid_holds_its_serial_is_its_hex(raw in any::<[u8; 16]>()) {
            let text = hex::encode(raw);
            let mut card = card().on(READ_CARDID, &format!("df2010{text}9000"));
            if let Ok(identity) = run(&mut card) {
                prop_assert_eq!(identity.serial.to_string(), text);
                prop_assert_eq!(identity.first().card_id.uuid().to_bytes_le(), raw);
            }
        }
    }
}
