//! Card protocols without a reader: commands to a card, its responses, and in the end an identity.
//!
//! A family's probe is a straight-line function over [`Transmit`], in a file of its own. It can only read:
//! no [`CommandApdu`] verifies, authenticates or writes. This module opens no reader, reads no clock
//! and never waits: the transport limits the duration of a probe.
//!
//! Whatever the card returns, a probe sends at most [`MAX_COMMANDS`] commands, and keeps at most some
//! 4 KiB of each response.
//!
//! To add a family: its file, and its lines in `CardProbe::read`.

mod apdu;
mod atr;
mod exchange;
mod family_result;
mod files;
#[cfg(fuzzing)]
#[path = "card/tests/fuzzing.rs"]
pub mod fuzzing;
mod gids;
mod idprime;
mod inventory;
mod openpgp;
mod piv;
mod pkcs15;
#[cfg(test)]
mod tests;
mod tlv;

pub use apdu::{CommandApdu, Protocol};
pub use atr::{Checksum, CompactTlv, DecodedAtr, Historical, InterfaceByte, hint};
pub use exchange::MAX_COMMANDS;

use crate::domain::{Atr, CardIdentity, Family, IdRule, Inventory, ProbePlan, Strength};

use exchange::{LimitedTransport, optional, send};
use family_result::{CardReading, NoReading};

/// The connection to one card, for one probe.
pub trait Transmit {
    /// Sends one command and returns the whole response with its status word.
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError>;

    fn protocol(&self) -> Protocol;

    /// The card is identified, or in part ([`CardIdentity::partial`]). Commands after the whole identity
    /// are only for the inventory, and may fail.
    fn identified(&mut self, _identity: &CardIdentity) {}
}

/// Why a command got no response, by what has to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransmitError {
    /// The card is gone: end the probe.
    #[error("card was removed")]
    Removed,
    /// The card lost its state: restart the probe.
    #[error("card was reset")]
    Reset,
    /// Wait until pcscd is back.
    #[error("connection to pcscd was lost")]
    PcscdLost,
    /// The probe is over: send nothing more to this card.
    #[error("card did not respond in time")]
    TimedOut,
    /// Reader or card failed: send nothing more to this card.
    #[error("{detail}")]
    Failed { detail: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("no enabled card family recognised the card ({tried})")]
    UnknownFamily { tried: String },
    /// A family recognised the card, but it has no usable id.
    #[error("{family} card has no usable card id: {what}")]
    NoId { family: Family, what: String },
    /// Another program uses the card, and the selected application does not identify it.
    #[error("another program uses the card; not sending SELECT, which could end its session")]
    InUse,
    /// The probe did not finish; nothing is known about the card.
    #[error(transparent)]
    Interrupted(#[from] TransmitError),
}

#[derive(Debug, Clone, Copy)]
pub struct ProbeTarget<'a> {
    /// A hint at most, never proof.
    pub atr: &'a Atr,
    pub plan: &'a ProbePlan,
    /// Whether another program has a connection to the card: no SELECT is sent then.
    pub in_use: bool,
}

/// Identifies a card, family by family, and reads its inventory.
///
/// A card that one family recognised without finding an id is still probed by the next families.
/// `inventory` holds also where no family recognised the card. The identity holds from
/// [`Transmit::identified`] on, whatever happens to the card and the inventory later.
pub fn identify(
    transport: &mut dyn Transmit,
    target: ProbeTarget<'_>,
    inventory: &mut Inventory,
) -> Result<CardIdentity, ProbeError> {
    let transport = LimitedTransport::new(transport);
    let mut probe = CardProbe { transport, target, selected: Vec::new() };
    let recognised = if target.in_use { probe.probe_selected() } else { probe.probe_families() };
    let recognised = match recognised {
        Err(ProbeError::Interrupted(error)) => return Err(error.into()),
        other => other.and_then(|card| card.pinned_to(target.plan.id_rule)),
    };
    let identity =
        recognised.as_ref().map_err(Clone::clone).and_then(|card| card.identity(target.in_use));
    if let Ok(identity) = &identity {
        probe.transport.identified(identity);
    }
    match probe.take_inventory(recognised.as_ref().ok(), inventory) {
        // The card is not identified yet: a probe from the start may identify it.
        Err(error @ (TransmitError::Removed | TransmitError::Reset | TransmitError::PcscdLost))
            if identity.is_err() =>
        {
            Err(error.into())
        }
        Err(_) | Ok(()) => identity,
    }
}

