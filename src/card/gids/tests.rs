//! GIDS cards as they should be, and as they should not.

use proptest::prelude::*;

use super::super::tests::script::{CARDID, GIDS_TABLE, Script};
use super::super::{Protocol, TransmitError};
use super::*;

const SELECT: &str = "00a4040009a0000003974254465900";
const READ_TABLE: &str = "00cba000045c02df1f00";
const READ_CARDID: &str = "00cba012045c02df2000";

fn run(card: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    probe(card)
}

fn card() -> Script {
    Script::gids(Protocol::T1)
}

fn no_id(mut card: Script) -> String {
    match run(&mut card) {
        Err(NoReading::NoId(what)) => what,
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
fn factory_card_is_identified_on_both_protocols() {
    for protocol in [Protocol::T0, Protocol::T1] {
        let identity = run(&mut Script::gids(protocol)).unwrap();
        assert_eq!(identity.serial.to_string(), CARDID);
        let candidates: Vec<_> = identity
            .candidates()
            .iter()
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
fn gids_probe_sends_three_commands() {
    let mut card = card();
    run(&mut card).unwrap();
    assert_eq!(card.sent(), [SELECT, READ_TABLE, READ_CARDID]);
}

#[test]
fn cardid_with_odd_version_is_read_as_windows_does() {
    let answer = "df2010a7f5c7428955 7bc07e9a9de3ddbd21d79000";
    let identity = run(&mut card().on(READ_CARDID, answer)).unwrap();
    let first = identity.candidates()[0].card_id.to_string();
    assert_eq!(first, "42c7f5a7-5589-c07b-7e9a-9de3ddbd21d7");
}

#[test]
fn card_accepting_any_select_is_not_gids() {
    for answer in ["61 00 9000", "6109 4f07 a0000003080000 9000", "6f00 9000"] {
        let mut card = Script::new(Protocol::T1).on(SELECT, answer);
        assert!(matches!(run(&mut card), Err(NoReading::OtherFamily(_))), "{answer}");
        assert_eq!(card.sent(), [SELECT, READ_TABLE]);
    }
}

#[test]
fn odd_select_response_counts_with_file_table() {
    for selected in [
        "9000",
        "6f0b8409a0000003974254465 99000",
        "4f09a000000397425446599000",
        "61044f02 02019000",
    ] {
        let reading = run(&mut card().on(SELECT, selected)).unwrap();
        assert_eq!(reading.serial.to_string(), CARDID, "{selected}");
    }
    for table in ["6a82", "9000", "6d00", "530100 9000"] {
        let mut card = card().on(SELECT, "9000").on(READ_TABLE, table);
        assert!(matches!(run(&mut card), Err(NoReading::OtherFamily(_))), "{table}");
    }
}

#[test]
fn selected_application_is_read_without_select() {
    let mut card = card();
    let reading = probe_selected(&mut card).unwrap();
    assert_eq!(reading.serial.to_string(), CARDID);
    assert_eq!(card.sent(), [READ_TABLE, READ_CARDID]);
    let mut other = Script::new(Protocol::T1);
    assert!(matches!(probe_selected(&mut other), Err(NoReading::OtherFamily(_))));
}

#[test]
fn refused_select_is_other_family() {
    for status in ["6a82", "6a86", "6d00", "6e00", "6700", "6999", "6985", "6982", "6f00"] {
        let mut card = card().on(SELECT, status);
        assert!(matches!(run(&mut card), Err(NoReading::OtherFamily(_))), "{status}");
    }
}

#[test]
fn file_table_locates_cardid() {
    let rows = row("", "cardid", 0xDF20, 0xA010);
    let mut card = card()
        .on(READ_TABLE, &table(&rows))
        .on("00cba010045c02df2000", &format!("df2010{}9000", "07".repeat(16)));
    assert_eq!(run(&mut card).unwrap().serial.to_string(), "07".repeat(16));
}

#[test]
fn file_table_over_256_bytes_is_read_completely() {
    let rows = row("mscp", "kxc00", 0xDF30, 0xA010).repeat(10) + &row("", "cardid", 0xDF20, 0xA012);
    let whole = table(&rows).trim_end_matches("9000").to_owned();
    let (first, rest) = whole.split_at(512);
    let mut card =
        card().on(READ_TABLE, &format!("{first}613a")).on("00c000003a", &format!("{rest}9000"));
    assert_eq!(run(&mut card).unwrap().serial.to_string(), CARDID);
}

#[test]
fn partial_table_entry_is_ignored() {
    let rows = row("", "cardid", 0xDF20, 0xA012) + "6d736370";
    assert!(run(&mut card().on(READ_TABLE, &table(&rows))).is_ok());
    let only_partial = table("6d736370");
    assert!(no_id(card().on(READ_TABLE, &only_partial)).contains("no `cardid` file"));
}

#[test]
fn cardid_name_has_no_case_and_is_in_root() {
    let rows = row("", "CardID", 0xDF20, 0xA012);
    assert!(run(&mut card().on(READ_TABLE, &table(&rows))).is_ok());
    for rows in [row("mscp", "cardid", 0xDF20, 0xA012), row("", "cardids", 0xDF20, 0xA012)] {
        assert!(no_id(card().on(READ_TABLE, &table(&rows))).contains("no `cardid` file"));
    }
}

#[test]
fn cardid_location_over_16_bits_is_refused() {
    for rows in [row("", "cardid", 0x1_DF20, 0xA012), row("", "cardid", 0xDF20, 0x1_A012)] {
        let mut card = card().on(READ_TABLE, &table(&rows));
        assert!(matches!(run(&mut card), Err(NoReading::NoId(_))));
        assert_eq!(card.sent().len(), 2);
    }
}

#[test]
fn only_unreadable_file_table_is_replaced_by_default() {
    for status in ["6a82", "6a88", "6982", "6f00"] {
        let identity = run(&mut card().on(READ_TABLE, status)).unwrap();
        assert_eq!(identity.serial.to_string(), CARDID);
    }
    let version_2 = format!("df1f818d02{}9000", GIDS_TABLE.replace(' ', "").split_at(2).1);
    for answer in ["9000", "df1f009000", "df1f0101 9000", "df2001019000", &version_2, "90"] {
        let mut card = card().on(READ_TABLE, answer);
        assert!(matches!(run(&mut card), Err(NoReading::NoId(_))), "{answer}");
        assert_eq!(card.sent().len(), 2, "{answer}");
    }
}

#[test]
fn uninitialised_card_has_no_id() {
    let what = no_id(card().on(READ_TABLE, "6a82").on(READ_CARDID, "6a82"));
    assert_eq!(what, "cardid: card returned status 6A82 (absent)");
}

#[test]
fn symmetric_cardid_has_both_rules() {
    let answer = format!("df2010{}9000", "07".repeat(16));
    let reading = run(&mut card().on(READ_CARDID, &answer)).unwrap();
    let candidates = reading.candidates();
    let [first, second] = candidates.as_slice() else { panic!("{reading:?}") };
    assert_eq!(first.card_id, second.card_id);
}

#[test]
fn constant_ids_are_no_candidates() {
    for byte in ["00", "ff"] {
        let answer = format!("df2010{}9000", byte.repeat(16));
        let reading = run(&mut card().on(READ_CARDID, &answer)).unwrap();
        assert_eq!(reading.candidates(), []);
    }
}

#[test]
fn cardid_with_wrong_tag_or_length_is_refused() {
    let with = |answer: &str| no_id(card().on(READ_CARDID, answer));
    assert!(with(&format!("df2110{CARDID}9000")).contains("tag DF21"));
    assert!(with(&format!("df200f{}9000", "07".repeat(15))).contains("15 bytes"));
    assert!(with(&format!("df2011{CARDID}009000")).contains("17 bytes"));
    assert!(with(&format!("df2010{CARDID}009000")).contains("1 trailing bytes"));
    assert!(with(&format!("df2010{}9000", "07".repeat(15))).contains("truncated"));
    assert!(with("9000").contains("truncated"));
}

#[test]
fn card_accepting_everything_is_not_identified() {
    struct Yes;
    impl Transmit for Yes {
        fn transmit(&mut self, _: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
            Ok(vec![0x90, 0x00])
        }
        fn protocol(&self) -> Protocol {
            Protocol::T1
        }
    }
    assert!(matches!(run(&mut Yes), Err(NoReading::OtherFamily(_))));
}

#[test]
fn removal_at_any_command_interrupts() {
    for commands in 0..3 {
        let mut card = card().interrupted_after(commands, TransmitError::Removed);
        assert_eq!(run(&mut card), Err(NoReading::Interrupted(TransmitError::Removed)));
    }
}

proptest! {
    #[test]
    fn cardid_serial_is_hex(raw in any::<[u8; 16]>()) {
        let text = hex::encode(raw);
        let mut card = card().on(READ_CARDID, &format!("df2010{text}9000"));
        if let Ok(identity) = run(&mut card) {
            prop_assert_eq!(identity.serial.to_string(), text);
            let ids: Vec<_> = identity.candidates().iter().map(|c| c.card_id.uuid()).collect();
            prop_assert!(ids.is_empty() || ids[0].to_bytes_le() == raw);
        }
    }
}
