//! The token endpoint: the request, and what comes of it.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use form_urlencoded::byte_serialize;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method, Request, Url};
use tokio::time::Instant;
use uuid::Uuid;

use super::assertion::{Signer, assertion};
use super::token_provider::{AccessToken, FileVersions, TokenError, TokenIssuer};
use super::token_response::{self, TokenResponse};
use crate::cm::auth::negotiate::Negotiate;
use crate::cm::classify::{AuthDecision, HttpResponse};
use crate::cm::headers::with_retry_after;
use crate::cm::http::{BodyLimits, HttpClient};
use crate::cm::redact::Redactor;
use crate::cm::secret::{self, FileVersion, Secret};
use crate::config::{ClientAuthSettings, CmSettings, OAuth2Settings};
use crate::domain::{Problem, UnavailableReason};

/// The longest response.
const RESPONSE_LIMIT: usize = 256 << 10;

/// The longest file with a client secret.
const SECRET_LIMIT: u64 = 4 << 10;

/// A larger difference of the clocks, in seconds, is reported: assertions contain times.
const MAX_SKEW: u64 = 60;

/// AD FS writes the id of a request into its event log under this name, and returns it.
const REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");

pub(super) struct TokenEndpoint {
    http: HttpClient,
    url: Url,
    client: OAuth2Settings,
    /// If the client authenticates with Kerberos.
    negotiate: Option<Negotiate>,
}

struct TokenRequest {
    form: Secret,
    /// A possible cause, should the endpoint refuse.
    hint: Option<String>,
}

struct TokenReply {
    response: HttpResponse,
    hints: Vec<String>,
    /// Whether another Kerberos token may succeed.
    retry_auth: bool,
}

impl TokenEndpoint {
    pub(super) fn new(
        client: &OAuth2Settings,
        settings: &CmSettings,
        redactor: &Arc<Redactor>,
    ) -> Result<Self, Problem> {
        let url = url(&client.token_url)?;
        let http = HttpClient::new(&url, settings, redactor, false)?;
        let negotiate = match &client.proof {
            ClientAuthSettings::Secret { .. } | ClientAuthSettings::Assertion(_) => None,
            ClientAuthSettings::Kerberos(kerberos) => {
                Some(Negotiate::new(kerberos, Arc::clone(http.transport())))
            }
        };
        Ok(Self { http, url, client: client.clone(), negotiate })
    }

    pub(super) fn learn_secret(&self) {
        if let ClientAuthSettings::Secret { file } = &self.client.proof
            && let Ok(secret) = client_secret(file)
        {
            self.http.redactor().learn(secret.expose());
        }
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client.client_id
    }

    /// The request, with the secrets that the files have now.
    fn token_request(&self) -> Result<TokenRequest, Problem> {
        let OAuth2Settings { client_id, token_url, resource, scope, proof } = &self.client;
        let mut hint = None;
        let proof = match proof {
            ClientAuthSettings::Secret { file } => vec![("client_secret", client_secret(file)?)],
            ClientAuthSettings::Assertion(files) => {
                let now = Timestamp::now();
                let signer = Signer::read(files, now)?;
                let signed = assertion(&signer, client_id, token_url, now)?;
                hint = signer.dates().map(str::to_owned);
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
                vec![("client_assertion_type", Secret::new(kind)), ("client_assertion", signed)]
            }
            ClientAuthSettings::Kerberos(_) => {
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
        for (name, value) in &proof {
            if matches!(*name, "client_secret" | "client_assertion") {
                self.http.redactor().learn(value.expose());
            }
        }
        Ok(TokenRequest { form, hint })
    }

    fn request(&self, form: Secret, id: Uuid, authorization: Option<HeaderValue>) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // A GUID is always a valid header value.
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(header) = authorization {
            headers.insert(AUTHORIZATION, header);
        }
        *request.body_mut() = Some(Body::from(form.into_bytes()));
        request
    }

    async fn exchange(&self, id: Uuid, deadline: Instant) -> Result<TokenReply, TokenError> {
        let TokenRequest { form, hint } =
            self.token_request().map_err(|problem| self.failure(problem, false))?;
        let (authorization, pending) = match &self.negotiate {
            Some(negotiate) => {
                let token = negotiate.token(deadline).await;
                let (header, pending) =
                    token.map_err(|error| self.failure(error.detail(), false))?;
                self.http.redactor().learn_headers(&header);
                (Some(header), Some(pending))
            }
            None => (None, None),
        };
        let request = self.request(form, id, authorization);
        let limits = BodyLimits { limit: RESPONSE_LIMIT, deadline, list: None };
        let failure =
            |detail: &str| self.failure(format!("{detail} (client-request-id {id})"), true);
        let response = self.http.exchange(request, limits).await.map_err(|error| {
            let remedy = error.unavailable_reason().map_or(String::new(), remedy);
            failure(&format!("{}; {remedy}", error.detail()))
        })?;
        let hints = hint.into_iter().chain(skew(&response)).collect();
        let decision = match (&self.negotiate, pending) {
            (Some(negotiate), Some(pending)) => {
                negotiate.on_response(pending, &response, deadline).await
            }
            (_, _) => AuthDecision::Accept,
        };
        match decision {
            AuthDecision::Reject(error) => Err(failure(error.detail())),
            AuthDecision::Accept => Ok(TokenReply { response, hints, retry_auth: false }),
            AuthDecision::Retry => Ok(TokenReply { response, hints, retry_auth: true }),
        }
    }

    fn failure(&self, detail: impl Display, asked: bool) -> TokenError {
        let message = format!("no token from {}: {detail}", self.name());
        let message = self.http.redactor().redact(&message);
        TokenError { message, retry_after: None, asked }
    }
}

impl TokenIssuer for TokenEndpoint {
    async fn request_token(&self) -> Result<AccessToken, TokenError> {
        let (id, asked, endpoint) = (Uuid::new_v4(), Instant::now(), self.name());
        let deadline = self.http.deadline();
        let reply = match self.exchange(id, deadline).await {
            Ok(TokenReply { retry_auth: true, .. }) => self.exchange(id, deadline).await,
            reply => reply,
        };
        let elapsed_ms = asked.elapsed().as_millis();
        let TokenReply { response, hints, .. } = reply.inspect_err(|error| {
            let error = &error.message;
            tracing::debug!(endpoint, client_request_id = %id, elapsed_ms, error, "Token request failed");
        })?;
        let (status, retry_after) = (response.status, response.retry_after);
        tracing::debug!(endpoint, client_request_id = %id, status, elapsed_ms, "Token endpoint responded");
        match token_response::parse(response) {
            Ok(TokenResponse { header, expires_in: life }) => {
                self.http.redactor().learn_headers(&header);
                Ok(AccessToken { header, asked, life, until: Timestamp::now() + life })
            }
            Err(Problem { what, remedy }) => {
                let parts = [vec![format!("it {what}")], hints, vec![remedy]].concat();
                let detail = format!("{} (client-request-id {id})", parts.join("; "));
                let detail = with_retry_after(detail, retry_after);
                Err(TokenError { retry_after, ..self.failure(detail, true) })
            }
        }
    }

