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

mod call;
mod classify;
mod contents;
mod cookies;
mod credentials;
mod encoding;
mod file;
mod files;
mod http;
mod identity;
mod judge;
mod lane;
mod legs;
mod options;
mod outbound;
mod pages;
mod pem;
mod proxy;
mod redact;
mod retry_after;
mod secret;
mod setup;
mod tls;
mod tls_fault;
mod transport;
mod tunnel;
mod way;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::domain::{
    CallError, Candidate, CardId, CardIdentity, CardRecord, CompleteRequestResult, CredentialsView,
    Decision, LookupResult, RecordId, RequestId, RequestStatus, SetStatusResult, UnavailableReason,
};
use call::Call;
use http::Http;

pub use contents::Holds;
pub use files::{FileFinding, exposed, padded, unusable};
pub use identity::IdentityError;
pub use options::{Auth, ClientCertificate, Kerberos, OAuth2, Options, Proof, Proxy};
pub use setup::SetupError;
pub use way::{Handshake, Hop, Line, ShownCertificate, Way};

/// CM, as it is reached from here. Clones share connections and credentials.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    options: Options,
}

impl Remote {
    /// Prepares the client; nothing is sent. Reads `ca_file` and the system's roots, once.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let http = Http::new(&options)?;
        Ok(Self { inner: Arc::new(Inner { http, options }) })
    }

    /// The way to CM, to be taken step by step.
    pub fn way(&self) -> Result<Way, SetupError> {
        let http = &self.inner.http;
        http.learn();
        Way::new(self.inner.options.clone(), http.base(), http.redactor())
    }

    /// What time it is at CM's server, where it says so; anybody may ask.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, CallError> {
        self.hidden(self.inner.http.greet().await)
    }

    /// The date in CM's last good answer, and when that came.
    #[must_use]
    pub fn last_date(&self) -> Option<(Timestamp, std::time::Instant)> {
        self.inner.http.last_date()
    }

    /// Gets the credentials that a call would show.
    pub async fn prepare(&self) -> Result<(), CallError> {
        self.hidden(self.inner.http.prepare().await)
    }

    /// How many open requests this station's account sees.
    pub async fn open_requests(&self) -> Result<usize, CallError> {
        let mut seen = 0;
        for status in judge::OPEN {
            let named = self.inner.http.count(&Call::OpenRequests(status)).await;
            seen += self.hidden(named)?;
        }
        Ok(seen)
    }

    /// A text that came from CM, without the secrets that were sent there.
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        self.inner.http.redactor().hide_all(text).into_owned()
    }

    /// The one way out for errors.
    fn hidden<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        result.map_err(|error| self.inner.http.redactor().hide_in(error))
    }

    /// How it stands with what lets the station in; nobody is asked.
    #[must_use]
    pub fn credentials(&self) -> CredentialsView {
        self.inner.http.credentials()
    }

    /// An operator wants the next call now: it does not wait for the time that a token endpoint asked
    /// for.
    pub fn hurry(&self) {
        self.inner.http.hurry();
    }

    /// What CM knows about a card: the records of the first candidate that has any, and the open
    /// requests that name one of them.
    pub async fn lookup(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        self.hidden(self.look_up(identity).await)
    }

    async fn look_up(&self, identity: &CardIdentity) -> Result<LookupResult, CallError> {
        let (tell, wanted) = watch::channel(None);
        let (found, approved, executing) = tokio::join!(
            self.records_of_first(identity, tell),
            self.inner.http.list(&Call::OpenRequests(judge::OPEN[0]), wanted.clone()),
            self.inner.http.list(&Call::OpenRequests(judge::OPEN[1]), wanted),
        );
        let (found, lists) = match (found, approved, executing) {
            (Ok(found), Ok(approved), Ok(executing)) => (found?, [approved, executing]),
            (found, approved, executing) => {
                return Err(worst([found.err(), approved.err(), executing.err()]));
            }
        };
        let records = found.as_ref().map_or(&[][..], |(_, records)| records);
        let requests = judge::requests_about(records, lists, &self.inner.options.numbers)?;
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
        let body = self.inner.http.call(&Call::Record(id)).await?;
        self.hidden(judge::the_record(id, &body))
    }

    /// Has CM set what was decided.
    ///
    /// An error does not mean that nothing was set: whoever calls this again reads the record
    /// first.
    pub async fn set_status(&self, decision: &Decision) -> Result<SetStatusResult, CallError> {
        let body = self.inner.http.call(&Call::SetStatus(decision)).await?;
        self.hidden(judge::put_answer(decision, &body))
    }

    /// Where one request stands at this moment.
    pub async fn request_status(&self, id: RequestId) -> Result<RequestStatus, CallError> {
        let body = self.inner.http.call(&Call::Request(id)).await?;
        self.hidden(judge::the_request(id, &body))
    }

    /// Has CM complete a request.
    ///
    /// An error does not mean that it is not completed: whoever calls this again reads the request
    /// first.
    pub async fn complete(&self, id: RequestId) -> Result<CompleteRequestResult, CallError> {
        let body = self.inner.http.call(&Call::Complete(id)).await?;
        self.hidden(judge::complete_answer(id, &body, &self.inner.options.numbers))
    }

    /// The records of one card id.
    pub async fn records(&self, card: CardId) -> Result<Vec<CardRecord>, CallError> {
        let body = self.inner.http.call(&Call::RecordsOfCard(card)).await?;
        self.hidden(judge::records_of(card, &body))
    }
}

/// What three calls that were made side by side amount to, when at least one went wrong.
///
/// 404 on all of them is the API switched off. Away comes before a verdict on this card: what
/// only waits is not lost, and what the other calls said can be asked again.
fn worst(errors: [Option<CallError>; 3]) -> CallError {
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
pub fn no_text(bytes: &[u8]) -> Option<Holds> {
    Holds::binary(bytes)
}

/// CM is away, and did not say for how long.
const fn away(reason: UnavailableReason, detail: String) -> CallError {
    CallError::Unavailable { reason, detail, retry_after: None }
}

#[cfg(test)]
mod tests;
