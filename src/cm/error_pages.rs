//! Error pages that web servers send instead of CM's response. None is about a card.
//!
//! Known are the sub-codes of IIS (Microsoft: "The HTTP status code in IIS 7 and later"), the pages of
//! http.sys below IIS, and those of Apache and nginx about TLS.

use super::client_cert::ClientCertStatus;
use crate::domain::{ClientCertFault, TlsFault, UnavailableReason};

/// The reason for a page; `None` if the page does not say, or if it may be about the call.
pub(super) fn classify_page(
    status: u16,
    page: &[u8],
    client_cert: ClientCertStatus,
) -> Option<UnavailableReason> {
    let page = String::from_utf8_lossy(page).to_lowercase();
    match status {
        400 => bad_request(&page, client_cert),
        403 if page.contains("post-handshake authentication") => Some(requested(client_cert)),
        403 => match sub_code(&page, status) {
            Some(code) => forbidden(code, client_cert),
            // IIS shows sub-codes to local clients only, unless it is configured to. A client
            // certificate that was not requested says enough.
            None if client_cert == ClientCertStatus::NotRequested => Some(requested(client_cert)),
            None => None,
        },
        404 => match sub_code(&page, status)? {
            6 => Some(UnavailableReason::MethodNotAllowed),
            // 10: a header field (request filtering); the others: body, URL, query.
            10 | 13..=15 => Some(UnavailableReason::RequestTooLarge),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a page is about the head of a request: such a request was not processed.
pub(super) fn is_about_head(status: u16, page: &[u8]) -> bool {
    let page = String::from_utf8_lossy(page).to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| page.contains(text));
    match status {
        // http.sys, nginx ("Request Header Or Cookie Too Large"), Apache ("Size of a request header
        // field exceeds server limit").
        400 => says(&["http error 400.", "request header", "header field", "cookie"]),
        404 => sub_code(&page, status) == Some(10),
        _ => false,
    }
}

fn bad_request(page: &str, client_cert: ClientCertStatus) -> Option<UnavailableReason> {
    let says = |text: &str| page.contains(text);
    if says("no required ssl certificate") {
        return Some(requested(client_cert));
    }
    if says("the ssl certificate error") {
        return Some(UnavailableReason::ClientCertificate(ClientCertFault::Rejected));
    }
    if says("plain http request was sent to https port")
        || says("speaking plain http to an ssl-enabled server port")
    {
        return Some(UnavailableReason::Tls(TlsFault::TlsRequired));
    }
    // http.sys: "HTTP Error 400. The size of the request headers is too long." and others. URLs are
    // made of ids, and never bad by a card.
    says("http error 400.").then(|| {
        if says("too long") { UnavailableReason::RequestTooLarge } else { UnavailableReason::NotCm }
    })
}

fn forbidden(sub_code: u32, client_cert: ClientCertStatus) -> Option<UnavailableReason> {
    match sub_code {
        4 => Some(UnavailableReason::Tls(TlsFault::TlsRequired)),
        5 => Some(UnavailableReason::Tls(TlsFault::NoCommonCipher)),
        // By address or name of this machine.
        6 | 8 => Some(UnavailableReason::Unauthorized),
        7 => Some(requested(client_cert)),
        9 | 10 => Some(UnavailableReason::Busy),
        // No account for it, revoked, untrusted, expired.
        12 | 13 | 16 | 17 => Some(UnavailableReason::ClientCertificate(ClientCertFault::Rejected)),
        // A directory that is not listed: there is no application.
        14 => Some(UnavailableReason::NotCm),
        _ => None,
    }
}

/// The server requires a client certificate, and has none.
const fn requested(status: ClientCertStatus) -> UnavailableReason {
    UnavailableReason::ClientCertificate(status.late_request())
}

/// The number after the status, in `HTTP Error 403.7 - Forbidden` and the like.
fn sub_code(page: &str, status: u16) -> Option<u32> {
    let status = format!("{status}.");
    page.match_indices(&status).find_map(|(at, _)| {
        let before = page.get(..at)?.chars().next_back();
        if before.is_some_and(|c| c.is_ascii_digit() || c == '.') {
            return None;
        }
        let after = page.get(at + status.len()..)?;
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after.get(..digits)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detailed(code: &str) -> String {
        format!(
            "<html><head><title>IIS 10.0 Detailed Error - {code} - Forbidden</title></head>\
             <body><h3>HTTP Error {code} - Forbidden</h3></body></html>"
        )
    }

    fn told(status: u16, page: &str) -> Option<UnavailableReason> {
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
            assert_eq!(told(status, &detailed(code)), Some(meant), "{code}");
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
            assert_eq!(told(status, page), None, "{page}");
        }
    }

    #[test]
    fn a_page_without_a_sub_code_is_about_the_certificate_that_nobody_asked_for() {
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
        let page = |words: &str| {
            format!(
                "<HTML><HEAD><TITLE>Bad Request</TITLE></HEAD>\r\n<BODY><h2>Bad Request</h2>\r\n\
                 <hr><p>HTTP Error 400. {words}</p>\r\n</BODY></HTML>"
            )
        };
        let long = page("The size of the request headers is too long.");
        assert_eq!(told(400, &long), Some(UnavailableReason::RequestTooLarge));
        let long = page("A request header field is too long.");
        assert_eq!(told(400, &long), Some(UnavailableReason::RequestTooLarge));
        let host = page("The request hostname is invalid.");
        assert_eq!(told(400, &host), Some(UnavailableReason::NotCm));
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
            assert_eq!(told(status, page), Some(meant), "{page}");
        }
    }
}
