use super::*;
use crate::domain::{Candidate, CardStatus, IdRule};

const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";
const OTHER: &str = "99999999-e337-4aa9-a822-346554ddd3c9";

fn card() -> CardId {
    CARD.parse().unwrap()
}

fn record(id: &str, serial: &str, status: i64) -> String {
    format!(r#"{{"Uuid":"{id}","Status":{status},"SerialNumber":"{serial}"}}"#)
}

fn request(id: char, status: i64) -> String {
    let id = id.to_string().repeat(8);
    format!(
        r#"{{"Uuid":"{id}-0000-0000-0000-000000000001","RequestType":7,"Status":{status},"OldSmartcardUuid":"{RECORD}"}}"#
    )
}

fn decision() -> Decision {
    Decision {
        rule: "retire".to_owned(),
        candidate: Candidate::by_rule(card(), IdRule::GidsCardid),
        record: RECORD.parse().unwrap(),
        request: OTHER.parse().unwrap(),
        old_status: CardStatus::new(2),
        new_status: CardStatus::new(6),
        new_status_name: "Retired".to_owned(),
        complete_request: false,
    }
}

fn open(bodies: [String; 2]) -> Vec<i64> {
    let records = records_of(card(), record(RECORD, CARD, 2).as_bytes()).unwrap();
    let lists = bodies.map(|body| {
        let mut reader = cm::RequestListReader::default();
        reader.push(body.as_bytes());
        Ok(reader.finish().unwrap())
    });
    let requests = requests_for(&records, lists, &CmEnums::default()).unwrap();
    requests.iter().map(|request| request.status.number()).collect()
}

#[track_caller]
fn assert_wrong<T: std::fmt::Debug>(result: Result<T, CallError>, expected: &str) {
    match result {
        Err(CallError::UnexpectedResponse { detail }) => {
            assert!(detail.contains(expected), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_not_cm<T: std::fmt::Debug>(result: Result<T, CallError>, expected: &str) {
    match result {
        Err(CallError::Unavailable {
            reason: UnavailableReason::NotCm,
            detail,
            retry_after: None,
        }) => {
            assert!(detail.contains(expected), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_serial_number_is_compared_as_sixteen_bytes() {
    for serial in [
        CARD.to_owned(),
        format!("{{{}}}", CARD.to_uppercase()),
        CARD.replace('-', ""),
        format!(" {{{CARD}}} "),
    ] {
        let body = record(RECORD, &serial, 2);
        assert_eq!(records_of(card(), body.as_bytes()).unwrap().len(), 1, "{serial}");
    }
}

#[test]
fn records_of_other_cards_only_are_a_wrong_answer() {
    for serial in [RECORD, "", "0017", "00000000-0000-0000-0000-000000000000"] {
        let body = record(RECORD, serial, 2);
        assert_wrong(records_of(card(), body.as_bytes()), "records of other cards");
    }
}

#[test]
fn of_mixed_records_only_those_of_the_card_count() {
    let body = format!("[{},{}]", record(OTHER, "x", 2), record(RECORD, CARD, 3));
    let records = records_of(card(), body.as_bytes()).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].id, RECORD.parse().unwrap());
}

#[test]
fn no_record_is_an_answer_to_a_search_but_not_to_a_reading() {
    for body in ["", "null", "[]"] {
        assert_eq!(records_of(card(), body.as_bytes()), Ok(Vec::new()));
        assert_not_cm(parse_record(RECORD.parse().unwrap(), body.as_bytes()), "empty");
    }
}

#[test]
fn a_record_that_is_read_must_be_the_one_asked_for() {
    let id = RECORD.parse().unwrap();
    let (this, other) = (record(RECORD, "x", 2), record(OTHER, CARD, 2));
    assert_eq!(parse_record(id, this.as_bytes()).unwrap().id, id);
    assert_eq!(parse_record(id, format!("[{this}]").as_bytes()).unwrap().id, id);
    assert_wrong(parse_record(id, other.as_bytes()), OTHER);
    assert_eq!(parse_record(id, format!("[{this},{this}]").as_bytes()).unwrap().id, id);
    assert_wrong(parse_record(id, format!("[{this},{other}]").as_bytes()), "several");
}

#[test]
fn a_status_is_confirmed_only_by_the_record_itself() {
    let put = |body: &str| parse_set_status(&decision(), body.as_bytes());
    let confirmed = SetStatusResult::Confirmed(CardStatus::new(6));
    assert_eq!(put(&record(RECORD, "", 6)), Ok(confirmed));
    assert_eq!(put(&format!("[{}]", record(RECORD, CARD, 6))), Ok(confirmed));
    assert_eq!(put(&record(RECORD, CARD, 2)), Ok(SetStatusResult::Unconfirmed));
    for nothing in ["", "null", "[]"] {
        assert_eq!(put(nothing), Ok(SetStatusResult::Unconfirmed));
    }
    assert_wrong(put(&record(OTHER, CARD, 6)), OTHER);
    let (this, other) = (record(RECORD, CARD, 6), record(OTHER, CARD, 6));
    assert_wrong(put(&format!("[{this},{other}]")), "several");
    assert_wrong(put(&format!(r#"{{"Uuid":"{RECORD}","Status":6,"status":6}}"#)), "twice");
}

#[test]
fn foreign_response_is_reported_with_its_title() {
    let page = format!("<title>Sign in</title>{}", "x".repeat(9000));
    assert_not_cm(records_of(card(), page.as_bytes()), "not complete JSON: Sign in");
    assert_not_cm(parse_set_status(&decision(), b"<p>Sign in</p>"), "not complete JSON: Sign in");
    let down = br#"{"message":"down for maintenance"}"#;
    assert_not_cm(records_of(card(), down), "down for maintenance");
    assert_not_cm(parse_record(RECORD.parse().unwrap(), b"[{\"Uuid\""), "not complete JSON");
}

#[test]
fn the_requests_of_both_lists_are_kept_once_each() {
    let lists = [format!("[{},{}]", request('a', 3), request('b', 3)), request('b', 18)];
    assert_eq!(open(lists), [3, 18]);
}

#[test]
fn a_closed_request_is_dropped_even_where_cm_lists_it_as_open() {
    let list = format!("[{},{},{}]", request('a', 8), request('b', 16), request('c', 18));
    assert_eq!(open([list, "null".to_owned()]), [18]);
}

#[test]
fn request_lists_do_not_matter_for_a_card_without_records() {
    let list = || Err(CallError::unavailable(UnavailableReason::NotCm, "a page".to_owned()));
    assert_eq!(requests_for(&[], [list(), Ok(Vec::new())], &CmEnums::default()), Ok(Vec::new()));
    let records = records_of(card(), record(RECORD, CARD, 2).as_bytes()).unwrap();
    assert_not_cm(requests_for(&records, [Ok(Vec::new()), list()], &CmEnums::default()), "a page");
}

#[test]
fn a_completion_counts_when_the_request_itself_says_that_it_is_completed() {
    let id: RequestId = "aaaaaaaa-0000-0000-0000-000000000001".parse().unwrap();
    let judged = |body: &str| parse_complete_request(id, body.as_bytes(), &CmEnums::default());
    assert_eq!(judged(&request('a', 8)), Ok(CompleteRequestResult::Confirmed));
    assert_eq!(judged(&format!("[{}]", request('a', 8))), Ok(CompleteRequestResult::Confirmed));
    for unsaid in ["", "null", "[]", &request('a', 18), &request('a', 99)] {
        assert_eq!(judged(unsaid), Ok(CompleteRequestResult::Unconfirmed), "{unsaid}");
    }
    assert_wrong(judged(&request('b', 8)), "CM answered about request bbbbbbbb");
    let two = format!("[{},{}]", request('a', 8), request('b', 8));
    assert_wrong(judged(&two), "with several");
    assert_wrong(judged(&format!("[{},{}]", request('a', 8), request('a', 3))), "with several");
    assert_not_cm(judged("<html>"), "");
    let mut numbers = CmEnums::default();
    numbers.request_status.set("Finished", 8);
    let unknown = parse_complete_request(id, request('a', 8).as_bytes(), &numbers);
    assert_eq!(
        unknown,
        Ok(CompleteRequestResult::Unconfirmed),
        "without a number nothing is confirmed"
    );
}

#[test]
fn a_request_that_is_read_is_the_one_that_was_asked_for() {
    let id: RequestId = "aaaaaaaa-0000-0000-0000-000000000001".parse().unwrap();
    let judged = |body: &str| parse_request(id, body.as_bytes());
    assert_eq!(judged(&request('a', 18)), Ok(RequestStatus::new(18)));
    assert_wrong(judged(&request('b', 18)), "CM answered about request bbbbbbbb");
    assert_wrong(judged(r#"{"Uuid":"aaaaaaaa-0000-0000-0000-000000000001"}"#), "no usable Status");
    for empty in ["", "null", "[]"] {
        assert_not_cm(judged(empty), "empty where a request must be");
    }
}
