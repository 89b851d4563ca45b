//! Answers that are late, large, cut, from elsewhere, or none.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn a_request_to_come_back_later_is_obeyed() {
    let (_server, remote) =
        world(|| Reply::Answer(answer("503 Service Unavailable", "Retry-After: 90\r\n", "busy")));
    match remote.record(record_id()).await {
        Err(CallError::Unavailable { reason: UnavailableReason::Busy, retry_after, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(90)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_proxy_that_compresses_all_the_same_is_named_and_not_quoted() {
    // Real gzip of `{"Uuid":""}`, an empty brotli stream, and an empty zlib stream.
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV\n-\xcdLQ\xb2RR\xaa\x05\0";
    for (headers, body, coding) in [
        ("Content-Encoding: gzip\r\n", &gzip[..], "(gzip)"),
        ("Content-Encoding: x-gzip\r\nContent-Type: application/json\r\n", gzip, "(x-gzip)"),
        ("", gzip, "(gzip)"),
        ("Content-Encoding: BR\r\n", b"\x0b\x05\x80hello\x03", "(br)"),
        ("", b"\x78\x9c\x03\0\0\0\0\x01", "(deflate)"),
    ] {
        for status in [OK, "403 Forbidden", "503 Service Unavailable"] {
            let mut bytes = answer(status, headers, "");
            let head = format!("Content-Length: {}", body.len());
            let text = String::from_utf8(bytes).unwrap().replace("Content-Length: 0", &head);
            bytes = [text.as_bytes(), body].concat();
            let server = Server::start(move |_| Reply::Answer(bytes.clone()));
            for error in [
                remote(&server).record(record_id()).await.unwrap_err(),
                remote(&server).open_requests().await.unwrap_err(),
            ] {
                assert!(error.detail().contains(coding), "{error:?}");
                assert!(error.detail().is_ascii(), "{error:?}");
                assert!(!matches!(error, CallError::Refused { .. }), "{error:?}");
            }
            assert!(
                server
                    .seen()
                    .iter()
                    .all(|seen| { seen.headers.contains(&"accept-encoding: identity".to_owned()) })
            );
        }
    }
}

#[tokio::test]
async fn a_204_is_no_page_whatever_type_it_names() {
    let html = "Content-Type: text/html; charset=utf-8\r\n";
    let (_server, remote) = world(move || Reply::Answer(answer("204 No Content", html, "")));
    assert_eq!(remote.set_status(&decision()).await, Ok(SetStatusResult::Unconfirmed));
    let found = remote.lookup(&identity()).await.unwrap();
    assert_eq!(found, LookupResult { records: None, requests: Vec::new() });
}

#[tokio::test]
async fn echoed_token_is_redacted() {
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "s3cr+t/x").unwrap();
    for (status, headers, body) in [
        ("400 Bad Request", "", r#"{"Message":"no s3cr+t/x"}"#),
        ("400 Bad Request", "", r#"{"Message":"no s3cr\/x","x":"s3cr%2Bt%2Fx"}"#),
        ("500 Internal Server Error", "", "Bearer s3cr+t/x"),
        ("502 Bad Gateway", "", "<title>s3cr%2Bt%2Fx</title>"),
        (OK, "Content-Type: text/html\r\n", "<title>s3cr+t/x</title>"),
        (OK, "", "[Bearer s3cr+t/x"),
    ] {
        let server = Server::start(move |_| Reply::Answer(answer(status, headers, body)));
        let auth = AuthSettings::Bearer { token_file: token_file.path().to_owned() };
        let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
        let error = new_client(options).unwrap().record(record_id()).await.unwrap_err();
        let reported = format!("{error:?}");
        assert!(!reported.contains("s3cr+t") && !reported.contains("s3cr%2Bt"), "{reported}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(cm(CARD));
    let location = format!("Location: http://{}{BASE}/x\r\n", elsewhere.address);
    let (server, remote) =
        world(move || Reply::Answer(answer("307 Temporary Redirect", &location, "")));
    let detail = assert_away(remote.set_status(&decision()).await, UnavailableReason::NotCm);
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
            Err(CallError::Unavailable { reason: UnavailableReason::NotCm, detail, .. }) => {
                assert_eq!(detail, "the response has more than 1048576 bytes");
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
    let detail = assert_away(remote.record(record_id()).await, UnavailableReason::NotCm);
    assert_eq!(detail, "the response has more than 1048576 bytes");
}

#[tokio::test]
async fn a_list_of_requests_may_be_longer_than_an_object() {
    let padding = " ".repeat(9 << 20);
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
        let detail = assert_away(remote.record(record_id()).await, UnavailableReason::NotCm);
        assert!(detail.starts_with("the answer was cut short"), "{detail}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_a_timeout() {
    for start in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{"] {
        let server = Server::start(move |_| Reply::Hang(start.as_bytes().to_vec()));
        let (timeout, started) = (Duration::from_millis(150), Instant::now());
        let options = CmSettings { timeout, ..options(format!("http://{}", server.address)) };
        let detail = assert_away(
            new_client(options).unwrap().record(record_id()).await,
            UnavailableReason::Timeout,
        );
        assert_eq!(detail, "no whole response within 150ms");
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
}

/// What a call comes to, and the longest time for which the loop had no turn meanwhile.
async fn beside<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let mut longest = Duration::ZERO;
    let turns = async {
        loop {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(began.elapsed());
        }
    };
    let result = tokio::select! {
        result = call => result,
        never = turns => never,
    };
    (result, longest)
}

#[tokio::test]
async fn a_list_that_comes_fast_holds_up_nothing_else() {
    let list = format!("[{{\"X\":\"{}\"}}]", "x".repeat(64 << 20));
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        target if target.starts_with("/requests") => Reply::Answer(answer(OK, "", &list)),
        _ => cm(CARD)(seen),
    });
    let (remote, identity) = (remote(&server), identity());
    let (found, longest) = beside(Box::pin(remote.lookup(&identity))).await;
    assert_away(found, UnavailableReason::NotCm);
    assert!(longest < Duration::from_millis(500), "the loop stood for {longest:?}");
}

/// Keeps a processor busy, so this runs in a process of its own.
#[tokio::test]
async fn answers_before_the_answer_without_end_end_with_the_deadline_and_hold_up_nothing_else() {
    let name = "cm::tests::failures::answers_before_the_answer_without_end_end_with_the_deadline_and_hold_up_nothing_else";
    if !alone(name, &[]) {
        return;
    }
    for piece in [
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(100),
        "HTTP/1.1 102 Processing\r\n\r\n".to_owned(),
        format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(2000)),
        "HTTP/1.1 199 Later\r\nA: b\r\n\r\n".to_owned(),
    ] {
        let before = peak();
        let server = Server::start(move |_| Reply::Flood(Vec::new(), piece.clone().into_bytes()));
        let timeout = Duration::from_secs(1);
        let options = CmSettings { timeout, ..options(format!("http://{}", server.address)) };
        let remote = new_client(options).unwrap();
        let started = Instant::now();
        let (ended, longest) = beside(remote.record(record_id())).await;
        assert_away(ended, UnavailableReason::Timeout);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(longest < Duration::from_millis(500), "the loop stood for {longest:?}");
        let grown = peak().saturating_sub(before);
        // The server is in this process, too.
        assert!(grown < 32 << 10, "{grown} KiB more than {before}");
    }
}

#[tokio::test]
async fn a_status_is_believed_though_its_page_never_ends() {
    let head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 900\r\n\r\nnot you";
    let server = Server::start(|_| Reply::Hang(head.to_vec()));
    let timeout = Duration::from_millis(150);
    let options = CmSettings { timeout, ..options(format!("http://{}", server.address)) };
    let refused = new_client(options).unwrap().record(record_id()).await.unwrap_err();
    // Words that are no JSON: perhaps a proxy's.
    let reported = matches!(&refused, CallError::Failed { http_status: 403, detail, .. } if detail == "not you");
    assert!(reported, "{refused:?}");
}

#[tokio::test]
async fn closed_port_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let remote = new_client(options(format!("http://{closed}"))).unwrap();
    let detail = assert_away(remote.lookup(&identity()).await, UnavailableReason::Unreachable);
    assert_eq!(detail, format!("no connection to {closed}: Connection refused (os error 111)"));
}

#[tokio::test]
async fn a_connection_that_ends_before_an_answer_is_unreachable() {
    for start in ["", "HTTP/1.1 200"] {
        let (_server, remote) = world(move || Reply::Cut(start.as_bytes().to_vec()));
        let detail = assert_away(remote.record(record_id()).await, UnavailableReason::Unreachable);
        assert!(detail.contains("broke: connection closed"), "{detail}");
    }
}

#[tokio::test]
async fn a_port_where_something_else_talks_is_not_cm() {
    let (_server, remote) = world(|| Reply::Hang(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()));
    let detail = assert_away(remote.record(record_id()).await, UnavailableReason::NotCm);
    assert!(detail.contains("does not speak HTTP"), "{detail}");
}

/// A request that names another card, as long as CM's are.
fn other_request(n: usize) -> String {
    let comment = "x".repeat(600);
    format!(
        r#"{{"Uuid":"{n:032x}","RequestType":7,"Status":3,"OldSmartcardUuid":"{n:032x}","Comment":"{comment}"}}"#
    )
}

#[tokio::test]
async fn of_a_very_long_list_the_request_of_the_card_is_found() {
    let others: Vec<_> = (1..15_000).map(other_request).collect();
    let list = format!("[{},{}]", others.join(","), request_json().trim_matches(['[', ']']));
    assert!(list.len() > 8 << 20);
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        "/requests?status=Approved" => Reply::Answer(answer(OK, "", &list)),
        _ => cm(CARD)(seen),
    });
    let found = remote(&server).lookup(&identity()).await.unwrap();
    assert_eq!(found.requests.len(), 1);
}

#[tokio::test]
async fn a_long_list_waits_until_it_is_known_which_records_are_meant() {
    let others: Vec<_> = (1..40_000).map(other_request).collect();
    let list = format!("[{},{}]", others.join(","), request_json().trim_matches(['[', ']']));
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        "/requests?status=Approved" => Reply::Answer(answer(OK, "", &list)),
        target => {
            if target.starts_with("/smartcards") {
                std::thread::sleep(Duration::from_millis(300));
            }
            cm(CARD)(seen)
        }
    });
    let found = remote(&server).lookup(&identity()).await.unwrap();
    assert_eq!(found.requests.len(), 1);
}

