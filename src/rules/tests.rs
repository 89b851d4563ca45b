mod links;

use insta::assert_snapshot;

use super::*;
use crate::domain::{
    CmRequest, Family, IdRule, RecordId, RequestId, RequestStatus, Serial, Strength,
};

const ATR: &str = "3b8d0180fba000000397425446590301c8";
const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";
const SWAPPED: &str = "3ff188bc-ba83-3740-8262-46eba1291c6e";

fn candidate(text: &str, rule: IdRule) -> Candidate {
    Candidate::by_rule(text.parse().unwrap(), rule)
}

fn identity() -> CardIdentity {
    CardIdentity::new(
        Family::Gids,
        Serial::from_bytes(&[1]),
        candidate(CARD, IdRule::GidsCardid),
        vec![candidate(SWAPPED, IdRule::GidsCardidBe)],
    )
}

fn record(n: u8, status: i64) -> CardRecord {
    CardRecord {
        id: record_id(n),
        status: CardStatus::new(status),
        serial_number: format!("{{{CARD}}}"),
        middleware: "MSBaseCSP".to_owned(),
        atr: Some(ATR.parse().unwrap()),
        raw: Box::default(),
    }
}

fn record_id(n: u8) -> RecordId {
    format!("17cf063d-e337-4aa9-a822-3465540000{n:02x}").parse().unwrap()
}

fn request(n: u8, kind: i64, card: u8, submitted: &str) -> CmRequest {
    CmRequest {
        id: request_id(n),
        request_type: RequestType::new(kind),
        status: RequestStatus::new(3),
        old_card: Some(record_id(card)),
        new_card: None,
        submitted: submitted.parse().ok(),
    }
}

fn request_id(n: u8) -> RequestId {
    format!("b105403d-d021-41ea-9f11-be3d670000{n:02x}").parse().unwrap()
}

fn rules() -> RuleSet {
    let rule = |name: &str, kind, to: &str, number| Rule {
        name: name.to_owned(),
        on: Trigger::Inserted,
        request_types: vec![RequestType::new(kind)],
        set_status: (to.to_owned(), CardStatus::new(number)),
        card_status: vec![],
        reader_role: vec![],
        complete_request: false,
        pick: Pick::Oldest,
    };
    RuleSet {
        rules: vec![rule("retire", 7, "Retired", 6), rule("disable", 4, "Disabled", 3)],
        atr_mismatch: AtrMismatch::Warn,
        numbers: CmEnums::default(),
    }
}

fn found(records: Vec<CardRecord>, requests: Vec<CmRequest>) -> LookupResult {
    LookupResult { records: Some((candidate(CARD, IdRule::GidsCardid), records)), requests }
}

fn verdict(rules: &RuleSet, found: &LookupResult) -> Evaluation {
    let (atr, identity) = (ATR.parse().unwrap(), identity());
    evaluate(
        rules,
        &RuleInput {
            trigger: Trigger::Inserted,
            role: "desk",
            atr: Some(&atr),
            identity: &identity,
            found,
        },
    )
}

#[track_caller]
fn decision(verdict: Evaluation) -> Decision {
    match verdict {
        Evaluation::Set { decision, .. } | Evaluation::AlreadySet { decision } => decision,
        other @ (Evaluation::NothingToDo { .. }
        | Evaluation::UnknownCard { .. }
        | Evaluation::Park { .. }) => panic!("{other:?}"),
    }
}

const DAY1: &str = "2026-01-01T00:00:00Z";
const DAY2: &str = "2026-01-02T00:00:00Z";

#[test]
fn a_request_that_is_carried_out_hides_none_that_is_not() {
    let disabled = || vec![record(1, 3)];
    let both = vec![request(1, 4, 1, DAY1), request(2, 7, 1, DAY2)];
    let Evaluation::Set { decision, .. } = verdict(&rules(), &found(disabled(), both)) else {
        panic!("the older Disable request is carried out already")
    };
    assert_eq!((decision.request, decision.new_status_name.as_str()), (request_id(2), "Retired"));
    let one = vec![request(1, 4, 1, DAY1)];
    let Evaluation::AlreadySet { decision } = verdict(&rules(), &found(disabled(), one)) else {
        panic!("nothing else is wanted")
    };
    assert_eq!(decision.request, request_id(1));
}

