//! One reader, the card in it, and what is known of both.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::flapping::{FlappingCards, HeldCard};
use crate::domain::{
    Atr, CardIdentity, CardView, EntryId, InsertedCard, InsertionId, NotIdentified,
    NotIdentifiedReason, PcscdInstance, ReaderAttributes, ReaderName, ReaderRules, ReaderSettings,
    ReaderView,
};
use crate::engine::interface::Now;

/// When a card in use is retried; twice as long each time, up to the maximum.
const MIN_RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_mins(1);

/// Which part of that wait remains when the other program releases the card: one that comes and goes
/// all the time must not cause as many probes.
const QUIET_PART: u32 = 5;

#[derive(Debug)]
pub(super) struct TrackedReader {
    pub(super) settings: ReaderSettings,
    pub(super) attributes: AttributesState,
    /// What the reader is watched through, where that is certain.
    pub(super) instance: Option<PcscdInstance>,
    pub(super) since: Timestamp,
    pub(super) card: CardState,
    /// A card that was removed just now, and may turn out not to have been.
    pub(super) pending_removal: Option<PendingRemoval>,
    /// The card in the reader was in use, or one before it.
    pub(super) in_use_retry: Option<InUseRetry>,
    pub(super) flapping: FlappingCards,
    /// The card in the reader makes its entry later, because it came too often.
    pub(super) held: Option<HeldCard>,
}

#[derive(Debug)]
pub(super) enum AttributesState {
    Pending { until: Instant },
    Known(ReaderAttributes),
}

#[derive(Debug)]
pub(super) enum CardState {
    None,
    Mute(InsertionId),
    /// The reader's settings depend on its attributes, which are not known yet.
    AwaitingAttributes {
        card: InsertedCard,
        seen: Now,
    },
    /// `known` is the identity once it is read; the inventory may follow.
    Reading {
        card: InsertedCard,
        seen: Now,
        deadline: Instant,
        known: Option<Box<CardIdentity>>,
    },
    /// `first` is the insertion that made the entry, before any debounced removal.
    Identified {
        card: InsertedCard,
        identity: CardIdentity,
        entry: Option<EntryId>,
        first: InsertionId,
    },
    NotIdentified {
        card: InsertedCard,
        error: NotIdentified,
    },
}

/// A card that was removed just now.
#[derive(Debug)]
pub(super) struct PendingRemoval {
    /// As it was: being read, or identified.
    pub(super) card: CardState,
    pub(super) since: Timestamp,
    pub(super) removed_at: Now,
    pub(super) until: Instant,
}

/// A card that another program uses.
#[derive(Debug)]
pub(super) struct InUseRetry {
    insertion: InsertionId,
    error: NotIdentified,
    pause: Duration,
    tried: Instant,
    at: Instant,
    /// Until when the result is waited for, while a card that is known in part is read again.
    pub(super) reading_until: Option<Instant>,
}

impl CardState {
    pub(super) fn insertion(&self) -> Option<InsertionId> {
        if let Self::Mute(insertion) = self {
            return Some(*insertion);
        }
        self.card().map(|card| card.insertion)
    }

    pub(super) const fn card(&self) -> Option<&InsertedCard> {
        match self {
            Self::None | Self::Mute(_) => None,
            Self::AwaitingAttributes { card, .. }
            | Self::Reading { card, .. }
            | Self::Identified { card, .. }
            | Self::NotIdentified { card, .. } => Some(card),
        }
    }

    fn view(&self) -> CardView {
        match self {
            Self::None => CardView::Empty,
            Self::Mute(_) => CardView::Mute,
            Self::AwaitingAttributes { card, .. } | Self::Reading { card, .. } => {
                CardView::Reading { atr: card.atr.clone() }
            }
            Self::Identified { card, identity, entry, .. } => CardView::Identified {
                atr: card.atr.clone(),
                identity: identity.clone(),
                entry: *entry,
            },
            Self::NotIdentified { card, error } => {
                CardView::NotIdentified { atr: card.atr.clone(), error: error.clone() }
            }
        }
    }
}

