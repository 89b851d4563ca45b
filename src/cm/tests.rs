mod certificates;
mod echoes;
mod failures;
mod log;
mod oauth2;
mod proxies;
mod server;
mod sessions;
mod tls;

use std::env;
use std::io::Write as _;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::config::{
    AuthSettings, ClientAuthSettings, ClientCertSettings, OAuth2Settings, ProxySettings,
};
use crate::domain::{Candidate, CardStatus, Family, IdRule, Serial};
use server::{Reply, Seen, Server, answer};

const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";
const SECOND: &str = "3ff188bc-ba83-3740-8262-46eba1291c6e";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";
const REQUEST: &str = "b105403d-d021-41ea-9f11-be3d677d229e";
const BASE: &str = "/CertificateManagement/api/v1.0";
const OK: &str = "200 OK";

fn options(url: String) -> CmSettings {
    CmSettings {
        url,
        api_path: BASE.to_owned(),
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ca_file: None,
        proxy: ProxySettings::None,
        auth: AuthSettings::None,
        client_certificate: None,
        concurrency: NonZeroUsize::MIN,
    }
}

fn new_client(settings: CmSettings) -> Result<CmClient, Problem> {
    CmClient::new(settings, CmEnums::default())
}

fn remote(server: &Server) -> CmClient {
    new_client(options(format!("http://{}", server.address))).unwrap()
}

/// A server that answers every request in the same way, and a client of it.
fn world(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Server, CmClient) {
    let server = Server::start(move |_| reply());
    let remote = remote(&server);
    (server, remote)
}

/// Whether this test has a process of its own. If not, it is run in one, and that is it.
pub(super) fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    const MARK: &str = "CARDBRIDGE_TEST_ALONE";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{stderr}");
    false
}

fn identity() -> CardIdentity {
    let candidate = |id: &str, rule| Candidate::by_rule(id.parse().unwrap(), rule);
    let rest = vec![candidate(SECOND, IdRule::GidsCardidBe)];
    let first = candidate(CARD, IdRule::GidsCardid);
    CardIdentity::new(Family::Gids, Serial::from_bytes(&[1]), first, rest)
}

fn decision() -> Decision {
    Decision {
        rule: "retire".to_owned(),
        candidate: identity().primary().clone(),
        record: record_id(),
        request: REQUEST.parse().unwrap(),
        old_status: CardStatus::new(2),
        new_status: CardStatus::new(6),
        new_status_name: "Retired".to_owned(),
        complete_request: false,
    }
}

fn record_id() -> RecordId {
    RECORD.parse().unwrap()
}