#[test]
fn a_retire_request_retires_the_card() {
    let found = found(vec![record(1, 2)], vec![request(1, 7, 1, DAY1)]);
    let Evaluation::Set { decision, warning } = verdict(&rules(), &found) else { panic!() };
    assert_eq!(decision.record, record_id(1));
    assert_eq!(decision.request, request_id(1));
    assert_eq!(
        (decision.old_status, decision.new_status),
        (CardStatus::new(2), CardStatus::new(6))
    );
    assert_eq!(decision.new_status_name, "Retired");
    assert_eq!(decision.rule, "retire");
    assert_eq!(warning, None);
}

#[test]
fn a_status_that_is_set_is_not_set_again() {
    let found = found(vec![record(1, 6)], vec![request(1, 7, 1, DAY1)]);
    assert!(matches!(verdict(&rules(), &found), Evaluation::AlreadySet { .. }));
}

#[test]
fn a_request_that_no_rule_is_about_changes_nothing() {
    let found = found(vec![record(1, 2)], vec![request(1, 5, 1, DAY1)]);
    let Evaluation::NothingToDo { detail: why } = verdict(&rules(), &found) else { panic!() };
    assert!(why.contains("Unblock"), "{why}");
}

#[test]
fn a_request_for_another_card_changes_nothing() {
    let found = found(vec![record(1, 2)], vec![request(1, 7, 2, DAY1)]);
    assert!(matches!(verdict(&rules(), &found), Evaluation::NothingToDo { .. }));
}

#[test]
fn of_several_requests_the_oldest_counts() {
    let requests = vec![request(1, 4, 1, DAY2), request(2, 7, 1, DAY1)];
    let found = found(vec![record(1, 2)], requests);
    assert_eq!(decision(verdict(&rules(), &found)).request, request_id(2));
}

#[test]
fn a_request_without_a_time_comes_after_those_with_one_however_they_are_picked() {
    let requests = vec![request(1, 7, 1, "-"), request(2, 7, 1, DAY2), request(3, 7, 1, "-")];
    let dated = found(vec![record(1, 2)], requests.clone());
    let undated = found(vec![record(1, 2)], vec![requests[2].clone(), requests[0].clone()]);
    for pick in [Pick::Oldest, Pick::Newest] {
        let rules = picking(pick);
        assert_eq!(decision(verdict(&rules, &dated)).request, request_id(2), "{pick:?}");
        // Where none has a time, the id decides: the answer must not depend on CM's order.
        assert_eq!(decision(verdict(&rules, &undated)).request, request_id(1), "{pick:?}");
    }
}

/// The rules, the first of which picks so.
fn picking(pick: Pick) -> RuleSet {
    let mut rules = rules();
    rules.rules[0].pick = pick;
    rules
}

#[test]
fn a_rule_picks_among_the_requests_that_it_is_about() {
    let requests = vec![request(1, 7, 1, DAY2), request(2, 7, 1, DAY1), request(3, 7, 2, DAY1)];
    let found = found(vec![record(1, 2)], requests);
    for (pick, meant) in [(Pick::Oldest, 2), (Pick::Newest, 1)] {
        assert_eq!(
            decision(verdict(&picking(pick), &found)).request,
            request_id(meant),
            "{pick:?}"
        );
    }
    let Evaluation::Park { reason, detail: why } = verdict(&picking(Pick::Refuse), &found) else {
        panic!()
    };
    assert_eq!(reason, ParkReason::Ambiguous);
    for id in [request_id(1), request_id(2)] {
        assert!(why.contains(&id.to_string()), "{why}");
    }
}

#[test]
fn a_rule_that_refuses_to_pick_takes_the_only_request_of_its_types() {
    let requests = vec![request(1, 7, 1, DAY1), request(2, 5, 1, DAY2), request(3, 4, 1, DAY2)];
    let found = found(vec![record(1, 2)], requests);
    assert_eq!(decision(verdict(&picking(Pick::Refuse), &found)).request, request_id(1));
}

