//! Card protocols without a reader: bytes to a card, bytes back, an identity in the end.
//!
//! A probe is a straight-line function over [`Transmit`], one file a family. It can only read:
//! [`CommandApdu`] has no way to say VERIFY, to authenticate or to write. This module opens no reader,
//! reads no clock and never waits; how long a probe may take is the transport's business.
//!
//! Whatever a card answers, a probe sends at most [`MAX_COMMANDS`] commands, and keeps no more than
//! some 4 KiB of any answer.
//!
//! To add a family: its file, and its lines in `probe` and, where it can be told without a SELECT,
//! in `probe_selected`.

mod apdu;
mod atr;
mod exchange;
mod family_result;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gids;
mod idprime;
mod inventory;
mod openpgp;
mod opensc_minidriver;
mod piv;
mod pkcs15;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;
mod tlv;

pub use apdu::{CommandApdu, Protocol, StatusWord};
pub use atr::{
    AtrAnomaly, ByteRole, ByteScope, Category, Checksum, CompactTlv, Contactless, Convention,
    DecodedAtr, Historical, InterfaceByte, Letter, hint,
};

pub use exchange::MAX_COMMANDS;

use crate::domain::{Atr, CardIdentity, Family, IdRule, Inventory, ProbePlan, Strength};

use exchange::{LimitedTransport, send};
use family_result::{CardReading, NoReading};

/// The way to one card, held for the time of one probe.
pub trait Transmit {
    /// Sends one command and brings the whole response, status word included. There is no other
    /// way to a card, and no [`CommandApdu`] that does not read.
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError>;

    /// The protocol that reader and card agreed on.
    fn protocol(&self) -> Protocol;

    /// The card has said who it is, or a part of that ([`CardIdentity::partial`]). What is sent after the
    /// whole is for people only, and may fail.
    fn identified(&mut self, _identity: &CardIdentity) {}
}

/// Why the way to a card ended, by what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransmitError {
    /// The card is gone: forget the probe.
    #[error("card was removed")]
    Removed,
    /// The card lost its state: start the probe over.
    #[error("card was reset")]
    Reset,
    /// The smart card service is gone: wait until it is back.
    #[error("connection to pcscd was lost")]
    PcscdLost,
    /// The time for this probe is over: leave the card alone.
    #[error("card did not respond in time")]
    TimedOut,
    /// Reader or card failed: send nothing more to this card.
    #[error("{detail}")]
    Failed {
        /// What failed, for people.
        detail: String,
    },
}

/// Why a card's identity is not known after a probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No family recognised the card.
    #[error("no enabled card family recognised the card ({tried})")]
    UnknownFamily {
        /// What each family met.
        tried: String,
    },
    /// A family recognised the card, but it holds no usable id.
    #[error("{family} card has no usable card id: {what}")]
    NoId {
        /// The family.
        family: Family,
        /// What is wrong with the id.
        what: String,
    },
    /// Another program uses the card, and without a SELECT it does not say who it is.
    #[error("another program uses the card; not sending SELECT, which could end its session")]
    InUse,
    /// The probe could not be finished; nothing is known about the card.
    #[error(transparent)]
    Interrupted(#[from] TransmitError),
}

/// A card that is to say who it is.
#[derive(Debug, Clone, Copy)]
pub struct ProbeTarget<'a> {
    /// Its ATR: a hint at most, never proof.
    pub atr: &'a Atr,
    /// What it is asked.
    pub plan: &'a ProbePlan,
    /// Whether another program has a connection to it: nothing is selected then.
    pub in_use: bool,
}

/// Asks a card who it is, family by family, and what else it says of itself.
///
/// A card that one family recognised without finding an id is still shown to the next families.
/// What was read into `inventory` counts also where no family recognised the card. Who the card is
/// counts from [`Transmit::identified`] on, whatever becomes of the card and the inventory then.
pub fn identify(
    transport: &mut dyn Transmit,
    subject: ProbeTarget<'_>,
    inventory: &mut Inventory,
) -> Result<CardIdentity, ProbeError> {
    let transport = &mut LimitedTransport::new(transport);
    let families = in_order(subject.plan);
    let mut selected = Vec::new();
    let found = if subject.in_use {
        probe_selected_only(transport, &families, &mut selected)
    } else {
        probe_families(transport, (&families, subject.plan), &mut selected)
    };
    let found = match found {
        Err(ProbeError::Interrupted(why)) => return Err(why.into()),
        found => found.and_then(|found| apply_pinned_rule(subject.plan.id_rule, found)),
    };
    let identity =
        found.as_ref().map_err(Clone::clone).and_then(|found| found.identity(subject.in_use));
    if let Ok(identity) = &identity {
        transport.identified(identity);
    }
    match take_inventory(transport, subject, (found.as_ref().ok(), &selected), inventory) {
        // Nobody knows yet who the card is: asked from the beginning, it may say so.
        Err(why @ (TransmitError::Removed | TransmitError::Reset | TransmitError::PcscdLost))
            if identity.is_err() =>
        {
            Err(why.into())
        }
        // What is missing is for people only.
        Err(_) | Ok(()) => identity,
    }
}

