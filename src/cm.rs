//! CM over HTTP(S): a few questions, and every answer sorted into what can be done about it.
//!
//! ```text
//! remote     what is asked: lookup, record, set_status, request_status, complete
//! ├ call     one call: method, URL, body, how much answer it may have
//! ├ http     sends it within its deadline, and reads no more than that; lane: in a thread of its own
//! ├ redact   takes secrets out of every text from outside
//! ├ classify HTTP status → CM is away, failed, refused, or talks
//! ├ judge    whether what CM says is about what was asked
//! ├ setup    clients, each with its TLS, proxy and client certificate (tls, proxy, identity)
//! └ transport what it means that there is no answer;  pages  that a web server answers in CM's place
//! ```
//!
//! Nothing is repeated here but a call that ended in 401, once, with a fresh ticket or token: it was
//! not done. Waiting, trying again and reading back belong to the engine.
//! Redirects are not followed, bodies, headers and cookies are not logged, and no URL is built from
//! anything but typed ids. `docs/cm-protocol.md` has the tables.

mod api_call;
mod auth;
mod classify;
mod client_cert;
mod connection_check;
mod content_encoding;
mod cookies;
mod error_pages;
mod file_contents;
mod http;
mod http_thread;
mod http_transport;
mod options;
mod pem;
mod proxy;
mod proxy_connector;
mod proxy_tunnel;
mod redact;
mod reloading_file;
mod retry_after;
mod secret;
mod secret_files;
mod setup;
mod tls;
mod tls_error;
mod transport_error;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::domain::{
    CallError, Candidate, CardId, CardIdentity, CardRecord, CompleteRequestResult, CredentialsView,
    Decision, LookupResult, RecordId, RequestId, RequestStatus, SetStatusResult, UnavailableReason,
};
use api_call::ApiCall;
use http::CmHttp;

pub use client_cert::ClientCertError;
pub use connection_check::{
    ConnectionCheck, HostPort, PeerCertificate, ServerStream, TlsHandshake,
};
pub use file_contents::FileContents;
pub use options::{
    AuthOptions, ClientAuthentication, ClientCertFiles, CmOptions, KerberosOptions, OAuth2Options,
    ProxyOptions,
};
pub use secret_files::{FileFinding, exposed, padded, unusable};
pub use setup::SetupError;

/// CM, as it is reached from here. Clones share connections and credentials.
#[derive(Clone)]
pub struct CmClient {
    inner: Arc<CmInner>,
}

struct CmInner {
    http: CmHttp,
    options: CmOptions,
}

impl CmClient {
    /// Prepares the client; nothing is sent. Reads `ca_file` and the system's roots, once.
    pub fn new(options: CmOptions) -> Result<Self, SetupError> {
        let http = CmHttp::new(&options)?;
        Ok(Self { inner: Arc::new(CmInner { http, options }) })
    }

    /// The way to CM, to be taken step by step.
    pub fn connection_check(&self) -> Result<ConnectionCheck, SetupError> {
        let http = &self.inner.http;
        http.learn();
        ConnectionCheck::new(self.inner.options.clone(), http.base(), http.redactor())
    }

