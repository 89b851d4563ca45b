//! What readers' drivers tell of them, and cards that wait for it.
//!
//! Only where a `[[reader]]` asks for a vendor or a serial number does a card wait: to read it in a
//! reader that is switched off, or under another role, would be the wrong thing. Where the driver
//! cannot be asked, the card is told as not identified, and read when the driver tells after all.

use std::time::{Duration, Instant};

use super::super::{Engine, Now};
use super::{CardState, TrackedReader};
use crate::domain::{
    NotIdentified, NotIdentifiedReason, ReaderAttributes, ReaderName, ReaderRules,
};

/// How long a driver may take to tell before that is told.
pub(super) const ATTRIBUTES_TIMEOUT: Duration = Duration::from_secs(2);

/// What a reader's driver told.
#[derive(Debug)]
pub(super) enum AttributesState {
    /// Nothing yet.
    Pending {
        /// Until when it is waited for.
        until: Instant,
    },
    /// This.
    Known(ReaderAttributes),
}

impl AttributesState {
    /// What is known by now.
    pub(super) fn told(&self) -> ReaderAttributes {
        match self {
            Self::Pending { .. } => ReaderAttributes::default(),
            Self::Known(attributes) => attributes.clone(),
        }
    }

    /// Until when there is something to wait for.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Pending { until } => Some(*until),
            Self::Known(_) => None,
        }
    }
}

impl TrackedReader {
    /// Whether it is not known yet what the configuration makes of the reader.
    pub(super) fn awaits_attributes(&self, rules: &ReaderRules, reader: &ReaderName) -> bool {
        self.attributes.deadline().is_some() && rules.need_attributes_of(reader)
    }
}

impl Engine {
    pub(in crate::engine) fn on_attributes_read(
        &mut self,
        reader: &ReaderName,
        attributes: ReaderAttributes,
        now: Now,
    ) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let undecided = slot.awaits_attributes(&self.policy.readers, reader);
        slot.place = self.policy.readers.settings_for(reader, &attributes);
        slot.attributes = AttributesState::Known(attributes);
        match &slot.card {
            CardState::AwaitingAttributes { presence, seen } => {
                let (presence, seen) = (presence.clone(), *seen);
                self.read(presence, seen, now);
            }
            CardState::NotIdentified { presence, .. } if undecided => {
                let presence = presence.clone();
                self.read(presence, now, now);
            }
            CardState::None
            | CardState::Mute { .. }
            | CardState::Reading { .. }
            | CardState::Identified { .. }
            | CardState::NotIdentified { .. } => {}
        }
    }

    /// Cards whose readers' drivers did not tell in time are left alone, unless they no longer have to
    /// tell.
    pub(in crate::engine) fn on_attributes_timeout(&mut self, now: Now) {
        let late = |slot: &TrackedReader| {
            matches!(slot.card, CardState::AwaitingAttributes { .. })
                && slot.attributes.deadline().is_some_and(|until| until <= now.mono)
        };
        for reader in self.tracker.readers_where(late) {
            self.identify_without_attributes(&reader, now);
        }
    }

    fn identify_without_attributes(&mut self, reader: &ReaderName, now: Now) {
        let Some(slot) = self.tracker.readers.get_mut(reader) else { return };
        let CardState::AwaitingAttributes { presence, seen } = &slot.card else { return };
        let (presence, seen) = (presence.clone(), *seen);
        if !slot.awaits_attributes(&self.policy.readers, reader) {
            self.read(presence, seen, now);
            return;
        }
        let why = NotIdentified::new(
            NotIdentifiedReason::ReadError,
            "the driver did not report vendor or serial number, which a [[reader]] rule matches on; another program may hold the card exclusively"
                .to_owned(),
        );
        let (place, atr) = (slot.place.clone(), presence.atr.clone());
        slot.card = CardState::NotIdentified { presence, why: why.clone() };
        self.audit_not_identified(reader, &place, Some(atr), &why, now);
    }
}
