use super::*;
use crate::domain::ClientCertFault;

/// A page as IIS writes them.
const PAGE: &str = "<html><head><title>IIS Detailed Error</title></head><body>long</body></html>";

const ID: &str = "6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10";

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse {
        status,
        retry_after: Some(Duration::from_secs(7)),
        is_html: body.starts_with('<'),
        body: body.as_bytes().to_vec(),
        ..HttpResponse::default()
    }
}

fn error(status: u16, body: &str) -> CallError {
    classify(answer(status, body)).unwrap_err()
}

#[track_caller]
fn assert_away(error: CallError, expected: UnavailableReason, text: &str) -> Option<Duration> {
    let CallError::Unavailable { reason, detail, retry_after } = error else { panic!("{error:?}") };
    assert_eq!((reason, detail.as_str()), (expected, text));
    retry_after
}

#[test]
fn statuses_that_say_nothing_about_the_card_are_away() {
    for (status, reason, detail) in [
        (401, UnavailableReason::Unauthorized, "401 Unauthorized: IIS Detailed Error"),
        (405, UnavailableReason::MethodNotAllowed, "405 Method Not Allowed: IIS Detailed Error"),
        (
            407,
            UnavailableReason::Proxy(ProxyFault::AuthRequired),
            "407 Proxy Authentication Required: IIS Detailed Error",
        ),
        (413, UnavailableReason::RequestTooLarge, "413 Payload Too Large: IIS Detailed Error"),
        (414, UnavailableReason::RequestTooLarge, "414 URI Too Long: IIS Detailed Error"),
        (411, UnavailableReason::NotCm, "411 Length Required: IIS Detailed Error"),
        (415, UnavailableReason::NotCm, "415 Unsupported Media Type: IIS Detailed Error"),
        (417, UnavailableReason::NotCm, "417 Expectation Failed: IIS Detailed Error"),
        (426, UnavailableReason::NotCm, "426 Upgrade Required: IIS Detailed Error"),
        (421, UnavailableReason::NotCm, "421 Misdirected Request: IIS Detailed Error"),
        (425, UnavailableReason::Busy, "425 Too Early: IIS Detailed Error"),
        (
            431,
            UnavailableReason::RequestTooLarge,
            "431 Request Header Fields Too Large: IIS Detailed Error",
        ),
        (408, UnavailableReason::Busy, "408 Request Timeout: IIS Detailed Error"),
        (429, UnavailableReason::Busy, "429 Too Many Requests: IIS Detailed Error"),
        (503, UnavailableReason::Busy, "503 Service Unavailable: IIS Detailed Error"),
        (501, UnavailableReason::ServerError, "501 Not Implemented: IIS Detailed Error"),
        (502, UnavailableReason::ServerError, "502 Bad Gateway: IIS Detailed Error"),
        (504, UnavailableReason::ServerError, "504 Gateway Timeout: IIS Detailed Error"),
        (599, UnavailableReason::ServerError, "599: IIS Detailed Error"),
        (600, UnavailableReason::NotCm, "600: IIS Detailed Error"),
        (100, UnavailableReason::NotCm, "100 Continue: IIS Detailed Error"),
    ] {
        let retry_after = assert_away(error(status, PAGE), reason, detail);
        assert_eq!(retry_after, Some(Duration::from_secs(7)), "{status}");
    }
    assert_away(error(503, ""), UnavailableReason::Busy, "503 Service Unavailable");
}

