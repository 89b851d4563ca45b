//! Which of a request's two links to a card counts.

use super::*;

/// A request of this type that links these two cards; 0 is CM's all-zero link.
fn linking(kind: i64, old: u8, new: u8) -> CmRequest {
    let link = |card: u8| (card != 0).then(|| record_id(card));
    CmRequest { old_card: link(old), new_card: link(new), ..request(1, kind, 1, DAY1) }
}

/// Rules of which each sets one status for every type.
fn rules_that_set(name: &str, number: i64) -> RuleSet {
    let mut rules = rules();
    rules.rules.truncate(1);
    rules.rules[0].request_types = (0..40).map(RequestType::new).collect();
    rules.rules[0].set_status = (name.to_owned(), CardStatus::new(number));
    rules
}

fn acts(rules: &RuleSet, kind: i64, (old, new): (u8, u8)) -> bool {
    let found = found(vec![record(1, 1)], vec![linking(kind, old, new)]);
    match verdict(rules, &found) {
        Evaluation::Set { decision, .. } | Evaluation::AlreadySet { decision } => {
            assert_eq!(decision.record, record_id(1));
            true
        }
        Evaluation::NothingToDo { .. } => false,
        other @ (Evaluation::UnknownCard { .. } | Evaluation::Park { .. }) => panic!("{other:?}"),
    }
}

const LINKS: [(u8, u8); 6] = [(1, 0), (1, 1), (1, 9), (0, 1), (9, 1), (0, 0)];

#[test]
fn retire_and_disable_count_only_for_the_old_card() {
    for kind in [7, 4] {
        let acting = LINKS.map(|links| acts(&rules(), kind, links));
        assert_eq!(acting, [true, true, true, false, false, false], "type {kind}");
    }
}

#[test]
fn a_status_that_ends_a_cards_use_is_set_only_on_the_old_card_whatever_the_type() {
    for (name, number) in [("Retired", 6), ("Disabled", 3), ("Suspended", 5), ("Lost", 77)] {
        let rules = rules_that_set(name, number);
        for kind in 0..40 {
            let acting = LINKS.map(|links| acts(&rules, kind, links));
            assert_eq!(acting, [true, true, true, false, false, false], "{name}, type {kind}");
        }
    }
}

#[test]
fn a_status_of_a_card_in_use_is_set_on_the_card_that_the_type_is_about() {
    let rules = rules_that_set("Active", 2);
    let acting = |kind| LINKS.map(|links| acts(&rules, kind, links));
    for old_card in [4, 5, 7, 9, 10] {
        assert_eq!(acting(old_card), [true, true, true, false, false, false], "type {old_card}");
    }
    for two_cards in [1, 2, 3, 6, 8, 11] {
        assert_eq!(acting(two_cards), [false, true, false, true, true, false], "type {two_cards}");
    }
    for unknown in [0, 12, 39] {
        assert_eq!(acting(unknown), [true, true, false, true, true, false], "type {unknown}");
    }
}

#[test]
fn the_name_that_a_site_gives_a_number_says_what_the_type_is_about() {
    let mut rules = rules_that_set("Active", 2);
    assert!(acts(&rules, 30, (9, 1)));
    rules.numbers.request_type.set("temporarycardretire", 30);
    assert!(!acts(&rules, 30, (9, 1)));
}

#[test]
fn a_request_that_does_not_count_makes_no_second_record_ambiguous() {
    let stray = CmRequest { id: request_id(2), ..linking(7, 9, 2) };
    let found = found(vec![record(1, 2), record(2, 2)], vec![linking(7, 1, 0), stray]);
    assert_eq!(decision(verdict(&rules(), &found)).record, record_id(1));
}

#[test]
fn why_a_request_does_not_count_is_explained() {
    let replaced = found(vec![record(1, 2)], vec![linking(7, 9, 1)]);
    assert_snapshot!(put_in(&rules(), &replaced), @"
    retire: not applied: request b105403d-d021-41ea-9f11-be3d67000001 (Retire) names record 17cf063d-e337-4aa9-a822-346554000001 only as NewSmartcardUuid; what counts is OldSmartcardUuid, which names 17cf063d-e337-4aa9-a822-346554000009
    disable: not applied: the rule matches request type Disable, the open request is Retire
    ");
    let Evaluation::NothingToDo { detail: why } = verdict(&rules(), &replaced) else { panic!() };
    assert_snapshot!(why, @"request b105403d-d021-41ea-9f11-be3d67000001 (Retire) names record 17cf063d-e337-4aa9-a822-346554000001 only as NewSmartcardUuid; what counts is OldSmartcardUuid, which names 17cf063d-e337-4aa9-a822-346554000009");
    let unlinked = found(vec![record(1, 2)], vec![linking(4, 0, 1)]);
    assert_snapshot!(put_in(&rules(), &unlinked), @"
    retire: not applied: the rule matches request type Retire, the open request is Disable
    disable: not applied: request b105403d-d021-41ea-9f11-be3d67000001 (Disable) names record 17cf063d-e337-4aa9-a822-346554000001 only as NewSmartcardUuid; what counts is OldSmartcardUuid, which names no card
    ");
}
