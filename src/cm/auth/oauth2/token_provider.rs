//! Tokens: the cache, its renewal and its back-off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::cm::secret::FileVersion;
use crate::domain::{CallError, UnavailableReason};

/// The part of a token's life after which it is renewed, while calls still use it.
const RENEW_AT: f64 = 0.8;

/// The time between two requests during back-off.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// A rejection counts for at least this long.
const REJECTION_RESET: Duration = Duration::from_secs(10);

/// The versions of the files that a token request needs; `None` for a missing one.
pub(super) type FileVersions = Vec<Option<FileVersion>>;

pub(super) struct AccessToken {
    pub(super) header: HeaderValue,
    /// The time of the request: its life begins then at the latest.
    pub(super) asked: Instant,
    pub(super) life: Duration,
    /// Its end by the wall clock.
    pub(super) until: Timestamp,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenError {
    /// With a remedy.
    pub(super) message: String,
    /// The endpoint's `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// Whether a request was sent; if not, there is no back-off.
    pub(super) asked: bool,
}

enum CachedToken {
    Valid(HeaderValue),
    RenewalDue(HeaderValue),
    Missing,
}

/// What to do after CM has rejected a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RejectionAction {
    /// There is another token, or there may be.
    Renew,
    /// The token is fresh, and another one was rejected just before.
    GiveUp,
}

/// The state between calls. No clock and no network: `now` is an argument.
#[derive(Default)]
struct TokenCache {
    token: Option<AccessToken>,
    backoff: Option<IssuerBackoff>,
    rejection: Option<RejectedToken>,
}

/// After a request without a token.
struct IssuerBackoff {
    message: String,
    until: Instant,
    delay: Duration,
    files: FileVersions,
}

/// CM rejected a token, which was dropped.
struct RejectedToken {
    at: Instant,
    delay: Duration,
}

impl TokenCache {
    fn find(&self, now: Instant) -> CachedToken {
        match self.token.as_ref().filter(|token| now < token.asked + token.life) {
            None => CachedToken::Missing,
            Some(token) if now < token.asked + token.life.mul_f64(RENEW_AT) => {
                CachedToken::Valid(token.header.clone())
            }
            Some(token) => CachedToken::RenewalDue(token.header.clone()),
        }
    }

    /// The last error, during back-off. Another secret or certificate ends the back-off.
    fn backoff_error(&self, files: &FileVersions, now: Instant) -> Option<CallError> {
        let backoff = self.backoff.as_ref()?;
        let left = backoff.until.saturating_duration_since(now);
        (!left.is_zero() && backoff.files == *files).then(|| CallError::Unavailable {
            reason: UnavailableReason::Credentials,
            detail: backoff.message.clone(),
            retry_after: Some(left),
        })
    }

    fn store(&mut self, token: AccessToken) {
        self.token = Some(token);
        self.backoff = None;
    }

    /// `chance` is from 0 to 1.
    fn failed(&mut self, error: TokenError, files: FileVersions, chance: f64, now: Instant) {
        let before = self.backoff.as_ref().map_or(Duration::ZERO, |backoff| backoff.delay);
        let TokenError { message, retry_after, asked } = error;
        let (delay, wait) = if asked {
            let delay = next_delay(before);
            (delay, delay.mul_f64(0.5 + chance / 2.0).max(retry_after.unwrap_or_default()))
        } else {
            (before, Duration::ZERO)
        };
        self.backoff = Some(IssuerBackoff { message, until: now + wait, delay, files });
    }

    /// A server that rejects every token costs a request at growing intervals, and not one per call.
    fn on_rejected(&mut self, header: &HeaderValue, now: Instant) -> RejectionAction {
        if self.token.as_ref().is_none_or(|token| token.header != *header) {
            return RejectionAction::Renew;
        }
        let delay = match &self.rejection {
            Some(last) if now < last.at + last.delay => return RejectionAction::GiveUp,
            Some(last) if now < last.at + REJECTION_RESET.max(last.delay * 2) => {
                next_delay(last.delay)
            }
            Some(_) | None => MIN_BACKOFF,
        };
        self.token = None;
        self.rejection = Some(RejectedToken { at: now, delay });
        RejectionAction::Renew
    }
}

fn next_delay(before: Duration) -> Duration {
    (before * 2).clamp(MIN_BACKOFF, MAX_BACKOFF)
}

/// Issues tokens.
pub(super) trait TokenIssuer: Send + Sync + 'static {
    /// One request, with its own deadline.
    fn request_token(&self) -> impl Future<Output = Result<AccessToken, TokenError>> + Send;

    /// The files that a request needs.
    fn file_versions(&self) -> FileVersions;

    /// For messages.
    fn name(&self) -> &str;
}

/// Tokens of an issuer, cached and renewed.
///
/// One request at a time serves all calls. It is a task of its own, which a call that stops waiting leaves
/// to the others. The lock is never held across a wait.
pub(super) struct TokenProvider<I> {
    shared: Arc<ProviderShared<I>>,
}

struct ProviderShared<I> {
    issuer: I,
    state: Mutex<ProviderState>,
}

