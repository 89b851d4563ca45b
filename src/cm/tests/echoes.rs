//! Servers and proxies that send back what they were sent, in every place that people read.

#![expect(clippy::string_slice, reason = "the secrets of these tests are ASCII")]

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;

const TOKEN: &str = "q7+Vd0/xW3zLk9TbPm2sYc8HfJ4uRg1N";

/// The token's middle, as servers may write it.
fn echoes() -> Vec<String> {
    let part = &TOKEN[5..25];
    let each = |write: fn(u8) -> String| part.bytes().map(write).collect::<String>();
    vec![
        part.to_owned(),
        each(|byte| format!("\\u{byte:04x}")),
        each(|byte| format!("%{byte:02X}")),
        each(|byte| format!("&#x{byte:x};")),
        URL_SAFE_NO_PAD.encode(format!("x{part}")),
        hex::encode(part),
    ]
}

fn token_file(dir: &tempfile::TempDir) -> PathBuf {
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    file
}

/// Fails where any of twelve characters of the token are in the text, however written.
#[track_caller]
fn assert_hidden(reported: &str) {
    assert!(reported.contains("[hidden]"), "{reported}");
    for echo in echoes() {
        assert!(!reported.contains(&echo), "{echo} is in {reported}");
    }
    for start in 0..=TOKEN.len() - 12 {
        assert!(!reported.contains(&TOKEN[start..start + 12]), "{reported}");
    }
}

#[tokio::test]
async fn a_token_is_hidden_wherever_the_server_sends_it_back() {
    let dir = tempfile::tempdir().unwrap();
    for echo in echoes() {
        let json = format!(r#"{{"Message":"no {echo}"}}"#);
        let other = card_json(SECOND, 2).replace(SECOND, &echo);
        let twice = format!(r#"{{"Uuid":"{RECORD}","Status":1,"Status":2,"{echo}":1,"{echo}":2}}"#);
        for (status, headers, body) in [
            ("400 Bad Request", String::new(), json.clone()),
            ("500 Internal Server Error", String::new(), json),
            ("502 Bad Gateway", String::new(), format!("<title>for {echo}</title>")),
            ("503 Service Unavailable", String::new(), format!("<p>for</p> <b>{echo}</b>")),
            (OK, "Content-Type: text/html\r\n".to_owned(), format!("<h1>{echo}</h1>")),
            ("401 Unauthorized", String::new(), format!("Bearer {echo}")),
            (OK, String::new(), other),
            (OK, String::new(), twice),
        ] {
            let status = status.to_owned();
            let whole = answer(&status, &headers, &body);
            let server = Server::start(move |_| Reply::Answer(whole.clone()));
            let auth = AuthSettings::Bearer { token_file: token_file(&dir) };
            let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
            let remote = new_client(options).unwrap();
            let error = remote.records(CARD.parse().unwrap()).await.unwrap_err();
            let reported = format!("{error:?}");
            // A property that stands twice is named; of this one the first that is wrong counts.
            if reported.contains("Status twice") {
                continue;
            }
            assert_hidden(&reported);
        }
    }
}

#[tokio::test]
async fn a_token_in_the_name_of_a_host_or_of_a_certificate_is_hidden() {
    // Letters and digits only: host names have nothing else.
    let token = "q7Vd0xW3zLk9TbPm2sYc8HfJ4uRg1N";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    let location = format!("Location: https://{token}.example.com/\r\n");
    let server = Server::start(move |_| Reply::Answer(answer("302 Found", &location, "")));
    let auth = AuthSettings::Bearer { token_file: file.clone() };
    let plain = CmSettings { auth: auth.clone(), ..options(format!("http://{}", server.address)) };
    let reported =
        assert_away(new_client(plain).unwrap().record(record_id()).await, UnavailableReason::NotCm);
    assert!(reported.ends_with("redirects to [hidden].example.com"), "{reported}");

    let ca = tls::Ca::new();
    let (chain, key) = ca.pair(&tls::for_name(&format!("{token}.example.com")));
    let config = tls::builder(tls::ALL_VERSIONS).with_no_client_auth();
    let server = Server::start_tls(config.with_single_cert(chain, key).unwrap(), cm(CARD));
    let url = format!("https://{}", server.address);
    let named = CmSettings { auth, ca_file: Some(ca.file()), ..options(url) };
    let remote = new_client(named).unwrap();
    let reported = format!("{:?}", remote.record(record_id()).await.unwrap_err());
    assert!(reported.contains("[hidden].example.com") && !reported.contains(token), "{reported}");
    // The steps of `check` come before any call, and know of the token all the same.
    let check = remote.connection_check().unwrap();
    let (stream, _) = check.connect(&[server.address]).await.unwrap();
    let handshake = check.handshake(check.open_tunnel(stream).await.unwrap()).await;
    let reported = format!("{:?} {:?}", handshake.version, handshake.chain).to_lowercase();
    assert!(!reported.contains(&token.to_lowercase()), "{reported}");
}

#[tokio::test]
async fn what_a_record_says_is_shown_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let record = card_json(CARD, 2).replace('}', &format!(r#","Comment":"{TOKEN}"}}"#));
    let server = Server::start(move |_| Reply::Answer(answer(OK, "", &record)));
    let auth = AuthSettings::Bearer { token_file: token_file(&dir) };
    let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
    let remote = new_client(options).unwrap();
    let records = remote.records(CARD.parse().unwrap()).await;
    // The serial number has a brace of its own.
    if let Ok(records) = records {
        assert_hidden(&remote.redact(&records[0].raw));
    }
    assert_hidden(&remote.redact(&format!("a comment with {TOKEN}")));
}

#[tokio::test]
async fn a_proxys_login_is_hidden_where_the_proxy_sends_it_back() {
    let (user, password) = ("station-of-the-desk", "pr0xy-p+ss/w0rd");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("login");
    std::fs::write(&file, format!("{user}:{password}")).unwrap();
    let basic = STANDARD.encode(format!("{user}:{password}"));
    let escaped = |byte| format!("\\u{byte:04X}");
    let json: String = password.bytes().map(escaped).collect();
    for echo in [
        basic.clone(),
        format!("{user}:{password}"),
        password.to_owned(),
        basic[10..30].to_owned(),
        password.replace('+', "%2B").replace('/', "%2f"),
        json,
        hex::encode(password),
    ] {
        for status in ["502", "403", "407"] {
            let line = format!("HTTP/1.1 {status} not for {echo}\r\nContent-Length: 0\r\n\r\n");
            let middle = proxies::Middle::start("never", line.leak());
            let proxy =
                ProxySettings::Named { url: middle.url(), credentials_file: Some(file.clone()) };
            let options = CmSettings { proxy, ..options("https://localhost:9".to_owned()) };
            let remote = new_client(options).unwrap();
            let error = remote.record(record_id()).await.unwrap_err();
            let check = remote.connection_check().unwrap();
            let (stream, _) = check.connect(&[middle.address]).await.unwrap();
            let Err(by_hand) = check.open_tunnel(stream).await else { panic!("it was connected") };
            for reported in [format!("{error:?}"), format!("{by_hand:?}")] {
                assert!(!reported.contains(&echo) && !reported.contains(password), "{reported}");
            }
            assert!(format!("{by_hand:?}").contains("[hidden]"), "{by_hand:?}");
        }
    }
}
