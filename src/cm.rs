//! The client of CM's REST API.
//!
//! ```text
//! cm          lookup, record, set_status, request_status, complete
//! ├ api       one call: method, URL, body, limit; whether the response is about it
//! ├ auth      the credentials of a call, and what a response says about them
//! ├ http      one exchange within its deadline
//! │ └ transport   the HTTP client, with tls, proxy and client_cert
//! ├ classify  the meaning of a response;  transport_error: of none
//! └ redact    removes secrets from every text from outside
//! ```
//!
//! A call is repeated in one case: after 401, once, with a fresh ticket or token, because a 401 means
//! that nothing was done. Waiting, retries and verification belong to the engine. The client follows no
//! redirect, logs no body, header or cookie, and builds URLs from typed ids only.
//! `docs/cm-protocol.md` has the tables.

mod api;
mod auth;
mod classify;
mod client_cert;
mod connection_check;
mod cookies;
mod file_contents;
mod headers;
mod http;
mod peer;
mod proxy;
mod proxy_connector;
mod redact;
mod secret;
mod secret_files;
mod tls;
mod transport;
mod transport_error;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::CmSettings;
use crate::domain::{
    CallError, Candidate, CardId, CardIdentity, CardRecord, CmEnums, CompleteRequestResult,
    CredentialsView, Decision, LookupResult, Problem, RecordId, RequestId, RequestStatus,
    SetStatusResult, UnavailableReason,
};
use api::{ApiCall, RequestedList};
use auth::Authenticator;
use classify::{AuthDecision, HeadRefusal, HttpResponse, classify, unparsable_body};
use http::{BodyLimits, HttpClient, ListReading, WantedRecords};
use redact::Redactor;

pub(crate) use connection_check::{ConnectionCheck, ServerStream, TlsHandshake};
pub(crate) use file_contents::utf8;
pub(crate) use peer::PeerCertificate;
pub(crate) use secret_files::{exposed, padded, unusable};

/// The client of CM. Clones share connections and credentials.
#[derive(Clone)]
pub struct CmClient {
    inner: Arc<CmInner>,
}

struct CmInner {
    http: HttpClient,
    authenticator: Authenticator,
    settings: CmSettings,
    numbers: CmEnums,
}

impl CmClient {
    /// Prepares the client; nothing is sent. The paths in `settings` are absolute.
    pub fn new(settings: CmSettings, numbers: CmEnums) -> Result<Self, Problem> {
        let base = api::base_url(&settings)?;
        let http = HttpClient::new(&base, &settings, &Arc::<Redactor>::default(), true)?;
        let authenticator = Authenticator::new(&settings, &http)?;
        Ok(Self { inner: Arc::new(CmInner { http, authenticator, settings, numbers }) })
    }

    /// The connection to CM, step by step.
    pub(crate) fn connection_check(&self) -> Result<ConnectionCheck, Problem> {
        let CmInner { http, authenticator, settings, .. } = &*self.inner;
        authenticator.learn_secrets(http.redactor());
        ConnectionCheck::new(settings, &http.transport().server, http.redactor())
    }

    /// The clock of CM's server; `None` where it does not say. Anonymous.
    pub(crate) async fn server_time(&self) -> Result<Option<Timestamp>, CallError> {
        let http = &self.inner.http;
        let request = Request::new(Method::HEAD, http.transport().server.clone());
        let response = http.transport().execute(request, http.deadline()).await;
        self.redacted(response.map(|response| headers::date(response.headers())))
    }

    /// The date in CM's last good response, and when that came.
    pub(crate) fn last_date(&self) -> Option<(Timestamp, std::time::Instant)> {
        self.inner.http.last_date()
    }

    /// Obtains the credentials of a call.
    pub(crate) async fn acquire_credentials(&self) -> Result<(), CallError> {
        let CmInner { http, authenticator, .. } = &*self.inner;
        self.redacted(authenticator.authorize(http.deadline()).await.map(drop))
    }

    /// The number of open requests that the station's account sees.
    pub(crate) async fn open_requests(&self) -> Result<usize, CallError> {
        let mut count = 0;
        for status in api::OPEN {
            let (_sender, wanted) = watch::channel(Some(Vec::new()));
            let mut reading = ListReading::new(wanted);
            let opening = self.call_with_retry(ApiCall::OpenRequests(status), Some(&mut reading));
            let opening = opening.await?;
            count += reading.reader.named();
            let list = reading.reader.finish();
            self.redacted(list.map_err(|error| unparsable_body(&error, &opening)))?;
        }
        Ok(count)
    }

