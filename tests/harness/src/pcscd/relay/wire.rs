//! pcscd's protocol as bytes, little endian: 4:4 (pcsc-lite 1.9.9) and 4:5 (2.3.3), which differ in
//! one request, [`Request::Events`].
//!
//! A request is its size and its command, four bytes each, and a body. The
//! answer is the same body, filled in, its last four bytes being the code;
//! requests for the readers' states are answered by those alone, and the one
//! for events, which has no body, by a number and a code. Bytes for and
//! from a card follow the body and are not counted in the size.

use std::io::{self, Read};

use super::Counts;

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Which protocol is spoken: the first of each connection.
    Version,
    /// A context is made.
    Establish,
    /// A context is released.
    Release,
    /// A card is connected to.
    Connect,
    /// A card is connected to again.
    Reconnect,
    /// A card is let go of.
    Disconnect,
    /// A transaction begins.
    Begin,
    /// A transaction ends.
    End,
    /// A command for a card.
    Transmit,
    /// A command for a reader.
    Control,
    /// What became of a connection to a card.
    Status,
    /// Another connection's wait is to end.
    Cancel,
    /// An attribute of a reader or a card.
    Attribute,
    /// The readers' states.
    States,
    /// The readers' states, and a message at the next change.
    Wait,
    /// No more messages.
    Unwait,
    /// How many times a reader came or went; from 4:5 on.
    Events,
}

/// A version of the protocol: major and minor.
pub(super) type Version = (u32, u32);

/// The bytes of a body.
const SIZES: [(u32, Request, usize); 17] = [
    (0x11, Request::Version, 12),
    (0x01, Request::Establish, 12),
    (0x02, Request::Release, 8),
    (0x04, Request::Connect, 152),
    (0x05, Request::Reconnect, 24),
    (0x06, Request::Disconnect, 12),
    (0x07, Request::Begin, 8),
    (0x08, Request::End, 12),
    (0x09, Request::Transmit, 32),
    (0x0A, Request::Control, 24),
    (0x0B, Request::Status, 8),
    (0x0D, Request::Cancel, 8),
    (0x0F, Request::Attribute, 280),
    (0x12, Request::States, 0),
    (0x13, Request::Wait, 0),
    (0x14, Request::Unwait, 0),
    (0x15, Request::Events, 0),
];

impl Request {
    /// Whether the answer has a code that a client reads.
    pub(super) fn has_code(self) -> bool {
        !matches!(self, Self::States | Self::Wait | Self::Unwait | Self::Events)
    }

    /// The bytes before its body.
    pub(super) fn head(self) -> Vec<u8> {
        let known = SIZES.iter().find(|(_, request, _)| *request == self);
        let (command, length) = known.map_or((0, 0), |(command, _, length)| (*command, *length));
        let size = u32::try_from(length).unwrap_or(0);
        [size.to_le_bytes(), command.to_le_bytes()].concat()
    }

    /// How many bytes follow the body.
    pub(super) fn bytes_after(self, body: &Body) -> u32 {
        if self == Self::Transmit {
            body.number(at::SENT)
        } else if self == Self::Control {
            body.number(at::CONTROL_SENT)
        } else {
            0
        }
    }

    /// The next request on a connection: what it is, and how long its body.
    pub(super) fn read(mut from: impl Read) -> io::Result<(Self, usize)> {
        let (mut size, mut command) = ([0; 4], [0; 4]);
        from.read_exact(&mut size)?;
        from.read_exact(&mut command)?;
        let (size, command) = (u32::from_le_bytes(size), u32::from_le_bytes(command));
        let known = SIZES.iter().find(|(code, _, _)| *code == command);
        match known {
            Some((_, request, length)) if usize::try_from(size) == Ok(*length) => {
                Ok((*request, *length))
            }
            Some(_) | None => Err(io::Error::other(format!("command {command}, {size} bytes"))),
        }
    }
}

/// Where things are in bodies.
pub(super) mod at {
    pub(crate) const MAJOR: usize = 0;
    pub(crate) const MINOR: usize = 4;
    pub(crate) const SENT: usize = 12;
    pub(crate) const CONTROL_SENT: usize = 8;
}

/// A body.
#[derive(Clone, Debug, Default)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    pub(super) fn read(mut from: impl Read, length: usize) -> io::Result<Self> {
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The number at an offset; 0 where there is none.
    pub(super) fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn set(&mut self, at: usize, number: u32) {
        if let Some(place) = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = number.to_le_bytes();
        }
    }

    /// The answer: the body with this code.
    pub(super) fn with_code(mut self, code: u32) -> Vec<u8> {
        self.set(self.0.len().saturating_sub(4), code);
        self.0
    }
}

/// The message that ends a wait, and the answer to [`Request::Unwait`].
pub(super) fn end_message(code: u32) -> Vec<u8> {
    [[0; 4], code.to_le_bytes()].concat()
}

/// How many readers clients see, there or not.
pub(super) const SLOTS: usize = 16;

/// The bytes of a reader's state: name, count of events, flags, sharing, ATR, protocol.
const STATE: usize = 184;
const COUNT: usize = 128;

/// The bytes of all states, in one piece.
pub(super) const STATES: usize = SLOTS * STATE;

/// How many readers there are in these states.
pub(super) fn readers(states: &[u8]) -> usize {
    states.chunks(STATE).filter(|state| state.first().is_some_and(|byte| *byte != 0)).count()
}

/// Changes the counts in these states.
pub(super) fn set_counts(states: &mut [u8], counts: Counts) {
    for state in states.chunks_mut(STATE) {
        let count = state.get_mut(COUNT..).and_then(|rest| rest.first_chunk_mut::<4>());
        let Some(count) = count else { continue };
        match counts {
            Counts::Real => {}
            Counts::Zero => *count = [0; 4],
            Counts::Ahead(by) => {
                *count = ((u32::from_le_bytes(*count) + by) & 0xFFFF).to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_counted_and_changed_in_place() {
        let mut states = vec![0; STATES];
        states[STATE] = b'R';
        states[STATE + COUNT..STATE + COUNT + 2].copy_from_slice(&[0xFE, 0xFF]);
        assert_eq!(readers(&states), 1);
        set_counts(&mut states, Counts::Ahead(3));
        assert_eq!(states[STATE + COUNT..STATE + COUNT + 4], [1, 0, 0, 0]);
        set_counts(&mut states, Counts::Zero);
        assert_eq!(states[STATE + COUNT], 0);
    }

    #[test]
    fn request_of_another_length_is_rejected() {
        let head = Request::Establish.head();
        assert_eq!(head, [12, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Request::read(head.as_slice()).unwrap(), (Request::Establish, 12));
        let head = [8_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
        assert!(Request::read(head.as_slice()).is_err());
    }
}
