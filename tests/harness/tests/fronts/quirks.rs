//! IIS's quirks, as curl meets them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cardbridge_harness::cm::{CONTROL_HELP, Cm, Fault};

use super::curl::{CARD, Curl, Reply};

const TOKEN: &str = "Authorization: Negotiate YIIabc";

struct Site {
    cm: Cm,
    curl: Curl,
}

fn site() -> Site {
    Site { cm: Cm::seed().expect("the simulator starts"), curl: Curl::default() }
}

impl Site {
    fn url(&self) -> String {
        format!("{}{CARD}", self.cm.url())
    }

    fn get(&self, more: &[&str]) -> Reply {
        self.curl.get(&self.url(), more).expect("an answer")
    }

    /// A call with a token, then one with `more`, on one connection.
    fn again(&self, pause: &str, more: &[&str]) -> Reply {
        let url = self.url();
        let first = ["--rate", pause, "-H", TOKEN, &url, "--next", "-s", "-i"];
        self.get(&[&first, more].concat())
    }

    fn statuses(&self) -> Vec<Option<u16>> {
        self.cm.log().iter().map(|call| call.status).collect()
    }
}

#[test]
fn a_challenge_names_each_scheme_in_a_field_of_its_own() {
    let site = site();
    for schemes in [&["Negotiate", "NTLM"][..], &["NTLM"]] {
        let names = schemes.iter().map(|&name| name.to_owned()).collect();
        site.cm.set_fault(Fault::Challenge { schemes: names }.times(1));
        let reply = site.get(&[]);
        let fields = reply.head.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: "));
        assert_eq!((reply.status, fields.collect::<Vec<_>>()), (401, schemes.to_vec()));
    }
}

#[test]
fn pages_of_iis_name_the_substatus_where_details_are_on() {
    let site = site();
    let codes = [
        (401, 1),
        (401, 2),
        (403, 4),
        (403, 7),
        (403, 13),
        (403, 16),
        (404, 0),
        (404, 7),
        (405, 0),
        (413, 1),
        (500, 19),
        (502, 3),
        (503, 0),
        (503, 2),
    ];
    for (status, code) in codes {
        for substatus in [None, Some(code)] {
            site.cm.set_fault(Fault::IisError { status, substatus }.times(1));
            let reply = site.get(&[]);
            assert_eq!(reply.status, status);
            assert_eq!(reply.header("content-type"), Some("text/html"));
            let named = reply.body.contains(&format!("HTTP Error {status}.{code} - "));
            assert_eq!(named, substatus.is_some(), "{}", reply.body);
            assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
        }
    }
}

#[test]
fn http_sys_error_closes_connection() {
    let site = site();
    site.cm.set_fault(Fault::PoolStopped.times(1));
    let reply = site.get(&[]);
    assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
    assert_eq!(reply.header("server"), Some("Microsoft-HTTPAPI/2.0"));
    site.cm.set_fault(Fault::HeadTooLong { bytes: 16_384 });
    assert_eq!(site.get(&[]).status, 200);
    let token = format!("Authorization: Negotiate {}", "A".repeat(16_384));
    let reply = site.get(&["-H", &token]);
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("<h2>Bad Request - Request Too Long</h2>"), "{}", reply.body);
    assert_eq!(site.cm.log().last().unwrap().connection, 3);
    let mut wire = TcpStream::connect(site.cm.address()).unwrap();
    wire.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    site.cm.set_fault(Fault::PoolStopped);
    wire.write_all(b"GET / HTTP/1.1\r\nHost: cm\r\n\r\n").unwrap();
    wire.read_to_end(&mut Vec::new()).expect("it closes, though it was not asked to");
}

#[test]
fn redirect_has_configured_target() {
    let site = site();
    let other = Cm::seed().unwrap();
    let location = format!("{}{CARD}", other.url());
    site.cm.set_fault(Fault::Redirect { status: 302, location: location.clone() }.times(2));
    let reply = site.get(&[]);
    assert_eq!((reply.status, reply.header("location")), (302, Some(location.as_str())));
    assert_eq!(site.get(&["-L"]).status, 200);
    assert_eq!(other.log().len(), 1);
}

