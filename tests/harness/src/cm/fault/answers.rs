//! What a fault makes of an answer.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::super::answer::Answer;
use super::super::http::Call;
use super::super::iis;
use super::super::tokens::oauth_error;
use super::Fault;

impl Fault {
    /// The answer given without asking CM.
    pub(in super::super) fn instead(&self, call: &Call) -> Option<Answer> {
        match self {
            Self::Unauthorized => Some(unauthorized("Negotiate")),
            Self::Forbidden => Some(Answer::forbidden()),
            Self::HtmlNotFound => Some(Answer::html(404)),
            Self::HtmlMethodNotAllowed => {
                Some(Answer::html(405).with_header("Allow", "GET, HEAD, OPTIONS, TRACE"))
            }
            Self::TooManyRequests { retry_after } => Some(later(429, *retry_after)),
            Self::Unavailable { retry_after } => Some(later(503, *retry_after)),
            Self::ServerError { correlation } => Some(Answer::failure(*correlation)),
            Self::HtmlOk => Some(Answer::html(200)),
            Self::NoContent => Some(Answer::no_content()),
            Self::OauthError { error } => Some(oauth_error(error)),
            Self::Challenge { schemes } => Some(challenge(schemes)),
            Self::IisError { status, substatus } => Some(iis::error(*status, *substatus)),
            Self::PoolStopped => Some(iis::pool_stopped()),
            Self::HeadTooLong { bytes } => (call.head_length > *bytes).then(iis::head_too_long),
            Self::Redirect { status, location } => Some(iis::moved(*status, location)),
            Self::StaleLogin { idle_ms } => {
                let idle = call.idle.is_some_and(|idle| idle >= Duration::from_millis(*idle_ms));
                idle.then(|| unauthorized("Negotiate"))
            }
            Self::Reset
            | Self::Slow { .. }
            | Self::HoldBefore
            | Self::HoldAfter
            | Self::AnswerLost
            | Self::ServerErrorAfter { .. }
            | Self::NoContentAfter
            | Self::Bom
            | Self::ArrayForObject
            | Self::TruncatedJson
            | Self::CutInBody
            | Self::OtherUuid
            | Self::Huge { .. }
            | Self::Chunked
            | Self::ExpiresInText
            | Self::AnyTicket { .. }
            | Self::SessionCookie
            | Self::LowerCaseNames
            | Self::SlowBody { .. } => None,
        }
    }

    /// The size of a huge answer.
    pub(in super::super) fn huge(&self) -> Option<u64> {
        if let Self::Huge { bytes } = self { Some(*bytes) } else { None }
    }

    /// The pause between the pieces of a slow answer.
    pub(in super::super) fn pause(&self) -> Option<Duration> {
        if let Self::SlowBody { ms } = self { Some(Duration::from_millis(*ms)) } else { None }
    }

    /// Bends CM's own answer.
    pub(in super::super) fn bend(&self, mut answer: Answer) -> Answer {
        if let Self::ServerErrorAfter { correlation } = self {
            return Answer::failure(*correlation);
        }
        if matches!(self, Self::NoContentAfter) {
            return Answer::no_content();
        }
        if answer.body.is_empty() {
            return answer;
        }
        if matches!(self, Self::Bom) {
            answer.body.splice(0..0, [0xEF, 0xBB, 0xBF]);
        }
        if matches!(self, Self::ArrayForObject) && answer.body.starts_with(b"{") {
            answer.body.insert(0, b'[');
            answer.body.push(b']');
        }
        if matches!(self, Self::TruncatedJson) {
            answer.body.truncate(answer.body.len() / 2);
        }
        if matches!(self, Self::ExpiresInText) {
            rewrite(&mut answer.body, expires_in_text);
        }
        if matches!(self, Self::LowerCaseNames) {
            rewrite(&mut answer.body, lower_case_names);
        }
        if matches!(self, Self::OtherUuid) {
            answer.body = other_uuid(&answer.body);
        }
        answer
    }
}

/// The web server's request for credentials.
pub(in super::super) fn unauthorized(scheme: &str) -> Answer {
    Answer::html(401).with_header("WWW-Authenticate", scheme)
}

fn challenge(schemes: &[String]) -> Answer {
    let add = |answer: Answer, scheme: &String| answer.with_header("WWW-Authenticate", scheme);
    schemes.iter().fold(Answer::html(401), add)
}

fn later(status: u16, retry_after: Option<u32>) -> Answer {
    let answer = Answer::html(status);
    match retry_after {
        Some(seconds) => answer.with_header("Retry-After", seconds.to_string()),
        None => answer,
    }
}

/// The answer with another id in the place of the first `Uuid`.
fn other_uuid(body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(body);
    let Some((head, rest)) = text.split_once(r#""Uuid":""#) else {
        return body.to_vec();
    };
    let tail = rest.split_once('"').map_or("", |(_, tail)| tail);
    let other = Uuid::new_v4();
    format!(r#"{head}"Uuid":"{other}"{tail}"#).into_bytes()
}

/// Bodies that are not JSON remain unchanged.
fn rewrite(body: &mut Vec<u8>, change: impl FnOnce(Value) -> Value) {
    if let Ok(value) = serde_json::from_slice(body) {
        *body = change(value).to_string().into_bytes();
    }
}

fn expires_in_text(mut answer: Value) -> Value {
    if let Some(life) = answer.get_mut("expires_in") {
        *life = life.to_string().into();
    }
    answer
}

fn lower_case_names(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let lower = |(name, value): (String, Value)| {
                (name.to_ascii_lowercase(), lower_case_names(value))
            };
            Value::Object(members.into_iter().map(lower).collect())
        }
        Value::Array(items) => items.into_iter().map(lower_case_names).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}