#[test]
fn a_404_or_500_is_cm_failing_on_this_call() {
    for status in [404, 500] {
        let body = format!(r#"{{"Message":"An error has occurred, id {ID}."}}"#);
        let failed = CallError::Failed {
            http_status: status,
            detail: format!("An error has occurred, id {ID}."),
            correlation_id: Some(ID.to_owned()),
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(error(status, &body), failed);
    }
    let bare = CallError::Failed {
        http_status: 500,
        detail: "500 Internal Server Error".to_owned(),
        correlation_id: None,
        retry_after: Some(Duration::from_secs(7)),
    };
    assert_eq!(error(500, " "), bare);
}

#[test]
fn every_other_4xx_is_a_refusal_with_cms_words() {
    let special = [401, 404, 405, 407, 408, 411, 413, 414, 415, 417, 421, 425, 426, 429, 431];
    for status in (400..=499).filter(|status| !special.contains(status)) {
        let refused = |detail: String| CallError::Refused {
            http_status: status,
            detail,
            correlation_id: None,
        };
        let detail = "You may not execute this request".to_owned();
        let body = format!(r#"{{"Message":"{detail}"}}"#);
        assert_eq!(error(status, &body), refused(detail));
        assert_eq!(error(status, " "), refused(status_name(status)));
    }
}

#[test]
fn a_page_in_place_of_cms_words_is_no_refusal_yet() {
    for status in [400, 403, 409] {
        for page in [PAGE, "not you"] {
            let error = error(status, page);
            let failed =
                matches!(&error, CallError::Failed { http_status, .. } if *http_status == status);
            assert!(failed, "{status} {page}: {error:?}");
        }
    }
}

#[test]
fn redirect_is_reported_as_not_cm() {
    for status in [300, 301, 302, 303, 304, 305, 307, 308] {
        let mut answer = answer(status, "");
        answer.location = Some("login.example.com".to_owned());
        let CallError::Unavailable { reason, detail, .. } = classify(answer).unwrap_err() else {
            panic!()
        };
        assert_eq!(reason, UnavailableReason::NotCm);
        assert!(detail.ends_with("the server redirects to login.example.com"), "{detail}");
        let nowhere = error(status, "");
        assert!(nowhere.detail().ends_with("without a location"), "{nowhere:?}");
    }
}

#[test]
fn a_good_answer_is_its_body() {
    for status in [200, 201, 202, 204] {
        assert_eq!(classify(answer(status, "[]")).unwrap(), b"[]");
        assert_eq!(classify(answer(status, "")).unwrap(), b"");
    }
}

#[test]
fn a_good_status_without_a_whole_body_is_no_answer() {
    let mut large = answer(200, "[");
    large.end = BodyEnd::TooLarge(17);
    let detail = "the response has more than 17 bytes";
    assert_away(classify(large).unwrap_err(), UnavailableReason::NotCm, detail);
    let mut broken = answer(200, "[");
    broken.end =
        BodyEnd::Broken(CallError::unavailable(UnavailableReason::Timeout, "late".to_owned()));
    assert_away(classify(broken).unwrap_err(), UnavailableReason::Timeout, "late");
    let mut empty = answer(200, "\r\n");
    empty.is_html = true;
    assert_away(
        classify(empty).unwrap_err(),
        UnavailableReason::NotCm,
        "the response is an empty page",
    );
    let part = "206 Partial Content: []";
    assert_away(error(206, "[]"), UnavailableReason::NotCm, part);
}

#[test]
fn an_answer_without_content_is_no_page_whatever_type_it_names() {
    for status in [204, 205] {
        let none = HttpResponse { is_html: true, ..answer(status, "") };
        assert_eq!(classify(none).unwrap(), b"", "{status}");
    }
    for status in [200, 201, 202, 203] {
        let page = HttpResponse { is_html: true, ..answer(status, "") };
        let detail = "the response is an empty page";
        assert_away(classify(page).unwrap_err(), UnavailableReason::NotCm, detail);
    }
}

#[test]
fn a_compressed_answer_is_named_with_its_coding_and_never_quoted() {
    for coding in ["gzip", "br", "x-gzip", "unknown"] {
        let compressed = |status| HttpResponse {
            coding: Some(coding.to_owned()),
            ..answer(status, "\u{1f}garbled http error 400. too long")
        };
        for status in [200, 201, 401, 403, 400, 404, 409, 500, 502, 503] {
            let error = classify(compressed(status)).unwrap_err();
            let detail = error.detail();
            assert!(detail.contains(&format!("compressed ({coding})")), "{detail}");
            assert!(!detail.contains("garbled"), "{detail}");
            // What cannot be read is no refusal of this card.
            assert!(!matches!(error, CallError::Refused { .. }), "{status}: {error:?}");
            if status == 200 {
                assert_eq!(error.unavailable_reason(), Some(UnavailableReason::NotCm));
            }
        }
    }
}

#[test]
fn long_retry_after_names_retry_command() {
    for status in [500, 502, 503, 429, 404] {
        let long =
            HttpResponse { retry_after: Some(Duration::from_hours(1)), ..answer(status, "") };
        let error = classify(long).unwrap_err();
        assert!(error.detail().contains("`cardbridge outbox retry ID`"), "{error:?}");
    }
}

#[test]
fn a_bad_status_counts_however_its_body_ended() {
    for end in [
        BodyEnd::TooLarge(1),
        BodyEnd::Broken(CallError::unavailable(UnavailableReason::Timeout, String::new())),
    ] {
        let mut forbidden = answer(403, r#""not you""#);
        forbidden.end = end;
        assert!(matches!(classify(forbidden), Err(CallError::Refused { http_status: 403, .. })));
    }
}

#[test]
fn a_page_that_says_why_is_away_and_never_the_cards_fault() {
    use UnavailableReason::{ClientCertificate, MethodNotAllowed, RequestTooLarge};
    let late = "<title>IIS 10.0 Detailed Error - 403.7 - Forbidden</title>";
    let detail = "403 Forbidden: IIS 10.0 Detailed Error - 403.7 - Forbidden";
    assert_away(error(403, late), ClientCertificate(ClientCertFault::Required), detail);
    let mut asked_late = answer(403, late);
    asked_late.client_cert = ClientCertStatus::NotRequested;
    let late = classify(asked_late).unwrap_err();
    assert_away(late, ClientCertificate(ClientCertFault::RequestedLate), detail);
    let long = "<h2>Bad Request - Request Too Long</h2><hr><p>HTTP Error 400. The size of the \
                request headers is too long.</p>";
    assert!(matches!(error(400, long), CallError::Unavailable { reason: RequestTooLarge, .. }));
    let verb = "<h3>HTTP Error 404.6 - Not Found</h3>";
    assert!(matches!(error(404, verb), CallError::Unavailable { reason: MethodNotAllowed, .. }));
}

#[test]
fn what_cm_says_itself_is_not_taken_for_a_page() {
    for detail in ["HTTP Error 403.7 - client certificate", "post-handshake authentication"] {
        let mut answer = answer(403, &format!(r#"{{"Message":"{detail}"}}"#));
        answer.client_cert = ClientCertStatus::NotRequested;
        assert!(matches!(classify(answer), Err(CallError::Refused { http_status: 403, .. })));
    }
}

fn detailed(code: &str) -> String {
    format!(
        "<html><head><title>IIS 10.0 Detailed Error - {code} - Forbidden</title></head>\
         <body><h3>HTTP Error {code} - Forbidden</h3></body></html>"
    )
}

fn page_reason(status: u16, page: &str) -> Option<UnavailableReason> {
    classify_page(status, page.as_bytes(), ClientCertStatus::NotConfigured)
}

#[test]
fn a_sub_code_of_iis_is_what_the_page_is_about() {
    use UnavailableReason::{
        Busy, ClientCertificate, MethodNotAllowed, NotCm, RequestTooLarge, Tls, Unauthorized,
    };
    for (code, meant) in [
        ("403.4", Tls(TlsFault::TlsRequired)),
        ("403.5", Tls(TlsFault::NoCommonCipher)),
        ("403.6", Unauthorized),
        ("403.7", ClientCertificate(ClientCertFault::Required)),
        ("403.8", Unauthorized),
        ("403.9", Busy),
        ("403.12", ClientCertificate(ClientCertFault::Rejected)),
        ("403.13", ClientCertificate(ClientCertFault::Rejected)),
        ("403.14", NotCm),
        ("403.16", ClientCertificate(ClientCertFault::Rejected)),
        ("403.17", ClientCertificate(ClientCertFault::Rejected)),
        ("404.6", MethodNotAllowed),
        ("404.10", RequestTooLarge),
        ("404.13", RequestTooLarge),
        ("404.14", RequestTooLarge),
        ("404.15", RequestTooLarge),
    ] {
        let status = code.split('.').next().unwrap().parse().unwrap();
        assert_eq!(page_reason(status, &detailed(code)), Some(meant), "{code}");
    }
}

#[test]
fn a_page_that_does_not_say_why_is_not_explained() {
    for (status, page) in [
        (403, "<title>403 - Forbidden: Access is denied.</title>"),
        (403, "<p>10.403.7 and 1403.7</p>"),
        (403, "<h1>HTTP Error 403.1 - Execute access</h1>"),
        (404, "<h1>HTTP Error 404.0 - Not Found</h1>"),
        (400, "<h1>Bad Request</h1>"),
        (500, "<h1>HTTP Error 500.19 - Internal Server Error</h1>"),
    ] {
        assert_eq!(page_reason(status, page), None, "{page}");
    }
}

#[test]
fn page_without_sub_code_means_unrequested_certificate() {
    let page = b"<title>403 - Forbidden: Access is denied.</title>";
    let late = UnavailableReason::ClientCertificate(ClientCertFault::RequestedLate);
    assert_eq!(classify_page(403, page, ClientCertStatus::NotRequested), Some(late));
    for shown in [
        ClientCertStatus::Presented,
        ClientCertStatus::SigningOnly,
        ClientCertStatus::NotConfigured,
    ] {
        assert_eq!(classify_page(403, page, shown), None);
    }
    assert_eq!(
        classify_page(403, detailed("403.7").as_bytes(), ClientCertStatus::NotRequested),
        Some(late)
    );
    let refused = UnavailableReason::Unauthorized;
    assert_eq!(
        classify_page(403, detailed("403.6").as_bytes(), ClientCertStatus::NotRequested),
        Some(refused)
    );
}

#[test]
fn what_http_sys_says_is_never_about_a_card() {
    let page = |detail: &str| {
        format!(
            "<HTML><HEAD><TITLE>Bad Request</TITLE></HEAD>\r\n<BODY><h2>Bad Request</h2>\r\n\
             <hr><p>HTTP Error 400. {detail}</p>\r\n</BODY></HTML>"
        )
    };
    let long = page("The size of the request headers is too long.");
    assert_eq!(page_reason(400, &long), Some(UnavailableReason::RequestTooLarge));
    let long = page("A request header field is too long.");
    assert_eq!(page_reason(400, &long), Some(UnavailableReason::RequestTooLarge));
    let host = page("The request hostname is invalid.");
    assert_eq!(page_reason(400, &host), Some(UnavailableReason::NotCm));
}

#[test]
fn what_apache_and_nginx_say_about_tls_is_known() {
    use UnavailableReason::{ClientCertificate, Tls};
    for (status, page, meant) in [
        (
            400,
            "<title>400 No required SSL certificate was sent</title>",
            ClientCertificate(ClientCertFault::Required),
        ),
        (
            400,
            "<title>400 The SSL certificate error</title>",
            ClientCertificate(ClientCertFault::Rejected),
        ),
        (
            400,
            "<title>400 The plain HTTP request was sent to HTTPS port</title>",
            Tls(TlsFault::TlsRequired),
        ),
        (
            400,
            "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
            Tls(TlsFault::TlsRequired),
        ),
        (
            403,
            "<p>Reason: Cannot perform Post-Handshake Authentication.</p>",
            ClientCertificate(ClientCertFault::Required),
        ),
    ] {
        assert_eq!(page_reason(status, page), Some(meant), "{page}");
    }
}
