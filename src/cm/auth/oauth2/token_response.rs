//! What a token endpoint answers: a token (RFC 6749 section 5.1), or why there is none (5.2).
//!
//! The remedies are for AD FS, where most of the trouble is one of a few settings. Nothing of a good
//! answer is ever quoted, and what was sent is hidden in what is quoted of a bad one.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::super::classify::{BodyEnd, HttpResponse};
use super::super::super::content_encoding;
use super::super::super::redact::Redactor;
use super::super::super::secret::Secret;
use crate::wire::cm;

/// The life of a token of which the endpoint does not tell it.
const USUAL_LIFE: Duration = Duration::from_mins(5);

/// The shortest life that is believed: enough for the call that the token was asked for.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// The longest: a client that was removed is noticed within a day.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

/// A token, and for how long.
pub(super) struct TokenResponse {
    pub(super) header: HeaderValue,
    pub(super) expires_in: Duration,
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenErrorResponse {
    /// What the endpoint did, as the rest of a sentence.
    pub(super) message: String,
    /// What somebody can do about it.
    pub(super) remedy: &'static str,
}

/// The fields of either answer.
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

/// What an answer means.
pub(super) fn parse(answer: HttpResponse) -> Result<TokenResponse, TokenErrorResponse> {
    let HttpResponse { status, location, body, end, coding, redactor, .. } = answer;
    let redactor = &*redactor;
    let body = Zeroizing::new(body);
    if let Some(coding) = coding {
        let what = format!("answers {}: {}", name(status), content_encoding::compressed(&coding));
        return Err(denial(what, content_encoding::REMEDY));
    }
    match status {
        200..=299 => match end {
            BodyEnd::Whole => grant(&body, redactor),
            BodyEnd::TooLarge(limit) => {
                Err(denial(format!("answers with more than {limit} bytes"), ADDRESS))
            }
            BodyEnd::Broken(error) => {
                Err(denial(format!("broke off: {}", error.detail()), RETRY_REMEDY))
            }
        },
        300..=399 => {
            let to = cm::single_line(location.as_deref().unwrap_or("nowhere"));
            let what = format!("redirects to {to}, where nothing is sent ({})", name(status));
            Err(denial(what, ADDRESS))
        }
        _ => Err(refusal(status, &body, redactor)),
    }
}

fn grant(body: &[u8], redactor: &Redactor) -> Result<TokenResponse, TokenErrorResponse> {
    let Some(read) = read(body) else {
        let page = body.trim_ascii_start().starts_with(b"<");
        let title = if page { error_words(body, redactor) } else { String::new() };
        let what = format!("answers with something else than a token: {title}");
        return Err(denial(what.trim_end_matches([':', ' ']).to_owned(), ADDRESS));
    };
    if let Some(error) = &read.error {
        return Err(server_error_text(error, read.error_description.as_deref(), redactor));
    }
    let Some(token) = read.access_token else {
        return Err(denial("answers without a token".to_owned(), ADDRESS));
    };
    match read.token_type {
        Some(kind) if !kind.eq_ignore_ascii_case("bearer") => {
            let kind = cm::single_line(&{
                redactor.learn(token.expose());
                redactor.redact(&kind)
            });
            let what = format!("issues tokens of the type {kind:?}, and CM takes bearer tokens");
            Err(denial(what, SERVER))
        }
        Some(_) | None => match token.bearer() {
            Some(header) => {
                Ok(TokenResponse { header, expires_in: life(read.expires_in.as_ref()) })
            }
            None => {
                Err(denial("issues a token that cannot be sent in a header".to_owned(), SERVER))
            }
        },
    }
}

/// A number of seconds, which some write as text.
fn life(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => None,
    };
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite());
    seconds.map_or(USUAL_LIFE, |seconds| {
        let bounded = seconds.clamp(SHORTEST_LIFE.as_secs_f64(), LONGEST_LIFE.as_secs_f64());
        Duration::from_secs_f64(bounded)
    })
}

fn refusal(status: u16, body: &[u8], redactor: &Redactor) -> TokenErrorResponse {
    let read = read(body);
    if let Some(TokenResponseBody { error: Some(error), error_description, .. }) = &read {
        return server_error_text(error, error_description.as_deref(), redactor);
    }
    // One with a token in it is not quoted: that token is not known as a secret.
    let quoted = read.is_none_or(|read| read.access_token.is_none());
    let said = if quoted { error_words(body, redactor) } else { String::new() };
    let what = match said.as_str() {
        "" => format!("answers {}", name(status)),
        said => format!("answers {}: {said}", name(status)),
    };
    let remedy = match status {
        401 => "check how the endpoint authenticates clients",
        407 => "check cm.proxy: it wants a login",
        408 | 429 | 503 => RETRY_REMEDY,
        500..=599 => SERVER,
        _ => ADDRESS,
    };
    denial(what, remedy)
}

/// The endpoint's own error, with what to do about that.
fn server_error_text(
    error: &str,
    description: Option<&str>,
    redactor: &Redactor,
) -> TokenErrorResponse {
    let [error, words] = [error, description.unwrap_or_default()]
        .map(|text| cm::single_line(&redactor.redact(text)));
    let remedy =
        REMEDIES.iter().find(|(code, _)| *code == error).map_or(SERVER, |(_, remedy)| *remedy);
    let what = match words.as_str() {
        "" => format!("says no: {error}"),
        words => format!("says no: {error}: {words}"),
    };
    denial(what, remedy)
}

fn read(body: &[u8]) -> Option<TokenResponseBody> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    serde_json::from_slice(body).ok()
}

/// The words of a page, or of somebody else's JSON.
fn error_words(body: &[u8], redactor: &Redactor) -> String {
    cm::complaint_without(body, |words| redactor.redact(words)).message
}

const fn denial(what: String, remedy: &'static str) -> TokenErrorResponse {
    TokenErrorResponse { message: what, remedy }
}

/// `404 Not Found`; only the number where it has no name.
fn name(status: u16) -> String {
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    name.map_or_else(|| status.to_string(), |name| format!("{status} {name}"))
}
