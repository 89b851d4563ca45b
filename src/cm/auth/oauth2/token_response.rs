//! The response of a token endpoint: a token (RFC 6749 section 5.1), or an error (5.2).
//!
//! The remedies are for AD FS, where a few settings cause most errors. No message quotes a good response,
//! and the secrets of the request are hidden in quotations of a bad one.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cm::classify::{BodyEnd, HttpResponse, status_name};
use crate::cm::headers::compressed;
use crate::cm::redact::Redactor;
use crate::cm::secret::Secret;
use crate::domain::Problem;
use crate::wire::cm;

/// The life of a token without `expires_in`.
const DEFAULT_LIFE: Duration = Duration::from_mins(5);

/// Long enough for the call that needs the token.
const MIN_LIFE: Duration = Duration::from_secs(1);

/// A removed client is noticed within a day.
const MAX_LIFE: Duration = Duration::from_hours(24);

pub(super) struct TokenResponse {
    pub(super) header: HeaderValue,
    pub(super) expires_in: Duration,
}

/// The fields of both kinds.
#[derive(Deserialize)]
struct TokenResponseBody {
    access_token: Option<Secret>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    error: Option<String>,
    error_description: Option<String>,
}

const ADDRESS: &str = "check cm.auth.token_url; AD FS has it at https://HOST/adfs/oauth2/token";
const SERVER: &str = "look at the server's event log";
const RETRY_REMEDY: &str = "no action needed here; check the server if this persists";

/// The remedies for the endpoint's own errors: RFC 6749 section 5.2, then AD FS's (MS-OAPX section
/// 2.2.4.2) and RFC 8707's.
const REMEDIES: &[(&str, &str)] = &[
    (
        "invalid_client",
        "check cm.auth.client_id and the secret or certificate against the application group; a new secret counts as soon as its file is written",
    ),
    (
        "invalid_grant",
        "check that the certificate is the registered one, and the clocks of both machines",
    ),
    (
        "unauthorized_client",
        "permit it: Grant-AdfsApplicationPermission -ClientRoleIdentifier CLIENT_ID -ServerRoleIdentifier RESOURCE",
    ),
    (
        "access_denied",
        "grant access: Grant-AdfsApplicationPermission and the access control policy of CM's Web API",
    ),
    (
        "invalid_resource",
        "set cm.auth.resource to the identifier of CM's Web API: Get-AdfsWebApiApplication shows it",
    ),
    ("invalid_target", "set cm.auth.resource to the identifier of CM's Web API"),
    (
        "invalid_scope",
        "set cm.auth.scope to one that the client is permitted, or remove it: Get-AdfsApplicationPermission shows them",
    ),
    (
        "unsupported_grant_type",
        "it needs AD FS 2016 or later at farm behaviour level 2 or higher; else check cm.auth.token_url",
    ),
    ("invalid_request", "check cm.auth.client_id, cm.auth.resource and cm.auth.scope"),
    ("temporarily_unavailable", RETRY_REMEDY),
    ("server_error", SERVER),
];

/// The token, or a problem whose `what` continues a sentence about the endpoint.
pub(super) fn parse(response: HttpResponse) -> Result<TokenResponse, Problem> {
    let HttpResponse { status, location, body, end, coding, redactor, .. } = response;
    let body = Zeroizing::new(body);
    if let Some(coding) = coding {
        let Problem { what, remedy } = compressed(&coding);
        return Err(Problem::new(format!("answers {}: {what}", status_name(status)), remedy));
    }
    match (status, end) {
        (200..=299, BodyEnd::Whole) => grant(&body, &redactor),
        (200..=299, BodyEnd::TooLarge(limit)) => {
            Err(Problem::new(format!("answers with more than {limit} bytes"), ADDRESS))
        }
        (200..=299, BodyEnd::Broken(error)) => {
            Err(Problem::new(format!("broke off: {}", error.detail()), RETRY_REMEDY))
        }
        (300..=399, _) => {
            let to = cm::single_line(location.as_deref().unwrap_or("nowhere"));
            let what =
                format!("redirects to {to}, where nothing is sent ({})", status_name(status));
            Err(Problem::new(what, ADDRESS))
        }
        _ => Err(refusal(status, &body, &redactor)),
    }
}

fn grant(body: &[u8], redactor: &Redactor) -> Result<TokenResponse, Problem> {
    let Some(read) = read(body) else {
        let page = body.trim_ascii_start().starts_with(b"<");
        let title = if page { error_message(body, redactor) } else { String::new() };
        let what = format!("answers with something else than a token: {title}");
        return Err(Problem::new(what.trim_end_matches([':', ' ']).to_owned(), ADDRESS));
    };
    if let Some(error) = &read.error {
        return Err(server_error_text(error, read.error_description.as_deref(), redactor));
    }
    let Some(token) = read.access_token else {
        return Err(Problem::new("answers without a token".to_owned(), ADDRESS));
    };
    match read.token_type {
        Some(kind) if !kind.eq_ignore_ascii_case("bearer") => {
            redactor.learn(token.expose());
            let kind = cm::single_line(&redactor.redact(&kind));
            let what = format!("issues tokens of the type {kind:?}, and CM takes bearer tokens");
            Err(Problem::new(what, SERVER))
        }
        Some(_) | None => match token.bearer() {
            Some(header) => {
                Ok(TokenResponse { header, expires_in: life(read.expires_in.as_ref()) })
            }
            None => Err(Problem::new(
                "issues a token that cannot be sent in a header".to_owned(),
                SERVER,
            )),
        },
    }
}

/// A number of seconds; some servers send it as text.
fn life(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite());
    seconds.map_or(DEFAULT_LIFE, |seconds| {
        let bounded = seconds.clamp(MIN_LIFE.as_secs_f64(), MAX_LIFE.as_secs_f64());
        Duration::from_secs_f64(bounded)
    })
}

fn refusal(status: u16, body: &[u8], redactor: &Redactor) -> Problem {
    let read = read(body);
    if let Some(TokenResponseBody { error: Some(error), error_description, .. }) = &read {
        return server_error_text(error, error_description.as_deref(), redactor);
    }
    // A response with a token is not quoted: the redactor does not know that token.
    let quoted = read.is_none_or(|read| read.access_token.is_none());
    let message = if quoted { error_message(body, redactor) } else { String::new() };
    let what = match message.as_str() {
        "" => format!("answers {}", status_name(status)),
        message => format!("answers {}: {message}", status_name(status)),
    };
    let remedy = match status {
        401 => "check how the endpoint authenticates clients",
        407 => "check cm.proxy: it requires a login",
        408 | 429 | 503 => RETRY_REMEDY,
        500..=599 => SERVER,
        _ => ADDRESS,
    };
    Problem::new(what, remedy)
}

/// The endpoint's own error, with its remedy.
fn server_error_text(error: &str, description: Option<&str>, redactor: &Redactor) -> Problem {
    let [error, description] = [error, description.unwrap_or_default()]
        .map(|text| cm::single_line(&redactor.redact(text)));
    let remedy =
        REMEDIES.iter().find(|(code, _)| *code == error).map_or(SERVER, |(_, remedy)| *remedy);
    let what = match description.as_str() {
        "" => format!("says no: {error}"),
        description => format!("says no: {error}: {description}"),
    };
    Problem::new(what, remedy)
}

fn read(body: &[u8]) -> Option<TokenResponseBody> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice(body).ok()
}

/// The message of a page, or of other JSON.
fn error_message(body: &[u8], redactor: &Redactor) -> String {
    cm::complaint_without(body, |text| redactor.redact(text)).message
}
