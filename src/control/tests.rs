use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardbridge_harness::require;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Receiver;

use super::server::BindError;
use super::*;
use crate::domain::{
    CallMetrics, CmOperation, CmView, CredentialsView, EngineCounters, Metrics, OutboxView,
    Outcome, ParkReason, PcscdView,
};
use crate::wire::control::MarkQuery;

/// Access for this process's user and root alone.
fn own() -> Access {
    Access::of(None, None, rustix::process::geteuid().as_raw())
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    (dir, path)
}

fn snapshot() -> StatusView {
    StatusView {
        station: "desk-3".to_owned(),
        version: "1".to_owned(),
        started_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        pcscd: PcscdView::Connecting,
        readers: vec![],
        cm: CmView::Unknown,
        outbox: OutboxView { waiting: 0, parked: 0, oldest_waiting_at: None, write_error: None },
        recent_audit: vec![],
        credentials: CredentialsView {
            method: "negotiate".to_owned(),
            identity: Some("desk-3@EXAMPLE.COM".to_owned()),
            valid_until: "2026-01-01T10:00:00Z".parse().ok(),
            renewal_error: None,
        },
        data_loss: None,
    }
}

fn metrics() -> Metrics {
    let mut calls = CallMetrics::default();
    calls.count(CmOperation::Lookup, None, Duration::from_millis(1500));
    let mut counters = EngineCounters::default();
    counters.outcomes.insert(Outcome::Parked(ParkReason::Refused), 3);
    let state = StatusView {
        outbox: OutboxView {
            waiting: 2,
            oldest_waiting_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            ..snapshot().outbox
        },
        ..snapshot()
    };
    Metrics {
        at: "2026-01-01T01:00:00Z".parse().unwrap(),
        state,
        counters,
        calls,
        pcsc_errors: [("NoService".to_owned(), 4)].into(),
        stuck_threads: 0,
    }
}

fn batch() -> ChainBatch {
    ChainBatch { lines: 7, faults: vec![], anchor: None, head: None, next: Some("16".to_owned()) }
}

/// Stands in for the daemon's loop.
fn serve(mut requests: Receiver<ControlRequest>) {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::Snapshot(reply) => drop(reply.send(snapshot())),
                ControlRequest::Metrics(reply) => drop(reply.send(metrics())),
                ControlRequest::Entries(reply) => drop(reply.send(vec![])),
                ControlRequest::Act { entry, act, by, reply } => {
                    assert!(by.ends_with(')') && by.contains(" (uid "), "{by}");
                    let result = match (entry.number(), act) {
                        (1, _) => Ok(()),
                        (2, _) => Err(EntryActionError::InProgress),
                        (3, EntryAction::Discard) => {
                            Err(EntryActionError::Store("full".to_owned()))
                        }
                        _ => Err(EntryActionError::NoSuchEntry),
                    };
                    drop(reply.send(result));
                }
                ControlRequest::Audit(query, reply) => {
                    assert_eq!(query.limit, Some(7));
                    assert!(query.since.is_some() && query.until.is_none());
                    drop(reply.send(Ok((vec![], Some("9@2026".to_owned())))));
                }
                ControlRequest::Mark(seq, reply) => {
                    let mark = ChainPosition { seq, at: None, hash: "ab".to_owned() };
                    drop(reply.send(Ok((seq == 7).then_some(mark))));
                }
                ControlRequest::Verify(query, reply) => {
                    assert_eq!(query.after.as_deref(), Some("9.aa.bb"));
                    drop(reply.send(Ok(batch())));
                }
            }
        }
    });
}

async fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn client_receives_the_response_of_the_loop() {
    let (_dir, path) = place();
    let (_server, requests) = ControlServer::bind(&path, own()).unwrap();
    serve(requests);
    let client = ControlClient::new(&path);
    assert_eq!(client.status().await.unwrap(), snapshot());
    assert_eq!(client.entries().await.unwrap(), vec![]);
    let query = AuditQuery {
        since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        limit: Some(7),
        ..AuditQuery::default()
    };
    assert_eq!(client.audit(&query).await.unwrap().next.as_deref(), Some("9@2026"));
    let after = VerifyQuery { after: Some("9.aa.bb".to_owned()) };
    assert_eq!(client.verify(&after).await.unwrap(), batch());
    let mark = async |seq| client.mark(&MarkQuery { seq }).await.unwrap().map(|mark| mark.seq);
    assert_eq!((mark(7).await, mark(8).await), (Some(7), None));
    assert_eq!(client.act(EntryId::new(1), EntryAction::Retry).await.unwrap().result, "retried");
}

