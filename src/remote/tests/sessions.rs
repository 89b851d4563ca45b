//! A server that keeps a session.

use super::*;

/// Lets in whoever has the cookie of the session that is `current`, and gives it to others.
fn keeping(current: Arc<std::sync::Mutex<&'static str>>) -> impl Fn(&Seen) -> Reply {
    move |seen| {
        let cookie = format!("cookie: session={}", current.lock().unwrap());
        if seen.headers.contains(&cookie) {
            return cm(CARD)(seen);
        }
        let set = format!("Set-Cookie: Session={}; path=/; HttpOnly\r\n", current.lock().unwrap());
        Reply::Answer(answer("401 Unauthorized", &set, ""))
    }
}

#[tokio::test]
async fn a_session_that_is_needed_is_kept_for_the_process() {
    let current = Arc::new(std::sync::Mutex::new("one"));
    let server = Server::start(keeping(Arc::clone(&current)));
    let remote = remote(&server);
    assert_away(remote.record(record_id()).await, AwayReason::NotLetIn);
    remote.record(record_id()).await.unwrap();
    remote.set_status(&decision()).await.unwrap();
    // Another one knows nothing of it.
    let other = Remote::new(options(format!("http://{}", server.address))).unwrap();
    assert_away(other.record(record_id()).await, AwayReason::NotLetIn);
}

#[tokio::test]
async fn a_stale_session_is_dropped_and_the_next_call_begins_another() {
    let current = Arc::new(std::sync::Mutex::new("one"));
    let server = Server::start(keeping(Arc::clone(&current)));
    let remote = remote(&server);
    assert_away(remote.record(record_id()).await, AwayReason::NotLetIn);
    remote.record(record_id()).await.unwrap();
    *current.lock().unwrap() = "two";
    assert_away(remote.record(record_id()).await, AwayReason::NotLetIn);
    remote.record(record_id()).await.unwrap();
    let cookies: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| {
            seen.headers.iter().filter(|line| line.starts_with("cookie:")).cloned().collect()
        })
        .collect::<Vec<Vec<_>>>();
    let session = |name: &str| vec![format!("cookie: session={name}")];
    assert_eq!(cookies, [vec![], session("one"), session("one"), session("two")]);
}

#[tokio::test]
async fn a_stale_session_that_only_keeps_out_is_not_sent_again() {
    // Whoever comes without a cookie is let in; a stale one is worse than none.
    let server = Server::start(|seen| {
        if seen.headers.iter().any(|line| line.starts_with("cookie:")) {
            return Reply::Answer(answer("401 Unauthorized", "", ""));
        }
        let body = card_json(CARD, 2);
        Reply::Answer(answer(OK, "Set-Cookie: session=stale\r\n", &body))
    });
    let remote = remote(&server);
    remote.record(record_id()).await.unwrap();
    assert_away(remote.record(record_id()).await, AwayReason::NotLetIn);
    remote.record(record_id()).await.unwrap();
}

#[tokio::test]
async fn a_redirect_takes_neither_token_nor_session_nor_body_along() {
    let elsewhere = Server::start(cm(CARD));
    let to = format!("http://{}{BASE}/x", elsewhere.address);
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "s3cret").unwrap();
    let ca = tls::Ca::new();
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let headers = format!("Location: {to}\r\nSet-Cookie: a=b; Domain=127.0.0.1\r\n");
        let redirect = move |_: &Seen| Reply::Answer(answer(status, &headers, ""));
        let (chain, key) = ca.pair(&tls::for_name("127.0.0.1"));
        let builder = tls::builder(tls::ALL_VERSIONS).with_no_client_auth();
        // From https to http, and to another port.
        let server = Server::start_tls(builder.with_single_cert(chain, key).unwrap(), redirect);
        let options = Options {
            auth: Auth::Bearer { token_file: token_file.clone() },
            ca_file: Some(ca.file()),
            ..options(format!("https://{}", server.address))
        };
        let remote = Remote::new(options).unwrap();
        let detail = assert_away(remote.set_status(&decision()).await, AwayReason::NotCm);
        assert!(detail.ends_with("the server redirects to 127.0.0.1"), "{detail}");
        assert_eq!((server.seen().len(), elsewhere.seen().len()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn a_cookie_that_the_server_sends_back_is_not_told() {
    let server = Server::start(|seen| {
        let sent = seen.headers.iter().find(|line| line.starts_with("cookie:"));
        let body = format!("no: {}", sent.map_or("", String::as_str));
        let cookie = "Set-Cookie: session=s3cret-session; path=/\r\n";
        Reply::Answer(answer("500 Internal Server Error", cookie, &body))
    });
    let remote = Remote::new(options(format!("http://{}", server.address))).unwrap();
    for told in ["no: cookie:", "no: cookie: session=[hidden]"] {
        match remote.record(record_id()).await {
            Err(CallError::Failed { detail, .. }) => assert!(told.starts_with(&detail), "{detail}"),
            other => panic!("{other:?}"),
        }
    }
}
