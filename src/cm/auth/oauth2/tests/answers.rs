//! What AD FS answers (`tests/fixtures/adfs`), and what others might.

use std::path::Path;
use std::time::Duration;

use super::super::token_response::{TokenResponse, parse};
use crate::cm::classify::{BodyEnd, HttpResponse};
use crate::domain::{CallError, Problem, UnavailableReason};

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse { status, body: body.as_bytes().to_vec(), ..HttpResponse::default() }
}

/// An answer of AD FS's, without its headers.
fn adfs(name: &str) -> HttpResponse {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adfs").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, body) = text.split_once("\n\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    answer(status, body.trim_end())
}

#[track_caller]
fn granted(answer: HttpResponse) -> TokenResponse {
    match parse(answer) {
        Ok(grant) => grant,
        Err(denial) => panic!("{denial:?}"),
    }
}

#[track_caller]
fn denied(answer: HttpResponse) -> Problem {
    answer.redactor.learn("s3cr&t");
    match parse(answer) {
        Ok(_) => panic!("a token was taken"),
        Err(denial) => denial,
    }
}

#[test]
fn a_token_of_adfs_is_taken_with_its_life() {
    let grant = granted(adfs("token.http"));
    assert_eq!(grant.expires_in, Duration::from_hours(1));
    assert!(grant.header.to_str().unwrap().starts_with("Bearer eyJ0eXAiOiJKV1QiLCJhbGci"));
    assert!(grant.header.is_sensitive());
}