#[derive(Clone)]
struct RecognisedCard {
    family: Family,
    reading: CardReading,
    /// Whether another application was selected since.
    selection_changed: bool,
}

/// What is wrong with an id of all zeros, all ones, or the same on every card.
const NOT_UNIQUE: &str = "what it holds is the id of no particular card";

impl RecognisedCard {
    /// What the families of a card returned, together: the strongest id first, and equally strong ones in
    /// the order of the probes. The card is of the family of the first.
    fn combine(readings: &[(Family, CardReading)], selected: &[Family]) -> Option<Self> {
        let ids = readings.iter().flat_map(|(_, reading)| &reading.ids);
        let mut ids: Vec<_> = ids.cloned().collect();
        ids.sort_by_key(|id| id.candidate.strength);
        let family = ids.first()?.candidate.rule.family();
        let (_, reading) = readings.iter().find(|(of, _)| *of == family)?;
        let reading = CardReading { ids, ..reading.clone() };
        Some(Self { family, reading, selection_changed: selected.last() != Some(&family) })
    }

    /// The card with only the candidate that the site's rule makes.
    fn pinned_to(mut self, id_rule: Option<IdRule>) -> Result<Self, ProbeError> {
        let Some(rule) = id_rule else { return Ok(self) };
        let ids = &mut self.reading.ids;
        ids.retain(|id| id.candidate.rule == rule);
        for id in &mut *ids {
            // A placeholder belongs to no card, whatever the site pins.
            id.candidate.pinned = !id.is_placeholder;
        }
        if ids.is_empty() {
            let what =
                format!("no id by the rule {rule}, which the configuration pins for this card");
            return Err(ProbeError::NoId { family: self.family, what });
        }
        Ok(self)
    }

    /// The identity. What is read without a SELECT is partial: the selected application hides others.
    fn identity(&self, partial: bool) -> Result<CardIdentity, ProbeError> {
        let mut candidates = self.reading.ids.iter().map(|id| id.candidate.clone());
        let family = self.family;
        let no_id = || ProbeError::NoId { family, what: NOT_UNIQUE.to_owned() };
        let first = candidates.next().ok_or_else(no_id)?;
        let serial = self.reading.serial.clone();
        let mut identity = CardIdentity::new(family, serial, first, candidates.collect());
        identity.partial = partial;
        Ok(identity)
    }
}

struct CardProbe<'a> {
    transport: LimitedTransport<'a>,
    target: ProbeTarget<'a>,
    /// The families whose application was selected, one after the other.
    selected: Vec<Family>,
}

