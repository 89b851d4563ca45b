//! What an HTTP answer means, before anybody looks into a good one.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;

use super::away;
use super::client_cert::ClientCertStatus;
use super::redact::Redactor;
use super::retry_after::with_retry_after;
use super::{content_encoding, error_pages};
use crate::domain::{CallError, ProxyFault, UnavailableReason};
use crate::wire::cm;

/// An answer as it came over the wire. No `Debug`: a token may be in it.
pub(super) struct HttpResponse {
    pub(super) status: u16,
    /// Whether cookies went with the call.
    pub(super) had_cookies: bool,
    /// How long the server asked to wait.
    pub(super) retry_after: Option<Duration>,
    /// The host that a redirect leads to.
    pub(super) location: Option<String>,
    /// Whether the server calls it HTML.
    pub(super) is_html: bool,
    /// The coding of its body, where it is another than `identity`.
    pub(super) coding: Option<String>,
    /// What became of the client certificate that a server may want.
    pub(super) client_cert: ClientCertStatus,
    /// The body, or as much of it as was read.
    pub(super) body: Vec<u8>,
    pub(super) end: BodyEnd,
    /// Knows what of it must not be told.
    pub(super) redactor: Arc<Redactor>,
}

/// What a server has against the head of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadRefusal {
    /// Nothing.
    None,
    /// Perhaps its length: a page says 400, and not why.
    Suspected,
    /// Its length, or a field: the call was not handed on.
    Named,
}

impl HttpResponse {
    /// What this answer has against the head of its call.
    pub(super) fn head_refusal(&self) -> HeadRefusal {
        match self.status {
            413 | 431 => HeadRefusal::Named,
            400 | 404
                if !is_from_cm(self) && error_pages::is_about_head(self.status, &self.body) =>
            {
                HeadRefusal::Named
            }
            400 if !is_from_cm(self) => HeadRefusal::Suspected,
            _ => HeadRefusal::None,
        }
    }
}

/// How the body ended.
#[derive(Debug)]
pub(super) enum BodyEnd {
    /// As announced.
    Whole,
    /// Not read further than this many bytes.
    TooLarge(usize),
    /// Before its end.
    Broken(CallError),
}

/// The body of a good answer, or what a bad one means: the table of `docs/cm-protocol.md`.
///
/// A bad answer is judged by its status alone, however its body ended.
pub(super) fn classify(answer: HttpResponse) -> Result<Vec<u8>, CallError> {
    use UnavailableReason::{
        Busy, MethodNotAllowed, NotCm, RequestTooLarge, ServerError, Unauthorized,
    };
    match answer.status {
        200..=299 => success_body(answer),
        300..=399 => Err(redirect(&answer)),
        401 => Err(unavailable(Unauthorized, &answer)),
        405 => Err(unavailable(MethodNotAllowed, &answer)),
        // A proxy between here and CM wants a login: nothing was said about the card.
        407 => Err(unavailable(UnavailableReason::Proxy(ProxyFault::AuthRequired), &answer)),
        // What is sent is as long for every card.
        413 | 414 | 431 => Err(unavailable(RequestTooLarge, &answer)),
        // About the connection or the form of the call, which is the same for every card.
        411 | 415 | 417 | 421 | 426 => Err(unavailable(NotCm, &answer)),
        408 | 425 | 429 | 503 => Err(unavailable(Busy, &answer)),
        501..=599 => Err(unavailable(ServerError, &answer)),
        400..=500 => Err(error_page(&answer).unwrap_or_else(|| client_error(&answer))),
        _ => Err(unavailable(NotCm, &answer)),
    }
}

/// What a page of the web server's own means, where it says why it is there.
fn error_page(answer: &HttpResponse) -> Option<CallError> {
    if is_from_cm(answer) || answer.coding.is_some() {
        return None;
    }
    error_pages::classify_page(answer.status, &answer.body, answer.client_cert)
        .map(|reason| unavailable(reason, answer))
}

/// A no to this very call.
fn client_error(answer: &HttpResponse) -> CallError {
    match answer.status {
        404 | 500 => failed(answer),
        // A page in place of CM's words: a proxy's, or the web server's own. Whether it is about this
        // card shows when others are tried.
        _ if !is_from_cm(answer) => failed(answer),
        _ => refused(answer),
    }
}