#[tokio::test]
async fn a_list_that_is_long_does_not_wait_for_records_that_do_not_come() {
    let others: Vec<_> = (1..40_000).map(other_request).collect();
    let list = format!("[{}]", others.join(","));
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        "/requests?status=Approved" => Reply::Answer(answer(OK, "", &list)),
        target if target.starts_with("/smartcards") => {
            Reply::Answer(answer("503 Service Unavailable", "", ""))
        }
        _ => cm(CARD)(seen),
    });
    assert!(remote(&server).lookup(&identity()).await.is_err());
}

#[tokio::test]
async fn oversized_request_list_is_reported_as_cms() {
    let one = request_json();
    let list = vec![one.trim_matches(['[', ']']); 21_000];
    let list = format!("[{}]", list.join(","));
    let server = Server::start(move |seen| match seen.target.strip_prefix(BASE).unwrap() {
        "/requests?status=Approved" => Reply::Answer(answer(OK, "", &list)),
        _ => cm(CARD)(seen),
    });
    let detail =
        assert_away(remote(&server).lookup(&identity()).await, UnavailableReason::ServerError);
    assert!(
        detail.starts_with("CM lists more than 20000 open requests for one card: "),
        "{detail}"
    );
}

/// The most memory that this process has had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Measures a process, so this runs in one of its own. The server is in it, too.
#[tokio::test]
async fn no_answer_takes_more_than_its_share_of_memory() {
    let name = "cm::tests::failures::no_answer_takes_more_than_its_share_of_memory";
    if !alone(name, &[("RUST_TEST_THREADS", "1")]) {
        return;
    }
    let chaff = |length: usize| vec![r#"{"":0}"#; length / 7].join(",");
    let record = format!(
        "[{},\"X\":[{}]}}]",
        card_json(CARD, 2).strip_suffix('}').unwrap(),
        chaff((1 << 20) - 400)
    );
    let element = format!(r#"{{"Uuid":"{REQUEST}","X":[{}]}},"#, chaff(200 << 10));
    let foreign = format!(r#"{{"X":[{}]}}"#, chaff((1 << 20) - 400));
    for (records, flooded) in [(record, "?status=Approved"), (foreign, "none")] {
        let element = element.clone();
        let server = Server::start(move |seen| {
            if seen.target.contains(flooded) {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n";
                let chunk = format!("{:x}\r\n{element}\r\n", element.len());
                return Reply::Flood(head.into(), chunk.into_bytes());
            }
            Reply::Answer(answer(OK, "", &records))
        });
        let before = peak();
        // In time for a test: the flood goes on to the bound or to the deadline.
        let timeout = Duration::from_secs(3);
        let options = CmSettings { timeout, ..options(format!("http://{}", server.address)) };
        let (remote, identity) = (new_client(options).unwrap(), identity());
        let look = || remote.lookup(&identity);
        let (one, two, three, four) = tokio::join!(look(), look(), look(), look());
        assert!(flooded == "none" || server.flooded() > 16 << 20, "{}", server.flooded());
        for found in [one, two, three, four] {
            assert!(matches!(found, Err(CallError::Unavailable { .. })), "{found:?}");
        }
        // The kernel sums it up over processors, and may come out a little lower than before.
        let grown = peak().saturating_sub(before);
        assert!(grown < 40 << 10, "{grown} KiB more than {before}");
    }
}