#[test]
fn each_call_needs_any_ticket() {
    let site = site();
    site.cm.set_fault(Fault::AnyTicket { persist_ms: None });
    let stranger = site.get(&[]);
    assert_eq!(stranger.header("www-authenticate"), Some("Negotiate"));
    assert_eq!(site.get(&["-H", TOKEN]).header("persistent-auth"), Some("false"));
    assert_eq!(site.again("100/s", &[]).status, 401);
    assert_eq!(site.again("100/s", &["-H", TOKEN]).status, 200);
    let connections: Vec<u64> = site.cm.log().iter().map(|call| call.connection).collect();
    assert_eq!(connections, [1, 2, 3, 3, 4, 4]);
}

#[test]
fn idle_connection_loses_persistent_login() {
    let site = site();
    site.cm.set_fault(Fault::AnyTicket { persist_ms: Some(1500) });
    assert_eq!(site.again("100/s", &[]).header("persistent-auth"), Some("true"));
    assert_eq!(site.get(&[]).status, 401, "another connection");
    assert_eq!(site.again("30/m", &[]).status, 401, "idle for too long");
    assert_eq!(site.again("30/m", &["-H", TOKEN]).status, 200);
}

#[test]
fn stale_login_rejects_call_after_pause() {
    let site = site();
    site.cm.set_fault(Fault::StaleLogin { idle_ms: 1500 });
    assert_eq!(site.again("100/s", &["-H", TOKEN]).status, 200);
    assert_eq!(site.again("30/m", &["-H", TOKEN]).status, 401);
    assert_eq!(site.statuses(), [Some(200), Some(200), Some(200), Some(401)]);
}

#[test]
fn a_session_cookie_is_set_and_then_needed() {
    let site = site();
    site.cm.set_fault(Fault::SessionCookie);
    let jar = tempfile::NamedTempFile::new().unwrap();
    let jar = jar.path().to_str().unwrap();
    let kept = ["-b", jar, "-c", jar];
    let first = site.get(&kept);
    assert!(first.status == 200 && first.header("set-cookie").is_some(), "{first:?}");
    let second = site.get(&kept);
    assert!(second.status == 200 && second.header("set-cookie").is_none(), "{second:?}");
    let stranger = site.get(&[]);
    assert!(stranger.status == 401 && stranger.header("set-cookie").is_some(), "{stranger:?}");
    site.cm.forget_sessions();
    assert_eq!(site.get(&kept).status, 401, "and it gets another cookie");
    assert_eq!(site.get(&kept).status, 200);
}

#[test]
fn answers_can_be_slow_with_lower_case_headers() {
    let site = site();
    site.cm.set_fault(Fault::LowerCaseNames.times(1));
    let body = site.get(&[]).body;
    assert!(body.contains("\"uuid\":\"17cf063d") && !body.contains("\"Uuid\""), "{body}");
    assert!(body.contains("MSBaseCSP"), "values are unchanged: {body}");
    site.cm.set_fault(Fault::SlowBody { ms: 50 }.times(1));
    let start = Instant::now();
    let pieces = u32::try_from(body.len() / 61).unwrap();
    assert_eq!(site.get(&[]).body.len(), body.len());
    assert!(start.elapsed() >= Duration::from_millis(50) * pieces, "{:?}", start.elapsed());
}

#[test]
fn quirks_are_selected_by_name() {
    for text in [
        r#"{"fault":"challenge","schemes":["NTLM"]}"#,
        r#"{"fault":"iis-error","status":403,"substatus":7}"#,
        r#"{"fault":"iis-error","status":403}"#,
        r#"{"fault":"pool-stopped"}"#,
        r#"{"fault":"head-too-long","bytes":16384}"#,
        r#"{"fault":"redirect","status":302,"location":"https://login.example.com/adfs/ls/"}"#,
        r#"{"fault":"any-ticket","persist_ms":1000}"#,
        r#"{"fault":"stale-login","idle_ms":1000}"#,
        r#"{"fault":"session-cookie"}"#,
        r#"{"fault":"lower-case-names"}"#,
        r#"{"fault":"slow-body","ms":10}"#,
        r#"{"fault":"oauth-error","error":"invalid_grant"}"#,
        r#"{"fault":"expires-in-text"}"#,
    ] {
        let fault: Fault = serde_json::from_str(text).unwrap();
        let name = text.split('"').nth(3).unwrap();
        assert!(CONTROL_HELP.contains(name), "{name} is not in the help: {fault:?}");
    }
}
