//! The token endpoint: what it is asked, and what is made of its answer.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, Url};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::super::classify::Answer;
use super::super::super::file::{self, Stamp};
use super::super::super::http::{Asked, Caller};
use super::super::super::redact::Redactor;
use super::super::super::retry_after::with_way_past;
use super::super::super::secret::{Secret, form_encode};
use super::super::super::setup::{Clients, SetupError};
use super::super::super::{ClientCertificate, OAuth2, Options, Proof};
use super::super::negotiate::{Negotiate, Server};
use super::super::{Next, Pass, Welcome};
use super::answer::{self, Denial, Grant};
use super::assertion::assertion;
use super::cache::{Failure, Stamps, Token};
use super::signer::{Signer, SignerError};
use super::source::Issuer;
use crate::domain::UnavailableReason;

/// The most that is read of an answer.
const ANSWER_LIMIT: usize = 256 << 10;

/// The longest file with a client secret that is read.
const SECRET_LIMIT: u64 = 4 << 10;

/// A clock that is this wrong is told, because assertions have times in them.
const SKEW: u64 = 60;

/// By this name AD FS writes the id of a request into its event log, and sends it back.
const REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

/// The endpoint, and who asks it.
pub(super) struct Endpoint {
    caller: Caller,
    url: Url,
    client: OAuth2,
    /// Logs on by Kerberos, where that is the proof.
    login: Option<Negotiate>,
    redactor: Arc<Redactor>,
    timeout: Duration,
}

/// What is sent.
struct Question {
    form: Secret,
    /// What may be the reason, should the answer be no.
    hint: Option<String>,
}

/// What came back.
struct Heard {
    answer: Answer,
    hints: Vec<String>,
    /// Whether it says that another login may be taken.
    again: bool,
}

impl Endpoint {
    pub(super) fn new(
        client: &OAuth2,
        options: &Options,
        clients: &Clients<'_>,
    ) -> Result<Self, SetupError> {
        let url = url(&client.token_url)?;
        let caller = Caller::new(&url, options, clients)?;
        let login = match &client.proof {
            Proof::Secret { .. } | Proof::Assertion(_) => None,
            Proof::Windows(kerberos) => {
                let outbound = Arc::clone(caller.outbound());
                let connect_timeout = options.connect_timeout;
                let server = Server { url: url.clone(), outbound, connect_timeout };
                Some(Negotiate::new(kerberos, server))
            }
        };
        let (client, redactor) = (client.clone(), Arc::clone(clients.redactor()));
        Ok(Self { caller, url, client, login, redactor, timeout: options.timeout })
    }

    /// Knows the secrets of all calls.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Has the client's secret known as one, as far as its file can be read.
    pub(super) fn learn(&self) {
        if let Proof::Secret { file } = &self.client.proof
            && let Ok(secret) = secret(file)
        {
            self.redactor.learn(secret.expose());
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client.client_id
    }

    /// What is to be sent, with the proof as the files have it now.
    fn question(&self) -> Result<Question, String> {
        let OAuth2 { client_id, resource, scope, .. } = &self.client;
        let mut hint = None;
        let proof = match &self.client.proof {
            Proof::Secret { file } => vec![("client_secret", secret(file)?)],
            Proof::Assertion(files) => {
                let signed;
                (signed, hint) = self.signed(files).map_err(|error| error.told())?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
                vec![("client_assertion_type", Secret::new(kind)), ("client_assertion", signed)]
            }
            Proof::Windows(_) => {
                vec![("use_windows_client_authentication", Secret::new("true".to_owned()))]
            }
        };
        let open = [
            ("grant_type", Some("client_credentials")),
            ("client_id", Some(client_id)),
            ("resource", resource.as_deref()),
            ("scope", scope.as_deref()),
        ];
        let open = open.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
        let secret = proof.iter().map(|(name, value)| (*name, value.expose()));
        let form = form(&open.chain(secret).collect::<Vec<_>>());
        let secrets =
            proof.iter().filter(|(name, _)| matches!(*name, "client_secret" | "client_assertion"));
        secrets.for_each(|(_, value)| self.redactor.learn(value.expose()));
        Ok(Question { form, hint })
    }

    fn signed(&self, files: &ClientCertificate) -> Result<(Secret, Option<String>), SignerError> {
        let now = Timestamp::now();
        let signer = Signer::read(files, now)?;
        let OAuth2 { client_id, token_url, .. } = &self.client;
        let signed = assertion(&signer, client_id, token_url, now)?;
        Ok((signed, signer.dates().map(str::to_owned)))
    }

    fn request(&self, form: Secret, id: Uuid, pass: Option<&Pass>) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // A GUID is a header's value always.
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(header) = pass.and_then(|pass| pass.header.as_ref()) {
            headers.insert(AUTHORIZATION, header.clone());
        }
        *request.body_mut() = Some(Body::from(form.into_bytes()));
        request
    }

