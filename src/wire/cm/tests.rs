use proptest::prelude::*;

use super::*;
use crate::domain::{CmRequest, RequestStatus, RequestType};

/// The answer of the documentation's own example of a status update.
const CARD: &str = r#"{
    "Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9", "Status":6, "Flags":1,
    "ParentSmartcardUuid":"00000000-0000-0000-0000-000000000000",
    "PrimarySmartcardUuid":"00000000-0000-0000-0000-000000000000",
    "PermanentSmartcardUuid":"00000000-0000-0000-0000-000000000000",
    "AssignedUserUuid":"8f1590dc-d932-4b66-8e68-2e91c5880780",
    "ProfileTemplateUuid":"a039b4d0-5ce8-4eff-8651-181c6576fda3",
    "ProfileTemplateVersion":46, "Comment":"",
    "SerialNumber":"{bc88f13f-83ba-4037-8262-46eba1291c6e}", "Middleware":"MSBaseCSP",
    "Atr":"3b8d0180fba000000397425446590301c8"
}"#;

/// A request as CM sent it, its security descriptor shortened.
const REQUEST: &str = r#"{"Uuid":"0c96d73f-967b-420e-854a-43ad2a1504bc","RequestType":5,"Status":3,
    "Flags":2,"DataCollection":[{"Name":"Sample Data Item","Value":null}],"DataCollectionFlags":32,
    "OriginatorUserUuid":"8f1590dc-d932-4b66-8e68-2e91c5880780",
    "TargetUserUuid":"8f1590dc-d932-4b66-8e68-2e91c5880780",
    "Submitted":"2015-07-07T23:40:33.133Z","Completed":"0001-01-01T00:00:00",
    "NewProfileUuid":"b99ff38c-6653-471f-ae3c-325bb351a6bc",
    "OldProfileUuid":"b99ff38c-6653-471f-ae3c-325bb351a6bc",
    "NewSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9",
    "OldSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Priority":0,"Comment":"",
    "ProfileTemplateUuid":"a039b4d0-5ce8-4eff-8651-181c6576fda3",
    "SecurityDescriptor":"O:S-1-5-21-1\u0000\u0000","IsSmartcard":true,"IsEnrollmentAgent":false,
    "IsDataCollectionComplete":false}"#;

const RECORD_ID: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";

fn record_id() -> RecordId {
    RECORD_ID.parse().unwrap()
}

fn one_record(body: &str) -> CardRecord {
    let [record] = records(body.as_bytes()).unwrap().try_into().unwrap();
    record
}

/// The requests of a body that comes in two pieces, cut where it is worst.
fn requests(body: &[u8], wanted: &[RecordId]) -> Result<Vec<CmRequest>, ParseError> {
    let list = |at: usize| {
        let mut reader = RequestListReader::default();
        let (start, rest) = body.split_at(at);
        reader.push(start);
        reader.push(rest);
        reader.finish().and_then(|list| super::requests(&list, wanted))
    };
    let whole = list(0);
    for at in [1, 2, 3, body.len() / 3, body.len() / 2].map(|at| at.min(body.len())) {
        assert_eq!(format!("{whole:?}"), format!("{:?}", list(at)));
    }
    whole
}

fn one_request(body: &str) -> CmRequest {
    let [request] = requests(body.as_bytes(), &[record_id()]).unwrap().try_into().unwrap();
    request
}

/// Every reader, for its panics.
fn read_all(body: &[u8]) {
    drop((records(body), requests(body, &[record_id()]), error_text(body)));
}

#[track_caller]
fn assert_wrong(body: &str) {
    let read = records(body.as_bytes());
    assert!(matches!(read, Err(ParseError::Invalid(_))), "{body}: {read:?}");
}

#[track_caller]
fn assert_foreign(body: &str) {
    let read = records(body.as_bytes());
    assert!(matches!(read, Err(ParseError::NotCm(..))), "{body}: {read:?}");
}

#[track_caller]
fn assert_not_json(body: &[u8]) {
    let read = records(body);
    assert!(matches!(read, Err(ParseError::NotJson(_))), "{read:?}");
}