#[test]
fn the_oldest_request_says_which_rule_picks() {
    // The Disable request is older than both Retire requests: its rule acts, and picks it.
    let requests = vec![request(1, 7, 1, DAY2), request(2, 7, 1, DAY2), request(3, 4, 1, DAY1)];
    let found = found(vec![record(1, 2)], requests);
    for pick in [Pick::Oldest, Pick::Newest, Pick::Refuse] {
        assert_eq!(decision(verdict(&picking(pick), &found)).request, request_id(3), "{pick:?}");
    }
}

#[test]
fn of_several_records_the_one_that_a_request_names_is_meant() {
    let found = found(vec![record(1, 2), record(2, 2)], vec![request(1, 7, 2, DAY1)]);
    assert_eq!(decision(verdict(&rules(), &found)).record, record_id(2));
}

#[test]
fn two_records_that_requests_name_are_left_alone() {
    let requests = vec![request(1, 7, 1, DAY1), request(2, 7, 2, DAY1)];
    let found = found(vec![record(1, 2), record(2, 2)], requests);
    assert!(matches!(
        verdict(&rules(), &found),
        Evaluation::Park { reason: ParkReason::Ambiguous, .. }
    ));
}

#[test]
fn without_a_request_a_live_record_is_meant_before_a_retired_one() {
    let one = found(vec![record(1, 6), record(2, 2)], vec![]);
    let Evaluation::NothingToDo { detail: why } = verdict(&rules(), &one) else { panic!() };
    assert!(why.contains(&record_id(2).to_string()), "{why}");
    let two = found(vec![record(1, 2), record(2, 2)], vec![]);
    assert!(matches!(verdict(&rules(), &two), Evaluation::Park { .. }));
}

#[test]
fn a_second_choice_id_counts_only_with_the_cards_atr() {
    let mut known = record(1, 2);
    let second = |record: CardRecord| LookupResult {
        records: Some((candidate(SWAPPED, IdRule::GidsCardidBe), vec![record])),
        requests: vec![request(1, 7, 1, DAY1)],
    };
    assert!(matches!(verdict(&rules(), &second(known.clone())), Evaluation::Set { .. }));
    known.atr = Some("3b00".parse().unwrap());
    assert!(matches!(verdict(&rules(), &second(known.clone())), Evaluation::UnknownCard { .. }));
    known.atr = None;
    assert!(matches!(verdict(&rules(), &second(known)), Evaluation::UnknownCard { .. }));
}

#[test]
fn another_atr_warns_or_refuses_as_configured() {
    let mut known = record(1, 2);
    known.atr = Some("3b00".parse().unwrap());
    let found = found(vec![known], vec![request(1, 7, 1, DAY1)]);
    assert!(matches!(verdict(&rules(), &found), Evaluation::Set { warning: Some(_), .. }));
    let strict = RuleSet { atr_mismatch: AtrMismatch::Refuse, ..rules() };
    assert!(matches!(
        verdict(&strict, &found),
        Evaluation::Park { reason: ParkReason::AtrMismatch, .. }
    ));
}

#[test]
fn a_rule_can_be_for_some_statuses_and_some_readers() {
    let mut rules = rules();
    rules.rules[0].card_status = vec![CardStatus::new(3)];
    rules.rules[0].reader_role = vec!["return".to_owned()];
    let active = found(vec![record(1, 2)], vec![request(1, 7, 1, DAY1)]);
    assert!(matches!(verdict(&rules, &active), Evaluation::NothingToDo { .. }));
    let disabled = found(vec![record(1, 3)], vec![request(1, 7, 1, DAY1)]);
    let (atr, identity) = (ATR.parse().unwrap(), identity());
    let at = |role| {
        evaluate(
            &rules,
            &RuleInput {
                trigger: Trigger::Inserted,
                role,
                atr: Some(&atr),
                identity: &identity,
                found: &disabled,
            },
        )
    };
    assert!(matches!(at("return"), Evaluation::Set { .. }));
    assert!(matches!(at("desk"), Evaluation::NothingToDo { .. }));
}

