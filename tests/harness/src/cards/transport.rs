//! How answers leave a card: in one piece, in parts, or only on request.

use super::apdu::{Answer, Command, OK};

/// How a card's transmission protocol works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(super) enum Protocol {
    /// T=1: data comes with the answer to its command.
    #[default]
    #[serde(rename = "T=1")]
    T1,
    /// T=0: data of a command that has data itself waits for GET RESPONSE, and a
    /// wrong Le is answered by 6Cxx.
    #[serde(rename = "T=0")]
    T0,
}

/// Gives answers as a protocol requires.
#[derive(Clone, Debug, Default)]
pub(super) struct Transport {
    protocol: Protocol,
    pending: Answer,
}

impl Transport {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, pending: Answer::default() }
    }

    /// Forgets what was not fetched.
    pub(super) fn clear(&mut self) {
        self.pending = Answer::default();
    }

    /// The bytes that answer `command`.
    pub(super) fn send(&mut self, command: &Command<'_>, answer: Answer) -> Vec<u8> {
        self.pending = answer;
        let is_empty = self.pending.data.is_empty();
        match (self.protocol, command.data, command.le) {
            (Protocol::T0, [_, ..], None) if !is_empty => self.announce(),
            (_, _, le) => self.next_part(le),
        }
    }

    /// The answer to GET RESPONSE; `None` where nothing waits.
    pub(super) fn get_response(&mut self, command: &Command<'_>) -> Option<Vec<u8>> {
        let waits = command.instruction == 0xC0 && !self.pending.data.is_empty();
        waits.then(|| self.next_part(command.le))
    }

    /// At most Le bytes, 61xx while more is left.
    fn next_part(&mut self, le: Option<usize>) -> Vec<u8> {
        let left = self.pending.data.len();
        if self.protocol == Protocol::T0 && left > 0 && le.is_some_and(|le| le > left) {
            return word(0x6C00 | xx(left)).to_vec();
        }
        let count = le.unwrap_or(256).min(left);
        let rest = self.pending.data.split_off(count);
        let mut part = std::mem::replace(&mut self.pending.data, rest);
        part.extend(match self.pending.data.len() {
            0 => word(self.pending.status),
            left => word(0x6100 | xx(left)),
        });
        part
    }

    fn announce(&self) -> Vec<u8> {
        let status = match self.pending.status {
            OK => 0x6100 | xx(self.pending.data.len()),
            // A warning comes first, the data waits all the same.
            warning => warning,
        };
        word(status).to_vec()
    }
}

/// xx of 61xx and 6Cxx: 00 where it is 256 or more.
fn xx(count: usize) -> u16 {
    u8::try_from(count).unwrap_or(0).into()
}

fn word(status: u16) -> [u8; 2] {
    status.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(transport: &mut Transport, apdu: &[u8], data: &[u8]) -> Vec<u8> {
        let command = Command::parse(apdu).unwrap();
        transport.send(&command, Answer::data(data))
    }

    fn fetch(transport: &mut Transport, le: u8) -> Option<Vec<u8>> {
        transport.get_response(&Command::parse(&[0, 0xC0, 0, 0, le])?)
    }

    #[test]
    fn on_t0_a_command_with_data_has_its_answer_fetched() {
        let mut transport = Transport::new(Protocol::T0);
        assert_eq!(send(&mut transport, &[0, 0xA4, 4, 0, 1, 7], &[1, 2, 3]), [0x61, 3]);
        assert_eq!(fetch(&mut transport, 0), Some(vec![0x6C, 3]));
        assert_eq!(fetch(&mut transport, 3), Some(vec![1, 2, 3, 0x90, 0]));
        assert_eq!(fetch(&mut transport, 3), None);
    }

    #[test]
    fn on_t0_a_le_that_is_too_big_is_wrong() {
        let mut transport = Transport::new(Protocol::T0);
        assert_eq!(send(&mut transport, &[0, 0xB0, 0, 0, 0], &[1, 2]), [0x6C, 2]);
        assert_eq!(send(&mut transport, &[0, 0xB0, 0, 0, 2], &[1, 2]), [1, 2, 0x90, 0]);
    }

    #[test]
    fn t1_data_comes_in_256_byte_parts() {
        let mut transport = Transport::new(Protocol::T1);
        assert_eq!(send(&mut transport, &[0, 0xA4, 4, 0, 1, 7], &[1, 2]), [1, 2, 0x90, 0]);
        let first = send(&mut transport, &[0, 0xCB, 0, 0, 1, 7, 0], &[9; 300]);
        assert_eq!((first.len(), &first[256..]), (258, &[0x61, 44][..]));
        assert_eq!(fetch(&mut transport, 44).unwrap().len(), 46);
    }

    #[test]
    fn an_extended_le_takes_all_in_one_piece() {
        let mut transport = Transport::new(Protocol::T1);
        let answer = send(&mut transport, &[0, 0xCB, 0, 0, 0, 0, 1, 7, 0, 0], &[9; 700]);
        assert_eq!(answer.len(), 702);
    }
}
