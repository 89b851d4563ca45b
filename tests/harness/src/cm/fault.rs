//! What can be wrong with CM, its web server or the way to it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer::Answer;
use super::tokens::oauth_error;

/// One way of misbehaving. Where nothing else is said the call is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The connection is reset before anything is done.
    Reset,
    /// The call is done late.
    Slow {
        /// The delay in milliseconds.
        ms: u64,
    },
    /// The call waits, not yet applied, until a test releases it.
    HoldBefore,
    /// The call waits, applied and not yet answered, until a test releases it.
    HoldAfter,
    /// The call is applied and the connection cut instead of an answer.
    AnswerLost,
    /// 401 with the web server's page.
    Unauthorized,
    /// 403 in CM's words.
    Forbidden,
    /// 404 with the web server's page: the API is switched off.
    HtmlNotFound,
    /// 405 with the web server's page: something else took the method.
    HtmlMethodNotAllowed,
    /// 429.
    TooManyRequests {
        /// Seconds in Retry-After; none without.
        retry_after: Option<u32>,
    },
    /// 503 with the web server's page.
    Unavailable {
        /// Seconds in Retry-After; none without.
        retry_after: Option<u32>,
    },
    /// 500 with a correlation id.
    ServerError {
        /// The id in the message.
        correlation: Uuid,
    },
    /// The call is applied, and answered by 500 with a correlation id.
    ServerErrorAfter {
        /// The id in the message.
        correlation: Uuid,
    },
    /// 200 with a page, as of a proxy.
    HtmlOk,
    /// 204 without doing anything.
    NoContent,
    /// The call is applied and answered by 204.
    NoContentAfter,
    /// The call is applied; its answer starts with a byte order mark.
    Bom,
    /// The call is applied; its answer is an array of the one object.
    ArrayForObject,
    /// The call is applied; its answer is cut in the middle of the JSON and
    /// otherwise complete.
    TruncatedJson,
    /// The call is applied; the connection is cut in the middle of the body.
    CutInBody,
    /// The call is applied; its answer is about another card.
    OtherUuid,
    /// The call is applied; its answer is that many bytes of JSON string.
    Huge {
        /// The size of the body.
        bytes: u64,
    },
    /// The call is applied and answered in chunks, without Content-Length.
    Chunked,
    /// 400 in OAuth's form, for the token endpoint.
    OauthError {
        /// OAuth's word for it, as `invalid_grant`.
        error: String,
    },
    /// The call is done; `expires_in` comes as a string.
    ExpiresInText,
}

/// A fault with its reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
    /// To how many calls; until cleared where it is `None`.
    #[serde(default)]
    pub times: Option<u32>,
    /// Only to this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only where path and query contain this, in any case.
    #[serde(default)]
    pub path: Option<String>,
    /// Only where the body contains this: tells the two PUTs of a request apart.
    #[serde(default)]
    pub body: Option<String>,
}

impl Fault {
    /// The fault for the next `count` calls in its reach.
    #[must_use]
    pub fn times(self, count: u32) -> FaultRule {
        FaultRule::from(self).times(count)
    }

    /// The fault for one method.
    #[must_use]
    pub fn method(self, method: &str) -> FaultRule {
        FaultRule::from(self).method(method)
    }

    /// The fault where path and query contain `part`.
    #[must_use]
    pub fn path(self, part: &str) -> FaultRule {
        FaultRule::from(self).path(part)
    }

    /// The fault where the body contains `part`.
    #[must_use]
    pub fn body(self, part: &str) -> FaultRule {
        FaultRule::from(self).body(part)
    }

    /// The answer given without asking CM.
    pub(super) fn instead(&self) -> Option<Answer> {
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
            | Self::ExpiresInText => None,
        }
    }

    /// The size of a huge answer.
    pub(super) fn huge(&self) -> Option<u64> {
        if let Self::Huge { bytes } = self { Some(*bytes) } else { None }
    }

    /// Bends CM's own answer.
    pub(super) fn bend(&self, mut answer: Answer) -> Answer {
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
            answer.body = expires_in_text(&answer.body);
        }
        if matches!(self, Self::OtherUuid) {
            answer.body = other_uuid(&answer.body);
        }
        answer
    }
}

impl From<Fault> for FaultRule {
    fn from(fault: Fault) -> Self {
        Self { fault, times: None, method: None, path: None, body: None }
    }
}

impl FaultRule {
    /// Limits the rule to the next `count` calls in its reach.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = Some(count);
        self
    }

    /// Limits the rule to one method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Limits the rule to targets that contain `part`.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Limits the rule to bodies that contain `part`.
    #[must_use]
    pub fn body(mut self, part: &str) -> Self {
        self.body = Some(part.to_owned());
        self
    }

    /// Whether the rule meets a call; counts it if so.
    pub(super) fn meets(&mut self, method: &str, target: &str, body: &str) -> bool {
        let target = target.to_ascii_lowercase();
        let part = self.path.as_deref().unwrap_or("").to_ascii_lowercase();
        let other_method = self.method.as_ref().is_some_and(|wanted| wanted != method);
        let other_body = self.body.as_ref().is_some_and(|part| !body.contains(part));
        if other_method || other_body || !target.contains(&part) {
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// The web server's way of asking for credentials.
pub(super) fn unauthorized(scheme: &str) -> Answer {
    Answer::html(401).with_header("WWW-Authenticate", scheme)
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

fn expires_in_text(body: &[u8]) -> Vec<u8> {
    let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(body) else {
        return body.to_vec();
    };
    if let Some(life) = object.get_mut("expires_in") {
        *life = life.to_string().into();
    }
    object.to_string().into_bytes()
}
