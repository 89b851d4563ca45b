mod server;
mod tls;

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::domain::{Candidate, CardStatus, Family, IdRule, Serial};
use server::{Reply, Seen, Server, answer};

const CARD: &str = "bc88f13f-83ba-4037-8262-46eba1291c6e";
const SECOND: &str = "3ff188bc-ba83-3740-8262-46eba1291c6e";
const RECORD: &str = "17cf063d-e337-4aa9-a822-346554ddd3c9";
const REQUEST: &str = "b105403d-d021-41ea-9f11-be3d677d229e";
const BASE: &str = "/CertificateManagement/api/v1.0";
const OK: &str = "200 OK";

fn options(url: String) -> Options {
    Options {
        url,
        api_path: BASE.to_owned(),
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ca_file: None,
        auth: Auth::None,
        numbers: Numbers::default(),
    }
}

fn remote(server: &Server) -> Remote {
    Remote::new(options(format!("http://{}", server.address))).unwrap()
}

/// A server that answers every request in the same way, and a client of it.
fn world(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Server, Remote) {
    let server = Server::start(move |_| reply());
    let remote = remote(&server);
    (server, remote)
}

fn identity() -> Identity {
    let candidate = |id: &str, rule| Candidate { card_id: id.parse().unwrap(), rule };
    let rest = vec![candidate(SECOND, IdRule::GidsCardidBe)];
    let first = candidate(CARD, IdRule::GidsCardid);
    Identity::new(Family::Gids, Serial::from_bytes(&[1]), first, rest)
}

