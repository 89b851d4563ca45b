use serde_json::json;

use super::*;

const CARD: Uuid = Uuid::from_u128(0x5709);
const ATR: &str = "3b80";
const START: &str = "2026-01-01T00:00:00Z";

fn at(millis: u64) -> SystemTime {
    humantime::parse_rfc3339(START).unwrap() + Duration::from_millis(millis)
}

fn stay(manner: Manner, millis: u64) -> Stay {
    Stay {
        reader: "(R07)".to_owned(),
        manner,
        card: CARD,
        atr: ATR.to_owned(),
        span: (at(0), at(millis)),
        lost: Vec::new(),
    }
}

/// The log's lines of a card that was seen, read and queued in this insertion.
fn story(insertion: u64) -> String {
    format!(
        "{START} INFO Card inserted reader=A (R07) 00 insertion={insertion} atr={ATR}\n\
         {START} INFO Card identified reader=A (R07) 00 insertion={insertion} card=\"{CARD}\"\n\
         {START} INFO Entry queued insertion={insertion} entry=1\n"
    )
}

fn updated() -> Value {
    json!({"kind": "outcome", "entry": 1, "outcome": "updated", "card_id": CARD})
}

fn stranger(reason: &str) -> Value {
    json!({"kind": "outcome", "outcome": "not-identified", "reason": reason, "atr": ATR,
           "reader": "A (R07) 00", "at": START})
}

fn judged(stay: &Stay, away: &[Span], audit: &[Value], log: &str) -> Vec<String> {
    stays(&Desk { stays: std::slice::from_ref(stay), away, restarts: &[], audit, log })
}

#[test]
fn a_card_that_was_worked_on_once_is_in_order() {
    let stay = stay(Manner::Healthy, 1000);
    assert_eq!(judged(&stay, &[], &[updated()], &story(1)), [""; 0]);
}

#[test]
fn a_card_that_was_in_for_a_second_and_never_worked_on_is_found() {
    assert_eq!(judged(&stay(Manner::Healthy, 1000), &[], &[], "").len(), 1);
    assert_eq!(judged(&stay(Manner::Healthy, 999), &[], &[], ""), [""; 0], "nothing is claimed");
}

#[test]
fn a_second_that_was_never_whole_claims_nothing() {
    let mut stay = stay(Manner::Healthy, 2000);
    let away = [(at(900), at(1100))];
    assert_eq!(judged(&stay, &away, &[], ""), [""; 0]);
    assert_eq!(judged(&stay, &[(at(900), at(950))], &[], "").len(), 1, "a second is left");
    stay.lost = away.to_vec();
    assert_eq!(judged(&stay, &[], &[], ""), [""; 0]);
}

#[test]
fn a_card_with_two_outcomes_is_found_and_one_more_for_each_reader_or_pcscd_lost_is_not() {
    let (audit, log) = ([updated(), updated()], story(1) + &story(2));
    let mut stay = stay(Manner::Healthy, 3000);
    assert_eq!(judged(&stay, &[], &audit, &log).len(), 1);
    let away = [(at(500), at(600))];
    assert_eq!(judged(&stay, &away, &audit, &log).len(), 1, "a pcscd that was held is the same");
    let desk = Desk {
        stays: std::slice::from_ref(&stay),
        away: &[],
        restarts: &away,
        audit: &audit,
        log: &log,
    };
    let complaints = |desk: &Desk<'_>| stays(desk).into_iter().filter(|it| it.contains("outcomes"));
    assert_eq!(complaints(&desk).count(), 0, "one more for each restart");
    let thrice = [updated(), updated(), updated()];
    assert_eq!(complaints(&Desk { audit: &thrice, ..desk }).count(), 1, "and not two");
    stay.lost.push((at(500), at(600)));
    assert_eq!(judged(&stay, &[], &audit, &log), [""; 0]);
}

#[test]
fn a_card_with_two_stories_is_found() {
    let stay = stay(Manner::Healthy, 1000);
    assert_eq!(judged(&stay, &[], &[updated()], &(story(1) + &story(2))).len(), 1);
    assert_eq!(judged(&stay, &[], &[updated()], &(story(1) + &story(1))).len(), 1);
    assert_eq!(judged(&stay, &[], &[updated()], "").len(), 1, "and one without any");
}

#[test]
fn a_healthy_card_that_was_told_as_a_stranger_is_found() {
    let audit = [updated(), stranger("removed")];
    assert_eq!(judged(&stay(Manner::Healthy, 1000), &[], &audit, &story(1)).len(), 1);
    let early = stay(Manner::Healthy, 900);
    assert_eq!(judged(&early, &[], &[stranger("removed")], &story(1)), [""; 0]);
}

#[test]
fn a_hindered_card_has_one_end_of_either_kind() {
    let stay = stay(Manner::Hindered, 1000);
    let log = format!("{START} INFO Card inserted reader=A (R07) 00 insertion=1 atr={ATR}\n");
    assert_eq!(judged(&stay, &[], &[stranger("removed")], &log), [""; 0]);
    assert_eq!(judged(&stay, &[], &[updated()], &log), [""; 0]);
    assert_eq!(judged(&stay, &[], &[], &log).len(), 1, "none");
    assert_eq!(judged(&stay, &[], &[updated(), stranger("removed")], &log).len(), 1, "two");
    assert_eq!(judged(&stay, &[], &[updated()], &(log.clone() + &log)).len(), 1, "seen twice");
}

#[test]
fn a_mute_card_is_told_once() {
    let stay = stay(Manner::Mute, 1000);
    let log = format!("{START} INFO Card is mute reader=A (R07) 00 insertion=1\n");
    assert_eq!(judged(&stay, &[], &[stranger("mute")], &log), [""; 0]);
    assert_eq!(judged(&stay, &[], &[], "").len(), 1, "never");
    assert_eq!(judged(&stay, &[], &[stranger("mute"), stranger("mute")], &log).len(), 1, "twice");
}

#[test]
fn mute_card_after_three_others_may_be_counted_but_is_in_the_log() {
    let stay = stay(Manner::Mute, 1000);
    let log = format!("{START} INFO Card is mute reader=A (R07) 00 insertion=1\n");
    let before = |seconds: u64| {
        let at = stay.span.0 - Duration::from_secs(seconds);
        let mut line = stranger("mute");
        line["at"] = json!(humantime::format_rfc3339(at).to_string());
        line
    };
    let three = [before(90), before(60), before(30)];
    assert_eq!(judged(&stay, &[], &three, &log), [""; 0]);
    assert_eq!(judged(&stay, &[], &three, "").len(), 1, "neither told nor logged");
    assert_eq!(judged(&stay, &[], &three[..2], &log).len(), 1, "the third has its line");
    let long_ago = [before(900), before(800), before(700)];
    assert_eq!(judged(&stay, &[], &long_ago, &log).len(), 1);
}
