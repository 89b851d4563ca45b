//! What each change at a reader is told as.

use proptest::prelude::*;

use super::*;

const A: &str = "3b8d0180fba000000397425446590301c8";
const B: &str = "3b8d0180fba000000397425446590401cf";

fn card(atr: &str) -> CardPresence {
    CardPresence::Present(atr.parse().unwrap())
}

/// Shows a table one reader, and tells what it makes of that: `+` for an insertion, `!` for a mute
/// card, `-` for a removal, each with its number, `*` after a card that was there at the start, `?` after
/// a removal that may be none: nobody saw the card being taken out.
struct Desk(ReaderTable);

impl Desk {
    fn new() -> Self {
        Self(ReaderTable::new())
    }

    /// A desk that has seen this much.
    fn with(occupant: CardPresence, event_count: u32) -> Self {
        let mut desk = Self::new();
        desk.see(occupant, event_count);
        desk
    }

    fn see(&mut self, occupant: CardPresence, event_count: u32) -> String {
        let reader = ReaderName::from("R");
        let look = ReaderSnapshot { reader: reader.clone(), occupant, event_count };
        tell(&self.0.update(&[reader], vec![look]))
    }

    fn doubt(&mut self) {
        self.0.doubt();
    }

    fn unplug(&mut self) -> String {
        tell(&self.0.update(&[], Vec::new()))
    }
}

fn tell(observations: &[ReaderEvent]) -> String {
    let words: Vec<String> = observations
        .iter()
        .map(|observation| match observation {
            ReaderEvent::ReaderAttached { .. } => "attached".to_owned(),
            ReaderEvent::ReaderDetached { .. } => "detached".to_owned(),
            ReaderEvent::CardInserted(InsertedCard { insertion, at_start, .. }) => {
                format!("+{insertion}{}", if *at_start { "*" } else { "" })
            }
            ReaderEvent::CardMute { insertion, .. } => format!("!{insertion}"),
            ReaderEvent::CardRemoved { insertion, removal: how, .. } => {
                format!("-{insertion}{}", if *how == Removal::Observed { "" } else { "?" })
            }
            ReaderEvent::PcscdConnected
            | ReaderEvent::PcscdUnavailable { .. }
            | ReaderEvent::AttributesRead { .. }
            | ReaderEvent::InitialScanDone
            | ReaderEvent::Identified { .. }
            | ReaderEvent::CardReleased { .. }
            | ReaderEvent::ProbeFinished { .. } => panic!("{observation:?}"),
        })
        .collect();
    words.join(" ")
}

#[test]
fn a_card_comes_and_goes() {
    let mut desk = Desk::with(CardPresence::Empty, 0);
    assert_eq!(desk.see(card(A), 1), "+1");
    assert_eq!(desk.see(card(A), 1), "");
    assert_eq!(desk.see(CardPresence::Empty, 2), "-1");
    assert_eq!(desk.see(card(A), 3), "+2");
}

#[test]
fn a_card_that_was_there_first_is_told_so() {
    assert_eq!(Desk::new().see(card(A), 0), "attached +1*");
    assert_eq!(Desk::new().see(CardPresence::Mute, 0), "attached !1");
    assert_eq!(Desk::new().see(CardPresence::Empty, 0), "attached");
    assert_eq!(Desk::new().see(CardPresence::Unknown, 0), "attached");
}

#[test]
fn a_swap_for_a_card_of_the_same_kind_is_two_insertions() {
    assert_eq!(Desk::with(card(A), 1).see(card(A), 3), "-1 +2");
}

#[test]
fn a_swap_for_a_card_of_another_kind_is_two_insertions() {
    assert_eq!(Desk::with(card(A), 1).see(card(B), 3), "-1 +2");
}

#[test]
fn a_card_that_was_there_before_pcscd_and_is_swapped_is_two_insertions() {
    assert_eq!(Desk::with(card(A), 0).see(card(A), 2), "-1 +2");
}

#[test]
fn an_atr_that_changes_without_an_event_ends_the_stay() {
    assert_eq!(Desk::with(card(A), 0).see(card(B), 0), "-1? +2");
}

#[test]
fn several_swaps_between_two_looks_are_one() {
    assert_eq!(Desk::with(card(A), 1).see(card(A), 9), "-1 +2");
}

#[test]
fn a_count_that_began_again_ends_the_stay() {
    assert_eq!(Desk::with(card(A), 5).see(card(A), 0), "-1? +2");
}

#[test]
fn a_count_that_wraps_is_still_counted() {
    assert_eq!(Desk::with(card(A), 0xFFFF).see(CardPresence::Empty, 0), "-1");
    assert_eq!(Desk::with(card(A), 0xFFFF).see(card(A), 1), "-1 +2");
}

#[test]
fn a_card_that_came_and_went_between_two_looks_is_no_insertion() {
    assert_eq!(Desk::with(CardPresence::Empty, 0).see(CardPresence::Empty, 2), "");
}

#[test]
fn a_card_that_came_after_another_came_and_went_is_one_insertion() {
    assert_eq!(Desk::with(CardPresence::Empty, 0).see(card(A), 3), "+1");
}

#[test]
fn a_mute_card_stays_until_it_goes() {
    let mut desk = Desk::with(CardPresence::Empty, 0);
    assert_eq!(desk.see(CardPresence::Mute, 1), "!1");
    assert_eq!(desk.see(CardPresence::Mute, 1), "");
    assert_eq!(desk.see(CardPresence::Empty, 2), "-1");
}

#[test]
fn a_mute_card_turned_round_is_another_stay() {
    assert_eq!(Desk::with(CardPresence::Mute, 1).see(CardPresence::Mute, 3), "-1 !2");
    assert_eq!(Desk::with(CardPresence::Mute, 1).see(card(A), 3), "-1 +2");
}