#[test]
fn the_documented_card_is_read_and_kept_whole() {
    let record = one_record(CARD);
    assert_eq!(record.id, record_id());
    assert_eq!(record.status, CardStatus::new(6));
    assert_eq!(record.serial_number, "{bc88f13f-83ba-4037-8262-46eba1291c6e}");
    assert_eq!(record.middleware, "MSBaseCSP");
    assert_eq!(record.atr.unwrap().to_string(), "3b8d0180fba000000397425446590301c8");
    assert_eq!(&*record.raw, CARD);
}

#[test]
fn a_real_request_is_read() {
    let request = one_request(REQUEST);
    assert_eq!(request.id, "0c96d73f-967b-420e-854a-43ad2a1504bc".parse().unwrap());
    assert_eq!(request.request_type, RequestType::new(5));
    assert_eq!(request.status, RequestStatus::new(3));
    assert_eq!((request.old_card, request.new_card), (Some(record_id()), Some(record_id())));
    assert_eq!(request.submitted, Some("2015-07-07T23:40:33.133Z".parse().unwrap()));
}

#[test]
fn a_list_an_object_null_and_nothing_are_all_lists() {
    for body in ["", " \r\n", "\u{feff}", "null", "[]", "[null]", "\u{feff}[ ]\n"] {
        assert!(records(body.as_bytes()).unwrap().is_empty(), "{body:?}");
    }
    for body in [CARD.to_owned(), format!("\u{feff}{CARD}"), format!(" [{CARD}, null]\n")] {
        assert_eq!(one_record(&body).id, record_id());
    }
}

