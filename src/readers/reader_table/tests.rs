//! The events of each change at a reader.

use proptest::prelude::*;

use super::*;

const A: &str = "3b8d0180fba000000397425446590301c8";
const B: &str = "3b8d0180fba000000397425446590401cf";

fn card(atr: &str) -> CardPresence {
    CardPresence::Present(atr.parse().unwrap())
}

/// A table with one reader. Its events as text: `+` for an insertion, `!` for a mute card, `-` for a
/// removal, each with its number; `*` after a card that was present at the start, `?` after an inferred
/// removal.
struct SingleReader(ReaderTable);

impl SingleReader {
    fn new() -> Self {
        Self(ReaderTable::new())
    }

    /// /// A table after one poll.
    fn with(occupant: CardPresence, event_count: u32) -> Self {
        let mut table = Self::new();
        table.see(occupant, event_count);
        table
    }

    fn see(&mut self, occupant: CardPresence, event_count: u32) -> String {
        let reader = ReaderName::from("R");
        let snapshot = ReaderSnapshot { reader: reader.clone(), occupant, event_count };
        as_text(&self.0.update(&[reader], vec![snapshot]))
    }

    fn doubt(&mut self) {
        self.0.doubt();
    }

    fn unplug(&mut self) -> String {
        as_text(&self.0.update(&[], Vec::new()))
    }
}

fn as_text(events: &[ReaderEvent]) -> String {
    let texts: Vec<String> = events
        .iter()
        .map(|event| match event {
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
            | ReaderEvent::ProbeFinished { .. } => panic!("{event:?}"),
        })
        .collect();
    texts.join(" ")
}

#[test]
fn card_is_inserted_and_removed() {
    let mut table = SingleReader::with(CardPresence::Empty, 0);
    assert_eq!(table.see(card(A), 1), "+1");
    assert_eq!(table.see(card(A), 1), "");
    assert_eq!(table.see(CardPresence::Empty, 2), "-1");
    assert_eq!(table.see(card(A), 3), "+2");
}

#[test]
fn card_present_at_start_is_marked() {
    assert_eq!(SingleReader::new().see(card(A), 0), "attached +1*");
    assert_eq!(SingleReader::new().see(CardPresence::Mute, 0), "attached !1");
    assert_eq!(SingleReader::new().see(CardPresence::Empty, 0), "attached");
    assert_eq!(SingleReader::new().see(CardPresence::Unknown, 0), "attached");
}

#[test]
fn swap_with_same_atr_is_two_insertions() {
    assert_eq!(SingleReader::with(card(A), 1).see(card(A), 3), "-1 +2");
}

#[test]
fn swap_with_other_atr_is_two_insertions() {
    assert_eq!(SingleReader::with(card(A), 1).see(card(B), 3), "-1 +2");
}

#[test]
fn swap_of_uncounted_card_is_two_insertions() {
    assert_eq!(SingleReader::with(card(A), 0).see(card(A), 2), "-1 +2");
}

#[test]
fn changed_atr_without_event_ends_insertion() {
    assert_eq!(SingleReader::with(card(A), 0).see(card(B), 0), "-1? +2");
}

#[test]
fn swaps_between_two_polls_are_one() {
    assert_eq!(SingleReader::with(card(A), 1).see(card(A), 9), "-1 +2");
}

#[test]
fn restarted_count_ends_insertion() {
    assert_eq!(SingleReader::with(card(A), 5).see(card(A), 0), "-1? +2");
}

#[test]
fn wrapped_count_is_counted() {
    assert_eq!(SingleReader::with(card(A), 0xFFFF).see(CardPresence::Empty, 0), "-1");
    assert_eq!(SingleReader::with(card(A), 0xFFFF).see(card(A), 1), "-1 +2");
}

#[test]
fn card_between_two_polls_is_no_insertion() {
    assert_eq!(SingleReader::with(CardPresence::Empty, 0).see(CardPresence::Empty, 2), "");
}

#[test]
fn second_card_between_two_polls_is_one_insertion() {
    assert_eq!(SingleReader::with(CardPresence::Empty, 0).see(card(A), 3), "+1");
}

#[test]
fn mute_card_is_one_insertion_until_removed() {
    let mut table = SingleReader::with(CardPresence::Empty, 0);
    assert_eq!(table.see(CardPresence::Mute, 1), "!1");
    assert_eq!(table.see(CardPresence::Mute, 1), "");
    assert_eq!(table.see(CardPresence::Empty, 2), "-1");
}

#[test]
fn turned_mute_card_is_new_insertion() {
    assert_eq!(SingleReader::with(CardPresence::Mute, 1).see(CardPresence::Mute, 3), "-1 !2");
    assert_eq!(SingleReader::with(CardPresence::Mute, 1).see(card(A), 3), "-1 +2");
}

#[test]
fn mute_card_that_answers_is_new_insertion() {
    assert_eq!(SingleReader::with(CardPresence::Mute, 1).see(card(A), 1), "-1? +2");
}

