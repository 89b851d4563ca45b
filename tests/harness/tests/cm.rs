//! The CM simulator, looked at through a client of a few lines.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a test's helpers may fail the test"
)]

#[path = "cm/client.rs"]
mod client;

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cardbridge_harness::cm::{
    BASE_PATH, Casing, Certificate, Cm, CmOptions, Fault, Record, Request, Stage, Store,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use uuid::Uuid;

use client::{Reply, call_text, connect, talk, try_call};

const LONG: Duration = Duration::from_secs(10);
const CARD: &str = "/smartcards?cardid=bc88f13f-83ba-4037-8262-46eba1291c6e";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";
const REQUEST: &str = "b105403d-d021-41ea-9f11-be3d677d229e";
const RETIRED: &str = r#"{"status":"Retired"}"#;

fn call(cm: &Cm, method: &str, path: &str, body: &str) -> Reply {
    try_call(cm, method, path, body).expect("an answer")
}

fn get(cm: &Cm, path: &str) -> Reply {
    call(cm, "GET", path, "")
}

fn put_card() -> String {
    format!("/requests/{REQUEST}/smartcards/{RECORD}")
}

fn seed() -> Cm {
    Cm::seed().expect("the simulator starts")
}

fn id(text: &str) -> Uuid {
    text.parse().expect("a GUID")
}

#[test]
fn card_is_found_with_any_path_case() {
    let cm = seed();
    let card = get(&cm, CARD).json();
    assert_eq!(card["Uuid"], RECORD);
    assert_eq!(card["Status"], 2);
    let wire = connect(&cm).unwrap();
    let path =
        "/certificatemanagement/API/V1.0/SmartCards?CardId=BC88F13F-83BA-4037-8262-46EBA1291C6E";
    assert_eq!(talk(wire, &call_text("GET", path, "", "")).unwrap().json(), card);
    assert_eq!(get(&cm, &format!("/smartcards/{RECORD}")).json(), card);
    let operations = get(&cm, &format!("/smartcards/{RECORD}/operations"));
    assert_eq!(operations.body, br#"["renew","unblock","retire"]"#);
}

#[test]
fn several_records_of_a_card_come_as_an_array_and_none_as_204() {
    let cm = seed();
    let card = id("bc88f13f-83ba-4037-8262-46eba1291c6e");
    cm.add_record(Record::of_card(card));
    assert_eq!(get(&cm, CARD).json().as_array().unwrap().len(), 2);
    let none = get(&cm, "/smartcards?cardid=00000000-0000-4000-8000-000000000001");
    assert_eq!((none.status, none.body.len()), (204, 0));
    assert!(!none.head.contains("Content-Length"));
    assert_eq!(get(&cm, "/smartcards?cardid=nonsense").status, 500);
}

#[test]
fn requests_are_filtered_by_the_name_of_their_status() {
    let cm = seed();
    let approved = get(&cm, "/requests?status=Approved").json();
    assert_eq!(approved[0]["Uuid"], REQUEST);
    assert_eq!(approved[0]["RequestType"], 7);
    assert_eq!(approved[0]["Completed"], "0001-01-01T00:00:00");
    assert!(approved[0]["SecurityDescriptor"].as_str().unwrap().ends_with('\0'));
    assert_eq!(get(&cm, "/requests?status=Executing").body, b"[]");
    assert_eq!(get(&cm, "/requests?status=Sleeping").status, 500);
    assert_eq!(get(&cm, &format!("/requests/{REQUEST}")).json(), approved[0]);
    assert_eq!(get(&cm, "/profiletemplates").json().as_array().unwrap().len(), 1);
}

#[test]
fn put_sets_status_and_request_executing() {
    let cm = seed();
    let answer = call(&cm, "PUT", &put_card(), RETIRED);
    assert_eq!((answer.status, &answer.json()["Status"]), (200, &6.into()));
    assert_eq!(cm.record(id(RECORD)).unwrap().status, 6);
    assert_eq!(cm.request(id(REQUEST)).unwrap().status, 18);
    assert_eq!(get(&cm, "/requests?status=Executing").json()[0]["Uuid"], REQUEST);
    let puts = cm.puts();
    assert_eq!(puts.len(), 1);
    assert!(puts[0].applied && puts[0].finished);
    assert_eq!((puts[0].status, puts[0].body.as_str()), (Some(200), RETIRED));

    let path = format!("/requests/{REQUEST}");
    let answer = call(&cm, "PUT", &path, r#"{"status":"Completed"}"#);
    assert_eq!((answer.status, &answer.json()["Status"]), (200, &8.into()));
    assert_eq!(call(&cm, "PUT", &put_card(), RETIRED).status, 403, "not open any more");
}

#[test]
fn a_put_that_the_request_does_not_cover_is_forbidden() {
    let cm = seed();
    let stranger = Record::of_card(Uuid::new_v4());
    cm.add_record(stranger.clone());
    let path = format!("/requests/{REQUEST}/smartcards/{}", stranger.uuid);
    assert_eq!(call(&cm, "PUT", &path, RETIRED).status, 403);
    for status in [0, 4, 8, 9, 16, 17] {
        let request = Request { status, ..Request::seed() };
        cm.add_request(request);
        assert_eq!(call(&cm, "PUT", &put_card(), RETIRED).status, 403, "status {status}");
    }
    assert_eq!(cm.record(id(RECORD)).unwrap().status, 2);
    assert!(cm.puts().iter().all(|put| !put.applied));
}

#[test]
fn invalid_put_returns_correlation_id() {
    let cm = seed();
    for body in [r#"{"status":"Sleeping"}"#, r#"{"status":6}"#, "", "nonsense"] {
        let answer = call(&cm, "PUT", &put_card(), body);
        assert_eq!(answer.status, 500, "{body}");
        let message = answer.json()["Message"].as_str().unwrap().to_owned();
        assert!(message.contains("Correlation id: "), "{message}");
    }
    assert_eq!(cm.request(id(REQUEST)).unwrap().status, 3);
}

#[test]
fn posts_answer_201_with_a_uri_as_a_json_string() {
    let cm = seed();
    let body = format!(
        r#"{{"type":"Disable","smartcard":"{RECORD}","datacollection":"[]","comment":""}}"#
    );
    let answer = call(&cm, "POST", "/requests", &body);
    let uri = answer.json().as_str().unwrap().to_owned();
    let request = id(uri.strip_prefix("api/v1.0/requests/").unwrap());
    assert_eq!(answer.status, 201);
    let opened = cm.request(request).unwrap();
    assert_eq!(
        (opened.status, opened.request_type, opened.old_smartcard_uuid),
        (16, 4, id(RECORD))
    );
    let bind = format!(r#"{{"requestid":"{request}","cardid":"{}"}}"#, Uuid::new_v4());
    assert_eq!(call(&cm, "POST", "/smartcards", &bind).status, 403, "still pending");
    cm.change_state(|store| store.approve(request));
    let answer = call(&cm, "POST", "/smartcards", &bind);
    let uri = answer.json().as_str().unwrap().to_owned();
    let record = id(uri.strip_prefix("api/v1.0/smartcards/").unwrap());
    assert_eq!((answer.status, cm.record(record).unwrap().status), (201, 1));
}

#[test]
fn request_keeps_its_fields_and_lists_are_per_caller() {
    let cm = seed();
    let (template, user) = (Uuid::new_v4(), Uuid::new_v4());
    let body = format!(
        r#"{{"type":"Retire","smartcard":"{RECORD}","datacollection":"[]","comment":"left",
            "priority":2,"profiletemplateuuid":"{template}","target":"{user}"}}"#
    );
    let uri = call(&cm, "POST", "/requests", &body).json().as_str().unwrap().to_owned();
    let opened = cm.request(id(uri.rsplit('/').next().unwrap())).unwrap();
    assert_eq!((opened.comment.as_str(), opened.priority), ("left", 2));
    assert_eq!((opened.profile_template_uuid, opened.target_user_uuid), (template, user));
    let list = |user: &str| get(&cm, &format!("/requests?status=Pending&targetuser={user}"));
    assert_eq!(list("current").json().as_array().unwrap().len(), 1);
    assert_eq!(list("stranger").status, 500);
}

#[test]
fn upper_case_guids_and_unknown_routes() {
    let cm = Cm::start(CmOptions {
        store: Store {
            records: vec![Record { casing: Casing::Upper, ..Record::seed() }],
            requests: Vec::new(),
        },
        ..CmOptions::default()
    })
    .unwrap();
    assert_eq!(get(&cm, CARD).json()["Uuid"], RECORD.to_uppercase());
    for path in ["/nowhere", "requests?status=Approved"] {
        let unknown = get(&cm, path);
        assert!(unknown.status == 404 && unknown.is_html(), "{path}");
    }
    assert!(call(&cm, "DELETE", CARD, "").is_html());
}

#[test]
fn a_bearer_token_is_asked_for() {
    let cm = seed();
    cm.set_bearer(Some("secret"));
    let stranger = get(&cm, CARD);
    assert!(stranger.status == 401 && stranger.is_html());
    assert!(stranger.head.contains("WWW-Authenticate: Bearer"));
    let wire = connect(&cm).unwrap();
    let text =
        call_text("GET", &format!("{BASE_PATH}{CARD}"), "", "Authorization: Bearer secret\r\n");
    assert_eq!(talk(wire, &text).unwrap().status, 200);
    assert_eq!(cm.log()[1].header("authorization"), Some("Bearer secret"));
}

fn get_over_tls(cm: &Cm) -> io::Result<Reply> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(cm.ca_pem_path().unwrap()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let wire = rustls::StreamOwned::new(session, connect(cm)?);
    talk(wire, &call_text("GET", &format!("{BASE_PATH}{CARD}"), "", ""))
}

#[test]
fn https_with_a_good_and_with_bad_certificates() {
    let start = |certificate| {
        let store = Store::seed();
        let tls = Some(certificate);
        Cm::start(CmOptions { store, tls, ..CmOptions::default() }).unwrap()
    };
    let good = start(Certificate::Good);
    assert!(good.url().starts_with("https://127.0.0.1:"));
    assert_eq!(get_over_tls(&good).unwrap().status, 200);
    for certificate in [Certificate::WrongName, Certificate::Expired] {
        let bad = start(certificate);
        let error = get_over_tls(&bad).unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        assert!(bad.log().is_empty());
    }
}

#[test]
fn simulated_outage_refuses_connections_and_keeps_port() {
    let cm = seed();
    let open = connect(&cm).unwrap();
    assert_eq!(get(&cm, CARD).status, 200);
    cm.go_away().unwrap();
    assert_eq!((&open).read(&mut [0]).unwrap(), 0, "open connections are cut");
    let error = try_call(&cm, "GET", CARD, "").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    cm.come_back().unwrap();
    assert_eq!(get(&cm, CARD).status, 200);
    assert_eq!(cm.log().len(), 2);
}

#[test]
fn faults_replace_answers() {
    let cm = seed();
    let correlation = Uuid::new_v4();
    let retry_after = Some(7);
    let cases = [
        (Fault::Unauthorized, 401, "WWW-Authenticate: Negotiate"),
        (Fault::Forbidden, 403, "application/json"),
        (Fault::HtmlNotFound, 404, "text/html"),
        (Fault::HtmlMethodNotAllowed, 405, "Allow: GET"),
        (Fault::TooManyRequests { retry_after }, 429, "Retry-After: 7"),
        (Fault::Unavailable { retry_after }, 503, "Retry-After: 7"),
        (Fault::ServerError { correlation }, 500, "application/json"),
        (Fault::HtmlOk, 200, "text/html"),
        (Fault::NoContent, 204, "Server: Microsoft-IIS"),
    ];
    for (fault, status, header) in cases {
        cm.set_fault(fault.clone().times(1));
        let answer = call(&cm, "PUT", &put_card(), RETIRED);
        assert_eq!(answer.status, status, "{fault:?}");
        assert!(answer.head.contains(header), "{fault:?}: {}", answer.head);
        let entry = cm.puts().pop().unwrap();
        assert!(!entry.applied && entry.faults.len() == 1, "{entry:?}");
    }
    assert_eq!(cm.record(id(RECORD)).unwrap().status, 2);
    assert_eq!(call(&cm, "PUT", &put_card(), RETIRED).status, 200, "faults are used up");
}

#[test]
fn faults_alter_answers_after_applied_call() {
    let cm = seed();
    let bent = |fault: Fault| {
        cm.set_fault(fault.times(1));
        get(&cm, CARD)
    };
    assert_eq!(bent(Fault::Bom).body[..4], [0xEF, 0xBB, 0xBF, b'{']);
    assert_eq!(bent(Fault::ArrayForObject).json()[0]["Uuid"], RECORD);
    assert_ne!(bent(Fault::OtherUuid).json()["Uuid"], RECORD);
    let truncated = bent(Fault::TruncatedJson).body;
    assert!(serde_json::from_slice::<Value>(&truncated).is_err());
    let cut = bent(Fault::CutInBody);
    let promised = format!("Content-Length: {}", cut.body.len());
    assert!(!cut.head.contains(&promised), "{cut:?}");
    let chunked = bent(Fault::Chunked);
    assert!(chunked.head.contains("Transfer-Encoding: chunked"));
    assert!(chunked.body.ends_with(b"\r\n0\r\n\r\n"));
    let huge = bent(Fault::Huge { bytes: 3_000_000 });
    assert!(huge.body.len() == 3_000_000 && huge.json().is_string());
    let after = Fault::ServerErrorAfter { correlation: Uuid::new_v4() };
    cm.set_fault(after.times(1));
    assert_eq!(call(&cm, "PUT", &put_card(), RETIRED).status, 500);
    assert!(cm.puts()[0].applied);
}

#[test]
fn a_lost_answer_is_applied_and_a_reset_is_not() {
    let cm = seed();
    cm.set_fault(Fault::Reset.method("PUT"));
    let error = try_call(&cm, "PUT", &put_card(), RETIRED).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(cm.record(id(RECORD)).unwrap().status, 2);
    assert_eq!(get(&cm, CARD).status, 200, "only PUT is hit");
    cm.clear_faults();
    cm.set_fault(Fault::AnswerLost.path("/SMARTCARDS/").times(1));
    assert!(try_call(&cm, "PUT", &put_card(), RETIRED).is_err());
    assert_eq!(cm.record(id(RECORD)).unwrap().status, 6);
    let puts = cm.puts();
    let seen: Vec<_> = puts.iter().map(|put| (put.applied, put.finished, put.status)).collect();
    assert_eq!(seen, [(false, true, None), (true, true, None)]);
}

#[test]
fn a_held_call_goes_on_when_it_is_released() {
    let cm = seed();
    cm.set_fault(Fault::HoldBefore.method("PUT"));
    cm.set_fault(Fault::HoldAfter.method("PUT"));
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| call(&cm, "PUT", &put_card(), RETIRED));
        let held = cm.wait_held(LONG).unwrap();
        assert_eq!((held.stage, held.call.method.as_str()), (Stage::BeforeApply, "PUT"));
        assert_eq!(cm.record(id(RECORD)).unwrap().status, 2);
        assert_eq!(get(&cm, CARD).status, 200, "others are not held up");
        held.release();
        let held = cm.wait_held(LONG).unwrap();
        assert_eq!(held.stage, Stage::AfterApply);
        assert_eq!(cm.record(id(RECORD)).unwrap().status, 6);
        assert!(!answer.is_finished());
        held.release();
        assert_eq!(answer.join().unwrap().status, 200);
    });
}