#[test]
fn an_unknown_card_is_unknown() {
    let none = LookupResult { records: None, requests: vec![] };
    assert!(matches!(verdict(&rules(), &none), Evaluation::UnknownCard { .. }));
}

/// What each rule says of a card that was put in, or taken out.
fn findings(rules: &RuleSet, trigger: Trigger, found: &LookupResult) -> Vec<String> {
    let (atr, identity) = (ATR.parse().unwrap(), identity());
    let facts = RuleInput { trigger, role: "desk", atr: Some(&atr), identity: &identity, found };
    let explanation = explain(rules, &facts);
    assert_eq!(explanation.verdict, evaluate(rules, &facts), "the words are about what is done");
    let acting = explanation.findings.iter().filter(|finding| finding.applies).count();
    let acts =
        matches!(explanation.verdict, Evaluation::Set { .. } | Evaluation::AlreadySet { .. });
    assert_eq!(acting, usize::from(acts));
    let line = |finding: &RuleExplanation| format!("{}: {}", finding.rule, finding.explanation);
    explanation.findings.iter().map(line).collect()
}

fn put_in(rules: &RuleSet, found: &LookupResult) -> String {
    findings(rules, Trigger::Inserted, found).join("\n")
}

#[test]
fn each_rule_says_in_words_why_it_acts_or_not() {
    let disable = found(vec![record(1, 2)], vec![request(1, 4, 1, DAY1)]);
    assert_snapshot!(put_in(&rules(), &disable), @"
    retire: not applied: the rule matches request type Retire, the open request is Disable
    disable: applies to request b105403d-d021-41ea-9f11-be3d67000001: sets Disabled instead of Active, and leaves the request open
    ");
    let nothing = found(vec![record(1, 2)], vec![]);
    assert_snapshot!(put_in(&rules(), &nothing), @r"
    retire: not applied: no open request names record 17cf063d-e337-4aa9-a822-346554000001
    disable: not applied: no open request names record 17cf063d-e337-4aa9-a822-346554000001
    ");
    let both = found(vec![record(1, 2)], vec![request(1, 7, 1, DAY1), request(2, 4, 1, DAY2)]);
    assert_snapshot!(put_in(&rules(), &both), @"
    retire: applies to request b105403d-d021-41ea-9f11-be3d67000001: sets Retired instead of Active, and leaves the request open
    disable: not applied: rule retire takes precedence: older request, or earlier in the file
    ");
    let unknown = LookupResult { records: None, requests: vec![] };
    assert_snapshot!(put_in(&rules(), &unknown), @"
    retire: not applied: CM has no record of this card
    disable: not applied: CM has no record of this card
    ");
    let two = found(vec![record(1, 2), record(2, 2)], vec![]);
    assert!(put_in(&rules(), &two).contains("retire: not applied: CM has 2 records of this card"));
}

#[test]
fn conditions_of_a_rule_are_told_in_words() {
    let mut rules = rules();
    rules.rules[0].card_status = vec![CardStatus::new(3)];
    rules.rules[1].reader_role = vec!["out".to_owned(), "lost".to_owned()];
    let both = found(vec![record(1, 2)], vec![request(1, 7, 1, DAY1), request(2, 4, 1, DAY2)]);
    assert_snapshot!(put_in(&rules, &both), @"
    retire: not applied: the rule requires card status Disabled, the record is Active
    disable: not applied: the rule requires reader role out or lost, this reader has desk
    ");
}

#[test]
fn what_a_rule_picks_and_completes_is_told_in_words() {
    let requests = vec![request(1, 7, 1, DAY2), request(2, 7, 1, DAY1)];
    let two = found(vec![record(1, 2)], requests.clone());
    let retired = found(vec![record(1, 6)], requests);
    let mut rules = picking(Pick::Newest);
    rules.rules.truncate(1);
    rules.rules[0].complete_request = true;
    assert_snapshot!(put_in(&rules, &two), @"retire: applies to request b105403d-d021-41ea-9f11-be3d67000001: sets Retired instead of Active, and completes the request; of 2 open requests that it is about, that is the newest");
    assert_snapshot!(put_in(&rules, &retired), @"retire: applies to request b105403d-d021-41ea-9f11-be3d67000001: no change: the record is already Retired, and completes the request; of 2 open requests that it is about, that is the newest");
    rules.rules[0].pick = Pick::Refuse;
    assert_snapshot!(put_in(&rules, &two), @r#"retire: parks the entry: rule retire matches 2 open requests and pick = "refuse": b105403d-d021-41ea-9f11-be3d67000002, b105403d-d021-41ea-9f11-be3d67000001 (pick = refuse)"#);
}

#[test]
fn another_atr_is_told_in_words() {
    let mut known = record(1, 2);
    known.atr = Some("3b00".parse().unwrap());
    let found = found(vec![known], vec![request(1, 7, 1, DAY1)]);
    let mut rules = rules();
    rules.rules.truncate(1);
    assert!(
        put_in(&rules, &found).ends_with(
            "; warning: CM has ATR 3b00, the card has 3b8d0180fba000000397425446590301c8"
        )
    );
    rules.atr_mismatch = AtrMismatch::Refuse;
    assert!(put_in(&rules, &found).contains("retire: parks the entry for request"));
}

#[test]
fn a_removal_is_explained_by_the_rules_for_removals() {
    let mut rules = rules();
    rules.rules[1].on = Trigger::Removed;
    let found = found(vec![record(1, 2)], vec![request(1, 4, 1, DAY1), request(2, 7, 1, DAY2)]);
    assert_snapshot!(put_in(&rules, &found), @"retire: applies to request b105403d-d021-41ea-9f11-be3d67000002: sets Retired instead of Active, and leaves the request open");
    let taken_out = findings(&rules, Trigger::Removed, &found).join("\n");
    assert_snapshot!(taken_out, @"disable: applies to request b105403d-d021-41ea-9f11-be3d67000001: sets Disabled instead of Active, and leaves the request open");
    assert!(rules.has_rules_for(Trigger::Removed) && rules.has_rules_for(Trigger::Inserted));
    assert!(!self::rules().has_rules_for(Trigger::Removed));
}

#[test]
fn several_requests_for_one_of_several_records_name_one_record_only() {
    let requests = vec![request(1, 7, 2, DAY1), request(2, 4, 2, DAY2)];
    let found = found(vec![record(1, 2), record(2, 2), record(3, 6)], requests);
    assert_eq!(decision(verdict(&rules(), &found)).record, record_id(2));
}

#[test]
fn a_request_that_names_a_retired_record_means_it_all_the_same() {
    let found = found(vec![record(1, 6), record(2, 2)], vec![request(1, 7, 1, DAY1)]);
    assert!(matches!(verdict(&rules(), &found), Evaluation::AlreadySet { .. }));
}

#[test]
fn only_retired_records_and_no_request_are_nothing_to_do() {
    let found = found(vec![record(1, 6), record(2, 6)], vec![]);
    assert!(matches!(verdict(&rules(), &found), Evaluation::NothingToDo { .. }));
}

#[test]
fn of_several_records_of_a_second_choice_id_only_those_with_the_cards_atr_count() {
    let mut other = record(2, 2);
    other.atr = Some("3b00".parse().unwrap());
    let second = |record: CardRecord, named| LookupResult {
        records: Some((candidate(SWAPPED, IdRule::GidsCardidBe), vec![record, other.clone()])),
        requests: vec![request(1, 7, named, DAY1)],
    };
    assert_eq!(decision(verdict(&rules(), &second(record(1, 2), 1))).record, record_id(1));
    // The request is about the record that is not believed.
    assert!(matches!(verdict(&rules(), &second(record(1, 2), 2)), Evaluation::NothingToDo { .. }));
}

#[test]
fn an_atr_that_cm_does_not_have_or_nobody_read_is_no_mismatch() {
    let strict = RuleSet { atr_mismatch: AtrMismatch::Refuse, ..rules() };
    let mut known = record(1, 2);
    known.atr = None;
    let without = found(vec![known], vec![request(1, 7, 1, DAY1)]);
    assert!(matches!(verdict(&strict, &without), Evaluation::Set { warning: None, .. }));
    let with = found(vec![record(1, 2)], vec![request(1, 7, 1, DAY1)]);
    let identity = identity();
    let trigger = Trigger::Inserted;
    let unread = RuleInput { trigger, role: "desk", atr: None, identity: &identity, found: &with };
    assert!(matches!(evaluate(&strict, &unread), Evaluation::Set { warning: None, .. }));
}

/// A card of one id, by this rule and of this strength.
fn card_of(strength: Strength, pinned: bool) -> (CardIdentity, LookupResult) {
    let id = Candidate { strength, pinned, ..candidate(CARD, IdRule::Pkcs15Opensc) };
    let identity = CardIdentity::new(Family::Pkcs15, Serial::from_bytes(&[1]), id.clone(), vec![]);
    let requests = vec![request(1, 7, 1, DAY1)];
    (identity, LookupResult { records: Some((id, vec![record(1, 2)])), requests })
}

fn verdict_of((identity, found): &(CardIdentity, LookupResult), atr: Option<&str>) -> Evaluation {
    let atr = atr.map(|atr| atr.parse().unwrap());
    let (trigger, role) = (Trigger::Inserted, "desk");
    evaluate(&rules(), &RuleInput { trigger, role, atr: atr.as_ref(), identity, found })
}

#[test]
fn a_match_acts_by_the_strength_of_its_id() {
    const OTHER: &str = "3b00";
    use ParkReason::{AtrMismatch, SharedId};
    use Strength::{Serial, Shared, Unique};
    for (strength, pinned, atr, parked) in [
        (Unique, false, Some(ATR), None),
        (Unique, false, Some(OTHER), None),
        (Unique, false, None, None),
        (Serial, false, Some(ATR), None),
        (Serial, false, Some(OTHER), Some(AtrMismatch)),
        (Serial, false, None, Some(AtrMismatch)),
        (Serial, true, Some(OTHER), None),
        (Shared, false, Some(ATR), Some(SharedId)),
        (Shared, false, Some(OTHER), Some(SharedId)),
        (Shared, true, Some(OTHER), None),
    ] {
        let what = format!("{strength}, pinned {pinned}, ATR {atr:?}");
        match (verdict_of(&card_of(strength, pinned), atr), parked) {
            (Evaluation::Set { .. }, None) => {}
            (Evaluation::Park { reason, .. }, Some(parked)) => assert_eq!(reason, parked, "{what}"),
            (verdict, _) => panic!("{what}: {verdict:?}"),
        }
    }
}

#[test]
fn a_serial_number_acts_only_where_cm_has_the_atr_whatever_the_setting_says() {
    for setting in [AtrMismatch::Warn, AtrMismatch::Refuse] {
        for known in [None, Some("3b00")] {
            let (identity, mut found) = card_of(Strength::Serial, false);
            let (_, records) = found.records.as_mut().unwrap();
            records[0].atr = known.map(|atr| atr.parse().unwrap());
            let rules = RuleSet { atr_mismatch: setting, ..rules() };
            let atr = ATR.parse().unwrap();
            let (trigger, role) = (Trigger::Inserted, "desk");
            let facts =
                RuleInput { trigger, role, atr: Some(&atr), identity: &identity, found: &found };
            let Evaluation::Park { reason, detail: why } = evaluate(&rules, &facts) else {
                panic!("{known:?}")
            };
            assert_eq!(reason, ParkReason::AtrMismatch);
            assert!(why.contains("only together with the ATR"), "{why}");
        }
    }
}

#[test]
fn a_record_under_a_shared_id_parks_even_where_nothing_is_requested() {
    let (identity, found) = card_of(Strength::Shared, false);
    let found = LookupResult { requests: vec![], ..found };
    let Evaluation::Park { reason, detail: why } = verdict_of(&(identity, found), Some(ATR)) else {
        panic!()
    };
    assert_eq!(reason, ParkReason::SharedId);
    assert_eq!(
        why,
        "CM has a record under bc88f13f-83ba-4037-8262-46eba1291c6e (pkcs15-opensc), an id that more \
         than one card can carry"
    );
}
