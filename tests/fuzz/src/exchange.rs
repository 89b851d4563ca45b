//! One question and its whole answer, 61xx and 6Cxx included; and a file, question by question.
//! `hostile` says what the input is.

use cardbridge::card::fuzzing::{MAX_ANSWER, MAX_QUESTION, MAX_READS, ask, read_file};
use cardbridge::card::{CommandApdu, Protocol, Transmit};

use super::hostile::Hostile;

/// Enough of a file, where only its end or the bounds end the reading.
const NEVER: usize = usize::MAX;

/// Asks the card that the input describes for an object, and for a file.
pub fn check(data: &[u8]) {
    question(Hostile::new(data));
    file(Hostile::new(data), 16);
    file(Hostile::new(data), NEVER);
}

fn question(mut card: Hostile) {
    let question = CommandApdu::get_data(0x3FFF, 0x005F_C102);
    let answer = ask(&mut card, &question);

    assert!(card.sent.len() <= MAX_QUESTION, "{} commands", card.sent.len());
    let protocol = card.protocol();
    let [first, rest @ ..] = card.sent.as_slice() else {
        assert!(card.gone && answer.is_err());
        return;
    };
    assert_eq!(first, &question.to_bytes(protocol));
    assert!(rest.iter().all(|command| is_manners(command, &question, protocol)), "{rest:02x?}");
    match answer {
        Ok(answer) => {
            assert!(!card.gone && ends_well(card.last_answer()));
            assert!(answer.len() <= MAX_ANSWER, "{} bytes", answer.len());
            assert_eq!(answer, card.given(), "an answer is what the card gave, and all of it");
        }
        Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}"),
    }
}

fn file(mut card: Hostile, enough: usize) {
    let file = read_file(&mut card, enough);
    assert!(card.sent.len() <= MAX_READS * MAX_QUESTION, "{} commands", card.sent.len());
    if let Ok(content) = file {
        assert!(!card.gone);
        assert!(content.len() <= MAX_ANSWER, "{} bytes", content.len());
        assert!(card.given().starts_with(&content), "a file is what the card gave");
    }
}

/// Whether a command after the first fetches the rest of an answer, or corrects an Le.
fn is_manners(command: &[u8], question: &CommandApdu, protocol: Protocol) -> bool {
    let corrected = |le: &u8| question.clone().with_le(*le).to_bytes(protocol) == command;
    command.starts_with(&[0x00, 0xC0, 0x00, 0x00]) && command.len() == 5
        || command.last().is_some_and(corrected)
}

/// Whether an answer ends with 9000, or with 6282.
fn ends_well(answer: &[u8]) -> bool {
    matches!(answer, [.., 0x90, 0x00] | [.., 0x62, 0x82])
}
