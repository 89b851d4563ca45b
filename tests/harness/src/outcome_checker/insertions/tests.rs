use serde_json::json;

use super::*;

const CARD: Uuid = Uuid::from_u128(0x5709);
const ATR: &str = "3b80";
const START: &str = "2026-01-01T00:00:00Z";

fn at(millis: u64) -> SystemTime {
    humantime::parse_rfc3339(START).unwrap() + Duration::from_millis(millis)
}

fn inserted(quirk: Quirk, millis: u64) -> Insertion {
    Insertion {
        reader: "(R07)".to_owned(),
        quirk,
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
         {START} INFO Card identified reader=A (R07) 00 insertion={insertion} card_id=\"{CARD}\"\n\
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

fn judged(inserted: &Insertion, away: &[Span], audit: &[Value], log: &str) -> Vec<String> {
    insertions(&Run { insertions: std::slice::from_ref(inserted), away, restarts: &[], audit, log })
}

#[test]
fn card_processed_once_is_accepted() {
    let inserted = inserted(Quirk::Healthy, 1000);
    assert_eq!(judged(&inserted, &[], &[updated()], &story(1)), [""; 0]);
}

#[test]
fn unprocessed_card_after_one_second_is_found() {
    assert_eq!(judged(&inserted(Quirk::Healthy, 1000), &[], &[], "").len(), 1);
    assert_eq!(judged(&inserted(Quirk::Healthy, 999), &[], &[], ""), [""; 0], "nothing is claimed");
}

#[test]
fn interrupted_second_proves_nothing() {
    let mut inserted = inserted(Quirk::Healthy, 2000);
    let away = [(at(900), at(1100))];
    assert_eq!(judged(&inserted, &away, &[], ""), [""; 0]);
    assert_eq!(judged(&inserted, &[(at(900), at(950))], &[], "").len(), 1, "a second is left");
    inserted.lost = away.to_vec();
    assert_eq!(judged(&inserted, &[], &[], ""), [""; 0]);
}

#[test]
fn second_outcome_is_found_unless_reader_was_lost() {
    let (audit, log) = ([updated(), updated()], story(1) + &story(2));
    let mut inserted = inserted(Quirk::Healthy, 3000);
    assert_eq!(judged(&inserted, &[], &audit, &log).len(), 1);
    let away = [(at(500), at(600))];
    assert_eq!(
        judged(&inserted, &away, &audit, &log).len(),
        1,
        "a pcscd that was held is the same"
    );
    let run = Run {
        insertions: std::slice::from_ref(&inserted),
        away: &[],
        restarts: &away,
        audit: &audit,
        log: &log,
    };
    let complaints =
        |run: &Run<'_>| insertions(run).into_iter().filter(|it| it.contains("outcomes"));
    assert_eq!(complaints(&run).count(), 0, "one more for each restart");
    let thrice = [updated(), updated(), updated()];
    assert_eq!(complaints(&Run { audit: &thrice, ..run }).count(), 1, "and not two");
    inserted.lost.push((at(500), at(600)));
    assert_eq!(judged(&inserted, &[], &audit, &log), [""; 0]);
}

#[test]
fn card_with_two_insertions_in_log_is_found() {
    let inserted = inserted(Quirk::Healthy, 1000);
    assert_eq!(judged(&inserted, &[], &[updated()], &(story(1) + &story(2))).len(), 1);
    assert_eq!(judged(&inserted, &[], &[updated()], &(story(1) + &story(1))).len(), 1);
    assert_eq!(judged(&inserted, &[], &[updated()], "").len(), 1, "and one without any");
}

#[test]
fn healthy_card_reported_as_stranger_is_found() {
    let audit = [updated(), stranger("removed")];
    assert_eq!(judged(&inserted(Quirk::Healthy, 1000), &[], &audit, &story(1)).len(), 1);
    let early = inserted(Quirk::Healthy, 900);
    assert_eq!(judged(&early, &[], &[stranger("removed")], &story(1)), [""; 0]);
}

#[test]
fn hindered_card_has_one_outcome() {
    let inserted = inserted(Quirk::Hindered, 1000);
    let log = format!("{START} INFO Card inserted reader=A (R07) 00 insertion=1 atr={ATR}\n");
    assert_eq!(judged(&inserted, &[], &[stranger("removed")], &log), [""; 0]);
    assert_eq!(judged(&inserted, &[], &[updated()], &log), [""; 0]);
    assert_eq!(judged(&inserted, &[], &[], &log).len(), 1, "none");
    assert_eq!(judged(&inserted, &[], &[updated(), stranger("removed")], &log).len(), 1, "two");
    assert_eq!(judged(&inserted, &[], &[updated()], &(log.clone() + &log)).len(), 1, "seen twice");
}

#[test]
fn mute_card_is_reported_once() {
    let inserted = inserted(Quirk::Mute, 1000);
    let log = format!("{START} INFO Card is mute reader=A (R07) 00 insertion=1\n");
    assert_eq!(judged(&inserted, &[], &[stranger("mute")], &log), [""; 0]);
    assert_eq!(judged(&inserted, &[], &[], "").len(), 1, "never");
    assert_eq!(
        judged(&inserted, &[], &[stranger("mute"), stranger("mute")], &log).len(),
        1,
        "twice"
    );
}

#[test]
fn mute_card_after_three_others_may_be_counted_but_is_in_the_log() {
    let inserted = inserted(Quirk::Mute, 1000);
    let log = format!("{START} INFO Card is mute reader=A (R07) 00 insertion=1\n");
    let before = |seconds: u64| {
        let at = inserted.span.0 - Duration::from_secs(seconds);
        let mut line = stranger("mute");
        line["at"] = json!(humantime::format_rfc3339(at).to_string());
        line
    };
    let three = [before(90), before(60), before(30)];
    assert_eq!(judged(&inserted, &[], &three, &log), [""; 0]);
    assert_eq!(judged(&inserted, &[], &three, "").len(), 1, "neither audited nor logged");
    assert_eq!(judged(&inserted, &[], &three[..2], &log).len(), 1, "the third has its line");
    let long_ago = [before(900), before(800), before(700)];
    assert_eq!(judged(&inserted, &[], &long_ago, &log).len(), 1);
}
