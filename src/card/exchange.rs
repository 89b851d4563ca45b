//! One question, one whole answer: the manners of ISO 7816-4 that lie between a command and its
//! data, in one place. No family sees a 61xx or a 6Cxx.

use super::apdu::{Command, Response, StatusWord};
use super::{Interrupted, Transmit};

/// The longest answer that is put together. Every identity is under 256 bytes; the longest thing
/// read on the way to one is a GIDS file table, some 28 bytes a file.
const MAX_ANSWER: usize = 4096;

/// How many parts an answer may come in: enough for [`MAX_ANSWER`] in pieces of 64 bytes.
const MAX_PARTS: usize = 64;

/// Why a question brought no data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The card said no, and how.
    #[error("card answered {0}")]
    Refused(StatusWord),
    /// The answer has no room for a status word.
    #[error("card answered {0} bytes, too few for a status word")]
    Truncated(usize),
    /// The answer does not end where answers end.
    #[error("answer of the card has no end")]
    Endless,
    /// Nobody can be asked any more.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Asks the card and puts its whole answer together.
///
/// 61xx is followed by GET RESPONSE (ISO 7816-4 section 5.1.3) within the bounds above; 6282 with
/// data counts as an answer.
pub(super) fn ask(transport: &mut dyn Transmit, command: &Command) -> Result<Vec<u8>, NoAnswer> {
    let mut answer = Vec::new();
    let mut part = once(transport, command)?;
    for _ in 0..MAX_PARTS {
        let (data, status) = part.into_parts();
        answer.extend(data);
        if answer.len() > MAX_ANSWER {
            return Err(NoAnswer::Endless);
        }
        match status {
            StatusWord::Success => return Ok(answer),
            StatusWord::Shortened if !answer.is_empty() => return Ok(answer),
            StatusWord::More(available) => {
                part = once(transport, &Command::get_response(available))?;
            }
            StatusWord::Shortened
            | StatusWord::WrongLe(_)
            | StatusWord::Absent(_)
            | StatusWord::Protected
            | StatusWord::Terminated(_)
            | StatusWord::Unexpected(_) => return Err(NoAnswer::Refused(status)),
        }
    }
    Err(NoAnswer::Endless)
}

/// One response; a card that wants another Le gets it, once.
fn once(transport: &mut dyn Transmit, command: &Command) -> Result<Response, NoAnswer> {
    let response = transmit(transport, command)?;
    if let StatusWord::WrongLe(exact) = response.status() {
        return transmit(transport, &command.clone().expecting(exact));
    }
    Ok(response)
}

fn transmit(transport: &mut dyn Transmit, command: &Command) -> Result<Response, NoAnswer> {
    let bytes = transport.transmit(&command.to_bytes(transport.protocol()))?;
    let length = bytes.len();
    Response::parse(bytes).ok_or(NoAnswer::Truncated(length))
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::script::Script;
    use super::*;

    const ASKED: &str = "00cba012045c02df20";

    fn question() -> Command {
        Command::get_data(0xA012, 0xDF20)
    }

    fn t1() -> Script {
        Script::new(Protocol::T1)
    }

    #[test]
    fn an_answer_in_parts_is_put_together() {
        let mut card = t1()
            .on(&format!("{ASKED}00"), "df20103ff188bc6102")
            .on("00c0000002", "ba836101")
            .on("00c0000001", "379000");
        let answer = ask(&mut card, &question()).unwrap();
        assert_eq!(hex::encode(answer), "df20103ff188bcba8337");
    }

    #[test]
    fn on_t0_the_answer_is_fetched_where_the_card_says_that_it_waits() {
        let mut card = Script::new(Protocol::T0).on(ASKED, "6103").on("00c0000003", "0102039000");
        assert_eq!(ask(&mut card, &question()).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn more_than_255_waiting_bytes_are_asked_for_as_00() {
        let mut card = t1().on(&format!("{ASKED}00"), "016100").on("00c0000000", "029000");
        assert_eq!(ask(&mut card, &question()).unwrap(), [1, 2]);
    }

    #[test]
    fn a_wrong_le_is_corrected_once() {
        let mut card = t1().on(&format!("{ASKED}00"), "6c02").on(&format!("{ASKED}02"), "01029000");
        assert_eq!(ask(&mut card, &question()).unwrap(), [1, 2]);

        let mut stubborn = t1().on(&format!("{ASKED}00"), "6c02").on(&format!("{ASKED}02"), "6c03");
        let refused = NoAnswer::Refused(StatusWord::WrongLe(3));
        assert_eq!(ask(&mut stubborn, &question()), Err(refused));
        assert_eq!(stubborn.sent().len(), 2);
    }

    #[test]
    fn a_wrong_le_is_corrected_in_get_response_too() {
        let mut card = t1()
            .on(&format!("{ASKED}00"), "6105")
            .on("00c0000005", "6c02")
            .on("00c0000002", "01029000");
        assert_eq!(ask(&mut card, &question()).unwrap(), [1, 2]);
    }

    #[test]
    fn an_early_end_is_an_answer_if_there_is_data() {
        let asked = format!("{ASKED}00");
        assert_eq!(ask(&mut t1().on(&asked, "016282"), &question()).unwrap(), [1]);
        let nothing = ask(&mut t1().on(&asked, "6282"), &question());
        assert_eq!(nothing, Err(NoAnswer::Refused(StatusWord::Shortened)));
    }

    #[test]
    fn an_answer_that_never_ends_is_given_up() {
        let mut dripping = t1().on(&format!("{ASKED}00"), "6101").on("00c0000001", "6101");
        assert_eq!(ask(&mut dripping, &question()), Err(NoAnswer::Endless));
        assert_eq!(dripping.sent().len(), MAX_PARTS + 1);

        let flood = format!("{}6100", "00".repeat(256));
        let mut flooding = t1().on(&format!("{ASKED}00"), &flood).on("00c0000000", &flood);
        assert_eq!(ask(&mut flooding, &question()), Err(NoAnswer::Endless));
        assert!(flooding.sent().len() <= MAX_ANSWER / 256 + 1);
    }

    #[test]
    fn an_answer_without_room_for_a_status_word_is_none() {
        let asked = format!("{ASKED}00");
        assert_eq!(ask(&mut t1().on(&asked, "90"), &question()), Err(NoAnswer::Truncated(1)));
        assert_eq!(ask(&mut t1().on(&asked, ""), &question()), Err(NoAnswer::Truncated(0)));
    }
}