    fn file_versions(&self) -> FileVersions {
        let files = match &self.client.proof {
            ClientAuthSettings::Secret { file } => vec![file],
            ClientAuthSettings::Assertion(files) => vec![&files.cert_file, &files.key_file],
            ClientAuthSettings::Kerberos(kerberos) => vec![&kerberos.keytab],
        };
        files.into_iter().map(|file| FileVersion::of(file).ok()).collect()
    }

    fn name(&self) -> &str {
        self.http.transport().peer.name()
    }
}

/// The endpoint's address: it gets secrets, so the connection must be encrypted or local.
fn url(text: &str) -> Result<Url, Problem> {
    let unusable = |url: &str, reason: &str| {
        Problem::new(
            format!("cm.auth.token_url {url:?} is not usable: {reason}"),
            "write cm.auth.token_url like https://HOST/adfs/oauth2/token",
        )
    };
    // Not shown: it has a password.
    if text.contains('@') {
        return Err(unusable("(with a user name)", "it has a user name in it"));
    }
    let url: Url = text.parse().map_err(|error| unusable(text, &format!("{error}")))?;
    let host = url.host_str().unwrap_or_default();
    let is_local = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        _ => Err(unusable(text, "it is not https, and leads to another machine")),
    }
}

/// The remedy for a missing response, as for CM, but with the endpoint's address.
fn remedy(reason: UnavailableReason) -> String {
    reason
        .remedy()
        .replace("cm.url points to CM", "cm.url points to the token endpoint")
        .replace("cm.url", "cm.auth.token_url")
}

/// The secret in a file: one line, without its end.
pub(in crate::cm) fn client_secret(path: &Path) -> Result<Secret, Problem> {
    let shown = path.display();
    let text = secret::bare_secret(path, SECRET_LIMIT).map_err(|Problem { what, remedy }| {
        Problem::new(format!("cannot read {shown}: {what}"), remedy)
    })?;
    let line = text.expose().trim_end_matches(['\r', '\n']);
    let what = if line.is_empty() {
        "there is nothing"
    } else if line.contains(['\r', '\n']) {
        "there is more than one line"
    } else {
        return Ok(Secret::new(line.to_owned()));
    };
    Err(Problem::new(format!("{what} in {shown}"), "write the client's secret into it"))
}

/// A form, in memory that does not move.
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
        out.extend(byte_serialize(value.as_bytes()));
    }
    form
}

/// The difference of the clocks, if it is large.
fn skew(response: &HttpResponse) -> Option<String> {
    let ahead = Timestamp::now().duration_since(response.date?).as_secs();
    if ahead.unsigned_abs() < MAX_SKEW {
        return None;
    }
    let (off, side) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
    Some(format!("this machine's clock is {off} s {side} the endpoint's"))
}