impl TrackedReader {
    pub(super) fn new(
        settings: ReaderSettings,
        instance: Option<PcscdInstance>,
        since: Timestamp,
        attributes_until: Instant,
    ) -> Self {
        Self {
            settings,
            attributes: AttributesState::Pending { until: attributes_until },
            instance,
            since,
            card: CardState::None,
            pending_removal: None,
            in_use_retry: None,
            flapping: FlappingCards::default(),
            held: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.card {
            CardState::None => self.removal_due_at(),
            CardState::Mute(_) => None,
            CardState::AwaitingAttributes { .. } => self.attributes_due_at(),
            CardState::Reading { deadline, .. } => Some(deadline),
            CardState::Identified { .. } => {
                self.retry_at().into_iter().chain(self.held_until()).min()
            }
            CardState::NotIdentified { .. } => self.retry_at(),
        }
    }

    pub(super) fn view(&self, reader: &ReaderName) -> ReaderView {
        ReaderView {
            reader: reader.clone(),
            settings: self.settings.clone(),
            attributes: self.attributes(),
            since: self.since,
            card: self.card_view(),
        }
    }

    /// A card that may be back in a moment is still shown, and so is one in use while it is retried.
    fn card_view(&self) -> CardView {
        let shown = match (&self.card, &self.pending_removal) {
            (CardState::None, Some(pending)) => &pending.card,
            (card, _) => card,
        };
        if let CardState::Reading { card, .. } = &self.card
            && let Some(error) = self.in_use_error(card.insertion)
        {
            return CardView::NotIdentified { atr: card.atr.clone(), error: error.clone() };
        }
        shown.view()
    }

    /// What is known by now.
    pub(super) fn attributes(&self) -> ReaderAttributes {
        match &self.attributes {
            AttributesState::Pending { .. } => ReaderAttributes::default(),
            AttributesState::Known(attributes) => attributes.clone(),
        }
    }

    pub(super) const fn attributes_due_at(&self) -> Option<Instant> {
        match self.attributes {
            AttributesState::Pending { until } => Some(until),
            AttributesState::Known(_) => None,
        }
    }

    /// Whether the reader's settings are not known yet.
    pub(super) fn awaits_attributes(&self, rules: &ReaderRules, reader: &ReaderName) -> bool {
        self.attributes_due_at().is_some() && rules.need_attributes_of(reader)
    }

    pub(super) fn removal_due_at(&self) -> Option<Instant> {
        self.pending_removal.as_ref().map(|pending| pending.until)
    }

    /// Whether a card with this ATR may be the one that was removed just now.
    pub(super) fn may_be_back(&self, atr: &Atr) -> bool {
        let pending = self.pending_removal.as_ref().and_then(|pending| pending.card.card());
        pending.is_some_and(|card| card.atr == *atr)
    }

    pub(super) fn is_partial(&self) -> bool {
        matches!(&self.card, CardState::Identified { identity, .. } if identity.partial)
    }

    /// Notes the entry that an insertion made.
    pub(super) fn set_entry(&mut self, insertion: InsertionId, id: EntryId) {
        let pending = self.pending_removal.as_mut().map(|pending| &mut pending.card);
        for card in [Some(&mut self.card), pending].into_iter().flatten() {
            if let CardState::Identified { entry, first, .. } = card
                && *first == insertion
            {
                *entry = Some(id);
            }
        }
    }

    /// What was reported of the card of this insertion when it was in use.
    pub(super) fn in_use_error(&self, insertion: InsertionId) -> Option<&NotIdentified> {
        let retry = self.in_use_retry.as_ref().filter(|retry| retry.insertion == insertion);
        retry.map(|retry| &retry.error)
    }

    /// The retry of the card in the reader, if it is to be read again.
    pub(super) fn current_retry(&self) -> Option<&InUseRetry> {
        let insertion = self.card.insertion()?;
        let is_unfinished =
            matches!(self.card, CardState::NotIdentified { .. }) || self.is_partial();
        self.in_use_retry.as_ref().filter(|retry| is_unfinished && retry.insertion == insertion)
    }

    /// When the card in the reader is retried, or its retry given up.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.current_retry().map(|retry| retry.reading_until.unwrap_or(retry.at))
    }

    /// Whether the card of this entry is known in part, and may still be read in full.
    pub(super) fn may_complete(&self, id: EntryId) -> bool {
        matches!(&self.card, CardState::Identified { entry: Some(entry), .. } if *entry == id)
            && self.current_retry().is_some()
    }

    /// Schedules the retry of a card, if it is in use. Returns whether that was reported already.
    pub(super) fn schedule_retry(
        &mut self,
        insertion: InsertionId,
        error: &NotIdentified,
        now: Now,
    ) -> bool {
        let before = self.in_use_retry.take().filter(|retry| retry.insertion == insertion);
        if error.reason != NotIdentifiedReason::InUse {
            return false;
        }
        let pause = before.as_ref().map_or(MIN_RETRY, |retry| (retry.pause * 2).min(MAX_RETRY));
        self.in_use_retry = Some(InUseRetry {
            insertion,
            error: error.clone(),
            pause,
            tried: now.mono,
            at: now.mono + pause,
            reading_until: None,
        });
        before.is_some()
    }

    /// Schedules another read of a card that was identified in part.
    pub(super) fn complete_later(&mut self, insertion: InsertionId, now: Now) {
        let detail = "another program uses the card, which could only be read in part".to_owned();
        let error = NotIdentified::new(NotIdentifiedReason::InUse, detail);
        self.schedule_retry(insertion, &error, now);
    }

    /// The other program released the card.
    pub(super) fn on_card_released(&mut self, now: Now) {
        if let Some(retry) = &mut self.in_use_retry {
            let soonest = (retry.tried + retry.pause / QUIET_PART).max(now.mono);
            retry.at = retry.at.min(soonest);
        }
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    /// The insertion of a card ends. Returns its ATR, and for how long it had to lie still, where it
    /// was held.
    pub(super) fn take_held(&mut self, card: &CardState) -> Option<(Atr, Duration)> {
        let CardState::Identified { card, first, .. } = card else { return None };
        let held = self.held.take_if(|held| held.insertion == *first)?;
        Some((card.atr.clone(), held.pause))
    }
}