fn card_json(serial: &str, status: i64) -> String {
    format!(r#"{{"Uuid":"{RECORD}","Status":{status},"SerialNumber":"{{{serial}}}"}}"#)
}

fn request_json() -> String {
    format!(r#"[{{"Uuid":"{REQUEST}","RequestType":7,"Status":3,"OldSmartcardUuid":"{RECORD}"}}]"#)
}

/// A CM that knows the card under `serial`, and a request to retire it.
fn cm(serial: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        let body = match seen.target.strip_prefix(BASE).unwrap() {
            target if target == format!("/smartcards?cardid={serial}") => card_json(serial, 2),
            target if target == format!("/smartcards/{RECORD}") => card_json(serial, 2),
            target if target == format!("/requests/{REQUEST}/smartcards/{RECORD}") => {
                card_json(serial, 6)
            }
            "/requests?status=Approved" => request_json(),
            _ => "null".to_owned(),
        };
        Reply::Answer(answer(OK, "Content-Type: application/json\r\n", &body))
    }
}

fn targets(server: &Server) -> Vec<String> {
    let mut targets: Vec<_> =
        server.seen().iter().map(|seen| seen.target.replace(BASE, "")).collect();
    targets.sort();
    targets
}

#[track_caller]
fn assert_away<T: std::fmt::Debug>(
    result: Result<T, CallError>,
    expected: UnavailableReason,
) -> String {
    match result {
        Err(CallError::Unavailable { reason, detail, .. }) => {
            assert_eq!(reason, expected, "{detail}");
            detail
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lookup_asks_for_records_and_open_requests_and_joins_them() {
    let server = Server::start(cm(CARD));
    let found = remote(&server).lookup(&identity()).await.unwrap();
    let (candidate, records) = found.records.unwrap();
    assert_eq!(&candidate, identity().primary());
    assert_eq!(records[0].id, record_id());
    assert_eq!(found.requests[0].id, REQUEST.parse().unwrap());
    let card = format!("/smartcards?cardid={CARD}");
    assert_eq!(
        targets(&server),
        ["/requests?status=Approved", "/requests?status=Executing", &card]
    );
}

#[tokio::test]
async fn records_and_requests_are_asked_for_side_by_side() {
    // The server answers once all three calls are there.
    let all = Arc::new(std::sync::Barrier::new(3));
    let server = Server::start(move |seen| {
        all.wait();
        cm(CARD)(seen)
    });
    assert!(remote(&server).lookup(&identity()).await.unwrap().records.is_some());
}

#[tokio::test]
async fn a_second_candidate_is_asked_for_only_when_the_first_is_unknown() {
    let server = Server::start(cm(SECOND));
    let found = remote(&server).lookup(&identity()).await.unwrap();
    assert_eq!(found.records.unwrap().0.rule, IdRule::GidsCardidBe);
    assert_eq!(found.requests.len(), 1);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_card_that_cm_does_not_know_is_found_to_be_unknown() {
    let (server, remote) = world(|| Reply::Answer(answer("204 No Content", "", "")));
    let found = remote.lookup(&identity()).await.unwrap();
    assert_eq!(found, LookupResult { records: None, requests: Vec::new() });
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn every_call_says_what_it_wants_and_who_asks() {
    let server = Server::start(cm(CARD));
    remote(&server).lookup(&identity()).await.unwrap();
    for seen in server.seen() {
        assert_eq!(seen.method, "GET");
        assert!(seen.headers.contains(&"accept: application/json".to_owned()), "{seen:?}");
        let agent = concat!("user-agent: cardbridge/", env!("CARGO_PKG_VERSION"));
        assert!(seen.headers.contains(&agent.to_owned()), "{seen:?}");
        assert!(!seen.headers.iter().any(|line| line.starts_with("authorization")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_status_update_is_put_and_confirmed_by_the_record() {
    let server = Server::start(cm(CARD));
    let answer = remote(&server).set_status(&decision()).await;
    assert_eq!(answer, Ok(SetStatusResult::Confirmed(CardStatus::new(6))));
    let [seen] = server.seen().try_into().unwrap();
    assert_eq!(seen.method, "PUT");
    assert_eq!(seen.target, format!("{BASE}/requests/{REQUEST}/smartcards/{RECORD}"));
    assert_eq!(seen.body, r#"{"status":"Retired"}"#);
    assert!(seen.headers.contains(&"content-type: application/json".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_completion_is_put_and_confirmed_by_the_request() {
    let server = Server::start(|seen| {
        let status = if seen.method == "PUT" { 8 } else { 18 };
        let body = format!(r#"{{"Uuid":"{REQUEST}","RequestType":7,"Status":{status}}}"#);
        Reply::Answer(answer(OK, "Content-Type: application/json\r\n", &body))
    });
    let remote = remote(&server);
    let request = REQUEST.parse().unwrap();
    assert_eq!(remote.request_status(request).await, Ok(RequestStatus::new(18)));
    assert_eq!(remote.complete(request).await, Ok(CompleteRequestResult::Confirmed));
    let [read, put] = server.seen().try_into().unwrap();
    let target = format!("{BASE}/requests/{REQUEST}");
    assert_eq!(
        (read.method.as_str(), read.target, read.body.as_str()),
        ("GET", target.clone(), "")
    );
    assert_eq!((put.method.as_str(), &put.target), ("PUT", &target));
    assert_eq!(put.body, r#"{"status":"Completed"}"#);
    assert!(put.headers.contains(&"content-type: application/json".to_owned()), "{put:?}");
}

#[tokio::test]
async fn completion_reports_unconfirmed_lost_and_refused() {
    let request = || REQUEST.parse().unwrap();
    let (_server, unsaid) = world(|| Reply::Answer(answer("204 No Content", "", "")));
    assert_eq!(unsaid.complete(request()).await, Ok(CompleteRequestResult::Unconfirmed));
    let (_server, lost) = world(|| Reply::Cut(Vec::new()));
    assert_away(lost.complete(request()).await, UnavailableReason::Unreachable);
    let (_server, taken) = world(|| Reply::Answer(answer("405 Method Not Allowed", "", "")));
    assert_away(taken.complete(request()).await, UnavailableReason::MethodNotAllowed);
    let (_server, refused) = world(|| Reply::Answer(answer("403 Forbidden", "", "\"no\"")));
    let refused = refused.complete(request()).await;
    assert!(matches!(refused, Err(CallError::Refused { http_status: 403, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_record_is_read_back_by_its_own_id() {
    let server = Server::start(cm(CARD));
    assert_eq!(remote(&server).record(record_id()).await.unwrap().status, CardStatus::new(2));
    assert_eq!(targets(&server), [format!("/smartcards/{RECORD}")]);
}

#[tokio::test]
async fn empty_response_leaves_update_unconfirmed() {
    let (_server, remote) = world(|| Reply::Answer(answer("204 No Content", "", "")));
    assert_eq!(remote.set_status(&decision()).await, Ok(SetStatusResult::Unconfirmed));
}

#[tokio::test]
async fn an_update_that_a_page_answers_is_neither_done_nor_refused() {
    for body in ["<html><title>Sign in</title>", r#"{"Uuid":"17cf063d"#] {
        let (_server, remote) = world(move || Reply::Answer(answer(OK, "", body)));
        assert_away(remote.set_status(&decision()).await, UnavailableReason::NotCm);
    }
}

#[tokio::test]
async fn an_update_whose_answer_is_lost_is_sent_once() {
    let put = |seen: &Seen| seen.method == "PUT";
    let server =
        Server::start(move |seen| if put(seen) { Reply::Cut(Vec::new()) } else { cm(CARD)(seen) });
    let remote = remote(&server);
    // The update may go over a connection that served before: the case that clients like to repeat.
    remote.record(record_id()).await.unwrap();
    assert_away(remote.set_status(&decision()).await, UnavailableReason::Unreachable);
    assert_eq!(server.seen().iter().filter(|seen| put(seen)).count(), 1);
}

#[tokio::test]
async fn a_404_everywhere_is_the_api_switched_off_and_one_404_is_not() {
    let missing = || Reply::Answer(answer("404 Not Found", "", "<title>404</title>"));
    let (_server, all) = world(missing);
    assert_away(all.lookup(&identity()).await, UnavailableReason::ApiDisabled);
    let one = all.record(record_id()).await;
    assert!(matches!(one, Err(CallError::Failed { http_status: 404, .. })), "{one:?}");
    let server =
        Server::start(
            move |seen| {
                if seen.target.contains("cardid") { missing() } else { cm(CARD)(seen) }
            },
        );
    let only_records = remote(&server).lookup(&identity()).await;
    assert!(matches!(only_records, Err(CallError::Failed { http_status: 404, .. })));
}

#[tokio::test]
async fn a_lookup_that_is_half_refused_and_half_away_waits() {
    let server = Server::start(|seen| {
        let status =
            if seen.target.contains("cardid") { "403 Forbidden" } else { "502 Bad Gateway" };
        Reply::Answer(answer(status, "", ""))
    });
    assert_away(remote(&server).lookup(&identity()).await, UnavailableReason::ServerError);
}

#[tokio::test]
async fn what_cm_says_about_its_failure_is_handed_on() {
    let body = format!(r#"{{"Message":"Failed. Correlation Id: {REQUEST}"}}"#);
    let (_server, remote) =
        world(move || Reply::Answer(answer("500 Internal Server Error", "", &body)));
    let failed = CallError::Failed {
        http_status: 500,
        detail: format!("Failed. Correlation Id: {REQUEST}"),
        correlation_id: Some(REQUEST.to_owned()),
        retry_after: None,
    };
    assert_eq!(remote.set_status(&decision()).await, Err(failed));
}

#[tokio::test]
async fn a_token_goes_along_and_is_read_again_when_it_changes() {
    let server = Server::start(cm(CARD));
    let mut token_file = tempfile::NamedTempFile::new().unwrap();
    token_file.write_all(b"first\n").unwrap();
    let auth = AuthSettings::Bearer { token_file: token_file.path().to_owned() };
    let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
    let remote = new_client(options).unwrap();
    remote.record(record_id()).await.unwrap();
    token_file.write_all(b" ").unwrap();
    remote.record(record_id()).await.unwrap();
    std::fs::write(token_file.path(), "second").unwrap();
    remote.record(record_id()).await.unwrap();
    let sent: Vec<_> = server.seen().iter().flat_map(|seen| seen.headers.clone()).collect();
    let tokens: Vec<_> = sent.iter().filter(|line| line.starts_with("authorization")).collect();
    let first = "authorization: bearer first";
    assert_eq!(tokens, [first, first, "authorization: bearer second"]);
}

#[tokio::test]
async fn without_its_token_nothing_is_sent() {
    let server = Server::start(cm(CARD));
    let auth = AuthSettings::Bearer { token_file: "/nonexistent/token".into() };
    let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
    let detail = assert_away(
        new_client(options).unwrap().set_status(&decision()).await,
        UnavailableReason::Credentials,
    );
    assert!(detail.contains("/nonexistent/token"), "{detail}");
    assert!(server.seen().is_empty());
}

#[test]
fn a_url_is_built_from_what_the_configuration_says() {
    let url = |url: &str, api_path: &str| {
        let options = CmSettings { api_path: api_path.to_owned(), ..options(url.to_owned()) };
        api::base_url(&options).map(|base| ApiCall::Record(record_id()).url(&base).to_string())
    };
    let whole =
        format!("https://cm.example.com/CertificateManagement/api/v1.0/smartcards/{RECORD}");
    for (base, path) in [
        ("https://cm.example.com", BASE),
        ("https://cm.example.com/", "CertificateManagement/api/v1.0/"),
        ("https://cm.example.com:443/CertificateManagement", "/api/v1.0"),
    ] {
        assert_eq!(url(base, path).unwrap(), whole);
    }
    let bare = format!("https://cm.example.com/smartcards/{RECORD}");
    assert_eq!(url("https://cm.example.com", "").unwrap(), bare);
    for bad in
        ["cm.example.com", "ftp://cm", "mailto:cm", "https://", "https://cm/?a", "https://cm/#a"]
    {
        let Err(problem) = url(bad, BASE) else { panic!("{bad} was taken") };
        assert!(problem.what.starts_with("cm.url "), "{problem}");
    }
    let error = url("https://user:s3cret@cm", BASE).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn every_call_can_be_made_from_another_task() {
    fn assert_send<T: Send>(_: &T) {}
    let remote = new_client(options("http://127.0.0.1:9".to_owned())).unwrap();
    let (identity, decision) = (identity(), decision());
    assert_send(&remote.lookup(&identity));
    assert_send(&remote.record(record_id()));
    assert_send(&remote.set_status(&decision));
}