/// A body that is no JSON of CM's, although the status was good.
pub(super) fn unparsable_body(error: &cm::ParseError, body: &[u8]) -> CallError {
    match error {
        cm::ParseError::Invalid(detail) => CallError::UnexpectedResponse { detail: detail.clone() },
        // It is CM that talks: a remedy for another site in its place would mislead.
        cm::ParseError::TooLarge(words) => away(
            UnavailableReason::ServerError,
            format!("{words}: too much to be read; complete or cancel old requests in CM"),
        ),
        cm::ParseError::NotJson(_) | cm::ParseError::NotCm(..) => {
            let words = cm::error_text(body).message;
            let words = if words.is_empty() { "no text".to_owned() } else { words };
            away(UnavailableReason::NotCm, format!("{error}: {words}"))
        }
    }
}

fn success_body(answer: HttpResponse) -> Result<Vec<u8>, CallError> {
    match answer.end {
        BodyEnd::Broken(error) => Err(error),
        BodyEnd::TooLarge(limit) => {
            Err(away(UnavailableReason::NotCm, format!("the answer has more than {limit} bytes")))
        }
        BodyEnd::Whole if let Some(coding) = &answer.coding => {
            Err(away(UnavailableReason::NotCm, content_encoding::complaint(coding)))
        }
        // A part of something, where the whole was asked for.
        BodyEnd::Whole if answer.status == 206 => {
            Err(unavailable(UnavailableReason::NotCm, &answer))
        }
        // "None" is an answer of CM's; an empty page is not. An answer without content (RFC 9110
        // sections 15.3.5 and 15.3.6) is no page, whatever type it names.
        BodyEnd::Whole
            if answer.is_html
                && !matches!(answer.status, 204 | 205)
                && answer.body.trim_ascii().is_empty() =>
        {
            Err(away(UnavailableReason::NotCm, "the answer is an empty page".to_owned()))
        }
        BodyEnd::Whole => Ok(answer.body),
    }
}

/// Whether it can be CM that says no: in JSON, or in no words at all.
fn is_from_cm(answer: &HttpResponse) -> bool {
    answer.coding.is_none() && says(answer)
}

fn says(answer: &HttpResponse) -> bool {
    answer.body.trim_ascii().is_empty() || cm::is_json(&answer.body)
}

fn unavailable(reason: UnavailableReason, answer: &HttpResponse) -> CallError {
    let words = words(answer).message;
    let status = status_name(answer.status);
    let detail = if words.is_empty() { status } else { format!("{status}: {words}") };
    let detail = with_retry_after(detail, answer.retry_after);
    CallError::Unavailable { reason, detail, retry_after: answer.retry_after }
}

fn redirect(answer: &HttpResponse) -> CallError {
    let status = status_name(answer.status);
    let detail = match &answer.location {
        Some(host) => format!("{status}: the server redirects to {host}"),
        None => format!("{status}, and not where to"),
    };
    away(UnavailableReason::NotCm, cm::single_line(&detail))
}

fn failed(answer: &HttpResponse) -> CallError {
    let (detail, correlation_id) = error_detail(answer);
    let (http_status, retry_after) = (answer.status, answer.retry_after);
    let detail = with_retry_after(detail, retry_after);
    CallError::Failed { http_status, detail, correlation_id, retry_after }
}

fn refused(answer: &HttpResponse) -> CallError {
    let (detail, correlation_id) = error_detail(answer);
    CallError::Refused { http_status: answer.status, detail, correlation_id }
}

/// CM's own words, or the status where it has none; and the id that they name.
fn error_detail(answer: &HttpResponse) -> (String, Option<String>) {
    let cm::ErrorText { message: words, correlation_id } = words(answer);
    (if words.is_empty() { status_name(answer.status) } else { words }, correlation_id)
}

/// The words of an answer; of a compressed one, that it is compressed.
fn words(answer: &HttpResponse) -> cm::ErrorText {
    match &answer.coding {
        Some(coding) => {
            cm::ErrorText { message: content_encoding::complaint(coding), correlation_id: None }
        }
        None => cm::complaint_without(&answer.body, |words| answer.redactor.redact(words)),
    }
}

/// `503 Service Unavailable`; only the number where it has no name.
fn status_name(status: u16) -> String {
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
}

#[cfg(test)]
mod tests;
