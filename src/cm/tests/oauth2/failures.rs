//! Endpoints that give no token: what calls hear, how often the endpoint is asked, what leaks.

use super::*;

/// What a call hears, which is about credentials.
async fn reported(site: &Site) -> String {
    let reported = assert_away(site.call().await, UnavailableReason::Credentials);
    let start = format!("no token from {}: ", site.adfs.address);
    let reported = reported.strip_prefix(&start).unwrap_or_else(|| panic!("{reported}"));
    assert!(site.cm.seen().is_empty());
    reported.to_owned()
}

/// The id that the endpoint was sent last.
fn request_id(site: &Site) -> String {
    let asked = site.adfs.seen().pop().unwrap();
    let id = asked.headers.iter().find_map(|line| line.strip_prefix("client-request-id: "));
    id.unwrap().to_owned()
}

#[tokio::test]
async fn adfs_error_is_reported_with_remedy_and_request_id() {
    for (name, expected, remedy) in [
        (
            "invalid-client.http",
            "it says no: invalid_client: MSIS9622: ",
            "check cm.auth.client_id",
        ),
        ("invalid-resource.http", "it says no: invalid_resource: MSIS9602: ", "cm.auth.resource"),
        ("server-error.http", "it says no: server_error: MSIS9612: ", "event log"),
        ("service-stopped.http", "it answers 503 Service Unavailable: ", "if this persists"),
        ("not-found.http", "it answers 404 Not Found; ", "/adfs/oauth2/token"),
        (
            "sign-in-page.http",
            "it answers with something else than a token: Sign In; ",
            "token_url",
        ),
    ] {
        let site = Site::new(move |_| Reply::Answer(adfs(name)));
        let reported = reported(&site).await;
        assert!(reported.starts_with(expected) && reported.contains(remedy), "{reported}");
        let id = format!("(client-request-id {})", request_id(&site));
        assert!(reported.ends_with(&id), "{reported}");
    }
}

#[tokio::test]
async fn a_token_of_adfs_as_it_comes_goes_along() {
    for name in ["token.http", "expires-in-text.http"] {
        let site = Site::new(move |_| Reply::Answer(adfs(name)));
        site.call().await.unwrap();
        assert!(site.shown()[0].starts_with("bearer eyj0exaioijkv1qi"), "{:?}", site.shown());
    }
}