#[test]
fn slow_call_delays_answer_within_limit() {
    let cm = seed();
    cm.set_fault(Fault::Slow { ms: 200 });
    let start = Instant::now();
    assert_eq!(get(&cm, CARD).status, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    let limit = Duration::from_millis(50);
    let error = cm.wait_for("a PUT", limit, |log| log.iter().any(|entry| entry.method == "PUT"));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a PUT") && error.contains("GET "), "{error}");
    cm.wait_for("a GET", LONG, |log| log.len() == 1).unwrap();
}

#[test]
fn the_control_api_sets_faults_and_shows_the_log() {
    let cm = Cm::start(CmOptions { store: Store::seed(), control: true, ..CmOptions::default() })
        .unwrap();
    let sim = |method: &str, path: &str, body: &str| {
        let wire = connect(&cm).unwrap();
        talk(wire, &call_text(method, path, body, "")).unwrap()
    };
    let fault = r#"{"fault":"unavailable","retry_after":3,"times":1,"path":"cardid"}"#;
    assert_eq!(sim("POST", "/_sim/faults", fault).status, 204);
    assert_eq!(sim("GET", "/_sim/faults", "").json()[0]["fault"], "unavailable");
    assert_eq!(get(&cm, CARD).status, 503);
    assert_eq!(sim("GET", "/_sim/log", "").json()[0]["status"], 503);
    assert_eq!(sim("GET", "/_sim/state", "").json()["Records"][0]["Uuid"], RECORD);
    assert_eq!(sim("POST", "/_sim/records", r#"{"Uuid":"x"}"#).status, 500);
    assert_eq!(cm.log().len(), 1, "the control API is not logged");
    assert_eq!(sim("POST", "/_sim/away/300", "").status, 204);
    let refused = || try_call(&cm, "GET", CARD, "").is_err();
    cardbridge_harness::process::wait_until("away", LONG, refused).unwrap();
    cardbridge_harness::process::wait_until("back", LONG, || !refused()).unwrap();
    let off = seed();
    let wire = connect(&off).unwrap();
    assert_eq!(talk(wire, &call_text("GET", "/_sim/log", "", "")).unwrap().status, 404);
}

#[test]
fn a_fault_can_be_for_one_of_the_two_puts_of_a_request() {
    let cm = seed();
    cm.set_fault(Fault::Forbidden.times(1).method("PUT").body("Completed"));
    cm.set_fault(Fault::NoContentAfter.times(1).method("PUT").body("Completed"));
    assert_eq!(call(&cm, "PUT", &put_card(), RETIRED).status, 200);
    let complete =
        || call(&cm, "PUT", &format!("/requests/{REQUEST}"), r#"{"status":"Completed"}"#);
    assert_eq!(complete().status, 403);
    assert_eq!(cm.request(id(REQUEST)).unwrap().status, 18, "refused, not completed");
    assert_eq!(complete().status, 200);
    assert_eq!(cm.request(id(REQUEST)).unwrap().status, 8);
    assert_eq!(complete().status, 403, "it is completed once");
}
