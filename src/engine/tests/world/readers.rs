//! The readers of a world: cards come and go, seen by the daemon or not.

use super::cm::ATR;
use super::{Seat, World};
use crate::domain::{
    CardView, InsertedCard, InsertionId, PcscdInstance, ReaderEvent, ReaderName, Removal, Trigger,
};

impl World {
    pub(in crate::engine) fn insert(&mut self, reader: &str, card: u8) {
        self.remove(reader);
        self.insert_unseen(reader, card);
        self.present(&reader.into(), false);
    }

    pub(in crate::engine) fn remove(&mut self, reader: &str) {
        let insertion = self.seat(reader).insertion;
        self.remove_unseen(reader);
        if let Some(insertion) = insertion {
            self.note_removal(reader);
            let how = Removal::Observed;
            self.handle(ReaderEvent::CardRemoved {
                reader: reader.into(),
                insertion,
                removal: how,
            });
        }
    }

    /// The stay that is in a reader.
    pub(in crate::engine) fn insertion_in(&mut self, reader: &str) -> InsertionId {
        self.seat(reader).insertion.unwrap()
    }

    /// Inserts a card unseen.
    pub(in crate::engine) fn insert_unseen(&mut self, reader: &str, card: u8) {
        self.remove_unseen(reader);
        self.counted += 1;
        let count = self.counted;
        let seat = self.seat(reader);
        seat.card = Some(card);
        seat.count = count;
    }

    /// Removes a card unseen.
    pub(in crate::engine) fn remove_unseen(&mut self, reader: &str) {
        let seat = self.seat(reader);
        seat.card = None;
        seat.insertion = None;
    }

    /// Reports the card that is in a reader.
    pub(in crate::engine) fn come(&mut self, reader: &str, at_start: bool) {
        self.present(&reader.into(), at_start);
    }

    /// Reports a card that came without the one before it having been seen to go.
    pub(in crate::engine) fn swap_in_one_look(&mut self, reader: &str, card: u8) {
        self.insert_unseen(reader, card);
        self.note_removal(reader);
        self.present(&reader.into(), false);
    }

    /// A card that is shown as identified is about to be reported as removed.
    fn note_removal(&mut self, reader: &str) {
        let views = self.engine.reader_views();
        let shown = views.iter().find(|view| view.reader.as_str() == reader);
        let identified = shown.is_some_and(|view| matches!(view.card, CardView::Identified { .. }));
        let listens = self.policy.rules.has_rules_for(Trigger::Removed);
        self.removals_due += usize::from(identified && listens);
    }

    /// A reader is pulled with the card that is in it, and comes back with it.
    pub(in crate::engine) fn replug(&mut self, reader: &str) {
        let reader = ReaderName::from(reader);
        self.handle(ReaderEvent::ReaderDetached { reader: reader.clone() });
        self.attach(&reader);
    }

    /// The PC/SC service is started again: its event counters begin at 0.
    pub(in crate::engine) fn restart_service(&mut self) {
        self.handle(ReaderEvent::PcscdUnavailable { reason: "stopped".to_owned() });
        self.replace_service();
        self.announce();
    }

    /// Another run of the PC/SC service, unseen.
    pub(in crate::engine) fn replace_service(&mut self) {
        self.instance += 1;
        for seat in self.seats.values_mut() {
            seat.count = 0;
        }
    }

    /// Has the service count as many insertions and removals in a reader.
    pub(in crate::engine) fn set_count(&mut self, reader: &str, count: u32) {
        self.seat(reader).count = count;
    }

    fn seat(&mut self, reader: &str) -> &mut Seat {
        self.seats.get_mut(&ReaderName::from(reader)).unwrap()
    }

    fn present(&mut self, reader: &ReaderName, at_start: bool) {
        self.last_insertion = self.last_insertion.next();
        let insertion = self.last_insertion;
        let seat = self.seats.get_mut(reader).unwrap();
        seat.insertion = Some(insertion);
        let event_count = seat.count;
        let atr = ATR.parse().unwrap();
        let presence =
            InsertedCard { reader: reader.clone(), insertion, atr, event_count, at_start };
        self.handle(ReaderEvent::CardInserted(presence));
    }

    pub(super) fn announce(&mut self) {
        self.handle(ReaderEvent::PcscdConnected);
        let readers: Vec<_> = self.seats.keys().cloned().collect();
        for reader in readers {
            self.attach(&reader);
        }
        self.handle(ReaderEvent::InitialScanDone);
    }

    fn attach(&mut self, reader: &ReaderName) {
        let instance = (!self.uncertain).then(|| PcscdInstance::new(self.instance.to_string()));
        self.handle(ReaderEvent::ReaderAttached { reader: reader.clone(), instance });
        if self.seats[reader].card.is_some() {
            self.present(reader, true);
        }
    }
}
