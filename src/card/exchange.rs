//! One command and its whole response: the rules of ISO 7816-4 for 61xx and 6Cxx. No family sees those
//! status words.
//!
//! One exchange takes at most 2 × ([`MAX_PARTS`] + 1) commands, one probe at most [`MAX_COMMANDS`].

use super::apdu::{CommandApdu, Protocol, ResponseApdu, StatusWord};
use super::{Transmit, TransmitError};
use crate::domain::CardIdentity;

/// The longest response in all its parts. Every identity is below 256 bytes; the longest objects read
/// before it are a signed CHUID, up to 3 KiB (NIST SP 800-73-4 part 1, table 9), and a GIDS file table,
/// 28 bytes a file.
pub(super) const MAX_ANSWER: usize = 4096;

/// How many parts a response may have: [`MAX_ANSWER`] in pieces of 128 bytes.
pub(super) const MAX_PARTS: usize = 32;

/// How many times a file is read from: an index of 61 files in pieces of 32 bytes.
pub(super) const MAX_READS: usize = 48;

/// How many commands one probe may send. A PKCS#15 card that needs every form of SELECT and has 15
/// records in EF.DIR takes some 60.
pub const MAX_COMMANDS: usize = 128;

pub(super) struct LimitedTransport<'a> {
    transport: &'a mut dyn Transmit,
    left: usize,
}

impl<'a> LimitedTransport<'a> {
    pub(super) fn new(transport: &'a mut dyn Transmit) -> Self {
        Self { transport, left: MAX_COMMANDS }
    }
}

impl Transmit for LimitedTransport<'_> {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| TransmitError::Failed {
            detail: format!(
                "card keeps answering and says nothing: gave up after {MAX_COMMANDS} commands"
            ),
        })?;
        self.transport.transmit(command)
    }

    fn protocol(&self) -> Protocol {
        self.transport.protocol()
    }

    fn identified(&mut self, identity: &CardIdentity) {
        self.transport.identified(identity);
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("card returned status {0}")]
    Refused(StatusWord),
    #[error("card returned {0} bytes; a response needs at least 2")]
    Truncated(usize),
    #[error("card response is too long")]
    TooLong,
    #[error(transparent)]
    Interrupted(#[from] TransmitError),
}

/// Sends a command and joins the parts of its response: 61xx is followed by GET RESPONSE (ISO 7816-4
/// section 5.1.3), 6282 with data is a response.
pub(super) fn exchange(
    transport: &mut dyn Transmit,
    command: &CommandApdu,
) -> Result<Vec<u8>, ExchangeError> {
    let mut answer = Vec::new();
    let mut next = command.clone();
    for number in 0..=MAX_PARTS {
        let ResponseApdu { data, status } = once(transport, &next)?;
        // The first part may only announce others; a later one without data leads to no end.
        let is_empty_part = data.is_empty() && number > 0;
        answer.extend(data);
        if answer.len() > MAX_ANSWER {
            break;
        }
        let StatusWord::More(available) = status else {
            let is_done = status == StatusWord::Success
                || status == StatusWord::EndOfFile && !answer.is_empty();
            return if is_done { Ok(answer) } else { Err(ExchangeError::Refused(status)) };
        };
        if is_empty_part {
            break;
        }
        next = CommandApdu::get_response(available);
    }
    Err(ExchangeError::TooLong)
}

/// Selects an application and returns what it says of itself. Some cards return no data, with a warning
/// (6282); some know only the SELECT without response data (6A86, 6B00).
pub(super) fn select(
    transport: &mut dyn Transmit,
    command: &CommandApdu,
) -> Result<Vec<u8>, ExchangeError> {
    match exchange(transport, command) {
        Err(ExchangeError::Refused(StatusWord::EndOfFile)) => Ok(Vec::new()),
        Err(ExchangeError::Refused(StatusWord::NotFound(0x6A86 | 0x6B00))) => {
            send(transport, &command.clone().without_response_data()).map(|()| Vec::new())
        }
        answer => answer,
    }
}

/// Sends a command whose response data is not needed: what waits behind 61xx is not fetched.
pub(super) fn send(
    transport: &mut dyn Transmit,
    command: &CommandApdu,
) -> Result<(), ExchangeError> {
    let status = once(transport, command)?.status;
    if matches!(status, StatusWord::Success | StatusWord::More(_) | StatusWord::EndOfFile) {
        Ok(())
    } else {
        Err(ExchangeError::Refused(status))
    }
}

