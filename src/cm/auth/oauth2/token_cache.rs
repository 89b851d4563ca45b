//! The last token, the last trouble, and when to ask again. No clock and no network: `now` comes in.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::super::super::UnavailableReason;
use super::super::super::reloading_file::FileVersion;
use crate::domain::CallError;

/// The part of a token's life after which a new one is asked for, while the old one still serves.
const RENEW_AT: f64 = 0.8;

/// The shortest and the longest distance between two requests while there is trouble.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

/// A refusal of a fresh token is forgotten after this long at least without another one.
const REJECTION_RESET: Duration = Duration::from_secs(10);

/// What the files of a proof were like; nothing for one that is not there.
pub(super) type Stamps = Vec<Option<FileVersion>>;

/// A token that was issued.
pub(super) struct AccessToken {
    pub(super) header: HeaderValue,
    /// When it was asked for: its life begins then at the latest.
    pub(super) asked: Instant,
    pub(super) life: Duration,
    /// When it ends, by the clock of the wall.
    pub(super) until: Timestamp,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenError {
    /// For people, with a remedy.
    pub(super) message: String,
    /// How long the endpoint asked to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether it was asked at all; if not, nothing has to be spared.
    pub(super) asked: bool,
}

/// What there is for a call.
pub(super) enum CachedToken {
    /// A token.
    Valid(HeaderValue),
    /// A token of which the end is near.
    RenewalDue(HeaderValue),
    Missing,
}

/// What a token that CM refused is good for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RejectionAction {
    /// Nothing; there is another, or there may be.
    Renew,
    /// It is fresh, and another one was refused just before: yet another one would be, too.
    GiveUp,
}

/// What is remembered between calls.
#[derive(Default)]
pub(super) struct TokenCache {
    token: Option<AccessToken>,
    trouble: Option<IssuerBackoff>,
    refusal: Option<RejectedToken>,
}

/// The endpoint gave no token when it was last asked.
struct IssuerBackoff {
    words: String,
    until: Instant,
    delay: Duration,
    stamps: Stamps,
}

/// CM refused a token, which was thrown away for that.
struct RejectedToken {
    at: Instant,
    delay: Duration,
}

impl TokenCache {
    /// The token, unless it has ended.
    pub(super) fn find(&self, now: Instant) -> CachedToken {
        match self.token.as_ref().filter(|token| now < token.asked + token.life) {
            None => CachedToken::Missing,
            Some(token) if now < token.asked + token.life.mul_f64(RENEW_AT) => {
                CachedToken::Valid(token.header.clone())
            }
            Some(token) => CachedToken::RenewalDue(token.header.clone()),
        }
    }

    /// The last failure, while the endpoint is spared. Another secret or certificate is tried at
    /// once.
    pub(super) fn backoff_error(&self, stamps: &Stamps, now: Instant) -> Option<CallError> {
        let trouble = self.trouble.as_ref()?;
        let left = trouble.until.saturating_duration_since(now);
        (!left.is_zero() && trouble.stamps == *stamps).then(|| CallError::Unavailable {
            reason: UnavailableReason::Credentials,
            detail: trouble.words.clone(),
            retry_after: Some(left),
        })
    }

    /// A token came.
    pub(super) fn store(&mut self, token: AccessToken) {
        self.token = Some(token);
        self.trouble = None;
    }

    /// No token came. `chance` is from 0 to 1.
    pub(super) fn failed(
        &mut self,
        failure: TokenError,
        stamps: Stamps,
        chance: f64,
        now: Instant,
    ) {
        let before = self.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.delay);
        let TokenError { message: words, retry_after, asked } = failure;
        let (delay, wait) = if asked {
            let delay = next_delay(before);
            (delay, delay.mul_f64(0.5 + chance / 2.0).max(retry_after.unwrap_or_default()))
        } else {
            (before, Duration::ZERO)
        };
        self.trouble = Some(IssuerBackoff { words, until: now + wait, delay, stamps });
    }

    /// An operator does not wait for the time that the endpoint asked for.
    pub(super) const fn expedite(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.until = now;
        }
    }

    /// CM refused the token of this header. A server that refuses every token costs a request at
    /// growing distances, and not one a call.
    pub(super) fn on_rejected(&mut self, header: &HeaderValue, now: Instant) -> RejectionAction {
        if self.token.as_ref().is_none_or(|token| token.header != *header) {
            return RejectionAction::Renew;
        }
        let delay = match &self.refusal {
            Some(last) if now < last.at + last.delay => return RejectionAction::GiveUp,
            Some(last) if now < last.at + REJECTION_RESET.max(last.delay * 2) => {
                next_delay(last.delay)
            }
            Some(_) | None => SHORTEST,
        };
        self.token = None;
        self.refusal = Some(RejectedToken { at: now, delay });
        RejectionAction::Renew
    }

    /// When the token ends, where there is one.
    pub(super) fn valid_until(&self, now: Instant) -> Option<Timestamp> {
        let token = self.token.as_ref().filter(|token| now < token.asked + token.life)?;
        Some(token.until)
    }

    /// What is wrong, where something is.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.words.as_str())
    }
}

/// Twice as long as before.
fn next_delay(before: Duration) -> Duration {
    (before * 2).clamp(SHORTEST, LONGEST)
}
