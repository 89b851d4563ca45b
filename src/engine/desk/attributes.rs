//! What readers' drivers tell of them, and cards that wait for it.
//!
//! Only where a `[[reader]]` asks for a vendor or a serial number does a card wait: to read it in a
//! reader that is switched off, or under another role, would be the wrong thing. Where the driver
//! cannot be asked, the card is told as not identified, and read when the driver tells after all.

use std::time::{Duration, Instant};

use super::super::{Engine, Now};
use super::{Card, Slot};
use crate::domain::{
    NotIdentified, NotIdentifiedReason, ReaderAttributes, ReaderName, ReaderRules,
};

/// How long a driver may take to tell before that is told.
pub(super) const ATTRIBUTES_WITHIN: Duration = Duration::from_secs(2);

/// What a reader's driver told.
#[derive(Debug)]
pub(super) enum Attributes {
    /// Nothing yet.
    NotYet {
        /// Until when it is waited for.
        until: Instant,
    },
    /// This.
    Told(ReaderAttributes),
}

impl Attributes {
    /// What is known by now.
    pub(super) fn told(&self) -> ReaderAttributes {
        match self {
            Self::NotYet { .. } => ReaderAttributes::default(),
            Self::Told(attributes) => attributes.clone(),
        }
    }

    /// Until when there is something to wait for.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::NotYet { until } => Some(*until),
            Self::Told(_) => None,
        }
    }
}

impl Slot {
    /// Whether it is not known yet what the configuration makes of the reader.
    pub(super) fn is_undecided(&self, rules: &ReaderRules, reader: &ReaderName) -> bool {
        self.attributes.deadline().is_some() && rules.need_attributes_of(reader)
    }
}

impl Engine {
    pub(in crate::engine) fn described(
        &mut self,
        reader: &ReaderName,
        attributes: ReaderAttributes,
        now: Now,
    ) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        let undecided = slot.is_undecided(&self.policy.readers, reader);
        slot.place = self.policy.readers.settings_for(reader, &attributes);
        slot.attributes = Attributes::Told(attributes);
        match &slot.card {
            Card::Waiting { presence, seen } => {
                let (presence, seen) = (presence.clone(), *seen);
                self.read(presence, seen, now);
            }
            Card::NotIdentified { presence, .. } if undecided => {
                let presence = presence.clone();
                self.read(presence, now, now);
            }
            Card::None
            | Card::Mute { .. }
            | Card::Reading { .. }
            | Card::Identified { .. }
            | Card::NotIdentified { .. } => {}
        }
    }

    /// Cards whose readers' drivers did not tell in time are left alone, unless they no longer have to
    /// tell.
    pub(in crate::engine) fn stop_waiting_for_attributes(&mut self, now: Now) {
        let late = |slot: &Slot| {
            matches!(slot.card, Card::Waiting { .. })
                && slot.attributes.deadline().is_some_and(|until| until <= now.mono)
        };
        for reader in self.desk.readers_where(late) {
            self.wait_no_longer(&reader, now);
        }
    }

    fn wait_no_longer(&mut self, reader: &ReaderName, now: Now) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        let Card::Waiting { presence, seen } = &slot.card else { return };
        let (presence, seen) = (presence.clone(), *seen);
        if !slot.is_undecided(&self.policy.readers, reader) {
            self.read(presence, seen, now);
            return;
        }
        let why = NotIdentified::new(
            NotIdentifiedReason::ReadError,
            "the reader's driver does not tell vendor and serial number, which a [[reader]] asks for: \
             another program may have the card to itself"
                .to_owned(),
        );
        let (place, atr) = (slot.place.clone(), presence.atr.clone());
        slot.card = Card::NotIdentified { presence, why: why.clone() };
        self.note_not_identified(reader, &place, Some(atr), &why, now);
    }
}