    /// One request, and what came back.
    async fn exchange(&self, id: Uuid, deadline: Instant) -> Result<Heard, Failure> {
        let Question { form, hint } = self.question().map_err(|why| self.failure(why, false))?;
        let pass = match &self.login {
            Some(login) => {
                let pass = login.pass(deadline).await;
                Some(pass.map_err(|error| self.failure(error.detail(), false))?)
            }
            None => None,
        };
        let header = pass.as_ref().and_then(|pass| pass.header.as_ref());
        if let Some(header) = header {
            self.redactor.saw(header);
        }
        let request = self.request(form, id, pass.as_ref());
        let asked = Asked::object(ANSWER_LIMIT, deadline);
        let told = |words: &str| self.failure(format!("{words} (client-request-id {id})"), true);
        let (answer, welcome) = self.caller.exchange(request, asked).await.map_err(|error| {
            let remedy = error.unavailable_reason().map_or(String::new(), remedy);
            told(&format!("{}; {remedy}", error.detail()))
        })?;
        let hints = hint.into_iter().chain(skew(&welcome)).collect();
        let next = match (&self.login, pass) {
            (Some(login), Some(pass)) => login.after(pass, welcome, deadline).await,
            (_, _) => Next::Believe,
        };
        match next {
            Next::Doubt(error) => Err(told(error.detail())),
            Next::Believe => Ok(Heard { answer, hints, again: false }),
            Next::Again => Ok(Heard { answer, hints, again: true }),
        }
    }

    fn failure(&self, what: impl fmt::Display, asked: bool) -> Failure {
        let words = format!("no token from {}: {what}", self.name());
        let words = self.redactor.hide(&words);
        Failure { words, retry_after: None, asked }
    }
}

impl Issuer for Endpoint {
    async fn ask(&self) -> Result<Token, Failure> {
        let (id, asked, endpoint) = (Uuid::new_v4(), Instant::now(), self.name());
        let deadline = asked + self.timeout;
        let heard = match self.exchange(id, deadline).await {
            Ok(Heard { again: true, .. }) => self.exchange(id, deadline).await,
            heard => heard,
        };
        let elapsed_ms = asked.elapsed().as_millis();
        let Heard { answer, hints, .. } = heard.inspect_err(|failure| {
            let error = &failure.words;
            tracing::debug!(endpoint, client_request_id = %id, elapsed_ms, error, "No token was issued");
        })?;
        let (status, retry_after) = (answer.status, answer.retry_after);
        tracing::debug!(endpoint, client_request_id = %id, status, elapsed_ms, "The token endpoint answered");
        match answer::judge(answer) {
            Ok(Grant { header, life }) => {
                self.redactor.saw(&header);
                let until = Timestamp::now() + life;
                Ok(Token { header, asked, life, until })
            }
            Err(Denial { what, remedy }) => {
                let said = [vec![format!("it {what}")], hints, vec![remedy.to_owned()]].concat();
                let words = format!("{} (client-request-id {id})", said.join("; "));
                let words = with_way_past(words, retry_after);
                Err(Failure { retry_after, ..self.failure(words, true) })
            }
        }
    }

    fn stamps(&self) -> Stamps {
        let files = match &self.client.proof {
            Proof::Secret { file } => vec![file],
            Proof::Assertion(files) => vec![&files.cert_file, &files.key_file],
            Proof::Windows(kerberos) => vec![&kerberos.keytab],
        };
        files.into_iter().map(|file| Stamp::of(file).ok()).collect()
    }

    fn name(&self) -> &str {
        self.caller.name()
    }
}

/// The endpoint's address: it is sent secrets, so nobody on the way may read along.
fn url(text: &str) -> Result<Url, SetupError> {
    let unusable = |why: &str| SetupError::TokenUrl { url: text.to_owned(), why: why.to_owned() };
    // Not told: it would show the password.
    if text.contains('@') {
        let why = "it has a user name in it".to_owned();
        return Err(SetupError::TokenUrl { url: "(with a user name)".to_owned(), why });
    }
    let url: Url = text.parse().map_err(|error| unusable(&format!("{error}")))?;
    let host = url.host_str().unwrap_or_default();
    let here = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err(unusable("it is not https, and leads to another machine")),
    }
}

/// What somebody can do who gets no answer: what it would be with CM, but at another address.
fn remedy(reason: UnavailableReason) -> String {
    reason
        .remedy()
        .replace("cm.url leads to CM", "cm.url leads to the token endpoint")
        .replace("cm.url", "cm.auth.token_url")
}

/// The secret in a file: one line, whose end does not count.
pub(in super::super) fn secret(path: &Path) -> Result<Secret, String> {
    let told =
        |what: &str| format!("{what} in {}; write the client's secret into it", path.display());
    let text = file::bare_secret(path, SECRET_LIMIT).map_err(|error| {
        format!("cannot read {}: {error}; check cm.auth.client_secret_file", path.display())
    })?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(told("there is nothing"));
    }
    if line.contains(['\r', '\n']) {
        return Err(told("there is more than one line"));
    }
    Ok(Secret::new(line.to_owned()))
}

/// Names and values as a form has them, in memory that does not move.
fn form(pairs: &[(&str, &str)]) -> Secret {
    let room = pairs.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Secret::with_room(room);
    for (name, value) in pairs {
        let out = form.expose_mut();
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        form_encode(value, out);
    }
    form
}

/// How far the clocks of both machines are apart, where that matters.
fn skew(welcome: &Welcome) -> Option<String> {
    let ahead = Timestamp::now().duration_since(welcome.date?).as_secs();
    if ahead.unsigned_abs() < SKEW {
        return None;
    }
    let (off, side) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
    Some(format!("this machine's clock is {off} s {side} the endpoint's"))
}
