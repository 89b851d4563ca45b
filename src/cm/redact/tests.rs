#![expect(clippy::string_slice, reason = "the secrets of these tests are ASCII")]

use std::time::Instant;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const NASTY: &str = "p&q=r+s/t%u \"v\"<w>'x'\\yß";
const TOKEN: &str = "eyJhbGciOi+JIUzI1/NiIsInR5cCI_6IkpX-VCJ9.c2lnbmF0dXJl";

fn knowing(secret: &str) -> Redactor {
    let redactor = Redactor::default();
    redactor.learn(secret);
    redactor
}

/// A part of a secret in each encoding in which a server may write it.
fn encoded(part: &str) -> Vec<String> {
    let bytes = part.as_bytes();
    let each = |write: &dyn Fn(u8) -> String| bytes.iter().map(|byte| write(*byte)).collect();
    let mut forms: Vec<String> = vec![
        part.to_owned(),
        part.to_uppercase(),
        form_urlencoded::byte_serialize(bytes).collect(),
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("%{byte:02x}")),
        each(&|byte| format!("%25{byte:02x}")),
        each(&|byte| format!("\\u{byte:04X}")),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&|byte| format!("\\\\u{byte:04x}")),
        each(&|byte| format!("\\x{byte:02x}")),
        each(&|byte| format!("&#{byte};")),
        each(&|byte| format!("&#x{byte:X};")),
        each(&|byte| format!("&#x{byte:04x}")),
        each(&|byte| format!("&#{byte:014};")),
        each(&|byte| format!("\\u{{{byte:x}}}")),
        part.chars().map(|c| c.escape_debug().to_string()).collect::<Vec<_>>().join("\\u{200b}"),
        each(&|byte| format!("%26%23{byte}%3B")),
        each(&|byte| format!("{byte:02x}:")),
        each(&|byte| format!("{byte:02X} ")),
        hex::encode(bytes),
        format!("f{}", hex::encode_upper(bytes)),
        serde_json::Value::from(part).to_string().replace('/', "\\/"),
        part.replace('&', "&amp;").replace('+', "&plus;").replace('/', "&sol;"),
        part.split_inclusive(|_: char| true).collect::<Vec<_>>().join("\u{ad}"),
        part.split_inclusive(|_: char| true).collect::<Vec<_>>().join("\r\n "),
    ];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        for before in ["", "x", "xy", "xyz"] {
            let encoded = engine.encode(format!("{before}{part}{before}"));
            forms.push(encoded.replace('+', "%2B").replace('/', "\\/"));
            forms.push(hex::encode(&encoded));
            forms.push(encoded);
        }
    }
    forms
}

/// Whether the text has a run of the secret in it, as the judge of the tests sees it: with an eye of its
/// own for each encoding that has no neighbours.
fn shows(text: &str, part: &str, form: &str) -> bool {
    text.contains(form) || text.contains(part) || text.contains(&hex::encode(part))
}

#[test]
fn a_secret_is_hidden_in_every_form_in_which_it_may_come_back() {
    for secret in [NASTY, TOKEN, "s3cret!", "correct horse battery staple"] {
        let redactor = knowing(secret);
        for form in encoded(secret).into_iter().filter(|_| secret.is_ascii()) {
            let reported = redactor.redact(&format!("no <{form}>: wrong"));
            assert!(
                reported.contains(REDACTED) && !shows(&reported, secret, &form),
                "{form}: {reported}"
            );
            assert!(
                reported.starts_with("no <") && reported.ends_with(">: wrong"),
                "{form}: {reported}"
            );
        }
    }
    for form in [
        NASTY,
        "p%26q%3Dr%2Bs%2Ft%25u+%22v%22%3Cw%3E%27x%27%5Cy%C3%9F",
        "p%26q%3Dr%2Bs%2Ft%25u%20%22v%22%3Cw%3E%27x%27%5Cy%C3%9F",
        "p%26q%3dr%2bs%2ft%25u%20%22v%22%3cw%3e%27x%27%5cy%c3%9f",
        "p&amp;q=r+s/t%u &quot;v&quot;&lt;w&gt;&#39;x&#39;\\yß",
        r#"p&q=r+s/t%u \"v\"<w>'x'\\yß"#,
        "cCZxPXIrcy90JXUgInYiPHc+J3gnXHnDnw==",
        "cCZxPXIrcy90JXUgInYiPHc-J3gnXHnDnw",
    ] {
        let reported = knowing(NASTY).redact(&format!("no {form}: wrong"));
        assert_eq!(reported.replace('=', ""), "no [hidden]: wrong", "{form}");
    }
}

#[test]
fn every_run_of_twelve_characters_is_hidden_and_what_is_shorter_is_not() {
    let redactor = knowing(TOKEN);
    for start in 0..=TOKEN.len() - RUN {
        for form in encoded(&TOKEN[start..start + RUN]) {
            let reported = redactor.redact(&format!("({form})"));
            assert!(reported.contains(REDACTED), "{form}: {reported}");
        }
        let short = format!("({})", &TOKEN[start..start + RUN - 1]);
        assert_eq!(redactor.redact(&short), short);
    }
}