#[test]
fn a_life_may_be_text_is_bounded_and_has_a_default() {
    let life = |expires_in: &str| {
        let body = format!(r#"{{"access_token":"t","token_type":"Bearer"{expires_in}}}"#);
        granted(answer(200, &body)).expires_in.as_secs()
    };
    assert_eq!(granted(adfs("expires-in-text.http")).expires_in, Duration::from_secs(3599));
    for (text, seconds) in [
        ("", 300),
        (r#","expires_in":null"#, 300),
        (r#","expires_in":"soon""#, 300),
        (r#","expires_in":[60]"#, 300),
        (r#","expires_in":"nan""#, 300),
        (r#","expires_in":60"#, 60),
        (r#","expires_in":" 60 ""#, 60),
        (r#","expires_in":60.9"#, 60),
        (r#","expires_in":0"#, 1),
        (r#","expires_in":-3600"#, 1),
        (r#","expires_in":1e300"#, 86_400),
        (r#","expires_in":18446744073709551615"#, 86_400),
    ] {
        assert_eq!(life(text), seconds, "{text}");
    }
    // Without a type, and with a byte order mark.
    assert_eq!(granted(answer(200, "\u{feff}{\"access_token\":\"t\"}")).header, "Bearer t");
}

#[test]
fn each_adfs_error_has_message_and_remedy() {
    for (name, what, remedy) in [
        (
            "unknown-client.http",
            "invalid_client: MSIS9607: The 'client_id' parameter",
            "application group",
        ),
        (
            "invalid-client.http",
            "invalid_client: MSIS9622: Client auth",
            "cm.auth.client_id and the secret",
        ),
        (
            "invalid-grant.http",
            "invalid_grant: MSIS9622",
            "certificate is the registered one, and the clocks",
        ),
        ("invalid-resource.http", "invalid_resource: MSIS9602", "set cm.auth.resource"),
        (
            "unauthorized-client.http",
            "unauthorized_client: MSIS9605",
            "Grant-AdfsApplicationPermission",
        ),
        ("invalid-scope.http", "invalid_scope: MSIS9330", "set cm.auth.scope"),
        ("unsupported-grant-type.http", "unsupported_grant_type: MSIS9611", "AD FS 2016"),
        ("server-error.http", "server_error: MSIS9612", "event log"),
        ("temporarily-unavailable.http", "temporarily_unavailable", "if this persists"),
    ] {
        let denial = denied(adfs(name));
        assert!(denial.what.starts_with(&format!("says no: {what}")), "{denial:?}");
        assert!(denial.remedy.contains(remedy), "{denial:?}");
    }
}

#[test]
fn unusable_token_responses_are_named() {
    let located = HttpResponse { location: Some("evil.example.com".to_owned()), ..answer(302, "") };
    let broken = CallError::Unavailable {
        reason: UnavailableReason::Timeout,
        detail: "no whole response within 10s".to_owned(),
        retry_after: None,
    };
    for (answer, what, remedy) in [
        (
            adfs("service-stopped.http"),
            "answers 503 Service Unavailable: Service Unavailable",
            "persists",
        ),
        (
            adfs("sign-in-page.http"),
            "answers with something else than a token: Sign In",
            "token_url",
        ),
        (adfs("not-found.http"), "answers 404 Not Found", "token_url"),
        (located, "redirects to evil.example.com, where nothing is sent (302 Found)", "token_url"),
        (answer(302, ""), "redirects to nowhere", "token_url"),
        (
            answer(407, "<title>Login</title>"),
            "answers 407 Proxy Authentication Required: Login",
            "cm.proxy",
        ),
        (answer(405, ""), "answers 405 Method Not Allowed", "token_url"),
        (answer(401, ""), "answers 401 Unauthorized", "authenticates"),
        (answer(200, ""), "answers with something else than a token", "token_url"),
        (answer(200, "{}"), "answers without a token", "token_url"),
        (answer(200, r#"{"error":"invalid_client"}"#), "says no: invalid_client", "client_id"),
        (answer(400, r#"{"error":"new_error"}"#), "says no: new_error", "event log"),
        (
            answer(200, r#"{"access_token":"a b"}"#),
            "issues a token that cannot be sent",
            "event log",
        ),
        (answer(200, r#"{"access_token":""}"#), "issues a token that cannot be sent", "event log"),
        (
            answer(200, r#"{"access_token":"t","token_type":"DPoP"}"#),
            "issues tokens of the type \"DPoP\"",
            "event log",
        ),
        (
            HttpResponse { end: BodyEnd::TooLarge(9), ..answer(200, "") },
            "answers with more than 9 bytes",
            "token_url",
        ),
        (
            HttpResponse { end: BodyEnd::Broken(broken), ..answer(200, r#"{"access"#) },
            "broke off: no whole response within 10s",
            "persists",
        ),
    ] {
        let denial = denied(answer);
        assert!(denial.what.starts_with(what), "{denial:?} is not {what}");
        assert!(denial.remedy.contains(remedy), "{denial:?}");
    }
}

#[test]
fn nothing_of_a_token_is_quoted_from_an_answer_that_cannot_be_used() {
    for body in [
        r#"{"access_token":"t0ken","token_type":"t0ken"}"#,
        r#"{"access_token":"t0ken","token_type":"mac","expires_in":{"#,
        r#"{"accessToken":"t0ken"}"#,
        r#"{"access_token":"t0ken t0ken"}"#,
        r#""t0ken""#,
        "access_token=t0ken&token_type=bearer",
    ] {
        let denial = denied(answer(200, body));
        assert!(!denial.what.contains("t0ken"), "{denial:?}");
    }
}

#[test]
fn what_was_sent_is_hidden_where_it_comes_back() {
    for body in [
        r#"{"error":"invalid_client","error_description":"s3cr&t is wrong"}"#,
        r#"{"error":"s3cr&t","error_description":"s3cr\u0026t, s3cr%26t"}"#,
        r#"{"error":"invalid_client","error_description":"czNjciZ0"}"#,
        "<title>s3cr&amp;t</title>",
        "client_secret=s3cr%26t&grant_type=x",
        r#"{"Message":"\u00733cr&t"}"#,
        r#"{"Message":["s3cr&t"]}"#,
        &format!(r#"{{"Message":"{}\u00733cr&t"}}"#, "x".repeat(196)),
        &format!("<title>{}s3cr&t</title>", "x".repeat(196)),
    ] {
        for status in [200, 400, 401, 500] {
            let Problem { what, .. } = denied(answer(status, body));
            let shown = ["s3c", "czNj", "3cr"];
            assert!(!shown.iter().any(|secret| what.contains(secret)), "{what}");
        }
    }
}

#[test]
fn a_token_in_an_answer_that_is_no_success_is_not_quoted() {
    let body = r#"{"access_token":"eyJ0b2tlbiI6Im5ldyJ9","token_type":"bearer"}"#;
    for status in [400, 401, 403, 500, 503] {
        let Problem { what, .. } = denied(answer(status, body));
        assert!(what.starts_with(&format!("answers {status}")) && !what.contains("eyJ"), "{what}");
    }
}