/// A card that a family recognised.
#[derive(Clone)]
struct RecognisedCard {
    family: Family,
    reading: CardReading,
    /// Whether another application was selected since.
    selection_changed: bool,
}

impl RecognisedCard {
    /// Who the card is, by all that it has to say or by a part. What another program selected hides the
    /// other applications, so what was read without a SELECT is a part.
    fn identity(&self, partial: bool) -> Result<CardIdentity, ProbeError> {
        let Self { family, reading, .. } = self;
        let mut candidates = reading.candidates.iter().cloned();
        let Some(first) = candidates.next() else {
            return Err(ProbeError::NoId { family: *family, what: NOT_UNIQUE.to_owned() });
        };
        let mut identity =
            CardIdentity::new(*family, reading.serial.clone(), first, candidates.collect());
        identity.partial = partial;
        Ok(identity)
    }
}

/// What is wrong with an id that is all zeros, all ones, or the same on every card.
const NOT_UNIQUE: &str = "what it holds is the id of no particular card";

/// The families to ask for, in the order of the site; that of the pinned rule alone, where there is
/// one. The ATR has no say: what a card is known by depends on its answers alone.
fn in_order(plan: &ProbePlan) -> Vec<Family> {
    let is_asked = |family: &&Family| plan.id_rule.is_none_or(|rule| rule.family() == **family);
    plan.families.iter().filter(is_asked).copied().collect()
}

/// Asks one family after the other, until one gives an id that proves the card.
///
/// A card may be GIDS and PIV at once, and Windows takes the id from PIV then, as far as is known: both
/// count, whichever proves it.
fn probe_families(
    transport: &mut dyn Transmit,
    (families, plan): (&[Family], &ProbePlan),
    selected: &mut Vec<Family>,
) -> Result<RecognisedCard, ProbeError> {
    let mut tried = Vec::new();
    let mut no_id = None;
    let mut readings = Vec::new();
    let mut proven = None;
    for &family in families {
        if proven.is_some_and(|proven| !are_same_card(proven, family)) {
            continue;
        }
        // A card that leaves or hangs now is known by the ids that it gave.
        if let Some(Ok(identity)) = combine(&readings, selected).map(|found| {
            apply_pinned_rule(plan.id_rule, found).and_then(|found| found.identity(true))
        }) {
            transport.identified(&identity);
        }
        match probe(family, transport, selected) {
            Ok(reading) => {
                let proves = reading.candidates.iter().any(|id| id.strength != Strength::Shared);
                proven = proven.or(proves.then_some(family));
                readings.push((family, reading));
            }
            Err(NoReading::OtherFamily(why)) => tried.push(format!("{family}: {why}")),
            Err(NoReading::NoId(what)) => {
                no_id.get_or_insert(ProbeError::NoId { family, what });
            }
            Err(NoReading::Interrupted(why)) => return Err(why.into()),
        }
    }
    if tried.is_empty() {
        tried.push("no family is switched on".to_owned());
    }
    combine(&readings, selected)
        .ok_or_else(|| no_id.unwrap_or(ProbeError::UnknownFamily { tried: tried.join("; ") }))
}

/// Families whose applications one card may have, and by either of which CM may know it.
const fn are_same_card(one: Family, other: Family) -> bool {
    matches!((one, other), (Family::Gids, Family::Piv) | (Family::Piv, Family::Gids))
}

/// What the families of a card said, together: the strongest id first, and of those as strong in the
/// order in which they were asked. The card is of the family of the first.
fn combine(readings: &[(Family, CardReading)], selected: &[Family]) -> Option<RecognisedCard> {
    let all = || readings.iter().map(|(_, reading)| reading);
    let mut candidates: Vec<_> = all().flat_map(|reading| reading.candidates.clone()).collect();
    candidates.sort_by_key(|candidate| candidate.strength);
    let family = candidates.first()?.rule.family();
    let placeholders = all().flat_map(|reading| reading.placeholders.clone()).collect();
    let (_, reading) = readings.iter().find(|(of, _)| *of == family)?;
    let reading = CardReading { candidates, placeholders, ..reading.clone() };
    Some(RecognisedCard { family, reading, selection_changed: selected.last() != Some(&family) })
}

