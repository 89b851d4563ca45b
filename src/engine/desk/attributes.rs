//! What readers' drivers tell of them, and cards that wait for it.
//!
//! Only where a `[[reader]]` asks for a vendor or a serial number does a card wait: to read it in a
//! reader that is switched off, or under another role, would be the wrong thing.

use std::time::{Duration, Instant};

use super::super::{Engine, Now};
use super::{Card, Slot};
use crate::domain::{ReaderAttributes, ReaderName};

/// How long a driver may take to tell; one that does not is taken for one that cannot.
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

impl Engine {
    pub(in crate::engine) fn described(
        &mut self,
        reader: &ReaderName,
        attributes: ReaderAttributes,
        now: Now,
    ) {
        let Some(slot) = self.desk.readers.get_mut(reader) else { return };
        slot.place = self.policy.readers.place(reader, &attributes);
        slot.attributes = Attributes::Told(attributes);
        if let Card::Waiting { presence, seen } = &slot.card {
            let (presence, seen) = (presence.clone(), *seen);
            self.read(presence, seen, now);
        }
    }

    /// Drivers that did not tell in time tell nothing.
    pub(in crate::engine) fn stop_waiting_for_attributes(&mut self, now: Now) {
        let late = |slot: &Slot| {
            matches!(slot.card, Card::Waiting { .. })
                && slot.attributes.deadline().is_some_and(|until| until <= now.mono)
        };
        let readers: Vec<_> = self
            .desk
            .readers
            .iter()
            .filter(|(_, slot)| late(slot))
            .map(|(reader, _)| reader.clone())
            .collect();
        for reader in readers {
            self.described(&reader, ReaderAttributes::default(), now);
        }
    }
}
