//! IDPrime cards as they should be, and as they should not.

use super::super::Protocol;
use super::super::tests::script::{CARDID, Script, bytes};
use super::*;

const SELECT: &str = "00a404000ba00000001880000000066200";
const READ: &str = "00b0000000";

fn run(card: &mut dyn Transmit) -> Result<CardReading, NoReading> {
    probe(card)
}

fn row(file: &str, name: &str, directory: &str) -> String {
    let pad = |text: &str, length: usize| format!("{:0<length$}", hex::encode(text));
    format!("{file}0010{}{}", pad(name, 16), pad(directory, 18))
}

/// A card whose responses depend on the file selected last.
fn card(index: &str, file: &str, content: &str) -> Files {
    Files {
        index: format!("{index}9000"),
        file: file.to_owned(),
        content: content.to_owned(),
        current: None,
        by_path: true,
    }
}

/// A card with two files.
struct Files {
    index: String,
    file: String,
    content: String,
    current: Option<bool>,
    by_path: bool,
}

impl Transmit for Files {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, super::super::TransmitError> {
        let command = hex::encode(command.to_bytes(Protocol::T1));
        let p1 = if self.by_path { "08" } else { "00" };
        let answer = if command == SELECT {
            "9000".to_owned()
        } else if command == format!("00a4{p1}0002010100") {
            self.current = Some(true);
            "6f0081020000 9000".to_owned()
        } else if command == format!("00a4{p1}0002{}00", self.file) {
            self.current = Some(false);
            "9000".to_owned()
        } else {
            match (command.as_str(), self.current) {
                (READ, Some(true)) => self.index.clone(),
                (READ, Some(false)) => self.content.clone(),
                _ => "6a82".to_owned(),
            }
        };
        Ok(bytes(&answer))
    }

    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

fn rows_of(rows: &[String]) -> String {
    format!("{:02x}{}", rows.len(), rows.concat())
}

#[test]
fn index_locates_cardid() {
    let index = rows_of(&[row("0102", "cmapfile", "mscp"), row("0207", "cardid", "")]);
    for by_path in [true, false] {
        let mut card = Files { by_path, ..card(&index, "0207", &format!("{CARDID}9000")) };
        let reading = run(&mut card).unwrap();
        assert_eq!(reading.serial.to_string(), CARDID);
        let ids: Vec<_> =
            reading.candidates().iter().map(|c| (c.rule.as_str(), c.card_id.to_string())).collect();
        assert_eq!(
            ids,
            [
                ("idprime-cardid", "bc88f13f-83ba-4037-8262-46eba1291c6e".to_owned()),
                ("idprime-cardid-be", "3ff188bc-ba83-3740-8262-46eba1291c6e".to_owned()),
            ]
        );
    }
}

#[test]
fn unlisted_cardid_is_in_usual_place() {
    let index = rows_of(&[row("0207", "cardid", "mscp")]);
    let mut card = card(&index, "0201", &format!("{CARDID}9000"));
    assert_eq!(run(&mut card).unwrap().serial.to_string(), CARDID);
}

#[test]
fn cardid_of_other_length_is_no_id() {
    let index = rows_of(&[row("0201", "cardid", "")]);
    for content in ["6a82", "9000", "01029000"] {
        let mut card = card(&index, "0201", content);
        assert!(matches!(run(&mut card), Err(NoReading::NoId(_))), "{content}");
    }
}

#[test]
fn index_without_cardid_does_not_hide_it() {
    for index in ["00", &rows_of(&[row("0102", "cmapfile", "mscp")])] {
        let mut card = card(index, "0201", &format!("{CARDID}9000"));
        assert_eq!(run(&mut card).unwrap().serial.to_string(), CARDID, "{index}");
    }
}

#[test]
fn foreign_files_are_no_cardid() {
    let text = "41".repeat(40);
    for index in [format!("01{text}"), format!("01{}", "00".repeat(21)), "ff".repeat(64)] {
        let mut card = card(&index, "0201", &format!("{CARDID}9000"));
        assert!(matches!(run(&mut card), Err(NoReading::OtherFamily(_))), "{index}");
    }
}

#[test]
fn refused_or_truncated_index_does_not_hide_cardid() {
    let cut_off = "050102001063617264636600000000000000006282";
    let empty = format!("00{}9000", "00".repeat(40));
    let refused =
        ["6282", "6b00", "6a82", "6982", "6985", "6d00", "6e00", "6f00", "6100", "90", ""];
    for refusal in refused.into_iter().chain(["6c00", "056282", "009000", cut_off, &empty]) {
        let mut card = card("", "0201", &format!("{CARDID}9000"));
        card.index = refusal.to_owned();
        let reading = run(&mut card).unwrap();
        assert_eq!(reading.serial.to_string(), CARDID, "{refusal}");
        assert_eq!(reading.reselect, Some(CommandApdu::select(&AID)));
        for content in ["6a82", "0102 9000", "9000"] {
            card.content = content.to_owned();
            let no_reading = run(&mut card);
            assert!(
                matches!(no_reading, Err(NoReading::OtherFamily(_))),
                "{refusal} {content}: {no_reading:?}"
            );
        }
    }
}

/// A card that has no index, and says yes to every SELECT.
struct Yes(Files);

impl Transmit for Yes {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, super::super::TransmitError> {
        let answer = self.0.transmit(command)?;
        let is_select = command.to_bytes(Protocol::T1).starts_with(&[0x00, 0xA4, 0x04]);
        Ok(if is_select { vec![0x90, 0x00] } else { answer })
    }

    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

#[test]
fn card_accepting_any_select_needs_index() {
    let mut without = card("", "0201", &format!("{CARDID}9000"));
    without.index = "6a82".to_owned();
    assert!(matches!(run(&mut Yes(without)), Err(NoReading::OtherFamily(_))));
    let index = rows_of(&[row("0201", "cardid", "")]);
    let with = card(&index, "0201", &format!("{CARDID}9000"));
    assert!(run(&mut Yes(with)).is_ok());
}

#[test]
fn missing_index_is_other_family() {
    let mut none = Script::new(Protocol::T1);
    assert!(matches!(run(&mut none), Err(NoReading::OtherFamily(_))));
    assert_eq!(none.sent().len(), 1);
    let mut no_files = Script::new(Protocol::T1).on(SELECT, "9000");
    assert!(matches!(run(&mut no_files), Err(NoReading::OtherFamily(_))));
}
