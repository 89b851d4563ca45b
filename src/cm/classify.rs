//! What an HTTP response means, before the body of a good one is read.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use super::client_cert::ClientCertStatus;
use super::headers::{compressed, with_retry_after};
use super::redact::Redactor;
use crate::domain::{CallError, ClientCertFault, ProxyFault, TlsFault, UnavailableReason};
use crate::wire::cm;

/// A response as received. No `Debug`: it may contain a token.
#[derive(Default)]
pub(super) struct HttpResponse {
    pub(super) status: u16,
    /// Whether the call had cookies.
    pub(super) had_cookies: bool,
    pub(super) retry_after: Option<Duration>,
    /// The target host of a redirect.
    pub(super) location: Option<String>,
    /// Whether the server calls it HTML.
    pub(super) is_html: bool,
    /// The coding of its body, other than `identity`.
    pub(super) coding: Option<String>,
    pub(super) client_cert: ClientCertStatus,
    /// `WWW-Authenticate`, each line of it.
    pub(super) challenges: Vec<HeaderValue>,
    /// The server's certificate, as DER; `None` without TLS.
    pub(super) certificate: Option<Vec<u8>>,
    /// The server's clock.
    pub(super) date: Option<Timestamp>,
    /// As much as was read.
    pub(super) body: Vec<u8>,
    pub(super) end: BodyEnd,
    pub(super) redactor: Arc<Redactor>,
}

/// Whether a server refused the head of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadRefusal {
    None,
    /// A page with status 400 that does not say why.
    Suspected,
    /// The call was not processed.
    Named,
}

/// How the body ended.
#[derive(Debug, Default)]
pub(super) enum BodyEnd {
    #[default]
    Whole,
    /// Read no further than this many bytes.
    TooLarge(usize),
    Broken(CallError),
}

/// What a response says about the credentials of its call.
pub(super) enum AuthDecision {
    Accept,
    /// Repeat the call once with other credentials: the response is a 401, so nothing was done.
    Retry,
    Reject(CallError),
}

impl HttpResponse {
    pub(super) const fn is_unauthorized(&self) -> bool {
        self.status == 401
    }

    pub(super) fn head_refusal(&self) -> HeadRefusal {
        match self.status {
            413 | 431 => HeadRefusal::Named,
            400 | 404 if !is_from_cm(self) && is_about_head(self.status, &self.body) => {
                HeadRefusal::Named
            }
            400 if !is_from_cm(self) => HeadRefusal::Suspected,
            _ => HeadRefusal::None,
        }
    }
}

/// The body of a good response, or the meaning of a bad one: the table of `docs/cm-protocol.md`. A bad
/// response counts by its status alone, however its body ended.
pub(super) fn classify(response: HttpResponse) -> Result<Vec<u8>, CallError> {
    use UnavailableReason::{
        Busy, MethodNotAllowed, NotCm, RequestTooLarge, ServerError, Unauthorized,
    };
    match response.status {
        200..=299 => success_body(response),
        300..=399 => Err(redirect(&response)),
        401 => Err(unavailable(Unauthorized, &response)),
        405 => Err(unavailable(MethodNotAllowed, &response)),
        // From a proxy: it says nothing about the card.
        407 => Err(unavailable(UnavailableReason::Proxy(ProxyFault::AuthRequired), &response)),
        // The calls of all cards have the same length.
        413 | 414 | 431 => Err(unavailable(RequestTooLarge, &response)),
        // About the connection or the form of the call, which is the same for every card.
        411 | 415 | 417 | 421 | 426 => Err(unavailable(NotCm, &response)),
        408 | 425 | 429 | 503 => Err(unavailable(Busy, &response)),
        501..=599 => Err(unavailable(ServerError, &response)),
        400..=500 => Err(error_page(&response).unwrap_or_else(|| client_error(&response))),
        _ => Err(unavailable(NotCm, &response)),
    }
}

/// The meaning of a page of the web server, if the page says why it is there.
fn error_page(response: &HttpResponse) -> Option<CallError> {
    if is_from_cm(response) || response.coding.is_some() {
        return None;
    }
    classify_page(response.status, &response.body, response.client_cert)
        .map(|reason| unavailable(reason, response))
}

fn client_error(response: &HttpResponse) -> CallError {
    match response.status {
        404 | 500 => failed(response),
        // A page of a proxy or of the web server. Calls for other cards show whether it is about this one.
        _ if !is_from_cm(response) => failed(response),
        _ => refused(response),
    }
}