#[test]
fn what_a_cut_left_of_a_short_secret_is_hidden() {
    let redactor = knowing("Abc+23xyZ");
    redactor.learn_headers(&"Bearer s3cr/tTok".parse().unwrap());
    for left in ["Abc+", "abc-2", "Abc+23xyZ", "s3cr/", "s3cr/tTo"] {
        assert_eq!(
            redactor.redact(&format!("no session={left}…")),
            "no session=[hidden]…",
            "{left}"
        );
    }
    // Not cut, too little, or another text.
    for text in ["session=Abc+23xy", "session=Abc…", "session=bc+23xyY…", "…", "é…"] {
        assert_eq!(redactor.redact(text), text);
    }
}

#[test]
fn a_text_without_a_secret_stays_as_it_is() {
    let redactor = knowing(TOKEN);
    redactor.learn("s3cret!");
    for text in [
        "",
        "503 Service Unavailable: the service is unavailable; correlation 6f1c1f8e-5a52-4dd6-9a62",
        "100 % sure & \\certain that %zz &nothing; \\u12 stays: äöü…",
        "/CertificateManagement/api/v1.0/requests/b105403d-d021-41ea-9f11-be3d677d229e",
    ] {
        assert_eq!(redactor.redact(text), text);
        assert_eq!(Redactor::default().redact(text), text);
    }
    // Too short to be searched for.
    assert_eq!(knowing("abc").redact("abc"), "abc");
}

#[test]
fn of_a_proxys_login_the_password_is_secret_and_the_user_is_not() {
    let redactor = Redactor::default();
    let header = format!("Basic {}", STANDARD.encode("a-long-user-name:s3cr:t"));
    redactor.learn_basic(&header.parse().unwrap());
    assert_eq!(redactor.redact("a-long-user-name may not"), "a-long-user-name may not");
    assert_eq!(redactor.redact("password s3cr:t"), "password [hidden]");
    assert!(!redactor.redact("a-long-user-name:s3cr:t").contains("s3cr"));
    assert!(redactor.redact(&header).contains(REDACTED));
    assert!(redactor.redact(&hex::encode("a-long-user-name:s3cr:t")).contains(REDACTED));
}

#[test]
fn a_ticket_is_hidden_as_text_and_as_what_the_text_stands_for() {
    let ticket: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
    let redactor = Redactor::default();
    let header = format!("Negotiate {}", STANDARD.encode(&ticket));
    redactor.learn_headers(&header.parse().unwrap());
    for form in [
        STANDARD.encode(&ticket[5..40]),
        URL_SAFE.encode(&ticket[6..60]),
        hex::encode(&ticket[7..60]),
        header["Negotiate ".len() + 3..40].to_owned(),
    ] {
        let reported = redactor.redact(&form);
        assert!(reported.contains(REDACTED) && reported.len() < 20, "{form}: {reported}");
    }
}

#[test]
fn what_is_remembered_is_bounded_and_the_newest_is_in_it() {
    let redactor = Redactor::default();
    for n in 0..1000 {
        let header = format!("Negotiate {}{n:08}", "x".repeat(8 << 10));
        redactor.learn_headers(&header.parse().unwrap());
        redactor.learn(&format!("secret number {n:04}"));
    }
    let known = redactor.known();
    assert!(known.headers.iter().map(HeaderValue::len).sum::<usize>() <= MAX_HEADER_BYTES);
    assert_eq!(known.secrets.len(), MAX_SECRETS);
    drop(known);
    assert!(redactor.redact("secret number 0999").contains(REDACTED));
}

#[test]
fn a_hostile_text_takes_no_more_than_its_share_of_time() {
    let redactor = knowing(TOKEN);
    redactor.learn_headers(&format!("Bearer {}", "t0ken".repeat(10_000)).parse().unwrap());
    for piece in ["%25", "\\u005c", "&amp;", "QUJD", "4142", "%&\\+", "+", "\u{ad}", "JTI1"] {
        let text = piece.repeat((1 << 20) / piece.len());
        let started = Instant::now();
        let reported = redactor.redact(&text);
        assert!(reported.len() <= MAX_TEXT);
        assert!(started.elapsed().as_secs() < 2, "{piece}: {:?}", started.elapsed());
    }
}

#[test]
fn an_error_is_hidden_with_its_id() {
    let id = "6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10";
    let failed = |detail: &str, id: Option<&str>| CallError::Failed {
        http_status: 500,
        detail: detail.to_owned(),
        correlation_id: id.map(str::to_owned),
        retry_after: None,
    };
    let error = failed(id, Some(id));
    assert_eq!(knowing(id).redact_in(error.clone()), failed(REDACTED, None));
    assert_eq!(knowing(TOKEN).redact_in(error.clone()), error);
}

proptest! {
    #[test]
    fn no_text_breaks_it_and_no_part_of_a_secret_gets_through(
        secret in "[!-~]{12,80}",
        before in "\\PC{0,40}",
        after in "\\PC{0,40}",
        start in 0_usize..70,
        form in any::<prop::sample::Index>(),
    ) {
        let redactor = knowing(&secret);
        redactor.redact(&before);
        let start = start.min(secret.len() - RUN);
        let part = &secret[start..start + RUN];
        let forms = encoded(part);
        let form = form.get(&forms);
        let reported = redactor.redact(&format!("{before} ({form}) {after}"));
        prop_assert!(reported.contains(REDACTED), "{} in {}", form, reported);
    }
}
