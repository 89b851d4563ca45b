//! One request for a token at a time, whoever needs one, and whoever gives up waiting.
//!
//! The request is a task of its own: a caller whose time is over leaves it to the others. The lock is
//! never held across a wait.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::super::super::{UnavailableReason, away};
use super::token_cache::{
    AccessToken, CachedToken, RejectionAction, Stamps, TokenCache, TokenError,
};
use crate::domain::CallError;

/// Somebody who issues tokens.
pub(super) trait TokenIssuer: Send + Sync + 'static {
    /// Asks for a token, once, and for no longer than its own deadline.
    fn ask(&self) -> impl Future<Output = Result<AccessToken, TokenError>> + Send;

    /// What the files that are needed for it are like.
    fn stamps(&self) -> Stamps;

    /// The name of it, for people.
    fn name(&self) -> &str;
}

/// Tokens from an issuer, kept and renewed.
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
    flight: Option<InFlightRequest>,
}

/// A request that is on its way.
struct InFlightRequest {
    landing: InFlightResult,
    task: AbortHandle,
}

/// Where the outcome of a request shows.
type InFlightResult = watch::Receiver<Option<Result<HeaderValue, CallError>>>;

/// How a call comes to a token.
enum TokenAccess {
    /// It has one.
    Cached(HeaderValue),
    /// When this request is answered.
    Pending(InFlightResult),
    /// Not at all: the issuer is spared.
    BackingOff(CallError),
}

impl<I: TokenIssuer> TokenProvider<I> {
    pub(super) fn new(issuer: I) -> Self {
        Self { shared: Arc::new(ProviderShared { issuer, state: Mutex::default() }) }
    }

    pub(super) fn issuer(&self) -> &I {
        &self.shared.issuer
    }

    /// A token: the last one where that is good, else a new one as soon as it comes.
    pub(super) async fn token(&self, deadline: Instant) -> Result<HeaderValue, CallError> {
        let mut landing = match self.way() {
            TokenAccess::Cached(header) => return Ok(header),
            TokenAccess::BackingOff(error) => return Err(error),
            TokenAccess::Pending(landing) => landing,
        };
        let waited = timeout_at(deadline, landing.wait_for(Option::is_some)).await;
        let outcome = waited.map(|landed| landed.ok().and_then(|landed| landed.clone()));
        outcome
            .unwrap_or_else(|_| Some(Err(self.none("none came in time for this call"))))
            .unwrap_or_else(|| Err(self.none("the request for one was given up")))
    }

    /// The next call asks for a token, whatever the issuer said of waiting.
    pub(super) fn expedite(&self) {
        self.shared.state().cache.expedite(Instant::now());
    }

    /// CM refused the token of this header.
    pub(super) fn refused(&self, header: &HeaderValue) -> RejectionAction {
        self.shared.state().cache.on_rejected(header, Instant::now())
    }

    /// When the token ends, and what is wrong.
    pub(super) fn view(&self) -> (Option<Timestamp>, Option<String>) {
        let state = self.shared.state();
        (state.cache.valid_until(Instant::now()), state.cache.trouble().map(str::to_owned))
    }

    fn way(&self) -> TokenAccess {
        let stamps = self.shared.issuer.stamps();
        let now = Instant::now();
        let mut state = self.shared.state();
        match state.cache.find(now) {
            CachedToken::Valid(header) => TokenAccess::Cached(header),
            CachedToken::RenewalDue(header) => {
                if state.flight().is_none() && state.cache.backoff_error(&stamps, now).is_none() {
                    self.ask(&mut state, stamps);
                }
                TokenAccess::Cached(header)
            }
            CachedToken::Missing => match (state.flight(), state.cache.backoff_error(&stamps, now))
            {
                (Some(landing), _) => TokenAccess::Pending(landing),
                (None, Some(error)) => TokenAccess::BackingOff(error),
                (None, None) => TokenAccess::Pending(self.ask(&mut state, stamps)),
            },
        }
    }

    /// Starts a request; the stamps were taken before its files are read.
    fn ask(&self, state: &mut ProviderState, stamps: Stamps) -> InFlightResult {
        let (land, landing) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let answer = shared.issuer.ask().await;
            land.send_replace(Some(shared.on_finished(answer, stamps)));
        });
        state.flight =
            Some(InFlightRequest { landing: landing.clone(), task: task.abort_handle() });
        landing
    }

    fn none(&self, why: &str) -> CallError {
        away(
            UnavailableReason::Credentials,
            format!("no token from {}: {why}", self.shared.issuer.name()),
        )
    }
}

impl<I: TokenIssuer> ProviderShared<I> {
    /// Remembers what came of a request, before anybody is told.
    fn on_finished(
        &self,
        answer: Result<AccessToken, TokenError>,
        stamps: Stamps,
    ) -> Result<HeaderValue, CallError> {
        let now = Instant::now();
        let mut state = self.state();
        state.flight = None;
        match answer {
            Ok(token) => {
                let header = token.header.clone();
                state.cache.store(token);
                Ok(header)
            }
            Err(failure) => {
                if !matches!(state.cache.find(now), CachedToken::Missing) {
                    let error = &failure.message;
                    tracing::warn!(%error, "Token renewal failed; using the current token until it expires");
                }
                let TokenError { message: detail, retry_after, .. } = failure.clone();
                state.cache.failed(failure, stamps, fastrand::f64(), now);
                Err(CallError::Unavailable {
                    reason: UnavailableReason::Credentials,
                    detail,
                    retry_after,
                })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, ProviderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProviderState {
    /// The request that is on its way; one whose task ended without a word is not.
    fn flight(&self) -> Option<InFlightResult> {
        let flight = self.flight.as_ref().filter(|flight| !flight.task.is_finished())?;
        Some(flight.landing.clone())
    }
}

/// Nobody waits any more: a reload has made another source, or the daemon ends.
impl<I> Drop for TokenProvider<I> {
    fn drop(&mut self) {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = &state.flight {
            flight.task.abort();
        }
    }
}
