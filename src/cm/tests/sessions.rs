//! A server that keeps a session.

use super::*;

/// Accepts calls with the cookie of the `current` session, and sets it for others.
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
    assert_away(remote.record(record_id()).await, UnavailableReason::Unauthorized);
    remote.record(record_id()).await.unwrap();
    remote.set_status(&decision()).await.unwrap();
    // Another one knows nothing of it.
    let other = new_client(options(format!("http://{}", server.address))).unwrap();
    assert_away(other.record(record_id()).await, UnavailableReason::Unauthorized);
}

#[tokio::test]
async fn a_stale_session_is_dropped_and_the_next_call_begins_another() {
    let current = Arc::new(std::sync::Mutex::new("one"));
    let server = Server::start(keeping(Arc::clone(&current)));
    let remote = remote(&server);
    assert_away(remote.record(record_id()).await, UnavailableReason::Unauthorized);
    remote.record(record_id()).await.unwrap();
    *current.lock().unwrap() = "two";
    assert_away(remote.record(record_id()).await, UnavailableReason::Unauthorized);
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
    // The server accepts calls without a cookie, and rejects a stale one.
    let server = Server::start(|seen| {
        if seen.headers.iter().any(|line| line.starts_with("cookie:")) {
            return Reply::Answer(answer("401 Unauthorized", "", ""));
        }
        let body = card_json(CARD, 2);
        Reply::Answer(answer(OK, "Set-Cookie: session=stale\r\n", &body))
    });
    let remote = remote(&server);
    remote.record(record_id()).await.unwrap();
    assert_away(remote.record(record_id()).await, UnavailableReason::Unauthorized);
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
        let options = CmSettings {
            auth: AuthSettings::Bearer { token_file: token_file.clone() },
            ca_file: Some(ca.file()),
            ..options(format!("https://{}", server.address))
        };
        let remote = new_client(options).unwrap();
        let detail = assert_away(remote.set_status(&decision()).await, UnavailableReason::NotCm);
        assert!(detail.ends_with("the server redirects to 127.0.0.1"), "{detail}");
        assert_eq!((server.seen().len(), elsewhere.seen().len()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn echoed_cookie_is_redacted() {
    let server = Server::start(|seen| {
        let sent = seen.headers.iter().find(|line| line.starts_with("cookie:"));
        let body = format!("no: {}", sent.map_or("", String::as_str));
        let cookie = "Set-Cookie: session=s3cret-session; path=/\r\n";
        Reply::Answer(answer("500 Internal Server Error", cookie, &body))
    });
    let remote = new_client(options(format!("http://{}", server.address))).unwrap();
    for reported in ["no: cookie:", "no: cookie: session=[hidden]"] {
        match remote.record(record_id()).await {
            Err(CallError::Failed { detail, .. }) => {
                assert!(reported.starts_with(&detail), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_cookie_is_known_as_a_secret_for_as_long_as_it_is_sent() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let sent = seen.headers.iter().find(|line| line.starts_with("cookie:"));
        let body = format!("no: {}", sent.map_or("", String::as_str));
        // One of the login, and then a pile of others with each answer.
        let other = |i| format!("Set-Cookie: t{}=number-{n:04}-{i:04}\r\n", i % 9);
        let set: Vec<_> = match n {
            0 => vec!["Set-Cookie: session=l0gin-of-this-desk; path=/\r\n".to_owned()],
            _ => (0..400).map(other).collect(),
        };
        Reply::Answer(answer("500 Internal Server Error", &set.concat(), &body))
    });
    let remote = remote(&server);
    for _ in 0..150 {
        let reported = remote.record(record_id()).await.unwrap_err();
        assert!(
            !reported.detail().contains("l0gin") && !reported.detail().contains("number"),
            "{reported:?}"
        );
    }
    let last = server.seen().pop().unwrap();
    assert!(last.headers.iter().any(|line| line.contains("session=l0gin")), "{last:?}");
}

/// Sets cookies with each answer, and takes no call whose cookies are longer than `room`.
fn piling_up(room: usize, status: &'static str, page: &'static str) -> impl Fn(&Seen) -> Reply {
    let count = std::sync::atomic::AtomicUsize::new(0);
    move |seen| {
        let sent = seen.headers.iter().find(|line| line.starts_with("cookie:"));
        if sent.is_some_and(|line| line.len() > room) {
            return Reply::Answer(answer(status, "Content-Type: text/html\r\n", page));
        }
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let set = format!("Set-Cookie: c{n}={}; path=/\r\n", "x".repeat(900));
        let body = match cm(CARD)(seen) {
            Reply::Answer(bytes) => String::from_utf8(bytes).unwrap(),
            Reply::Cut(_) | Reply::Hang(_) | Reply::Flood(..) => String::new(),
        };
        let body = body.split_once("\r\n\r\n").unwrap().1;
        Reply::Answer(answer(OK, &set, body))
    }
}

const TOO_LONG: &str = "<h2>Bad Request - Request Too Long</h2><p>HTTP Error 400. The size of the \
                        request headers is too long.</p>";

#[tokio::test]
async fn cookies_that_make_a_call_too_long_are_dropped_and_the_call_is_made_once_more() {
    for (status, page) in [
        ("400 Bad Request", TOO_LONG),
        ("400 Bad Request", "<title>400 Request Header Or Cookie Too Large</title>"),
        ("413 Payload Too Large", "<p>too large</p>"),
        ("431 Request Header Fields Too Large", ""),
        ("404 Not Found", "<h3>HTTP Error 404.10 - Not Found</h3>"),
    ] {
        let server = Server::start(piling_up(2500, status, page));
        let remote = remote(&server);
        for _ in 0..20 {
            remote.record(record_id()).await.unwrap();
            remote.set_status(&decision()).await.unwrap();
        }
        let cookies = server.seen().into_iter().flat_map(|seen| seen.headers);
        let longest = cookies.filter(|line| line.starts_with("cookie:")).map(|line| line.len());
        assert!(longest.max().unwrap() <= 4096 + "cookie: ".len());
    }
}

#[tokio::test]
async fn a_change_is_repeated_only_where_the_page_says_that_its_head_was_refused() {
    let page = "<title>400 Bad Request</title><p>Your browser sent an invalid request.</p>";
    let server = Server::start(piling_up(800, "400 Bad Request", page));
    let remote = remote(&server);
    remote.record(record_id()).await.unwrap();
    let refused = remote.set_status(&decision()).await;
    assert!(matches!(refused, Err(CallError::Failed { http_status: 400, .. })), "{refused:?}");
    assert_eq!(server.seen().iter().filter(|seen| seen.method == "PUT").count(), 1);
    // The next one begins without them, and so does a question at once.
    remote.set_status(&decision()).await.unwrap();
    remote.record(record_id()).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_too_long_without_cookies_is_not_repeated() {
    let server = Server::start(|_| Reply::Answer(answer("400 Bad Request", "", TOO_LONG)));
    assert_away(remote(&server).record(record_id()).await, UnavailableReason::RequestTooLarge);
    assert_eq!(server.seen().len(), 1);
}
