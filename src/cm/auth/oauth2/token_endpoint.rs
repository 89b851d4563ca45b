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

use super::super::super::classify::HttpResponse;
use super::super::super::http::{BodyReader, HttpClient};
use super::super::super::redact::Redactor;
use super::super::super::reloading_file::{self, FileVersion};
use super::super::super::retry_after::with_retry_after;
use super::super::super::secret::{Secret, form_encode};
use super::super::super::setup::{SetupError, TransportBuilder};
use super::super::super::{ClientAuthentication, ClientCertFiles, CmOptions, OAuth2Options};
use super::super::negotiate::{Negotiate, TargetServer};
use super::super::{AuthDecision, AuthResponse, RequestAuth};
use super::assertion::assertion;
use super::signer::{Signer, SignerError};
use super::token_cache::{AccessToken, Stamps, TokenError};
use super::token_provider::TokenIssuer;
use super::token_response::{self, TokenErrorResponse, TokenResponse};
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
pub(super) struct TokenEndpoint {
    caller: HttpClient,
    url: Url,
    client: OAuth2Options,
    /// Logs on by Kerberos, where that is the proof.
    login: Option<Negotiate>,
    redactor: Arc<Redactor>,
    timeout: Duration,
}

/// What is sent.
struct TokenRequest {
    form: Secret,
    /// What may be the reason, should the answer be no.
    hint: Option<String>,
}

/// What came back.
struct TokenReply {
    answer: HttpResponse,
    hints: Vec<String>,
    /// Whether it says that another login may be taken.
    retry_auth: bool,
}