/// The reason for an error page that a web server sends instead of CM's response. None is about a card.
///
/// Known are the sub-codes of IIS (Microsoft: "The HTTP status code in IIS 7 and later"), the pages of
/// http.sys below IIS, and those of Apache and nginx about TLS. `None` if the page does not say, or if it
/// may be about the call.
fn classify_page(
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
fn is_about_head(status: u16, page: &[u8]) -> bool {
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

/// A body that is no JSON of CM, although the status was good.
pub(super) fn unparsable_body(error: &cm::ParseError, body: &[u8]) -> CallError {
    match error {
        cm::ParseError::Invalid(detail) => CallError::UnexpectedResponse { detail: detail.clone() },
        // It is CM: a remedy for another site in its place would mislead.
        cm::ParseError::TooLarge(detail) => CallError::unavailable(
            UnavailableReason::ServerError,
            format!("{detail}: too much to be read; complete or cancel old requests in CM"),
        ),
        cm::ParseError::NotJson(_) | cm::ParseError::NotCm(..) => {
            let message = cm::error_text(body).message;
            let message = if message.is_empty() { "no text" } else { &message };
            CallError::unavailable(UnavailableReason::NotCm, format!("{error}: {message}"))
        }
    }
}

fn success_body(response: HttpResponse) -> Result<Vec<u8>, CallError> {
    let not_cm = |detail| Err(CallError::unavailable(UnavailableReason::NotCm, detail));
    match response.end {
        BodyEnd::Broken(error) => Err(error),
        BodyEnd::TooLarge(limit) => not_cm(format!("the response has more than {limit} bytes")),
        BodyEnd::Whole if let Some(coding) = &response.coding => {
            not_cm(compressed(coding).to_string())
        }
        // A part of something, where the whole was asked for.
        BodyEnd::Whole if response.status == 206 => {
            Err(unavailable(UnavailableReason::NotCm, &response))
        }
        // "None" is an answer of CM's; an empty page is not. A response without content (RFC 9110
        // sections 15.3.5 and 15.3.6) is no page, whatever type it names.
        BodyEnd::Whole
            if response.is_html
                && !matches!(response.status, 204 | 205)
                && response.body.trim_ascii().is_empty() =>
        {
            not_cm("the response is an empty page".to_owned())
        }
        BodyEnd::Whole => Ok(response.body),
    }
}

/// Whether the response can be CM's: JSON, or no text.
fn is_from_cm(response: &HttpResponse) -> bool {
    response.coding.is_none()
        && (response.body.trim_ascii().is_empty() || cm::is_json(&response.body))
}

fn unavailable(reason: UnavailableReason, response: &HttpResponse) -> CallError {
    let message = error_text(response).message;
    let status = status_name(response.status);
    let detail = if message.is_empty() { status } else { format!("{status}: {message}") };
    let detail = with_retry_after(detail, response.retry_after);
    CallError::Unavailable { reason, detail, retry_after: response.retry_after }
}

fn redirect(response: &HttpResponse) -> CallError {
    let status = status_name(response.status);
    let detail = match &response.location {
        Some(host) => format!("{status}: the server redirects to {host}"),
        None => format!("{status}, without a location"),
    };
    CallError::unavailable(UnavailableReason::NotCm, cm::single_line(&detail))
}

fn failed(response: &HttpResponse) -> CallError {
    let (detail, correlation_id) = error_detail(response);
    let (http_status, retry_after) = (response.status, response.retry_after);
    let detail = with_retry_after(detail, retry_after);
    CallError::Failed { http_status, detail, correlation_id, retry_after }
}

fn refused(response: &HttpResponse) -> CallError {
    let (detail, correlation_id) = error_detail(response);
    CallError::Refused { http_status: response.status, detail, correlation_id }
}

/// CM's message, or the status without one; and the correlation id.
fn error_detail(response: &HttpResponse) -> (String, Option<String>) {
    let cm::ErrorText { message, correlation_id } = error_text(response);
    (if message.is_empty() { status_name(response.status) } else { message }, correlation_id)
}

fn error_text(response: &HttpResponse) -> cm::ErrorText {
    match &response.coding {
        Some(coding) => {
            cm::ErrorText { message: compressed(coding).to_string(), correlation_id: None }
        }
        None => cm::complaint_without(&response.body, |text| response.redactor.redact(text)),
    }
}

/// `503 Service Unavailable`; only the number for one without a name.
pub(super) fn status_name(status: u16) -> String {
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
}

#[cfg(test)]
mod tests;
