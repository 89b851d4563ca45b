//! What can be wrong with CM, its web server or the connection to it.

mod answers;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) use answers::unauthorized;

/// One kind of misbehaviour. Where nothing else is said the call is not applied.
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
    /// 403 with CM's message.
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
        /// OAuth's error code, as `invalid_grant`.
        error: String,
    },
    /// The call is done; `expires_in` comes as a string.
    ExpiresInText,
    /// 401 that asks for these schemes, a field each.
    Challenge {
        /// As `Negotiate` and `NTLM`, or `NTLM` alone.
        schemes: Vec<String>,
    },
    /// IIS's own page for this status.
    IisError {
        /// As 403.
        status: u16,
        /// As 7; the page that names it is for callers on the server itself,
        /// unless detailed errors are on.
        substatus: Option<u16>,
    },
    /// 503 of the driver before IIS, which closes the connection: the
    /// application pool is stopped.
    PoolStopped,
    /// 400 of the driver before IIS, which closes the connection: for calls
    /// whose header is longer.
    HeadTooLong {
        /// The longest that is taken; 16,384 unless it was changed.
        bytes: usize,
    },
    /// Sends the caller elsewhere.
    Redirect {
        /// As 302.
        status: u16,
        /// The whole URL.
        location: String,
    },
    /// Negotiate as a script: 401 without a token, and any token is taken. The
    /// server proves nothing; for the real thing there is Apache.
    AnyTicket {
        /// For so long an idle connection remains open to calls without a token,
        /// once it has shown one. Every call needs its own where it is `None`.
        persist_ms: Option<u64>,
    },
    /// 401 to the first call on a kept connection that was idle for so long,
    /// whatever it presents.
    StaleLogin {
        /// The time in milliseconds.
        idle_ms: u64,
    },
    /// The first answer sets a session cookie; calls without it are then
    /// answered by 401, which sets another.
    SessionCookie,
    /// The call is applied; names in its answer are in lower case.
    LowerCaseNames,
    /// The call is applied; its answer comes in pieces of a few bytes.
    SlowBody {
        /// The pause before each piece in milliseconds.
        ms: u64,
    },
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
    /// Only where the body contains this: the two PUTs of a request differ in it.
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