/// Asks whatever application another program has selected. A wrong one answers with an error.
fn probe_selected_only(
    transport: &mut dyn Transmit,
    families: &[Family],
    selected: &mut Vec<Family>,
) -> Result<RecognisedCard, ProbeError> {
    for &family in families {
        match probe_selected(family, transport, selected) {
            Ok(reading) => {
                let found = combine(&[(family, reading)], selected);
                return found
                    .ok_or_else(|| ProbeError::NoId { family, what: NOT_UNIQUE.to_owned() });
            }
            Err(NoReading::OtherFamily(_)) => {}
            Err(NoReading::NoId(what)) => return Err(ProbeError::NoId { family, what }),
            Err(NoReading::Interrupted(why)) => return Err(why.into()),
        }
    }
    Err(ProbeError::InUse)
}

/// Selects a family's application and reads it. Notes that it was selected, where the card has it.
fn probe(
    family: Family,
    transport: &mut dyn Transmit,
    selected: &mut Vec<Family>,
) -> Result<CardReading, NoReading> {
    let reading = match family {
        Family::Gids => gids::probe(transport),
        Family::Idprime => idprime::probe(transport),
        Family::Piv => piv::probe(transport),
        Family::Openpgp => openpgp::probe(transport),
        Family::Pkcs15 => pkcs15::probe(transport),
    };
    note_selected(family, &reading, selected);
    require_unique_id(reading?)
}

fn note_selected(
    family: Family,
    reading: &Result<CardReading, NoReading>,
    selected: &mut Vec<Family>,
) {
    if matches!(reading, Ok(_) | Err(NoReading::NoId(_))) {
        selected.push(family);
    }
}

/// Reads a family's application, if it is the selected one.
fn probe_selected(
    family: Family,
    transport: &mut dyn Transmit,
    selected: &mut Vec<Family>,
) -> Result<CardReading, NoReading> {
    let reading = match family {
        Family::Gids => gids::probe_selected(transport),
        Family::Piv => piv::probe_selected(transport),
        Family::Openpgp => openpgp::probe_selected(transport),
        Family::Idprime | Family::Pkcs15 => {
            Err(NoReading::OtherFamily("cannot be told without a SELECT".to_owned()))
        }
    };
    note_selected(family, &reading, selected);
    require_unique_id(reading?)
}

/// A reading that has an id.
fn require_unique_id(reading: CardReading) -> Result<CardReading, NoReading> {
    if reading.candidates.is_empty() {
        Err(NoReading::NoId(NOT_UNIQUE.to_owned()))
    } else {
        Ok(reading)
    }
}

/// Leaves the one candidate that the site's rule makes.
fn apply_pinned_rule(
    id_rule: Option<IdRule>,
    mut found: RecognisedCard,
) -> Result<RecognisedCard, ProbeError> {
    let Some(rule) = id_rule else { return Ok(found) };
    found.reading.candidates.retain(|candidate| candidate.rule == rule);
    // A value that belongs to no card is nobody's, whatever the site says.
    let pinned = !found.reading.placeholders.contains(&rule);
    for candidate in &mut found.reading.candidates {
        candidate.pinned = pinned;
    }
    if found.reading.candidates.is_empty() {
        let what = format!("no id by the rule {rule}, which the configuration pins for this card");
        return Err(ProbeError::NoId { family: found.family, what });
    }
    Ok(found)
}

/// Asks for what people want to know, unless the site does not, and selects the application that was
/// identified again, if another one is selected then: whoever comes next most likely wants that.
fn take_inventory(
    transport: &mut dyn Transmit,
    subject: ProbeTarget<'_>,
    (found, selected): (Option<&RecognisedCard>, &[Family]),
    inventory: &mut Inventory,
) -> Result<(), TransmitError> {
    let wanted = subject.plan.inventory;
    let mut moved = false;
    if wanted {
        inventory::read_from_reader(transport, subject.atr, inventory)?;
        moved = inventory::of_piv(transport, selected, inventory)?;
    }
    if subject.in_use {
        return Ok(());
    }
    let family = found.map(|found| found.family);
    moved |= wanted && inventory::read_from_card(transport, (subject.atr, family), inventory)?;
    match found {
        Some(RecognisedCard {
            reading: CardReading { reselect: Some(home), .. },
            selection_changed: before,
            ..
        }) if moved || *before => family_result::where_given(send(transport, home)).map(drop),
        _ => Ok(()),
    }
}