impl TokenEndpoint {
    pub(super) fn new(
        client: &OAuth2Options,
        options: &CmOptions,
        clients: &TransportBuilder<'_>,
    ) -> Result<Self, SetupError> {
        let url = url(&client.token_url)?;
        let caller = HttpClient::new(&url, options, clients)?;
        let login = match &client.proof {
            ClientAuthentication::Secret { .. } | ClientAuthentication::Assertion(_) => None,
            ClientAuthentication::Kerberos(kerberos) => {
                let outbound = Arc::clone(caller.outbound());
                let connect_timeout = options.connect_timeout;
                let server = TargetServer { url: url.clone(), outbound, connect_timeout };
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
        if let ClientAuthentication::Secret { file } = &self.client.proof
            && let Ok(secret) = secret(file)
        {
            self.redactor.learn(secret.expose());
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client.client_id
    }

    /// What is to be sent, with the proof as the files have it now.
    fn question(&self) -> Result<TokenRequest, String> {
        let OAuth2Options { client_id, resource, scope, .. } = &self.client;
        let mut hint = None;
        let proof = match &self.client.proof {
            ClientAuthentication::Secret { file } => vec![("client_secret", secret(file)?)],
            ClientAuthentication::Assertion(files) => {
                let signed;
                (signed, hint) = self.signed(files).map_err(|error| error.text())?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
                vec![("client_assertion_type", Secret::new(kind)), ("client_assertion", signed)]
            }
            ClientAuthentication::Kerberos(_) => {
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
        Ok(TokenRequest { form, hint })
    }

    fn signed(&self, files: &ClientCertFiles) -> Result<(Secret, Option<String>), SignerError> {
        let now = Timestamp::now();
        let signer = Signer::read(files, now)?;
        let OAuth2Options { client_id, token_url, .. } = &self.client;
        let signed = assertion(&signer, client_id, token_url, now)?;
        Ok((signed, signer.dates().map(str::to_owned)))
    }

    fn request(&self, form: Secret, id: Uuid, pass: Option<&RequestAuth>) -> Request {
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
    async fn exchange(&self, id: Uuid, deadline: Instant) -> Result<TokenReply, TokenError> {
        let TokenRequest { form, hint } =
            self.question().map_err(|why| self.failure(why, false))?;
        let pass = match &self.login {
            Some(login) => {
                let pass = login.pass(deadline).await;
                Some(pass.map_err(|error| self.failure(error.detail(), false))?)
            }
            None => None,
        };
        let header = pass.as_ref().and_then(|pass| pass.header.as_ref());
        if let Some(header) = header {
            self.redactor.learn_headers(header);
        }
        let request = self.request(form, id, pass.as_ref());
        let asked = BodyReader::object(ANSWER_LIMIT, deadline);
        let told = |words: &str| self.failure(format!("{words} (client-request-id {id})"), true);
        let (answer, welcome) = self.caller.exchange(request, asked).await.map_err(|error| {
            let remedy = error.unavailable_reason().map_or(String::new(), remedy);
            told(&format!("{}; {remedy}", error.detail()))
        })?;
        let hints = hint.into_iter().chain(skew(&welcome)).collect();
        let next = match (&self.login, pass) {
            (Some(login), Some(pass)) => login.after(pass, welcome, deadline).await,
            (_, _) => AuthDecision::Accept,
        };
        match next {
            AuthDecision::Reject(error) => Err(told(error.detail())),
            AuthDecision::Accept => Ok(TokenReply { answer, hints, retry_auth: false }),
            AuthDecision::Retry => Ok(TokenReply { answer, hints, retry_auth: true }),
        }
    }

    fn failure(&self, what: impl fmt::Display, asked: bool) -> TokenError {
        let words = format!("no token from {}: {what}", self.name());
        let words = self.redactor.redact(&words);
        TokenError { message: words, retry_after: None, asked }
    }
}

impl TokenIssuer for TokenEndpoint {
    async fn ask(&self) -> Result<AccessToken, TokenError> {
        let (id, asked, endpoint) = (Uuid::new_v4(), Instant::now(), self.name());
        let deadline = asked + self.timeout;
        let heard = match self.exchange(id, deadline).await {
            Ok(TokenReply { retry_auth: true, .. }) => self.exchange(id, deadline).await,
            heard => heard,
        };
        let elapsed_ms = asked.elapsed().as_millis();
        let TokenReply { answer, hints, .. } = heard.inspect_err(|failure| {
            let error = &failure.message;
            tracing::debug!(endpoint, client_request_id = %id, elapsed_ms, error, "Token request failed");
        })?;
        let (status, retry_after) = (answer.status, answer.retry_after);
        tracing::debug!(endpoint, client_request_id = %id, status, elapsed_ms, "Token endpoint responded");
        match token_response::parse(answer) {
            Ok(TokenResponse { header, expires_in: life }) => {
                self.redactor.learn_headers(&header);
                let until = Timestamp::now() + life;
                Ok(AccessToken { header, asked, life, until })
            }
            Err(TokenErrorResponse { message: what, remedy }) => {
                let said = [vec![format!("it {what}")], hints, vec![remedy.to_owned()]].concat();
                let words = format!("{} (client-request-id {id})", said.join("; "));
                let words = with_retry_after(words, retry_after);
                Err(TokenError { retry_after, ..self.failure(words, true) })
            }
        }
    }

    fn stamps(&self) -> Stamps {
        let files = match &self.client.proof {
            ClientAuthentication::Secret { file } => vec![file],
            ClientAuthentication::Assertion(files) => vec![&files.cert_file, &files.key_file],
            ClientAuthentication::Kerberos(kerberos) => vec![&kerberos.keytab],
        };
        files.into_iter().map(|file| FileVersion::of(file).ok()).collect()
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
    let text = reloading_file::bare_secret(path, SECRET_LIMIT).map_err(|error| {
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
fn skew(welcome: &AuthResponse) -> Option<String> {
    let ahead = Timestamp::now().duration_since(welcome.date?).as_secs();
    if ahead.unsigned_abs() < SKEW {
        return None;
    }
    let (off, side) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
    Some(format!("this machine's clock is {off} s {side} the endpoint's"))
}