#[test]
fn a_record_that_stands_twice_is_one_unless_it_says_two_things() {
    assert_eq!(one_record(&format!("[{CARD},{CARD}]")).id, record_id());
    let comment = CARD.replace(r#""Comment":"""#, r#""Comment":"x""#);
    assert_eq!(one_record(&format!("[{CARD},{comment}]")).id, record_id());
    assert_wrong(&format!("[{CARD},{}]", CARD.replace(r#""Status":6"#, r#""Status":2"#)));
}

#[test]
fn a_serial_number_is_kept_without_the_space_around_it() {
    let spaced = CARD.replace("\"{bc88", "\" {bc88").replace("1c6e}\"", "1c6e} \"");
    assert_eq!(one_record(&spaced).serial_number, "{bc88f13f-83ba-4037-8262-46eba1291c6e}");
}

#[test]
fn an_array_is_split_only_where_it_is() {
    let tricky = CARD.replace(r#""Comment":"""#, r#""Comment":"a\"],[{\\","X":[[1,2],{"y":[]}]"#);
    assert_eq!(&*one_record(&format!("\u{feff} [ {tricky} ,null] ")).raw, tricky);
    for bad in ["[,]", "[null,]", "[,null]", "[null null]", "[null]]", "[}]", "[{]", "[{]}", "[]x"]
    {
        assert_not_json(bad.as_bytes());
    }
    assert_not_json(b"\xef\xbb[]");
    assert_not_json(b"\xef\xbb");
}

#[test]
fn an_object_of_very_many_properties_is_not_cms() {
    let many: Vec<_> = (0..300).map(|n| format!(r#""p{n}":{{"":[0]}}"#)).collect();
    assert_foreign(&format!("[{{\"Status\":2,{}}}]", many.join(",")));
}

#[test]
fn what_is_read_no_further_says_what_there_was_too_much_of() {
    let counted = |object: &str, count: usize| {
        let mut reader = RequestListReader::default();
        let element = format!("{object},");
        reader.push(b"[");
        let read = (0..count).take_while(|_| reader.push(element.as_bytes())).count();
        (read, reader.finish().unwrap_err().to_string())
    };
    assert_eq!(
        counted(REQUEST, 30_000),
        (20_000, "CM lists more than 20000 open requests".to_owned())
    );
    let records: Vec<_> =
        (1..1100).map(|n| format!(r#"{{"Uuid":"{n:032x}","Status":2}}"#)).collect();
    let error = super::records(format!("[{}]", records.join(",")).as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "CM answers with more than 1000 records");
}

#[test]
fn a_request_may_be_as_long_as_it_likes_and_is_read_all_the_same() {
    let long = "\\u0000".repeat(100_000) + &"é\\\\\\\"]}".repeat(100_000);
    let nested = format!("[{}1]", "{\"Uuid\":[\"]}\"]},".repeat(50_000));
    for (name, value) in [
        ("Comment", format!("\"{long}\"")),
        ("DataCollection", nested.clone()),
        ("X", format!("{{\"y\":{nested}}}")),
    ] {
        let request =
            REQUEST.replacen(r#""Priority":0"#, &format!(r#""Priority":0,"{name}2":{value}"#), 1);
        assert!(request.len() > 500_000);
        for body in [request.clone(), format!("[{request}]"), format!("[null,\n{request} , null]")]
        {
            let mut reader = RequestListReader::default();
            assert!(body.as_bytes().chunks(4096).all(|chunk| reader.push(chunk)), "{name}");
            let read = super::requests(&reader.finish().unwrap(), &[record_id()]).unwrap();
            assert_eq!(read.len(), 1, "{name}");
            assert_eq!(read[0].submitted, Some("2015-07-07T23:40:33.133Z".parse().unwrap()));
        }
    }
}

#[test]
fn of_a_list_of_any_length_only_the_requests_of_the_records_that_are_meant_are_kept() {
    let other = REQUEST.replace(RECORD_ID, "99cf063d-e337-4aa9-a822-346554ddd3c9");
    let element = format!("{other},\n");
    let mut reader = RequestListReader::default();
    reader.push(b"[");
    for count in 0..60_000 {
        if count == 15_000 {
            reader.push(format!("{REQUEST},").as_bytes());
            assert!(reader.is_full(), "what is not asked for yet is kept up to here");
            reader.want(&[record_id()]);
        }
        assert!(reader.push(element.as_bytes()), "{count}");
    }
    assert!(!reader.is_full());
    assert_eq!(reader.named(), 60_001);
    reader.push(format!("{REQUEST}]").as_bytes());
    let kept = reader.finish().unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(super::requests(&kept, &[record_id()]).unwrap().len(), 2);
}

#[test]
fn a_card_with_very_many_requests_of_its_own_is_too_much() {
    let mut reader = RequestListReader::default();
    reader.want(&[record_id()]);
    reader.push(b"[");
    let read = (0..30_000).take_while(|_| reader.push(format!("{REQUEST},").as_bytes())).count();
    assert_eq!(read, 20_000);
    let error = reader.finish().unwrap_err().to_string();
    assert_eq!(error, "CM lists more than 20000 open requests for one card");
}

#[test]
fn property_names_and_guids_are_read_in_any_case_and_form() {
    let shouted = one_record(
        r#"{"UUID":"{17CF063D-E337-4AA9-A822-346554DDD3C9}","STATUS":2,"serialnumber":"x",
            "ATR":"3B8D0180FBA000000397425446590301C8"}"#,
    );
    assert_eq!(shouted.id, record_id());
    assert_eq!(shouted.status, CardStatus::new(2));
    assert_eq!(shouted.serial_number, "x");
    assert_eq!(shouted.atr.unwrap().to_string(), "3b8d0180fba000000397425446590301c8");
    let bare = one_record(r#"{"uuid":"17cf063de3374aa9a822346554ddd3c9","status":"2"}"#);
    assert_eq!((bare.id, bare.status), (record_id(), CardStatus::new(2)));
}

#[test]
fn what_is_optional_may_be_missing_null_or_unreadable() {
    for rest in [
        "",
        r#","Atr":null,"SerialNumber":null,"Middleware":null"#,
        r#","Atr":"","SerialNumber":7"#,
        r#","Atr":"3b 8d""#,
        r#","Atr":"3b8""#,
    ] {
        let record = one_record(&format!(r#"{{"Uuid":"{RECORD_ID}","Status":-1{rest}}}"#));
        assert_eq!((record.atr, record.serial_number.as_str()), (None, ""));
        assert_eq!(record.status, CardStatus::new(-1));
    }
}

#[test]
fn a_card_without_a_usable_id_or_status_is_wrong() {
    for body in [
        r#"{"Status":2}"#,
        r#"{"Uuid":null,"Status":2}"#,
        r#"{"Uuid":17,"Status":2}"#,
        r#"{"Uuid":"card 17","Status":2}"#,
        r#"{"Uuid":"00000000-0000-0000-0000-000000000000","Status":2}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9"}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":null}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":"Retired"}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":6.5}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":18446744073709551615}"#,
        r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":[6]}"#,
    ] {
        assert_wrong(body);
        assert_wrong(&format!("[{CARD},{body}]"));
    }
}

#[test]
fn a_property_that_stands_twice_is_wrong_in_whatever_case() {
    for (name, value) in [("Status", "2"), ("status", "2"), ("Comment", "1"), ("COMMENT", "1")] {
        assert_wrong(
            &CARD.replace(r#""Comment":"""#, &format!(r#""Comment":"","{name}":{value}"#)),
        );
    }
    let twice = REQUEST.replace(r#""Priority":0"#, r#""Priority":0,"newsmartcarduuid":null"#);
    assert!(matches!(requests(twice.as_bytes(), &[record_id()]), Err(ParseError::Invalid(_))));
}

#[test]
fn other_json_is_not_a_card() {
    for body in
        [r#""ok""#, "true", "17", "-1", "1.5", "{}", r#"{"Message":"gone"}"#, "[[]]", "[17]"]
    {
        assert_foreign(body);
    }
}

#[test]
fn incomplete_json_is_reported_even_after_wrong_card() {
    for body in ["<html>", "Service Unavailable", "{", r#"{"Uuid"#, "[{},", "nul", "[] []", "{}x"] {
        assert_not_json(body.as_bytes());
    }
    for cut in [1, 17, CARD.len() / 2, CARD.len() - 1] {
        assert_not_json(&CARD.as_bytes()[..cut]);
    }
    assert_not_json(br#"[{"Status":2}, {"Uu"#);
    assert_not_json(b"{\"Uuid\":\"\xff\xfe\"}");
    assert_not_json("[".repeat(100_000).as_bytes());
    assert_not_json("{\"a\":".repeat(100_000).as_bytes());
}

#[test]
fn only_requests_about_a_wanted_record_are_kept() {
    let other = REQUEST.replace(RECORD_ID, "99cf063d-e337-4aa9-a822-346554ddd3c9");
    let unset = REQUEST.replace(RECORD_ID, "00000000-0000-0000-0000-000000000000");
    let broken = r#"{"Uuid":null,"OldSmartcardUuid":"nonsense"}"#;
    let old = REQUEST.replacen(RECORD_ID, "00000000-0000-0000-0000-000000000000", 1);
    let body = format!("[{other},{unset},{broken},null,{old}]");
    let request = one_request(&body);
    assert_eq!((request.old_card, request.new_card), (Some(record_id()), None));
    assert!(requests(body.as_bytes(), &[]).unwrap().is_empty());
}

#[test]
fn a_request_about_the_card_that_lacks_its_id_or_type_is_wrong() {
    for property in ["\"Uuid\":", "\"RequestType\":", "\"Status\":"] {
        let body = REQUEST.replace(property, "\"Lost\":");
        let read = requests(body.as_bytes(), &[record_id()]);
        assert!(matches!(read, Err(ParseError::Invalid(_))), "{property} {read:?}");
    }
}

#[test]
fn a_long_list_keeps_only_what_is_wanted() {
    let other = REQUEST.replace(RECORD_ID, "99cf063d-e337-4aa9-a822-346554ddd3c9");
    let body = format!("[{}{REQUEST}]", format!("{other},").repeat(3000));
    assert_eq!(one_request(&body).submitted, Some("2015-07-07T23:40:33.133Z".parse().unwrap()));
}

#[test]
fn times_are_read_with_any_fraction_and_unset_ones_are_none() {
    let submitted =
        |text: &str| one_request(&REQUEST.replace("2015-07-07T23:40:33.133Z", text)).submitted;
    for (text, instant) in [
        ("2015-07-07T23:40:33Z", "2015-07-07T23:40:33Z"),
        ("2015-07-07T23:40:33.1Z", "2015-07-07T23:40:33.100Z"),
        ("2015-07-07T23:40:33.13Z", "2015-07-07T23:40:33.130Z"),
        ("2015-07-08T01:40:33.133+02:00", "2015-07-07T23:40:33.133Z"),
    ] {
        assert_eq!(submitted(text), Some(instant.parse().unwrap()), "{text}");
    }
    for text in ["0001-01-01T00:00:00", "0001-01-01T00:00:00Z", "2015-07-07T23:40:33", "soon", ""] {
        assert_eq!(submitted(text), None, "{text}");
    }
}

#[test]
fn where_a_request_stands_is_read_from_the_request_itself() {
    let statuses = |body: &str| request_statuses(body.as_bytes());
    let id = "0c96d73f-967b-420e-854a-43ad2a1504bc".parse().unwrap();
    assert_eq!(statuses(REQUEST).unwrap(), [(id, RequestStatus::new(3))]);
    assert_eq!(statuses(&format!("[{REQUEST},{REQUEST}]")).unwrap().len(), 1);
    for none in ["", "null", "[]"] {
        assert_eq!(statuses(none).unwrap(), [], "{none}");
    }
    assert!(matches!(statuses(r#"{"Uuid":"x","Status":3}"#), Err(ParseError::Invalid(_))));
    assert!(matches!(statuses(r#"{"Message":"x"}"#), Err(ParseError::NotCm(..))));
    assert!(matches!(statuses(r#"{"Uuid":"x""#), Err(ParseError::NotJson(_))));
}

#[test]
fn a_status_update_is_exact() {
    assert_eq!(status_update("Retired"), r#"{"status":"Retired"}"#);
    assert_eq!(status_update("a\"b"), r#"{"status":"a\"b"}"#);
}

#[test]
fn words_and_correlation_id_are_found_in_every_form_of_complaint() {
    let id = "6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10";
    let text = format!("An error occurred. Correlation ID: {id}");
    for body in [
        format!(r#"{{"Message":"{text}"}}"#),
        format!(r#"{{"message":"{text}","ExceptionMessage":"x"}}"#),
        format!("\"{text}\""),
        format!("\u{feff}{text}\r\n"),
        format!("<html><head><title>{text}</title></head><body>y</body></html>"),
        format!("<p>An error occurred.</p> <b>Correlation ID: {{{}}}</b>", id.to_uppercase()),
    ] {
        let found = error_text(body.as_bytes());
        assert_eq!(found.correlation_id.as_deref(), Some(id), "{body}");
        assert!(found.message.starts_with("An error occurred. Correlation ID: "), "{found:?}");
    }
}

#[test]
fn a_correlation_id_is_preferred_to_the_other_ids_of_a_message() {
    let found = error_text(
        br#"{"Message":"Card 17cf063d-e337-4aa9-a822-346554ddd3c9 failed, correlatie-id 6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10"}"#,
    );
    assert_eq!(found.correlation_id.as_deref(), Some("6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10"));
    assert_eq!(error_text(b"no id, 17cf063d-e337-4aa9-a822-346554ddd3c9aa").correlation_id, None);
}

#[test]
fn a_page_is_never_handed_on_whole() {
    let page = format!(
        "<!DOCTYPE html><html><head><title>\r\n 404 -\tFile\u{1b}[31m not found </title><style>b{{}}</style></head><body>{}</body>",
        "<p>secret</p>".repeat(5000)
    );
    assert_eq!(error_text(page.as_bytes()).message, "404 - File [31m not found");
    let long = error_text("é".repeat(5000).as_bytes()).message;
    assert_eq!(long.chars().count(), 201);
    assert_eq!(error_text(b"<html><title></title><b>Not</b>\0<i>here</i>").message, "Not here");
    assert_eq!(error_text(b"").message, "");
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&body);
    }

    #[test]
    fn no_damaged_answer_makes_the_readers_panic(
        at in 0..REQUEST.len(), byte in any::<u8>(), cut in 0..REQUEST.len()
    ) {
        let mut body = REQUEST.as_bytes().to_vec();
        body[at] = byte;
        for body in [&body[..], &body[..cut]] {
            read_all(body);
        }
    }

    #[test]
    fn no_text_makes_the_search_for_words_panic(text in ".*<?title>?.*</?.*") {
        let found = error_text(text.as_bytes());
        prop_assert!(found.message.chars().count() <= 201);
        prop_assert!(!found.message.chars().any(char::is_control));
    }
}
