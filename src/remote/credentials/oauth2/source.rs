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
use super::cache::{Cache, Failure, Found, Refused, Stamps, Token};
use crate::domain::CallError;

/// Somebody who issues tokens.
pub(super) trait Issuer: Send + Sync + 'static {
    /// Asks for a token, once, and for no longer than its own deadline.
    fn ask(&self) -> impl Future<Output = Result<Token, Failure>> + Send;

    /// What the files that are needed for it are like.
    fn stamps(&self) -> Stamps;

    /// The name of it, for people.
    fn name(&self) -> &str;
}

/// Tokens from an issuer, kept and renewed.
pub(super) struct Source<I> {
    shared: Arc<Shared<I>>,
}

struct Shared<I> {
    issuer: I,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    flight: Option<Flight>,
}

/// A request that is on its way.
struct Flight {
    landing: Landing,
    task: AbortHandle,
}

/// Where the outcome of a request shows.
type Landing = watch::Receiver<Option<Result<HeaderValue, CallError>>>;

/// How a call comes to a token.
enum Way {
    /// It has one.
    There(HeaderValue),
    /// When this request is answered.
    Awaits(Landing),
    /// Not at all: the issuer is spared.
    Spared(CallError),
}

impl<I: Issuer> Source<I> {
    pub(super) fn new(issuer: I) -> Self {
        Self { shared: Arc::new(Shared { issuer, state: Mutex::default() }) }
    }

    pub(super) fn issuer(&self) -> &I {
        &self.shared.issuer
    }

    /// A token: the last one where that is good, else a new one as soon as it comes.
    pub(super) async fn token(&self, deadline: Instant) -> Result<HeaderValue, CallError> {
        let mut landing = match self.way() {
            Way::There(header) => return Ok(header),
            Way::Spared(error) => return Err(error),
            Way::Awaits(landing) => landing,
        };
        let waited = timeout_at(deadline, landing.wait_for(Option::is_some)).await;
        let outcome = waited.map(|landed| landed.ok().and_then(|landed| landed.clone()));
        outcome
            .unwrap_or_else(|_| Some(Err(self.none("none came in time for this call"))))
            .unwrap_or_else(|| Err(self.none("the request for one was given up")))
    }

    /// The next call asks for a token, whatever the issuer said of waiting.
    pub(super) fn hurry(&self) {
        self.shared.state().cache.hurry(Instant::now());
    }

    /// CM refused the token of this header.
    pub(super) fn refused(&self, header: &HeaderValue) -> Refused {
        self.shared.state().cache.refused(header, Instant::now())
    }

    /// When the token ends, and what is wrong.
    pub(super) fn view(&self) -> (Option<Timestamp>, Option<String>) {
        let state = self.shared.state();
        (state.cache.valid_until(Instant::now()), state.cache.trouble().map(str::to_owned))
    }

    fn way(&self) -> Way {
        let stamps = self.shared.issuer.stamps();
        let now = Instant::now();
        let mut state = self.shared.state();
        match state.cache.find(now) {
            Found::Good(header) => Way::There(header),
            Found::Due(header) => {
                if state.flight().is_none() && state.cache.spared(&stamps, now).is_none() {
                    self.ask(&mut state, stamps);
                }
                Way::There(header)
            }
            Found::Nothing => match (state.flight(), state.cache.spared(&stamps, now)) {
                (Some(landing), _) => Way::Awaits(landing),
                (None, Some(error)) => Way::Spared(error),
                (None, None) => Way::Awaits(self.ask(&mut state, stamps)),
            },
        }
    }

    /// Starts a request; the stamps were taken before its files are read.
    fn ask(&self, state: &mut State, stamps: Stamps) -> Landing {
        let (land, landing) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let answer = shared.issuer.ask().await;
            land.send_replace(Some(shared.landed(answer, stamps)));
        });
        state.flight = Some(Flight { landing: landing.clone(), task: task.abort_handle() });
        landing
    }

    fn none(&self, why: &str) -> CallError {
        away(
            UnavailableReason::Credentials,
            format!("no token from {}: {why}", self.shared.issuer.name()),
        )
    }
}

impl<I: Issuer> Shared<I> {
    /// Remembers what came of a request, before anybody is told.
    fn landed(
        &self,
        answer: Result<Token, Failure>,
        stamps: Stamps,
    ) -> Result<HeaderValue, CallError> {
        let now = Instant::now();
        let mut state = self.state();
        state.flight = None;
        match answer {
            Ok(token) => {
                let header = token.header.clone();
                state.cache.granted(token);
                Ok(header)
            }
            Err(failure) => {
                if !matches!(state.cache.find(now), Found::Nothing) {
                    let error = &failure.words;
                    tracing::warn!(%error, "The token could not be renewed and serves on");
                }
                let Failure { words: detail, retry_after, .. } = failure.clone();
                state.cache.failed(failure, stamps, fastrand::f64(), now);
                Err(CallError::Unavailable {
                    reason: UnavailableReason::Credentials,
                    detail,
                    retry_after,
                })
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The request that is on its way; one whose task ended without a word is not.
    fn flight(&self) -> Option<Landing> {
        let flight = self.flight.as_ref().filter(|flight| !flight.task.is_finished())?;
        Some(flight.landing.clone())
    }
}

/// Nobody waits any more: a reload has made another source, or the daemon ends.
impl<I> Drop for Source<I> {
    fn drop(&mut self) {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = &state.flight {
            flight.task.abort();
        }
    }
}
