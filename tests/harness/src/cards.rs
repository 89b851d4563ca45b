//! Virtual cards, inserted into the readers of a private pcscd over vpcd's
//! protocol.
//!
//! A [`Card`] knows bytes only. [`InsertedCard`] is the hand that holds it: it
//! inserts, ejects, misbehaves on demand ([`Faults`]) and remembers every APDU.

mod faults;
mod gids;
mod plain;
mod slot;

pub use faults::{Answering, Faults};
pub use gids::{GidsCard, SEED_ATR, SEED_CARDID, TableRow};
pub use plain::PlainCard;
pub use slot::{CardState, Exchange, InsertedCard};

/// A card as its reader sees it.
pub trait Card: Send {
    /// The answer to reset.
    fn atr(&self) -> Vec<u8>;

    /// Power on or reset: volatile state is forgotten.
    fn power(&mut self);

    /// Answers a command APDU, status word included.
    fn command(&mut self, apdu: &[u8]) -> Vec<u8>;
}