fn decision() -> Decision {
    Decision {
        rule: "retire".to_owned(),
        candidate: identity().first().clone(),
        record: record_id(),
        request: REQUEST.parse().unwrap(),
        from: CardStatus::new(2),
        to: CardStatus::new(6),
        to_name: "Retired".to_owned(),
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
fn assert_away<T: std::fmt::Debug>(result: Result<T, CallError>, expected: AwayReason) -> String {
    match result {
        Err(CallError::Away { reason, detail, .. }) => {
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
    assert_eq!(&candidate, identity().first());
    assert_eq!(records[0].id, record_id());
    assert_eq!(found.requests[0].id, REQUEST.parse().unwrap());
    let card = format!("/smartcards?cardid={CARD}");
    assert_eq!(
        targets(&server),
        ["/requests?status=Approved", "/requests?status=Executing", &card]
    );
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
    assert_eq!(found, Found { records: None, requests: Vec::new() });
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_person_can_look_up_an_id_that_no_card_gave() {
    let server = Server::start(cm(CARD));
    let known = remote(&server).lookup_by_card_id(CARD.parse().unwrap()).await.unwrap();
    assert_eq!((known.records.len(), known.requests.len()), (1, 1));
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
    assert_eq!(answer, Ok(PutAnswer::Confirmed(CardStatus::new(6))));
    let [seen] = server.seen().try_into().unwrap();
    assert_eq!(seen.method, "PUT");
    assert_eq!(seen.target, format!("{BASE}/requests/{REQUEST}/smartcards/{RECORD}"));
    assert_eq!(seen.body, r#"{"status":"Retired"}"#);
    assert!(seen.headers.contains(&"content-type: application/json".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_record_is_read_back_by_its_own_id() {
    let server = Server::start(cm(CARD));
    assert_eq!(remote(&server).record(record_id()).await.unwrap().status, CardStatus::new(2));
    assert_eq!(targets(&server), [format!("/smartcards/{RECORD}")]);
}

#[tokio::test]
async fn an_update_that_is_not_confirmed_is_told_as_such() {
    let (_server, remote) = world(|| Reply::Answer(answer("204 No Content", "", "")));
    assert_eq!(remote.set_status(&decision()).await, Ok(PutAnswer::Unconfirmed));
}

#[tokio::test]
async fn an_update_that_a_page_answers_is_neither_done_nor_refused() {
    for body in ["<html><title>Sign in</title>", r#"{"Uuid":"17cf063d"#] {
        let (_server, remote) = world(move || Reply::Answer(answer(OK, "", body)));
        assert_away(remote.set_status(&decision()).await, AwayReason::NotCm);
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
    assert_away(remote.set_status(&decision()).await, AwayReason::Unreachable);
    assert_eq!(server.seen().iter().filter(|seen| put(seen)).count(), 1);
}

#[tokio::test]
async fn a_404_everywhere_is_the_api_switched_off_and_one_404_is_not() {
    let missing = || Reply::Answer(answer("404 Not Found", "", "<title>404</title>"));
    let (_server, all) = world(missing);
    assert_away(all.lookup(&identity()).await, AwayReason::ApiOff);
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
    assert_away(remote(&server).lookup(&identity()).await, AwayReason::ServerError);
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
    };
    assert_eq!(remote.set_status(&decision()).await, Err(failed));
}

#[tokio::test]
async fn a_request_to_come_back_later_is_obeyed() {
    let (_server, remote) =
        world(|| Reply::Answer(answer("503 Service Unavailable", "Retry-After: 90\r\n", "busy")));
    match remote.record(record_id()).await {
        Err(CallError::Away { reason: AwayReason::Busy, retry_after, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(90)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(cm(CARD));
    let location = format!("Location: http://{}{BASE}/x\r\n", elsewhere.address);
    let (server, remote) =
        world(move || Reply::Answer(answer("307 Temporary Redirect", &location, "")));
    let detail = assert_away(remote.set_status(&decision()).await, AwayReason::NotCm);
    assert_eq!(detail, "307 Temporary Redirect: the server redirects to 127.0.0.1");
    assert_eq!((server.seen().len(), elsewhere.seen().len()), (1, 0));
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_its_bound() {
    for status in [OK, "500 Internal Server Error"] {
        let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let (server, remote) =
            world(move || Reply::Flood(head.clone().into_bytes(), chunk.clone().into_bytes()));
        match remote.record(record_id()).await {
            Err(CallError::Away { reason: AwayReason::NotCm, detail, .. }) => {
                assert_eq!(detail, "the answer has more than 1048576 bytes");
            }
            Err(CallError::Failed { http_status: 500, .. }) => {}
            other => panic!("{other:?}"),
        }
        // What was sent beyond the bound stood in the sockets' buffers.
        assert!(server.flooded() < 24 << 20, "{} bytes", server.flooded());
    }
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_refused_at_once() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
    let (_server, remote) = world(|| Reply::Hang(head.to_vec()));
    let detail = assert_away(remote.record(record_id()).await, AwayReason::NotCm);
    assert_eq!(detail, "the answer has more than 1048576 bytes");
}

#[tokio::test]
async fn a_list_of_requests_may_be_longer_than_an_object() {
    let padding = " ".repeat(3 << 20);
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        "/requests?status=Approved" => {
            Reply::Answer(answer(OK, "", &format!("{padding}{}", request_json())))
        }
        _ => cm(CARD)(seen),
    });
    assert_eq!(remote(&server).lookup(&identity()).await.unwrap().requests.len(), 1);
}

#[tokio::test]
async fn an_answer_that_ends_too_early_is_not_cm() {
    for head in ["Content-Length: 900\r\n", "Transfer-Encoding: chunked\r\n"] {
        let cut = format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\n[{{\"Uu");
        let (_server, remote) = world(move || Reply::Cut(cut.clone().into_bytes()));
        let detail = assert_away(remote.record(record_id()).await, AwayReason::NotCm);
        assert!(detail.starts_with("the answer was cut short"), "{detail}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_a_timeout() {
    for start in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{"] {
        let server = Server::start(move |_| Reply::Hang(start.as_bytes().to_vec()));
        let timeout = Duration::from_millis(150);
        let options = Options { timeout, ..options(format!("http://{}", server.address)) };
        let detail = assert_away(
            Remote::new(options).unwrap().record(record_id()).await,
            AwayReason::Timeout,
        );
        assert_eq!(detail, "no whole answer within 150ms");
    }
}

#[tokio::test]
async fn a_status_is_believed_though_its_page_never_ends() {
    let head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 900\r\n\r\nnot you";
    let server = Server::start(|_| Reply::Hang(head.to_vec()));
    let timeout = Duration::from_millis(150);
    let options = Options { timeout, ..options(format!("http://{}", server.address)) };
    let refused = Remote::new(options).unwrap().record(record_id()).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { ref detail, .. } if detail == "not you"));
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let remote = Remote::new(options(format!("http://{closed}"))).unwrap();
    let detail = assert_away(remote.lookup(&identity()).await, AwayReason::Unreachable);
    assert_eq!(detail, format!("no connection to {closed}: Connection refused (os error 111)"));
}

#[tokio::test]
async fn a_connection_that_ends_before_an_answer_is_unreachable() {
    for start in ["", "HTTP/1.1 200"] {
        let (_server, remote) = world(move || Reply::Cut(start.as_bytes().to_vec()));
        let detail = assert_away(remote.record(record_id()).await, AwayReason::Unreachable);
        assert!(detail.contains("broke: connection closed"), "{detail}");
    }
}

#[tokio::test]
async fn a_port_where_something_else_talks_is_not_cm() {
    let (_server, remote) = world(|| Reply::Hang(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()));
    let detail = assert_away(remote.record(record_id()).await, AwayReason::NotCm);
    assert!(detail.contains("does not speak HTTP"), "{detail}");
}

#[tokio::test]
async fn a_token_goes_along_and_is_read_again_when_it_changes() {
    let server = Server::start(cm(CARD));
    let mut token_file = tempfile::NamedTempFile::new().unwrap();
    token_file.write_all(b"first\n").unwrap();
    let auth = Auth::Bearer { token_file: token_file.path().to_owned() };
    let options = Options { auth, ..options(format!("http://{}", server.address)) };
    let remote = Remote::new(options).unwrap();
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
    let auth = Auth::Bearer { token_file: "/nonexistent/token".into() };
    let options = Options { auth, ..options(format!("http://{}", server.address)) };
    let detail = assert_away(
        Remote::new(options).unwrap().set_status(&decision()).await,
        AwayReason::Credentials,
    );
    assert!(detail.contains("/nonexistent/token"), "{detail}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_call_is_logged_without_ids_bodies_or_tokens() {
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "s3cret").unwrap();
    let auth = Auth::Bearer { token_file: token_file.path().to_owned() };
    let server = Server::start(cm(CARD));
    let options = Options { auth, ..options(format!("http://{}", server.address)) };
    let log = Arc::new(Mutex::new(Vec::new()));
    let filter =
        tracing_subscriber::filter::Targets::new().with_target("cardbridge", tracing::Level::TRACE);
    let layer =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Tee(Arc::clone(&log)));
    let guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer));
    Remote::new(options).unwrap().set_status(&decision()).await.unwrap();
    drop(guard);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    for part in ["DEBUG", "PUT", "/requests/{reqid}/smartcards/{scid}", "status=200", "elapsed_ms"]
    {
        assert!(log.contains(part), "{log}");
    }
    for part in [RECORD, REQUEST, CARD, "s3cret", "Retired", "Uuid"] {
        assert!(!log.contains(part), "{log}");
    }
}

#[test]
fn a_url_is_built_from_what_the_configuration_says() {
    let url = |url: &str, api_path: &str| {
        let options = Options { api_path: api_path.to_owned(), ..options(url.to_owned()) };
        setup::base_url(&options).map(|base| Call::Record(record_id()).url(&base).to_string())
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
        assert!(matches!(url(bad, BASE), Err(SetupError::Url { .. })), "{bad}");
    }
    let error = url("https://user:s3cret@cm", BASE).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn every_call_can_be_made_from_another_task() {
    fn assert_send<T: Send>(_: &T) {}
    let remote = Remote::new(options("http://127.0.0.1:9".to_owned())).unwrap();
    let (identity, decision) = (identity(), decision());
    assert_send(&remote.lookup(&identity));
    assert_send(&remote.lookup_by_card_id(CARD.parse().unwrap()));
    assert_send(&remote.record(record_id()));
    assert_send(&remote.set_status(&decision));
}

/// Where a log goes that a test looks at.
struct Tee(Arc<Mutex<Vec<u8>>>);

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Tee {
    type Writer = TeeWriter;

    fn make_writer(&'a self) -> TeeWriter {
        TeeWriter(Arc::clone(&self.0))
    }
}

struct TeeWriter(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for TeeWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().map_err(|_| std::io::Error::other("a test failed"))?;
        log.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
