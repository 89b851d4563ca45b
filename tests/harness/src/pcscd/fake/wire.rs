//! pcscd's protocol as bytes, little endian: 4:4 (pcsc-lite 1.9.9) and 4:5 (2.3.3), which differ in one
//! request, [`Request::Events`].
//!
//! A request is its size and its command, four bytes each, and a body. The
//! answer is the same body, filled in, its last four bytes being the code;
//! requests for the readers' states are answered by those alone, and the one
//! for events, which has no body, by a number and a code. Bytes for and
//! from a card follow the body and are not counted in the size.

use std::io::{self, Read};

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
    /// Somebody else's wait is to end.
    Cancel,
    /// An attribute of a reader or a card.
    Attribute,
    /// The readers' states.
    States,
    /// The readers' states, and word of the next change.
    Wait,
    /// No more word.
    Unwait,
    /// How many times a reader came or went; from 4:5 on.
    Events,
}

/// A version of the protocol: major and minor.
pub(super) type Version = (u32, u32);

/// The versions that are spoken, the newest first.
pub(super) const SPOKEN: [Version; 2] = [(4, 5), (4, 4)];

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
    /// Whether the answer has a code that a client looks at.
    pub(super) fn has_code(self) -> bool {
        !matches!(self, Self::States | Self::Wait | Self::Unwait | Self::Events)
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
    pub(crate) const CONTEXT: usize = 0;
    pub(crate) const HANDLE: usize = 0;
    pub(crate) const NEW_CONTEXT: usize = 4;
    pub(crate) const READER: std::ops::Range<usize> = 4..132;
    pub(crate) const SHARE: usize = 132;
    pub(crate) const NEW_HANDLE: usize = 140;
    pub(crate) const PROTOCOL: usize = 144;
    pub(crate) const RECONNECTED_PROTOCOL: usize = 16;
    pub(crate) const SENT: usize = 12;
    pub(crate) const CONTROL_SENT: usize = 8;
    pub(crate) const ROOM: usize = 24;
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

    /// The text in a range, up to its NUL.
    pub(super) fn text(&self, range: std::ops::Range<usize>) -> String {
        let bytes = self.0.get(range).unwrap_or_default();
        let text: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The answer: the body with this code.
    pub(super) fn with_code(mut self, code: u32) -> Vec<u8> {
        self.set(self.0.len().saturating_sub(4), code);
        self.0
    }
}

/// Word of a change, and the answer to [`Request::Unwait`].
pub(super) fn word(code: u32) -> Vec<u8> {
    [[0; 4], code.to_le_bytes()].concat()
}

/// The answer to [`Request::Events`].
pub(super) fn events(count: u32) -> Vec<u8> {
    [count.to_le_bytes(), [0; 4]].concat()
}

/// A reader's state as clients get it.
#[derive(Clone, Debug, Default)]
pub(super) struct ReaderState {
    pub(super) name: String,
    pub(super) event_count: u32,
    pub(super) flags: u32,
    pub(super) sharing: i32,
    pub(super) atr: Vec<u8>,
    pub(super) protocol: u32,
}

/// How many readers clients get told of, there or not.
pub(super) const SLOTS: usize = 16;

const NAME: usize = 128;
const ATR: usize = 33;

/// All states, in one piece.
pub(super) fn states(mut readers: Vec<ReaderState>) -> Vec<u8> {
    readers.resize_with(SLOTS, ReaderState::default);
    readers.iter().flat_map(ReaderState::bytes).collect()
}

impl ReaderState {
    fn bytes(&self) -> Vec<u8> {
        let padded = |bytes: &[u8], length| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, 0);
            bytes
        };
        let atr_length = u32::try_from(self.atr.len().min(ATR)).unwrap_or(0);
        let mut bytes = padded(self.name.as_bytes(), NAME);
        bytes.extend(self.event_count.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.sharing.to_le_bytes());
        bytes.extend(padded(&padded(&self.atr, ATR), ATR + 3));
        bytes.extend(atr_length.to_le_bytes());
        bytes.extend(self.protocol.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_of_all_readers_are_as_long_as_clients_expect() {
        let reader = ReaderState { name: "R".to_owned(), atr: vec![0x3B, 0], ..Default::default() };
        let bytes = states(vec![reader]);
        assert_eq!(bytes.len(), 16 * 184);
        assert_eq!((bytes[0], bytes[140], bytes[176]), (b'R', 0x3B, 2));
    }

    #[test]
    fn a_request_of_another_length_is_refused() {
        let head = [12_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
        assert_eq!(Request::read(head.as_slice()).unwrap(), (Request::Establish, 12));
        let head = [8_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
        assert!(Request::read(head.as_slice()).is_err());
    }
}