#[tokio::test]
async fn compressed_token_response_is_reported() {
    let zstd = [&[0x28, 0xB5, 0x2F, 0xFD, 4][..], b"\x58\x10\x01\x00{\"access"].concat();
    for (headers, coding) in [("Content-Encoding: br\r\n", "(br)"), ("", "(zstd)")] {
        for status in [OK, "400 Bad Request", "401 Unauthorized", "503 Service Unavailable"] {
            let head = format!("{headers}Content-Length: {}\r\n", zstd.len());
            let head = format!("HTTP/1.1 {status}\r\n{head}\r\n");
            let whole = [head.as_bytes(), &zstd].concat();
            let site = Site::new(move |_| Reply::Answer(whole.clone()));
            let reported = reported(&site).await;
            assert!(
                reported.contains(coding) && reported.contains("compression off"),
                "{reported}"
            );
            assert!(reported.is_ascii() && !reported.contains("access"), "{reported}");
            let asked = site.adfs.seen().pop().unwrap().headers;
            assert!(asked.contains(&"accept-encoding: identity".to_owned()), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_not_asked_by_every_call() {
    // It accepts, and hangs up.
    let site = Site::new(|_| Reply::Cut(Vec::new()));
    let first = reported(&site).await;
    assert!(first.starts_with("the connection to 127.0.0.1:"), "{first}");
    let started = std::time::Instant::now();
    for _ in 0..50 {
        assert_away(site.call().await, UnavailableReason::Credentials);
    }
    // At distances of half a second at least, doubling.
    let at_most = 1 + usize::try_from(started.elapsed().as_millis() / 500).unwrap();
    assert!(site.adfs.seen().len() <= at_most, "{}", site.adfs.seen().len());
}

#[tokio::test]
async fn calls_during_token_backoff_return_retry_after() {
    let site = Site::new(|_| Reply::Answer(adfs("temporarily-unavailable.http")));
    let mut waits = Vec::new();
    for _ in 0..2 {
        match site.call().await {
            Err(CallError::Unavailable { retry_after: Some(wait), .. }) => {
                waits.push(wait.as_secs());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits[0], 120);
    assert!((118..=120).contains(&waits[1]), "{waits:?}");
    assert_eq!(site.adfs.seen().len(), 1);
}

#[tokio::test]
async fn a_new_secret_counts_as_soon_as_its_file_is_written() {
    let site = Site::new(|seen| {
        let right = form(seen).contains(&("client_secret".to_owned(), "renewed".to_owned()));
        if right { token("t", 3600) } else { Reply::Answer(adfs("invalid-client.http")) }
    });
    reported(&site).await;
    fs::write(site.file("secret"), "renewed\r\n").unwrap();
    site.call().await.unwrap();
}

#[tokio::test]
async fn unusable_secret_file_sends_nothing() {
    let site = Site::new(numbered(3600));
    for (text, expected) in [
        ("", "there is nothing in"),
        ("\n", "there is nothing in"),
        ("two\nlines", "there is more than one line in"),
    ] {
        fs::write(site.file("secret"), text).unwrap();
        let reported = reported(&site).await;
        assert!(reported.starts_with(expected) && !reported.contains("two"), "{reported}");
    }
    fs::remove_file(site.file("secret")).unwrap();
    assert!(reported(&site).await.contains("No such file"));
    assert!(site.adfs.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_carries_no_secret_anywhere() {
    let elsewhere = Server::start(numbered(3600));
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: http://{}/adfs/oauth2/token\r\n", elsewhere.address);
        let site = Site::new(move |_| Reply::Answer(answer(status, &location, "")));
        let reported = reported(&site).await;
        assert!(
            reported.starts_with("it redirects to 127.0.0.1, where nothing is sent"),
            "{reported}"
        );
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_its_bound() {
    let head = format!("HTTP/1.1 {OK}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let site =
        Site::new(move |_| Reply::Flood(head.clone().into_bytes(), chunk.clone().into_bytes()));
    let reported = reported(&site).await;
    assert!(reported.starts_with("it answers with more than 262144 bytes"), "{reported}");
}

#[tokio::test]
async fn an_endpoint_that_is_slow_takes_no_longer_than_a_call_may() {
    let half = format!("HTTP/1.1 {OK}\r\nContent-Length: 100\r\n\r\n{{\"access_token\":");
    for start in [String::new(), half] {
        let site = Site::new(move |_| Reply::Hang(start.clone().into_bytes()));
        let proof = ClientAuthSettings::Secret { file: site.file("secret") };
        let auth = AuthSettings::OAuth2(client(&site.adfs, proof));
        let timeout = Duration::from_millis(300);
        let url = format!("http://{}", site.cm.address);
        let remote = new_client(CmSettings { timeout, auth, ..options(url) }).unwrap();
        let reported =
            assert_away(remote.record(record_id()).await, UnavailableReason::Credentials);
        let late = ["none came in time for this call", "no whole response within 300ms"];
        assert!(late.iter().any(|expected| reported.contains(expected)), "{reported}");
    }
}

#[tokio::test]
async fn unreachable_token_endpoint_is_reported() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(numbered(3600));
    let proof = ClientAuthSettings::Secret { file: site.file("secret") };
    let token_url = format!("http://{gone}/adfs/oauth2/token");
    let remote = remote_of(&site.cm, OAuth2Settings { token_url, ..client(&site.adfs, proof) });
    let reported = assert_away(remote.record(record_id()).await, UnavailableReason::Credentials);
    assert!(
        reported.starts_with(&format!("no token from {gone}: no connection to {gone}")),
        "{reported}"
    );
    assert!(
        reported.contains("; check cm.auth.token_url, the network and the server"),
        "{reported}"
    );
}

#[tokio::test]
async fn endpoint_without_tls_gets_no_request() {
    // It speaks first: a server that reads on would wait for the line end of a TLS greeting.
    let talking = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = talking.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = talking.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let mut heard = Vec::new();
        std::io::copy(&mut stream, &mut heard).ok();
        heard
    });
    let site = Site::new(numbered(3600));
    let proof = ClientAuthSettings::Secret { file: site.file("secret") };
    let token_url = format!("https://{address}/adfs/oauth2/token");
    let remote = remote_of(&site.cm, OAuth2Settings { token_url, ..client(&site.adfs, proof) });
    let reported = assert_away(remote.record(record_id()).await, UnavailableReason::Credentials);
    assert!(
        reported.starts_with(&format!("no token from {address}: no TLS with {address}")),
        "{reported}"
    );
    drop(remote);
    let heard = heard.join().unwrap();
    assert!(!String::from_utf8_lossy(&heard).contains("client_secret"));
}

#[tokio::test]
async fn clock_skew_is_reported_with_refusal() {
    let site = Site::new(|_| {
        let date = "Date: Sun, 01 Mar 2020 12:00:00 GMT\r\n";
        let body = r#"{"error":"invalid_grant"}"#;
        Reply::Answer(answer("400 Bad Request", date, body))
    });
    let reported = reported(&site).await;
    assert!(
        reported.starts_with("it says no: invalid_grant; this machine's clock is "),
        "{reported}"
    );
    assert!(reported.contains(" s ahead of the endpoint's; "), "{reported}");
}

/// The type and the body of an answer.
type Echo = fn(&Seen) -> (String, String);

/// The endpoint sends back whatever it was sent, in every form that it can think of.
#[tokio::test]
async fn echoed_secrets_are_redacted() {
    let echoes: [Echo; 5] = [
        |seen| ("text/plain".to_owned(), seen.body.clone()),
        |seen| ("text/html".to_owned(), format!("<title>{}</title>", seen.body)),
        |seen| {
            let secret = form(seen).pop().unwrap().1;
            let body = serde_json::json!({"error": secret, "error_description": seen.body});
            ("application/json".to_owned(), body.to_string())
        },
        |seen| ("text/plain".to_owned(), form(seen).pop().unwrap().1),
        |seen| {
            let (name, secret) = form(seen).pop().unwrap();
            ("application/json".to_owned(), serde_json::json!({ name: secret }).to_string())
        },
    ];
    for echo in echoes {
        for status in ["400 Bad Request", "500 Internal Server Error", OK] {
            let site = Site::new(move |seen| {
                let (kind, body) = echo(seen);
                Reply::Answer(answer(status, &format!("Content-Type: {kind}\r\n"), &body))
            });
            let reported = reported(&site).await;
            for part in ["s3cr", "t%3D", "%22%3C"] {
                assert!(!reported.contains(part), "{reported}");
            }
        }
    }
}