    /// A text of CM without the secrets that were sent there.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.inner.http.redactor().redact_all(text).into_owned()
    }

    /// Every error leaves through here.
    fn redacted<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        result.map_err(|error| self.inner.http.redactor().redact_in(error))
    }

    /// The state of the credentials; no call is made.
    pub(crate) fn authenticator(&self) -> CredentialsView {
        self.inner.authenticator.view()
    }

    /// For an operator's call: it does not wait for the time that a token endpoint asked for.
    pub(crate) fn expedite(&self) {
        self.inner.authenticator.expedite();
    }

    /// CM's data of a card: the records of the first candidate that has any, and the open requests for
    /// one of them.
    pub(crate) async fn lookup(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        self.redacted(self.look_up(identity).await)
    }

    async fn look_up(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        let (send_wanted, wanted) = watch::channel(None);
        let (found, approved, executing) = tokio::join!(
            self.records_of_first(identity, send_wanted),
            self.list(ApiCall::OpenRequests(api::OPEN[0]), wanted.clone()),
            self.list(ApiCall::OpenRequests(api::OPEN[1]), wanted),
        );
        let (found, lists) = match (found, approved, executing) {
            (Ok(found), Ok(approved), Ok(executing)) => (found?, [approved, executing]),
            (found, approved, executing) => {
                return Err(most_severe([found.err(), approved.err(), executing.err()]));
            }
        };
        let records = found.as_ref().map_or(&[][..], |(_, records)| records);
        let requests = api::requests_for(records, lists, &self.inner.numbers)?;
        Ok(LookupResult { records: found, requests })
    }

    /// The records of the first candidate that has any, which the readers of the lists get too. The outer
    /// error is about the first call, which runs beside the lists.
    async fn records_of_first(
        &self,
        identity: &CardIdentity,
        send_wanted: watch::Sender<Option<Vec<RecordId>>>,
    ) -> Result<Result<Option<(Candidate, Vec<CardRecord>)>, CallError>, CallError> {
        let first = identity.primary();
        let mut found = (first.clone(), self.records(first.card_id).await?);
        let mut asked = BTreeSet::from([first.card_id]);
        for next in identity.candidates().skip(1) {
            if !found.1.is_empty() {
                break;
            }
            // Two rules may make the same id.
            if asked.insert(next.card_id) {
                found = match self.records(next.card_id).await {
                    Ok(records) => (next.clone(), records),
                    Err(error) => return Ok(Err(error)),
                };
            }
        }
        send_wanted.send_replace(Some(found.1.iter().map(|record| record.id).collect()));
        Ok(Ok(Some(found).filter(|(_, records)| !records.is_empty())))
    }

    /// One record as it is now.
    pub async fn record(&self, id: RecordId) -> Result<CardRecord, CallError> {
        self.redacted(api::parse_record(id, &self.call(ApiCall::Record(id)).await?))
    }

    /// Sets the decided status. After an error, the status may be set: read the record before a retry.
    pub(crate) async fn set_status(
        &self,
        decision: &Decision,
    ) -> Result<SetStatusResult, CallError> {
        let body = self.call(ApiCall::SetStatus(decision)).await?;
        self.redacted(api::parse_set_status(decision, &body))
    }

    /// The status of one request as it is now.
    pub(crate) async fn request_status(&self, id: RequestId) -> Result<RequestStatus, CallError> {
        self.redacted(api::parse_request(id, &self.call(ApiCall::Request(id)).await?))
    }

    /// Completes a request. After an error, it may be complete: read the request before a retry.
    pub(crate) async fn complete(&self, id: RequestId) -> Result<CompleteRequestResult, CallError> {
        let body = self.call(ApiCall::CompleteRequest(id)).await?;
        self.redacted(api::parse_complete_request(id, &body, &self.inner.numbers))
    }

    /// The records of one card id.
    pub(crate) async fn records(&self, card: CardId) -> Result<Vec<CardRecord>, CallError> {
        self.redacted(api::records_of(card, &self.call(ApiCall::RecordsOfCard(card)).await?))
    }

    /// The body of a good response; anything else is a classified error.
    async fn call(&self, call: ApiCall<'_>) -> Result<Vec<u8>, CallError> {
        self.call_with_retry(call, None).await
    }

    /// A list of requests, read while it comes in. The inner error is about its content, and matters
    /// only where the list is needed.
    async fn list(
        &self,
        call: ApiCall<'_>,
        wanted: WantedRecords,
    ) -> Result<RequestedList, CallError> {
        let mut reading = ListReading::new(wanted);
        let opening = self.call_with_retry(call, Some(&mut reading)).await?;
        Ok(reading.reader.finish().map_err(|error| unparsable_body(&error, &opening)))
    }

    async fn call_with_retry(
        &self,
        call: ApiCall<'_>,
        mut list: Option<&mut ListReading>,
    ) -> Result<Vec<u8>, CallError> {
        let started = Instant::now();
        let deadline = self.inner.http.deadline();
        let mut answer = self.send(call, list.as_deref_mut(), deadline).await;
        if self.must_drop_session(call, &answer) {
            answer = self.send(call, list.as_deref_mut(), deadline).await;
        }
        if matches!(answer, Ok((_, AuthDecision::Retry))) {
            answer = self.send(call, list, deadline).await;
        }
        let answer = match answer {
            Ok((answer, AuthDecision::Accept | AuthDecision::Retry)) => Ok(answer),
            Ok((_, AuthDecision::Reject(error))) | Err(error) => Err(error),
        };
        let elapsed_ms = started.elapsed().as_millis();
        let (method, route) = (call.method(), call.route());
        match answer {
            Ok(answer) => {
                tracing::debug!(%method, route, status = answer.status, elapsed_ms, "CM responded");
                self.redacted(classify(answer))
            }
            Err(error) => {
                let error = self.inner.http.redactor().redact_in(error);
                tracing::debug!(%method, route, elapsed_ms, %error, "CM call failed");
                Err(error)
            }
        }
    }

    /// Whether to repeat a call without cookies: its head was too long with them, and the server did
    /// not process it. Where that is only suspected, a change is not repeated.
    fn must_drop_session(
        &self,
        call: ApiCall<'_>,
        answer: &Result<(HttpResponse, AuthDecision), CallError>,
    ) -> bool {
        let Ok((answer, _)) = answer else { return false };
        let refusal = answer.head_refusal();
        if !answer.had_cookies || refusal == HeadRefusal::None {
            return false;
        }
        tracing::warn!(
            status = answer.status,
            "Session cookies dropped: the server takes no call with them"
        );
        self.inner.http.forget_session();
        refusal == HeadRefusal::Named || !call.is_change()
    }

    /// One call with credentials, and its response.
    async fn send(
        &self,
        call: ApiCall<'_>,
        list: Option<&mut ListReading>,
        deadline: Instant,
    ) -> Result<(HttpResponse, AuthDecision), CallError> {
        let CmInner { http, authenticator, .. } = &*self.inner;
        let auth = authenticator.authorize(deadline).await?;
        let mut request = Request::new(call.method(), call.url(&http.transport().server));
        if let Some(header) = &auth.header {
            http.redactor().learn_headers(header);
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        if let Some(body) = call.body() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Some(body.into());
        }
        let limits = BodyLimits { limit: call.limit(), deadline, list };
        let answer = http.exchange(request, limits).await?;
        let decision = authenticator.on_response(auth, &answer, deadline).await;
        Ok((answer, decision))
    }
}

/// The error of three concurrent calls, at least one of which failed.
///
/// 404 on all of them means that the API is disabled. Unavailable comes before a verdict on this card:
/// the entry waits, and all calls are repeated later.
fn most_severe(errors: [Option<CallError>; 3]) -> CallError {
    let not_found = |error: &CallError| matches!(error, CallError::Failed { http_status: 404, .. });
    let count = errors.len();
    let errors: Vec<_> = errors.into_iter().flatten().collect();
    if errors.len() == count && errors.iter().all(not_found) {
        let detail = "CM answers 404 on every route".to_owned();
        return CallError::unavailable(UnavailableReason::ApiDisabled, detail);
    }
    let unavailable = errors.iter().position(|error| error.unavailable_reason().is_some());
    errors.into_iter().nth(unavailable.unwrap_or_default()).unwrap_or_else(|| {
        CallError::unavailable(UnavailableReason::NotCm, "no response".to_owned())
    })
}

#[cfg(test)]
mod tests;
