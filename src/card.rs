//! Card protocols without a reader: bytes to a card, bytes back, an identity in the end.
//!
//! A probe is a straight-line function over [`Transmit`], one file a family. It can only read:
//! [`Command`] has no way to say VERIFY, to authenticate or to write. This module opens no reader,
//! reads no clock and never waits; how long a probe may take is the transport's business.
//!
//! To add a family: its file, and its line in `probe_of`.

mod apdu;
mod atr;
mod exchange;
mod gids;
#[cfg(test)]
mod script;
mod tlv;

pub use apdu::{Command, Protocol, StatusWord};
pub use atr::{AtrFacts, Checksum, CompactTlv, Contactless, Convention};

use crate::domain::{Atr, Family, Identity};

use exchange::NoAnswer;

/// The way to one card, held for the time of one probe.
pub trait Transmit {
    /// Sends one command and brings the whole response, status word included.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, Interrupted>;

    /// The protocol that reader and card agreed on.
    fn protocol(&self) -> Protocol;
}

/// Why the way to a card ended, by what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// The card is gone: forget the probe.
    #[error("card was taken out")]
    Removed,
    /// The card lost its state: start the probe over.
    #[error("card was reset")]
    Reset,
    /// The smart card service is gone: wait until it is back.
    #[error("connection to the smart card service was lost")]
    Lost,
    /// The time for this probe is over: leave the card alone.
    #[error("card did not answer in time")]
    Deadline,
    /// Reader or card failed: send nothing more to this card.
    #[error("{what}")]
    Failed {
        /// What failed, for people.
        what: String,
    },
}

/// Why a card's identity is not known after a probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No family recognised the card.
    #[error("no family recognised the card ({tried})")]
    UnknownFamily {
        /// What each family met.
        tried: String,
    },
    /// A family recognised the card, but it holds no usable id.
    #[error("{family} card without a usable id: {what}")]
    NoId {
        /// The family.
        family: Family,
        /// What is wrong with the id.
        what: String,
    },
    /// The probe could not be finished; nothing is known about the card.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Asks each family in turn whether the card is one of its own, and who it is then.
///
/// A card that one family recognised without finding an id is still shown to the next families.
pub fn identify(
    transport: &mut dyn Transmit,
    families: &[Family],
    atr: &Atr,
) -> Result<Identity, ProbeError> {
    let mut tried = Vec::new();
    let mut no_id = None;
    for &family in families {
        let Some(probe) = probe_of(family) else {
            tried.push(format!("{family}: not read by this version"));
            continue;
        };
        match probe(transport, atr) {
            Ok(identity) => return Ok(identity),
            Err(Miss::OtherFamily(why)) => tried.push(format!("{family}: {why}")),
            Err(Miss::NoId(what)) => {
                no_id.get_or_insert(ProbeError::NoId { family, what });
            }
            Err(Miss::Interrupted(why)) => return Err(why.into()),
        }
    }
    if tried.is_empty() {
        tried.push("no family is switched on".to_owned());
    }
    Err(no_id.unwrap_or(ProbeError::UnknownFamily { tried: tried.join("; ") }))
}

/// A family's probe. The ATR is a hint at most, never proof.
type Probe = fn(&mut dyn Transmit, &Atr) -> Result<Identity, Miss>;

/// The probe of a family that this version reads.
const fn probe_of(family: Family) -> Option<Probe> {
    match family {
        Family::Gids => Some(gids::probe),
        Family::Idprime | Family::Piv | Family::Openpgp | Family::Pkcs15 => None,
    }
}

/// Why one family's probe brought no identity.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    /// Not a card of this family: ask the next one.
    OtherFamily(String),
    /// A card of this family, without a usable id.
    NoId(String),
    /// The probe could not be finished.
    Interrupted(Interrupted),
}

impl Miss {
    /// A refusal that means that the card is of another family.
    fn other_family(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Interrupted(why) => Self::Interrupted(why),
            NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless => {
                Self::OtherFamily(why.to_string())
            }
        }
    }

    /// A refusal of `what` by a card of the family.
    fn no_id(what: &str, why: NoAnswer) -> Self {
        match why {
            NoAnswer::Interrupted(why) => Self::Interrupted(why),
            NoAnswer::Refused(_) | NoAnswer::Truncated(_) | NoAnswer::Endless => {
                Self::NoId(format!("{what}: {why}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::script::{Script, atr};
    use super::*;

    #[test]
    fn a_card_that_no_family_knows_says_what_each_family_met() {
        let mut card = Script::new(Protocol::T1);
        let error = identify(&mut card, &[Family::Gids], &atr()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no family recognised the card (gids: card answered 6A82 (absent))"
        );
    }

    #[test]
    fn without_a_family_switched_on_the_card_is_not_touched() {
        let mut card = Script::new(Protocol::T1);
        let error = identify(&mut card, &[], &atr()).unwrap_err();
        assert!(matches!(error, ProbeError::UnknownFamily { .. }));
        assert!(card.sent().is_empty());
    }

    #[test]
    fn a_family_of_a_later_version_is_passed_over_without_a_command() {
        let mut card = Script::new(Protocol::T1);
        let error = identify(&mut card, &[Family::Piv], &atr()).unwrap_err();
        assert!(error.to_string().contains("piv: not read by this version"));
        assert!(card.sent().is_empty());
    }

    #[test]
    fn an_interruption_ends_the_probe_whatever_families_are_left() {
        for why in [
            Interrupted::Removed,
            Interrupted::Reset,
            Interrupted::Lost,
            Interrupted::Deadline,
            Interrupted::Failed { what: "broken".to_owned() },
        ] {
            let mut card = Script::new(Protocol::T1).interrupted_after(0, why.clone());
            let error = identify(&mut card, &[Family::Gids, Family::Gids], &atr()).unwrap_err();
            assert_eq!(error, ProbeError::Interrupted(why));
            assert_eq!(card.sent().len(), 1);
        }
    }

    #[test]
    fn a_card_without_an_id_is_shown_to_the_next_family_and_reported_as_such() {
        let mut card = Script::gids(Protocol::T1).on("00cba012045c02df2000", "df20009000");
        let error = identify(&mut card, &[Family::Gids, Family::Piv], &atr()).unwrap_err();
        assert!(matches!(error, ProbeError::NoId { family: Family::Gids, .. }));
    }
}