#[test]
fn card_that_becomes_mute_is_new_insertion() {
    assert_eq!(SingleReader::with(card(A), 1).see(CardPresence::Mute, 1), "-1? !2");
}

#[test]
fn reader_error_removes_card() {
    let mut table = SingleReader::with(card(A), 1);
    assert_eq!(table.see(CardPresence::Unknown, 0), "-1?");
    assert_eq!(table.see(CardPresence::Unknown, 0), "");
    assert_eq!(table.see(card(A), 2), "+2");
}

#[test]
fn empty_reader_after_error_emits_nothing() {
    let mut table = SingleReader::with(CardPresence::Unknown, 0);
    assert_eq!(table.see(CardPresence::Empty, 115), "");
}

#[test]
fn detached_reader_removes_card() {
    assert_eq!(SingleReader::with(card(A), 1).unplug(), "-1? detached");
    assert_eq!(SingleReader::with(CardPresence::Mute, 1).unplug(), "-1? detached");
    assert_eq!(SingleReader::with(CardPresence::Empty, 1).unplug(), "detached");
    assert_eq!(SingleReader::with(CardPresence::Unknown, 1).unplug(), "detached");
}

#[test]
fn reattached_reader_is_new() {
    let mut table = SingleReader::with(card(A), 1);
    table.unplug();
    assert_eq!(table.see(card(A), 1), "attached +2*");
}

#[test]
fn insertion_numbers_go_on_after_lost_pcscd() {
    let mut table = SingleReader::with(card(A), 1);
    table.0.clear();
    assert_eq!(table.see(card(A), 0), "attached +2*");
}

#[test]
fn readers_are_independent() {
    let (first, second) = (ReaderName::from("1"), ReaderName::from("2"));
    let there = [first.clone(), second.clone()];
    let snapshot = |reader: &ReaderName, occupant, event_count| ReaderSnapshot {
        reader: reader.clone(),
        occupant,
        event_count,
    };
    let mut table = ReaderTable::new();
    let both = vec![snapshot(&first, card(A), 1), snapshot(&second, CardPresence::Empty, 0)];
    assert_eq!(as_text(&table.update(&there, both)), "attached +1* attached");
    let swapped = vec![snapshot(&first, CardPresence::Empty, 2), snapshot(&second, card(A), 1)];
    assert_eq!(as_text(&table.update(&there, swapped)), "-1 +2");
}

#[test]
fn unpolled_reader_is_unchanged() {
    let reader = ReaderName::from("R");
    let mut table = SingleReader::with(CardPresence::Mute, 1);
    assert_eq!(as_text(&table.0.update(std::slice::from_ref(&reader), Vec::new())), "");
    let snapshot =
        ReaderSnapshot { reader: reader.clone(), occupant: CardPresence::Mute, event_count: 1 };
    assert_eq!(as_text(&table.0.update(&[reader], vec![snapshot])), "");
}

#[test]
fn polling_is_for_reader_errors_and_uncounted_cards() {
    assert!(SingleReader::with(CardPresence::Unknown, 0).0.needs_polling());
    assert!(SingleReader::with(card(A), 0).0.needs_polling());
    assert!(!SingleReader::with(card(A), 1).0.needs_polling());
    assert!(!SingleReader::with(CardPresence::Empty, 0).0.needs_polling());
    assert!(!SingleReader::with(CardPresence::Mute, 0).0.needs_polling());
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
    fn insertions_alternate_with_their_removals(
        polls in prop::collection::vec((occupant(), 0_u32..4, any::<bool>()), 1..40),
    ) {
        let mut table = SingleReader::new();
        let mut present: Option<String> = None;
        for (occupant, event_count, unplugged) in polls {
            let events = if unplugged { table.unplug() } else { table.see(occupant.clone(), event_count) };
            for word in events.split_whitespace() {
                if let Some(number) = word.strip_prefix(['+', '!']) {
                    prop_assert_eq!(present.replace(number.trim_end_matches('*').to_owned()), None);
                } else if let Some(number) = word.strip_prefix('-') {
                    if unplugged || occupant == CardPresence::Unknown {
                        prop_assert!(number.ends_with('?'), "an inferred removal");
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
fn hidden_plug_event_renews_uncounted_insertion() {
    let mut table = SingleReader::with(card(A), 0);
    table.doubt();
    assert_eq!(table.see(card(A), 0), "-1? +2*");
    assert_eq!(table.see(card(A), 0), "", "once");
    let mut counted = SingleReader::with(card(A), 3);
    counted.doubt();
    assert_eq!(counted.see(card(A), 3), "");
    let mut empty = SingleReader::with(CardPresence::Empty, 0);
    empty.doubt();
    assert_eq!(empty.see(CardPresence::Empty, 0), "");
    assert_eq!(empty.see(card(B), 1), "+1");
}