    /// What time it is at CM's server, where it says so; anybody may ask.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, CallError> {
        self.redacted(self.inner.http.fetch_server_time().await)
    }

    /// The date in CM's last good answer, and when that came.
    #[must_use]
    pub fn last_date(&self) -> Option<(Timestamp, std::time::Instant)> {
        self.inner.http.last_date()
    }

    /// Gets the credentials that a call would show.
    pub async fn acquire_credentials(&self) -> Result<(), CallError> {
        self.redacted(self.inner.http.prepare().await)
    }

    /// How many open requests this station's account sees.
    pub async fn open_requests(&self) -> Result<usize, CallError> {
        let mut seen = 0;
        for status in validate::OPEN {
            let named = self.inner.http.count(&ApiCall::OpenRequests(status)).await;
            seen += self.redacted(named)?;
        }
        Ok(seen)
    }

    /// A text that came from CM, without the secrets that were sent there.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.inner.http.redactor().redact_all(text).into_owned()
    }

    /// The one way out for errors.
    fn redacted<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        result.map_err(|error| self.inner.http.redactor().redact_in(error))
    }

    /// How it stands with what lets the station in; nobody is asked.
    #[must_use]
    pub fn authenticator(&self) -> CredentialsView {
        self.inner.http.authenticator()
    }

    /// An operator wants the next call now: it does not wait for the time that a token endpoint asked
    /// for.
    pub fn expedite(&self) {
        self.inner.http.expedite();
    }

    /// What CM knows about a card: the records of the first candidate that has any, and the open
    /// requests that name one of them.
    pub async fn lookup(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        self.redacted(self.look_up(identity).await)
    }

    async fn look_up(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        let (tell, wanted) = watch::channel(None);
        let (found, approved, executing) = tokio::join!(
            self.records_of_first(identity, tell),
            self.inner.http.list(&ApiCall::OpenRequests(validate::OPEN[0]), wanted.clone()),
            self.inner.http.list(&ApiCall::OpenRequests(validate::OPEN[1]), wanted),
        );
        let (found, lists) = match (found, approved, executing) {
            (Ok(found), Ok(approved), Ok(executing)) => (found?, [approved, executing]),
            (found, approved, executing) => {
                return Err(most_severe([found.err(), approved.err(), executing.err()]));
            }
        };
        let records = found.as_ref().map_or(&[][..], |(_, records)| records);
        let requests = validate::requests_for(records, lists, &self.inner.options.numbers)?;
        Ok(LookupResult { records: found, requests })
    }

    /// The records of the first candidate that has any. Tells whoever reads the lists of requests which
    /// those are: the requests are the same whichever id has the records. The outer error is about the
    /// first question, which is asked beside them.
    async fn records_of_first(
        &self,
        identity: &CardIdentity,
        tell: watch::Sender<Option<Vec<RecordId>>>,
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
        tell.send_replace(Some(found.1.iter().map(|record| record.id).collect()));
        Ok(Ok(Some(found).filter(|(_, records)| !records.is_empty())))
    }

    /// One record as it is at this moment.
    pub async fn record(&self, id: RecordId) -> Result<CardRecord, CallError> {
        let body = self.inner.http.call(&ApiCall::Record(id)).await?;
        self.redacted(validate::parse_record(id, &body))
    }

    /// Has CM set what was decided.
    ///
    /// An error does not mean that nothing was set: whoever calls this again reads the record
    /// first.
    pub async fn set_status(&self, decision: &Decision) -> Result<SetStatusResult, CallError> {
        let body = self.inner.http.call(&ApiCall::SetStatus(decision)).await?;
        self.redacted(validate::parse_set_status(decision, &body))
    }

    /// Where one request stands at this moment.
    pub async fn request_status(&self, id: RequestId) -> Result<RequestStatus, CallError> {
        let body = self.inner.http.call(&ApiCall::Request(id)).await?;
        self.redacted(validate::parse_request(id, &body))
    }

    /// Has CM complete a request.
    ///
    /// An error does not mean that it is not completed: whoever calls this again reads the request
    /// first.
    pub async fn complete(&self, id: RequestId) -> Result<CompleteRequestResult, CallError> {
        let body = self.inner.http.call(&ApiCall::CompleteRequest(id)).await?;
        self.redacted(validate::parse_complete_request(id, &body, &self.inner.options.numbers))
    }

    /// The records of one card id.
    pub async fn records(&self, card: CardId) -> Result<Vec<CardRecord>, CallError> {
        let body = self.inner.http.call(&ApiCall::RecordsOfCard(card)).await?;
        self.redacted(validate::records_of(card, &body))
    }
}

/// What three calls that were made side by side amount to, when at least one went wrong.
///
/// 404 on all of them is the API switched off. Away comes before a verdict on this card: what
/// only waits is not lost, and what the other calls said can be asked again.
fn most_severe(errors: [Option<CallError>; 3]) -> CallError {
    let not_found = |error: &CallError| matches!(error, CallError::Failed { http_status: 404, .. });
    let count = errors.len();
    let errors: Vec<_> = errors.into_iter().flatten().collect();
    if errors.len() == count && errors.iter().all(not_found) {
        return away(UnavailableReason::ApiDisabled, "CM answers 404 on every route".to_owned());
    }
    let away_at = errors.iter().position(|error| matches!(error, CallError::Unavailable { .. }));
    errors
        .into_iter()
        .nth(away_at.unwrap_or_default())
        .unwrap_or_else(|| away(UnavailableReason::NotCm, "no answer".to_owned()))
}

/// What bytes are that should be text; `None` where they are.
#[must_use]
pub fn no_text(bytes: &[u8]) -> Option<FileContents> {
    FileContents::binary(bytes)
}

/// CM is away, and did not say for how long.
const fn away(reason: UnavailableReason, detail: String) -> CallError {
    CallError::Unavailable { reason, detail, retry_after: None }
}

#[cfg(test)]
mod tests;
