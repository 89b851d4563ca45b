//! Cards that know few forms of SELECT, or allow none.

use super::*;

/// A card that knows some forms of SELECT and says this to all others. A form is P1 and P2; with `mf` in
/// front, its path begins with the MF.
struct Forms {
    files: Files,
    known: &'static [&'static str],
    refusal: &'static str,
}

impl Transmit for Forms {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let bytes_of = command.to_bytes(Protocol::T1);
        let [0, 0xA4, p1, p2, length, rest @ ..] = bytes_of.as_slice() else {
            return self.files.transmit(command);
        };
        let what = hex::encode(&rest[..usize::from(*length)]);
        let form = hex::encode([*p1, *p2]);
        let below_mf = what.strip_prefix("3f00").filter(|below| *p1 == 8 && !below.is_empty());
        let is_known = |known: &&str| match known.strip_prefix("mf") {
            Some(known) => below_mf.is_some() && known == form,
            None => below_mf.is_none() && **known == form,
        };
        let is_known = self.known.iter().any(is_known);
        let answer = match (is_known, below_mf) {
            (true, Some(below)) => self.files.select(&form, below),
            (true, None) => self.files.select(&form, &what),
            (false, _) => self.refusal,
        };
        Ok(bytes(answer))
    }

    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

#[test]
fn cards_with_few_select_forms_are_read() {
    let known: [&'static [&str]; 8] = [
        &["0800"],
        &["080c"],
        &["mf0800"],
        &["mf080c"],
        &["0000"],
        &["000c"],
        &["0000", "0200"],
        &["000c", "020c"],
    ];
    let refusals = [
        "6b00", "6a86", "6a81", "6a87", "6d00", "6e00", "6700", "6a80", "6a82", "6a88", "6982",
        "6985", "6986", "6999", "6581", "6f00", "6283",
    ];
    for known in known {
        for refusal in refusals {
            let mut files = Files::new(&[("2f00", &usual_entry()), ("50155032", INFO)]);
            files.select_forms = vec!["0800", "080c", "0000", "000c", "0200", "020c"];
            let reading = run(&mut Forms { files, known, refusal });
            let what = format!("{known:?}, {refusal}: {reading:?}");
            assert_eq!(reading.expect(&what).serial.to_string(), SERIAL, "{what}");
        }
    }
}

#[test]
fn protected_ef_dir_does_not_hide_token_info() {
    for (refusal, form) in [("6982", "0800"), ("6985", "0800"), ("6982", "080c")] {
        let mut files = Files::new(&[("50155032", INFO)]).select_forms(&[form]);
        let mut card = Answering(|command: &CommandApdu| {
            let text = hex::encode(command.to_bytes(Protocol::T1));
            let is_dir = text.starts_with(&format!("00a4{form}022f00"));
            if is_dir { bytes(refusal) } else { files.transmit(command).unwrap() }
        });
        assert_eq!(run(&mut card).unwrap().serial.to_string(), SERIAL, "{refusal} {form}");
    }
}

#[test]
fn closed_card_is_identified_by_its_serial() {
    const SERIAL_OF_EPASS: &str = "00ca018008";
    let card = |refusal: &'static str, serial: &'static str| {
        let mut sent = Vec::new();
        let mut card = Answering(|command: &CommandApdu| {
            let command = hex::encode(command.to_bytes(Protocol::T1));
            sent.push(command.clone());
            bytes(if command == SERIAL_OF_EPASS { serial } else { refusal })
        });
        let reading = run(&mut card);
        (reading, sent)
    };
    let (reading, _) = card("6982", "26c0b1d2e3f40516 9000");
    let reading = reading.unwrap();
    assert_eq!(reading.serial.to_string(), "26C0B1D2E3F40516");
    assert_eq!(reading.candidates()[0].card_id.to_string(), "d2b1c026-f4e3-1605-26c0-b1d2e3f40516");
    assert_eq!(reading.candidates()[0].strength, crate::domain::Strength::Serial);
    for refusal in ["6985", "6986", "6999", "6900"] {
        assert!(card(refusal, "26c0b1d2e3f40516 9000").0.is_ok(), "{refusal}");
    }
    for serial in ["26c0b1d2 9000", "9000", "6982"] {
        assert!(matches!(card("6982", serial).0, Err(NoReading::OtherFamily(_))), "{serial}");
    }
    // A card that has no such files, or no files at all, is not asked.
    for refusal in ["6a82", "6d00", "6b00"] {
        let (reading, sent) = card(refusal, "26c0b1d2e3f40516 9000");
        assert!(matches!(reading, Err(NoReading::OtherFamily(_))), "{refusal}");
        assert!(!sent.contains(&SERIAL_OF_EPASS.to_owned()), "{sent:?}");
    }
}

/// A card that is a function of the command.
struct Answering<F>(F);

impl<F: FnMut(&CommandApdu) -> Vec<u8>> Transmit for Answering<F> {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        Ok((self.0)(command))
    }

    fn protocol(&self) -> Protocol {
        Protocol::T1
    }
}

#[test]
fn paths_from_mf_select_belgian_card_files() {
    let dir = "611a 4f0c a000000177504b43532d3135 5004 42454c50 5104 3f00df00";
    let info = "301b 020100 0410 534c494e0a3d7f9b1102a7c4e6f80911 0c04 42454c50";
    for unknown in ["6b00", "6a86", "6a81", "6d00", "6e00", "6700", "6a87"] {
        for no_such_path in ["6b00", "6a82", "6a86", "6a80"] {
            let mut current = "";
            let mut card = Answering(|command: &CommandApdu| {
                let command = hex::encode(command.to_bytes(Protocol::T1));
                let is_select = command.starts_with("00a4");
                let answer = match command.as_str() {
                    "00a4080c043f002f00" => {
                        current = "dir";
                        "9000".to_owned()
                    }
                    "00a4080c063f00df005032" => {
                        current = "info";
                        "9000".to_owned()
                    }
                    "00b0000000" if current == "dir" => format!("{dir}9000"),
                    "00b0000000" if current == "info" => format!("{info}9000"),
                    command if is_select && command.get(6..8) != Some("0c") => unknown.to_owned(),
                    _ => no_such_path.to_owned(),
                };
                bytes(&answer)
            });
            let reading = run(&mut card);
            let what = format!("{unknown} {no_such_path}: {reading:?}");
            let Ok(reading) = reading else { panic!("{what}") };
            assert_eq!(reading.serial.to_string(), "534c494e0a3d7f9b1102a7c4e6f80911", "{what}");
        }
    }
}