impl CardProbe<'_> {
    /// The families to probe, in the site's order; only that of the pinned rule, if there is one. The ATR
    /// does not count: what identifies a card depends only on its responses.
    fn families(&self) -> Vec<Family> {
        let ProbePlan { families, id_rule, .. } = self.target.plan;
        let is_asked = |family: &&Family| id_rule.is_none_or(|rule| rule.family() == **family);
        families.iter().filter(is_asked).copied().collect()
    }

    /// Probes one family after the other, until one returns an id that proves the card.
    ///
    /// A card may be GIDS and PIV at once, and Windows then takes the id from PIV, as far as is known:
    /// both count, whichever proves it.
    fn probe_families(&mut self) -> Result<RecognisedCard, ProbeError> {
        let mut tried = Vec::new();
        let mut no_id = None;
        let mut readings = Vec::new();
        let mut proven = None;
        for family in self.families() {
            if proven.is_some_and(|proven| !may_be_same_card(proven, family)) {
                continue;
            }
            // A card that leaves or hangs now is known by the ids that it returned.
            let so_far = RecognisedCard::combine(&readings, &self.selected).and_then(|card| {
                card.pinned_to(self.target.plan.id_rule).ok()?.identity(true).ok()
            });
            if let Some(identity) = so_far {
                self.transport.identified(&identity);
            }
            match self.read(family) {
                Ok(reading) => {
                    let is_proof = |strength| strength != Strength::Shared;
                    if reading.ids.iter().any(|id| is_proof(id.candidate.strength)) {
                        proven = proven.or(Some(family));
                    }
                    readings.push((family, reading));
                }
                Err(NoReading::OtherFamily(reason)) => tried.push(format!("{family}: {reason}")),
                Err(NoReading::NoId(what)) => {
                    no_id.get_or_insert(ProbeError::NoId { family, what });
                }
                Err(NoReading::Interrupted(error)) => return Err(error.into()),
            }
        }
        if tried.is_empty() {
            tried.push("no family is switched on".to_owned());
        }
        RecognisedCard::combine(&readings, &self.selected)
            .ok_or_else(|| no_id.unwrap_or(ProbeError::UnknownFamily { tried: tried.join("; ") }))
    }

    /// Reads the application that another program selected. A wrong one answers with an error.
    fn probe_selected(&mut self) -> Result<RecognisedCard, ProbeError> {
        for family in self.families() {
            match self.read(family) {
                Ok(reading) => {
                    let no_id = || ProbeError::NoId { family, what: NOT_UNIQUE.to_owned() };
                    let card = RecognisedCard::combine(&[(family, reading)], &self.selected);
                    return card.ok_or_else(no_id);
                }
                Err(NoReading::OtherFamily(_)) => {}
                Err(NoReading::NoId(what)) => return Err(ProbeError::NoId { family, what }),
                Err(NoReading::Interrupted(error)) => return Err(error.into()),
            }
        }
        Err(ProbeError::InUse)
    }

    /// Reads a family's application: selects it, or takes it only if another program has selected it.
    fn read(&mut self, family: Family) -> Result<CardReading, NoReading> {
        let transport = &mut self.transport;
        let reading = match (family, self.target.in_use) {
            (Family::Gids, false) => gids::probe(transport),
            (Family::Gids, true) => gids::probe_selected(transport),
            (Family::Idprime, false) => idprime::probe(transport),
            (Family::Piv, false) => piv::probe(transport),
            (Family::Piv, true) => piv::probe_selected(transport),
            (Family::Openpgp, false) => openpgp::probe(transport),
            (Family::Openpgp, true) => openpgp::probe_selected(transport),
            (Family::Pkcs15, false) => pkcs15::probe(transport),
            (Family::Idprime | Family::Pkcs15, true) => {
                Err(NoReading::OtherFamily("cannot be recognised without a SELECT".to_owned()))
            }
        };
        if matches!(reading, Ok(_) | Err(NoReading::NoId(_))) {
            self.selected.push(family);
        }
        let reading = reading?;
        if reading.ids.is_empty() {
            return Err(NoReading::NoId(NOT_UNIQUE.to_owned()));
        }
        Ok(reading)
    }

    /// Reads the inventory, unless the site does not want it, and selects the identified application again
    /// if another one is selected: the next program most likely needs it.
    fn take_inventory(
        &mut self,
        card: Option<&RecognisedCard>,
        inventory: &mut Inventory,
    ) -> Result<(), TransmitError> {
        let ProbeTarget { atr, plan, in_use } = self.target;
        let transport = &mut self.transport;
        let mut selection_changed = card.is_some_and(|card| card.selection_changed);
        if plan.inventory {
            inventory::read_from_reader(transport, atr, inventory)?;
            selection_changed |= inventory::of_piv(transport, &self.selected, inventory)?;
        }
        if in_use {
            return Ok(());
        }
        if plan.inventory {
            let family = card.map(|card| card.family);
            selection_changed |= inventory::read_from_card(transport, (atr, family), inventory)?;
        }
        if selection_changed && let Some(reselect) = card.and_then(|c| c.reading.reselect.as_ref())
        {
            optional(send(transport, reselect))?;
        }
        Ok(())
    }
}

/// Whether one card may have both applications, and CM may know it by either.
const fn may_be_same_card(one: Family, other: Family) -> bool {
    matches!((one, other), (Family::Gids, Family::Piv) | (Family::Piv, Family::Gids))
}
