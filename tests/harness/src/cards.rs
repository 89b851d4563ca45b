//! Virtual cards, inserted into the readers of a private pcscd.
//!
//! A [`Card`] knows bytes only. [`load`] makes one from a personalisation file
//! (`tests/cards/*.toml`). [`InsertedCard`] controls it: it
//! inserts, ejects, misbehaves on demand ([`Faults`]) and remembers every APDU.

mod apdu;
mod applet;
mod applet_card;
mod card_control;
mod faults;
mod files;
mod gids;
mod hex_text;
mod hostile;
mod idprime;
mod inserted;
mod openpgp;
mod personal;
mod pins;
mod piv;
mod pkcs15;
mod plain;
mod slot;
mod transport;

pub use applet_card::AppletCard;
pub(crate) use card_control::{CardControl, Contact};
pub use card_control::{CardState, Exchange};
pub use faults::{Answering, Faults};
pub use gids::{GidsCard, SEED_ATR, SEED_CARDID, TableRow};
pub use hostile::{HostileCard, Malice};
pub use inserted::InsertedCard;
pub(crate) use inserted::Place;
pub use personal::load;
pub use pins::Pins;
pub use plain::PlainCard;

/// A card as its reader sees it.
pub trait Card: Send {
    /// The answer to reset.
    fn atr(&self) -> Vec<u8>;

    /// Power on or reset: volatile state is forgotten.
    fn power(&mut self);

    /// Answers a command APDU, status word included.
    fn command(&mut self, apdu: &[u8]) -> Vec<u8>;
}

impl<C: Card + ?Sized> Card for Box<C> {
    fn atr(&self) -> Vec<u8> {
        (**self).atr()
    }

    fn power(&mut self) {
        (**self).power();
    }

    fn command(&mut self, apdu: &[u8]) -> Vec<u8> {
        (**self).command(apdu)
    }
}