#[tokio::test]
async fn metrics_are_served_on_socket_and_port() {
    let (_dir, path) = place();
    let (mut server, requests) = ControlServer::bind(&path, own()).unwrap();
    let address = server.listen_metrics("127.0.0.1:0".parse().unwrap()).await.unwrap();
    serve(requests);
    let get =
        |what: &str| format!("GET {what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let on_port = async |what: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(get(what).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for answer in [raw(&path, get("/metrics").as_bytes()).await, on_port("/metrics").await] {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        for line in [
            "cardbridge_outbox_entries{state=\"waiting\"} 2",
            "cardbridge_outbox_oldest_entry_age_seconds 3600",
            "cardbridge_entries_settled_total{outcome=\"parked\",reason=\"refused\"} 3",
            "cardbridge_entries_settled_total{outcome=\"updated\",reason=\"\"} 0",
            "cardbridge_cm_call_duration_seconds_sum{operation=\"lookup\"} 1.5",
            "cardbridge_pcsc_errors_total{code=\"NoService\"} 4",
        ] {
            assert!(answer.lines().any(|it| it == line), "{line}: {answer}");
        }
        assert!(!answer.contains("\ncardbridge_cm_up "), "CM was not called");
    }
    for other in ["/", "/v1/status", "/v1/outbox"] {
        let answer = on_port(other).await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("desk-3"), "{answer}");
    }
    drop(server);
    let gone = async || tokio::net::TcpStream::connect(address).await.is_err();
    while !gone().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn port_in_use_is_named_in_the_error() {
    let (_dir, path) = place();
    let (mut server, _requests) = ControlServer::bind(&path, own()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = server.listen_metrics(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn refused_action_reports_its_reason() {
    let (_dir, path) = place();
    let (_server, requests) = ControlServer::bind(&path, own()).unwrap();
    serve(requests);
    let client = ControlClient::new(&path);
    let error = client.act(EntryId::new(2), EntryAction::Retry).await.unwrap_err();
    assert!(matches!(&error, ControlError::Refused(why) if why.contains("try again")), "{error}");
    let error = client.act(EntryId::new(3), EntryAction::Discard).await.unwrap_err();
    assert!(matches!(&error, ControlError::Refused(why) if why.contains("full")), "{error}");
    let error = client.entry(EntryId::new(4)).await.unwrap_err();
    assert!(matches!(error, ControlError::NotFound(_)), "{error}");
}

#[tokio::test]
async fn invalid_request_does_no_harm() {
    let (_dir, path) = place();
    let (_server, requests) = ControlServer::bind(&path, own()).unwrap();
    serve(requests);
    for garbage in [&b"\0\xff\xfe"[..], b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
        let answer = raw(&path, garbage).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{garbage:?}: {answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    drop(UnixStream::connect(&path).await.unwrap().write_all(long.as_bytes()).await);
    assert_eq!(ControlClient::new(&path).status().await.unwrap(), snapshot());
}

#[tokio::test]
async fn socket_is_open_to_every_user_and_removed_at_the_end() {
    let (_dir, path) = place();
    let (server, _requests) = ControlServer::bind(&path, own()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn stale_socket_is_replaced_and_live_socket_is_not() {
    let (_dir, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let (_server, _requests) = ControlServer::bind(&path, own()).unwrap();
    let second = ControlServer::bind(&path, own());
    assert!(matches!(second, Err(BindError::InUse(_))));
    assert!(path.exists(), "the first goes on");
}

#[tokio::test]
async fn file_that_is_not_a_socket_is_kept() {
    let (_dir, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "another program's").unwrap();
    assert!(matches!(ControlServer::bind(&path, own()), Err(BindError::Socket(..))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "another program's");
}

#[tokio::test]
async fn client_reports_missing_daemon() {
    let (_dir, path) = place();
    let error = ControlClient::new(&path).status().await.unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(..)), "{error}");
}

#[tokio::test]
async fn action_is_not_repeated_after_closed_connection() {
    let (_dir, path) = place();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let closing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = stream.read(&mut [0; 1024]).await.unwrap();
        drop(stream);
        // Nothing more comes.
        let again = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        (read > 0, again.is_err())
    });
    let error =
        ControlClient::new(&path).act(EntryId::new(1), EntryAction::Retry).await.unwrap_err();
    assert!(matches!(error, ControlError::Cut), "{error}");
    assert!(error.to_string().contains("outbox list"), "{error}");
    assert_eq!(closing.await.unwrap(), (true, true));
}

#[tokio::test]
async fn idle_connections_do_not_block_others() {
    let (_dir, path) = place();
    let (_server, requests) = ControlServer::bind(&path, own()).unwrap();
    serve(requests);
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        if number % 2 == 0 {
            // Half a request does not count.
            drop(stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n").await);
        }
        idle.push(stream);
    }
    let client = ControlClient::new(&path);
    let asked = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(client.status().await.unwrap(), snapshot());
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let open = idle.iter_mut().map(async |stream| {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
        usize::from(read.is_err())
    });
    let mut held = 0;
    for open in open {
        held += open.await;
    }
    assert!(held <= 16, "{held} connections are held");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_without_a_role_gets_a_remedy() {
    let (_dir, path) = place();
    let own = u32::MAX - 1;
    let (view, operator) = (Some(4_000_000), Some(4_000_001));
    require!(require::root());
    let (_server, requests) = ControlServer::bind(&path, Access::of(view, operator, own)).unwrap();
    serve(requests);
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    let ask = |groups: &str, request: &str| {
        let mut curl = std::process::Command::new("setpriv");
        let groups = format!("--groups={groups}");
        curl.args(["--reuid=65534", "--regid=65534", &groups, "curl", "-s", "-i", "--unix-socket"]);
        curl.arg(&path).args(request.split(' '));
        let output = curl.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Traversable for the other user.
    std::fs::set_permissions(
        path.parent().unwrap().parent().unwrap(),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let (view_request, act) = ("http://x/v1/status", "-X POST http://x/v1/outbox/1/retry");
    let cases = [
        ("65534", view_request, "403", "add the user to the group viewers"),
        ("65534", "http://x/metrics", "403", "viewers"),
        ("65534", "http://x/v1/nothing", "403", "viewers"),
        ("65534", act, "403", "viewers"),
        ("4000000", view_request, "200", "desk-3"),
        ("4000000", "http://x/v1/nothing", "404", "no such route"),
        ("4000000", act, "403", "add the user to the group operators"),
        ("4000001", view_request, "200", "desk-3"),
        ("4000001", act, "200", "retried"),
    ];
    for (groups, request, status, text) in cases {
        let answer = tokio::task::block_in_place(|| ask(groups, request));
        let ok = answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text);
        assert!(ok, "{groups} {request}: {answer}");
    }
}

#[tokio::test]
async fn port_serves_only_requests_for_this_machine() {
    let (_dir, path) = place();
    let (mut server, requests) = ControlServer::bind(&path, own()).unwrap();
    let address = server.listen_metrics("127.0.0.1:0".parse().unwrap()).await.unwrap();
    serve(requests);
    let ask = async |request: String| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let get = |head: &str| format!("GET {head}\r\nConnection: close\r\n\r\n");
    for head in [
        "/metrics HTTP/1.1\r\nHost: localhost".to_owned(),
        format!("/metrics HTTP/1.1\r\nHost: {address}"),
        "http://localhost/metrics HTTP/1.1\r\nHost: localhost".to_owned(),
    ] {
        let answer = ask(get(&head)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{head}: {answer}");
    }
    for head in [
        "/metrics HTTP/1.1\r\nHost: evil.example",
        "/metrics HTTP/1.1\r\nHost: evil.example:9475",
        "/metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "http://evil.example/metrics HTTP/1.1\r\nHost: localhost",
        "/metrics HTTP/1.1\r\nX: y",
        "/metrics HTTP/1.0\r\nX: y",
    ] {
        let answer = ask(get(head)).await;
        assert!(answer.starts_with("HTTP/1") && answer.contains(" 421 "), "{head}: {answer}");
        assert!(!answer.contains("cardbridge_"), "{head}: {answer}");
    }
    // Idle connections do not block monitoring.
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let answer = ask(get("/metrics HTTP/1.1\r\nHost: localhost")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