#[derive(Default)]
struct ProviderState {
    cache: TokenCache,
    in_flight: Option<InFlightRequest>,
}

struct InFlightRequest {
    result: InFlightResult,
    task: AbortHandle,
}

type InFlightResult = watch::Receiver<Option<Result<HeaderValue, CallError>>>;

enum TokenAccess {
    Cached(HeaderValue),
    Pending(InFlightResult),
    BackingOff(CallError),
}

impl<I: TokenIssuer> TokenProvider<I> {
    pub(super) fn new(issuer: I) -> Self {
        Self { shared: Arc::new(ProviderShared { issuer, state: Mutex::default() }) }
    }

    pub(super) fn issuer(&self) -> &I {
        &self.shared.issuer
    }

    /// The cached token while it is valid, else a new one.
    pub(super) async fn token(&self, deadline: Instant) -> Result<HeaderValue, CallError> {
        let mut pending = match self.access() {
            TokenAccess::Cached(header) => return Ok(header),
            TokenAccess::BackingOff(error) => return Err(error),
            TokenAccess::Pending(result) => result,
        };
        let result = match timeout_at(deadline, pending.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => result.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Err(self.no_token("none came in time for this call"))),
        };
        result.unwrap_or_else(|| Err(self.no_token("the request was aborted")))
    }

    /// The next call does not wait for the end of the back-off.
    pub(super) fn expedite(&self) {
        if let Some(backoff) = &mut self.shared.state().cache.backoff {
            backoff.until = Instant::now();
        }
    }

    /// CM rejected the token of this header.
    pub(super) fn on_rejected(&self, header: &HeaderValue) -> RejectionAction {
        self.shared.state().cache.on_rejected(header, Instant::now())
    }

    /// The end of the token, and the error of the last request.
    pub(super) fn view(&self) -> (Option<Timestamp>, Option<String>) {
        let (state, now) = (self.shared.state(), Instant::now());
        let TokenCache { token, backoff, .. } = &state.cache;
        let valid = token.as_ref().filter(|token| now < token.asked + token.life);
        let error = backoff.as_ref().map(|backoff| backoff.message.clone());
        (valid.map(|token| token.until), error)
    }

    fn access(&self) -> TokenAccess {
        let files = self.shared.issuer.file_versions();
        let now = Instant::now();
        let mut state = self.shared.state();
        match state.cache.find(now) {
            CachedToken::Valid(header) => TokenAccess::Cached(header),
            CachedToken::RenewalDue(header) => {
                if state.pending().is_none() && state.cache.backoff_error(&files, now).is_none() {
                    self.start_request(&mut state, files);
                }
                TokenAccess::Cached(header)
            }
            CachedToken::Missing => match (state.pending(), state.cache.backoff_error(&files, now))
            {
                (Some(result), _) => TokenAccess::Pending(result),
                (None, Some(error)) => TokenAccess::BackingOff(error),
                (None, None) => TokenAccess::Pending(self.start_request(&mut state, files)),
            },
        }
    }

    /// `files` are from before the request reads them.
    fn start_request(&self, state: &mut ProviderState, files: FileVersions) -> InFlightResult {
        let (sender, result) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let answer = shared.issuer.request_token().await;
            sender.send_replace(Some(shared.on_finished(answer, files)));
        });
        state.in_flight =
            Some(InFlightRequest { result: result.clone(), task: task.abort_handle() });
        result
    }

    fn no_token(&self, reason: &str) -> CallError {
        CallError::unavailable(
            UnavailableReason::Credentials,
            format!("no token from {}: {reason}", self.shared.issuer.name()),
        )
    }
}

impl<I: TokenIssuer> ProviderShared<I> {
    /// Updates the cache before the calls get the result.
    fn on_finished(
        &self,
        answer: Result<AccessToken, TokenError>,
        files: FileVersions,
    ) -> Result<HeaderValue, CallError> {
        let now = Instant::now();
        let mut state = self.state();
        state.in_flight = None;
        match answer {
            Ok(token) => {
                let header = token.header.clone();
                state.cache.store(token);
                Ok(header)
            }
            Err(error) => {
                let TokenError { message: detail, retry_after, .. } = error.clone();
                if !matches!(state.cache.find(now), CachedToken::Missing) {
                    tracing::warn!(
                        error = detail,
                        "Token renewal failed; using the current token until it expires"
                    );
                }
                state.cache.failed(error, files, fastrand::f64(), now);
                let reason = UnavailableReason::Credentials;
                Err(CallError::Unavailable { reason, detail, retry_after })
            }
        }
    }
}

impl<I> ProviderShared<I> {
    fn state(&self) -> MutexGuard<'_, ProviderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProviderState {
    /// The request in flight; one whose task has ended without a result does not count.
    fn pending(&self) -> Option<InFlightResult> {
        let request = self.in_flight.as_ref().filter(|request| !request.task.is_finished())?;
        Some(request.result.clone())
    }
}

/// A reload has replaced this provider, or the daemon exits.
impl<I> Drop for TokenProvider<I> {
    fn drop(&mut self) {
        if let Some(request) = &self.shared.state().in_flight {
            request.task.abort();
        }
    }
}
