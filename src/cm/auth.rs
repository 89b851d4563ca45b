//! How the station is let in: what goes along with a call, and what an answer says about it.
//!
//! Each method gives a [`RequestAuth`] for one call. After the answer it is asked what came of it: a 401
//! may be worth one more try with another pass, and a server that can prove itself has to.

mod bearer;
mod negotiate;
mod oauth2;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::time::Instant;

use super::http_transport::HttpTransport;
use super::redact::Redactor;
use super::retry_after;
use super::setup::{SetupError, TransportBuilder};
use super::{AuthOptions, CmOptions};
use crate::domain::{CallError, CredentialsView};
use bearer::BearerTokenFile;
use negotiate::{Negotiate, PendingContext, TargetServer};
use oauth2::OAuth2Client;

/// Where passes come from.
pub(super) enum Authenticator {
    None,
    Bearer(BearerTokenFile),
    Negotiate(Box<Negotiate>),
    OAuth2(Box<OAuth2Client>),
}

/// What goes along with one call.
pub(super) struct RequestAuth {
    /// The `Authorization` header; marked as sensitive.
    pub(super) header: Option<HeaderValue>,
    /// What has to come of it.
    negotiation: Option<PendingContext>,
}

/// What an answer says about the pass that went with its call.
#[derive(Debug, Default)]
pub(super) struct AuthResponse {
    /// The HTTP status.
    pub(super) status: u16,
    /// `WWW-Authenticate`, each line of it.
    pub(super) challenges: Vec<HeaderValue>,
    /// The certificate of the server that answered, as DER; none without TLS.
    pub(super) certificate: Option<Vec<u8>>,
    /// What the server's clock showed.
    pub(super) date: Option<Timestamp>,
}

/// What to do after an answer.
pub(super) enum AuthDecision {
    /// Believe it.
    Accept,
    /// Ask again, once, with another pass: this answer is a 401, so nothing was done.
    Retry,
    /// Do not believe it.
    Reject(CallError),
}

impl Authenticator {
    /// `outbound` is what the calls to CM go through.
    pub(super) fn new(
        options: &CmOptions,
        clients: &TransportBuilder<'_>,
        outbound: &Arc<HttpTransport>,
    ) -> Result<Self, SetupError> {
        Ok(match &options.auth {
            AuthOptions::None => Self::None,
            AuthOptions::Bearer { token_file } => {
                Self::Bearer(BearerTokenFile::new(token_file.clone()))
            }
            AuthOptions::Negotiate(kerberos) => {
                let server = TargetServer {
                    url: clients.base().clone(),
                    outbound: Arc::clone(outbound),
                    connect_timeout: options.connect_timeout,
                };
                Self::Negotiate(Box::new(Negotiate::new(kerberos, server)))
            }
            AuthOptions::OAuth2(client) => {
                Self::OAuth2(Box::new(OAuth2Client::new(client, options, clients)?))
            }
        })
    }

    /// What goes along with the next call.
    pub(super) async fn authorize(&self, deadline: Instant) -> Result<RequestAuth, CallError> {
        match self {
            Self::None => Ok(RequestAuth { header: None, negotiation: None }),
            Self::Bearer(file) => Ok(RequestAuth::token(file.authorization()?)),
            Self::Negotiate(negotiate) => negotiate.pass(deadline).await,
            Self::OAuth2(source) => source.token(deadline).await.map(RequestAuth::token),
        }
    }

    /// Has what the files hold known as secret, as far as they can be read.
    pub(super) fn learn_secrets(&self, redactor: &Redactor) {
        match self {
            Self::None | Self::Negotiate(_) => {}
            Self::Bearer(file) => {
                if let Ok(header) = file.authorization() {
                    redactor.learn_headers(&header);
                }
            }
            Self::OAuth2(source) => source.learn(),
        }
    }

    /// The next call asks for what it needs, whatever an issuer said of waiting.
    pub(super) fn expedite(&self) {
        if let Self::OAuth2(source) = self {
            source.expedite();
        }
    }

    /// How it stands with them, for people.
    pub(super) fn view(&self) -> CredentialsView {
        let method = match self {
            Self::Negotiate(negotiate) => return negotiate.view(),
            Self::OAuth2(source) => return source.view(),
            Self::None => "none",
            Self::Bearer(_) => "bearer",
        };
        CredentialsView { method: method.to_owned(), ..CredentialsView::default() }
    }

    /// What to make of an answer, as far as it is about the pass.
    pub(super) async fn on_response(
        &self,
        pass: RequestAuth,
        welcome: AuthResponse,
        deadline: Instant,
    ) -> AuthDecision {
        match self {
            Self::None => AuthDecision::Accept,
            Self::Bearer(file) => file.after(&pass, &welcome),
            Self::Negotiate(negotiate) => negotiate.after(pass, welcome, deadline).await,
            Self::OAuth2(source) => source.after(&pass, &welcome),
        }
    }
}

/// Why there is no token in a file.
pub(super) fn token_in(path: &Path) -> Result<(), String> {
    bearer::read(path).map(drop).map_err(|error| error.to_string())
}

/// Why there is no client secret in a file.
pub(super) fn secret_in(path: &Path) -> Result<(), String> {
    oauth2::secret_in(path).map(drop)
}

/// Why a file is no keytab.
pub(super) fn keytab(path: &Path) -> Result<(), String> {
    negotiate::keytab(path)
}

impl RequestAuth {
    /// A token that needs nothing from the answer.
    const fn token(header: HeaderValue) -> Self {
        Self { header: Some(header), negotiation: None }
    }
}

impl AuthResponse {
    pub(super) fn new(status: u16, headers: &HeaderMap, certificate: Option<Vec<u8>>) -> Self {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        Self { status, challenges, certificate, date: retry_after::date(headers) }
    }

    /// Whether the caller was not let in.
    pub(super) const fn is_unauthorized(&self) -> bool {
        self.status == 401
    }
}
