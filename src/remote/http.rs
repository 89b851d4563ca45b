//! Sends one call and reads its answer: within the deadline, and no more of it than allowed.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Request, Response, Url};
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::classify::{Answer, End, classify};
use super::credentials::Credentials;
use super::retry_after::retry_after;
use super::setup::{self, SetupError};
use super::transport::{Peer, Phase};
use super::{AwayReason, CallError, Options, away};

/// The most that is read of an answer that is not a good one: enough for its words.
const COMPLAINT_LIMIT: usize = 64 << 10;

/// The client, and what every call needs.
pub(super) struct Http {
    client: Client,
    base: Url,
    peer: Peer,
    credentials: Credentials,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(options: &Options) -> Result<Self, SetupError> {
        let base = setup::base_url(options)?;
        Ok(Self {
            client: setup::client(options, &base)?,
            peer: Peer::new(&base, options.connect_timeout),
            base,
            credentials: Credentials::new(&options.auth),
            timeout: options.timeout,
        })
    }

    /// The body of a good answer; anything else is an error, sorted.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let request = self.request(call)?;
        let started = Instant::now();
        let answer = self.exchange(request, call.limit(), started + self.timeout).await;
        let elapsed_ms = started.elapsed().as_millis();
        let (method, route) = (call.method(), call.route());
        match answer {
            Ok(answer) => {
                tracing::debug!(%method, route, status = answer.status, elapsed_ms, "CM answered");
                classify(answer)
            }
            Err(error) => {
                tracing::debug!(%method, route, elapsed_ms, %error, "CM did not answer");
                Err(error)
            }
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<Request, CallError> {
        let mut request = Request::new(call.method(), call.url(&self.base));
        if let Some(token) = self.credentials.authorization()? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        if let Some(body) = call.body() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Some(body.into());
        }
        Ok(request)
    }

    async fn exchange(
        &self,
        request: Request,
        limit: usize,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let response = timeout_at(deadline, self.client.execute(request))
            .await
            .map_err(|_| self.late())?
            .map_err(|error| self.peer.error(&error, Phase::Head))?;
        let status = response.status().as_u16();
        let limit = if response.status().is_success() { limit } else { COMPLAINT_LIMIT };
        let headers = response.headers();
        let retry_after = retry_after(headers, Timestamp::now());
        let html = text(headers, &CONTENT_TYPE).is_some_and(|kind| kind.contains("html"));
        let location = text(headers, &LOCATION).map(|to| self.host_of(to));
        let (body, end) = self.body(response, limit, deadline).await;
        Ok(Answer { status, retry_after, location, html, body, end })
    }

    /// Chunk by chunk, so that what is over the limit is never held.
    async fn body(
        &self,
        mut response: Response,
        limit: usize,
        deadline: Instant,
    ) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return (body, End::TooLarge(limit));
        }
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Err(_) => return (body, End::Broken(self.late())),
                Ok(Err(error)) => return (body, End::Broken(self.peer.error(&error, Phase::Body))),
                Ok(Ok(None)) => return (body, End::Whole),
                Ok(Ok(Some(chunk))) if chunk.len() > limit - body.len() => {
                    return (body, End::TooLarge(limit));
                }
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            }
        }
    }

    fn late(&self) -> CallError {
        away(AwayReason::Timeout, format!("no whole answer within {:?}", self.timeout))
    }

    /// The host that a redirect leads to; a relative one stays here.
    fn host_of(&self, location: &str) -> String {
        let target = self.base.join(location).ok();
        let host = target.as_ref().and_then(Url::host_str);
        host.unwrap_or("an unreadable address").to_owned()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