#[test]
fn a_mute_card_that_somebody_got_to_answer_is_another_stay() {
    assert_eq!(Desk::with(CardPresence::Mute, 1).see(card(A), 1), "-1? +2");
}

#[test]
fn a_card_that_falls_silent_is_another_stay() {
    assert_eq!(Desk::with(card(A), 1).see(CardPresence::Mute, 1), "-1? !2");
}

#[test]
fn a_reader_in_trouble_has_lost_its_card() {
    let mut desk = Desk::with(card(A), 1);
    assert_eq!(desk.see(CardPresence::Unknown, 0), "-1?");
    assert_eq!(desk.see(CardPresence::Unknown, 0), "");
    assert_eq!(desk.see(card(A), 2), "+2");
}

#[test]
fn a_reader_that_recovers_empty_tells_nothing() {
    let mut desk = Desk::with(CardPresence::Unknown, 0);
    assert_eq!(desk.see(CardPresence::Empty, 115), "");
}

#[test]
fn a_reader_goes_with_its_card() {
    assert_eq!(Desk::with(card(A), 1).unplug(), "-1? detached");
    assert_eq!(Desk::with(CardPresence::Mute, 1).unplug(), "-1? detached");
    assert_eq!(Desk::with(CardPresence::Empty, 1).unplug(), "detached");
    assert_eq!(Desk::with(CardPresence::Unknown, 1).unplug(), "detached");
}

#[test]
fn a_reader_that_comes_back_is_new() {
    let mut desk = Desk::with(card(A), 1);
    desk.unplug();
    assert_eq!(desk.see(card(A), 1), "attached +2*");
}

#[test]
fn insertions_are_numbered_on_after_the_service_was_lost() {
    let mut desk = Desk::with(card(A), 1);
    desk.0.clear();
    assert_eq!(desk.see(card(A), 0), "attached +2*");
}

#[test]
fn readers_do_not_mix() {
    let (first, second) = (ReaderName::from("1"), ReaderName::from("2"));
    let there = [first.clone(), second.clone()];
    let look = |reader: &ReaderName, occupant, event_count| ReaderSnapshot {
        reader: reader.clone(),
        occupant,
        event_count,
    };
    let mut table = ReaderTable::new();
    let both = vec![look(&first, card(A), 1), look(&second, CardPresence::Empty, 0)];
    assert_eq!(tell(&table.update(&there, both)), "attached +1* attached");
    let swapped = vec![look(&first, CardPresence::Empty, 2), look(&second, card(A), 1)];
    assert_eq!(tell(&table.update(&there, swapped)), "-1 +2");
}

#[test]
fn a_reader_that_was_not_looked_at_is_as_it_was() {
    let reader = ReaderName::from("R");
    let mut desk = Desk::with(CardPresence::Mute, 1);
    assert_eq!(tell(&desk.0.update(std::slice::from_ref(&reader), Vec::new())), "");
    let look =
        ReaderSnapshot { reader: reader.clone(), occupant: CardPresence::Mute, event_count: 1 };
    assert_eq!(tell(&desk.0.update(&[reader], vec![look])), "");
}

#[test]
fn blind_spots_are_troubled_readers_and_cards_without_an_event() {
    assert!(Desk::with(CardPresence::Unknown, 0).0.needs_polling());
    assert!(Desk::with(card(A), 0).0.needs_polling());
    assert!(!Desk::with(card(A), 1).0.needs_polling());
    assert!(!Desk::with(CardPresence::Empty, 0).0.needs_polling());
    assert!(!Desk::with(CardPresence::Mute, 0).0.needs_polling());
    assert!(!ReaderTable::new().needs_polling());
}

fn occupant() -> impl Strategy<Value = CardPresence> {
    prop_oneof![
        Just(CardPresence::Empty),
        Just(CardPresence::Mute),
        Just(CardPresence::Unknown),
        Just(card(A)),
        Just(card(B)),
    ]
}

proptest! {
    #[test]
    fn stays_alternate_with_their_own_removals_whatever_is_seen(
        looks in prop::collection::vec((occupant(), 0_u32..4, any::<bool>()), 1..40),
    ) {
        let mut desk = Desk::new();
        let mut present: Option<String> = None;
        for (occupant, event_count, unplugged) in looks {
            let told = if unplugged { desk.unplug() } else { desk.see(occupant.clone(), event_count) };
            for word in told.split_whitespace() {
                if let Some(number) = word.strip_prefix(['+', '!']) {
                    prop_assert_eq!(present.replace(number.trim_end_matches('*').to_owned()), None);
                } else if let Some(number) = word.strip_prefix('-') {
                    if unplugged || occupant == CardPresence::Unknown {
                        prop_assert!(number.ends_with('?'), "nobody saw it being taken out");
                    }
                    prop_assert_eq!(present.take(), Some(number.trim_end_matches('?').to_owned()));
                }
            }
            let occupied = !unplugged && matches!(occupant, CardPresence::Mute | CardPresence::Present(_));
            prop_assert_eq!(present.is_some(), occupied);
        }
    }
}

#[test]
fn a_card_at_count_0_is_another_stay_once_a_plug_was_hidden() {
    let mut desk = Desk::with(card(A), 0);
    desk.doubt();
    assert_eq!(desk.see(card(A), 0), "-1? +2*");
    assert_eq!(desk.see(card(A), 0), "", "once");
    let mut counted = Desk::with(card(A), 3);
    counted.doubt();
    assert_eq!(counted.see(card(A), 3), "");
    let mut empty = Desk::with(CardPresence::Empty, 0);
    empty.doubt();
    assert_eq!(empty.see(CardPresence::Empty, 0), "");
    assert_eq!(empty.see(card(B), 1), "+1");
}