/// Reads the selected transparent file from its start until `is_enough`, to its end, or to the limits.
/// A refusal after the start is the end of the file (6B00 and similar).
pub(super) fn read_file(
    transport: &mut dyn Transmit,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, ExchangeError> {
    let mut content = Vec::new();
    for _ in 0..MAX_READS {
        let offset = u16::try_from(content.len()).ok().filter(|_| content.len() < MAX_ANSWER);
        let Some(command) = offset.and_then(CommandApdu::read_binary) else { break };
        match exchange(transport, &command) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => content.extend(part),
            Err(ExchangeError::Refused(_)) if !content.is_empty() => break,
            Err(error) => return Err(error),
        }
        if is_enough(&content) {
            break;
        }
    }
    content.truncate(MAX_ANSWER);
    Ok(content)
}

/// The response, or `None` where the card refused.
pub(super) fn optional<T>(response: Result<T, ExchangeError>) -> Result<Option<T>, TransmitError> {
    match response {
        Ok(response) => Ok(Some(response)),
        Err(ExchangeError::Interrupted(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// One response. A card that asks for another Le gets it, once.
fn once(
    transport: &mut dyn Transmit,
    command: &CommandApdu,
) -> Result<ResponseApdu, ExchangeError> {
    let mut transmit = |command: &CommandApdu| {
        let bytes = transport.transmit(command)?;
        let length = bytes.len();
        ResponseApdu::parse(bytes).ok_or(ExchangeError::Truncated(length))
    };
    let response = transmit(command)?;
    if let StatusWord::WrongLe(le) = response.status {
        return transmit(&command.clone().with_le(le));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::tests::script::Script;
    use super::*;

    /// A card that is a function.
    struct Answers<'a>(&'a mut dyn FnMut(&CommandApdu) -> Result<Vec<u8>, TransmitError>);

    impl Transmit for Answers<'_> {
        fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
            (self.0)(command)
        }
        fn protocol(&self) -> Protocol {
            Protocol::T1
        }
    }

    const ASKED: &str = "00cba012045c02df20";

    fn question() -> CommandApdu {
        CommandApdu::get_data(0xA012, 0xDF20)
    }

    fn t1() -> Script {
        Script::new(Protocol::T1)
    }

    #[test]
    fn response_parts_are_joined() {
        let mut card = t1()
            .on(&format!("{ASKED}00"), "df20103ff188bc6102")
            .on("00c0000002", "ba836101")
            .on("00c0000001", "379000");
        let answer = exchange(&mut card, &question()).unwrap();
        assert_eq!(hex::encode(answer), "df20103ff188bcba8337");
    }

    #[test]
    fn t0_response_is_fetched_by_get_response() {
        let mut card = Script::new(Protocol::T0).on(ASKED, "6103").on("00c0000003", "0102039000");
        assert_eq!(exchange(&mut card, &question()).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn more_than_255_bytes_are_requested_as_00() {
        let mut card = t1().on(&format!("{ASKED}00"), "016100").on("00c0000000", "029000");
        assert_eq!(exchange(&mut card, &question()).unwrap(), [1, 2]);
    }

    #[test]
    fn wrong_le_is_corrected_once() {
        let mut card = t1().on(&format!("{ASKED}00"), "6c02").on(&format!("{ASKED}02"), "01029000");
        assert_eq!(exchange(&mut card, &question()).unwrap(), [1, 2]);

        let mut stubborn = t1().on(&format!("{ASKED}00"), "6c02").on(&format!("{ASKED}02"), "6c03");
        let refused = ExchangeError::Refused(StatusWord::WrongLe(3));
        assert_eq!(exchange(&mut stubborn, &question()), Err(refused));
        assert_eq!(stubborn.sent().len(), 2);
    }

    #[test]
    fn wrong_le_of_get_response_is_corrected() {
        let mut card = t1()
            .on(&format!("{ASKED}00"), "6105")
            .on("00c0000005", "6c02")
            .on("00c0000002", "01029000");
        assert_eq!(exchange(&mut card, &question()).unwrap(), [1, 2]);
    }

    #[test]
    fn early_end_with_data_is_response() {
        let asked = format!("{ASKED}00");
        assert_eq!(exchange(&mut t1().on(&asked, "016282"), &question()).unwrap(), [1]);
        let nothing = exchange(&mut t1().on(&asked, "6282"), &question());
        assert_eq!(nothing, Err(ExchangeError::Refused(StatusWord::EndOfFile)));
    }

    #[test]
    fn endless_response_is_too_long() {
        let mut dripping = t1().on(&format!("{ASKED}00"), "6101").on("00c0000001", "006101");
        assert_eq!(exchange(&mut dripping, &question()), Err(ExchangeError::TooLong));
        assert_eq!(dripping.sent().len(), MAX_PARTS + 1, "nothing is fetched to be thrown away");

        let mut stubborn = t1()
            .on(&format!("{ASKED}00"), "6c01")
            .on(&format!("{ASKED}01"), "6101")
            .on("00c0000001", "6c02")
            .on("00c0000002", "006101");
        assert_eq!(exchange(&mut stubborn, &question()), Err(ExchangeError::TooLong));
        assert_eq!(stubborn.sent().len(), 2 * (MAX_PARTS + 1));

        let mut promising = t1().on(&format!("{ASKED}00"), "6101").on("00c0000001", "6101");
        assert_eq!(exchange(&mut promising, &question()), Err(ExchangeError::TooLong));
        assert_eq!(promising.sent().len(), 2, "a part that brings nothing is the last");

        let flood = format!("{}6100", "00".repeat(256));
        let mut flooding = t1().on(&format!("{ASKED}00"), &flood).on("00c0000000", &flood);
        assert_eq!(exchange(&mut flooding, &question()), Err(ExchangeError::TooLong));
        assert!(flooding.sent().len() <= MAX_ANSWER / 256 + 1);
    }

    #[test]
    fn response_may_have_32_parts() {
        let part = "5a".repeat(128);
        let mut asked = 0;
        let mut card = |_: &CommandApdu| {
            asked += 1;
            Ok(hex::decode(format!("{part}{}", if asked < 32 { "6180" } else { "9000" })).unwrap())
        };
        assert_eq!(exchange(&mut Answers(&mut card), &question()).unwrap().len(), MAX_ANSWER);
    }

    #[test]
    fn unneeded_response_is_not_fetched() {
        let mut card = Script::new(Protocol::T0).on(ASKED, "6103");
        assert_eq!(send(&mut card, &question()), Ok(()));
        assert_eq!(card.sent().len(), 1);
        let mut other = t1();
        let refused = ExchangeError::Refused(StatusWord::NotFound(0x6A82));
        assert_eq!(send(&mut other, &question()), Err(refused));
    }

    #[test]
    fn response_without_status_word_is_truncated() {
        let asked = format!("{ASKED}00");
        assert_eq!(
            exchange(&mut t1().on(&asked, "90"), &question()),
            Err(ExchangeError::Truncated(1))
        );
        assert_eq!(
            exchange(&mut t1().on(&asked, ""), &question()),
            Err(ExchangeError::Truncated(0))
        );
    }

    #[test]
    fn file_is_read_until_enough_or_end() {
        let part = "00".repeat(256);
        let file = || {
            t1().on("00b0000000", &format!("{part}9000"))
                .on("00b0010000", &format!("{part}9000"))
                .on("00b0020000", "01026282")
                .on("00b0020200", "6b00")
        };
        assert_eq!(read_file(&mut file(), |_| false).unwrap().len(), 514);
        assert_eq!(read_file(&mut file(), |read| read.len() > 300).unwrap().len(), 512);
        let refused = ExchangeError::Refused(StatusWord::NotFound(0x6A82));
        assert_eq!(read_file(&mut t1(), |_| false), Err(refused));
        let endless = hex::encode([0; 256]) + "9000";
        let mut endless =
            (0..40_u32).fold(t1(), |card, n| card.on(&format!("00b0{:04x}00", n * 256), &endless));
        assert_eq!(read_file(&mut endless, |_| false).unwrap().len(), MAX_ANSWER);
        let mut dripping =
            (0..100_u32).fold(t1(), |card, n| card.on(&format!("00b0{n:04x}00"), "5a9000"));
        assert_eq!(read_file(&mut dripping, |_| false).unwrap().len(), MAX_READS);
        let mut chained = (0..100_u32).fold(t1(), |card, n| {
            card.on(&format!("00b0{n:04x}00"), &format!("{}6180", "5a".repeat(200)))
        });
        chained = chained.on("00c0000080", &format!("{}9000", "5a".repeat(100)));
        chained = chained.on("00b0012c00", &format!("{}9000", "5a".repeat(MAX_ANSWER)));
        assert_eq!(read_file(&mut chained, |_| false).unwrap().len(), MAX_ANSWER);
    }

    #[test]
    fn probe_commands_are_limited() {
        let mut card = t1();
        let mut bounded = LimitedTransport::new(&mut card);
        for _ in 0..MAX_COMMANDS {
            assert!(bounded.transmit(&question()).is_ok());
        }
        assert!(matches!(bounded.transmit(&question()), Err(TransmitError::Failed { .. })));
        assert_eq!(card.sent().len(), MAX_COMMANDS);
    }
}
